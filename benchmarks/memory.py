"""Memory, and the lateness of the loop, while many large answers come at once.

Each measurement is made in a process of its own, since memory that was once in use is not always
given back to the system. Beside ours: httpx with `xmltodict.parse` in threads, and an idle loop. A
heartbeat has a fixed schedule of 5 ms, so that every beat that a pause covers counts as late.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import service
import xmltodict
from heartbeat import BEAT, beat_on_schedule
from peers import ours
from report import Sample, Table, interleaved

__all__ = ["run"]

#: Streams that are watched, and seconds for which the consumer is busy.
STREAMS, BUSY = 20, 20
#: Queries at once, and snapshots and sections in each answer: 20 MB.
QUERIES, COUNT = 10, 11_660
OURS, PEER, IDLE = "ci_live_audit", "httpx, xmltodict in threads", "idle loop"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@attrs.frozen
class _Cost:
    """Bytes above the start at most and at the end, seconds in all, and lateness in ms."""

    peak: int
    kept: int
    seconds: float
    p99: float
    most: float


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    rounds = 1 if quick else 3
    queries, streams, count = (5, 5, COUNT // 4) if quick else (QUERIES, STREAMS, COUNT)
    body = service.answer(count)
    size = f"{len(body) / 1e6:.0f} MB"
    with service.serving(body) as url:
        title = f"{queries} queries answered with {size} each at once"
        yield _table(title, url, list(CASES), queries, len(body), rounds)
        title = f"{streams} streams of {size} watched, the consumer busy for {BUSY} s"
        yield _table(title, url, list(WATCHING), streams, len(body), rounds)


def _table(title: str, url: str, names: list[str], many: int, size: int, rounds: int) -> Table:
    cases = {name: partial(_in_fresh_process, name, url, many) for name in names}
    results = interleaved(cases, rounds, warm_up=False)
    return Table(
        f"{title}, {rounds} rounds",
        ("", "peak MB", "vs bodies", "kept MB", "beat p99 ms", "most ms", "seconds"),
        [
            (
                name,
                Sample.of(one.peak / 1e6 for one in found),
                Sample.of(one.peak / (many * size) for one in found),
                Sample.of(one.kept / 1e6 for one in found),
                Sample.of(one.p99 for one in found),
                Sample.of(one.most for one in found),
                Sample.of(one.seconds for one in found),
            )
            for name, found in results.items()
        ],
        (
            "Resident memory above that before the first query; all results are kept until the",
            "end. Each beat that a pause covers is as late as the rest of the pause is long.",
        ),
    )


def _in_fresh_process(name: str, url: str, queries: int) -> _Cost:
    command = [sys.executable, __file__, name, url, str(queries)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return _Cost(**json.loads(done.stdout))


# In the process


async def _ours(url: str, queries: int) -> list[Any]:
    async with ours(url) as client:
        return await asyncio.gather(*(client.query(service.JOB_ID) for _ in range(queries)))


async def _peer(url: str, queries: int) -> list[Any]:
    async with httpx.AsyncClient(timeout=None) as client:

        async def query() -> object:
            response = await client.get(f"{url}/video/auditing/{service.JOB_ID}")
            return await asyncio.to_thread(xmltodict.parse, response.content)

        return await asyncio.gather(*(query() for _ in range(queries)))


async def _idle(url: str, queries: int) -> list[Any]:  # noqa: ARG001 - as the others
    await asyncio.sleep(5)
    return []


async def _watch(url: str, queries: int) -> list[Any]:
    """Watch streams for 20 seconds, in which the consumer takes one finding."""
    job_ids = [f"{number:032x}av"[::-1] for number in range(queries)]
    async with ours(url) as client, client.watch(job_ids, interval=1) as findings:
        first = await anext(findings)
        await asyncio.sleep(BUSY)
        return [first]


CASES = {OURS: _ours, PEER: _peer, IDLE: _idle}
WATCHING = {"watch": _watch, IDLE: _idle}


def _resident(what: str) -> int:
    """Return the bytes of a line of the process's status (proc(5))."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def _forget_peak() -> int:
    """Return the bytes in memory, which are the peak from now on."""
    RESET.write_text("5")
    return _resident("VmRSS")


async def _measure(name: str, url: str, queries: int) -> _Cost:
    late: list[float] = []
    before = _forget_peak()
    beat = asyncio.create_task(beat_on_schedule(late))
    began = time.perf_counter()
    results = await (CASES | WATCHING)[name](url, queries)
    seconds = time.perf_counter() - began
    await asyncio.sleep(2 * BEAT)  # for the effect of the last query
    beat.cancel()
    peak, kept = _resident("VmHWM") - before, _resident("VmRSS") - before
    del results
    late.sort()
    return _Cost(peak, kept, seconds, late[len(late) * 99 // 100] * 1000, late[-1] * 1000)


if __name__ == "__main__":
    print(
        json.dumps(attrs.asdict(asyncio.run(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
    )
