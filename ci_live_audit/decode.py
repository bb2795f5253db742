"""Decode response bodies that are at hand: pure functions from bytes to results.

The public face of `ci_live_audit.wire`.
"""

from ci_live_audit.wire.refusals import error
from ci_live_audit.wire.results import cancelled, job, submitted

__all__ = ["cancelled", "error", "job", "submitted"]
