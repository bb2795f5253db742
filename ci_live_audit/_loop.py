"""The running event loop, and tasks that have to end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from ci_live_audit.errors import ConfigurationError

__all__ = ["cancel_and_wait", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigurationError: No asyncio event loop is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "no asyncio event loop is running: await the call within one; after a fork, "
            "make a loop and a client in the child"
        ) from None


async def cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, even if the waiting is cancelled.

    Their exceptions are marked as retrieved.
    """
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled
