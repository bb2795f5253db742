"""Small servers on loopback that behave as no good server does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Served:
    """A running server: its URL and how many connections it has accepted and has open."""

    def __init__(self) -> None:
        self.url = ""
        self.accepted = 0
        self.open = 0
        self.requests: list[bytes] = []

    async def all_closed(self, but: int = 0) -> bool:
        """Whether every connection, but so many, is closed within some seconds."""
        for _ in range(300):
            if self.open == but:
                return True
            await asyncio.sleep(0.01)
        return False


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Served]:
    """Serve connections with a handler until the context ends."""
    served = Served()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        served.accepted += 1
        served.open += 1
        try:
            await handler(Recorder(reader, served), writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            served.open -= 1
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Recorder(asyncio.StreamReader):
    """A reader that reads whole requests and notes them."""

    def __init__(self, reader: asyncio.StreamReader, served: Served) -> None:
        self.inner = reader
        self._served = served

    async def request(self) -> bytes:
        """The next request's head; its body is read too and dropped."""
        head = await self.inner.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await self.inner.readexactly(int(line.partition(b":")[2]))
        self._served.requests.append(head)
        return head


def answering(
    *pieces: bytes, status: str = "200 OK", headers: str = "", pause: float = 0
) -> Handler:
    """Answer every request with a body in pieces."""

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
    """Read requests and never answer."""

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        await reader.inner.read()  # until the client goes

    return handle


def hanging_up(after: bytes = b"") -> Handler:
    """Read a request, write so much, and close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        writer.write(after)
        await writer.drain()

    return handle
