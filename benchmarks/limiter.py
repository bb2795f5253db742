"""Measures the rate limiter, against bare aiolimiter (the peer) and the quota itself (the limit).

A quota of 20 requests a second should be used in full and never exceeded. Measured are the share of
the quota that is sustained, the most requests in any one second, and whether waiters are served in
order: in virtual time, where only the algorithm counts, and by the wall clock over a real socket,
where the loop is late and sometimes stalled and the emulator records the arrivals. Processes that
share a quota are measured in `sharing`, the cost of a grant in `grants`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import random
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial

import attrs
import grants
from peers import LIMITERS, OURS, PACED, RATE, Make
from report import Sample, Table, interleaved
from sharing import sharing

from ci_live_audit import LiveAuditClient, LiveAuditError
from ci_live_audit.testing import Emulator, VirtualTimeLoop

__all__ = ["most", "run", "share"]


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the four tables."""
    yield _in_virtual_time()
    yield sharing(seconds=300, rounds=3 if quick else 20)
    yield _by_wall_clock(seconds=6 if quick else 20, rounds=1 if quick else 3)
    yield grants.cost(rounds=3 if quick else 7)


def share(times: Sequence[float]) -> float:
    """Return the rate from the first moment to the last, as a share of the quota."""
    return (len(times) - 1) / (times[-1] - times[0]) / RATE


def most(times: Sequence[float]) -> int:
    """Return the highest number in any one second, less a microsecond for rounding errors."""
    return max(bisect_left(times, t + 1 - 1e-6) - n for n, t in enumerate(times))


# In virtual time


def _in_virtual_time() -> Table:
    rows = []
    for name, stall in itertools.product(LIMITERS, (0.0, 0.06)):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            granted = runner.run(_grants(LIMITERS[name], stall))
        times, order = [moment for moment, _ in granted], [number for _, number in granted]
        passed = max(place - number for place, number in enumerate(order))
        loop = "stalled" if stall else "quiet"
        rows.append((f"{name}, {loop}", share(times), most(times), passed))
    return Table(
        "1,000 slots at 20/s in virtual time",
        ("limiter, loop", "share of the rate", "most in any 1 s", "most overtaken by"),
        rows,
        (
            "900 wait from the start; 100 come later, one every 0.4 s, after a stall of 60 ms if",
            "stalled. The last column is the most later waiters by which one was overtaken.",
            "Limits: 1, 20, 0. Deterministic, so without spread.",
        ),
    )


async def _grants(make: Make, stall: float) -> list[tuple[float, int]]:
    """Return when each slot was granted, and the waiter's number in the order of arrival."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    limiter = make()
    granted: list[tuple[float, int]] = []

    async def one(number: int) -> None:
        await limiter.acquire()
        granted.append((loop.time(), number))

    async with asyncio.TaskGroup() as tasks:
        for number in range(1000):
            if number >= 900:
                await asyncio.sleep(0.4)
                loop.now += stall
            tasks.create_task(one(number))
    return granted


# By the wall clock


@attrs.frozen
class _Arrivals:
    """The arrivals of a client's requests at an emulator."""

    share: float
    most: int
    tightest: float
    throttled: int


def _by_wall_clock(seconds: float, rounds: int) -> Table:
    cases = {
        f"{name}, {loop}": partial(_session, LIMITERS[name], seconds, stalls=loop == "stalled")
        for loop, name in itertools.product(("quiet", "stalled"), (OURS, PACED))
    }
    results = interleaved(cases, rounds, warm_up=False)
    shares = {name: Sample.of(one.share for one in found) for name, found in results.items()}
    rows = [
        (
            name,
            shares[name],
            shares[name] / shares[name.replace(OURS, PACED)],
            Sample.of(one.most for one in found),
            Sample.of(one.tightest for one in found),
            Sample.of(one.throttled for one in found),
        )
        for name, found in results.items()
    ]
    return Table(
        f"Queries at 20/s over a socket, 5 workers in closed loop, {rounds} times {seconds:g} s",
        (
            *("limiter, loop", "share of the rate", "vs peer", "most in any 1 s"),
            *("fastest 21, s", "throttled responses"),
        ),
        rows,
        (
            f"Peer: {PACED}. As the emulator recorded, from the first arrival to the",
            "last. It runs in a thread of this process and throttles 21 requests within 0.975 s.",
            "A stalled loop stops for 20 ms every 50 to 350 ms.",
            "Limits: 1, 20, 1 s, 0.",
        ),
    )


def _session(make: Make, seconds: float, *, stalls: bool) -> _Arrivals:
    gc.collect()
    return asyncio.run(_queries(make, seconds, stalls=stalls))


async def _queries(make: Make, seconds: float, *, stalls: bool) -> _Arrivals:
    loop = asyncio.get_running_loop()
    emulator = Emulator(rate=RATE)
    job_id = emulator.add_job(duration=math.inf)
    end = loop.time() + seconds

    async def work(client: LiveAuditClient) -> None:
        while loop.time() < end:
            with contextlib.suppress(LiveAuditError):
                await client.query(job_id)

    async def stall() -> None:
        rng = random.Random(0)
        while loop.time() < end:
            await asyncio.sleep(rng.uniform(0.05, 0.35))
            time.sleep(0.02)  # noqa: ASYNC251 - this is the stall

    async with (
        emulator.serve() as url,
        LiveAuditClient(
            emulator.bucket,
            emulator.region,
            credentials=emulator.credentials,
            endpoint=url,
            limiter=make(),
        ) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(5):
            tasks.create_task(work(client))
        if stalls:
            tasks.create_task(stall())
    times = [arrival.time for arrival in emulator.arrivals]
    throttled = sum(arrival.status == 429 for arrival in emulator.arrivals)
    tightest = min(last - first for first, last in zip(times, times[RATE:], strict=False))
    return _Arrivals(share(times), most(times), tightest, throttled)
