"""A limiter for bulk work, in front of the one that everything shares."""

from __future__ import annotations

import asyncio

from ci_live_audit.limits.limiter import RateLimiter

__all__ = ["BackgroundRateLimiter"]


class BackgroundRateLimiter:
    """A `RateLimiter` for work that can wait, in front of another.

    Only one caller at a time enters the underlying queue, so a direct caller waits behind one at
    most.

    Args:
        limiter: The underlying limiter.

    Attributes:
        requests: How many requests it has let pass.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._gate = asyncio.Lock()
        self.requests: int = 0

    def sibling(self) -> BackgroundRateLimiter:
        """Return a limiter that waits at the same gate and counts its own requests."""
        sibling = BackgroundRateLimiter(self._limiter)
        sibling._gate = self._gate
        return sibling

    async def wait_for_gate(self) -> None:
        """Wait until a caller who came now would be next to enter the underlying queue."""
        async with self._gate:
            pass

    async def acquire(self) -> float:
        """Wait as the underlying limiter does; the seconds include those at the gate."""
        time = asyncio.get_running_loop().time
        came = time()
        async with self._gate:
            await self._limiter.acquire()
        self.requests += 1
        return time() - came

    def hold(self, seconds: float) -> None:
        """Pause all callers of the underlying limiter."""
        self._limiter.hold(seconds)
