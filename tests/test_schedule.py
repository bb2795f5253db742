"""The schedule: whoever has been due for longest is next, and nobody is lost or asked twice."""

from __future__ import annotations

import gc
import math
import random
import sys
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError, plan
from ci_live_audit.schedule import CHUNK, Schedule


def take_up(schedule: Schedule, jobs: int, now: float = 0.0) -> list[int]:
    """So many new jobs, asked now."""
    known = schedule.open
    numbers = [schedule.take_up(f"job {known + job}", now, now) for job in range(jobs)]
    return [number for number in numbers if number is not None]


def pick(schedule: Schedule, now: float) -> int | None:
    """Who is asked now."""
    number = schedule.pick_last_look(now)
    return schedule.pick(now) if number is None else number


def picks(schedule: Schedule, now: float) -> list[int]:
    """Everybody who is due."""
    picked: list[int] = []
    while (number := schedule.pick(now)) is not None:
        picked.append(number)
    return picked


def expire(schedule: Schedule, now: float) -> list[int]:
    """Everybody whose deadline has passed; they have their answers then."""
    expired: list[int] = []
    while (number := schedule.expired(now)) is not None:
        schedule.answer(number)
        expired.append(number)
    return expired


# One job


def test_an_id_is_taken_up_once() -> None:
    """A job gets a number, in order; what is known or to be skipped gets none."""
    schedule = Schedule(10)
    assert schedule.take_up("a", 0, 0) == 0
    assert schedule.take_up("b", 0, 0) == 1
    assert schedule.take_up("a", 5, 5) is None
    assert schedule.skip("c")
    assert not schedule.skip("c")
    assert not schedule.skip("a")
    assert schedule.take_up("c", 5, 5) is None
    assert schedule.open == 2
    assert [schedule.job_id(number) for number in range(2)] == ["a", "b"]


def test_an_answered_id_is_not_taken_up_again() -> None:
    """A job that has its answer stays known."""
    schedule = Schedule(10)
    schedule.answer(take_up(schedule, 1)[0])
    assert schedule.take_up("job 0", 1, 1) is None
    assert schedule.open == 0


def test_the_interval_counts_from_asking() -> None:
    """A job is due an interval after it was asked, whenever its answer came."""
    schedule = Schedule(10)
    (job,) = take_up(schedule, 1)
    assert schedule.is_asked(job)
    assert schedule.due(0) == math.inf
    assert schedule.again(job, 3)
    assert not schedule.is_asked(job)
    assert schedule.due(3) == 10
    assert schedule.pick(9.999) is None
    assert schedule.pick(10) == job
    assert schedule.is_asked(job)
    assert schedule.pick(10) is None


def test_a_long_answer_makes_the_job_due_at_once() -> None:
    """An answer that took longer than the interval leaves the job due."""
    schedule = Schedule(10)
    (job,) = take_up(schedule, 1)
    schedule.again(job, 12)
    assert schedule.pick(12) == job


def test_a_late_answer_goes_behind_those_that_were_put_back() -> None:
    """A job whose answer was long in coming is due with the last of the queue, not before."""
    schedule = Schedule(10)
    (slow,) = take_up(schedule, 1)
    (fast,) = take_up(schedule, 1, now=5)
    schedule.again(fast, 5.1)
    schedule.again(slow, 8)
    assert schedule.due(8) == 15
    assert schedule.pick(14.9) is None
    assert picks(schedule, 15) == [fast, slow]


def test_those_due_take_turns() -> None:
    """More jobs than can be asked come in the same order, round after round."""
    schedule = Schedule(1)
    take_up(schedule, 100)
    for job in range(100):
        schedule.again(job, 0.5)
    order: list[int | None] = []
    for turn in range(500):
        order.append(schedule.pick(1 + turn))
        schedule.again(turn % 100, 1 + turn)
    assert order == list(range(100)) * 5


@pytest.mark.parametrize("interval", [0.5, 10, 100])
def test_failures_double_the_wait(interval: float) -> None:
    """The wait begins with the failure and grows up to a minute, or the interval if longer."""
    longest = max(60, interval)
    for failures in [*range(1, 20), 10_000]:
        schedule = Schedule(interval)
        (job,) = take_up(schedule, 1)
        assert schedule.again(job, 7, failures=failures)
        wait = min(longest, interval * 2 ** min(failures - 1, 100))
        assert schedule.due(7) == 7 + wait
        assert schedule.pick(7 + wait - 0.001) is None
        assert schedule.pick(7 + wait) == job


