"""At most so many requests in any one second, evenly spaced, in the order in which they came.

The bucket is aiolimiter's. Two things are added, because the bucket alone loses the lateness of
every wake-up of the loop (19 requests a second instead of 20 on a busy one) and lets newcomers
overtake. One caller at a time stands at the bucket, the others behind it in order. And the bucket
may hand out a little faster, to catch up, while a log of the last grants keeps the bound: a grant
is given only when the one a whole quota before it is a full second old.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from aiolimiter import AsyncLimiter

from ci_live_audit._checks import above_zero
from ci_live_audit._loop import running_loop
from ci_live_audit.errors import ConfigurationError

__all__ = ["LocalRateLimiter"]


class LocalRateLimiter:
    """A `RateLimiter` for one process and one event loop.

    Args:
        rate: Requests a second; ``math.inf`` for no limit.

    Raises:
        ConfigurationError: The rate is not above 0.
    """

    #: After a stall, lateness up to this many seconds is caught up.
    CATCH_UP = 0.05
    #: A second is taken to be longer by as much as this loop wakes its callers late, for as late
    #: may a request leave: by this share at the most, and less with every grant in time.
    MARGIN = 0.008
    FORGET = 0.98
    QUIET = 0.001

    def __init__(self, rate: float = 20.0) -> None:
        above_zero("rate", rate, "requests a second")
        self.rate: float = rate
        # A whole number of requests, and the seconds in which they are allowed: (20, 1.0).
        quota = max(1, int(min(rate, 1e4))) if rate < math.inf else 1
        self._window = quota / rate
        self._granted: deque[float] = deque([-math.inf] * quota, maxlen=quota)
        self._burst = 1 + min(rate, 1e6) * self.CATCH_UP
        self._bucket = AsyncLimiter(self._burst, self._burst / rate) if rate < math.inf else None
        self._queue: deque[asyncio.Future[None]] = deque()
        # The first requests open connections and are later than any other.
        self._late = self.MARGIN
        self._busy = False
        self._held_until = -math.inf

    async def acquire(self) -> float:
        """Wait for the next slot, behind everybody who came before.

        Returns:
            The seconds waited.

        Raises:
            ConfigurationError: The limiter is in use on another event loop.
        """
        loop = self._own_loop()
        came = loop.time()
        if self._busy:
            turn = loop.create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()
                raise
        self._busy = True
        try:
            if self._bucket is not None and self._bucket.has_capacity(self._burst):
                # What may be caught up is lateness, not the time in which nobody came.
                await self._bucket.acquire(self._burst - 1)
            await self._slot(loop)
            now = loop.time()
            # The instant at which the caller really goes on, not the one it was due.
            self._granted.append(now)
            return now - came
        finally:
            self._next()

    def hold(self, seconds: float) -> None:
        """Let nobody pass for ``seconds`` from now."""
        self._held_until = max(self._held_until, self._own_loop().time() + seconds)

    async def _slot(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            margin = min(self._late, self.MARGIN * self._window)
            due = max(self._granted[0] + self._window + margin, self._held_until)
            slept = False
            # What a quiet loop waits for the bound is no lateness to be caught up, or the gap would
            # come again every second. Nor is a hold.
            bound = 0.0
            if self._held_until > loop.time():
                bound = self._burst - 1
            elif due > loop.time() and self._late < self.QUIET:
                bound = (due - self._granted[-1]) * self.rate - 1
            while (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
                slept = True
            if slept:
                self._late = max(-wait, self._late * self.FORGET)
            if self._bucket is not None:
                if bound > 0 and self._bucket.has_capacity(1 + bound):
                    await self._bucket.acquire(bound)
                # Last, so that nothing can cancel the caller between its permit and its way on.
                await self._bucket.acquire()
            if self._held_until <= loop.time():
                return

    def _next(self) -> None:
        """Call up the first who still waits."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        loop = running_loop()
        # In one step: two threads may be here at once.
        owner: asyncio.AbstractEventLoop = vars(self).setdefault("_loop", loop)
        if owner is not loop:
            raise ConfigurationError(
                "this limiter is in use on another event loop; make one for each loop"
            )
        return loop
