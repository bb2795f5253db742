"""The streams below our own connections: read in pieces, checked before a request, opened ahead.

What arrives on a connection while no request is in progress is the response to nothing; the next
request would get it for its own. Such a connection is closed: httpcore reuses it.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import Any

import httpcore

__all__ = ["Backend", "Stream", "UnexpectedBytes"]


class UnexpectedBytes(httpcore.RemoteProtocolError):
    """Something arrived before the request was sent: bytes, or the end of the stream."""


class Stream(httpcore.AsyncNetworkStream):
    """A stream that is read in small pieces, the smallest until the head of a response is there.

    httpcore parses all it has been given before anything else can run, deadlines included; and a
    head may never end, or be one of hundreds (1xx).

    Args:
        stream: The stream.
        new_tls: Whether it has just been encrypted: a server of TLS 1.3 begins with tickets.
    """

    #: Most responses fit as a whole.
    HEAD = 4 * 1024
    BODY = 16 * 1024

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, new_tls: bool = False) -> None:
        self.piece: int = self.HEAD
        #: Whether no request is in progress.
        self.idle: bool = True
        self._new_tls = new_tls
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, at most one piece of it."""
        return await self._stream.read(min(max_bytes, self.piece), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes.

        Raises:
            UnexpectedBytes: It would be a request, and something has come already.
        """
        # Nothing else runs between here and the system call.
        if self.idle and (self._is_readable() or self.holds_bytes()):
            raise UnexpectedBytes(
                "the server sent something, or hung up, before the request was sent"
            )
        self.idle = self._new_tls = False
        self.piece = self.HEAD
        await self._stream.write(buffer, timeout)

    async def start_tls(self, *args: Any, **options: Any) -> Stream:
        """Return the encrypted stream."""
        if self._new_tls:  # it was opened ahead
            return self
        return Stream(await self._stream.start_tls(*args, **options), new_tls=True)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the stream by a name."""
        return self._stream.get_extra_info(info)

    def holds_bytes(self) -> bool | None:
        """Return whether bytes were received that nobody has read; None if that is not known."""
        return _holds_bytes(self._stream)

    def _is_readable(self) -> bool:
        return not self._new_tls and bool(self.get_extra_info("is_readable"))


class Backend(httpcore.AsyncNetworkBackend):
    """Opens streams, one of them ahead of the connection that will use it.

    Args:
        host: Name or address of the server.
        port: Its port.
        context: For TLS; None without it.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._backend: Any = httpcore.AnyIOBackend()
        self._host = host
        self._port = port
        self._context = context
        #: What opening a stream ahead has led to, and when.
        self._ahead: Stream | Exception | None = None
        self._since = 0.0

    async def connect_tcp(self, *args: Any, **options: Any) -> Stream:
        """Return the stream that was opened ahead, or a new one.

        Raises:
            Exception: That of opening it, ahead or now.
        """
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Exception):
            try:
                raise ahead
            finally:  # or the error and this frame would keep each other alive
                del ahead
        return ahead or Stream(await self._backend.connect_tcp(*args, **options))

    async def open_ahead(self, timeout: float) -> None:
        """Open the stream that the next connection gets; if that fails, it gets the error.

        Args:
            timeout: Seconds that this may take.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        stream: Stream | None = None
        try:
            stream = await self.connect_tcp(self._host, self._port, timeout=timeout)
            stream = await self._encrypt(stream, max(until - loop.time(), 0.0))
        except BaseException as problem:
            if stream is not None:
                await stream.aclose()
            if not isinstance(problem, Exception):
                raise
            self._ahead = problem
        else:
            self._ahead = stream
        self._since = loop.time()

    async def _encrypt(self, stream: Stream, timeout: float) -> Stream:
        if self._context is None:
            return stream
        self._context.set_alpn_protocols(["http/1.1"])
        return await stream.start_tls(self._context, self._host, timeout)

    def is_ahead(self, since: float) -> bool:
        """Return whether a stream was opened ahead, at a time of the loop or later."""
        return self._ahead is not None and self._since >= since

    async def close_ahead(self, but_since: float = math.inf) -> None:
        """Forget the stream that was opened ahead, unless at a time of the loop or later."""
        if self._since < but_since:
            ahead, self._ahead = self._ahead, None
            if isinstance(ahead, Stream):
                await ahead.aclose()


# Neither anyio nor httpcore says what it has read ahead, so their private attributes are read, only
# here. If they are not as expected, a connection is used once.


def _holds_bytes(stream: Any) -> bool | None:
    """Return whether anyio holds bytes that nobody has read, decrypted or not."""
    try:
        layer = stream._stream  # noqa: SLF001
        while hasattr(layer, "transport_stream"):  # TLS, perhaps within TLS
            if layer._ssl_object.pending() or layer._read_bio.pending:  # noqa: SLF001
                return True
            layer = layer.transport_stream
        return bool(layer._protocol.read_queue)  # noqa: SLF001
    except AttributeError:
        return None
