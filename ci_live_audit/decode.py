"""Decode the bodies of responses and callbacks: pure functions from bytes to results.

`from_dict` reads back what ``to_dict()`` of a job returned.
"""

from ci_live_audit.wire.plain import job as from_dict
from ci_live_audit.wire.refusals import error
from ci_live_audit.wire.results import cancelled, job, submitted

__all__ = ["cancelled", "error", "from_dict", "job", "submitted"]
