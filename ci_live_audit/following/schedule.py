"""Decides which job to poll next; scales to a million jobs. Pure.

All jobs wait for the same interval, so those polled earlier are due earlier, and a queue is enough.
Only jobs whose poll failed go into a heap. Waiting jobs are numbers in arrays, and texts in dicts
and tuples: the garbage collector passes over these, and one object per job would stop the loop for
seconds.
"""

from __future__ import annotations

import heapq
import math
from array import array

from ci_live_audit._checks import seconds

__all__ = ["Schedule"]

OPEN, FINISHED = range(2)
#: Length of the tuples of ids; also a bound on the work of one step.
CHUNK = 1024
#: Many small tables in place of a large one, so that growing never moves a million entries.
TABLES = 64
#: Seconds; the backoff after failures grows up to this, or to the interval if that is longer.
LONGEST_BACKOFF = 60.0
#: Longest ``Retry-After`` that is obeyed, in seconds.
LONGEST_PAUSE = 3600.0
#: Seconds before its deadline at which a job is polled for the last time.
LAST_LOOK = 0.5


class _Ids:
    """Distinct ids, numbered in the order in which they are added."""

    def __init__(self) -> None:
        self._tables: tuple[dict[str, None], ...] = tuple({} for _ in range(TABLES))
        self._chunks: list[tuple[str, ...]] = []
        self._newest: list[str] = []

    def __getitem__(self, number: int) -> str:
        chunk, place = divmod(number, CHUNK)
        return (self._chunks[chunk] if chunk < len(self._chunks) else self._newest)[place]

    def add(self, job_id: str) -> bool:
        """Give an id the next number; return False if it has one."""
        table = self._tables[hash(job_id) % TABLES]
        if job_id in table:
            return False
        table[job_id] = None
        self._newest.append(job_id)
        if len(self._newest) == CHUNK:
            self._chunks.append(tuple(self._newest))
            self._newest = []
        return True


