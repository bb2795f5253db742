"""How the response to a poll is read: of a job that goes on, only what its run needs. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ci_live_audit.models import AuditJob
from ci_live_audit.wire import items, results

__all__ = ["Reading"]


class Reading:
    """Reads the response to one poll: of a job that goes on, what stands outside the lists.

    A large body is read in a worker thread, so nothing is changed here but the reading itself.
    """

    #: Bytes that were parsed: what is kept of a response is about half as large.
    size: int = 0

    def read(
        self, body: bytes, *, received_at: datetime | None = None, pause: Any = None
    ) -> AuditJob:
        """Decode a body, as `results.job` does."""
        rest = items.without(body)
        job = None if rest is None else self._part(rest, received_at, pause)
        return self._whole(body, received_at, pause) if job is None else job

    def _part(self, rest: items.Rest, received_at: datetime | None, pause: Any) -> AuditJob | None:
        self.size = len(rest.body)
        return results.job_without(rest, received_at=received_at, pause=pause)

    def _whole(self, body: bytes, received_at: datetime | None, pause: Any) -> AuditJob:
        self.size = len(body)
        return results.job(body, received_at=received_at, pause=pause)
