"""The emulator on a real socket; needs the extra ``emulator`` (uvicorn)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import anyio.to_thread
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ci_live_audit.testing.chaos import reset

__all__ = ["serve"]

BACKLOG = 1024
#: Seconds that requests in flight have to end once the server is told to stop.
GRACE = 1.0


class _Protocol(H11Protocol):
    """Lets the app reset its connection: uvicorn has no word for that.

    Attributes:
        lost: A future that is done when the connection is closed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lost: asyncio.Future[None] = self.loop.create_future()
        # Injected faults are no errors, and the loggers of uvicorn are not ours to silence.
        self.logger = logging.getLogger("ci_live_audit.testing")
        self.logger.disabled = True
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does so only for sockets that were made with the protocol's number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "abort": partial(reset, transport)}
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set_result(None)


class _Server:
    """Serves an ASGI app on an event loop of its own until it is told to stop.

    Takes the place of ``uvicorn.Server``, which polls for its end ten times a second.

    Attributes:
        started: Set when connections are accepted, or when that has failed.
    """

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self.started = threading.Event()
        self._app = app
        self._listener = listener
        self._loop = asyncio.SelectorEventLoop()
        self._stop = asyncio.Event()

    def run(self) -> None:
        """Serve, in the current thread."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Make ``run`` return, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has not started
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        config = uvicorn.Config(self._app, ws="none", lifespan="off", log_config=None)
        state = ServerState()
        protocols: set[Any] = state.connections
        try:
            server = await self._loop.create_server(
                lambda: _Protocol(config, state, {}), sock=self._listener, backlog=BACKLOG
            )
        finally:
            self.started.set()
        await self._stop.wait()
        server.close()
        for protocol in list(protocols):
            protocol.shutdown()
        if protocols:
            await asyncio.wait([protocol.lost for protocol in protocols], timeout=GRACE)
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for protocol in list(protocols):
            protocol.transport.abort()


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise
        text = f"port {port} of {host} is in use; port 0 (--port 0) takes a free one"
        raise OSError(problem.errno, text) from None


@contextlib.asynccontextmanager
async def serve(app: Any, host: str, port: int) -> AsyncGenerator[str, None]:
    """Serve an ASGI app from a thread, so that nothing the caller's loop does can delay it.

    Gives the URL, which for all addresses of the machine (``0.0.0.0``, ``::``) has that of the
    loopback; the server has stopped when the context ends.

    Raises:
        OSError: Nothing can listen there; if the port is in use, the message says what to do.
    """
    host = host.strip("[]")
    loopback = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
    shown = loopback.get(host, host)
    with _listener(host, port) as listener:
        server = _Server(app, listener)
        thread = threading.Thread(target=server.run, name="ci-live-audit-emulator")
        thread.start()
        try:
            # The kernel would queue what comes before, and then it would come all at once.
            await anyio.to_thread.run_sync(server.started.wait)
            name = f"[{shown}]" if ":" in shown else shown
            yield f"http://{name}:{listener.getsockname()[1]}"
        finally:
            server.stop()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join)
