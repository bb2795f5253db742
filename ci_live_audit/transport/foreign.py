"""Exchanges over a client of the caller's: any of the httpx family."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from ci_live_audit.errors import ConfigurationError, TransportError, strip_context
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.state import ExchangeState, place
from ci_live_audit.wire import refusals
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["ForeignClient", "HttpClient"]

Hook: TypeAlias = Callable[[Any], Awaitable[object]]


class HttpClient(Protocol):
    """What is used of ``http_client``; any client of the httpx family has it."""

    @property
    def stream(self) -> Callable[..., contextlib.AbstractAsyncContextManager[Any]]:
        """As ``httpx.AsyncClient.stream``."""
        ...


class ForeignClient:
    """Exchanges over a client that is not closed here.

    Args:
        client: The client.
        base_url: Scheme, host and port of the server.
        max_body: Maximum bytes of a decoded body.

    Raises:
        ConfigurationError: The client cannot be used.
    """

    #: httpx's pool loses a slot if it is cancelled within, so an exchange goes on to its end even
    #: if its caller is cancelled: https://github.com/encode/httpcore/issues/1093
    cancellable = False

    def __init__(self, client: HttpClient, base_url: str, max_body: int) -> None:
        if not callable(getattr(client, "stream", None)) or not inspect.iscoroutinefunction(
            getattr(client, "aclose", None)
        ):
            raise ConfigurationError(
                f"http_client: expected an async client like httpx's; got {type(client).__name__}"
            )
        self._client = client
        self._base_url = base_url
        self._max_body = max_body
        self._check_open()
        self._route = self._find_route()

    def _find_route(self) -> str:
        """Return host and port of the server, and of the client's proxy if it says which."""
        url = urlsplit(self._base_url)
        server = place(url.hostname or "", url.port or {"https": 443}.get(url.scheme, 80))
        # No client of the family tells what it would use, so private attributes are read.
        with contextlib.suppress(Exception):
            client: Any = self._client
            transport = client._transport_for_url(type(client.base_url)(self._base_url))  # noqa: SLF001
            proxy = transport._pool._proxy_url  # noqa: SLF001
            return f"{server} through the proxy {place(proxy.host.decode(), proxy.origin.port)}"
        return server

    async def exchange(
        self,
        request: Request,
        state: ExchangeState,
        *,
        timeout: float,
        reuse: bool,  # noqa: ARG002 - the client's pool decides
    ) -> Response:
        """Send a request and return the complete response, as `Connections` does."""
        self._check_open()
        state.route = self._route
        # Tuples and texts only: objects of one library of the family do not fit another. Without a
        # timeout for reading, for the whole exchange has a deadline, which knows when it is late.
        timeouts = (timeout / 2, None, timeout, timeout / 2)
        async with self._guarded(request, state).stream(
            request.method,
            self._base_url + request.path,
            headers=request.headers,
            content=request.body,
            timeout=timeouts,
            auth=None,  # or the client's would replace the signature
            follow_redirects=False,
        ) as response:
            return await self._read(response, state)

    async def _read(self, response: Any, state: ExchangeState) -> Response:
        state.head = Response.head(response.status_code, response.headers.raw)
        if not response.is_stream_consumed:
            pieces = response.aiter_raw()
            return await read_body(state.head, pieces, self._max_body, state.share)
        # What a mock gives, or a hook has read, is in memory already, and decoded.
        return attrs.evolve(state.head, body=response.content)

    def _guarded(self, request: Request, state: ExchangeState) -> HttpClient:
        """Return the client, or a copy with the same pool that sends a request as it was signed.

        Parameters and hooks of a client can change a request. What a hook raises would hide
        whether the request was sent, and the response to it.
        """
        hooks: dict[str, list[Hook]] = getattr(self._client, "event_hooks", {})
        if not any(hooks.values()) and not getattr(self._client, "params", None):
            return self._client

        host = request.headers["host"]

        async def before(hook: Hook, message: Any) -> None:
            state.sent = False
            try:
                await hook(message)
            except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - anybody's code
                _raise_cancellation(problem)
                raise _of_hook("request", problem, sent=False) from strip_context(problem)

        async def restore(message: Any) -> None:
            state.sent = None
            message.method = request.method
            message.url = type(message.url)(self._base_url + request.path)
            message.headers.update(request.headers)

        async def after(hook: Hook, response: Any) -> None:
            try:
                await hook(response)
            except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - anybody's code
                _raise_cancellation(problem)
                with contextlib.suppress(Exception):
                    state.head = await self._read(response, state)
                if state.head is not None and not response.is_success:
                    raise refusals.refusal(state.head, host) from strip_context(problem)
                raise _of_hook("response", problem, sent=True) from strip_context(problem)

        guarded: Any = copy.copy(self._client)
        guarded.event_hooks = {
            "request": [*(partial(before, hook) for hook in hooks["request"]), restore],
            "response": [partial(after, hook) for hook in hooks["response"]],
        }
        return cast("HttpClient", guarded)

    def must_prepare(self) -> bool:
        """Return False: the client opens its connections."""
        return False

    async def prepare(self, timeout: float) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Close nothing: the connections are not ours."""

    def _check_open(self) -> None:
        if getattr(self._client, "is_closed", False):
            raise ConfigurationError("http_client: it is closed")


def _raise_cancellation(problem: BaseException) -> None:
    """Raise what cancels the exchange, but not what cancelled something that a hook waited for."""
    task = asyncio.current_task()
    if isinstance(problem, asyncio.CancelledError) and task is not None and task.cancelling():
        raise problem


def _of_hook(kind: str, problem: BaseException, *, sent: bool) -> TransportError:
    """Return the error for what a hook of the client raised."""
    reason = f"{type(problem).__name__}: {problem}".rstrip(": ")
    error = TransportError(f"a {kind} hook of http_client failed: {reason}", sent=sent)
    names = {cause.__name__ for cause in type(problem).__mro__}
    error.transient = bool(names & {"OSError", "TransportError"})  # anything else fails again
    return error
