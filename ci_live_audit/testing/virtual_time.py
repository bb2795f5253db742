"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["VirtualTimeLoop"]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on which hours of moderation pass at once.

    Time stands still while there is anything to do, and jumps to the next timer when there is not.
    The emulator and the client go by the loop's time, so a test of an evening's streams takes
    milliseconds. It does not wait for worker threads and sockets: use it in process.

    ::

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    Attributes:
        now: Seconds, as the loop's clock shows them; may be set ahead to play a stall.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """The loop's time in seconds."""
        return self.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait for worker threads as long as they take: no time passes that could be too long."""
        await super().shutdown_default_executor()


class _Jump(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0)
        # Without this step a timer that is set for "now" could be set for ever.
        self._loop.now += 1e-9
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self._loop.now += timeout
        return ready
