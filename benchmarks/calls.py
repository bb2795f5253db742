"""Measures a whole call, against bare httpx (the limit) and the vendor's SDK (the peer).

A call of the client is limiter, credentials, signature, exchange and typed decoding; bare httpx is
the exchange alone, over one `httpx.AsyncClient` with room for all connections; the SDK's
``ci_auditing_video_query`` signs, exchanges with requests and makes dicts. All of them get the same
response of about 2.5 KB from the same server, a process of its own, over kept connections.

The server delays each response by 2 ms for each call in flight, more or less by half, like a real
network. So all calls really are in flight, about 500 a second pass whatever their number, and
responses do not arrive in bursts. That matters to httpx: on every call its pool looks at every idle
connection, so a burst of 50, or a server that responds at once, costs it 3 to 5 ms a call, and a
steady stream about 1 ms. The table shows the steady stream, the favourable case; where the spread
of httpx is wide, a round has had bursts nevertheless.

CPU time matters to a bot that shares its core; it should not grow with the calls in flight. Wall
time shows whether a client keeps up with the 2 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import attrs
import httpx
import service
from peers import ours, vendor
from report import Sample, Table, interleaved

__all__ = ["run"]

IN_FLIGHT = (1, 20, 50, 200)
#: Nobody gives a synchronous library more threads than that.
MOST_THREADS = 50
DELAY = 0.002
OURS, HTTPX, VENDOR = "ci_live_audit", "bare httpx", "SDK"

#: Makes a number of calls.
Batch = Callable[[int], None]


@attrs.frozen
class _Cost:
    """Microseconds per call."""

    cpu: float
    wall: float


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    calls, rounds = (300, 3) if quick else (1000, 7)
    body = service.answer(1)
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        batches: dict[str, Batch] = {}
        for count in IN_FLIGHT:
            url = stack.enter_context(service.serving(body, DELAY * count))
            batches |= _batches(url, count, runner, stack)
        cases = {name: partial(_measure, batch, calls) for name, batch in batches.items()}
        results = interleaved(cases, rounds)
    cpu = {name: Sample.of(one.cpu for one in costs) for name, costs in results.items()}
    wall = {name: Sample.of(one.wall for one in costs) for name, costs in results.items()}
    rows = []
    for name in results:
        client, _, flight = name.partition(" @ ")
        rows.append(
            (
                f"{flight}: {client}",
                cpu[name],
                wall[name],
                cpu[name] / cpu[f"{HTTPX} @ {flight}"],
                cpu[name] / cpu[f"{VENDOR} @ 1"],
                wall[name] / peer if (peer := wall.get(f"{VENDOR} @ {flight}")) else None,
                cpu[name] / cpu[f"{client} @ 1"],
            )
        )
    yield Table(
        f"A whole call, {len(body):,} bytes of response, {calls:,} calls a round, {rounds} rounds",
        (
            *("in flight: client", "CPU µs", "wall µs", "CPU vs httpx", "CPU vs SDK at 1"),
            *("wall vs SDK", "CPU vs own at 1"),
        ),
        rows,
        (
            "A response takes about 2 ms times the calls in flight. SDK: ci_auditing_video_query",
            "in as many threads as calls are in flight. Bare httpx neither signs nor decodes.",
            "CPU time is the client process's; the server has a process of its own.",
        ),
    )


def _batches(
    url: str, count: int, runner: asyncio.Runner, stack: contextlib.ExitStack
) -> dict[str, Batch]:
    """Return batches of every client with so many calls in flight; the stack closes them."""
    client = ours(url)
    bare = httpx.AsyncClient(
        limits=httpx.Limits(max_connections=count, max_keepalive_connections=count)
    )
    stack.callback(_run, runner, client.aclose)
    stack.callback(_run, runner, bare.aclose)
    address = f"{url}/video/auditing/{service.JOB_ID}"
    batches = {
        f"{OURS} @ {count}": _tasks(runner, count, partial(client.query, service.JOB_ID)),
        f"{HTTPX} @ {count}": _tasks(runner, count, partial(bare.get, address)),
    }
    if count <= MOST_THREADS:
        query = partial(vendor(url).ci_auditing_video_query, service.BUCKET, service.JOB_ID)
        threads = stack.enter_context(ThreadPoolExecutor(count))
        batches[f"{VENDOR} @ {count}"] = _threads(threads, count, query)
    return batches


def _run(runner: asyncio.Runner, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    runner.run(close())


def _tasks(runner: asyncio.Runner, count: int, call: Callable[[], Awaitable[object]]) -> Batch:
    async def worker(left: Iterator[int]) -> None:
        for _ in left:
            await call()

    async def batch(calls: int) -> None:
        left = iter(range(calls))
        await asyncio.gather(*(worker(left) for _ in range(count)))

    return lambda calls: runner.run(batch(calls))


def _threads(pool: ThreadPoolExecutor, count: int, call: Callable[[], object]) -> Batch:
    def worker(left: Iterator[int]) -> None:
        for _ in left:
            call()

    def batch(calls: int) -> None:
        left = iter(range(calls))
        for future in [pool.submit(worker, left) for _ in range(count)]:
            future.result()

    return batch


def _measure(batch: Batch, calls: int) -> _Cost:
    # Reopen connections that expired while the other cases ran, before the clock starts.
    batch(calls // 5)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    batch(calls)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return _Cost(cpu / calls * 1e6, wall / calls * 1e6)
