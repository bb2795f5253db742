"""Time in tests: real sockets without real work, and virtual time."""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ci_live_audit.testing import VirtualTimeLoop

T = TypeVar("T")


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop on which timers do not fire early because the machine is busy.

    Its time passes while it waits, so a timer that is set for longer than a response takes fires
    only if none arrives. Work counts a tenth, so that a peer that causes endless work is given up
    in the end. A wait that an event ends never counts in full.
    """

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Wait(self))

    def time(self) -> float:
        """Return the loop's time in seconds."""
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


def now() -> float:
    """Return the running loop's time in seconds."""
    return asyncio.get_running_loop().time()


def stand_still(seconds: float) -> None:
    """Let time pass of which the running loop, on virtual time, knows nothing."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.now += seconds


def run_tasks_eagerly() -> None:
    """Let tasks of the running loop begin as they are made; before Python 3.12 they cannot."""
    if sys.version_info >= (3, 12):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on virtual time, as a property-based test needs it."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())
