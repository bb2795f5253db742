"""The event loop that everything here needs."""

from __future__ import annotations

import asyncio

from ci_live_audit.errors import ConfigurationError

__all__ = ["running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop.

    Raises:
        ConfigurationError: There is none of asyncio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "no event loop of asyncio is running here: await the call within one; after a fork, "
            "make a loop and a client in the child"
        ) from None
