"""The protocol of rate limiters, how they learn of a refusal, and the arithmetic of a quota."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

__all__ = ["HOLD", "RateLimiter", "quota", "report_refusal"]

#: The quota is counted by the second, so after a refusal one has to pass unless more is known.
HOLD = 1.0


@runtime_checkable
class RateLimiter(Protocol):
    """What a client waits for before each attempt; share one between clients to share a quota.

    A limiter may also have a method ``refused(asked)``, as `LocalRateLimiter` has. It is called in
    place of ``hold`` when the service has refused a request, with the seconds of ``Retry-After`` or
    0, and decides how everybody goes on. And it may have ``acquire_background``, which is awaited
    in place of ``acquire`` for a poll of many jobs: with it, other callers go before.
    """

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


def report_refusal(limiter: RateLimiter, asked: float, hold: float) -> None:
    """Tell a limiter that the service has refused a request.

    Args:
        limiter: The limiter that the request has passed.
        asked: Seconds of ``Retry-After``; 0 without one.
        hold: Seconds to hold a limiter that has no method ``refused``.
    """
    refused = getattr(limiter, "refused", None)
    if callable(refused):
        refused(asked)
    else:
        limiter.hold(hold)
