"""Following many jobs to their ends: `Outcomes` (as_completed), and `wait` for a single one."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import attrs

from ci_live_audit.errors import AccessDenied, CredentialsError, JobFailed, LiveAuditError
from ci_live_audit.following.run import Query, Run
from ci_live_audit.models import AuditJob, JobState, plain

__all__ = ["Outcome", "Outcomes", "Progress", "wait"]


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one id.

    Attributes:
        job_id: The id.
        job: The job, which has ended; None if that is not known.
        error: Why it is not known; a `JobFailed` if the job ended in state Failed.
    """

    job_id: str
    job: AuditJob | None = None
    error: LiveAuditError | None = None

    def unwrap(self) -> AuditJob:
        """The job.

        Raises:
            LiveAuditError: The outcome is an error.
        """
        if self.error is not None:
            raise self.error
        assert self.job is not None
        return self.job

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain values, ready for ``json.dumps``."""
        return {name: plain(getattr(self, name)) for name in ("job_id", "job", "error")}


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        open: How many ids have no answer yet, of those that are known.
        ended: How many jobs have ended well, or were cancelled.
        failed: How many ids were answered with an error, those of failed jobs included.
        requests: How many requests were sent.
        eta: Seconds in which the quota lets each open job be asked once, the soonest that the run
            can be over; None while there may be ids that are not known.
    """

    open: int
    ended: int
    failed: int
    requests: int
    eta: float | None


class Outcomes(Run[Outcome]):
    """The outcomes of a bulk run, in the order in which the jobs end: an async iterator.

    Made by `LiveAuditClient.as_completed`. Use it as ``async with … as outcomes``; leaving it stops
    everything. It is meant for one consumer.
    """

    _ended = 0
    _errors = 0
    _in_hand: Outcome | None = None

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        open_ = self._ids.unread + self._schedule.open
        return Progress(
            open=open_,
            ended=self._ended,
            failed=self._errors,
            requests=self._polls if self._limiter is None else self._limiter.requests,
            eta=open_ / self._rate if self._ids.known or self._ids.exhausted else None,
        )

    async def __anext__(self) -> Outcome:
        """The next outcome; asking for it says that the one before has been dealt with."""
        self._settle()
        outcome = await super().__anext__()
        self._in_hand = outcome
        return outcome

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self._settle()
        finally:
            await super().__aexit__(exc_type, exc, traceback)

    def _settle(self) -> None:
        outcome, self._in_hand = self._in_hand, None
        if self._checkpoint is None or outcome is None or not isinstance(outcome.job_id, str):
            return
        # That the account is refused says nothing of the job: a later run is to ask for it.
        if not isinstance(outcome.error, AccessDenied | CredentialsError):
            self._checkpoint.answer(outcome.job_id)

    def _deliver(self, number: int, job: AuditJob) -> None:
        if not job.ended:
            return
        job_id = self._schedule.job_id(number)
        error = _job_failed(job_id, job) if job.state == JobState.FAILED else None
        self._ended += error is None
        self._errors += error is not None
        self._ready.append(Outcome(job_id=job_id, job=job, error=error))

    def _deliver_error(
        self,
        number: int | None,  # noqa: ARG002 - of no interest here
        job_id: str,
        error: LiveAuditError,
    ) -> None:
        self._errors += 1
        self._ready.append(Outcome(job_id=job_id, error=error))


async def wait(query: Query, job_id: str, **options: Any) -> AuditJob:
    """Ask for a job until it has ended; the arguments are those of the runs.

    Raises:
        JobFailed: It ended in state Failed.
        WaitTimeout: It did not end in time.
        LiveAuditError: It cannot be asked for.
    """
    async with Outcomes(query, [job_id], keep_last=True, **options) as outcomes:
        outcome = await anext(outcomes)
    return outcome.unwrap()


def _job_failed(job_id: str, job: AuditJob) -> JobFailed:
    reason = " ".join(filter(None, [job.code, job.message])) or "no reason was given"
    error = JobFailed(f"the job failed: {reason}", job=job)
    error.operation, error.job_id = "wait", job_id
    return error
