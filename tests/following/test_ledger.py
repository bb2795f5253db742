"""The ledger: each poll has the right consequence for its job."""

from __future__ import annotations

import attrs
import pytest

from ci_live_audit import (
    AudioSection,
    AuditJob,
    CredentialsError,
    JobNotFound,
    JobState,
    LiveAuditError,
    Snapshot,
    Throttled,
    TransportError,
    Verdict,
    WaitTimeout,
)
from ci_live_audit.following.ledger import MAX_FAILURES, Ledger, Update
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.testing import frame, sound

RUNNING = AuditJob(job_id="a", state=JobState.AUDITING)


def ledger(
    timeout: float | None = None, *, rate: float = 20.0, keep_last: bool = False
) -> tuple[Schedule, Ledger]:
    """Return a ledger over a schedule with one job, "a", polled at 0."""
    schedule = Schedule(10, timeout, rate)
    assert schedule.add("a", 0)
    return schedule, Ledger(schedule, keep_last=keep_last)


def timed_out(update: Update | None) -> WaitTimeout:
    """Return the timeout in an update."""
    assert update is not None
    assert isinstance(update.error, WaitTimeout)
    return update.error


def test_a_running_job_goes_on() -> None:
    """The job is handed on, and is due an interval after its poll."""
    schedule, fates = ledger()
    assert fates.is_in_flight("a")
    assert fates.record_job("a", RUNNING, 1) == Update("a", RUNNING)
    assert not fates.is_in_flight("a")
    assert schedule.due(1) == 10
    assert (fates.ended, fates.failed) == (0, 0)


@pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.CANCELLED, JobState.FAILED])
def test_an_ended_job_is_finished(state: JobState) -> None:
    """It is counted as ended, or as failed in state Failed."""
    schedule, fates = ledger()
    job = AuditJob(job_id="a", state=state)
    assert fates.record_job("a", job, 1) == Update("a", job)
    assert schedule.open == 0
    failed = state == JobState.FAILED
    assert (fates.ended, fates.failed) == (not failed, failed)


def test_a_transient_error_backs_off_as_long_as_the_service_asks() -> None:
    """The job waits for the interval, or for Retry-After if that is longer."""
    schedule, fates = ledger()
    assert fates.record_error("a", TransportError("reset"), 1) is None
    assert schedule.pick(11) == "a"
    assert fates.record_error("a", Throttled(status=429, retry_after=100.0), 12) is None
    assert schedule.due(12) == 112


@pytest.mark.parametrize(
    "error", [JobNotFound(status=404, code="AuditingJobNotFound"), CredentialsError("none")]
)
def test_a_final_error_gives_the_job_up(error: LiveAuditError) -> None:
    """The error is handed on, and the job is finished and counted as failed."""
    schedule, fates = ledger()
    assert fates.record_error("a", error, 1) == Update("a", error=error)
    assert (schedule.open, fates.failed) == (0, 1)


def test_credentials_that_worked_before_may_come_back() -> None:
    """After a success, missing credentials are a transient error."""
    schedule, fates = ledger()
    fates.record_job("a", RUNNING, 1)
    assert schedule.pick(10) == "a"
    assert fates.record_error("a", CredentialsError("none"), 11) is None
    assert schedule.open == 1


def test_a_last_response_is_held_until_the_deadline() -> None:
    """After its last look a job has no poll in flight, and times out with its last response."""
    schedule, fates = ledger(timeout=15)
    schedule.put_back("a", 0)
    assert schedule.pick_last_look(14.5) == "a"
    assert fates.record_job("a", RUNNING, 14.6) == Update("a", RUNNING)
    assert not fates.is_in_flight("a")
    assert fates.expire(14.9) is None
    error = timed_out(fates.expire(15))
    assert str(error) == "wait of a: not ended within 15 s; it was Auditing"
    assert (error.last, fates.failed) == (RUNNING, 1)


def test_the_error_of_a_last_look_is_the_cause_of_the_timeout() -> None:
    """A timeout names the error of the poll before it."""
    schedule, fates = ledger(timeout=15)
    schedule.put_back("a", 0)
    schedule.pick_last_look(14.5)
    error = TransportError("reset")
    assert fates.record_error("a", error, 14.6) is None
    assert timed_out(fates.expire(15)).__cause__ is error


def test_too_many_jobs_time_out_early() -> None:
    """A job that cannot be polled again long before its deadline does not wait for it."""
    schedule, fates = ledger(timeout=100)
    schedule.share_deadline(0)
    schedule.unread = 2000
    update = fates.record_job("a", RUNNING, 1)
    reason = "wait of a: too many jobs to poll this one again within 100 s; it was Auditing"
    assert str(timed_out(update)) == reason
    assert update is not None
    assert update.job == RUNNING
    assert schedule.open == 0


SEEN = attrs.evolve(RUNNING, snapshots=(Snapshot(),), audio_sections=(AudioSection(),))


