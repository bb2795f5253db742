"""What can be made to go wrong in the emulator."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

import attrs

__all__ = ["Fault", "Faults"]


@attrs.frozen(kw_only=True)
class Fault:
    """One way to go wrong; made by the functions below."""

    kind: str
    seconds: float = 0.0
    status: int = 0
    retry_after: float | None = None

    @classmethod
    def throttle(cls, *, retry_after: float | None = None, status: int = 429) -> Fault:
        """``SlowDown``; CI answers it with 429, the COS gateway with 503."""
        return cls(kind="throttle", status=status, retry_after=retry_after)

    @classmethod
    def error(cls, status: int = 500) -> Fault:
        """500 ``InternalError`` or 503 ``ServiceUnavailable``; nothing is carried out."""
        return cls(kind="error", status=status)

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """The answer comes so many seconds late."""
        return cls(kind="slow", seconds=seconds)

    @classmethod
    def reset(cls) -> Fault:
        """The request is carried out, and the connection reset in place of an answer."""
        return cls(kind="reset")

    @classmethod
    def truncated(cls) -> Fault:
        """The request is carried out, and the connection closed in the middle of the body."""
        return cls(kind="truncated")

    @classmethod
    def garbage(cls) -> Fault:
        """The request is carried out, and the answer is a page that no service wrote."""
        return cls(kind="garbage")

    @classmethod
    def skew(cls, seconds: float) -> Fault:
        """The service's clock is so many seconds ahead of everybody's (behind if negative)."""
        return cls(kind="skew", seconds=seconds)


F = TypeVar("F")


@attrs.define
class _Injected(Generic[F]):
    fault: F
    left: float
    share: float
    operation: str | None


class Faults(Generic[F]):
    """Which fault meets which request."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._injected: list[_Injected[F]] = []

    def add(self, fault: F, *, times: int | None, share: float, operation: str | None) -> None:
        """Let a fault happen from now on."""
        left = float("inf") if times is None else times
        self._injected.append(_Injected(fault, left, share, operation))

    def clear(self) -> None:
        """Let everything go well again."""
        self._injected.clear()

    def pick(self, operation: str) -> F | None:
        """The fault for the next request: the first injected one that applies."""
        for injected in self._injected:
            applies = injected.left > 0 and injected.operation in {None, operation}
            if applies and (injected.share >= 1 or self._rng.random() < injected.share):
                injected.left -= 1
                return injected.fault
        return None
