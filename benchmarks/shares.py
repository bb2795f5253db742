"""Measures what sharing 10,000 jobs over Redis costs, and how soon shares are even.

Four processes' worth of runs in one process, at 20 requests a second each.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.asyncio import Redis
from report import Table

from ci_live_audit import AuditJob, JobState, Outcomes
from ci_live_audit.following.polling import Polling
from ci_live_audit.redis import RedisCheckpoint

__all__ = ["measure"]

JOBS = [f"av{number:032x}" for number in range(10_000)]


async def query(job_id: str, _: object) -> AuditJob:
    """Return a job that goes on."""
    await asyncio.sleep(0.05)
    return AuditJob(job_id=job_id, state=JobState.AUDITING)


class Gate:
    """Lets 20 polls pass each second."""

    requests = 0

    async def wait_for_gate(self) -> None:
        """Wait for the next."""
        await asyncio.sleep(0.05)


async def follow(url: str) -> None:
    """Take part."""
    checkpoint = RedisCheckpoint(url, "shares")
    checkpoint.bind("bucket", "region")
    gate: Any = Gate()
    polling = Polling(query, 30, limiter=gate, rate=20.0, checkpoint=checkpoint)
    async with Outcomes(polling, JOBS) as outcomes:
        async for _ in outcomes:
            pass


async def even(redis: Any, processes: int) -> float:
    """Return the seconds until shares are even."""
    began = time.monotonic()
    while True:
        keys = [key async for key in redis.scan_iter("*:own:*")]
        shares = [await redis.scard(key) for key in keys]
        whole = len(shares) == processes and sum(shares) == len(JOBS)
        if whole and max(shares) - min(shares) <= 1:
            return time.monotonic() - began
        await asyncio.sleep(0.02)


async def measure(url: str) -> Table:
    """Return the table, over an empty Redis."""
    redis: Any = Redis.from_url(url)
    runs = [asyncio.create_task(follow(url)) for _ in range(3)]
    await even(redis, 3)
    runs.append(asyncio.create_task(follow(url)))
    joined = await even(redis, 4)
    await asyncio.sleep(2)
    await redis.config_resetstat()
    await asyncio.sleep(15)
    cost = (await redis.info("commandstats"))["cmdstat_evalsha"]["usec_per_call"]
    runs[3].cancel()
    left = await even(redis, 3)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)
    await redis.aclose()
    return Table(
        f"Four processes that share {len(JOBS):,} jobs",
        ("", "a beat, ms of Redis", "one joins: even after, s", "one leaves: even after, s"),
        [("RedisCheckpoint", cost / 1000, joined, left)],
        ("Goals: 0.1 ms, and three beats of a second each.",),
    )
