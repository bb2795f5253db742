"""Keeps the fate of each job of a run: failures in a row, the last response, the end. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import attrs

from ci_live_audit.errors import InvalidInput, LiveAuditError, WaitTimeout
from ci_live_audit.following.health import Health
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot

__all__ = ["Ledger", "Update"]

#: A job is given up after this many failed polls in a row, if others succeeded between them: after
#: ten minutes or more.
MAX_FAILURES = 16
#: The last responses of this many jobs are kept for a `WaitTimeout`, beside those with a flag.
KEPT = 10_000
#: Of their lists, this many of the worst flagged items.
WORST = 3
#: Seconds before its deadline from which the last response of a job is held until then. A job
#: polled for the last time before that times out at once, for there may be very many.
HELD = 1.0

Item = TypeVar("Item", Snapshot, AudioSection)


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
        self.health: Health = Health()
        # Failures in a row, the number of responses to the run at the last of them, its error.
        self._failures: dict[str, tuple[int, int, LiveAuditError]] = {}
        self._last: dict[str, AuditJob] = {}
        # Jobs that were polled for the last time, with the error if that failed.
        self._spent: dict[str, LiveAuditError | None] = {}
        #: Jobs that go on, and were suspected or sensitive when they were last seen.
        self.flagged: set[str] = set()
        self.ended: int = 0
        self.failed: int = 0

    def is_in_flight(self, job_id: str) -> bool:
        """Return whether the result of a poll is outstanding."""
        return job_id in self._schedule.in_flight and job_id not in self._spent

    def record_job(self, job_id: str, job: AuditJob, now: float) -> Update | None:
        """Record a successful poll; return None if it came after the deadline."""
        self.health.record_success(now)
        self._failures.pop(job_id, None)
        if not self.is_in_flight(job_id):
            return None
        error = None
        flagged = job.result is not None and job.result.severity > 0
        (self.flagged.add if flagged else self.flagged.discard)(job_id)
        if job.ended:
            self._finish(job_id)
            self.ended += job.state != JobState.FAILED
            self.failed += job.state == JobState.FAILED
        elif not self._schedule.put_back(job_id, now):
            self._last[job_id] = job
            error = self._spend(job_id, None, now)
        else:
            self._keep(job_id, job)
        return Update(job_id, job, error)

    def record_error(self, job_id: str, error: LiveAuditError, now: float) -> Update | None:
        """Record a failed poll; return None if the job goes on or was not being polled.

        Raises:
            LiveAuditError: The error concerns every job, and none should be polled any more.
        """
        if not self.is_in_flight(job_id):
            return None
        health = self.health
        health.record_error(error, now, self._schedule.open)
        if health.is_fatal(error):
            raise error
        failures, responses, _ = before = self._failures.pop(job_id, (0, -1, error))
        # A failure says something about the job only if others do better; that of a poll beside
        # its turns does not count, so that callbacks do not make it given up sooner.
        is_extra = self._schedule.is_extra(job_id)
        failures += health.responses > responses and not is_extra
        if not health.may_pass(error) or failures >= MAX_FAILURES:
            self._finish(job_id)
            self.failed += 1
            return Update(job_id, error=error)
        backoff = 1 if health.is_out or is_extra else failures
        if self._schedule.put_back(job_id, now, backoff, at_least=error.retry_after or 0.0):
            self._failures[job_id] = before if is_extra else (failures, health.responses, error)
            return None
        timeout = self._spend(job_id, error, now)
        return None if timeout is None else Update(job_id, error=timeout)

    def expire(self, now: float) -> Update | None:
        """Give up a job whose deadline has passed; return None if there is none."""
        job_id = self._schedule.expire(now)
        if job_id is None:
            return None
        *_, cause = self._failures.pop(job_id, (self.health.error,))
        self._spent.setdefault(job_id, cause)
        return Update(job_id, error=self._timed_out(job_id, "not ended"))

    def drop(self, job_id: str) -> None:
        """Forget a job that is followed no longer, and will not be counted."""
        self._schedule.drop(job_id)
        self.flagged.discard(job_id)
        for known in (self._failures, self._last, self._spent):
            known.pop(job_id, None)

    def reject(self, job_id: Any) -> Update:
        """Give up an id that is no text."""
        self.failed += 1
        reason = f"job_ids: expected texts; got {type(job_id).__name__}"
        return Update(job_id, error=InvalidInput(reason))

    def _finish(self, job_id: str) -> None:
        self._schedule.finish(job_id)
        self.flagged.discard(job_id)
        self._last.pop(job_id, None)

    def _keep(self, job_id: str, job: AuditJob) -> None:
        """Keep a response for a later `WaitTimeout`."""
        if self._keep_last:
            self._last[job_id] = job
        elif self._schedule.timeout < math.inf:
            self._last.pop(job_id, None)
            flagged = job.result is not None and job.result.severity > 0
            if flagged or len(self._last) < KEPT:
                self._last[job_id] = attrs.evolve(
                    job, snapshots=_worst(job.snapshots), audio_sections=_worst(job.audio_sections)
                )

    def _spend(self, job_id: str, error: LiveAuditError | None, now: float) -> WaitTimeout | None:
        """Hold a job after its last poll until its deadline, or time out if that is far off."""
        self._spent[job_id] = error
        if self._schedule.deadline_of(job_id) - now <= HELD:
            return None
        self._schedule.finish(job_id)
        return self._timed_out(job_id, "too many jobs to poll this one again")

    def _timed_out(self, job_id: str, reason: str) -> WaitTimeout:
        self.failed += 1
        self.flagged.discard(job_id)
        last = self._last.pop(job_id, None)
        seen = "" if last is None else f"; it was {last.state}"
        error = WaitTimeout(f"{reason} within {self._schedule.timeout:g} s{seen}", last=last)
        error.__cause__ = self._spent.pop(job_id, None)
        return error.about("wait", job_id)


def _worst(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the worst of the flagged items."""
    flagged = (one for one in items if one.result is not None and one.result.severity > 0)
    return tuple(heapq.nlargest(WORST, flagged, key=_badness))


def _badness(item: Snapshot | AudioSection) -> tuple[int, int]:
    severity = 0 if item.result is None else item.result.severity
    return severity, max((hit.score or 0 for hit in item.hits.values()), default=0)
