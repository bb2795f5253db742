"""A proxy on loopback that does to connections what networks do: reset, cut, stall, corrupt.

It knows bytes and no HTTP, so it stands in front of TLS as well. What a service does wrong is the
emulator's part (`ci_live_audit.testing.faults`); this is what happens on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Self
from urllib.parse import SplitResult, urlsplit

import attrs

from ci_live_audit.testing.faults import Faults

__all__ = ["ChaosProxy", "WireFault", "reset"]


@attrs.frozen(kw_only=True)
class WireFault:
    """One thing that happens on the way; made by the functions below.

    ``after`` counts the bytes of the answer that are passed on before; with None it happens when
    the request has come, and none of it is passed on.
    """

    kind: str
    after: int | None = None
    size: int = 0
    seconds: float = 0.0

    @classmethod
    def refuse(cls) -> WireFault:
        """The connection is reset as soon as it is made."""
        return cls(kind="refuse")

    @classmethod
    def reset(cls, after: int | None = None) -> WireFault:
        """The connection is reset (RST)."""
        return cls(kind="reset", after=after)

    @classmethod
    def cut(cls, after: int | None = None) -> WireFault:
        """The connection is closed (FIN)."""
        return cls(kind="cut", after=after)

    @classmethod
    def stall(cls, after: int | None = None) -> WireFault:
        """The connection stays open and carries nothing any more."""
        return cls(kind="stall", after=after)

    @classmethod
    def slow(cls, size: int = 1, seconds: float = 0.01) -> WireFault:
        """The answer is passed on in pieces of ``size`` bytes, each after so many seconds."""
        return cls(kind="slow", size=size, seconds=seconds)

    @classmethod
    def corrupt(cls, after: int, size: int = 1) -> WireFault:
        """So many bytes of the answer are turned into others."""
        return cls(kind="corrupt", after=after, size=size)

    @classmethod
    def hang_up(cls, seconds: float) -> WireFault:
        """The connection is closed when after the answer nothing came for so many seconds."""
        return cls(kind="hang_up", seconds=seconds)


BREAKS = {"reset", "cut", "stall"}
NO_FAULT = WireFault(kind="none")


class ChaosProxy:
    """Passes connections on to a server, and lets things happen to them.

    ::

        async with emulator.serve() as url, ChaosProxy(url) as proxy:
            proxy.inject(WireFault.reset(after=100), times=1)
            client = LiveAuditClient(..., endpoint=proxy.url)

    A connection that is refused or an exchange (bytes from the client, then from the server) meets
    at most one fault.

    Args:
        url: The server, as ``http://127.0.0.1:8080``.
        port: Where to listen; 0 takes a free port.
        seed: Makes what is left to chance the same every time.

    Attributes:
        url: Where it listens, with the scheme of the server's URL.
        accepted: How many connections it has accepted.
        open: How many of them are open.
    """

    def __init__(self, url: str, *, port: int = 0, seed: int = 0) -> None:
        self._server = urlsplit(url)
        self._port = port
        self._faults: Faults[WireFault] = Faults(random.Random(seed))  # noqa: S311 - repeatable
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.accepted: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._server.scheme}://127.0.0.1:{self._port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    def inject(self, fault: WireFault, *, times: int | None = None, share: float = 1.0) -> None:
        """Let something happen.

        Args:
            fault: What.
            times: How often; for ever by default.
            share: To which share of the connections or exchanges, 0 to 1.
        """
        at = "connection" if fault.kind == "refuse" else "exchange"
        self._faults.add(fault, times=times, share=share, operation=at)

    def clear(self) -> None:
        """Let nothing happen any more."""
        self._faults.clear()

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncGenerator[None, None]:
        """Meanwhile nobody listens, and connections are refused; those that are open stay."""
        self._stop()
        try:
            yield
        finally:
            await self._start()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _start(self) -> None:
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, backlog=1024
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    def _stop(self) -> None:
        assert self._listener is not None
        self._listener.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the stream server's would be nobody's until its first step.
        self.accepted += 1
        task = asyncio.create_task(self._pass(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._faults.pick("connection") is not None:
            reset(writer.transport)
            return
        with contextlib.suppress(OSError):
            await _Link(self._faults, reader, writer).run(self._server)


class _Link:
    """One connection, and the one it is passed on to."""

    def __init__(
        self,
        faults: Faults[WireFault],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._faults = faults
        self._reader = reader
        self._writer = writer
        self._fault = NO_FAULT
        self._passed = 0  # bytes of the present answer
        self._asking = False

    async def run(self, server: SplitResult) -> None:
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        ways = [
            asyncio.create_task(self._pass_requests(writer)),
            asyncio.create_task(self._pass_answers(reader)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_requests(self, writer: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(65536):
            if not self._asking:
                self._asking, self._passed = True, 0
                self._fault = self._faults.pick("exchange") or NO_FAULT
                if self._fault.kind in BREAKS and self._fault.after is None:
                    self._break()
                    if self._fault.kind == "stall":
                        await self._reader.read()  # until the client goes
                    return
            writer.write(data)
            await writer.drain()

    async def _pass_answers(self, reader: asyncio.StreamReader) -> None:
        while data := await self._next(reader):
            self._asking = False
            fault, start = self._fault, self._passed
            if fault.kind == "corrupt":
                data = _corrupted(data, (fault.after or 0) - start, fault.size)
            elif fault.after is not None and start + len(data) >= fault.after:
                self._writer.write(data[: fault.after - start])
                await self._writer.drain()
                self._break()
                if fault.kind == "stall":
                    await asyncio.get_running_loop().create_future()  # the other way will end
                return
            step = fault.size if fault.kind == "slow" else len(data)
            for at in range(0, len(data), step):
                await asyncio.sleep(fault.seconds if fault.kind == "slow" else 0)
                self._writer.write(data[at : at + step])
                await self._writer.drain()
            self._passed += len(data)

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        patience = self._fault.seconds if self._fault.kind == "hang_up" else None
        try:
            async with asyncio.timeout(patience if self._passed else None):
                return await reader.read(65536)
        except TimeoutError:
            return b""

    def _break(self) -> None:
        if self._fault.kind == "reset":
            reset(self._writer.transport)


def _corrupted(data: bytes, start: int, size: int) -> bytes:
    begin, end = max(start, 0), max(start + size, 0)
    return data[:begin] + bytes(byte ^ 0xFF for byte in data[begin:end]) + data[end:]


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with RST in place of FIN."""
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
