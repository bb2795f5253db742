"""The service's clock, as far as it has been learnt from its answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ci_live_audit.wire.responses import http_date

__all__ = ["Clock"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

# A difference that matters to a signature, and one that is no longer a wrong clock but an attack.
MIN_SKEW = 30.0
MAX_SKEW = 86400.0


class Clock:
    """Unix seconds by the service's clock.

    Args:
        now: Unix seconds by this machine's.

    Attributes:
        ahead: Seconds by which the service is ahead of this machine.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.ahead: float = 0.0
        self._now = now

    def now(self) -> float:
        """Unix seconds."""
        return self._now() + self.ahead

    def learn(self, date: str, *, used: float) -> bool:
        """Take over the clock of an answer.

        Args:
            date: Its ``Date`` header.
            used: What ``ahead`` was when the request was signed. With many calls under way, one
                of them learns the clock, and the others only that theirs was wrong.

        Returns:
            Whether the request was signed at a wrong time and a new one would not be.
        """
        moment = http_date(date)
        if moment is None:
            return False
        ahead = moment.timestamp() - self._now()
        if abs(ahead) > MAX_SKEW or abs(ahead - used) < MIN_SKEW:
            return False
        if abs(ahead - self.ahead) >= MIN_SKEW:
            logger.warning("this clock is off by %+.0f s; signing by the service's", -ahead)
            self.ahead = ahead
        return True
