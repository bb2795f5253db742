"""The jobs of a run, by number, in memory that follows the open ones."""

from __future__ import annotations

import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit.following import jobs as module
from ci_live_audit.following.jobs import CHUNK, Jobs

steps = st.tuples(st.sampled_from(["add", "add", "finish", "finish", "set"]), st.integers(0, 60))


@given(st.lists(steps, max_size=150), st.sampled_from([None, 7.0]))
def test_any_course_of_events_is_as_in_a_dict(
    course: list[tuple[str, int]], shared: float | None
) -> None:
    """Ids, times, flags and deadlines of open jobs stay, whatever is finished around them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 8)
        patch.setattr(module, "FEW", 4)
        jobs = Jobs(shared=shared)
        known: dict[int, tuple[str, float, float]] = {}
        flags: dict[int, int] = {}
        for number, (action, which) in enumerate(course):
            if action == "add":
                job = jobs.add(f"job {number}", number, 100 + number)
                known[job] = f"job {number}", number, shared or 100 + number
            elif known:
                job = sorted(known)[which % len(known)]
                if action == "finish":
                    jobs.finish(job)
                    del known[job]
                else:
                    jobs.set_flags(job, which)
                    flags[job] = which
                    jobs.set_time(job, -number)
                    deadline = known[job][2]
                    if shared is None:
                        jobs.set_deadline(job, deadline := 500 + number)
                    known[job] = known[job][0], -number, deadline
            for job, facts in known.items():
                assert jobs.is_open(job)
                assert (jobs.id_of(job), jobs.time_of(job), jobs.deadline_of(job)) == facts
                assert jobs.flags_of(job) == flags.get(job, 0)
            assert [job for job in range(jobs.end) if jobs.is_open(job)] == sorted(known)
            for job in range(jobs.end + 1):
                later = [one for one in known if one >= job]
                assert jobs.first_open(job) == min(later, default=jobs.end)


def test_a_shared_deadline_is_set_for_all() -> None:
    """One deadline stands for all jobs; a job that was never added has none."""
    jobs = Jobs(shared=5.0)
    first, second = jobs.add("a", 0, 0), jobs.add("b", 0, 0)
    jobs.set_deadline(first, 9.0)
    assert [jobs.deadline_of(job) for job in (first, second, second + 1)] == [9.0, 9.0, math.inf]


def test_a_finished_job_that_is_gone_has_neither_time_nor_deadline() -> None:
    """Its time is long ago and its deadline never, so it is passed over everywhere."""
    jobs = Jobs()
    for number in range(CHUNK):
        jobs.add(str(number), 1, 2)
    for number in range(CHUNK):
        jobs.finish(number)
    assert (jobs.time_of(3), jobs.deadline_of(3), jobs.is_open(3)) == (-math.inf, math.inf, False)


@pytest.mark.parametrize("staying", [0, 1000])
def test_memory_follows_the_open_jobs(staying: int) -> None:
    """Of 200,000 jobs that end at once nothing stays, and of one in a thousand that does little."""
    jobs = Jobs()
    tracemalloc.start()
    try:
        for number in range(200_000):
            job = jobs.add(f"av{number:032}", 0.0, 1.0)
            if not staying or number % staying:
                jobs.finish(job)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < (100_000 if not staying else 400_000)
