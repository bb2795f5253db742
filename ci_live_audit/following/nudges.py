"""Decides which jobs to look at beside their turns, because a callback was about them. Pure.

A callback is a hint: anybody can send one, twice, late, and some are lost. So it only brings about
an extra look, which leaves the job's own turn alone. At most one look is owed to a job, and a
million jobs to which one is owed are numbers in an array and a byte each.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ci_live_audit.errors import InvalidInput
from ci_live_audit.following.jobs import CHUNK, Jobs, Numbers
from ci_live_audit.wire.callbacks import Callback

__all__ = ["APART", "CallbackSource", "Nudges", "check_source"]

#: Least seconds from one look at a job to an extra one.
APART = 1.0
#: Seconds from a look that failed to an extra one.
PAUSE = 10.0
#: Flags of a job: a look is owed to it; it is in the queue, or among those that have to wait.
OWED, QUEUED = 1, 2


@runtime_checkable
class CallbackSource(Protocol):
    """Where a run gets its callbacks from."""

    @property
    def is_trusted(self) -> bool:
        """Whether what a callback says is true, so that nobody has to ask."""
        ...

    def subscribe(self, listener: Callable[[Callback], object]) -> Callable[[], object]:
        """Call a listener with each new callback, on the event loop; return what ends that."""
        ...


def check_source(_: object, __: object, callbacks: Any) -> None:
    """Raise InvalidInput if what was passed as ``callbacks`` is no source of them; for attrs."""
    if callbacks is None:
        return
    # A class has the names of its instances.
    if isinstance(callbacks, type) or not isinstance(callbacks, CallbackSource):
        raise InvalidInput(
            "callbacks: expected a CallbackReceiver, or its trusted(); "
            f"got {getattr(callbacks, '__name__', type(callbacks).__name__)}"
        )


class Nudges:
    """The jobs to which an extra look is owed, in the order in which they were nudged."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._queue = Numbers()
        # Those that have to wait, a heap by when they may be looked at.
        self._later: list[tuple[float, int]] = []
        # Of the last second: when a job was last looked at; the oldest first.
        self._looks: dict[int, float] = {}
        # Jobs whose last look failed, and when they may be looked at again.
        self._failed: dict[int, float] = {}
        # Jobs in flight to which a look was owed: it still is if this one fails.
        self._served: set[int] = set()

    def add(self, number: int) -> bool:
        """Owe a look to an open job; return False if one is owed to it already."""
        flags = self._jobs.flags_of(number)
        self._jobs.set_flags(number, flags | OWED)
        return not flags & OWED

    def queue(self, number: int, now: float) -> None:
        """Let a job that is not in flight wait for the look that is owed to it."""
        flags = self._jobs.flags_of(number)
        if not flags & OWED or flags & QUEUED:
            return
        self._jobs.set_flags(number, flags | QUEUED)
        earliest = self._earliest(number)
        if earliest <= now:
            self._queue.append(number)
        else:
            heapq.heappush(self._later, (earliest, number))

    def next(self, now: float, waits: Callable[[int], bool]) -> tuple[float, int | None]:
        """Return when the next look is due, and the job; infinity if none is owed.

        ``waits`` tells whether an open job may be looked at.
        """
        for _ in range(CHUNK):
            if self._later and self._later[0][0] <= now:
                self._queue.append(heapq.heappop(self._later)[1])
                continue
            if not self._queue:
                return (self._later[0][0] if self._later else math.inf), None
            number = self._queue.first
            flags = self._jobs.flags_of(number)
            is_wanted = flags & OWED and self._jobs.is_open(number) and waits(number)
            if is_wanted and self._earliest(number) <= now:
                return now, number
            self._queue.drop()
            if flags:
                self._jobs.set_flags(number, flags & ~QUEUED)
            if is_wanted:  # its turn has come meanwhile, less than a second ago
                self.queue(number, now)
        return now, None  # go on in the next step: this one has taken long enough

    def begin(self, number: int, now: float) -> None:
        """Record that a job is looked at, in its turn or beside it."""
        flags = self._jobs.flags_of(number)
        if flags & OWED:
            self._served.add(number)
            self._jobs.set_flags(number, flags & ~OWED)
        self._failed.pop(number, None)
        self._looks.pop(number, None)
        self._looks[number] = now
        while self._looks[oldest := next(iter(self._looks))] + APART <= now:
            del self._looks[oldest]

    def end(self, number: int, now: float, *, failed: bool, pause: float = 0.0) -> None:
        """Record the end of a look after which a job waits again.

        If it failed there is none beside the job's turns for ``pause`` seconds, at least `PAUSE`.
        """
        if failed:
            self._failed[number] = now + max(PAUSE, pause)
            if number in self._served:
                self.add(number)
        self._served.discard(number)
        self.queue(number, now)

    def last_look(self, number: int, now: float) -> float | None:
        """Return when a job was looked at within the last second; None if not, or it failed."""
        looked = self._looks.get(number, -math.inf)
        return looked if looked + APART > now and number not in self._failed else None

    def forget(self, number: int) -> None:
        """Forget a job that is finished."""
        self._failed.pop(number, None)
        self._served.discard(number)

    def _earliest(self, number: int) -> float:
        """Return when a job may be looked at beside its turns."""
        after = self._looks.get(number, -math.inf) + APART
        return max(after, self._failed.get(number, -math.inf))
