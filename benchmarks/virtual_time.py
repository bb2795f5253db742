"""An event loop whose clock jumps to the next timer, so that an hour at 20/s takes a second.

What runs on it is the real thing, asyncio's own loop and tasks; only nobody waits. What it cannot
show is how late a real loop wakes a task; for that `limiter` has its measurement by the wall clock.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["VirtualTimeLoop"]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time passes when there is nothing else to do, or when ``now`` is set: that is a stall."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now


class _Jump(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        """What is ready; if nothing is, the time by then is the next timer's."""
        ready = super().select(0)
        # aiolimiter sets a timer for "now" again and again until some time has passed.
        self._loop.now += 1e-9
        if not ready and timeout is not None:
            self._loop.now += timeout
        return ready if timeout is not None else super().select(None)
