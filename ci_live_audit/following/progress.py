"""How far a run has come. Pure."""

from __future__ import annotations

import attrs

__all__ = ["Progress"]


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        open: Number of known ids without an outcome.
        ended: Number of jobs that ended well or were cancelled.
        failed: Number of ids that ended in an error, those of failed jobs included.
        requests: Number of requests sent.
        eta: Seconds in which the quota allows one poll of each open job, the earliest end of the
            run; None while there may be ids that are not known yet.
        outage: Seconds for which no poll has succeeded while the service is out; None while it
            works.
        flagged: Number of open jobs that were suspected or sensitive when they were last seen.
        next_poll: Seconds until the next poll is due; None if none is.
    """

    open: int
    ended: int
    failed: int
    requests: int
    eta: float | None
    outage: float | None = None
    flagged: int = 0
    next_poll: float | None = None
