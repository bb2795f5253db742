"""The protocol of rate limiters."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

__all__ = ["RateLimiter", "quota"]


def quota(rate: float) -> tuple[int, float]:
    """Return a whole number of requests and the seconds in which that many are allowed."""
    count = max(1, int(min(rate, 1e4))) if rate < math.inf else 1
    return count, count / rate


@runtime_checkable
class RateLimiter(Protocol):
    """What the client asks before each attempt; share one between clients to share a quota."""

    async def acquire(self) -> float:
        """Wait for permission to send one request; the seconds that took."""
        ...

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so many seconds: the service has said that it is too much."""
        ...
