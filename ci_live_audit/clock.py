"""The service's clock, as learnt from its responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["Clock"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

# Seconds of difference that matter to a signature, and beyond which it is an attack, not a clock.
MIN_SKEW = 30.0
MAX_SKEW = 86400.0


class Clock:
    """Unix seconds by the service's clock.

    Args:
        now: Unix seconds by this machine's clock.

    Attributes:
        ahead: Seconds by which the service's clock is ahead of this machine's.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.ahead: float = 0.0
        self._now = now

    def now(self) -> float:
        """Return Unix seconds."""
        return self._now() + self.ahead

    def utc(self) -> datetime:
        """Return the date and the time in UTC."""
        return datetime.fromtimestamp(self.now(), UTC)

    def learn(self, date: datetime | None, *, used: float) -> bool:
        """Adopt the time of a response, and return whether a new signature would do better.

        Args:
            date: Its ``Date`` header, if it had one.
            used: The value of ``ahead`` when the request was signed. With many calls in flight,
                one of them learns the clock, and the others only that theirs was wrong.
        """
        if date is None:
            return False
        ahead = date.timestamp() - self._now()
        if abs(ahead) > MAX_SKEW or abs(ahead - used) < MIN_SKEW:
            return False
        if abs(ahead - self.ahead) >= MIN_SKEW:
            logger.warning("this clock is off by %+.0f s; signing by the service's", -ahead)
            self.ahead = ahead
        return True
