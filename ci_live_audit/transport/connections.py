"""A pool of connections to one server, in which a call costs the same however many are in flight.

httpx's pool, httpcore's, looks at every connection on every call, and a request that is cancelled
within it can leave a slot that nobody can use again
(https://github.com/encode/httpcore/issues/1093). So httpcore's connections are used here without
its pool: an exchange has one to itself, which is kept if all went well and closed otherwise.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections import deque
from functools import partial
from typing import Any, NamedTuple

import anyio
import httpcore
import httpx

from ci_live_audit.transport import environment
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.state import ExchangeState, place
from ci_live_audit.transport.streams import Backend, Stream, UnexpectedBytes
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["Connections", "tls_context"]

MAX_IDLE = 100
# Seconds; below the shortest time after which servers in use close an idle connection (5 s).
KEEP_ALIVE = 4.0
# Seconds for which a connection that was opened ahead counts as new.
NEW = 1.0


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
        context = tls_context(environment.certificates()) if url.scheme == b"https" else None
        port = url.origin.port
        self._backend = Backend(url.host.decode(), port, context)
        self._factory = _factory(base_url, network_backend=self._backend, ssl_context=context)
        #: Whether a connection can be opened ahead: not through a proxy.
        self._direct = type(self._factory) is httpcore.AsyncConnectionPool
        #: Address that the newest connection leads to, and its version of TLS.
        self.peer = ""
        #: Host and port of the server, and of the proxy if there is one.
        self.route: str = place(url.host.decode(), port)
        if not self._direct:
            pool: Any = self._factory
            proxy: Any = pool._proxy_url  # noqa: SLF001
            self.route += f" through the proxy {place(proxy.host.decode(), proxy.origin.port)}"
        self._most = max_connections
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
        state.sent, state.route = False, self.route
        async with self._slots:
            while reuse and (connection := await self._take()) is not None:
                state.sent = state.reused = True
                try:
                    return await self._send(connection, request, state)
                except UnexpectedBytes:
                    state.sent = state.reused = False
            # The idle connections and the slots in use are all that may be open.
            await self._close_idle(self._slots.value)
            too_old = asyncio.get_running_loop().time() - (KEEP_ALIVE if reuse else NEW)
            await self._backend.close_ahead(but_since=too_old)
            return await self._send_on_new(request, state, timeout)

    def must_prepare(self) -> bool:
        """Return whether the next exchange would be the only one, and on a new connection."""
        too_old = asyncio.get_running_loop().time() - KEEP_ALIVE
        return (
            self._direct
            and self._slots.value == self._most
            and not (self._idle and self._idle[-1].since >= too_old)
            and not self._backend.is_ahead(since=too_old)
        )

    async def prepare(self, timeout: float) -> None:
        """Open the connection of the next exchange; if that fails, the exchange will.

        Args:
            timeout: Seconds that this may take.
        """
        async with self._slots:
            await self.aclose()
            await self._backend.open_ahead(timeout)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._backend.close_ahead()
        await self._close_idle(0)

    async def _send_on_new(
        self, request: Request, state: ExchangeState, timeout: float
    ) -> Response:
        opened: list[httpcore.AsyncNetworkStream] = []
        extensions = {
            # Seconds for each step of opening a connection.
            "timeout": {"connect": timeout / 2},
            "trace": partial(_trace, self, opened, state),
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
            stream: Stream = known["network_stream"]
            stream.piece = Stream.BODY
            state.head = Response.head(response.status, response.headers)
            pieces = response.aiter_stream()
            complete = await read_body(state.head, pieces, self._max_body, state.share)
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

    async def _keep(self, connection: httpcore.AsyncConnectionInterface, stream: Stream) -> None:
        stream.idle = True
        self._idle.append(_Idle(connection, asyncio.get_running_loop().time()))
        await self._close_idle(MAX_IDLE)

    async def _close_idle(self, but: int) -> None:
        """Close all idle connections but some; those that were idle for too long in any case."""
        too_old = asyncio.get_running_loop().time() - KEEP_ALIVE
        # Others may empty the stack while one of it is being closed.
        while self._idle and (len(self._idle) > but or self._idle[0].since < too_old):
            await self._idle.popleft().connection.aclose()


@functools.lru_cache(maxsize=1)
def tls_context(certificates: environment.Certificates) -> ssl.SSLContext:
    """Return the TLS context with these certificates, which clients share.

    Raises:
        ConfigurationError: They cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as problem:
        raise certificates.unreadable(problem) from None


def _factory(base_url: str, **options: Any) -> httpcore.AsyncConnectionPool:
    """Return what makes the connections, through the environment's proxy if it names one."""
    found = environment.proxy(base_url)
    if found is None:
        return httpcore.AsyncConnectionPool(**options)
    try:
        proxy = httpx.Proxy(found.url)
        options |= {"proxy_url": str(proxy.url), "proxy_auth": proxy.raw_auth}
        if proxy.url.scheme.startswith("socks5"):
            return httpcore.AsyncSOCKSProxy(**options)
        return httpcore.AsyncHTTPProxy(**options)
    except (ValueError, httpx.InvalidURL):
        raise found.unusable() from None


async def _trace(
    pool: Connections,
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
        pool.peer = str((info["return_value"].get_extra_info("server_addr") or ["?"])[0])
    if event.endswith("start_tls.complete"):
        pool.peer += f" {info['return_value'].get_extra_info('ssl_object').version()}"
    # A proxy is asked for a tunnel by a request of its own.
    if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
        state.sent = True