def test_failed_jobs_do_not_hold_up_others() -> None:
    """Jobs that wait for longer, or shorter, come where their time is."""
    schedule = Schedule(10)
    jobs = take_up(schedule, 4)
    schedule.again(jobs[0], 0, failures=3)
    schedule.again(jobs[1], 0)
    schedule.again(jobs[2], 1, failures=1)
    schedule.again(jobs[3], 1)
    assert picks(schedule, 9) == []
    assert picks(schedule, 40) == [jobs[1], jobs[3], jobs[2], jobs[0]]


def test_an_answered_job_is_never_picked() -> None:
    """A job that gets its answer while it waits, in whatever way, is not asked."""
    schedule = Schedule(10, timeout=20)
    queued, failed, last = take_up(schedule, 3)
    schedule.again(queued, 1)
    schedule.again(failed, 1, failures=1)
    schedule.again(last, 1, failures=2)
    for job in (queued, failed, last):
        schedule.answer(job)
    assert schedule.open == 0
    assert schedule.due(1) == math.inf
    assert picks(schedule, 19.9) == []


# Many jobs


def test_ids_are_kept_in_chunks() -> None:
    """Every id is found by its number, in full chunks and in the newest."""
    schedule = Schedule(10)
    numbers = take_up(schedule, 3 * CHUNK + 5)
    assert numbers == list(range(3 * CHUNK + 5))
    assert all(schedule.job_id(number) == f"job {number}" for number in numbers)


def test_clearing_away_is_bounded() -> None:
    """Thousands who were answered while they waited are passed over in portions."""
    schedule = Schedule(10)
    numbers = take_up(schedule, 3 * CHUNK)
    for number in numbers:
        schedule.again(number, 0)
    for number in numbers[:-1]:
        schedule.answer(number)
    assert schedule.due(5) == 5  # cut short: look again
    assert schedule.pick(5) is None
    assert schedule.due(5) == 10
    assert schedule.pick(10) == numbers[-1]


def test_picking_waits_for_the_clearing() -> None:
    """A pick that came to no end of the answered finds nobody, a later one does."""
    schedule = Schedule(10)
    numbers = take_up(schedule, 2 * CHUNK)
    for number in numbers:
        schedule.again(number, 0)
    for number in numbers[:-1]:
        schedule.answer(number)
    assert [schedule.pick(20) for _ in range(3)] == [None, numbers[-1], None]


def test_the_queue_does_not_grow() -> None:
    """A small run that goes on for long keeps a small queue."""
    schedule = Schedule(1)
    take_up(schedule, 50)
    for job in range(50):
        schedule.again(job, 0)
    for turn in range(20_000):
        number = schedule.pick(1 + turn)
        assert number == turn % 50
        schedule.again(number, 1 + turn)
        assert len(schedule._queue) <= 2 * CHUNK + 100


def test_a_job_costs_little_memory() -> None:
    """Beyond the texts a job costs below 150 bytes."""
    schedule = Schedule(10, timeout=3600, rate=20)
    for number in take_up(schedule, 20_000):
        schedule.again(number, 0)
    schedule.due(0)
    arrays = [schedule._states, schedule._times, schedule._taken_up, schedule._queue]
    texts = [schedule._ids, *schedule._ids, schedule._newest_ids, *schedule._known]
    size = sum(map(sys.getsizeof, [*arrays, *texts, schedule._failed]))
    assert size < 150 * 20_000


def test_waiting_jobs_do_not_lengthen_a_garbage_collection() -> None:
    """A full collection visits fewer than two objects more per thousand waiting jobs."""
    schedule = Schedule(10, timeout=3600, rate=20)

    def visited() -> int:
        gc.collect()
        return len({id(each) for holder in gc.get_objects() for each in gc.get_referents(holder)})

    before = visited()
    for number in take_up(schedule, 20 * CHUNK):
        schedule.again(number, 0)
    assert visited() - before < 2 * 20


# Deadlines


