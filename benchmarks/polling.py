"""Following many jobs, against the quota (the limit) and against a task per job (the peer).

The peer is what one writes without the library: for each job a task that queries, sleeps and
queries again, all over the same limiter, first come first served. Measured are whether every id
has its outcome, how much of the quota is used, and how soon it is known that a job has ended.
Virtual time makes these deterministic and hours short. How long an urgent call waits meanwhile is
in `urgent`, what waiting costs in `waiting`.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import attrs
import urgent
import waiting
from following import FOLLOWERS, INTERVAL, OURS, PEER, Follow, Service, in_virtual_time, made_up
from limiter import most, share
from peers import RATE
from report import Cell, Table

from ci_live_audit.testing import Emulator, Fault, VirtualTimeLoop

__all__ = ["run"]

T = TypeVar("T")


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables, with those of `urgent` and `waiting`."""
    yield _outcomes(jobs=1000 if quick else 10_000)
    yield _quota(jobs=5000 if quick else 100_000, slots=2000 if quick else 5000)
    yield _delay(jobs=5000 if quick else 50_000, ending=300 if quick else 1000)
    yield from urgent.tables(quick=quick)
    yield from waiting.tables(quick=quick)


# Every id has its outcome

SHARE = 0.06
#: Injected throttling has the status of the COS gateway, so that 429 is due to the rate.
FAULTS = {
    Fault.throttle(status=503): SHARE,
    Fault.error(500): SHARE / 2,
    Fault.error(503): SHARE / 2,
    Fault.reset(): SHARE,
    Fault.truncated(): SHARE,
    Fault.garbage(): SHARE,
}


def _outcomes(jobs: int) -> Table:
    without = in_virtual_time(_bulk(jobs, {}))
    faulty = in_virtual_time(_bulk(jobs, FAULTS))
    return Table(
        f"as_completed over the emulator: {jobs:,} ids in virtual time",
        ("", "no faults", f"{sum(FAULTS.values()):.0%} faults", "limit"),
        [(name, cell, faulty[name][0], limit) for name, (cell, limit) in without.items()],
        (
            "In process, with the real client. Of 100 ids 2 are of jobs that fail, 1 is unknown",
            "and 1 given twice; jobs end within two sweeps. Faults: 6 % each of throttling, 500 or",
            "503, reset, truncated and garbage. Throttled by the rate: by the emulator, at 20/s.",
            "Last rows: the seconds of the run against what its requests take at 20/s, and against",
            "that and the second for which the client is silent after each throttling.",
        ),
    )


async def _bulk(jobs: int, faults: Mapping[Fault, float]) -> dict[str, tuple[Cell, Cell]]:
    """Return figures and their limits."""
    random.seed(0)  # for the jitter of the client
    rng = random.Random(0)
    emulator = Emulator(rate=RATE)
    expected: dict[str, str] = {}
    for number, job_id in enumerate(made_up(jobs)):
        error = {0: "JobNotFound", 1: "JobFailed", 51: "JobFailed"}.get(number % 100, "")
        expected[job_id] = error
        if error != "JobNotFound":
            failure = ("StreamFailed", "The stream is gone.") if error else None
            emulator.add_job(job_id, duration=rng.uniform(0, 2 * jobs / RATE), failure=failure)
    left = 1.0
    for fault, part in faults.items():
        emulator.inject(fault, share=part / left)  # of the requests without another fault
        left -= part
    attempts: Counter[str] = Counter()
    got: Counter[str] = Counter()
    found: Counter[str] = Counter()
    ids = rng.sample(list(expected), jobs)

    async with (
        emulator.client(on_attempt=lambda it: attempts.update([_kind(it.error)])) as client,
        client.as_completed(ids + ids[::100]) as outcomes,
    ):
        async for outcome in outcomes:
            got[outcome.job_id] += 1
            kind = _kind(outcome.error)
            found[kind if kind == expected[outcome.job_id] else f"not {kind}"] += 1
    seconds = asyncio.get_running_loop().time()
    quota = len(emulator.arrivals) / RATE
    wanted = Counter(expected.values())
    others = [f"{n} {kind[4:]}" for kind, n in found.items() if kind.startswith("not ")]
    return {
        "ids with an outcome": (len(got), jobs),
        "ids without an outcome": (len(expected.keys() - got.keys()), 0),
        "ids with two outcomes": (got.total() - len(got), 0),
        "jobs that ended well": (found[""], wanted[""]),
        "JobFailed": (found["JobFailed"], wanted["JobFailed"]),
        "JobNotFound": (found["JobNotFound"], wanted["JobNotFound"]),
        "wrong outcomes": (", ".join(others) or 0, 0),
        "requests": (len(emulator.arrivals), None),
        "throttled by the rate": (sum(one.status == 429 for one in emulator.arrivals), 0),
        "seconds": (seconds, None),
        "seconds vs quota": (seconds / quota, 1),
        "seconds vs quota and holds": (seconds / (quota + attempts["Throttled"]), 1),
    }


