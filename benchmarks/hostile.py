"""The cost of a hostile response, against an honest one of the same size.

A server that was taken over, or a machine in front of it, can send documents made to be expensive.
Each kind is queried over a socket, on an event loop with a heartbeat of 5 ms, whose lateness is
what everything else on the loop feels. Documents that are refused early cost less than an honest
response; for the others, the ratio is their price. The body of an error (a 500) is read on the
loop itself, so that is measured too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial

import attrs
import heartbeat
import service
from peers import ours
from report import Sample, Table, interleaved

from ci_live_audit import LiveAuditClient, LiveAuditError, RetryPolicy, decode

__all__ = ["run"]

#: Bytes of a response, and the rounds of each size.
SIZES = {2**16: 11, 2**22: 5}
HONEST = "honest"
#: Bytes of a snapshot and a section of an honest response.
PER_SNAPSHOT = 1714
#: What no document may hold.
BROKEN = b"<Broken>&#0;</Broken>"
#: The default bound on a decoded body.
MAX_BODY = 2**26


@attrs.frozen
class _Cost:
    """Milliseconds: CPU of the client, lateness of the loop, and reading the body as an error."""

    cpu: float
    late: float
    refusal: float
    outcome: str


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    sizes = {2**16: 3, 2**20: 1} if quick else SIZES
    for size, rounds in sizes.items():
        yield _documents(size, rounds)
    yield _compressed(1 if quick else 3)


def _documents(size: int, rounds: int) -> Table:
    bodies = _bodies(size)
    with asyncio.Runner() as runner:
        cases = {name: partial(_cost, runner, body) for name, body in bodies.items()}
        found = interleaved(cases, rounds, warm_up=size < 2**24)
    cpu = {name: Sample.of(one.cpu for one in costs) for name, costs in found.items()}
    rows = [
        (
            name,
            cpu[name],
            cpu[name] / cpu[HONEST],
            Sample.of(one.late for one in found[name]),
            Sample.of(one.refusal for one in found[name]),
            # Tracing the memory of millions of elements takes minutes.
            None if size >= 2**24 else round(_peak(body) / len(body), 2),
            found[name][-1].outcome,
        )
        for name, body in bodies.items()
    ]
    return Table(
        f"Hostile responses of {size / 2**20:g} MiB, {rounds} rounds",
        ("body", "CPU ms", "vs honest", "loop late ms", "as a 500 ms", "peak memory vs body", "is"),
        rows,
        (f"Late: the most that a {heartbeat.BEAT * 1000:.0f} ms heartbeat is late in one query.",),
    )


def _compressed(rounds: int) -> Table:
    """Measure bodies that are small on the wire and exceed the bound when unpacked."""
    bodies = {
        "honest, gzip": gzip.compress(service.answer(MAX_BODY // PER_SNAPSHOT // 16)),
        "bomb of twice the bound": gzip.compress(bytes(2 * MAX_BODY)),
        "bomb of 8 times the bound": gzip.compress(bytes(8 * MAX_BODY)),
        "bomb in a bomb": gzip.compress(gzip.compress(bytes(8 * MAX_BODY))),
    }
    with asyncio.Runner() as runner:
        cases = {name: partial(_cost_unpacked, runner, body) for name, body in bodies.items()}
        found = interleaved(cases, rounds)
    rows = [
        (
            name,
            round(len(body) / 1000),
            Sample.of(one.cpu for one in found[name]),
            Sample.of(one.late for one in found[name]),
            found[name][-1].outcome,
        )
        for name, body in bodies.items()
    ]
    return Table(
        f"Compressed responses, max_body {MAX_BODY >> 20} MiB, {rounds} rounds",
        ("body", "KB on the wire", "CPU ms", "loop late ms", "is"),
        rows,
        ("The honest one has 4 MiB when unpacked.",),
    )


# The documents


def _bodies(size: int) -> dict[str, bytes]:
    """Return responses of about ``size`` bytes."""
    flood = partial(_flood, size)
    named = b"".join(b"<A%x/>" % number for number in range(size // 9))
    scenes = b"".join(b"<A%xInfo><B/></A%xInfo>" % (n, n) for n in range(size // 26))
    attributes = b"".join(b"a%x='' " % number for number in range(size // 11))
    defaults = b"".join(b"a%x CDATA 'x' " % number for number in range(size // 18))
    # As dear as a document may be that is read again, repaired, for what is broken at its end.
    long_names = b"".join(b"<A%017x/>" % number for number in range(size // 21))
    honest = service.answer(max(size // PER_SNAPSHOT, 1))
    return {
        HONEST: honest,
        "empty elements": flood(b"<A/>"),
        "elements of all names": _response(named),
        "snapshots": flood(b"<Snapshot/>"),
        "scenes": _response(b"<Snapshot>" + scenes + b"</Snapshot>"),
        "keywords": flood(b"<Keywords>a</Keywords>", b"<PornInfo>", b"</PornInfo>"),
        "text nodes": flood(b"x<A/>"),
        "comments": flood(b"<!---->"),
        "a long comment": flood(b"x", b"<!--", b"-->"),
        "a tag of attributes": _response(b"<A " + attributes + b"/>"),
        "sections": flood(b"<![CDATA[x]]>", b"<Label>", b"</Label>"),
        "references": flood(b"&#65;", b"<Label>", b"</Label>"),
        "lines": flood(b"\n", b"<Label>", b"</Label>"),
        "depth": flood(b"<A>"),
        "html": b"<p>" * (size // 3),
        "default attributes": b"<!DOCTYPE r [<!ATTLIST JobsDetail "
        + defaults
        + b">]>"
        + _response(),
        "blanks": b" " * size,
        "blanks before": b" " * size + _response(),
        "encodings": b"<!--" + b"encoding " * (size // 9) + b"-->" + _response(),
        "honest, broken": honest.replace(b"</JobsDetail>", BROKEN + b"</JobsDetail>"),
        "keywords, broken": flood(
            b"<Keywords>a</Keywords>", b"<PornInfo>", BROKEN + b"</PornInfo>"
        ),
        "long names, broken": _response(long_names + BROKEN),
        "empty elements, broken": flood(b"<A/>", back=BROKEN),
        "forbidden references": flood(b"&#0;", b"<Label>", b"</Label>"),
        "forbidden characters": flood(b"\0", b"<Label>", b"</Label>"),
        "no characters": flood(b"\xff", b"<Label>", b"</Label>"),
        "halves of characters": flood(b"\xed\xa0\xbd", b"<Label>", b"</Label>"),
        "gbk": b"<?xml version='1.0' encoding='gbk'?>"
        + flood(b"\xba\xda", b"<Label>", b"</Label>"),
        "json of halves": _json(b'"' + rb"\ud83d" * (size // 6) + b'",'),
        "json of objects": _json(b"{}," * (size // 3)),
        "json of a text": _json(b'"' + b"x" * (size - 100) + b'",'),
    }


def _response(inside: bytes = b"") -> bytes:
    details = b"<JobId>%b</JobId><State>Auditing</State>" % service.JOB_ID.encode() + inside
    return b"<Response><JobsDetail>" + details + b"</JobsDetail></Response>"


def _flood(size: int, unit: bytes, front: bytes = b"", back: bytes = b"") -> bytes:
    return _response(front + unit * (size // len(unit)) + back)


def _json(items: bytes) -> bytes:
    job_id = service.JOB_ID.encode()
    return b'{"JobsDetail":{"JobId":"%b","State":"Auditing","A":[%b0]}}' % (job_id, items)


# Their cost


def _cost(runner: asyncio.Runner, body: bytes) -> _Cost:
    with service.serving(body) as url:
        cpu, late, outcome = runner.run(_measured(url))
    began = time.process_time()
    decode.error(500, {}, body)
    return _Cost(cpu, late, (time.process_time() - began) * 1e3, outcome)


def _cost_unpacked(runner: asyncio.Runner, body: bytes) -> _Cost:
    cpu, late, outcome = runner.run(_measured_unpacked(body))
    return _Cost(cpu, late, 0, outcome)


async def _measured_unpacked(body: bytes) -> tuple[float, float, str]:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        return await _measured(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def _measured(url: str) -> tuple[float, float, str]:
    """Return the CPU milliseconds of one query, the lateness of the loop, and the outcome."""
    async with ours(url) as client:
        once = client.with_options(retry=RetryPolicy(attempts=1))
        gc.collect()
        began = time.process_time()
        outcomes: list[str] = []
        lateness = await heartbeat.beat_during(partial(_query, once, outcomes), 1)
        return (time.process_time() - began) * 1e3, lateness.most, outcomes[0]


async def _query(client: LiveAuditClient, outcomes: list[str]) -> None:
    try:
        await client.query(service.JOB_ID)
    except LiveAuditError as error:
        outcomes.append(error.args[0].partition(":")[0] + ": " + error.args[0][-40:])
    else:
        outcomes.append("a result")


def _peak(body: bytes) -> int:
    """Return the peak growth of memory in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        with contextlib.suppress(LiveAuditError):
            decode.job(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
