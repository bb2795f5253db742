"""Who is asked next: the waiting jobs of one run, a million of them if need be. Pure.

As every job waits equally long, those that were asked before come due before: a queue will do, in
which a job costs four bytes. Only those that could not be asked go into a heap. Per job there are
numbers in arrays and texts in dicts and tuples, nothing else, for these the garbage collector
passes over; an object per job would stop the loop for seconds.
"""

from __future__ import annotations

import heapq
import math
from array import array

from ci_live_audit._checks import seconds

__all__ = ["Schedule"]

WAITING, ASKED, ANSWERED = range(3)
#: Ids stand in tuples of this length.
CHUNK = 1024
#: Many small tables in place of a big one: a million entries are not moved at once.
TABLES = 64
#: Seconds; the wait after failures grows up to this, if the interval is not longer.
LONGEST_BACKOFF = 60.0
#: Seconds to which a service may put a job off.
LONGEST_PAUSE = 3600.0
#: Seconds before its deadline at which a job is asked for the last time.
LAST_LOOK = 0.5


class Schedule:
    """Jobs by the time at which they are due.

    Jobs are numbered in the order in which they are taken up. All times are seconds by one clock.

    Args:
        interval: Seconds from asking a job to asking it again.
        timeout: Seconds from taking a job up to its deadline; None for no deadlines.
        rate: Requests a second that are possible, ``math.inf`` if that is not known.

    Raises:
        ConfigurationError: The interval or the timeout is not above 0.
    """

    def __init__(
        self, interval: float, timeout: float | None = None, rate: float = math.inf
    ) -> None:
        self._interval = seconds("interval", interval)
        self._timeout = math.inf if timeout is None else seconds("timeout", timeout)
        self._margin = min(LAST_LOOK, interval / 2, self._timeout / 10)
        self._slot = 1 / rate
        self._known: tuple[dict[str, None], ...] = tuple({} for _ in range(TABLES))
        self._ids: list[tuple[str, ...]] = []
        self._newest_ids: list[str] = []
        self._states = bytearray()
        # When a job is due; while it is asked, when it was asked.
        self._times = array("d")
        self._taken_up = array("d")
        self._queue = array("I")
        self._head = 0
        self._tail = -math.inf
        self._failed: list[tuple[float, int]] = []
        # In the order of deadlines: the first without answer, and the next to get its last look.
        self._oldest = self._looked = 0
        #: How many will be taken up yet that have the deadline of the newest.
        self.unread: int = 0
        #: How many have no answer yet.
        self.open: int = 0

    def skip(self, job_id: str) -> bool:
        """Never take up this job; False if it is known already."""
        table = self._known[hash(job_id) % TABLES]
        if job_id in table:
            return False
        table[job_id] = None
        return True

    def take_up(self, job_id: str, now: float, since: float) -> int | None:
        """The number of a new job, which is asked now; None if it is known already.

        Its timeout counts from ``since``, which is never before that of another.
        """
        if not self.skip(job_id):
            return None
        self._newest_ids.append(job_id)
        if len(self._newest_ids) == CHUNK:
            self._ids.append(tuple(self._newest_ids))
            self._newest_ids = []
        self._states.append(ASKED)
        self._times.append(now)
        if self._timeout < math.inf:
            self._taken_up.append(since)
        self.open += 1
        return len(self._states) - 1

    def job_id(self, number: int) -> str:
        """The id of a job."""
        chunk, place = divmod(number, CHUNK)
        return (self._ids[chunk] if chunk < len(self._ids) else self._newest_ids)[place]

    def is_asked(self, number: int) -> bool:
        """Whether a job is asked and has neither been answered nor put back."""
        return self._states[number] == ASKED

    def due(self, now: float) -> float:
        """When the next job is due; infinity if none is."""
        return min(self._turn(now), self._next_last_look())

    def pick(self, now: float) -> int | None:
        """The job that has been due for longest, which is asked now; None if none is due."""
        if self._turn(now) > now:
            return None
        number = self._first()
        if number is None or not self._may_be_asked(number, now):
            return None
        self._drop(number)
        return self._ask(number, now)

    def pick_last_look(self, now: float) -> int | None:
        """The job that is due for its last look, which is asked now; None if none is."""
        for _ in range(CHUNK):
            if self._next_last_look() > now:
                break
            number = self._looked
            self._looked += 1
            if self._may_be_asked(number, now):
                return self._ask(number, now)
        return None

    def again(self, number: int, now: float, failures: int = 0, *, at_least: float = 0.0) -> bool:
        """Put a job back after it was asked.

        Args:
            number: The job.
            now: The time.
            failures: How many times in a row asking has failed; each doubles the wait.
            at_least: Seconds that the service asked to wait after a failure.

        Returns:
            Whether it is put back. It is not if this was its last look.
        """
        asked = self._times[number]
        if number < self._looked or asked >= self._last_look(number):
            return False
        self._states[number] = WAITING
        if failures:
            longest = max(self._interval, LONGEST_BACKOFF)
            wait = min(longest, self._interval * 2.0 ** min(failures - 1, 60))
            wait = max(wait, min(at_least, LONGEST_PAUSE))
            self._times[number] = now + wait
            heapq.heappush(self._failed, (now + wait, number))
        else:
            # An answer that was long in coming may be due before others that are in the queue.
            self._tail = self._times[number] = max(asked + self._interval, self._tail)
            self._queue.append(number)
        return True

    def answer(self, number: int) -> None:
        """A job has its answer."""
        self._states[number] = ANSWERED
        self.open -= 1

    def deadline(self) -> float:
        """The next deadline of a job without answer; infinity if there is none."""
        self._oldest = self._open_from(self._oldest)
        return self.deadline_of(self._oldest)

    def expired(self, now: float) -> int | None:
        """A job without answer whose deadline has passed."""
        return self._oldest if self.deadline() <= now else None

    def deadline_of(self, number: int) -> float:
        """The deadline of a job; infinity if it has none, or if there is no such job."""
        if number >= len(self._taken_up):
            return math.inf
        return self._taken_up[number] + self._timeout

    def _open_from(self, number: int) -> int:
        """The first without answer from here on: jobs are in the order of their deadlines."""
        # At once however many have been answered.
        places = (self._states.find(state, number) for state in (WAITING, ASKED))
        return min((place for place in places if place >= 0), default=len(self._states))

    def _next_last_look(self) -> float:
        """When the next job is due for its last look; infinity without deadlines."""
        if self._timeout == math.inf:
            return math.inf
        self._looked = self._open_from(self._looked)
        return self._last_look(self._looked)

    def _last_look(self, number: int) -> float:
        """When a job is due for its last look: if all share a deadline, each needs a slot."""
        deadline = self.deadline_of(number)
        if deadline == math.inf:
            return math.inf
        alike = self._taken_up[0] == self._taken_up[-1]  # none is before the one before
        sharing = self.open + self.unread if alike else 1
        return deadline - self._margin - sharing * self._slot

    def _ask(self, number: int, now: float) -> int:
        self._states[number] = ASKED
        self._times[number] = now
        return number

    def _turn(self, now: float) -> float:
        """When the next job is due in turn; infinity if none is."""
        for _ in range(CHUNK):
            number = self._first()
            if number is None:
                return math.inf
            if self._may_be_asked(number, now):
                return self._times[number]
            self._drop(number)
        return now  # so that clearing away takes no longer at once

    def _first(self) -> int | None:
        """Who has been due for longest, in the queue or in the heap."""
        queued = self._queue[self._head] if self._head < len(self._queue) else None
        if self._failed and (queued is None or self._failed[0][0] <= self._times[queued]):
            return self._failed[0][1]
        return queued

    def _drop(self, number: int) -> None:
        """Take away the first, who is this job."""
        if self._failed and self._failed[0][1] == number:
            heapq.heappop(self._failed)
            return
        self._head += 1
        if self._head > len(self._queue) // 2 and self._head > CHUNK:
            del self._queue[: self._head]
            self._head = 0

    def _may_be_asked(self, number: int, now: float) -> bool:
        return self._states[number] == WAITING and self.deadline_of(number) > now
