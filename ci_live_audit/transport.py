"""One exchange: a request out, a bounded answer in, within a deadline, whatever is cancelled.

The only module that knows an HTTP library. Cancelling a request inside httpx 0.28 leaves its pool
with slots that nobody can use again (https://github.com/encode/httpcore/issues/1093), and the
pool's cost for each call grows with the calls in flight. So each exchange runs in a task of its
own, over a connection that is nobody else's: a connection is used again only after an exchange
that went well, and closed after any other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import urllib.request
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import attrs
import httpx

from ci_live_audit.errors import (
    ConfigurationError,
    DecodeError,
    LiveAuditError,
    RequestTimeout,
    TransportError,
)

__all__ = ["Answer", "HttpClient", "Transport"]

MAX_BODY = 64 * 2**20
MAX_IDLE = 100
# Below the shortest idle time after which servers in use close a connection (5 s).
KEEP_ALIVE = 4.0
USER_AGENT = f"ci-live-audit/{version('ci-live-audit')}"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@attrs.frozen(kw_only=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient(Protocol):
    """What is used of ``http_client``: any client of the httpx family has it."""

    @property
    def stream(self) -> Callable[..., contextlib.AbstractAsyncContextManager[Any]]:
        """As ``httpx.AsyncClient.stream``."""
        ...


class Transport:
    """Exchanges with one server.

    Args:
        base_url: Scheme, host and port.
        http_client: A client to use in place of own connections; it is not closed here.
        max_body: Bytes that a decoded body may have.
    """

    def __init__(
        self, base_url: str, http_client: HttpClient | None = None, max_body: int = MAX_BODY
    ) -> None:
        self.base_url: str = base_url.rstrip("/")
        self._client = _usable(http_client)
        self._connections = None if http_client is not None else _Connections(self.base_url)
        self._max_body = max_body
        self._tasks: set[asyncio.Task[Answer | LiveAuditError]] = set()
        self._calls: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncGenerator[None, None]:
        """Around everything that a call waits for; closing ends it.

        Raises:
            ConfigurationError: The client is closed or belongs to another event loop.
        """
        self._check_loop()
        if self._closed:
            raise ConfigurationError("this client is closed; make a new one")
        scope = asyncio.timeout(None)
        self._calls.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            error = ConfigurationError("the client was closed during the call")
            error.may_have_happened = True  # for all that is known here
            raise error from None
        finally:
            self._calls.discard(scope)

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,
        reuse: bool = True,
    ) -> Answer:
        """Exchange a request for an answer.

        Args:
            method: HTTP method.
            path: Path, percent-encoded.
            headers: Request headers.
            body: Request body.
            timeout: Seconds from here to the last byte of the answer.
            reuse: Whether a connection that was used before will do.

        Raises:
            TransportError: There was no complete answer.
            DecodeError: The body is too large or its compression broken.
        """
        exchange = self._exchange(method, path, headers, body, timeout=timeout, reuse=reuse)
        task = asyncio.create_task(exchange)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # The caller goes at once. A foreign pool must not be hurt, so there the exchange goes
            # on to its end, the deadline at the latest; an own connection is simply dropped.
            if self._connections is not None:
                task.cancel()
            raise
        answer = task.result()
        if isinstance(answer, Answer):
            return answer
        try:
            raise answer
        finally:  # or the error and this frame would keep each other alive
            del answer, task

    async def drop_idle(self) -> None:
        """Close the own connections that are not in use."""
        if self._connections is not None:
            await self._connections.aclose()

    async def aclose(self) -> None:
        """End what is under way and close all own connections.

        Raises:
            ConfigurationError: The client belongs to another event loop.
        """
        self._closed = True
        self._check_loop()
        while self._calls:
            self._calls.pop().reschedule(0)
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self.drop_idle()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ConfigurationError(
                "this client belongs to another event loop; make one client for each loop"
            )

    async def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,
        reuse: bool,
    ) -> Answer | LiveAuditError:
        """The answer, or the error as a value: a task that nobody awaits may not raise."""
        options: dict[str, Any] = {
            "headers": {**headers, "accept-encoding": "identity", "user-agent": USER_AGENT},
            "content": body,
            # Half of the time to connect, so that a deadline which passes later means "sent".
            "timeout": (timeout / 2, timeout, timeout, timeout / 2),
        }
        try:
            async with asyncio.timeout(timeout):
                async with self._stream(method, path, options, reuse=reuse) as response:
                    return await _read(response, self._max_body)
        except LiveAuditError as error:
            return error
        except Exception as problem:  # noqa: BLE001 - what a library may raise has no end
            return _explain(problem, timeout)

    def _stream(
        self, method: str, path: str, options: dict[str, Any], *, reuse: bool
    ) -> contextlib.AbstractAsyncContextManager[Any]:
        url = self.base_url + path
        if self._connections is not None:
            return self._connections.stream(method, url, reuse=reuse, **options)
        # Tuples and texts only: objects of one library of the family do not fit another.
        return self._client.stream(method, url, follow_redirects=False, **options)  # type: ignore[union-attr]


class _Connections:
    """Single connections that share one TLS context; the idle ones as a stack."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        proxies = {} if host in LOOPBACK else urllib.request.getproxies()
        bypass = urllib.request.proxy_bypass(host)
        proxy = None if bypass else proxies.get(parts.scheme) or proxies.get("all")
        self._proxy = proxy if proxy is None or "://" in proxy else f"http://{proxy}"
        self._verify: ssl.SSLContext | bool = (
            httpx.create_ssl_context() if parts.scheme == "https" else False
        )
        self._idle: deque[tuple[httpx.AsyncHTTPTransport, float]] = deque()
        try:
            self._new()
        except (ImportError, ValueError, httpx.InvalidURL) as problem:
            raise ConfigurationError(f"the proxy of the environment: {problem}") from None

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        reuse: bool,
        headers: dict[str, str],
        content: bytes,
        timeout: tuple[float, float, float, float],
    ) -> AsyncGenerator[httpx.Response, None]:
        names = ("connect", "read", "write", "pool")
        streams: list[Any] = []
        extensions = {
            "timeout": dict(zip(names, timeout, strict=True)),
            "trace": partial(_note_stream, streams),
        }
        connection = self._idle.pop()[0] if reuse and self._idle else self._new()
        request = httpx.Request(
            method, url, headers=headers, content=content, extensions=extensions
        )
        try:
            response = await connection.handle_async_request(request)
            yield response
            await response.aclose()
        except BaseException:
            await connection.aclose()
            for stream in streams:
                await stream.aclose()
            raise
        now = asyncio.get_running_loop().time()
        self._idle.append((connection, now))
        # Others may empty the stack while one of it is being closed.
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0][1] + KEEP_ALIVE < now):
            await self._idle.popleft()[0].aclose()

    def _new(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, keepalive_expiry=KEEP_ALIVE)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=limits, proxy=self._proxy)

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.popleft()[0].aclose()


