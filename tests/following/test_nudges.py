"""Nudges: an extra look beside a job's turns, one at a time, and never in their place."""

from __future__ import annotations

import math
import random
import tracemalloc
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import Callbacks

from ci_live_audit import ConfigurationError, InvalidInput
from ci_live_audit.following.jobs import CHUNK
from ci_live_audit.following.nudges import APART, PAUSE, CallbackSource
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.schedule import Schedule

INTERVAL = 10.0


def nudged(jobs: int = 1, interval: float = INTERVAL, timeout: float | None = None) -> Schedule:
    """Return a schedule of jobs that were looked at for the first time at 0, and wait."""
    schedule = Schedule(interval, timeout, nudged=True)
    for number in range(jobs):
        assert schedule.add(f"j{number}", 0)
        assert schedule.put_back(f"j{number}", 0)
    return schedule


def look(schedule: Schedule, now: float, failures: int = 0) -> str | None:
    """Return the job that is looked at beside its turns, which waits again."""
    job_id = schedule.pick_nudged(now)
    if job_id is not None:
        assert schedule.is_extra(job_id)
        assert schedule.put_back(job_id, now, failures)
    return job_id


# One job


def test_a_nudge_leaves_the_turn_alone() -> None:
    """A nudged job is polled at once, and again in its turn."""
    schedule = nudged()
    assert schedule.due(2) == 10
    assert schedule.nudge("j0", 2)
    assert schedule.due(2) == 2
    assert look(schedule, 2) == "j0"
    assert schedule.due(2) == 10
    assert look(schedule, 2) is None
    assert schedule.pick(9.9) is None
    assert schedule.pick(10) == "j0"
    assert not schedule.is_extra("j0")


def test_one_look_is_owed_at_most() -> None:
    """Any number of nudges before a look bring about that one look."""
    schedule = nudged()
    assert [schedule.nudge("j0", 2) for _ in range(3)] == [True, False, False]
    assert look(schedule, 2) == "j0"
    assert look(schedule, 5) is None


def test_a_nudge_within_a_second_waits_for_the_rest_of_it() -> None:
    """Looks are a second apart, and a nudge that came too soon is not lost."""
    schedule = nudged()
    assert schedule.nudge("j0", 0.25)
    assert schedule.due(0.25) == 1
    assert look(schedule, 0.75) is None
    assert look(schedule, 1) == "j0"
    assert schedule.nudge("j0", 1.5)
    assert schedule.due(1.5) == 2


def test_a_job_nudged_while_it_is_polled_is_polled_again() -> None:
    """The response may be older than the callback, whichever poll is under way."""
    schedule = nudged()
    schedule.nudge("j0", 2)
    assert schedule.pick_nudged(2) == "j0"
    assert schedule.nudge("j0", 2.5)
    assert not schedule.nudge("j0", 2.75)
    assert schedule.pick_nudged(5) is None
    assert schedule.put_back("j0", 6)
    assert look(schedule, 6) == "j0"
    assert schedule.pick(10) == "j0"
    assert schedule.nudge("j0", 10.25)
    assert schedule.put_back("j0", 10.5)
    assert schedule.due(10.5) == 11
    assert look(schedule, 11) == "j0"


def test_a_turn_is_a_look_as_well() -> None:
    """A turn that comes before the extra look takes its place, and leaves nothing behind."""
    schedule = nudged()
    schedule.nudge("j0", 9.75)
    assert schedule.pick(10) == "j0"
    assert schedule.put_back("j0", 10)
    assert look(schedule, 12) is None
    assert schedule.due(12) == 20


def test_nudged_again_after_its_turn() -> None:
    """A job that still stands in the queue for a look that its turn has made waits a second."""
    schedule = nudged()
    schedule.nudge("j0", 9.75)
    assert schedule.pick(10) == "j0"
    assert schedule.put_back("j0", 10)
    assert schedule.nudge("j0", 10.25)
    assert look(schedule, 10.5) is None
    assert schedule.due(10.5) == 11
    assert look(schedule, 11) == "j0"


