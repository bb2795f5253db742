"""One of several processes that take grants of a shared quota, as ``quota`` starts them.

Every grant is noted by sending a datagram to the recorder, whose clock all of them share. At the
end, the process prints what it waited for and what it cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from ci_live_audit._redis import Script
from ci_live_audit.limits import claimant
from ci_live_audit.limits.claim import CLAIM
from ci_live_audit.redis import RedisRateLimiter

__all__ = ["PEERS"]

Acquire = Callable[[bool], Awaitable[object]]


async def ours(url: str, rate: float) -> Acquire:
    """Return the way to a grant of ours; bulk work has a lane of its own."""
    # So that the clock of the server can be changed without changing the machine's.
    text = CLAIM.text.replace(
        "local now =",
        "time[1] = string.format('%d', time[1] + (redis.call('GET', 'offset') or 0))\nlocal now =",
    )
    vars(claimant)["CLAIM"] = Script(text)
    limiter = RedisRateLimiter(url, rate=rate)
    return lambda bulk: limiter.acquire_background() if bulk else limiter.acquire()


async def moving_window(url: str, rate: float) -> Acquire:
    """Return that of limits, which leaves the waiting to its user."""
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    storage = RedisStorage(f"async+{url}", implementation="redispy")
    limiter, item = MovingWindowRateLimiter(storage), RateLimitItemPerSecond(int(rate))

    async def acquire(_: bool) -> None:
        while not await limiter.hit(item, "quota"):  # noqa: ASYNC110 - it has no other way
            await asyncio.sleep(0.02)

    return acquire


async def pyrate(url: str, rate: float) -> Acquire:
    """Return that of pyrate-limiter."""
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
    from redis.asyncio import Redis

    rates = [Rate(int(rate), Duration.SECOND)]
    made: Any = RedisBucket.init(rates, Redis.from_url(url), "quota")
    limiter = Limiter(await made)
    return lambda _: limiter.try_acquire_async("quota")


async def throttled(url: str, rate: float) -> Acquire:
    """Return that of throttled-py."""
    from throttled.asyncio import RedisStore, Throttled, rate_limiter

    limiter = Throttled(
        key="quota",
        using="gcra",
        quota=rate_limiter.per_sec(int(rate), burst=int(rate)),
        store=RedisStore(server=url),
    )

    async def acquire(_: bool) -> None:
        while (await limiter.limit(timeout=30)).limited:
            pass

    return acquire


async def self_limiters(url: str, rate: float) -> Acquire:
    """Return that of self-limiters."""
    from self_limiters import TokenBucket

    async def acquire(_: bool) -> None:
        async with TokenBucket("quota", int(rate), 1 / rate, 1, url):
            pass

    return acquire


async def split(_: str, rate: float) -> Acquire:
    """Return that of processes which have a quarter each and know nothing of each other."""
    from ci_live_audit import LocalRateLimiter

    limiter = LocalRateLimiter(rate / 4)
    return lambda _: limiter.acquire()


OURS = "ours"
PEERS: dict[str, Callable[[str, float], Awaitable[Acquire]]] = {
    OURS: ours,
    "limits, moving window": moving_window,
    "pyrate-limiter": pyrate,
    "throttled-py, GCRA": throttled,
    "self-limiters": self_limiters,
    "a quarter each": split,
}


@attrs.define
class Worker:
    """What one process does until its time is over."""

    acquire: Acquire
    recorder: socket.socket
    number: int
    end: float
    grants: int = 0
    cancelled: int = 0
    errors: int = 0
    waits: list[float] = attrs.field(factory=list[float])

    async def one(self, *, bulk: bool) -> None:
        """Wait for one grant and note it."""
        try:
            await self.acquire(bulk)
        except Exception as error:
            self.errors += 1
            print(error, file=sys.stderr)
            await asyncio.sleep(0.1)
            return
        self.recorder.send(b"%d" % self.number)
        self.grants += 1

    async def always(self, *, bulk: bool) -> None:
        """Wait for one grant after the other."""
        while time.monotonic() < self.end:
            await self.one(bulk=bulk)

    async def urgent(self) -> None:
        """Wait for a grant now and then, and note how long that took."""
        await asyncio.sleep(1)
        while time.monotonic() < self.end:
            began = time.monotonic()
            await self.one(bulk=False)
            self.waits.append(time.monotonic() - began)
            await asyncio.sleep(random.uniform(0.4, 1.2))

    async def impatient(self) -> None:
        """Wait for one grant after the other, and often give up."""
        while time.monotonic() < self.end:
            try:
                await asyncio.wait_for(self.one(bulk=False), random.expovariate(1 / 0.3))
            except TimeoutError:
                self.cancelled += 1

    async def idle(self) -> None:
        """Be there."""
        await self.acquire(False)
        await asyncio.sleep(self.end - time.monotonic())


ROLES: dict[str, Callable[[Worker], list[Awaitable[None]]]] = {
    "saturated": lambda worker: [worker.always(bulk=False) for _ in range(8)],
    "bulk": lambda worker: [worker.always(bulk=True)],
    "urgent": lambda worker: [worker.urgent()],
    "impatient": lambda worker: [worker.impatient() for _ in range(12)],
    "idle": lambda worker: [worker.idle()],
}


async def main(peer: str, number: str, url: str, port: str, rate: str, role: str) -> None:
    """Say that everything is loaded, take grants until a time, and print what that was like."""
    logging.basicConfig(level=logging.WARNING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as recorder:
        recorder.connect(("127.0.0.1", int(port)))
        acquire = await PEERS[peer](url, float(rate))
        print("ready", flush=True)
        end = time.monotonic() + float(sys.stdin.readline()) - time.time()
        worker = Worker(acquire, recorder, int(number), end)
        tasks = [asyncio.ensure_future(task) for task in ROLES[role](worker)]
        await asyncio.sleep(0.5)
        cpu, grants = time.process_time(), worker.grants
        await asyncio.wait(tasks, timeout=max(0.1, end - time.monotonic()))
        spent, taken = time.process_time() - cpu, worker.grants - grants
        result = {"waits": worker.waits, "cpu": spent, "grants": taken}
        result |= {"cancelled": worker.cancelled, "errors": worker.errors}
        print(json.dumps(result), flush=True)
    os._exit(0)  # whatever else waits


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
