"""The protocol of rate limiters."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["RateLimiter"]


@runtime_checkable
class RateLimiter(Protocol):
    """What the client asks before each attempt; share one between clients to share a quota."""

    async def acquire(self) -> float:
        """Wait for permission to send one request; the seconds that took."""
        ...

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so many seconds: the service has said that it is too much."""
        ...
