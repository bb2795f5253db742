"""Make every event loop of a process run its tasks eagerly; Python imports this by its name."""

from __future__ import annotations

import asyncio
import sys

if sys.version_info >= (3, 12):
    init = asyncio.BaseEventLoop.__init__

    def init_eager(loop: asyncio.BaseEventLoop) -> None:
        """Initialize a loop whose tasks run as soon as they are made, up to their first wait."""
        init(loop)
        loop.set_task_factory(asyncio.eager_task_factory)

    asyncio.BaseEventLoop.__init__ = init_eager  # type: ignore[method-assign]
