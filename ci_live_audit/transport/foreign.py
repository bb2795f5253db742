"""Exchanges over a client of the caller's: any of the httpx family."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.state import ExchangeState
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["ForeignClient", "HttpClient"]


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
        # Tuples and texts only: objects of one library of the family do not fit another. Without a
        # timeout for reading, for the whole exchange has a deadline, which knows when it is late.
        timeouts = (timeout / 2, None, timeout, timeout / 2)
        async with self._client.stream(
            request.method,
            self._base_url + request.path,
            headers=request.headers,
            content=request.body,
            timeout=timeouts,
            follow_redirects=False,
        ) as response:
            state.head = Response.head(response.status_code, response.headers.raw)
            if not response.is_stream_consumed:
                pieces = response.aiter_raw()
                return await read_body(state.head, pieces, self._max_body, state.share)
            # A mock's response is in memory already, and decoded.
            return attrs.evolve(state.head, body=response.content)

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
