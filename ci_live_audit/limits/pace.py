"""How fast to send, and how long to pause, when the service refuses requests; pure.

A refusal at no more than the rate means that others use the quota too. So it lowers the pace a
little, and then the pace follows a cube, like the window of TCP CUBIC (RFC 9438): soon back, steady
for some seconds just below where it was refused, then faster and faster, and at the full rate after
20 s. Processes that share a quota find their shares of it in this way.

A service may also refuse at random, which no pace avoids, and each refusal would leave a lower one.
So it stays above half the rate until more is refused than chance explains: then the quota is shared
by three or more. The floor falls by steps, so that those who have not noticed yet go on noticing.
"""

from __future__ import annotations

import math

__all__ = ["Pace", "Patience"]


class Pace:
    """The requests a second that a shared quota seems to allow.

    Args:
        rate: The most.
    """

    #: What a refusal leaves of the pace, once it is back.
    DECREASE = 0.95
    #: Seconds until it is back.
    STEADY = 5.5
    #: Growth as a share of the rate, times the cube of the seconds since then.
    GROWTH = 0.00036
    #: The lowest pace as a share of the rate, before and after each time that more was refused than
    #: chance explains. First slightly above a half, because every refusal costs a pause as well.
    FLOORS = (0.505, 0.25, 0.1)
    #: The share of refused requests that is assumed at first, the one that chance does not explain,
    #: and the number of requests over which it is measured.
    ASSUMED, CROWDED, MEMORY = 0.065, 0.095, 300

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._top = rate
        self._refused_at = -math.inf
        self._share = self.ASSUMED
        self._step = 0

    def at(self, now: float) -> float:
        """Return the requests a second at a time; times are seconds by any one clock."""
        steady = now - self._refused_at - self.STEADY
        pace = self._top + self._rate * self.GROWTH * steady**3
        return min(max(pace, self._rate * self.FLOORS[self._step]), self._rate)

    def count(self) -> None:
        """Count a request."""
        self._share -= self._share / self.MEMORY

    def lower(self, now: float) -> None:
        """Lower the pace: a request that was counted has been refused."""
        pace = self.at(now)
        if pace == self._rate:
            self._share, self._step = self.ASSUMED, 0
        self._share += 1 / self.MEMORY
        if self._share > self.CROWDED and self._step < len(self.FLOORS) - 1:
            self._share, self._step = self.ASSUMED, self._step + 1
        self._top, self._refused_at = self.DECREASE * pace, now


class Patience:
    """How much of ``Retry-After`` holds for those who were not refused themselves.

    The quota is counted by the second, so a longer time may be a mistake, and one response must not
    stop everybody for long. If it is repeated after the pause, there must be something in it.

    Args:
        few: A time is repeated if no more requests than this have passed since the pause.
    """

    #: Seconds at first, and after any number of repetitions.
    FIRST, LONGEST = 10.0, 60.0

    def __init__(self, few: int) -> None:
        self._few = few
        self._passed = few + 1
        self._limit = self.FIRST
        self._until = -math.inf

    def count(self) -> None:
        """Count a request that passes."""
        self._passed += 1

    def seconds(self, asked: float, now: float) -> float:
        """Return how many of the seconds that the service asks for everybody has to pause."""
        if asked <= self.FIRST:
            return asked
        if now >= self._until:  # else it left before the pause and says nothing new
            repeated = self._passed <= self._few
            self._limit = min(2 * self._limit, self.LONGEST) if repeated else self.FIRST
        seconds = min(asked, self._limit)
        self._passed, self._until = 0, max(self._until, now + seconds)
        return seconds
