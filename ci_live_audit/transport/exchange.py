"""One exchange: a request out, a bounded answer in, within a deadline, whatever is cancelled.

Each exchange runs in a task of its own: the caller can leave at any moment, and what a library does
about a cancellation, or fails to do, is not the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from ci_live_audit._checks import above_zero
from ci_live_audit._loop import running_loop
from ci_live_audit.errors import (
    ConfigurationError,
    LiveAuditError,
    RequestTimeout,
    TransportError,
    strip_context,
)
from ci_live_audit.transport.body import MAX_BODY, read_body
from ci_live_audit.wire.responses import Response

if TYPE_CHECKING:
    from ci_live_audit.transport.connections import Connections

__all__ = ["HttpClient", "Transport"]


@attrs.define
class _Way:
    """How far an exchange has come.

    ``sent`` is None with a foreign client: there the error has to tell.
    """

    sent: bool | None = None
    reused: bool = False
    answer: Response | None = None

    def send(self) -> None:
        self.sent = True


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

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    #: Exchanges over a foreign client may end by themselves for so many seconds when this closes.
    GRACE = 1.0

    #: The loop and the process in which it was first used.
    _owner: tuple[asyncio.AbstractEventLoop, int] | None = None

    def __init__(
        self, base_url: str, http_client: HttpClient | None = None, max_body: int = MAX_BODY
    ) -> None:
        above_zero("max_body", max_body, "bytes", whole=True)
        self.base_url: str = base_url.rstrip("/")
        self._client = _usable(http_client)
        self._connections = _connections(self.base_url) if http_client is None else None
        self._max_body = max_body
        self._tasks: set[asyncio.Task[Response | LiveAuditError]] = set()
        self._calls: set[asyncio.Timeout] = set()
        self._closed = False

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._owner is not None and self._connections is not None and not self._closed:
            text = f'the client of {self.base_url} was not closed: use "async with" or aclose()'
            warn(text, ResourceWarning, source=self)

    @contextlib.asynccontextmanager
    async def open_call(self) -> AsyncGenerator[None, None]:
        """Around everything that a call waits for; closing ends it.

        Raises:
            ConfigurationError: The client is closed or belongs to another event loop.
        """
        self.check_loop()
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
    ) -> Response:
        """Exchange a request for an answer.

        Args:
            method: HTTP method.
            path: Path, percent-encoded.
            headers: Request headers.
            body: Request body.
            timeout: Seconds from here to the last byte of the answer.
            reuse: Whether a connection that was used before will do.

        Returns:
            The answer; with an ``error`` if no more than its headers could be read: a
            `TransportError`, or a `DecodeError` for a body too large or of broken compression.

        Raises:
            TransportError: No answer began.
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
        if isinstance(answer, Response):
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
        self.check_loop()
        self._closed = True
        while self._calls:
            self._calls.pop().reschedule(0)
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)
            if self._tasks and self._connections is None:
                await asyncio.wait(self._tasks, timeout=self.GRACE)
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self.drop_idle()

    def check_loop(self) -> None:
        """Make sure that this is the event loop to which the connections belong.

        Raises:
            ConfigurationError: It is another one, or none.
        """
        here = running_loop(), os.getpid()
        # In one step: two threads may be here at once. A forked child inherits the loop's object.
        if vars(self).setdefault("_owner", here) != here:
            raise ConfigurationError(
                "this client belongs to another event loop or process; make one for each"
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
    ) -> Response | LiveAuditError:
        """The answer, or the error as a value: a task that nobody awaits may not raise."""
        headers = {**headers, "accept-encoding": "identity", "user-agent": _user_agent()}
        way = _Way()
        try:
            async with asyncio.timeout(timeout):
                if self._connections is None:
                    return await self._by_client(
                        method, path, headers, body, timeout=timeout, way=way
                    )
                connection = await self._connections.take() if reuse else None
                way.sent = way.reused = connection is not None
                async with self._connections.stream(
                    connection,
                    method,
                    path,
                    headers,
                    body,
                    connect_timeout=timeout / 2,
                    on_send=way.send,
                ) as own:
                    way.answer = Response.head(own.status, own.headers)
                    return await read_body(way.answer, own.aiter_stream(), self._max_body)
        except LiveAuditError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - what a library may raise has no end
            error = _explain(problem, timeout, way)
        try:
            return error if way.answer is None else attrs.evolve(way.answer, error=error)
        finally:  # or the error and this frame would keep each other alive
            del error

    async def _by_client(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,
        way: _Way,
    ) -> Response:
        if getattr(self._client, "is_closed", False):
            raise ConfigurationError("http_client: this one has been closed")
        # Tuples and texts only: objects of one library of the family do not fit another.
        times = (timeout / 2, timeout, timeout, timeout / 2)
        url, options = self.base_url + path, {"timeout": times, "follow_redirects": False}
        async with self._client.stream(  # type: ignore[union-attr]
            method, url, headers=headers, content=body, **options
        ) as response:
            way.answer = Response.head(response.status_code, response.headers.raw)
            if not response.is_stream_consumed:
                return await read_body(way.answer, response.aiter_raw(), self._max_body)
            # A mock's answer is in memory already, and decoded.
            return attrs.evolve(way.answer, body=response.content)


def _connections(base_url: str) -> Connections:
    # With it come httpx and httpcore: most of the time that importing this package would take.
    from ci_live_audit.transport.connections import Connections  # noqa: PLC0415

    return Connections(base_url)


@cache
def _user_agent() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - this too takes its time

    return f"ci-live-audit/{version('ci-live-audit')}"


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


# What surely did not reach the server. By name, because each library of the family has its own.
UNSENT = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "ConnectionRefusedError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "InvalidURL",
}


def _explain(problem: Exception, timeout: float, way: _Way) -> TransportError:
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    sent = not kinds & UNSENT if way.sent is None else way.sent
    if kinds & {"TimeoutError", "TimeoutException"}:
        phase = "answer" if sent else "connection"
        error: TransportError = RequestTimeout(f"no {phase} within {timeout:g} s", sent=sent)
    else:
        reason = f"{type(problem).__name__}: {problem}".rstrip(": ")
        error = TransportError(reason, sent=sent, reused=way.reused and way.answer is None)
    error.__cause__ = strip_context(problem)
    return error
