"""How much of a quota is used by processes that know nothing of each other, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import partial

import attrs
from peers import PACED, RATE, Bare, Make
from report import Sample, Table

from ci_live_audit.limits.limiter import RateLimiter, report_refusal
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.testing import VirtualTimeLoop
from ci_live_audit.testing.service import Quota

__all__ = ["sharing"]

CALLERS = 30
#: Seconds within which the processes start, and that a request takes.
APART, ROUND_TRIP = 3.0, 0.06
ADAPTIVE, FIXED = "adaptive", "adaptive=False"
SUBJECTS: dict[str, Make] = {
    ADAPTIVE: partial(LocalRateLimiter, RATE),
    FIXED: partial(LocalRateLimiter, RATE, adaptive=False),
    PACED: partial(Bare, 1, 1 / RATE),
}


@attrs.frozen
class _Shares:
    """What the processes got of the quota together, what the least of them got, and refusals."""

    together: float
    least: float
    refused: float


def sharing(*, seconds: float, rounds: int) -> Table:
    """Return the table for one, two and three processes."""
    rows = []
    for processes, name in itertools.product((1, 2, 3), SUBJECTS):
        found: list[_Shares] = []
        for seed in range(rounds):
            random.seed(seed)
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                found.append(runner.run(_share(SUBJECTS[name], processes, seconds, seed)))
        rows.append(
            (
                f"{processes} × {name}",
                Sample.of(one.together for one in found),
                Sample.of(one.least * processes for one in found),
                Sample.of(one.refused for one in found),
            )
        )
    return Table(
        f"Processes at 20/s on one quota of 20/s for {seconds:g} s in virtual time, {rounds} times",
        ("", "used of the quota", "least share, of a fair one", "refused requests"),
        rows,
        (
            f"They start up to {APART:g} s apart; a request takes {ROUND_TRIP:g} s. The quota is",
            "the emulator's, a sliding window of 0.975 s, so slightly more than 1 can be used.",
            "After a refusal a caller waits for a second. Limits: 1, 1, 0.",
        ),
    )


async def _share(make: Make, processes: int, seconds: float, seed: int) -> _Shares:
    rng = random.Random(seed)
    time = asyncio.get_running_loop().time
    quota = Quota(RATE)
    accepted = [0] * processes
    refused = 0

    async def call(limiter: RateLimiter, process: int) -> None:
        nonlocal refused
        while time() < seconds + APART:
            await limiter.acquire()
            await asyncio.sleep(ROUND_TRIP / 2 * rng.uniform(0.8, 1.2))
            refusal = quota.refusal(time())
            await asyncio.sleep(ROUND_TRIP / 2 * rng.uniform(0.8, 1.2))
            if refusal is not None:
                refused += 1
                report_refusal(limiter, 0.0, 1.0)
                await asyncio.sleep(1)
            elif time() > APART:
                accepted[process] += 1

    async def process(number: int) -> None:
        await asyncio.sleep(rng.uniform(0, APART))
        limiter = make()
        await asyncio.gather(*(call(limiter, number) for _ in range(CALLERS)))

    await asyncio.gather(*(process(number) for number in range(processes)))
    shares = [number / seconds / RATE for number in accepted]
    return _Shares(sum(shares), min(shares), refused / (refused + sum(accepted)))
