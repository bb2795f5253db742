"""A proxy on loopback that does to connections what networks do: reset, cut, stall, corrupt.

It passes bytes and knows no HTTP, so it works in front of TLS as well. Faults of the service itself
are in `ci_live_audit.testing.faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, urlsplit

import attrs

from ci_live_audit.testing.faults import Faults

__all__ = ["ChaosProxy", "WireFault", "reset"]


class Ending(StrEnum):
    """How a connection ends: with RST, with FIN, or not at all but in silence."""

    RESET = "reset"
    CUT = "cut"
    STALL = "stall"


@attrs.frozen(kw_only=True)
class WireFault:
    """What goes wrong on the network; made by the class methods.

    Attributes:
        meets: ``"connection"`` or ``"exchange"``.
        ending: How the connection ends; None if the fault does not end it.
        after: Bytes of the response that are passed before the end. With None the connection ends
            when the request arrives, and the request is not passed.
        corrupted: Positions of the response's bytes that are inverted.
        piece: Bytes of the response that are passed at a time; None for all at once.
        pause: Seconds before each piece.
        patience: Seconds without a byte after a response until the connection is closed.
    """

    meets: str = "exchange"
    ending: Ending | None = None
    after: int | None = None
    corrupted: range = range(0)
    piece: int | None = None
    pause: float = 0.0
    patience: float | None = None

    @classmethod
    def refuse(cls) -> WireFault:
        """Reset the connection as soon as it is made."""
        return cls(meets="connection")

    @classmethod
    def reset(cls, after: int | None = None) -> WireFault:
        """Reset the connection (RST) after ``after`` bytes; by default before the request."""
        return cls(ending=Ending.RESET, after=after)

    @classmethod
    def cut(cls, after: int | None = None) -> WireFault:
        """Close the connection (FIN) after ``after`` bytes; by default before the request."""
        return cls(ending=Ending.CUT, after=after)

    @classmethod
    def stall(cls, after: int | None = None) -> WireFault:
        """Keep the connection open but pass nothing after ``after`` bytes."""
        return cls(ending=Ending.STALL, after=after)

    @classmethod
    def slow(cls, size: int = 1, seconds: float = 0.01) -> WireFault:
        """Pass the response in pieces of ``size`` bytes, ``seconds`` before each."""
        return cls(piece=size, pause=seconds)

    @classmethod
    def corrupt(cls, after: int, size: int = 1) -> WireFault:
        """Invert ``size`` bytes of the response, from position ``after`` on."""
        return cls(corrupted=range(after, after + size))

    @classmethod
    def hang_up(cls, seconds: float) -> WireFault:
        """Close the connection when nothing comes for ``seconds`` after a response."""
        return cls(patience=seconds)


NO_FAULT = WireFault()


class ChaosProxy:
    """Passes connections on to a server, with faults.

    ::

        async with emulator.serve() as url, ChaosProxy(url) as proxy:
            proxy.inject(WireFault.reset(after=100), times=1)
            client = LiveAuditClient(..., endpoint=proxy.url)

    Each connection and each exchange (bytes from the client, then from the server) meets at most
    one fault.

    Args:
        url: URL of the server, such as ``http://127.0.0.1:8080``.
        port: Port to listen on; 0 takes a free port.
        seed: Makes random choices repeatable.

    Attributes:
        accepted: Number of connections accepted so far.
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
        """URL of the proxy, with the scheme of the server's."""
        return f"{self._server.scheme}://127.0.0.1:{self._port}"

    @property
    def open(self) -> int:
        """Number of open connections."""
        return len(self._tasks)

    def inject(self, fault: WireFault, *, times: int | None = None, share: float = 1.0) -> None:
        """Inject a fault.

        Args:
            fault: The fault.
            times: How often it happens; without limit by default.
            share: Share of the connections or exchanges that it meets, 0 to 1.
        """
        self._faults.add(fault, times=times, share=share, operation=fault.meets)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncGenerator[None, None]:
        """Refuse new connections until the context ends; open ones stay."""
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
        # Not a coroutine, whose task could not be cancelled before its first step.
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
    """Passes bytes between one client and the server."""

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
        self._passed = 0  # bytes of the current response
        self._in_request = False

    async def run(self, server: SplitResult) -> None:
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        directions = [
            asyncio.create_task(self._pass_requests(writer)),
            asyncio.create_task(self._pass_responses(reader)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pass_requests(self, writer: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(65536):
            if not self._in_request:
                self._in_request, self._passed = True, 0
                self._fault = self._faults.pick("exchange") or NO_FAULT
                if self._fault.ending is not None and self._fault.after is None:
                    await self._end(self._reader.read)
                    return
            writer.write(data)
            await writer.drain()

    async def _pass_responses(self, reader: asyncio.StreamReader) -> None:
        while data := await self._next(reader):
            self._in_request = False
            fault, start = self._fault, self._passed
            if fault.after is not None and start + len(data) >= fault.after:
                self._writer.write(data[: fault.after - start])
                await self._writer.drain()
                # The other direction notices when the client leaves.
                await self._end(asyncio.get_running_loop().create_future)
                return
            data = _inverted(data, fault.corrupted.start - start, fault.corrupted.stop - start)
            step = fault.piece or len(data)
            for at in range(0, len(data), step):
                await asyncio.sleep(fault.pause)
                self._writer.write(data[at : at + step])
                await self._writer.drain()
            self._passed += len(data)

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._fault.patience if self._passed else None):
                return await reader.read(65536)
        except TimeoutError:
            return b""

    async def _end(self, client_left: Callable[[], Awaitable[object]]) -> None:
        if self._fault.ending is Ending.RESET:
            reset(self._writer.transport)
        elif self._fault.ending is Ending.STALL:
            await client_left()


def _inverted(data: bytes, begin: int, end: int) -> bytes:
    begin, end = max(begin, 0), max(end, 0)
    return data[:begin] + bytes(byte ^ 0xFF for byte in data[begin:end]) + data[end:]


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
