"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["VirtualTimeLoop"]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on which hours of moderation pass in milliseconds.

    Time stands still while any task is ready to run, and jumps to the next timer when none is. The
    client and the emulator use the loop's clock, so a test of a whole evening's streams takes no
    time. Timers do not wait for worker threads or sockets: use the emulator in process.

    ::

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    In pytest, mark a coroutine test ``@pytest.mark.live_audit_virtual_time``.

    Attributes:
        now: The loop's time in seconds. Set it ahead to simulate a stall.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait for worker threads without a timeout, which virtual time would exceed at once."""
        await super().shutdown_default_executor()


class _Jump(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0)
        # Without this step, code that sets a timer for "now" again and again would never end.
        self._loop.now += 1e-9
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self._loop.now += timeout
        return ready
