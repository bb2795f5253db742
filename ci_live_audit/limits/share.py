"""What each of several processes may send while nobody coordinates them; pure."""

from __future__ import annotations

from math import floor
from typing import Self

import attrs

__all__ = ["Share"]


@attrs.frozen
class Share:
    """The slots of one process: every n-th of an even row that all see by one clock.

    So together they send no more in any second than one would, whatever their number.

    Attributes:
        first: The time of one of the slots, in seconds of the caller's clock.
        period: Seconds from one slot to the next.
    """

    #: The part of the rate that is used, for those who have seen another number of processes.
    CAUTION = 0.95

    first: float
    period: float

    @classmethod
    def of(cls, rate: float, processes: int, rank: int, ahead: float) -> Self:
        """Return the share of a process.

        Args:
            rate: Requests a second of all together.
            processes: Their number.
            rank: The place of this one among them, from 0 on.
            ahead: Seconds by which the common clock is ahead of the caller's.
        """
        slot = 1 / (rate * cls.CAUTION)
        period = processes * slot
        return cls((rank * slot - ahead) % period, period)

    def index(self, now: float) -> int:
        """Return the number of the slot that opened last."""
        return floor((now - self.first) / self.period)

    def opens(self, index: int) -> float:
        """Return the time at which a slot opens."""
        return self.first + index * self.period
