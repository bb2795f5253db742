"""Bounds the number of requests in any one-second window, evenly spaced, in order of arrival.

The token bucket is aiolimiter's. On its own it loses the lateness of every wake-up of the loop
(19 requests a second instead of 20 on a busy one) and lets newcomers overtake. So one caller at a
time waits at the bucket and the others queue behind it. And the bucket may catch up by handing out
a little faster, while a log of the last grants keeps the bound: a slot opens only when the grant a
whole quota ago is a full second old.

If the service refuses a request all the same, others use its quota. Everybody pauses and goes on at
a `Pace` that leaves room for them. The log says how long to pause: there is room when two of its
grants have become a second old. If there are hardly any, the others fill the quota, and it takes a
whole second; the pace is not to blame then.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque

from aiolimiter import AsyncLimiter

from ci_live_audit._checks import above_zero
from ci_live_audit._loop import own_loop
from ci_live_audit.limits.limiter import HOLD, quota
from ci_live_audit.limits.pace import Pace, Patience

__all__ = ["LocalRateLimiter"]


class LocalRateLimiter:
    """A `RateLimiter` for one process and one event loop.

    Args:
        rate: Requests a second; ``math.inf`` for no limit.
        adaptive: Whether to send less for some time after the service has refused a request. If
            not, everybody pauses for a second and goes on at the rate.

    Raises:
        ConfigurationError: The rate is not above 0.
    """

    #: Seconds of lateness that are caught up after a stall.
    CATCH_UP = 0.05
    #: The window is stretched by how late this loop wakes its callers, for as late may a request
    #: leave: by this share at most, and by less after every grant that is in time.
    MARGIN = 0.008
    FORGET = 0.98
    #: Seconds of lateness below which the loop counts as idle.
    QUIET = 0.001
    #: Of the grants of the last second, so many have to be a second old after a refusal.
    ROOM = 2
    #: Up to so many seconds later, or one who comes to a full quota might always ask at a moment at
    #: which another has just used it up.
    SHIFT = 0.008

    def __init__(self, rate: float = 20.0, *, adaptive: bool = True) -> None:
        self.rate: float = above_zero("rate", rate, "requests a second")
        count, self._window = quota(rate)
        self._granted: deque[float] = deque([-math.inf] * count, maxlen=count)
        self._burst = 1 + min(rate, 1e6) * self.CATCH_UP
        self._bucket = AsyncLimiter(self._burst, self._burst / min(rate, 1e18))
        self._waiters: deque[asyncio.Future[None]] = deque()
        # The first requests open connections and are later than any other.
        self._late = self.MARGIN
        self._busy = False
        self._held_until = -math.inf
        self._adaptive = adaptive
        self._pace = Pace(self.rate)
        self._patience = Patience(few=2 * count)

    @property
    def pace(self) -> float:
        """The requests a second that pass now: the rate, or less for some time after a refusal.

        It may be read in any thread.
        """
        loop: asyncio.AbstractEventLoop | None = vars(self).get("_loop")
        return self.rate if loop is None else self._pace.at(loop.time())

    async def acquire(self) -> float:
        """Wait for the next slot, behind everybody who came before, and return the seconds waited.

        Raises:
            ConfigurationError: The limiter is in use on another event loop.
        """
        loop = own_loop(self)
        came = loop.time()
        if self._busy:
            waiter = loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_next()
                raise
        self._busy = True
        try:
            # Lateness may be caught up, idle time may not.
            await self._forfeit(self._burst - 1)
            await self._wait_for_slot(loop)
            now = loop.time()
            # The time at which the caller really goes on, not the one at which the slot opened.
            self._granted.append(now)
            self._pace.count()
            self._patience.count()
            return now - came
        finally:
            self._wake_next()

    def hold(self, seconds: float) -> None:
        """Let nobody pass for ``seconds`` from now."""
        self._held_until = max(self._held_until, own_loop(self).time() + seconds)

    def refused(self, asked: float) -> None:
        """Pause, and go on more slowly: the service has refused a request.

        Args:
            asked: Seconds of ``Retry-After``; 0 without one. More than 10 s count only if they are
                repeated.
        """
        now = own_loop(self).time()
        recent = [moment for moment in self._granted if moment > now - HOLD]
        pause = HOLD + random.uniform(0, self.SHIFT)  # noqa: S311 - not secret
        if self._adaptive and len(recent) > self.ROOM:
            pause = recent[self.ROOM - 1] + HOLD - now
            # During a pause, it is one of the requests that were in flight, refused for one reason.
            if now >= self._held_until:
                self._pace.lower(now)
        self.hold(max(pause, self._patience.seconds(asked, now)))

    async def _wait_for_slot(self, loop: asyncio.AbstractEventLoop) -> None:
        held = True
        while held:
            opens, credit = self._next_slot(loop.time())
            await self._sleep_until(opens, loop)
            await self._forfeit(credit)
            # Last, so that nothing can cancel the caller between its slot and its way on.
            await self._bucket.acquire()
            held = loop.time() < self._held_until

    def _next_slot(self, now: float) -> tuple[float, float]:
        """Return when the quota allows a request and no hold is on, and the credit to forfeit.

        The bucket fills up during a wait on purpose. That is no lateness to be caught up: after a
        hold there would be a burst, and on an idle loop the gap would come again every second.
        """
        margin = min(self._late, self.MARGIN * self._window)
        opens = max(self._granted[0] + self._window + margin, self._held_until)
        pace = self._pace.at(now)
        if pace < self.rate:
            opens = max(opens, self._granted[-1] + 1 / pace)
        if self._held_until > now:
            return opens, self._burst - 1
        if opens > now and self._late < self.QUIET:
            return opens, (opens - self._granted[-1]) * self.rate - 1
        return opens, 0.0

    async def _sleep_until(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        early = when - loop.time()
        if early <= 0:
            return
        while early > 0:
            await asyncio.sleep(early)
            early = when - loop.time()
        self._late = max(-early, self._late * self.FORGET)

    async def _forfeit(self, credit: float) -> None:
        if credit > 0 and self._bucket.has_capacity(1 + credit):
            await self._bucket.acquire(credit)

    def _wake_next(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._busy = False