def test_deadlines_pass_in_order() -> None:
    """Jobs run out of time in the order in which they were taken up, asked or waiting."""
    schedule = Schedule(10, timeout=30)
    numbers = [take_up(schedule, 1, now=float(second))[0] for second in range(5)]
    schedule.again(numbers[1], 6)
    schedule.again(numbers[3], 6)
    schedule.answer(numbers[0])
    assert schedule.deadline() == 31
    assert schedule.deadline_of(numbers[4]) == 34
    assert schedule.expired(30.9) is None
    assert expire(schedule, 32.5) == numbers[1:3]
    assert schedule.deadline() == 33
    assert expire(schedule, 100) == numbers[3:]
    assert schedule.deadline() == math.inf
    assert schedule.open == 0


def test_deadlines_go_on_after_all_have_been_answered() -> None:
    """A job that is taken up when no other is open has its own deadline."""
    schedule = Schedule(10, timeout=30)
    schedule.answer(take_up(schedule, 1)[0])
    assert schedule.deadline() == math.inf
    assert schedule.take_up("late", 50, 50) == 1
    assert schedule.deadline() == 80
    assert schedule.expired(80) == 1


def test_a_timeout_counts_from_what_is_said() -> None:
    """The ids of a list are taken up one by one, but all are followed from the beginning."""
    schedule = Schedule(10, timeout=30)
    assert schedule.take_up("a", 25, 0) == 0
    assert schedule.deadline() == 30
    assert schedule.again(0, 25)
    assert schedule.due(25) == 29.5


def test_without_a_timeout_there_is_no_deadline() -> None:
    """A run without end has no deadlines and no last looks."""
    schedule = Schedule(10, rate=20)
    (job,) = take_up(schedule, 1)
    assert schedule.again(job, 1)
    assert schedule.deadline_of(job) == math.inf
    assert schedule.deadline() == math.inf
    assert schedule.expired(1e12) is None
    assert schedule.pick(1e12) == job


def test_nobody_is_asked_after_the_deadline() -> None:
    """A job that was due, but not asked in time, is left to run out of time."""
    schedule = Schedule(10, timeout=30)
    (queued,) = take_up(schedule, 1)
    (failed,) = take_up(schedule, 1)
    schedule.again(queued, 0)
    schedule.again(failed, 0, failures=1)
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
    """A job whose next turn would come too late gets it half a second before its deadline."""
    schedule = Schedule(interval, timeout)
    (job,) = take_up(schedule, 1)
    now = 0.0
    while schedule.again(job, now):
        now = schedule.due(now)
        assert pick(schedule, now) == job
    assert now == timeout - margin
    assert schedule.is_asked(job)
    assert schedule.expired(timeout) == job


def test_a_turn_in_time_is_no_last_look() -> None:
    """A job whose next turn comes before its last look would be keeps its interval."""
    schedule = Schedule(10, timeout=11)
    (job,) = take_up(schedule, 1)
    assert schedule.again(job, 0)
    assert schedule.due(0) == 10


def test_a_failed_job_gets_a_last_look() -> None:
    """A wait after failures that would go beyond the deadline is cut short."""
    schedule = Schedule(10, timeout=60)
    (job,) = take_up(schedule, 1)
    assert schedule.again(job, 5, failures=4)
    assert schedule.due(5) == 59.5


def test_last_looks_begin_in_time_for_all() -> None:
    """Those of jobs with one deadline begin as many slots before it as there are jobs."""
    schedule = Schedule(10, timeout=15, rate=4)
    numbers = take_up(schedule, 20)
    assert all(schedule.again(number, 0) for number in numbers)
    assert schedule.due(0) == 14.5 - 20 / 4
    assert pick(schedule, 9.4) is None
    looks = [pick(schedule, 9.5 + slot / 4) for slot in range(20)]
    assert looks == numbers
    assert not any(schedule.again(number, 14.4) for number in numbers)
    assert pick(schedule, 14.9) is None
    assert expire(schedule, 15) == numbers


def test_jobs_that_end_leave_their_slots_to_others() -> None:
    """The fewer jobs are open, the later their last looks."""
    schedule = Schedule(10, timeout=60, rate=4)
    numbers = take_up(schedule, 20)
    for number in numbers:
        schedule.again(number, 0)
    for number in numbers[:16]:
        schedule.answer(number)
    picks(schedule, 50.0)
    for number in numbers[16:]:
        schedule.again(number, 50)
    assert schedule.due(58) == 59.5 - 4 / 4


