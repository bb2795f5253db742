"""A pool of connections to one server, in which a call costs the same however many are in flight.

httpx's pool, httpcore's, looks at every connection on every call, and a request that is cancelled
within it can leave a slot that nobody can use again
(https://github.com/encode/httpcore/issues/1093). So httpcore's connections are used here without
its pool: an exchange has one to itself, which is kept if all went well and closed otherwise. The
only module that knows an HTTP library.

What arrives on a connection while no request is in progress is the response to nothing; the next
request would get it for its own. Such a connection is closed: httpcore reuses it.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import deque
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import httpcore
import httpx

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.state import ExchangeState
from ci_live_audit.wire.endpoint import is_this_machine
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["Connections"]

MAX_IDLE = 100
# Seconds; below the shortest time after which servers in use close an idle connection (5 s).
KEEP_ALIVE = 4.0


class UnexpectedBytes(httpcore.RemoteProtocolError):
    """Something arrived before the request was sent: bytes, or the end of the stream."""


class _Stream(httpcore.AsyncNetworkStream):
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
        # Bound methods, to cost nothing.
        self.aclose = stream.aclose  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(min(max_bytes, self.piece), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Nothing else runs between here and the system call.
        if self.idle and (self._is_readable() or self.holds_bytes()):
            raise UnexpectedBytes(
                "the server sent something, or hung up, before the request was sent"
            )
        self.idle = self._new_tls = False
        self.piece = self.HEAD
        await self._stream.write(buffer, timeout)

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(*args, **options), new_tls=True)

    def holds_bytes(self) -> bool | None:
        """Return whether bytes were received that nobody has read; None if that is not known."""
        return _library_holds_bytes(self._stream)

    def _is_readable(self) -> bool:
        return not self._new_tls and bool(self.get_extra_info("is_readable"))


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._backend: Any = httpcore.AnyIOBackend()

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(*args, **options))


# Neither anyio nor httpcore says what it has read ahead, so their private attributes are read, only
# here. If they are not as expected, a connection is used once.


def _library_holds_bytes(stream: Any) -> bool | None:
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


def _parser_holds_bytes(body: Any) -> bool | None:
    """Return whether httpcore's parser was given more than the response with this body."""
    try:
        return bool(body._connection._h11_state.trailing_data[0])  # noqa: SLF001
    except AttributeError:
        return None


class _Idle(NamedTuple):
    connection: httpcore.AsyncConnectionInterface
    since: float


