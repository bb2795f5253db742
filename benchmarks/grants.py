"""Measures a limiter's grant, against bare aiolimiter (the peer) and one timer (the limit).

A grant must not cost more because many tasks wait, be it a hundred thousand. In virtual time nobody
really waits, so all CPU time is the loop's and the limiter's. The limit is a loop that sets one
timer and wakes one task for each grant.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from functools import partial

from peers import LIMITERS, OURS, PACED, RATE, Make
from report import Sample, Table, interleaved

from ci_live_audit.testing import VirtualTimeLoop

__all__ = ["cost"]

SLOTS = 5000


def cost(*, rounds: int) -> Table:
    """Return the table."""
    cases = {
        f"{name}, {waiting:,} waiting": partial(_measure, LIMITERS[name], waiting)
        for name, waiting in ((OURS, 100), (OURS, 10_000), (OURS, 100_000), (PACED, 10_000))
    }
    peer = list(cases)[-1]
    limit = "one timer and one wake-up"
    cases[limit] = partial(_measure, None, 100)
    found = {name: Sample.of(values) for name, values in interleaved(cases, rounds).items()}
    return Table(
        f"CPU time of a grant, {rounds} rounds of {SLOTS:,} slots in virtual time",
        ("limiter, tasks waiting", "µs", "vs peer", "vs limit"),
        [(name, cost, cost / found[peer], cost / found[limit]) for name, cost in found.items()],
        (f"Peer: {peer}. A task that is granted a slot waits for another.",),
    )


def _measure(make: Make | None, waiting: int) -> float:
    """Return the CPU µs of each slot, with a constant number of waiting tasks."""

    async def grants() -> float:
        limiter = make() if make is not None else None
        left = math.inf
        done = asyncio.Event()

        async def wait() -> None:
            nonlocal left
            while True:
                await (limiter.acquire() if limiter is not None else asyncio.sleep(waiting / RATE))
                left -= 1
                if left == 0:
                    done.set()

        tasks = []
        for _ in range(waiting):
            tasks.append(asyncio.create_task(wait()))
            # Without a limiter, tasks that start one after the other also wake one after the other.
            await asyncio.sleep(0 if limiter is not None else 1 / RATE)
        gc.collect()
        left = SLOTS
        began = time.process_time()
        await done.wait()
        used = (time.process_time() - began) / SLOTS * 1e6
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return used

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(grants())
