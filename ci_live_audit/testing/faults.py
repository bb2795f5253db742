"""Faults to inject into the emulator."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

import attrs

from ci_live_audit.testing.render import Refusal

__all__ = ["Fault", "Faults"]

FOREIGN_PAGE = b"<html><head><title>Welcome to the hotel network</title><body><p>Sign in"


@attrs.frozen(kw_only=True)
class Fault:
    """What goes wrong with one request or one callback; made by the class methods.

    Attributes:
        name: For people, as in ``str(fault)``.
        meets: ``"request"``, ``"callback"`` or ``"interim callback"``, all but the last of a job.
        refusal: Error sent in place of the response; the request is not carried out.
        counted: Whether the request counts against the rate.
        delay: Seconds that the request waits before it is handled, or the callback before it is
            sent.
        ahead: Seconds by which the service's clock is ahead.
        page: HTML sent in place of the response's document.
        sent: Share of the body that is sent, 0 to 1.
        aborts: Whether the connection is reset in place of a response.
        copies: How often the callback is sent.
        overtaken: Whether the job's next callback is sent before.
    """

    name: str = "none"
    meets: str = "request"
    refusal: Refusal | None = None
    counted: bool = True
    delay: float = 0.0
    ahead: float = 0.0
    page: bytes | None = None
    sent: float = 1.0
    aborts: bool = False
    copies: int = 1
    overtaken: bool = False

    def __str__(self) -> str:
        return self.name

    @classmethod
    def throttle(cls, *, retry_after: float | None = None, status: int = 429) -> Fault:
        """Refuse with ``SlowDown``; CI sends it with status 429, the COS gateway with 503."""
        refusal = Refusal.slow_down(status=status, retry_after=retry_after)
        return cls(name=f"throttle {status}", refusal=refusal, counted=False)

    @classmethod
    def error(cls, status: int = 500) -> Fault:
        """Refuse with ``InternalError``, or for 503 ``ServiceUnavailable``."""
        code = "ServiceUnavailable" if status == 503 else "InternalError"
        return cls(name=f"error {status}", refusal=Refusal(status, code, "Try again later."))

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """Respond ``seconds`` late."""
        return cls(name="slow", delay=seconds)

    @classmethod
    def reset(cls) -> Fault:
        """Carry out the request, then reset the connection instead of responding."""
        return cls(name="reset", aborts=True)

    @classmethod
    def truncated(cls) -> Fault:
        """Carry out the request, then close the connection in the middle of the body."""
        return cls(name="truncated", sent=0.5)

    @classmethod
    def garbage(cls) -> Fault:
        """Carry out the request, then send an HTML page that is not the service's."""
        return cls(name="garbage", page=FOREIGN_PAGE)

    @classmethod
    def skew(cls, seconds: float) -> Fault:
        """Set the service's clock ``seconds`` ahead, or behind if negative."""
        return cls(name="skew", ahead=seconds)

    @classmethod
    def lost(cls) -> Fault:
        """Send a callback to nobody, and never again."""
        return cls(name="lost", meets="callback", copies=0)

    @classmethod
    def twice(cls) -> Fault:
        """Send a callback, and the same once more."""
        return cls(name="twice", meets="callback", copies=2)

    @classmethod
    def late(cls, seconds: float) -> Fault:
        """Send a callback ``seconds`` late, as it was; others may overtake it."""
        return cls(name="late", meets="callback", delay=seconds)

    @classmethod
    def out_of_order(cls) -> Fault:
        """Send a callback after the job's next one; the last of a job is not met."""
        return cls(name="out of order", meets="interim callback", overtaken=True)


F = TypeVar("F")


@attrs.define
class _Injected(Generic[F]):
    fault: F
    left: float
    share: float
    operation: str | None


class Faults(Generic[F]):
    """Decides which injected fault applies to which request."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._injected: list[_Injected[F]] = []

    def add(self, fault: F, *, times: int | None, share: float, operation: str | None) -> None:
        """Inject a fault from now on."""
        left = float("inf") if times is None else times
        self._injected.append(_Injected(fault, left, share, operation))

    def clear(self) -> None:
        """Remove all faults."""
        self._injected.clear()

    def pick(self, *operations: str | None) -> F | None:
        """Return the fault for what comes next: the first of these operations that applies."""
        for injected in self._injected:
            applies = injected.left > 0 and injected.operation in operations
            if applies and (injected.share >= 1 or self._rng.random() < injected.share):
                injected.left -= 1
                return injected.fault
        return None
