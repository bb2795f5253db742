"""A pool of connections to one server, in which a call costs the same however many are in flight.

The pool of httpx, httpcore's, looks at every connection on every call, and a request that is
cancelled within it can leave a slot that nobody can use again
(https://github.com/encode/httpcore/issues/1093). So httpcore's connections are used without its
pool here: an exchange has one to itself, which is used again if all went well and closed after any
other end. The only module that knows an HTTP library.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.wire.endpoint import is_this_machine

__all__ = ["Connections"]

MAX_IDLE = 100
# Below the shortest idle time after which servers in use close a connection (5 s).
KEEP_ALIVE = 4.0


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that is read in small pieces, the smallest before the head of an answer is there.

    httpcore parses all it was given before anybody else has a turn, a deadline included; and a head
    may never end, or be one of hundreds (1xx).
    """

    #: Room for most answers as a whole.
    HEAD = 4 * 1024
    BODY = 16 * 1024

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self.piece: int = self.HEAD
        self._stream = stream
        # As they are, to cost nothing.
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
    """Connections that share one TLS context; the idle ones as a stack.

    Args:
        base_url: Scheme, host and port.

    Raises:
        ConfigurationError: The environment names a proxy that cannot be used.
    """

    def __init__(self, base_url: str) -> None:
        url = httpcore.URL(base_url)
        self._server: dict[str, Any] = {"scheme": url.scheme, "host": url.host, "port": url.port}
        self._origin = url.origin
        self._factory = _factory(base_url)
        self._idle: deque[tuple[httpcore.AsyncConnectionInterface, float]] = deque()

    async def take(self) -> httpcore.AsyncConnectionInterface | None:
        """An idle connection, if there is one that the server has not closed."""
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    @contextlib.asynccontextmanager
    async def stream(
        self,
        connection: httpcore.AsyncConnectionInterface | None,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float,
        on_send: Callable[[], None],
    ) -> AsyncGenerator[httpcore.Response, None]:
        """Send a request and give the answer, whose body is still to be read.

        Args:
            connection: One that was taken; None for a new one.
            method: HTTP method.
            path: Path, percent-encoded.
            headers: Request headers.
            body: Request body.
            connect_timeout: Seconds for each step of opening a connection.
            on_send: Called when the request begins to leave on a new connection.
        """
        streams: list[httpcore.AsyncNetworkStream] = []
        extensions: dict[str, Any] = {}
        if connection is None:
            connection = self._factory.create_connection(self._origin)
            extensions["timeout"] = {"connect": connect_timeout}
            extensions["trace"] = partial(_note, streams, on_send)
        request = httpcore.Request(
            method,
            httpcore.URL(**self._server, target=path),
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            content=body,
            extensions=extensions,
        )
        try:
            response = await connection.handle_async_request(request)
            known: dict[str, Any] = response.extensions  # type: ignore[assignment]
            known["network_stream"].piece = _Stream.BODY
            yield response
            await response.aclose()
        except BaseException:
            await connection.aclose()
            for stream in streams:
                await stream.aclose()
            raise
        if connection.is_available():
            await self._keep(connection)

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.popleft()[0].aclose()

    async def _keep(self, connection: httpcore.AsyncConnectionInterface) -> None:
        now = asyncio.get_running_loop().time()
        self._idle.append((connection, now))
        # Others may empty the stack while one of it is being closed.
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0][1] + KEEP_ALIVE < now):
            await self._idle.popleft()[0].aclose()


def _factory(base_url: str) -> httpcore.AsyncConnectionPool:
    """What makes the connections, through the environment's proxy if it names one.

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


async def _note(
    streams: list[httpcore.AsyncNetworkStream],
    on_send: Callable[[], None],
    event: str,
    info: dict[str, Any],
) -> None:
    """Note what happens while a connection is opened.

    httpcore forgets a stream if the TLS handshake on it is cancelled.
    https://www.encode.io/httpcore/extensions/#trace
    """
    if event.endswith("connect_tcp.complete"):
        streams.append(info["return_value"])
    # A proxy is asked for a tunnel by a request of its own.
    if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
        on_send()