def test_who_has_been_looked_at_is_not_asked_again() -> None:
    """After a last look, or if asked when they have begun, a job is not put back."""
    schedule = Schedule(1, timeout=10.5, rate=1)
    early, late = take_up(schedule, 2)
    assert schedule.again(early, 0)
    assert pick(schedule, 8.0) == early
    assert not schedule.again(early, 8.1)
    assert schedule.is_asked(early)
    assert schedule.again(late, 7.9)
    assert pick(schedule, 8.5) == late
    assert not schedule.again(late, 8.6)
    assert [pick(schedule, 8.7 + slot) for slot in range(2)] == [None] * 2
    assert expire(schedule, 10.5) == [early, late]


def test_each_deadline_has_its_own_last_look() -> None:
    """Jobs with deadlines apart from each other are looked at a slot before their own."""
    schedule = Schedule(100, timeout=15, rate=4)
    numbers = [take_up(schedule, 1, now=float(second))[0] for second in range(4)]
    for second, number in enumerate(numbers):
        schedule.again(number, second + 0.1)
    for second, number in enumerate(numbers):
        assert schedule.due(second + 14) == second + 14.25
        assert pick(schedule, second + 14.2) is None
        assert pick(schedule, second + 14.25) == number


def test_those_that_wait_to_be_taken_up_need_slots_too() -> None:
    """A job is not asked a second time where others have not been asked once."""
    schedule = Schedule(10, timeout=100.5, rate=20)
    few, many = take_up(schedule, 2)
    schedule.unread = 1980
    assert schedule.again(few, 0)
    schedule.unread = 2000
    assert not schedule.again(many, 0)


def test_last_looks_go_before() -> None:
    """A last look comes before the turns of those that have been due for longer."""
    schedule = Schedule(10, timeout=30)
    first, second = (take_up(schedule, 1, now)[0] for now in (0.0, 5.0))
    schedule.again(second, 5)
    schedule.again(first, 26, failures=2)
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
    """When each job is asked, if there is a slot every 1/rate seconds and no job ever ends.

    Answers take up to 0.3 seconds. The jobs are known at the beginning, and each is asked for the
    first time before any is asked again; or so many arrive in a second, and take turns with those
    that are due.
    """
    schedule = Schedule(interval, timeout, rate)
    rng = random.Random(1)
    asked: list[list[float]] = []
    answers: deque[tuple[float, int]] = deque()
    known = arrivals == math.inf
    new_turn = False
    for slot in range(round(until * rate)):
        now = slot / rate
        while answers and answers[0][0] <= now:
            _, number = answers.popleft()
            if schedule.is_asked(number):
                schedule.again(number, now)
        expire(schedule, now)
        at_hand = len(asked) < (jobs if known else now * arrivals)
        new_turn = known or not new_turn
        schedule.unread = jobs - len(asked) if known else 0
        job = None if schedule.unread else schedule.pick_last_look(now)
        if job is None and not new_turn:
            job = schedule.pick(now)
        if job is None and at_hand:
            job = schedule.take_up(f"job {len(asked)}", now, 0 if known else now)
            asked.append([])
        if job is None:
            job = schedule.pick(now)
        if job is not None:
            asked[job].append(now)
            answers.append((now + rng.uniform(0.01, 0.3), job))
    return asked


def test_an_overloaded_run_asks_everybody_in_turn() -> None:
    """With more jobs than the interval has slots, each is asked once in each sweep."""
    asked = run(1000, rate=20, interval=10, until=1000)
    gaps = [later - time for times in asked for time, later in pairwise(times)]
    assert len(gaps) == 19 * 1000
    assert max(gaps) <= 50 * 1.01
    assert min(gaps) >= 50 * 0.99


def test_a_run_with_room_keeps_the_interval() -> None:
    """With fewer jobs than the interval has slots, each is asked whenever it is due."""
    asked = run(100, rate=20, interval=10, until=500)
    gaps = [later - time for times in asked for time, later in pairwise(times)]
    assert min(gaps) >= 10 - 1e-9
    assert max(gaps) <= 10 + 0.3


@pytest.mark.parametrize(("jobs", "timeout"), [(1, 60), (100, 60), (150, 300), (200, 300)])
def test_everybody_is_looked_at_towards_the_deadline(jobs: int, timeout: float) -> None:
    """With one deadline for all, nobody's last look is older than a sweep."""
    asked = run(jobs, rate=20, interval=10, timeout=timeout, until=timeout + 1)
    assert timeout - min(times[-1] for times in asked) <= jobs / 20 + 0.6