async def _note_stream(streams: list[Any], event: str, info: dict[str, Any]) -> None:
    """Note a newly opened stream: httpcore forgets it if the TLS handshake is cancelled.

    https://www.encode.io/httpcore/extensions/#trace
    """
    if event == "connection.connect_tcp.complete":
        streams.append(info["return_value"])


def _usable(client: HttpClient | None) -> HttpClient | None:
    if client is None:
        return None
    if not callable(getattr(client, "stream", None)) or not inspect.iscoroutinefunction(
        getattr(client, "aclose", None)
    ):
        raise ConfigurationError(
            f"http_client: expected an async client like httpx's; got {type(client).__name__}"
        )
    if getattr(client, "is_closed", False):
        raise ConfigurationError("http_client: this one is closed")
    return client


async def _read(response: Any, limit: int) -> Answer:
    """The whole answer, with no more of its body in memory than may be there."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.is_stream_consumed:  # a mock's answer is in memory already, and decoded
        return Answer(status=response.status_code, headers=headers, body=response.content)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise DecodeError(f"Content-Encoding {encoding} was not asked for", path="Response")
    inflate = None if encoding == "identity" else zlib.decompressobj(wbits=47)
    body = bytearray()
    chunks = 0
    try:
        async for chunk in response.aiter_raw():
            room = limit - len(body) + 1
            body += chunk[:room] if inflate is None else inflate.decompress(chunk, room)
            if inflate is not None and inflate.unused_data:
                raise DecodeError(f"bytes after the end of the {encoding} body")
            if len(body) > limit:
                raise DecodeError(f"larger than {limit} bytes", path="Response")
            chunks += 1
            if chunks % 256 == 0:  # a server of tiny chunks would have the loop for itself
                await asyncio.sleep(0)
    except zlib.error as problem:
        raise DecodeError(f"not {encoding}: {problem}") from None
    if inflate is not None and chunks and not inflate.eof:
        raise DecodeError(f"the {encoding} body is cut off")
    return Answer(status=response.status_code, headers=headers, body=bytes(body))


# What surely did not reach the server. By name, because each library of the family has its own.
UNSENT = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ConnectionRefusedError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "InvalidURL",
}


def _explain(problem: Exception, timeout: float) -> TransportError:
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    sent = not kinds & UNSENT
    if kinds & {"TimeoutError", "TimeoutException"}:
        phase = "answer" if sent else "connection"
        error: TransportError = RequestTimeout(f"no {phase} within {timeout:g} s", sent=sent)
    else:
        error = TransportError(f"{type(problem).__name__}: {problem}".rstrip(": "), sent=sent)
    error.__cause__ = _without_request(problem)
    return error


def _without_request(problem: BaseException) -> BaseException:
    """The cause without what it drags along: frames and requests that hold signed headers."""
    link: BaseException | None = problem
    while link is not None:
        link.__traceback__ = None
        if hasattr(type(link), "request"):
            link.request = None  # type: ignore[attr-defined]
        link = link.__cause__ or link.__context__
    return problem
