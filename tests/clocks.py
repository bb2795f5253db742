"""Time for tests over real sockets: waiting takes as long as it takes, work hardly any."""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop on which a busy machine is not late.

    A timer that is set for longer than an answer takes runs out only if none comes, for its time
    passes while the loop waits. Work counts a tenth, so that a peer who gives work without end is
    left in the end. Time that passed before something came never completes a wait.
    """

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Wait(self))

    def time(self) -> float:
        """The loop's time in seconds."""
        return self.now


class _Wait(selectors.DefaultSelector):
    def __init__(self, loop: PatientLoop) -> None:
        super().__init__()
        self._loop = loop
        self._left = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        began = time.monotonic()
        ready = super().select(timeout)
        waited, worked = time.monotonic() - began, began - self._left
        if timeout is not None:
            waited = min(waited, timeout / 2) if ready else timeout
        self._loop.now += waited + worked / 10
        self._left = time.monotonic()
        return ready
