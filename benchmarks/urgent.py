"""How long an urgent call waits for its slot while jobs are polled; the peer is a task per job."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence

from following import FOLLOWERS, INTERVAL, OURS, PEER, Follow, Service, in_virtual_time, made_up
from limiter import share
from peers import RATE
from report import Cell, Table

from ci_live_audit import LiveAuditClient
from ci_live_audit.testing import Emulator

__all__ = ["tables"]


def tables(*, quick: bool) -> Iterator[Table]:
    """Yield the two tables: in virtual time, and by the wall clock over a socket."""
    yield _urgent(jobs=5000 if quick else 100_000, calls=300 if quick else 1000)
    yield _urgent_by_wall_clock(jobs=100_000, seconds=5 if quick else 15)


TWO_SLOTS = 2 / RATE


def _waits(seconds: Sequence[float]) -> tuple[Cell, ...]:
    """Return the number, median, 99th percentile and maximum, and both against two slots."""
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    milliseconds = (1e3 * it for it in (statistics.median(ordered), p99, ordered[-1]))
    return (len(ordered), *milliseconds, p99 / TWO_SLOTS, ordered[-1] / TWO_SLOTS)


WAITS = ("calls", "median ms", "p99 ms", "longest ms", "p99 vs 2 slots", "longest vs 2 slots")


def _urgent(jobs: int, calls: int) -> Table:
    cases = {OURS: (jobs, calls), PEER: (min(jobs, 10_000), 20)}
    return Table(
        "How long an urgent call waits for its slot while jobs are polled at 20/s, virtual time",
        ("", *WAITS),
        [
            (f"{name}, {n:,} jobs", *_waits(in_virtual_time(_urgent_waits(FOLLOWERS[name], n, m))))
            for name, (n, m) in cases.items()
        ],
        (
            "After the first sweep; one call at a time, 0.2 to 2 s after the one before. Two",
            "slots, 100 ms: one for a poll that is already next, and one for the call. Limit: 1.",
        ),
    )


async def _urgent_waits(follow: Follow, jobs: int, calls: int) -> list[float]:
    rng = random.Random(0)
    service = Service()
    waits: list[float] = []
    async with follow(service, made_up(jobs), INTERVAL, str):
        await service.passed(jobs)
        for _ in range(calls):
            await asyncio.sleep(rng.uniform(0.2, 2))
            waits.append(await service.limiter.acquire())
    return waits


def _urgent_by_wall_clock(jobs: int, seconds: float) -> Table:
    emulator = Emulator(rate=RATE)
    gc.collect()
    begun, ended = asyncio.run(_urgent_calls(emulator, jobs, seconds))
    arrived = {one.path: one.time for one in reversed(emulator.arrivals)}
    rows = [
        (f"{verb}, until it arrives", *_waits([arrived[path] - begun[path] for path in paths]))
        for verb, folder in FOLDERS.items()
        if (paths := [path for path in begun if path.startswith(folder)])
    ]
    whole = _waits([ended[path] - begun[path] for path in begun])
    used = share([one.time for one in emulator.arrivals])
    throttled = sum(one.status == 429 for one in emulator.arrivals)
    return Table(
        f"How long an urgent call takes over a socket while {jobs:,} jobs are polled at 20/s",
        ("", *WAITS),
        [*rows, ("either, until its response", *whole)],
        (
            f"{seconds:g} s of the first sweep; one call at a time, 0.1 to 0.4 s after the one",
            f"before. By the emulator's record, which also has {used:.3f} of the quota used and",
            f"{throttled} requests refused. Two slots: 100 ms. Limit: 1, and what sending takes.",
        ),
    )


FOLDERS = {"query": "/video/auditing/", "cancel": "/video/cancel_auditing/"}


async def _urgent_calls(
    emulator: Emulator, jobs: int, seconds: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return when urgent calls began and ended, by path."""
    time = asyncio.get_running_loop().time
    rng = random.Random(0)
    polled = [emulator.add_job(job_id, duration=math.inf) for job_id in made_up(jobs)]
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    async with (
        emulator.serve() as url,
        LiveAuditClient(
            emulator.bucket,
            emulator.region,
            credentials=emulator.credentials,
            endpoint=url,
        ) as client,
        client.as_completed(polled) as outcomes,
    ):
        consumer = asyncio.create_task(anext(outcomes))
        end = time() + seconds
        for verb in itertools.cycle(FOLDERS):
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            if time() > end:
                break
            job_id = emulator.add_job(duration=math.inf)
            path = FOLDERS[verb] + job_id
            begun[path] = time()
            await (client.query(job_id) if verb == "query" else client.cancel(job_id))
            ended[path] = time()
        consumer.cancel()
    return begun, ended
