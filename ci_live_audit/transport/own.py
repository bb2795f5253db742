"""Our own connections, as a backend that costs the event loop no time when it is made.

The libraries below them and the TLS context take a tenth of a second to load, which is done in a
thread before the first exchange.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

from ci_live_audit._threads import Threads
from ci_live_audit.transport import environment
from ci_live_audit.transport.state import ExchangeState
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

if TYPE_CHECKING:
    from ci_live_audit.transport.connections import Connections

__all__ = ["OwnConnections"]

# One, so that who comes second finds what the first has loaded.
LOADING = Threads(1)
# What anyio and ssl import when they are first used.
IMPORTED_ON_USE = ("anyio._backends._asyncio", "encodings.idna")


class OwnConnections:
    """Our own connections; the arguments are those of `Connections`.

    Raises:
        ConfigurationError: The environment names a proxy or certificates that cannot be used.
    """

    #: A connection whose exchange is cancelled is closed and dropped.
    cancellable = True

    def __init__(self, base_url: str, max_body: int, max_connections: int) -> None:
        environment.proxy(base_url)
        if base_url.startswith("https:"):
            environment.certificates()
        self._arguments = base_url, max_body, max_connections
        self._connections: Connections | None = None
        self._turn = asyncio.Lock()

    @property
    def peer(self) -> str:
        """Address that the newest connection leads to, and its version of TLS."""
        return "" if self._connections is None else self._connections.peer

    async def exchange(
        self, request: Request, state: ExchangeState, *, timeout: float, reuse: bool
    ) -> Response:
        """Send a request and return the complete response, as `Connections` does."""
        state.sent = False
        connections = await self._load()
        return await connections.exchange(request, state, timeout=timeout, reuse=reuse)

    def must_prepare(self) -> bool:
        """Return whether the next exchange would have to load something, or to connect."""
        return self._connections is None or self._connections.must_prepare()

    async def prepare(self, timeout: float) -> None:
        """Load what is needed, and open the connection of the next exchange."""
        connections = await self._load()
        if connections.must_prepare():
            await connections.prepare(timeout)

    async def aclose(self) -> None:
        """Close the idle connections."""
        if self._connections is not None:
            await self._connections.aclose()

    async def _load(self) -> Connections:
        if self._connections is None:
            async with self._turn:
                self._connections = self._connections or await self._make()
        return self._connections

    async def _make(self) -> Connections:
        # A caller that is cancelled leaves the thread to its work, which is not lost.
        await LOADING.run(self._load_in_thread)
        from ci_live_audit.transport.connections import Connections  # noqa: PLC0415

        return Connections(*self._arguments)

    def _load_in_thread(self) -> None:
        for name in IMPORTED_ON_USE:
            importlib.import_module(name)
        from ci_live_audit.transport.connections import tls_context  # noqa: PLC0415

        if self._arguments[0].startswith("https:"):
            tls_context(environment.certificates())
