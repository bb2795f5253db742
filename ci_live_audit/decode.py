"""Decode the bodies of responses and callbacks: pure functions from bytes to results."""

from ci_live_audit.wire.refusals import error
from ci_live_audit.wire.results import cancelled, job, submitted

__all__ = ["cancelled", "error", "job", "submitted"]