def _kind(error: Exception | None) -> str:
    return "" if error is None else type(error).__name__


# The quota is used


def _quota(jobs: int, slots: int) -> Table:
    few = min(jobs, 10_000)
    cases = {
        f"{OURS}, {jobs:,} jobs": _Polling(OURS, jobs),
        f"{OURS}, {jobs:,} jobs due at 20/s": _Polling(OURS, jobs, interval=jobs / RATE),
        f"{OURS}, {few:,} jobs, responses after 2 s": _Polling(OURS, few, delay=2.0),
        f"{OURS}, {few:,} jobs, stalled loop": _Polling(OURS, few, stall=0.045),
        f"{PEER}, {few:,} jobs": _Polling(PEER, few),
        f"{PEER}, {few:,} jobs, stalled loop": _Polling(PEER, few, stall=0.045),
    }
    rows: list[tuple[Cell, ...]] = []
    for name, polling in cases.items():
        times, in_flight = in_virtual_time(polling.slots(slots))
        rows.append((name, share(times), most(times), in_flight))
    return Table(
        f"How much of the quota is used: {slots:,} slots at 20/s in virtual time",
        ("", "share of the slots", "most in any 1 s", "most in flight"),
        rows,
        (
            "After the first sweep; interval 10 s, responses after 0.1 s unless stated otherwise.",
            "Due at 20/s: the interval is jobs/20 s, so a slot is lost where a job is late. A",
            "stalled loop stands still for 45 ms every 0.4 s. Limits: 1 (goal 0.99), 20.",
        ),
    )


@attrs.frozen
class _Polling:
    """How jobs are followed."""

    follower: str
    jobs: int
    interval: float = INTERVAL
    delay: float = 0.1
    stall: float = 0.0

    async def slots(self, count: int) -> tuple[Sequence[float], int]:
        """Return the times of requests after the first sweep, and the most in flight."""
        service = Service(self.delay)
        follow, ids = FOLLOWERS[self.follower], made_up(self.jobs)
        async with follow(service, ids, self.interval, str):
            await service.passed(self.jobs)
            service.times = times = array("d")
            stalls = asyncio.create_task(self._stall())
            await service.passed(count)
            stalls.cancel()
        return times, service.most_in_flight

    async def _stall(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        while self.stall:
            await asyncio.sleep(0.4)
            loop.now += self.stall


# An end is noticed


def _delay(jobs: int, ending: int) -> Table:
    sweep = jobs / RATE
    scatter = 1 / math.sqrt(3 * ending)  # of a uniform distribution from 0 to a sweep
    rows: list[tuple[Cell, ...]] = []
    for name, follow in FOLLOWERS.items():
        delays = in_virtual_time(_delays(follow, jobs, ending))
        mean, longest = statistics.mean(delays), max(delays)
        ratios = mean / (sweep / 2), longest / (sweep + INTERVAL)
        rows.append((name, mean, ratios[0], longest, ratios[1]))
    return Table(
        f"How soon an end is noticed: {ending:,} of {jobs:,} jobs end, virtual time",
        ("", "mean, s", "vs N/2R", "longest, s", "vs N/R + interval"),
        rows,
        (
            f"R = 20/s, interval {INTERVAL:g} s. They end at random in the three sweeps after the",
            f"first. Limits: 1 (goal: within 5 %; the mean scatters by {scatter:.1%}),",
            "1 (goal 1.05).",
        ),
    )


async def _delays(follow: Follow, jobs: int, ending: int) -> list[float]:
    """Return the seconds from the end of each job to the callback."""
    loop = asyncio.get_running_loop()
    rng = random.Random(0)
    ends: dict[str, float] = {}
    delays: list[float] = []
    all_ended = asyncio.Event()

    def ended(job_id: str) -> None:
        delays.append(loop.time() - ends[job_id])
        if len(delays) == ending:
            all_ended.set()

    service, ids = Service(ends=ends), made_up(jobs)
    async with asyncio.timeout(20 * jobs / RATE), follow(service, ids, INTERVAL, ended):
        await service.passed(jobs)
        for job_id in rng.sample(ids, ending):
            ends[job_id] = loop.time() + rng.uniform(0, 3 * jobs / RATE)
        await all_ended.wait()
    return delays