def test_a_look_just_before_a_turn_is_that_turn() -> None:
    """A turn within a second after a look is no second poll; the next is an interval later."""
    schedule = nudged()
    schedule.nudge("j0", 9.5)
    assert look(schedule, 9.5) == "j0"
    assert schedule.pick(10) is None
    assert schedule.due(10) == 19.5
    assert schedule.pick(19.5) == "j0"


def test_a_look_under_way_when_the_turn_comes_is_that_turn() -> None:
    """A slow extra poll is not joined by another, and counts from when it began."""
    schedule = nudged()
    schedule.nudge("j0", 5)
    assert schedule.pick_nudged(5) == "j0"
    assert schedule.due(10) == math.inf
    assert schedule.pick(12) is None
    assert not schedule.is_extra("j0")
    assert schedule.put_back("j0", 13)
    assert schedule.due(13) == 15


def test_polls_less_than_a_second_apart_stay_so() -> None:
    """With an interval below a second, turns come as without nudges."""
    schedule = nudged(interval=0.5)
    schedule.nudge("j0", 0.25)
    times = [tick / 4 for tick in range(1, 40)]
    picked: list[float] = []
    for now in times:
        if schedule.pick(now) is not None:
            picked.append(now)
            assert schedule.put_back("j0", now)
    assert picked == [0.5 * number for number in range(1, 20)]


# Failures


def test_a_look_that_failed_is_repeated() -> None:
    """Neither the look nor the turn is lost, and ``Retry-After`` is obeyed."""
    schedule = nudged(interval=60)
    schedule.nudge("j0", 2)
    assert schedule.pick_nudged(2) == "j0"
    assert schedule.put_back("j0", 3, 1)
    assert schedule.due(3) == 3 + PAUSE
    assert not schedule.nudge("j0", 4)
    assert schedule.pick_nudged(13) == "j0"
    assert schedule.put_back("j0", 14, 1, at_least=30)
    assert schedule.due(14) == 44
    assert look(schedule, 44) == "j0"
    assert schedule.due(44) == 60


def test_a_turn_that_failed_still_owes_the_look() -> None:
    """A nudge is done with when a poll succeeds; until then it does not disturb the backoff."""
    schedule = nudged()
    schedule.nudge("j0", 9.75)
    assert schedule.pick(10) == "j0"
    assert schedule.put_back("j0", 10, 3)
    assert schedule.due(10) == 10 + PAUSE
    assert look(schedule, 20) == "j0"
    assert schedule.due(20) == 50


def test_a_failed_look_is_no_turn() -> None:
    """A turn that comes just after a look that failed is taken."""
    schedule = nudged()
    schedule.nudge("j0", 9.5)
    assert look(schedule, 9.5, failures=1) == "j0"
    assert schedule.pick(10) == "j0"


# The end


def test_a_finished_job_is_not_nudged() -> None:
    """A job that ends before, while or after it is looked at leaves nothing behind."""
    schedule = nudged(3)
    for job_id in ("j0", "j1", "j2"):
        schedule.nudge(job_id, 2)
    assert schedule.pick_nudged(2) == "j0"
    schedule.nudge("j0", 3)
    schedule.finish("j0")
    assert not schedule.follows("j0")
    assert schedule.pick(10) == "j1"
    schedule.finish("j1")
    assert look(schedule, 10) == "j2"
    assert look(schedule, 12) is None


def test_jobs_that_are_finished_and_gone_are_passed_over() -> None:
    """Of thousands that ended before the looks at them, no look is left."""
    schedule = nudged(CHUNK)
    for number in range(CHUNK):
        schedule.nudge(f"j{number}", 2)
    for _ in range(CHUNK):
        job_id = schedule.pick(10)
        assert job_id is not None
        schedule.finish(job_id)
    assert look(schedule, 10) is None
    assert schedule.due(10) == math.inf


def test_who_is_not_followed_is_not_nudged() -> None:
    """Unknown ids are none of the jobs."""
    assert not nudged().follows("unknown")


