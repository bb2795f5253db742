"""Follows jobs to their ends: `Outcomes` (as_completed, wait)."""

from __future__ import annotations

from typing import Any

import attrs

from ci_live_audit.errors import AccessDenied, CredentialsError, JobFailed, LiveAuditError
from ci_live_audit.following.dispatcher import Polling, Progress
from ci_live_audit.following.ids import Source
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.run import Run
from ci_live_audit.models import AuditJob, JobState, plain

__all__ = ["Outcome", "Outcomes", "Progress"]


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of following one id.

    Attributes:
        job_id: The id.
        job: The job, which has ended; None if its end is not known.
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
        super().__init__(polling, job_ids, _outcomes)
        self._checkpoint = polling.checkpoint
        self._in_hand: Outcome | None = None

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self._dispatcher.progress

    async def __anext__(self) -> Outcome:
        """Return the next outcome; the one before counts as dealt with."""
        self._settle()
        self._in_hand = await super().__anext__()
        return self._in_hand

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exc_type is None:
                self._settle()
        finally:
            await super().__aexit__(exc_type)

    def _settle(self) -> None:
        """Note in the checkpoint that the outcome in hand has been dealt with."""
        outcome, self._in_hand = self._in_hand, None
        if self._checkpoint is None or outcome is None or not isinstance(outcome.job_id, str):
            return
        # Refused credentials say nothing about the job: a later run is to poll it.
        if not isinstance(outcome.error, AccessDenied | CredentialsError):
            self._checkpoint.answer(outcome.job_id)


def _outcomes(update: Update) -> list[Outcome]:
    """Return the outcome of an update if its job has ended or is given up."""
    job_id, job, error = update.job_id, update.job, update.error
    if job is None or not job.ended:
        return [] if error is None else [Outcome(job_id=job_id, error=error)]
    if job.state == JobState.FAILED:
        reason = " ".join(filter(None, [job.code, job.message])) or "no reason was given"
        error = JobFailed(f"the job failed: {reason}", job=job).about("wait", job_id)
    return [Outcome(job_id=job_id, job=job, error=error)]