class Connections:
    """Our own connections, which share one TLS context; the idle ones form a stack.

    Args:
        base_url: Scheme, host and port of the server.
        max_body: Maximum bytes of a decoded body.
        max_connections: Connections that may be open; further exchanges wait in order.

    Raises:
        ConfigurationError: The environment names a proxy that cannot be used.
    """

    #: A connection whose exchange is cancelled is closed and dropped.
    cancellable = True

    def __init__(self, base_url: str, max_body: int, max_connections: int) -> None:
        url = httpcore.URL(base_url)
        self._server: dict[str, Any] = {"scheme": url.scheme, "host": url.host, "port": url.port}
        self._origin = url.origin
        self._max_body = max_body
        self._factory = _factory(base_url)
        self._idle: deque[_Idle] = deque()
        #: One for each connection that may be open; the idle ones hold none.
        self._slots = anyio.Semaphore(max_connections, fast_acquire=True)

    async def exchange(
        self, request: Request, state: ExchangeState, *, timeout: float, reuse: bool
    ) -> Response:
        """Send a request and return the complete response.

        Args:
            request: The signed request.
            state: Where to note how far the exchange gets.
            timeout: Seconds after which the exchange is cancelled.
            reuse: Whether an idle connection will do.

        Raises:
            LiveAuditError: The response cannot be read.
            Exception: Whatever a library raises.
        """
        state.sent = False
        async with self._slots:
            while reuse and (connection := await self._take()) is not None:
                state.sent = state.reused = True
                try:
                    return await self._send(connection, request, state)
                except UnexpectedBytes:
                    state.sent = state.reused = False
            # The idle connections and the slots in use are all that may be open.
            await self._close_idle(self._slots.value)
            return await self._send_on_new(request, state, timeout)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._close_idle(0)

    async def _send_on_new(
        self, request: Request, state: ExchangeState, timeout: float
    ) -> Response:
        opened: list[httpcore.AsyncNetworkStream] = []
        extensions = {
            # Seconds for each step of opening a connection.
            "timeout": {"connect": timeout / 2},
            "trace": partial(_trace, opened, state),
        }
        connection = self._factory.create_connection(self._origin)
        try:
            return await self._send(connection, request, state, extensions)
        except BaseException as problem:
            if isinstance(problem, UnexpectedBytes):
                state.sent = False
            for stream in opened:
                await stream.aclose()
            raise

    async def _send(
        self,
        connection: httpcore.AsyncConnectionInterface,
        request: Request,
        state: ExchangeState,
        extensions: dict[str, Any] | None = None,
    ) -> Response:
        """Make an exchange on a connection, which is then kept or closed."""
        message = httpcore.Request(
            request.method,
            httpcore.URL(**self._server, target=request.path),
            headers=[(name.encode(), value.encode()) for name, value in request.headers.items()],
            content=request.body,
            extensions=extensions,
        )
        try:
            response = await connection.handle_async_request(message)
            known: dict[str, Any] = response.extensions  # type: ignore[assignment]
            stream: _Stream = known["network_stream"]
            stream.piece = _Stream.BODY
            state.head = Response.head(response.status, response.headers)
            complete = await read_body(state.head, response.aiter_stream(), self._max_body)
            await response.aclose()
        except BaseException:
            await connection.aclose()
            raise
        if (
            connection.is_available()
            and _parser_holds_bytes(response.stream) is False
            and stream.holds_bytes() is False
        ):
            await self._keep(connection, stream)
        else:
            await connection.aclose()
        return complete

    async def _take(self) -> httpcore.AsyncConnectionInterface | None:
        """Return the connection that was idle for the shortest time, if there is one."""
        await self._close_idle(MAX_IDLE)
        return self._idle.pop().connection if self._idle else None

    async def _keep(self, connection: httpcore.AsyncConnectionInterface, stream: _Stream) -> None:
        stream.idle = True
        self._idle.append(_Idle(connection, asyncio.get_running_loop().time()))
        await self._close_idle(MAX_IDLE)

    async def _close_idle(self, but: int) -> None:
        """Close all idle connections but some; those that were idle for too long in any case."""
        too_old = asyncio.get_running_loop().time() - KEEP_ALIVE
        # Others may empty the stack while one of it is being closed.
        while self._idle and (len(self._idle) > but or self._idle[0].since < too_old):
            await self._idle.popleft().connection.aclose()


def _factory(base_url: str) -> httpcore.AsyncConnectionPool:
    """Return what makes the connections, through the environment's proxy if it names one.

    https://www.python-httpx.org/environment_variables/
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = {} if is_this_machine(host) else urllib.request.getproxies()
    bypass = urllib.request.proxy_bypass(host)
    url = None if bypass else proxies.get(parts.scheme) or proxies.get("all")
    options: dict[str, Any] = {"network_backend": _Backend()}
    if parts.scheme == "https":
        options["ssl_context"] = httpx.create_ssl_context()
    if url is None:
        return httpcore.AsyncConnectionPool(**options)
    try:
        proxy = httpx.Proxy(url if "://" in url else f"http://{url}")
        options |= {"proxy_url": str(proxy.url), "proxy_auth": proxy.raw_auth}
        if proxy.url.scheme.startswith("socks5"):
            return httpcore.AsyncSOCKSProxy(**options)
        return httpcore.AsyncHTTPProxy(**options)
    except (RuntimeError, ValueError, httpx.InvalidURL) as problem:
        raise ConfigurationError(f"the proxy of the environment: {problem}") from None


async def _trace(
    opened: list[httpcore.AsyncNetworkStream],
    state: ExchangeState,
    event: str,
    info: dict[str, Any],
) -> None:
    """Note what happens while a connection is opened.

    httpcore forgets a stream if the TLS handshake on it is cancelled.
    https://www.encode.io/httpcore/extensions/#trace
    """
    if event.endswith("connect_tcp.complete"):
        opened.append(info["return_value"])
    # A proxy is asked for a tunnel by a request of its own.
    if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
        state.sent = True
