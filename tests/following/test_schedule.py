"""The schedule: the most overdue job is next, and no job is lost or polled twice."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError, plan
from ci_live_audit.following.jobs import CHUNK
from ci_live_audit.following.schedule import Schedule


def add(schedule: Schedule, jobs: int, now: float = 0.0) -> list[str]:
    """Add jobs, which are in flight then, and return their ids."""
    ids = [f"job {schedule.open + job}" for job in range(jobs)]
    assert all(schedule.add(job_id, now) for job_id in ids)
    return ids


def pick(schedule: Schedule, now: float) -> str | None:
    """Pick the next job, last looks first."""
    job_id = schedule.pick_last_look(now)
    return schedule.pick(now) if job_id is None else job_id


def pick_all(schedule: Schedule, now: float) -> list[str]:
    """Pick every job that is due."""
    picked: list[str] = []
    while (job_id := schedule.pick(now)) is not None:
        picked.append(job_id)
    return picked


def expire(schedule: Schedule, now: float) -> list[str]:
    """Finish every job whose deadline has passed."""
    expired: list[str] = []
    while (job_id := schedule.expire(now)) is not None:
        expired.append(job_id)
    return expired


# One job


def test_an_id_is_added_once() -> None:
    """A new job is in flight; an id that was added before is refused."""
    schedule = Schedule(10)
    assert schedule.add("a", 0)
    assert schedule.add("b", 0)
    assert not schedule.add("a", 5)
    assert schedule.open == 2
    assert list(schedule.in_flight) == ["a", "b"]


def test_a_finished_id_is_not_added_again() -> None:
    """A finished job stays known."""
    schedule = Schedule(10)
    assert schedule.add("a", 0)
    schedule.finish("a")
    assert not schedule.add("a", 1)
    assert schedule.open == 0


def test_the_interval_counts_from_the_poll() -> None:
    """A job is due an interval after it was polled, whenever its response came."""
    schedule = Schedule(10)
    (job,) = add(schedule, 1)
    assert job in schedule.in_flight
    assert schedule.due(0) == math.inf
    assert schedule.put_back(job, 3)
    assert job not in schedule.in_flight
    assert schedule.due(3) == 10
    assert schedule.pick(9.999) is None
    assert schedule.pick(10) == job
    assert job in schedule.in_flight
    assert schedule.pick(10) is None


def test_a_slow_response_makes_the_job_due_at_once() -> None:
    """A response that took longer than the interval leaves the job due."""
    schedule = Schedule(10)
    (job,) = add(schedule, 1)
    schedule.put_back(job, 12)
    assert schedule.pick(12) == job


def test_a_slow_response_puts_the_job_last() -> None:
    """After a slow response a job is due with the last of the queue, not before."""
    schedule = Schedule(10)
    (slow,) = add(schedule, 1)
    (fast,) = add(schedule, 1, now=5)
    schedule.put_back(fast, 5.1)
    schedule.put_back(slow, 8)
    assert schedule.due(8) == 15
    assert schedule.pick(14.9) is None
    assert pick_all(schedule, 15) == [fast, slow]


def test_overdue_jobs_take_turns() -> None:
    """More jobs than can be polled come in the same order, round after round."""
    schedule = Schedule(1)
    ids = add(schedule, 100)
    for job_id in ids:
        schedule.put_back(job_id, 0.5)
    order: list[str | None] = []
    for poll in range(500):
        order.append(schedule.pick(1 + poll))
        schedule.put_back(ids[poll % 100], 1 + poll)
    assert order == ids * 5


@pytest.mark.parametrize("interval", [0.5, 10, 100])
def test_failures_double_the_backoff(interval: float) -> None:
    """The backoff starts with the failure and grows to a minute, or the interval if longer."""
    longest = max(60, interval)
    for failures in [*range(1, 20), 10_000]:
        schedule = Schedule(interval)
        (job,) = add(schedule, 1)
        assert schedule.put_back(job, 7, failures=failures)
        wait = min(longest, interval * 2 ** min(failures - 1, 100))
        assert schedule.due(7) == 7 + wait
        assert schedule.pick(7 + wait - 0.001) is None
        assert schedule.pick(7 + wait) == job


def test_failed_jobs_do_not_hold_up_others() -> None:
    """Jobs with a longer or shorter wait are picked when they are due."""
    schedule = Schedule(10)
    jobs = add(schedule, 4)
    schedule.put_back(jobs[0], 0, failures=3)
    schedule.put_back(jobs[1], 0)
    schedule.put_back(jobs[2], 1, failures=1)
    schedule.put_back(jobs[3], 1)
    assert pick_all(schedule, 9) == []
    assert pick_all(schedule, 40) == [jobs[1], jobs[3], jobs[2], jobs[0]]


def test_a_finished_job_is_never_picked() -> None:
    """A job that expires while it waits, in the queue or after a failure, is not polled."""
    schedule = Schedule(10, timeout=20)
    queued, failed, last = add(schedule, 3)
    schedule.put_back(queued, 1)
    schedule.put_back(failed, 1, failures=1)
    schedule.put_back(last, 1, failures=2)
    assert expire(schedule, 20) == [queued, failed, last]
    assert schedule.open == 0
    assert schedule.due(1) == math.inf
    assert pick_all(schedule, 19.9) == []


# Many jobs


def test_every_id_is_found_again() -> None:
    """Thousands of jobs are picked by their ids, in the order in which they were added."""
    schedule = Schedule(10)
    ids = add(schedule, 3 * CHUNK + 5)
    for job_id in ids:
        schedule.put_back(job_id, 0)
    assert pick_all(schedule, 10) == ids


def expired_but_one(jobs: int) -> tuple[Schedule, str]:
    """Return a schedule of jobs that expired at 20 while they waited, and one due at 15."""
    schedule = Schedule(10, timeout=20)
    for job_id in add(schedule, jobs):
        schedule.put_back(job_id, 0)
    (late,) = add(schedule, 1, now=5)
    schedule.put_back(late, 5)
    assert len(expire(schedule, 20)) == jobs
    return schedule, late


def test_clearing_away_is_bounded() -> None:
    """Thousands of jobs that expired while they waited are passed over in portions."""
    schedule, late = expired_but_one(3 * CHUNK - 1)
    assert schedule.due(12) == 12  # cut short: look again
    assert schedule.pick(12) is None
    assert schedule.due(12) == 15
    assert schedule.pick(15) == late


def test_picking_waits_for_the_clearing() -> None:
    """A pick that is cut short while it passes over expired jobs finds none; a later one does."""
    schedule, late = expired_but_one(2 * CHUNK - 1)
    assert [schedule.pick(20) for _ in range(3)] == [None, late, None]


def test_the_queue_does_not_grow() -> None:
    """A small run that goes on for long keeps a small queue."""
    schedule = Schedule(1)
    for job_id in add(schedule, 50):
        schedule.put_back(job_id, 0)

    def sweep(now: float) -> None:
        for job_id in pick_all(schedule, now):
            schedule.put_back(job_id, now)

    tracemalloc.start()
    try:
        for time in range(1, 100):
            sweep(time)
        before, _ = tracemalloc.get_traced_memory()
        for time in range(100, 1000):
            sweep(time)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000  # a queue of 45,000 entries would take 180,000 bytes


def test_a_job_costs_little_memory() -> None:
    """Without its id a job costs below 150 bytes, none of which the collector visits."""
    ids = [f"job {number}" for number in range(20_000)]
    tracemalloc.start()
    try:
        schedule = Schedule(10, timeout=3600, rate=20)
        for job_id in ids:
            schedule.add(job_id, 0)
            schedule.put_back(job_id, 0)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 150 * 20_000


def test_waiting_jobs_do_not_lengthen_a_garbage_collection() -> None:
    """A full collection visits fewer than eight objects more per thousand waiting jobs."""
    schedule = Schedule(10, timeout=3600, rate=20)

    def visited() -> int:
        gc.collect()
        return len({id(each) for holder in gc.get_objects() for each in gc.get_referents(holder)})

    before = visited()
    for job_id in add(schedule, 20 * CHUNK):
        schedule.put_back(job_id, 0)
    assert visited() - before < 8 * 20


# Deadlines


def test_deadlines_pass_in_order() -> None:
    """Jobs run out of time in the order in which they were added, in flight or waiting."""
    schedule = Schedule(10, timeout=30)
    ids = [add(schedule, 1, now=float(second))[0] for second in range(5)]
    schedule.put_back(ids[1], 6)
    schedule.put_back(ids[3], 6)
    schedule.finish(ids[0])
    assert schedule.deadline() == 31
    assert schedule.deadline_of(ids[4]) == 34
    assert schedule.expire(30.9) is None
    assert expire(schedule, 32.5) == ids[1:3]
    assert schedule.deadline() == 33
    assert expire(schedule, 100) == ids[3:]
    assert schedule.deadline() == math.inf
    assert schedule.open == 0


def test_deadlines_go_on_after_all_jobs_are_finished() -> None:
    """A job that is added when no other is open has its own deadline."""
    schedule = Schedule(10, timeout=30)
    schedule.finish(add(schedule, 1)[0])
    assert schedule.deadline() == math.inf
    assert schedule.add("late", 50)
    assert schedule.deadline() == 80
    assert schedule.expire(80) == "late"


def test_a_shared_deadline_counts_from_the_start() -> None:
    """The ids of a list are added one by one, but all are followed from the start."""
    schedule = Schedule(10, timeout=30)
    schedule.share_deadline(0)
    assert schedule.deadline() == math.inf
    schedule.unread = 1
    assert schedule.deadline() == 30
    assert schedule.expire(30) is None
    assert schedule.add("a", 25)
    schedule.unread = 0
    assert schedule.deadline() == schedule.deadline_of("a") == 30
    assert schedule.put_back("a", 25)
    assert schedule.due(25) == 29.5
    assert schedule.expire(30) == "a"


def test_without_a_timeout_there_is_no_deadline() -> None:
    """A run without a timeout has no deadlines and no last looks."""
    schedule = Schedule(10, rate=20)
    (job,) = add(schedule, 1)
    assert schedule.deadline_of(job) == math.inf
    assert schedule.put_back(job, 1)
    assert schedule.deadline() == math.inf
    assert schedule.expire(1e12) is None
    assert schedule.pick(1e12) == job


def test_no_job_is_picked_after_its_deadline() -> None:
    """A job that was due but not polled in time is left to expire."""
    schedule = Schedule(10, timeout=30)
    (queued,) = add(schedule, 1)
    (failed,) = add(schedule, 1)
    schedule.put_back(queued, 0)
    schedule.put_back(failed, 0, failures=1)
    assert schedule.due(29.4) == 10
    assert pick(schedule, 30) is None
    assert schedule.due(30) == math.inf
    assert expire(schedule, 30) == [queued, failed]


@pytest.mark.parametrize(
    ("interval", "timeout", "margin"), [(10, 300, 0.5), (0.5, 300, 0.25), (10, 2, 0.2)]
)
def test_a_last_look_is_just_before_the_deadline(
    interval: float, timeout: float, margin: float
) -> None:
    """A job that would be due too late is polled half a second before its deadline."""
    schedule = Schedule(interval, timeout)
    (job,) = add(schedule, 1)
    now = 0.0
    while schedule.put_back(job, now):
        now = schedule.due(now)
        assert pick(schedule, now) == job
    assert now == timeout - margin
    assert job in schedule.in_flight
    assert schedule.expire(timeout) == job


def test_a_poll_in_time_is_no_last_look() -> None:
    """A job that is due before its last look keeps its interval."""
    schedule = Schedule(10, timeout=11)
    (job,) = add(schedule, 1)
    assert schedule.put_back(job, 0)
    assert schedule.due(0) == 10


def test_a_failed_job_gets_a_last_look() -> None:
    """A backoff beyond the deadline is cut short."""
    schedule = Schedule(10, timeout=60)
    (job,) = add(schedule, 1)
    assert schedule.put_back(job, 5, failures=4)
    assert schedule.due(5) == 59.5


def test_last_looks_begin_in_time_for_all() -> None:
    """With a shared deadline, last looks begin as many slots before it as there are jobs."""
    schedule = Schedule(10, timeout=15, rate=4)
    schedule.share_deadline(0)
    ids = add(schedule, 20)
    assert all(schedule.put_back(number, 0) for number in ids)
    assert schedule.due(0) == 14.5 - 20 / 4
    assert pick(schedule, 9.4) is None
    looks = [pick(schedule, 9.5 + slot / 4) for slot in range(20)]
    assert looks == ids
    assert not any(schedule.put_back(number, 14.4) for number in ids)
    assert pick(schedule, 14.9) is None
    assert expire(schedule, 15) == ids


def test_jobs_that_end_leave_their_slots_to_others() -> None:
    """The fewer jobs are open, the later their last looks."""
    schedule = Schedule(10, timeout=60, rate=4)
    schedule.share_deadline(0)
    for job_id in add(schedule, 20):
        schedule.put_back(job_id, 0)
    ids = pick_all(schedule, 50)
    for job_id in ids[:16]:
        schedule.finish(job_id)
    for job_id in ids[16:]:
        schedule.put_back(job_id, 50)
    assert schedule.due(58) == 59.5 - 4 / 4


def test_a_last_look_is_the_last_poll() -> None:
    """After a last look, or a poll since they have begun, a job is not put back."""
    schedule = Schedule(1, timeout=10.5, rate=1)
    schedule.share_deadline(0)
    early, late = add(schedule, 2)
    assert schedule.put_back(early, 0)
    assert pick(schedule, 8.0) == early
    assert not schedule.put_back(early, 8.1)
    assert early in schedule.in_flight
    assert schedule.put_back(late, 7.9)
    assert pick(schedule, 8.5) == late
    assert not schedule.put_back(late, 8.6)
    assert [pick(schedule, 8.7 + slot) for slot in range(2)] == [None] * 2
    assert expire(schedule, 10.5) == [early, late]


def test_each_deadline_has_its_own_last_look() -> None:
    """Jobs with deadlines of their own are polled one slot before each."""
    schedule = Schedule(100, timeout=15, rate=4)
    ids = [add(schedule, 1, now=float(second))[0] for second in range(4)]
    for second, number in enumerate(ids):
        schedule.put_back(number, second + 0.1)
    for second, number in enumerate(ids):
        assert schedule.due(second + 14) == second + 14.25
        assert pick(schedule, second + 14.2) is None
        assert pick(schedule, second + 14.25) == number


def test_unread_jobs_need_slots_too() -> None:
    """No job is polled a second time where others have not been polled once."""
    schedule = Schedule(10, timeout=100.5, rate=20)
    schedule.share_deadline(0)
    few, many = add(schedule, 2)
    schedule.unread = 1980
    assert schedule.put_back(few, 0)
    schedule.unread = 2000
    assert not schedule.put_back(many, 0)


def test_last_looks_come_first() -> None:
    """A last look comes before jobs that have been due for longer."""
    schedule = Schedule(10, timeout=30)
    first, second = (add(schedule, 1, now)[0] for now in (0.0, 5.0))
    schedule.put_back(second, 5)
    schedule.put_back(first, 26, failures=2)
    assert schedule.pick_last_look(29.4) is None
    assert schedule.pick_last_look(29.5) == first
    assert schedule.pick_last_look(29.5) is None
    assert schedule.pick(29.5) == second


# Whole runs


def run(
    jobs: int,
    rate: float,
    interval: float,
    timeout: float | None = None,
    *,
    until: float,
    arrivals: float = math.inf,
) -> list[list[float]]:
    """Return when each job is polled, with a slot every 1/rate seconds and jobs that never end.

    Responses take up to 0.3 seconds. The jobs are known at the start, and each is polled once
    before any is polled again; or ``arrivals`` new jobs a second alternate with due ones.
    """
    schedule = Schedule(interval, timeout, rate)
    rng = random.Random(1)
    polled: dict[str, list[float]] = {}
    responses: deque[tuple[float, str]] = deque()
    known = arrivals == math.inf
    new_first = False
    if known:
        schedule.share_deadline(0)
    for slot in range(round(until * rate)):
        now = slot / rate
        while responses and responses[0][0] <= now:
            _, job_id = responses.popleft()
            if job_id in schedule.in_flight:
                schedule.put_back(job_id, now)
        expire(schedule, now)
        at_hand = len(polled) < (jobs if known else now * arrivals)
        new_first = known or not new_first
        schedule.unread = jobs - len(polled) if known else 0
        job = None if schedule.unread else schedule.pick_last_look(now)
        if job is None and not new_first:
            job = schedule.pick(now)
        if job is None and at_hand:
            job = f"job {len(polled)}"
            schedule.add(job, now)
        if job is None:
            job = schedule.pick(now)
        if job is not None:
            polled.setdefault(job, []).append(now)
            responses.append((now + rng.uniform(0.01, 0.3), job))
    return list(polled.values())


def test_an_overloaded_run_polls_all_jobs_in_turn() -> None:
    """With more jobs than the interval has slots, each is polled once in each sweep."""
    polled = run(1000, rate=20, interval=10, until=1000)
    gaps = [later - time for times in polled for time, later in pairwise(times)]
    assert len(gaps) == 19 * 1000
    assert max(gaps) <= 50 * 1.01
    assert min(gaps) >= 50 * 0.99


def test_a_run_with_room_keeps_the_interval() -> None:
    """With fewer jobs than the interval has slots, each is polled when it is due."""
    polled = run(100, rate=20, interval=10, until=500)
    gaps = [later - time for times in polled for time, later in pairwise(times)]
    assert min(gaps) >= 10 - 1e-9
    assert max(gaps) <= 10 + 0.3


@pytest.mark.parametrize(("jobs", "timeout"), [(1, 60), (100, 60), (150, 300), (200, 300)])
def test_every_job_is_polled_near_the_shared_deadline(jobs: int, timeout: float) -> None:
    """No last poll is older than a sweep at the shared deadline."""
    polled = run(jobs, rate=20, interval=10, timeout=timeout, until=timeout + 1)
    assert timeout - min(times[-1] for times in polled) <= jobs / 20 + 0.6


@pytest.mark.parametrize(("jobs", "timeout"), [(500, 60), (1000, 75), (1000, 300), (5900, 300)])
def test_every_job_is_polled_near_the_deadline_under_overload(jobs: int, timeout: float) -> None:
    """Where the quota is too small, no last poll is older than a sweep either."""
    polled = run(jobs, rate=20, interval=10, timeout=timeout, until=timeout + 1)
    assert len(polled) == jobs
    assert timeout - min(times[-1] for times in polled) <= jobs / 20 + 0.6


@pytest.mark.parametrize("arrivals", [0.5, 1, 2, 3, 6, 20])
def test_new_jobs_do_not_starve_those_near_their_deadline(arrivals: float) -> None:
    """With endless new jobs, each is still polled just before its own deadline."""
    polled = run(10_000, 20, interval=10, timeout=60, until=600, arrivals=arrivals)
    over = [times for times in polled if times[0] < 600 - 60]
    assert len(over) >= 540 * min(arrivals, 7)
    assert all(59 <= times[-1] - times[0] < 60 for times in over)


# A reference


class Reference:
    """A model of the schedule over dicts, searched through each time; jobs are numbers."""

    def __init__(self, interval: float, timeout: float, rate: float) -> None:
        self.interval, self.timeout = interval, timeout
        self.margin = min(0.5, interval / 2, timeout / 10)
        self.slot = 1 / rate
        self.in_flight: dict[int, float] = {}
        self.waiting: dict[int, float] = {}
        #: The first job that has not been passed over in last looks.
        self.looked = 0
        self.tail = 0.0

    def open(self) -> list[int]:
        """Return the jobs that are not finished."""
        return sorted(self.in_flight | self.waiting)

    def last_look(self) -> float:
        """Return when last looks begin."""
        return self.timeout - self.margin - len(self.open()) * self.slot

    def due(self, now: float) -> dict[int, float]:
        """Return the due times of the jobs that may be picked."""
        return {job: time for job, time in self.waiting.items() if time <= now < self.timeout}

    def pick(self, job: int, now: float) -> None:
        del self.waiting[job]
        self.in_flight[job] = now

    def look(self, now: float) -> int | None:
        """Return the job that gets a last look."""
        for job in self.open():
            if job < self.looked or now < self.last_look():
                continue
            self.looked = job + 1
            if job in self.waiting and now < self.timeout:
                return job
        return None

    def put_back(self, job: int, now: float, failures: int) -> bool:
        if job < self.looked or self.in_flight[job] >= self.last_look():
            return False
        due = self.in_flight.pop(job) + self.interval
        if failures:
            due = now + min(max(self.interval, 60.0), self.interval * 2 ** (failures - 1))
        else:
            due = self.tail = max(due, self.tail)
        self.waiting[job] = due
        return True

    def finish(self, job: int) -> None:
        self.in_flight.pop(job, None)
        self.waiting.pop(job, None)


# All times are multiples of a power of two, so that both calculate without rounding.
steps = st.tuples(
    st.sampled_from(
        ["add", "pick", "pick", "put back", "put back", "put back", "finish", "expire"]
    ),
    st.integers(0, 30),
    st.integers(0, 12),
    st.integers(0, 64 * 6).map(lambda number: number / 64),
)


@given(
    st.lists(steps, min_size=10, max_size=100),
    st.sampled_from([0.5, 1.0, 8.0]),
    st.sampled_from([None, 10.0, 40.0, 100.0]),
    st.sampled_from([2.0, 16.0, math.inf]),
)
def test_any_course_of_events_is_as_in_the_reference(
    course: list[tuple[str, int, int, float]], interval: float, timeout: float | None, rate: float
) -> None:
    """No job is lost, polled twice at once, too early, after its deadline, or out of order."""
    schedule = Schedule(interval, timeout, rate)
    schedule.share_deadline(0)
    reference = Reference(interval, timeout or math.inf, rate)
    ids: list[str] = []
    now = 0.0

    def check() -> None:
        open_ = reference.open()
        assert schedule.open == len(open_)
        assert schedule.in_flight == {ids[job]: job for job in reference.in_flight}
        assert schedule.deadline() == (reference.timeout if open_ else math.inf)
        waiting = reference.waiting.values() if now < reference.timeout else ()
        looks = [reference.last_look()] if any(job >= reference.looked for job in open_) else []
        assert schedule.due(now) == min([*waiting, *looks], default=math.inf)

    def pick() -> None:
        look = reference.look(now)
        assert schedule.pick_last_look(now) == (None if look is None else ids[look])
        if look is not None:
            reference.pick(look, now)
            return
        due = reference.due(now)
        job_id = schedule.pick(now)
        assert (job_id is None) == (not due)
        if job_id is not None:
            assert due[ids.index(job_id)] == min(due.values())
            reference.pick(ids.index(job_id), now)

    for action, which, how_many, pause in course:
        in_flight = sorted(reference.in_flight)
        job = in_flight[which % len(in_flight)] if in_flight else None
        match action:
            case "add":
                added = schedule.add(f"job {which}", now)
                assert added == (f"job {which}" not in ids)
                if added:
                    reference.in_flight[len(ids)] = now
                    ids.append(f"job {which}")
            case "pick":
                pick()
            case "put back" if job is not None:
                failures = max(0, how_many - 6)
                put_back = schedule.put_back(ids[job], now, failures)
                assert put_back == reference.put_back(job, now, failures)
            case "finish" if job is not None:
                schedule.finish(ids[job])
                reference.finish(job)
            case "expire":
                late = reference.open()[:1] if now >= reference.timeout else []
                assert schedule.expire(now) == (ids[late[0]] if late else None)
                for job in late:
                    reference.finish(job)
                now += 0 if late else pause
            case _:
                now += pause
        check()

    # To the end: every open job is picked or runs out of time.
    while True:
        for job in list(reference.in_flight):
            schedule.finish(ids[job])
            reference.finish(job)
        check()
        if not schedule.open:
            break
        now = max(now, min(schedule.due(now), schedule.deadline()))
        for job_id in expire(schedule, now):
            reference.finish(ids.index(job_id))
        pick()


# Arguments


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, "10", b"1", []])
def test_times_must_be_above_zero_and_finite(value: Any) -> None:
    """An impossible interval or timeout is refused by name."""
    with pytest.raises(ConfigurationError, match=r"^interval: expected seconds"):
        Schedule(value)
    with pytest.raises(ConfigurationError, match=r"^timeout: expected seconds"):
        Schedule(10, value)
    with pytest.raises(ConfigurationError, match=r"^interval: expected seconds"):
        plan(10, value)


def test_an_interval_must_be_given() -> None:
    """None stands for no timeout, but not for an interval."""
    with pytest.raises(ConfigurationError, match="interval"):
        Schedule(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [-1, -0.5, math.nan, -math.inf])
def test_a_plan_needs_a_number_of_jobs(jobs: Any) -> None:
    """A number of jobs below zero, or no number, is refused."""
    with pytest.raises(ConfigurationError, match=r"^jobs: expected a number of jobs"):
        plan(jobs)


@pytest.mark.parametrize("rate", [0, -1, math.nan, -math.inf])
def test_a_plan_needs_a_rate(rate: float) -> None:
    """A rate that allows no request is refused."""
    with pytest.raises(ConfigurationError, match=r"^rate: expected requests a second"):
        plan(10, rate=rate)


def test_a_plan_of_many_jobs() -> None:
    """Beyond rate times interval, jobs are polled as often as the quota allows."""
    many = plan(100_000, interval=10, rate=20)
    assert (many.jobs, many.rate, many.interval) == (100_000, 20, 10)
    assert (many.period, many.duration, many.detection_delay) == (5000, 5000, 2500)
    assert str(many) == (
        "100,000 jobs at 20 requests a second: each is polled every 5,000 s, "
        "and the run takes at least 5,000 s"
    )


def test_a_plan_of_few_jobs() -> None:
    """Up to rate times interval, jobs are polled as often as requested."""
    few = plan(100)
    assert (few.period, few.duration, few.detection_delay) == (10, 5, 5)
    assert str(few) == (
        "100 jobs at 20 requests a second: each is polled every 10 s, "
        "and the run takes at least 5 s"
    )


@pytest.mark.parametrize(("jobs", "rate"), [(0, 20.0), (10, math.inf)])
def test_a_plan_that_takes_no_time(jobs: int, rate: float) -> None:
    """No jobs, or no limit, take no time; the interval is as requested."""
    assert (plan(jobs, rate=rate).duration, plan(jobs, rate=rate).period) == (0, 10)


@pytest.mark.parametrize("value", ["10", None, []])
def test_a_plan_refuses_other_types(value: Any) -> None:
    """An argument that is not a number is refused by name."""
    with pytest.raises(ConfigurationError, match=r"^jobs"):
        plan(value)
    with pytest.raises(ConfigurationError, match=r"^rate"):
        plan(10, rate=value)


def test_a_plan_needs_finite_numbers() -> None:
    """An infinite or enormous number of jobs is refused."""
    for jobs in (math.inf, 10**400):
        with pytest.raises(ConfigurationError, match=r"^jobs"):
            plan(jobs)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^interval"):
        Schedule(10**400)


def test_a_plan_of_a_million_jobs_is_readable() -> None:
    """Seconds are written out."""
    assert "every 50,000 s" in str(plan(1_000_000))


@pytest.mark.parametrize("timeout", [None, 100.0])
def test_jobs_are_dropped_wherever_they_are(timeout: float | None) -> None:
    """In flight, waiting, failed or unknown; the others are polled as before, and all come back."""
    schedule = Schedule(10, timeout, remembered=0, droppable=True)
    for number in range(6):
        schedule.add(str(number), number)
    schedule.put_back("0", 7)
    schedule.put_back("1", 7)
    schedule.put_back("2", 7, failures=1)
    schedule.put_back("3", 7)
    for job_id in ("0", "2", "4", "unknown"):
        schedule.drop(job_id)
        schedule.drop(job_id)
    assert (schedule.open, {*schedule.in_flight}) == (3, {"5"})
    assert (schedule.pick(30), schedule.pick(30), schedule.pick(30)) == ("1", "3", None)
    schedule.finish("1")
    for job_id in ("0", "1", "2", "4"):
        assert job_id not in schedule
        assert schedule.add(job_id, 31)
    assert schedule.open == 6
    if timeout is not None:
        expired = [schedule.expire(200) for _ in range(7)]
        assert expired == ["3", "5", "0", "1", "2", "4", None]
