"""The emulator on a real socket; needs the extra ``emulator`` (uvicorn)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import anyio.to_thread
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ci_live_audit.testing.chaos import reset

__all__ = ["serve"]


class _Protocol(H11Protocol):
    """Lets the app reset its connection: uvicorn has no word for that."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Injected faults are no errors, and the loggers of uvicorn are not ours to silence.
        self.logger = logging.getLogger("ci_live_audit.testing")
        self.logger.disabled = True
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does so only for sockets that were made with the protocol's number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "abort": partial(reset, transport)}
        super().connection_made(transport)


@contextlib.asynccontextmanager
async def serve(app: Any, host: str, port: int) -> AsyncGenerator[str, None]:
    """Serve an ASGI app from a thread, so that nothing the caller's loop does can delay it.

    Gives the URL; the server has stopped when the context ends.
    """
    listener = socket.create_server((host, port), backlog=1024)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="ci-live-audit-emulator")
    thread.start()
    try:
        # The kernel would queue what comes before, and then it would come all at once.
        while not server.started and thread.is_alive():  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.005)
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.join)
        listener.close()
