"""Shows whether anything grows in a client that runs for long through faults of all kinds.

Calls go to a server in a process of its own that resets, cuts, refuses, garbles, drips and hangs
up, and some of them are cancelled at random instants. Every thousand calls, open files, tasks and
memory are recorded: whatever grows is a leak. 50 calls are in flight all the time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import service
from picture import Series
from report import Cell, Table

from ci_live_audit import LiveAuditClient, LiveAuditError, RetryPolicy

__all__ = ["run"]

IN_FLIGHT = 50
EVERY = 1000
CANCELLED = 0.05
FAULTS = 0.02
PAGE = resource.getpagesize()


class Unlimited:
    """A limiter without a quota, which ignores throttling: the subject is leaks."""

    async def acquire(self) -> float:
        """Return at once."""
        return 0.0

    def hold(self, seconds: float) -> None:
        """Do nothing."""


@attrs.frozen
class _Usage:
    """What is open, and what is in memory."""

    files: int
    tasks: int
    memory: float
    objects: float
    collected: float


LABELS = {
    "files": "file descriptors",
    "tasks": "tasks",
    "memory": "RSS, MB",
    "objects": "objects alive, thousands",
    "collected": "cyclic garbage per call",
}


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table of usage, and the table of outcomes."""
    calls = 5_000 if quick else 100_000
    with service.serving(service.answer(3), faults=FAULTS) as url:
        usage, outcomes, seconds = asyncio.run(_soak(url, calls))
    rows: list[tuple[Cell, ...]] = []
    for name, label in LABELS.items():
        figures = [float(getattr(one, name)) for one in usage]
        rows.append((label, Series.of(figures), figures[0], figures[-1], max(figures)))
    yield Table(
        f"A soak of {calls:,} calls, {IN_FLIGHT} in flight, every {EVERY:,} calls",
        ("in use", "median (lowest-highest)", "first", "last", "most"),
        rows,
        (
            f"{FAULTS:.0%} each of: {', '.join(service.FAULTS)}.",
            f"{CANCELLED:.0%} of the calls are cancelled within 50 ms, unless they have ended.",
            f"{calls / seconds:,.0f} calls a second. The first figure comes after {EVERY:,} calls.",
        ),
    )
    yield Table(
        "Outcomes of the calls",
        ("outcome", "calls"),
        [(name, float(count)) for name, count in outcomes.most_common()],
    )


async def _soak(url: str, calls: int) -> tuple[list[_Usage], Counter[str], float]:
    rng = random.Random(1)
    left = iter(range(1, calls + 1))
    outcomes: Counter[str] = Counter()
    usage: list[_Usage] = []
    collected = Collected()
    began = time.perf_counter()
    async with LiveAuditClient(
        service.BUCKET,
        service.REGION,
        credentials=service.CREDENTIALS,
        endpoint=url,
        limiter=Unlimited(),
        retry=RetryPolicy(base_delay=0.002, throttle_delay=0.002),
        timeout=10,
    ) as client:

        async def work() -> None:
            for number in left:
                patience = rng.random() * 0.05 if rng.random() < CANCELLED else None
                outcomes[await _call(client, patience)] += 1
                if number % EVERY == 0:
                    usage.append(_look(collected))

        with collected:
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - began
    await asyncio.sleep(0.1)
    left_over = len(asyncio.all_tasks()) - 1
    outcomes["tasks left after closing"] = left_over
    return usage, outcomes, seconds


async def _call(client: LiveAuditClient, patience: float | None) -> str:
    try:
        async with asyncio.timeout(patience):
            await client.query(service.JOB_ID)
    except TimeoutError:
        return "cancelled"
    except LiveAuditError as error:
        return type(error).__name__
    return "result"


class Collected:
    """Counts what the garbage collector finds within the context."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        gc.callbacks.append(self._note)

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            self.count += info["collected"]


def _look(collected: Collected) -> _Usage:
    gc.collect()
    found, collected.count = collected.count, 0
    return _Usage(
        files=len(os.listdir("/dev/fd")),  # noqa: PTH208 - names are enough
        tasks=len(asyncio.all_tasks()),
        memory=_resident() / 1e6,
        objects=len(gc.get_objects()) / 1000,
        collected=found / EVERY,
    )


def _resident() -> float:
    """Return the resident bytes now, or the maximum so far where that is all there is."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * PAGE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