@pytest.mark.parametrize(("jobs", "timeout"), [(500, 60), (1000, 75), (1000, 300), (5900, 300)])
def test_overloaded_or_not_everybody_is_looked_at(jobs: int, timeout: float) -> None:
    """Also where the quota is too small, nobody's last look is older than a sweep."""
    asked = run(jobs, rate=20, interval=10, timeout=timeout, until=timeout + 1)
    assert len(asked) == jobs
    assert timeout - min(times[-1] for times in asked) <= jobs / 20 + 0.6


@pytest.mark.parametrize("arrivals", [0.5, 1, 2, 3, 6, 20])
def test_newcomers_do_not_starve_those_near_their_deadline(arrivals: float) -> None:
    """With new jobs coming for ever, each is still asked just before its own deadline."""
    asked = run(10_000, 20, interval=10, timeout=60, until=600, arrivals=arrivals)
    over = [times for times in asked if times[0] < 600 - 60]
    assert len(over) >= 540 * min(arrivals, 7)
    assert all(59 <= times[-1] - times[0] < 60 for times in over)


# A reference


class Reference:
    """What the schedule should do, from dicts that are searched through each time."""

    def __init__(self, interval: float, timeout: float, rate: float) -> None:
        self.interval, self.timeout = interval, timeout
        self.margin = min(0.5, interval / 2, timeout / 10)
        self.slot = 1 / rate
        self.asked: dict[int, float] = {}
        self.waiting: dict[int, float] = {}
        #: From here on nobody has been passed over when last looks were given.
        self.looked = 0
        self.tail = 0.0

    def last_look(self) -> float:
        """When last looks begin."""
        return self.timeout - self.margin - len(self.asked | self.waiting) * self.slot

    def due(self, now: float) -> dict[int, float]:
        """Who may be picked in turn."""
        return {job: time for job, time in self.waiting.items() if time <= now < self.timeout}

    def pick(self, number: int, now: float) -> None:
        del self.waiting[number]
        self.asked[number] = now

    def look(self, now: float) -> int | None:
        """Who gets a last look."""
        for job in sorted(self.asked | self.waiting):
            if job < self.looked or now < self.last_look():
                continue
            self.looked = job + 1
            if job in self.waiting and now < self.timeout:
                return job
        return None

    def again(self, number: int, now: float, failures: int) -> bool:
        if number < self.looked or self.asked[number] >= self.last_look():
            return False
        due = self.asked.pop(number) + self.interval
        if failures:
            due = now + min(max(self.interval, 60.0), self.interval * 2 ** (failures - 1))
        else:
            due = self.tail = max(due, self.tail)
        self.waiting[number] = due
        return True

    def answer(self, number: int) -> None:
        self.asked.pop(number, None)
        self.waiting.pop(number, None)


# All times are multiples of a power of two, so that both calculate without rounding.
steps = st.tuples(
    st.sampled_from(["take up", "pick", "pick", "again", "again", "again", "answer", "expire"]),
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
def test_any_course_of_things_is_as_in_the_reference(
    course: list[tuple[str, int, int, float]], interval: float, timeout: float | None, rate: float
) -> None:
    """Nobody is lost, asked twice at once, before due or after the deadline, or out of turn."""
    schedule = Schedule(interval, timeout, rate)
    reference = Reference(interval, timeout or math.inf, rate)
    now = 0.0

    def check() -> None:
        open_ = reference.asked.keys() | reference.waiting.keys()
        assert schedule.open == len(open_)
        assert all(schedule.is_asked(job) == (job in reference.asked) for job in open_)
        assert schedule.deadline() == (reference.timeout if open_ else math.inf)
        assert schedule.expired(now) == (min(open_) if open_ and now >= reference.timeout else None)
        waiting = reference.waiting.values() if now < reference.timeout else ()
        looks = [reference.last_look()] if any(job >= reference.looked for job in open_) else []
        assert schedule.due(now) == min([*waiting, *looks], default=math.inf)

    def pick() -> None:
        look = schedule.pick_last_look(now)
        assert look == reference.look(now)
        if look is not None:
            reference.pick(look, now)
            return
        due = reference.due(now)
        number = schedule.pick(now)
        assert (number is None) == (not due)
        if number is not None:
            assert due[number] == min(due.values())
            reference.pick(number, now)

    for action, which, how_many, pause in course:
        job = sorted(reference.asked)[which % len(reference.asked)] if reference.asked else None
        match action:
            case "take up":
                taken = schedule.take_up(f"job {which}", now, 0)
                if taken is not None:
                    assert taken not in reference.asked.keys() | reference.waiting.keys()
                    reference.asked[taken] = now
            case "pick":
                pick()
            case "again" if job is not None:
                failures = max(0, how_many - 6)
                put_back = schedule.again(job, now, failures)
                assert put_back == reference.again(job, now, failures)
            case "answer" if job is not None:
                schedule.answer(job)
                reference.answer(job)
            case "expire" if (job := schedule.expired(now)) is not None:
                assert now >= reference.timeout
                schedule.answer(job)
                reference.answer(job)
            case _:
                now += pause
        check()

    # To the end: everybody who is open is picked or runs out of time.
    while True:
        for job in list(reference.asked):
            schedule.answer(job)
            reference.answer(job)
        check()
        if not schedule.open:
            break
        now = max(now, min(schedule.due(now), schedule.deadline()))
        for job in expire(schedule, now):
            reference.answer(job)
        pick()


# Arguments


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, "10", b"1", []])
def test_times_must_be_above_zero_and_finite(value: Any) -> None:
    """An interval or a timeout that makes no sense is refused by its name."""
    with pytest.raises(ConfigurationError, match=r"^interval: expected seconds"):
        Schedule(value)
    with pytest.raises(ConfigurationError, match=r"^timeout: expected seconds"):
        Schedule(10, value)
    with pytest.raises(ConfigurationError, match=r"^interval: expected seconds"):
        plan(10, value)