def test_last_looks_go_before_nudged_ones() -> None:
    """They are planned with the whole quota; after its own a job is nudged no more."""
    schedule = nudged(3, timeout=20)
    for job_id in ("j0", "j1", "j2"):
        schedule.nudge(job_id, 5)
    assert schedule.pick_nudged(19.5) is None
    assert [schedule.pick_last_look(19.5) for _ in range(3)] == ["j0", "j1", "j2"]
    assert not schedule.put_back("j0", 19.5)
    assert not schedule.follows("j0")
    assert schedule.pick_nudged(19.5) is None


def test_an_extra_look_just_before_the_deadline_is_the_last() -> None:
    """A look that is under way when the last one is due stands for it."""
    schedule = nudged(2, timeout=20)
    schedule.nudge("j0", 5)
    assert schedule.pick_nudged(19.25) == "j0"
    assert schedule.pick_last_look(19.5) == "j1"
    assert not schedule.put_back("j0", 19.75)
    assert schedule.expire(20) == "j0"


# Many jobs


def test_a_million_nudges_at_once_take_little_memory() -> None:
    """Nudges cost 10 bytes each, whatever their number, and wait in order."""
    schedule = nudged(20 * CHUNK)
    tracemalloc.start()
    try:
        for number in range(20 * CHUNK):
            schedule.nudge(f"j{number}", 5)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 12 * 20 * CHUNK
    assert [look(schedule, 5) for _ in range(3)] == ["j0", "j1", "j2"]


def test_clearing_away_is_bounded() -> None:
    """Thousands of jobs that had their turns before their extra looks are passed over in portions.

    A pick that is cut short finds none, and says when to look again.
    """
    schedule = nudged(2 * CHUNK)
    for number in range(2 * CHUNK):
        schedule.nudge(f"j{number}", 5)
    while (job_id := schedule.pick(10)) is not None:
        assert schedule.put_back(job_id, 10)
    schedule.nudge("j5", 11)
    assert schedule.due(11) == 11
    assert [look(schedule, 11) for _ in range(3)] == ["j5", None, None]
    assert schedule.due(11) == 20


def sweeps(jobs: int, rate: float, *, nudges: float) -> tuple[list[float], int, int]:
    """Poll by the slots of a rate for 200 seconds, with so many nudges a second.

    Return, for the time after three sweeps, the seconds from each poll of a job to the next, and
    the numbers of turns and of extra looks.
    """
    rng = random.Random(1)
    schedule = Schedule(INTERVAL, None, rate, nudged=True)
    gaps: list[float] = []
    polled = [0.0] * jobs
    numbers = [0, 0]
    due, extra = 0.0, False
    for number in range(jobs):
        schedule.add(f"{number}", 0)
        schedule.put_back(f"{number}", 0)
    for slot in range(round(200 * rate)):
        now = slot / rate
        due += nudges / rate
        while due >= 1:
            due -= 1
            schedule.nudge(f"{rng.randrange(jobs)}", now)
        # As the dispatcher does it.
        steps = [schedule.pick, schedule.pick_nudged][:: -1 if not extra else 1]
        job_id = next((job_id for step in steps if (job_id := step(now)) is not None), None)
        extra = job_id is not None and schedule.is_extra(job_id)
        if job_id is None:
            continue
        if now >= 3 * jobs / rate:
            gaps.append(now - polled[int(job_id)])
            numbers[extra] += 1
        polled[int(job_id)] = now
        assert schedule.put_back(job_id, now)
    return gaps, numbers[False], numbers[True]


@pytest.mark.parametrize("nudges", [0, 5, 100, 1000])
def test_turns_have_half_of_the_quota(nudges: float) -> None:
    """However many callbacks come, each job is polled once in two sweeps, or in the interval."""
    gaps, _, _ = sweeps(50, 20, nudges=nudges)
    assert max(gaps) <= INTERVAL + 50 / 20 + APART
    gaps, turns, extras = sweeps(400, 20, nudges=nudges)
    assert max(gaps) <= 400 / (turns / 140) + APART
    assert turns + extras == 140 * 20
    assert extras <= turns + 1


# Any course of events


