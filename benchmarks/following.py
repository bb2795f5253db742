"""A service in virtual time, and two ways to follow jobs there: as_completed, a task per job."""

from __future__ import annotations

import asyncio
import contextlib
import random
from array import array
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from peers import RATE

from ci_live_audit.following.outcomes import Outcomes
from ci_live_audit.following.polling import Polling
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.models import AuditJob, JobState
from ci_live_audit.testing import VirtualTimeLoop

__all__ = [
    "FOLLOWERS",
    "INTERVAL",
    "OURS",
    "PEER",
    "Follow",
    "Service",
    "as_completed",
    "in_virtual_time",
    "made_up",
    "task_per_job",
    "tasks",
]

T = TypeVar("T")

#: The client's default.
INTERVAL = 10.0


class Service:
    """Responds as the client does: some time after a slot of the quota.

    Args:
        delay: Seconds from the slot to the response.
        ends: When jobs end; the others run for ever.
    """

    def __init__(self, delay: float = 0.1, ends: Mapping[str, float] | None = None) -> None:
        self.limiter = LocalRateLimiter(RATE)
        self.background = BackgroundRateLimiter(self.limiter)
        self.in_flight = self.most_in_flight = 0
        #: The times of all requests, if set.
        self.times: array[float] | None = None
        self._delay = delay
        self._ends = {} if ends is None else ends
        self._left = 0
        self._passed = asyncio.Event()

    async def pass_(self, limiter: RateLimiter) -> float:
        """Wait for a slot, and return when it came."""
        await limiter.acquire()
        self._left -= 1
        if self._left == 0:
            self._passed.set()
        now = asyncio.get_running_loop().time()
        if self.times is not None:
            self.times.append(now)
        return now

    async def query(self, limiter: RateLimiter, job_id: str, _: object = None) -> AuditJob:
        """Return a job as it was when the request passed."""
        now = await self.pass_(limiter)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        await asyncio.sleep(self._delay)
        self.in_flight -= 1
        return ENDED if job_id in self._ends and self._ends[job_id] <= now else RUNNING

    async def passed(self, requests: int) -> None:
        """Wait until this many more requests have passed."""
        self._left = requests
        self._passed.clear()
        await self._passed.wait()


RUNNING = AuditJob(job_id="av0", state=JobState.AUDITING)
ENDED = AuditJob(job_id="av0", state=JobState.SUCCESS)

Ended: TypeAlias = Callable[[str], object]
#: Follows jobs while the context lasts, and calls back with the id of each that has ended.
Follow: TypeAlias = Callable[
    [Service, Sequence[str], float, Ended], AbstractAsyncContextManager[None]
]


@contextlib.asynccontextmanager
async def as_completed(
    service: Service, ids: Sequence[str], interval: float, ended: Ended
) -> AsyncGenerator[None, None]:
    """Follow jobs as the library does."""

    async def consume() -> None:
        async for outcome in outcomes:
            outcome.unwrap()
            ended(outcome.job_id)

    query = partial(service.query, service.background)
    polling = Polling(query, interval, None, service.background, RATE)
    async with (
        Outcomes(polling, ids) as outcomes,
        tasks([consume()]),
    ):
        yield


@contextlib.asynccontextmanager
async def tasks(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    """Run each coroutine in a task until the context is left."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def task_per_job(
    service: Service, ids: Sequence[str], interval: float, ended: Ended
) -> AbstractAsyncContextManager[None]:
    """Follow jobs as one would without the library."""

    async def follow(job_id: str) -> None:
        while not (await service.query(service.limiter, job_id)).ended:  # noqa: ASYNC110
            await asyncio.sleep(interval)
        ended(job_id)

    return tasks(map(follow, ids))


OURS, PEER = "as_completed", "a task per job"
FOLLOWERS: dict[str, Follow] = {OURS: as_completed, PEER: task_per_job}


def made_up(jobs: int) -> list[str]:
    """Return ids like those of the service."""
    rng = random.Random(0)
    return [f"av{rng.getrandbits(128):032x}" for _ in range(jobs)]


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to the end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
