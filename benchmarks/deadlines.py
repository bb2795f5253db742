"""Measures how late a call ends after its deadline, whatever the server does.

The server is a process of its own; the calls are made one after the other, and ten at a time. The
peer is httpx alone with the same ``timeout=``, which counts from byte to byte, so that a dripping
server keeps it busy for ever: it is given up after four times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import attrs
import httpx
import service
from report import Cell, Sample, Table

from ci_live_audit import LiveAuditClient, LiveAuditError, RetryPolicy

__all__ = ["run"]

DEADLINE = 0.25
GIVEN_UP = 4 * DEADLINE


@attrs.frozen
class Behaviour:
    """Bytes to write first, and bytes to write again and again with pauses."""

    first: bytes = b""
    more: bytes = b""
    pause: float = 0.01


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = OK + b"Content-Length: 10000000000\r\n\r\n"
FULL = "accepts nothing"
BEHAVIOURS = {
    "accepts, says nothing": Behaviour(),
    "TLS stalls": Behaviour(),
    "a head a byte at a time": Behaviour(OK + b"X-Slow: ", b"x"),
    "headers without end": Behaviour(OK, b"X-More: more\r\n"),
    "1xx without end": Behaviour(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "1xx without end or pause": Behaviour(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 0),
    "stalls after the head": Behaviour(LONG),
    "a body a byte at a time": Behaviour(LONG, b"x"),
    "chunks without end": Behaviour(CHUNKED, b"1\r\nx\r\n"),
    "tiny chunks without pause": Behaviour(CHUNKED, b"1\r\nx\r\n" * 1000, 0),
    "a body without end or pause": Behaviour(LONG, b"x" * 1000, 0.0001),
    "less than announced": Behaviour(LONG + b"<Response>"),
}


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    rounds = 3 if quick else 20
    rows = [_row(name, rounds) for name in (FULL, *BEHAVIOURS)]
    yield Table(
        f"How late calls end that have {DEADLINE * 1000:.0f} ms, {rounds} rounds of 1 and 10",
        ("what the server does", "ms late", "most", "ms late, 10 at once", "most", "httpx alone"),
        rows,
        (
            "Below 0: connecting may take half of the time.",
            "A server that sends without pause may be stopped sooner, by a limit of size.",
        ),
    )


def _row(name: str, rounds: int) -> tuple[Cell, ...]:
    with _full() if name == FULL else _serving(name) as url:
        ours = asyncio.run(_ours(url, rounds))
        peer = asyncio.run(_httpx(url))
    one, ten = ours
    return (name, one, max(one.values), ten, max(ten.values), peer)


async def _ours(url: str, rounds: int) -> tuple[Sample, Sample]:
    async with LiveAuditClient(
        service.BUCKET,
        service.REGION,
        credentials=service.CREDENTIALS,
        endpoint=url,
        rate=float("inf"),
        timeout=DEADLINE,
        retry=RetryPolicy(attempts=1),
    ) as client:

        async def late() -> float:
            return await _late(lambda: client.query(service.JOB_ID))

        await late()
        one = [await late() for _ in range(rounds)]
        ten = [max(await asyncio.gather(*(late() for _ in range(10)))) for _ in range(rounds)]
    return Sample.of(one), Sample.of(ten)


async def _httpx(url: str) -> str:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:

        async def give_up() -> None:
            async with asyncio.timeout(GIVEN_UP):
                await client.get(url)

        late = await _late(give_up)
    return "goes on" if late >= (GIVEN_UP - DEADLINE) * 1000 else f"{late:.1f}"


async def _late(call: Callable[[], Awaitable[object]]) -> float:
    """Return the milliseconds from the deadline to the end of a call."""
    time = asyncio.get_running_loop().time
    began = time()
    with contextlib.suppress(LiveAuditError, httpx.HTTPError, TimeoutError):
        await call()
    return (time() - began - DEADLINE) * 1000


# Servers


@contextlib.contextmanager
def _full() -> Iterator[str]:
    """Listen without accepting, with a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            fill = stack.enter_context(socket.socket())
            fill.setblocking(False)
            fill.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _serving(name: str) -> Iterator[str]:
    command = [sys.executable, __file__, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().decode().strip()
            yield url.replace("http:", "https:") if "TLS" in name else url
        finally:
            process.terminate()


async def _serve(behaviour: Behaviour) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(behaviour.first)
            while behaviour.more:
                writer.write(behaviour.more)
                await writer.drain()
                await asyncio.sleep(behaviour.pause)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(BEHAVIOURS[sys.argv[1]]))