@attrs.define
class Model:
    """What is known of a job: its looks, and whether one is owed to it."""

    nudged: float = -math.inf
    began: float = 0.0
    ended: float = 0.0
    succeeded: float = 0.0
    #: When the backoff of its turns is over, and that of its extra looks.
    backoff: float = -math.inf
    pause: float = -math.inf
    failed: int = 0
    owed: bool = False
    carries: bool = False


# All times are multiples of a power of two, so that everything is calculated without rounding.
steps = st.tuples(
    st.sampled_from(
        [*("add", "turn", "turn", "extra", "extra", "back", "back", "fail", "finish", "wait")] * 2
        + ["nudge"] * 6
    ),
    st.integers(0, 15),
    st.integers(0, 64 * 3).map(lambda number: number / 64),
)


@given(st.lists(steps, min_size=10, max_size=120), st.sampled_from([0.5, 4.0, 16.0]))
def test_any_course_of_events(course: list[tuple[str, int, float]], interval: float) -> None:
    """No nudge and no turn is lost, and extra looks are never too early, or twice at once."""
    schedule = Schedule(interval, nudged=True)
    jobs: dict[str, Model] = {}
    now = 0.0

    def began(job_id: str | None) -> None:
        if job_id is None:
            return
        job = jobs[job_id]
        assert schedule.in_flight.keys() >= {job_id}
        if schedule.is_extra(job_id):
            assert job.owed
            assert now >= job.began + APART
            assert now >= job.pause
        job.carries, job.owed, job.began = job.owed, False, now

    def ended(job_id: str, failures: int) -> None:
        job = jobs[job_id]
        is_extra = schedule.is_extra(job_id)
        assert schedule.put_back(job_id, now, failures)
        job.pause = now + PAUSE if failures else -math.inf
        job.owed = job.owed or (failures > 0 and job.carries)
        if failures and not is_extra:
            job.backoff = now + min(max(interval, 60), interval * 2 ** (failures - 1))
        elif not failures:
            job.succeeded = now

    def pick(extra: bool) -> None:
        before = set(schedule.in_flight)
        job_id = schedule.pick_nudged(now) if extra else schedule.pick(now)
        assert job_id not in before
        began(job_id)
        waiting = {name: job for name, job in jobs.items() if name not in schedule.in_flight}
        if job_id is None and extra:
            owed = [job for job in waiting.values() if job.owed]
            assert all(now < max(job.began + APART, job.pause) for job in owed)
        elif job_id is None:
            for job in waiting.values():
                assert job.backoff > now or job.succeeded > now - interval - APART

    for action, which, pause in course:
        name = f"j{which}"
        in_flight = sorted(schedule.in_flight)
        picked = in_flight[which % len(in_flight)] if in_flight else None
        match action:
            case "add" if schedule.add(name, now):
                jobs[name] = Model(began=now)
            case "nudge" if name in jobs:
                assert schedule.follows(name)
                assert schedule.nudge(name, now) != jobs[name].owed
                jobs[name].owed, jobs[name].nudged = True, now
            case "turn" | "extra":
                pick(action == "extra")
            case "back" | "fail" if picked is not None:
                ended(picked, 0 if action == "back" else 1 + which % 3)
            case "finish" if picked is not None:
                schedule.finish(picked)
                del jobs[picked]
                assert not schedule.follows(picked)
            case _:
                now += pause

    # To the end: each nudge is followed by a look that began after it.
    while True:
        for job_id in sorted(schedule.in_flight):
            ended(job_id, 0)
        if not any(job.owed for job in jobs.values()):
            break
        now = max(now, schedule.due(now))
        pick(extra=True)
        pick(extra=False)
    assert all(job.began >= job.nudged for job in jobs.values())


# Sources


@pytest.mark.parametrize(
    "callbacks", [Callbacks, Callbacks().subscribe, object(), "receiver", 0, lambda _: None]
)
def test_what_is_no_source_is_refused(callbacks: Any) -> None:
    """It is told by name, also a class whose instances would be one."""

    async def query(*_: object) -> Any: ...

    with pytest.raises(InvalidInput, match=r"^callbacks: expected a CallbackReceiver") as caught:
        Polling(query, 10, callbacks=callbacks)
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(Callbacks(), CallbackSource)