def test_an_interval_must_be_given() -> None:
    """There is no default for the interval, as there is none for no timeout."""
    with pytest.raises(ConfigurationError, match="interval"):
        Schedule(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [-1, -0.5, math.nan, -math.inf])
def test_a_plan_needs_a_number_of_jobs(jobs: Any) -> None:
    """A number of jobs below zero, or none at all, is refused."""
    with pytest.raises(ConfigurationError, match=r"^jobs: expected how many"):
        plan(jobs)


@pytest.mark.parametrize("rate", [0, -1, math.nan, -math.inf])
def test_a_plan_needs_a_rate(rate: float) -> None:
    """A rate at which nothing could be asked is refused."""
    with pytest.raises(ConfigurationError, match=r"^rate: expected requests a second"):
        plan(10, rate=rate)


def test_a_plan_of_many_jobs() -> None:
    """Beyond rate times interval, jobs are asked as often as the quota allows."""
    many = plan(100_000, interval=10, rate=20)
    assert (many.jobs, many.rate, many.interval) == (100_000, 20, 10)
    assert (many.period, many.duration, many.detection_delay) == (5000, 5000, 2500)
    assert str(many) == (
        "100,000 jobs at 20 requests a second: each is asked every 5,000 s, "
        "and the run takes at least 5,000 s"
    )


def test_a_plan_of_few_jobs() -> None:
    """Up to rate times interval, jobs are asked as often as wished."""
    few = plan(100)
    assert (few.period, few.duration, few.detection_delay) == (10, 5, 5)
    assert str(few) == (
        "100 jobs at 20 requests a second: each is asked every 10 s, and the run takes at least 5 s"
    )


@pytest.mark.parametrize(("jobs", "rate"), [(0, 20.0), (10, math.inf)])
def test_a_plan_that_takes_no_time(jobs: int, rate: float) -> None:
    """No jobs, or no limit, take no time; the interval is as wished."""
    assert (plan(jobs, rate=rate).duration, plan(jobs, rate=rate).period) == (0, 10)


@pytest.mark.parametrize("value", ["10", None, []])
def test_a_plan_refuses_what_is_no_number(value: Any) -> None:
    """A text is refused by the name of the argument."""
    with pytest.raises(ConfigurationError, match=r"^jobs"):
        plan(value)
    with pytest.raises(ConfigurationError, match=r"^rate"):
        plan(10, rate=value)


def test_a_plan_needs_an_end() -> None:
    """A number of jobs without end, or beyond all numbers, is refused."""
    for jobs in (math.inf, 10**400):
        with pytest.raises(ConfigurationError, match=r"^jobs"):
            plan(jobs)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^interval"):
        Schedule(10**400)


def test_a_plan_of_a_million_jobs_can_be_read() -> None:
    """Seconds are written out."""
    assert "every 50,000 s" in str(plan(1_000_000))
