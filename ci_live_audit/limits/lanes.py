"""Two queues of callers, of which the first goes before the second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ci_live_audit.errors import LiveAuditError

__all__ = ["BULK", "CALLS", "NOBODY", "Lanes"]

#: The two lanes, and that there is nobody in either.
CALLS, BULK, NOBODY = 0, 1, 2


class Lanes:
    """Callers who wait for slots; each result is the id of a slot."""

    def __init__(self) -> None:
        self._lanes = deque[asyncio.Future[str]](), deque[asyncio.Future[str]]()

    def __len__(self) -> int:
        return sum(not waiter.done() for lane in self._lanes for waiter in lane)

    def join(self, lane: int) -> asyncio.Future[str]:
        """Return what a new caller waits for."""
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._lanes[lane].append(waiter)
        return waiter

    def next(self) -> int:
        """Return the lane of the caller who is next, or `NOBODY`."""
        for lane, waiters in enumerate(self._lanes):
            while waiters and waiters[0].done():
                waiters.popleft()
            if waiters:
                return lane
        return NOBODY

    def number(self, lane: int) -> int:
        """Return how many wait in a lane; some of them may have given up."""
        return len(self._lanes[lane]) if lane != NOBODY else 0

    def grant(self, lane: int, slot: str) -> None:
        """Let the first caller of a lane pass."""
        self._lanes[lane].popleft().set_result(slot)

    def fail(self, error: Callable[[], LiveAuditError]) -> None:
        """Raise an error in all who wait."""
        for waiters in self._lanes:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error())
            waiters.clear()
