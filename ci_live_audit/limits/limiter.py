"""The protocol of rate limiters, and the arithmetic of a quota."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

__all__ = ["RateLimiter", "quota"]


@runtime_checkable
class RateLimiter(Protocol):
    """What a client waits for before each attempt; share one between clients to share a quota."""

    async def acquire(self) -> float:
        """Wait for permission to send one request, and return the seconds that took."""
        ...

    def hold(self, seconds: float) -> None:
        """Pause all callers: the service is throttling."""
        ...


def quota(rate: float) -> tuple[int, float]:
    """Return a whole number of requests and the seconds in which that many are allowed."""
    count = max(1, int(min(rate, 1e4))) if rate < math.inf else 1
    return count, count / rate