@pytest.mark.parametrize("keep_last", [False, True])
def test_a_response_is_kept_until_the_deadline(*, keep_last: bool) -> None:
    """All of it with keep_last, otherwise of the long lists the worst that was flagged."""
    _, fates = ledger(timeout=15, keep_last=keep_last)
    fates.record_job("a", SEEN, 1)
    assert timed_out(fates.expire(15)).last == (SEEN if keep_last else RUNNING)


def test_the_worst_of_a_response_is_kept() -> None:
    """Three of a list: sensitive before suspected, then by score; what is normal is not kept."""
    _, fates = ledger(timeout=15)
    sensitive, suspected = Verdict.SENSITIVE, Verdict.SUSPECTED
    frames = [
        frame(1),
        frame(2, "Ads", score=70, result=suspected),
        frame(3, "Porn", score=91, result=sensitive),
        frame(4, "Porn", score=99, result=sensitive),
        frame(5, "Ads", score=80, result=suspected),
    ]
    sounds = [sound(6, "Ads", score=50, result=suspected)]
    seen = attrs.evolve(RUNNING, snapshots=tuple(frames), audio_sections=tuple(sounds))
    fates.record_job("a", seen, 1)
    last = timed_out(fates.expire(15)).last
    assert last is not None
    assert last.snapshots == (frames[3], frames[2], frames[4])
    assert last.audio_sections == tuple(sounds)


def test_of_very_many_jobs_the_flagged_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of jobs only those with a suspected or sensitive verdict are kept."""
    monkeypatch.setattr("ci_live_audit.following.ledger.KEPT", 2)
    schedule, fates = ledger(timeout=15)
    verdicts = [None, Verdict.NORMAL, Verdict.NORMAL, Verdict.SUSPECTED, Verdict.SENSITIVE]
    jobs = [attrs.evolve(RUNNING, job_id=f"{n}", result=it) for n, it in enumerate(verdicts)]
    for job in jobs:
        schedule.add(job.job_id, 0)
        fates.record_job(job.job_id, job, 1)
    assert timed_out(fates.expire(15)).job_id == "a"
    assert [timed_out(fates.expire(15)).last for _ in jobs] == [*jobs[:2], None, *jobs[3:]]


def test_a_job_that_ended_is_kept_no_longer() -> None:
    """The last response of a job is forgotten when it has ended."""
    schedule, fates = ledger(timeout=15)
    fates.record_job("a", RUNNING, 1)
    schedule.pick(10)
    fates.record_job("a", attrs.evolve(RUNNING, state=JobState.SUCCESS), 11)
    assert fates._last == {}


def test_results_after_the_deadline_do_not_count() -> None:
    """A job or an error that comes after the timeout changes nothing."""
    _, fates = ledger(timeout=15)
    assert timed_out(fates.expire(15)).last is None
    assert fates.record_job("a", RUNNING, 16) is None
    assert fates.record_error("a", TransportError("reset"), 16) is None
    assert fates.failed == 1


def test_an_id_that_is_no_text_is_rejected() -> None:
    """It counts as failed, and the error names its type."""
    _, fates = ledger()
    update = fates.reject(7)
    assert fates.failed == 1
    assert repr(update.job_id) == "7"
    assert str(update.error) == "job_ids: expected texts; got int"


def test_failures_beside_the_turns_do_not_count() -> None:
    """A job whose extra polls fail is given up no sooner than without them, and keeps its turn."""
    schedule = Schedule(10, nudged=True)
    fates = Ledger(schedule)
    others = {f"{number}" for number in range(20)}
    for job_id in ("a", *others):
        assert schedule.add(job_id, 0)
        assert fates.record_job(job_id, AuditJob(job_id=job_id, state=JobState.AUDITING), 0)
    error = TransportError("no connection").about("query", "a")
    now, extras, turns = 0.0, 0, 0
    while turns < MAX_FAILURES:
        now += 0.5
        if schedule.follows("a"):
            schedule.nudge("a", now)
        while (picked := schedule.pick_nudged(now) or schedule.pick(now)) is not None:
            if picked in others:
                assert fates.record_job(picked, RUNNING, now)
                continue
            is_extra = schedule.is_extra(picked)
            extras += is_extra
            turns += not is_extra
            update = fates.record_error("a", error, now)
            assert (update is not None) == (turns == MAX_FAILURES)
    assert now >= 600
    assert extras > 40


def test_a_lasting_error_beside_the_turns_is_the_end() -> None:
    """What the service says for good of a job is believed whenever it is said."""
    schedule = Schedule(10, nudged=True)
    fates = Ledger(schedule)
    assert schedule.add("a", 0)
    assert fates.record_job("a", RUNNING, 0)
    assert schedule.nudge("a", 2)
    assert schedule.pick_nudged(2) == "a"
    error = JobNotFound("gone", status=404, code="NoSuchJob")
    assert fates.record_error("a", error, 2) == Update("a", error=error)
    assert schedule.open == 0
