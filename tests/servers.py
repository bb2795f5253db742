"""Small misbehaving servers on loopback, and clients of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from proofs import BACKENDS

from ci_live_audit import Credentials, LiveAuditClient

HUNG_UP = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Served:
    """A running server: its URL, the number of its connections, and the heads of its requests."""

    def __init__(self) -> None:
        self.url = ""
        self.accepted = 0
        self.open = 0
        self.requests: list[bytes] = []

    async def all_closed(self, but: int = 0) -> bool:
        """Return whether all connections, except ``but`` of them, close within a few seconds."""
        return await eventually(lambda: self.open == but)


async def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    """Return whether a condition becomes true within so many seconds."""
    for _ in range(round(seconds / 0.01)):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return condition()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, context: ssl.SSLContext | None = None, *, port: int = 0
) -> AsyncIterator[Served]:
    """Handle connections until the context ends: on a free port, and with TLS if there is one."""
    served = Served()
    tasks: set[asyncio.Task[None]] = set()
    transports: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        transports.add(writer.transport)
        served.accepted += 1
        served.open += 1
        try:
            await handler(Recorder(reader, served), writer)
        except (*HUNG_UP, asyncio.CancelledError):
            pass
        finally:
            served.open -= 1
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=context)
    scheme = "http" if context is None else "https"
    served.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        await _turns()  # for those that were just accepted
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in transports:
            transport.abort()  # what nobody reads would keep it open
        await _turns()  # for the sockets to be closed


async def _turns() -> None:
    """Let the loop do what it has begun."""
    for _ in range(5):
        await asyncio.sleep(0)


class Recorder(asyncio.StreamReader):
    """Reads whole requests and records their heads."""

    def __init__(self, reader: asyncio.StreamReader, served: Served) -> None:
        self.inner = reader
        self._served = served

    async def request(self) -> bytes:
        """Read the next request, drop its body and return its head."""
        head = await self.inner.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await self.inner.readexactly(int(line.partition(b":")[2]))
        self._served.requests.append(head)
        return head


def answering(
    *pieces: bytes, status: str = "200 OK", headers: str = "", pause: float = 0
) -> Handler:
    """Respond to every request with a body in pieces, with a pause of seconds after each."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        length = sum(map(len, pieces))
        while True:
            await reader.request()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n".encode())
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

    return handle


def silent() -> Handler:
    """Read requests and never respond."""

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        await reader.inner.read()  # until the client disconnects

    return handle


def hanging_up(after: bytes = b"") -> Handler:
    """Read a request, write some bytes, and close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        writer.write(after)
        await writer.drain()

    return handle


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, heard: bytearray
) -> None:
    """Carry bytes to a port of this machine and back, and note what the client sent."""
    there_reader, there = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if sink is there:
                    heard.extend(data)
                sink.write(data)
        sink.close()

    try:
        await asyncio.gather(pump(reader, there), pump(there_reader, writer))
    finally:
        there.close()
        with contextlib.suppress(OSError):
            await there.wait_closed()


class Proxy:
    """A proxy whose tunnels all lead to one server, whatever host is named."""

    def __init__(self, to: str, refusal: bytes | None = None) -> None:
        self._port = int(to.rpartition(":")[2])
        self._refusal = refusal
        self.heads: list[bytes] = []
        self.heard = bytearray()

    async def __call__(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        head = await reader.inner.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._refusal is not None:
            writer.write(self._refusal)
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await pass_on(reader.inner, writer, self._port, self.heard)


def trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return a server's context with a certificate that clients trust by the environment."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@cache
def ssl_context() -> ssl.SSLContext:
    """Return one context for all clients: it takes long to make."""
    return httpx.create_ssl_context()


def client_for(url: str, **options: Any) -> LiveAuditClient:
    """Return a client of a server, without a rate limit unless the options set one."""
    defaults: dict[str, Any] = {
        "credentials": Credentials("AKIDEXAMPLE", "secretexample"),
        "endpoint": url,
        "allow_http": True,
    }
    if "limiter" not in options:
        defaults["rate"] = math.inf
    return LiveAuditClient("examplebucket-1250000000", "ap-beijing", **(defaults | options))


@contextlib.asynccontextmanager
async def client_over(
    backend: str, url: str, *, verify: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[LiveAuditClient]:
    """Open a client over a backend; one of the httpx family gets at most 5 connections."""
    async with contextlib.AsyncExitStack() as stack:
        if (library := BACKENDS[backend]) is not None:
            limits = library.Limits(max_connections=5)
            http = library.AsyncClient(verify=verify or ssl_context(), limits=limits)
            options["http_client"] = await stack.enter_async_context(http)
        yield await stack.enter_async_context(client_for(url, **options))


def shorten_holds(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make a throttled request pause all callers for so many seconds in place of one."""
    for module in ("calls", "retry"):
        patch.setattr(f"ci_live_audit.{module}.HOLD", seconds, raising=False)
