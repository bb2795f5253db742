"""A limiter for bulk work, in front of the one that everything shares."""

from __future__ import annotations

import asyncio

from ci_live_audit.limits.limiter import RateLimiter

__all__ = ["BackgroundRateLimiter"]


class BackgroundRateLimiter:
    """A `RateLimiter` for work that can wait, in front of another.

    Of all who come here, one at a time stands in the queue of the limiter behind, so that whoever
    goes there directly has at most one of them before him.

    Args:
        limiter: The limiter behind.

    Attributes:
        requests: How many have been let pass.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._gate = asyncio.Lock()
        self.requests: int = 0

    def sibling(self) -> BackgroundRateLimiter:
        """One that counts for itself and waits at the same gate."""
        sibling = BackgroundRateLimiter(self._limiter)
        sibling._gate = self._gate
        return sibling

    async def wait_for_gate(self) -> None:
        """Wait until somebody who came now would be the next to stand in the queue."""
        async with self._gate:
            pass

    async def acquire(self) -> float:
        """As the limiter behind; the seconds include those at the gate."""
        time = asyncio.get_running_loop().time
        came = time()
        async with self._gate:
            await self._limiter.acquire()
        self.requests += 1
        return time() - came

    def hold(self, seconds: float) -> None:
        """Hold back everybody on the limiter behind."""
        self._limiter.hold(seconds)
