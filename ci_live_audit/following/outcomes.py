"""Follows jobs to their ends: `Outcomes` (as_completed, wait)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from ci_live_audit.errors import JobFailed, LiveAuditError, WaitTimeout
from ci_live_audit.following.commit import Commit, last_commit
from ci_live_audit.following.ids import Source
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.polling import HasRoom, Polling
from ci_live_audit.following.progress import Progress
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.run import Run
from ci_live_audit.models import AuditJob, JobState, plain

__all__ = ["Outcome", "Outcomes", "Progress"]


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of following one id.

    Attributes:
        job_id: The id.
        job: The job, which has ended; after a `WaitTimeout`, the job as it was last seen; None if
            it was never seen, or after any other error.
        error: Why the end is not known; a `JobFailed` if the job ended in state Failed.
    """

    job_id: str
    job: AuditJob | None = None
    error: LiveAuditError | None = None

    def unwrap(self) -> AuditJob:
        """Return the job.

        Raises:
            LiveAuditError: The outcome is an error.
        """
        if self.error is not None:
            raise self.error
        assert self.job is not None
        return self.job

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain values, ready for ``json.dumps``."""
        return {name: plain(getattr(self, name)) for name in ("job_id", "job", "error")}


class Outcomes(Run[Outcome]):
    """The outcomes of a bulk run, in the order in which the jobs end: an async iterator.

    Made by `LiveAuditClient.as_completed`. Use it as ``async with … as outcomes``; leaving the
    block stops everything. It is meant for one consumer.
    """

    def __init__(self, polling: Polling, job_ids: Source) -> None:
        super().__init__(polling, job_ids, _Following())


class _Following:
    """Makes the outcomes of a run."""

    def begin(self, job_id: str, seen: bytes) -> None:
        """Begin to follow a job, of which nothing needs to be known."""

    def drop(self, job_id: str) -> None:
        """Forget a job, of which nothing is known."""

    def reading(self, job_id: str, has_room: HasRoom) -> Reading:  # noqa: ARG002
        """Return what reads the next response about a job."""
        return Reading()

    def items(
        self,
        update: Update,
        reading: Reading | None,  # noqa: ARG002
    ) -> tuple[Iterator[tuple[Outcome, Commit]], int]:
        """Return the outcome of an update if its job has ended or is given up."""
        outcome = _outcome(update)
        if outcome is None:
            return iter([]), 0
        return iter([(outcome, last_commit(outcome.job_id, outcome.job, outcome.error))]), 1

    def told(
        self,
        job_id: str,  # noqa: ARG002
        job: AuditJob,
    ) -> tuple[Iterator[tuple[Outcome, Commit]], int, bool]:
        """Return nothing: a callback has not all that a job found, so one that ended is asked."""
        return iter(()), 0, not job.ended


def _outcome(update: Update) -> Outcome | None:
    job_id, job, error = update.job_id, update.job, update.error
    if job is None or not job.ended:
        last = error.last if isinstance(error, WaitTimeout) else None
        return None if error is None else Outcome(job_id=job_id, job=last, error=error)
    if job.state == JobState.FAILED:
        reason = " ".join(filter(None, [job.code, job.message])) or "no reason was given"
        error = JobFailed(f"the job failed: {reason}", job=job).about("wait", job_id)
    return Outcome(job_id=job_id, job=job, error=error)
