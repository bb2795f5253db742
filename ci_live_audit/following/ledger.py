"""Keeps the fate of each job of a run: failures in a row, the last response, the end. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from ci_live_audit.errors import (
    ConfigurationError,
    CredentialsError,
    LiveAuditError,
    ServiceError,
    WaitTimeout,
)
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.models import AuditJob, JobState

__all__ = ["Ledger", "Update"]

#: A job is given up after this many failed polls in a row: after ten minutes or more.
MAX_FAILURES = 16
#: Seconds before its deadline from which the last response of a job is held until then. A job
#: polled for the last time before that times out at once, for there may be very many.
HELD = 1.0


@attrs.frozen
class Update:
    """A job as it was polled, if it was; and the error after which it is not followed, if any."""

    job_id: str
    job: AuditJob | None = None
    error: LiveAuditError | None = None


class Ledger:
    """Decides after each poll whether a job goes on; ``ended`` and ``failed`` as in `Progress`."""

    def __init__(self, schedule: Schedule, *, keep_last: bool = False) -> None:
        self._schedule = schedule
        self._keep_last = keep_last
        self._failures: dict[str, int] = {}
        self._last: dict[str, AuditJob] = {}
        # Jobs that were polled for the last time, with the error if that failed.
        self._spent: dict[str, LiveAuditError | None] = {}
        self._has_succeeded = False
        self.ended: int = 0
        self.failed: int = 0

    def is_in_flight(self, job_id: str) -> bool:
        """Return whether the result of a poll is outstanding."""
        return job_id in self._schedule.in_flight and job_id not in self._spent

    def record_job(self, job_id: str, job: AuditJob, now: float) -> Update | None:
        """Record a successful poll; return None if it came after the deadline."""
        self._has_succeeded = True
        self._failures.pop(job_id, None)
        if not self.is_in_flight(job_id):
            return None
        error = None
        if job.ended:
            self._schedule.finish(job_id)
            self.ended += job.state != JobState.FAILED
            self.failed += job.state == JobState.FAILED
        elif not self._schedule.put_back(job_id, now):
            self._last[job_id] = job
            error = self._spend(job_id, None, now)
        elif self._keep_last:
            self._last[job_id] = job
        return Update(job_id, job, error)

    def record_error(self, job_id: str, error: LiveAuditError, now: float) -> Update | None:
        """Record a failed poll; return None if the job goes on or was not being polled."""
        if not self.is_in_flight(job_id):
            return None
        failures = self._failures.pop(job_id, 0) + 1
        if not (error.transient or self._may_pass(error)) or failures >= MAX_FAILURES:
            self._schedule.finish(job_id)
            self.failed += 1
            return Update(job_id, error=error)
        if self._schedule.put_back(job_id, now, failures, at_least=error.retry_after or 0.0):
            self._failures[job_id] = failures
            return None
        timeout = self._spend(job_id, error, now)
        return None if timeout is None else Update(job_id, error=timeout)

    def expire(self, now: float) -> Update | None:
        """Give up a job whose deadline has passed; return None if there is none."""
        job_id = self._schedule.expire(now)
        if job_id is None:
            return None
        self._failures.pop(job_id, None)
        return Update(job_id, error=self._timed_out(job_id, "not ended"))

    def reject(self, job_id: Any) -> Update:
        """Give up an id that is no text."""
        self.failed += 1
        reason = f"job_ids: expected texts; got {type(job_id).__name__}"
        return Update(job_id, error=ConfigurationError(reason))

    def _may_pass(self, error: LiveAuditError) -> bool:
        """Return whether an error that is final for a single call may be gone at the next poll."""
        if isinstance(error, CredentialsError):
            return self._has_succeeded
        # A refusal without a document is not the service's: a proxy's page, half a response.
        return isinstance(error, ServiceError) and error.status > 0 and not error.code

    def _spend(self, job_id: str, error: LiveAuditError | None, now: float) -> WaitTimeout | None:
        """Hold a job after its last poll until its deadline, or time out if that is far off."""
        self._spent[job_id] = error
        if self._schedule.deadline_of(job_id) - now <= HELD:
            return None
        self._schedule.finish(job_id)
        return self._timed_out(job_id, "too many jobs to poll this one again")

    def _timed_out(self, job_id: str, reason: str) -> WaitTimeout:
        self.failed += 1
        last = self._last.pop(job_id, None)
        seen = "" if last is None else f"; it was {last.state}"
        error = WaitTimeout(f"{reason} within {self._schedule.timeout:g} s{seen}", last=last)
        error.__cause__ = self._spent.pop(job_id, None)
        return error.about("wait", job_id)
