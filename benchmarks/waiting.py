"""What waiting jobs cost: CPU time, memory, garbage collection. The peer is a task per job.

Of a million followed jobs nearly all are waiting at any time. They should not add to the cost of a
poll, take much memory, or make the garbage collector stop the loop to visit them. In virtual time
there is no waiting, and all CPU time is spent in the loop, the limiter and the follower. New ids
are read at the pace of the quota, so all jobs are waiting only after a first sweep; all figures
except the longest pause are from after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import time
import tracemalloc
from collections.abc import (
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, ExitStack

import attrs
from following import (
    FOLLOWERS,
    INTERVAL,
    OURS,
    PEER,
    Follow,
    Service,
    as_completed,
    made_up,
    task_per_job,
    tasks,
)
from report import Sample, Table, interleaved

from ci_live_audit.testing import VirtualTimeLoop

__all__ = ["tables"]

#: Polls in a round.
POLLS = 2000


def tables(*, quick: bool) -> Iterator[Table]:
    """Yield the four tables."""
    sizes = {OURS: [1000, 50_000], PEER: [1000, 20_000]}
    if not quick:
        sizes = {OURS: [1000, 100_000, 1_000_000], PEER: [1000, 100_000]}
    rounds = 3 if quick else 9
    # One after the other, so that the objects of one are not collected in the other.
    found = [
        row
        for name, jobs in sizes.items()
        for row in _measured({f"{name}, {n:,} jobs": (FOLLOWERS[name], n) for n in jobs}, rounds)
    ]
    yield _cpu_time(found, rounds)
    yield _collection(found)
    yield _memory({OURS: 10_000 if quick else 100_000, PEER: 2000 if quick else 10_000})
    yield _in_context(rounds)


# Many waiting jobs


@attrs.frozen
class _Load:
    """The most tasks; the longest pause, a full collection and one without the jobs, in ms."""

    tasks: int
    longest: float
    full: float
    without: float


class _Crowd:
    """Waiting jobs on a loop of their own, which runs only while it is measured."""

    def __init__(self, follow: Follow, ids: Sequence[str]) -> None:
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self._stack = AsyncExitStack()
        self._ids = ids
        without = _full_collection()
        with _watching_collections() as pauses:
            tasks = self._runner.run(self._begin(follow))
        self.load = _Load(tasks, max(pauses, default=0.0), _full_collection(), without)

    async def _begin(self, follow: Follow) -> int:
        """Poll every job once, and return the most tasks at twenty moments of that."""
        self._service = Service()
        most = 0
        following = follow(self._service, self._ids, INTERVAL, str)
        await self._stack.enter_async_context(following)
        for _ in range(20):
            await self._service.passed(-(-len(self._ids) // 20))
            most = max(most, len(asyncio.all_tasks()) - 1)
        return most

    def measure(self) -> float:
        """Return the CPU time of a poll in µs."""
        gc.collect()
        return self._runner.run(self._polls())

    async def _polls(self) -> float:
        began = time.process_time()
        await self._service.passed(POLLS)
        return (time.process_time() - began) / POLLS * 1e6

    def close(self) -> None:
        """Stop following."""
        self._runner.run(self._stack.aclose())
        self._runner.close()


def _full_collection() -> float:
    """Return the median CPU time of five full collections in milliseconds."""
    gc.collect()
    with _watching_collections() as pauses:
        for _ in range(5):
            gc.collect()
    return statistics.median(pauses)


@contextlib.contextmanager
def _watching_collections() -> Iterator[list[float]]:
    """Yield a list that grows by the CPU time of every collection in milliseconds."""
    pauses: list[float] = []
    began = 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            pauses.append((time.process_time() - began) * 1e3)

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


@attrs.frozen
class _Row:
    name: str
    load: _Load
    cpu: Sample


def _measured(cases: Mapping[str, tuple[Follow, int]], rounds: int) -> list[_Row]:
    """Measure crowds in turn, and leave nothing of them behind."""
    with ExitStack() as stack:
        crowds: dict[str, _Crowd] = {}
        for name, (follow, jobs) in cases.items():
            crowds[name] = _Crowd(follow, made_up(jobs))
            stack.callback(crowds[name].close)
        costs = interleaved({name: crowd.measure for name, crowd in crowds.items()}, rounds)
    return [_Row(name, crowd.load, Sample.of(costs[name])) for name, crowd in crowds.items()]


# The tables


def _cpu_time(rows: Sequence[_Row], rounds: int) -> Table:
    few = {row.name.partition(",")[0]: row.cpu for row in reversed(rows)}
    return Table(
        f"CPU time of a poll while jobs wait: {rounds} rounds of {POLLS:,} polls in virtual time",
        ("", "µs", "vs own at 1,000", "most tasks"),
        [
            (row.name, row.cpu, row.cpu / few[row.name.partition(",")[0]], row.load.tasks)
            for row in rows
        ],
        (
            "20 requests a second, responses after 0.1 s. Limit: 1 (goal 1.5). Tasks: the most",
            "at 20 moments of the first sweep.",
        ),
    )


def _collection(rows: Sequence[_Row]) -> Table:
    return Table(
        "What waiting jobs cost the garbage collector: ms of CPU time",
        ("", "longest pause", "full collection", "full without", "beyond that"),
        [
            (
                row.name,
                row.load.longest,
                row.load.full,
                row.load.without,
                max(row.load.longest, row.load.full) - row.load.without,
            )
            for row in rows
        ],
        (
            "The longest pause that came by itself in the first sweep (0: none came); a full",
            "collection after it, and before the run, with the list of ids there already (medians",
            "of five); by how much the longer of the first two exceeds the third. Goal: below 50.",
        ),
    )


def _memory(sizes: Mapping[str, int]) -> Table:
    each = {name: _bytes(FOLLOWERS[name], jobs) for name, jobs in sizes.items()}
    return Table(
        "What a waiting job takes in memory",
        ("", "bytes", "vs goal", "vs peer"),
        [
            (f"{name}, {sizes[name]:,} jobs", size, size / 150, size / each[PEER])
            for name, size in each.items()
        ],
        (
            "By tracemalloc, after the first sweep; the list of ids and their texts, which are the",
            "caller's, do not count. Goal: not above 150.",
        ),
    )


def _bytes(follow: Follow, jobs: int) -> float:
    ids = made_up(jobs)
    tracemalloc.start()
    try:
        crowd = _Crowd(follow, ids)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    crowd.close()
    return size / jobs


def _in_context(rounds: int) -> Table:
    def workers(work: Callable[[Service, str], Awaitable[object]]) -> Follow:
        async def forever(service: Service, job_id: str) -> None:
            while True:
                await work(service, job_id)

        return lambda service, ids, _interval, _ended: tasks(forever(service, i) for i in ids)

    grants, polls = "5 workers: slots only", "5 workers: slots and responses"
    ours, peer = f"{OURS}, 10,000 jobs", f"{PEER}, 10,000 jobs"
    cases = {
        grants: (workers(lambda service, _: service.pass_(service.limiter)), 5),
        polls: (workers(lambda service, job_id: service.query(service.limiter, job_id)), 5),
        peer: (task_per_job, 10_000),
        ours: (as_completed, 10_000),
    }
    cpu = {row.name: row.cpu for row in _measured(cases, rounds)}
    return Table(
        f"What a poll is made of: CPU time, {rounds} rounds of {POLLS:,} polls in virtual time",
        ("", "µs", "vs slots", "vs slots and responses", "vs peer"),
        [
            (name, cost, cost / cpu[grants], cost / cpu[polls], cost / cpu[peer])
            for name, cost in cpu.items()
        ],
        (
            "A slot is a grant of the limiter, a response a timer of 0.1 s. Workers (the limit)",
            "follow nothing: each queries again and again, and no job has to be chosen.",
        ),
    )
