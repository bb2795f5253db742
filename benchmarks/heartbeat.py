"""The lateness of a heartbeat while the response about a whole night arrives and is decoded.

A task of the same event loop wakes every 5 ms by a fixed schedule, and notes how late it is, also
for each beat that it misses, during one query after another. An idle loop is the limit. The peer is
the vendor's SDK in a thread, which is how a synchronous library is used from asyncio.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import attrs
import service
from peers import ours, vendor
from report import Sample, Table, interleaved

__all__ = ["BEAT", "beat_during", "beat_on_schedule", "run"]

#: Numbers of snapshots and of sections (about 190 KB, 3.9 MB, 39 MB), and of queries in a round.
BODIES = {112: 10, 2275: 3, 22750: 1}
BEAT = 0.005
IDLE, OURS, VENDOR = "idle loop", "ci_live_audit", "SDK in a thread"


@attrs.frozen
class _Lateness:
    """Milliseconds."""

    p99: float
    most: float


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    bodies = dict(list(BODIES.items())[:2]) if quick else BODIES
    rounds = 3 if quick else 5
    rows = []
    for count, times in bodies.items():
        body = service.answer(count)
        with service.serving(body) as url, asyncio.Runner() as runner:
            client = ours(url)
            sdk = partial(vendor(url).ci_auditing_video_query, service.BUCKET, service.JOB_ID)
            work: dict[str, Callable[[], Awaitable[object]]] = {
                IDLE: partial(asyncio.sleep, 0.3),
                OURS: partial(client.query, service.JOB_ID),
                VENDOR: partial(asyncio.to_thread, sdk),
            }
            cases = {name: partial(_measure, runner, one, times) for name, one in work.items()}
            results = interleaved(cases, rounds)
            runner.run(client.aclose())
        p99 = {name: Sample.of(one.p99 for one in found) for name, found in results.items()}
        most = {name: Sample.of(one.most for one in found) for name, found in results.items()}
        rows += [
            (
                f"{len(body) / 1000:,.0f} KB: {name}",
                p99[name],
                most[name],
                most[name] / most[VENDOR],
            )
            for name in work
        ]
    yield Table(
        f"Lateness of a {BEAT * 1000:.0f} ms heartbeat, {rounds} rounds",
        ("body: activity", "p99 ms", "most ms", "most vs SDK"),
        rows,
        ("The largest body is queried once in a round, the others several times.",),
    )


def _measure(
    runner: asyncio.Runner, work: Callable[[], Awaitable[object]], times: int
) -> _Lateness:
    gc.collect()
    return runner.run(beat_during(work, times))


async def beat_during(work: Callable[[], Awaitable[object]], times: int) -> _Lateness:
    """Do ``work`` so many times, and return how late the heartbeat was meanwhile."""
    late: list[float] = []
    beat = asyncio.create_task(beat_on_schedule(late))
    for _ in range(times):
        await work()
    await asyncio.sleep(2 * BEAT)  # for the effect of the last query
    beat.cancel()
    late.sort()
    return _Lateness(late[len(late) * 99 // 100] * 1000, late[-1] * 1000)


async def beat_on_schedule(late: list[float]) -> None:
    """Beat every 5 ms and note how late in seconds, also for each beat that is missed."""
    now = asyncio.get_running_loop().time
    due = now() + BEAT
    while True:
        await asyncio.sleep(due - now())
        woke = now()
        while due <= woke:
            late.append(woke - due)
            due += BEAT
