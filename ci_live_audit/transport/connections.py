"""A pool of connections to one server, in which a call costs the same however many are in flight.

httpx's pool, httpcore's, looks at every connection on every call, and a request that is cancelled
within it can leave a slot that nobody can use again
(https://github.com/encode/httpcore/issues/1093). So httpcore's connections are used here without
its pool: an exchange has one to itself, which is kept if all went well and closed otherwise. The
only module that knows an HTTP library.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import deque
from functools import partial
from typing import Any
from urllib.parse import urlsplit

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


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that is read in small pieces, the smallest until the head of a response is there.

    httpcore parses all it has been given before anything else can run, deadlines included; and a
    head may never end, or be one of hundreds (1xx).
    """

    #: Most responses fit as a whole.
    HEAD = 4 * 1024
    BODY = 16 * 1024

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self.piece: int = self.HEAD
        self._stream = stream
        # Bound methods, to cost nothing.
        self.aclose = stream.aclose  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(min(max_bytes, self.piece), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.piece = self.HEAD
        await self._stream.write(buffer, timeout)

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(*args, **options))


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._backend: Any = httpcore.AnyIOBackend()

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(*args, **options))


class Connections:
    """Our own connections, which share one TLS context; the idle ones form a stack.

    Args:
        base_url: Scheme, host and port of the server.
        max_body: Maximum bytes of a decoded body.

    Raises:
        ConfigurationError: The environment names a proxy that cannot be used.
    """

    #: A connection whose exchange is cancelled is closed and dropped.
    cancellable = True

    def __init__(self, base_url: str, max_body: int) -> None:
        url = httpcore.URL(base_url)
        self._server: dict[str, Any] = {"scheme": url.scheme, "host": url.host, "port": url.port}
        self._origin = url.origin
        self._max_body = max_body
        self._factory = _factory(base_url)
        self._idle: deque[tuple[httpcore.AsyncConnectionInterface, float]] = deque()

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
        connection = await self._take() if reuse else None
        state.sent = state.reused = connection is not None
        opened: list[httpcore.AsyncNetworkStream] = []
        extensions: dict[str, Any] = {}
        if connection is None:
            connection = self._factory.create_connection(self._origin)
            # Seconds for each step of opening a connection.
            extensions["timeout"] = {"connect": timeout / 2}
            extensions["trace"] = partial(_trace, opened, state)
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
            known["network_stream"].piece = _Stream.BODY
            state.head = Response.head(response.status, response.headers)
            complete = await read_body(state.head, response.aiter_stream(), self._max_body)
            await response.aclose()
        except BaseException:
            await connection.aclose()
            for stream in opened:
                await stream.aclose()
            raise
        if connection.is_available():
            await self._keep(connection)
        return complete

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.popleft()[0].aclose()

    async def _take(self) -> httpcore.AsyncConnectionInterface | None:
        """Return an idle connection that the server has not closed, if there is one."""
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def _keep(self, connection: httpcore.AsyncConnectionInterface) -> None:
        now = asyncio.get_running_loop().time()
        self._idle.append((connection, now))
        # Others may empty the stack while one of it is being closed.
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0][1] + KEEP_ALIVE < now):
            await self._idle.popleft()[0].aclose()


def _factory(base_url: str) -> httpcore.AsyncConnectionPool:
    """Return what makes the connections, through the environment's proxy if it names one.

    https://www.python-httpx.org/environment_variables/
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = {} if is_this_machine(host) else urllib.request.getproxies()
    bypass = urllib.request.proxy_bypass(host)
    url = None if bypass else proxies.get(parts.scheme) or proxies.get("all")
    options: dict[str, Any] = {"keepalive_expiry": KEEP_ALIVE, "network_backend": _Backend()}
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
