"""How soon findings are known, and for how many requests: polling alone, and with callbacks.

Callbacks are 1 s late on average. Virtual time makes the figures deterministic and an hour short.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

from following import in_virtual_time
from peers import RATE
from report import Cell, Table

from ci_live_audit import SnapshotFinding
from ci_live_audit.testing import Emulator, frame
from ci_live_audit.wire.callbacks import Callback

__all__ = ["run"]

HOUR = 3600.0
#: The interval in seconds, whether there are callbacks, and the share of them that is lost.
CASES = ((10, False, 0.0), (300, False, 0.0), (300, True, 0.0), (300, True, 0.1), (60, True, 0.1))


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    jobs = 100 if quick else 1000
    rows: list[tuple[Cell, ...]] = []
    for interval, nudged, lost in CASES:
        name = f"interval {interval} s" + (", callbacks" if nudged else "")
        figures = in_virtual_time(_watch(jobs, interval, lost, nudged=nudged))
        rows.append((name + (f", {lost:.0%} lost" if lost else ""), *figures))
    yield Table(
        f"watch with callbacks: {jobs:,} jobs with 2 findings an hour, virtual time",
        ("", "found", "median delay, s", "95 %, s", "longest, s", "requests/s", "throttled"),
        rows,
        (f"Over the emulator, at {RATE:g}/s. Delays are from the finding to the consumer.",),
    )


class _Source:
    """Callbacks about jobs."""

    is_trusted = False

    def __init__(self) -> None:
        self._listeners: list[Callable[[Callback], object]] = []

    def subscribe(self, listener: Callable[[Callback], object]) -> Callable[[], object]:
        """Call a listener until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def send(self, job_id: str) -> None:
        """Send a callback."""
        for listener in list(self._listeners):
            listener(Callback(form="Simple", key="", job_id=job_id))


async def _watch(jobs: int, interval: float, lost: float, *, nudged: bool) -> tuple[Cell, ...]:
    """Return the figures of a row."""
    rng, loop = random.Random(1), asyncio.get_running_loop()
    emulator, source = Emulator(rate=RATE), _Source()
    times: dict[str, list[float]] = {}
    for _ in range(jobs):
        found = sorted(rng.uniform(120, HOUR - 120) for _ in range(2))
        script = [frame(time, "Porn", text=f"{time}") for time in found]
        times[emulator.add_job(duration=2 * HOUR, script=script)] = found
    start = loop.time()
    for job_id, found in times.items():
        for time in found:
            if rng.random() >= lost:
                loop.call_at(start + time + 0.05 + rng.expovariate(1), source.send, job_id)
    delays: list[float] = []
    with suppress(TimeoutError):
        async with (
            emulator.client() as client,
            client.watch(
                list(times), interval=interval, callbacks=source if nudged else None
            ) as findings,
            asyncio.timeout_at(start + HOUR + interval),
        ):
            async for finding in findings:
                if isinstance(finding, SnapshotFinding):
                    delays += [loop.time() - start - float(finding.snapshot.text or 0)]
    delays.sort()
    throttled = sum(arrival.status == 429 for arrival in emulator.arrivals)
    return (
        len(delays),
        *(delays[round(share * (len(delays) - 1))] for share in (0.5, 0.95, 1)),
        len(emulator.arrivals) / (HOUR + interval),
        throttled,
    )