class Schedule:
    """The jobs of one run, by the time at which they are due; all times are of one clock.

    Attributes:
        timeout: Seconds from adding a job to its deadline; infinity for no deadlines.
        in_flight: Ids and numbers of the jobs that are polled now, or were for the last time.
        open: Number of jobs that are not finished.
        unread: Number of jobs that are still to be added and share the deadline of the others.
    """

    def __init__(
        self, interval: float, timeout: float | None = None, rate: float = math.inf
    ) -> None:
        self._interval = seconds("interval", interval)
        self.timeout: float = math.inf if timeout is None else seconds("timeout", timeout)
        self._margin = min(LAST_LOOK, interval / 2, self.timeout / 10)
        self._slot = 1 / rate
        self._ids = _Ids()
        self._states = bytearray()
        # When a job is due; while it is in flight, when it was polled.
        self._times = array("d")
        # The deadline of all jobs, or the deadline of each.
        self._shared = math.inf if timeout is None else None
        self._deadlines = array("d")
        self._queue = array("I")
        self._head = 0
        self._tail = -math.inf
        self._failed: list[tuple[float, int]] = []
        # In the order of deadlines: the first open job, and the next to get its last look.
        self._oldest = self._looked = 0
        self.in_flight: dict[str, int] = {}
        self.open: int = 0
        self.unread: int = 0

    def share_deadline(self, now: float) -> None:
        """Give all jobs one deadline, a timeout from now; for when their number is known."""
        self._shared = now + self.timeout

    def add(self, job_id: str, now: float) -> bool:
        """Add a job, in flight from now on; return False if its id was added before."""
        if not self._ids.add(job_id):
            return False
        self.in_flight[job_id] = len(self._states)
        self._states.append(OPEN)
        self._times.append(now)
        if self._shared is None:
            self._deadlines.append(now + self.timeout)
        self.open += 1
        return True

    def due(self, now: float) -> float:
        """Return when the next job is due; infinity if none is."""
        return min(self._next(now)[0], self._next_last_look())

    def pick(self, now: float) -> str | None:
        """Return the most overdue job, in flight from now on; None if none is due."""
        due, number = self._next(now)
        if number is None or due > now:
            return None
        self._drop(number)
        return self._poll(number, now)

    def pick_last_look(self, now: float) -> str | None:
        """Return a job due for its last look, in flight from now on; None if none is."""
        for _ in range(CHUNK):
            if self._next_last_look() > now:
                break
            number = self._looked
            self._looked += 1
            if self._ids[number] not in self.in_flight and now < self._deadline_of(number):
                return self._poll(number, now)
        return None

    def put_back(
        self, job_id: str, now: float, failures: int = 0, *, at_least: float = 0.0
    ) -> bool:
        """Let a job in flight wait again; return False if it has had its last look.

        Each of the ``failures`` in a row doubles the backoff, of ``at_least`` these seconds.
        """
        number = self.in_flight[job_id]
        polled = self._times[number]
        if number < self._looked or polled >= self._last_look(number):
            return False
        del self.in_flight[job_id]
        if failures:
            longest = max(self._interval, LONGEST_BACKOFF)
            backoff = min(longest, self._interval * 2.0 ** min(failures - 1, 60))
            due = now + max(backoff, min(at_least, LONGEST_PAUSE))
            heapq.heappush(self._failed, (due, number))
        else:
            # After a slow response a job may be due before others that are in the queue already.
            due = self._tail = max(polled + self._interval, self._tail)
            self._queue.append(number)
        self._times[number] = due
        return True

    def finish(self, job_id: str) -> None:
        """Never poll a job again that is in flight."""
        self._states[self.in_flight.pop(job_id)] = FINISHED
        self.open -= 1

    def expire(self, now: float) -> str | None:
        """Finish a job whose deadline has passed, and return it; None if there is none."""
        self._oldest = self._first_open(self._oldest)
        if self._deadline_of(self._oldest) > now:
            return None
        job_id = self._poll(self._oldest, now)
        self.finish(job_id)
        return job_id

    def deadline(self) -> float:
        """Return the next deadline of an open or unread job; infinity if there is none."""
        if self._shared is not None:
            return self._shared if self.open or self.unread else math.inf
        self._oldest = self._first_open(self._oldest)
        return self._deadline_of(self._oldest)

    def deadline_of(self, job_id: str) -> float:
        """Return the deadline of a job in flight."""
        return self._deadline_of(self.in_flight[job_id])

    def _deadline_of(self, number: int) -> float:
        """Return the deadline of a job; infinity if there is no such job."""
        if number == len(self._states):
            return math.inf
        return self._deadlines[number] if self._shared is None else self._shared

    def _first_open(self, number: int) -> int:
        """Return the first open job from this one on, or the number of the next to be added."""
        found = self._states.find(OPEN, number)
        return found if found >= 0 else len(self._states)

    def _next_last_look(self) -> float:
        """Return when the next job is due for its last look; infinity without deadlines."""
        if self.timeout == math.inf:
            return math.inf
        self._looked = self._first_open(self._looked)
        return self._last_look(self._looked)

    def _last_look(self, number: int) -> float:
        """Return when a job is due for its last look; those that share a deadline queue up."""
        slots = 1 if self._shared is None else self.open + self.unread
        return self._deadline_of(number) - self._margin - slots * self._slot

    def _poll(self, number: int, now: float) -> str:
        job_id = self._ids[number]
        self.in_flight[job_id] = number
        self._times[number] = now
        return job_id

    def _next(self, now: float) -> tuple[float, int | None]:
        """Return when the next waiting job is due, and the job; infinity if none waits."""
        for _ in range(CHUNK):
            number = self._first()
            if number is None:
                return math.inf, None
            # A job stays where it waits when it expires, or is polled for the last time.
            waits = self._states[number] == OPEN and number >= self._looked
            if waits and now < self._deadline_of(number):
                return self._times[number], number
            self._drop(number)
        return now, None  # go on in the next step: this one has taken long enough

    def _first(self) -> int | None:
        """Return the job that is due first, in the queue or in the heap."""
        queued = self._queue[self._head] if self._head < len(self._queue) else None
        if self._failed and (queued is None or self._failed[0][0] <= self._times[queued]):
            return self._failed[0][1]
        return queued

    def _drop(self, number: int) -> None:
        """Remove the job that is due first, which is this one."""
        if self._failed and self._failed[0][1] == number:
            heapq.heappop(self._failed)
            return
        self._head += 1
        if self._head > len(self._queue) // 2 and self._head > CHUNK:
            del self._queue[: self._head]
            self._head = 0
