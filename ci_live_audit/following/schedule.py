"""Decides which job to poll next; scales to a million jobs. Pure.

All jobs wait for the same interval, so those polled earlier are due earlier, and a queue is enough.
Only jobs whose poll failed go into a heap. Waiting jobs are numbers in arrays, and texts in dicts
and tuples: the garbage collector passes over these, and one object per job would stop the loop for
seconds.
"""

from __future__ import annotations

import heapq
import math

from ci_live_audit._checks import seconds
from ci_live_audit.following.jobs import CHUNK, Jobs, Numbers
from ci_live_audit.following.nudges import APART, Nudges
from ci_live_audit.following.recent import Recent

__all__ = ["Schedule"]

#: Many small tables in place of a large one, so that growing never moves a million entries.
TABLES = 64
#: Seconds; the backoff after failures grows up to this, or to the interval if that is longer.
LONGEST_BACKOFF = 60.0
#: Longest ``Retry-After`` that is obeyed, in seconds.
LONGEST_PAUSE = 3600.0
#: Seconds before its deadline at which a job is polled for the last time.
LAST_LOOK = 0.5


class Schedule:
    """The jobs of one run, by the time at which they are due; all times are of one clock.

    Attributes:
        timeout: Seconds from adding a job to its deadline; infinity for no deadlines.
        in_flight: Ids and numbers of the jobs that are polled now, or were for the last time.
        open: Number of jobs that are not finished.
        unread: Number of jobs that are still to be added and share the deadline of the others.
    """

    def __init__(
        self,
        interval: float,
        timeout: float | None = None,
        rate: float = math.inf,
        *,
        remembered: float = math.inf,
        nudged: bool = False,
        droppable: bool = False,
    ) -> None:
        self._interval = seconds("interval", interval)
        self.timeout: float = math.inf if timeout is None else seconds("timeout", timeout)
        self._margin = min(LAST_LOOK, interval / 2, self.timeout / 10)
        self._slot = 1 / rate
        # The time of a job is when it is due; while it is in flight, when it was polled.
        self._jobs = Jobs(shared=math.inf if timeout is None else None)
        self._nudges = Nudges(self._jobs) if nudged else None
        # The numbers of jobs that may be nudged or dropped, by id; of others 0, for a number takes
        # 32 bytes.
        self._known: tuple[dict[str, int], ...] = tuple({} for _ in range(TABLES))
        self._numbered = nudged or droppable
        self._finished = Recent(remembered) if remembered < math.inf else None
        self._queue = Numbers()
        self._tail = -math.inf
        self._failed: list[tuple[float, int]] = []
        # In the order of deadlines: the first open job, and the next to get its last look.
        self._oldest = self._looked = 0
        self.in_flight: dict[str, int] = {}
        # When jobs in flight were polled beside their turns, which are still to come.
        self._extra: dict[int, float] = {}
        self.open: int = 0
        self.unread: int = 0

    def share_deadline(self, now: float) -> None:
        """Give all jobs one deadline, a timeout from now; for when their number is known."""
        self._jobs.shared = now + self.timeout

    def __contains__(self, job_id: str) -> bool:
        """Return whether an id was added, as far as that is remembered."""
        known = job_id in self._known[hash(job_id) % TABLES]
        return known or (self._finished is not None and job_id in self._finished)

    def add(self, job_id: str, now: float) -> bool:
        """Add a job, in flight from now on; return False if its id was added before."""
        if job_id in self:
            return False
        number = self._jobs.add(job_id, now, now + self.timeout)
        self._known[hash(job_id) % TABLES][job_id] = number if self._numbered else 0
        self._begin(number, now)
        self.open += 1
        return True

    def follows(self, job_id: str) -> bool:
        """Return whether a job may be nudged: it is neither finished nor had its last look."""
        number = self._known[hash(job_id) % TABLES].get(job_id)
        return number is not None and number >= self._looked and self._jobs.is_open(number)

    def nudge(self, job_id: str, now: float) -> bool:
        """Have a job polled beside its turns; return False if that is to happen already.

        For a job that is in flight it happens after that.
        """
        assert self._nudges is not None
        number = self._known[hash(job_id) % TABLES][job_id]
        if not self._nudges.add(number):
            return False
        if job_id not in self.in_flight:
            self._nudges.queue(number, now)
        return True

    def due(self, now: float) -> float:
        """Return when the next job is due; infinity if none is."""
        return min(self._next(now)[0], self._next_last_look(), self._next_nudge(now)[0])

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
            if now < self._jobs.deadline_of(number):
                job_id = self._jobs.id_of(number)
                if job_id not in self.in_flight:
                    return self._poll(number, now)
        return None

    def pick_nudged(self, now: float) -> str | None:
        """Return a job that was nudged, in flight from now on; None if none is due.

        Last looks go first, since they are planned with the whole quota.
        """
        due, number = self._next_nudge(now)
        if number is None or due > now or self._next_last_look() <= now:
            return None
        self._extra[number] = now
        return self._begin(number, now)

    def is_extra(self, job_id: str) -> bool:
        """Return whether a job in flight is polled beside its turns."""
        return self.in_flight[job_id] in self._extra

    def put_back(
        self, job_id: str, now: float, failures: int = 0, *, at_least: float = 0.0
    ) -> bool:
        """Let a job in flight wait again; return False if it has had its last look.

        Each of the ``failures`` in a row doubles the backoff, of ``at_least`` these seconds. A job
        that was polled beside its turns keeps the next one, whatever came of it.
        """
        number = self.in_flight[job_id]
        polled = self._extra.get(number, self._jobs.time_of(number))
        if number < self._looked or polled >= self._last_look(number):
            return False
        del self.in_flight[job_id]
        at_least = min(at_least, LONGEST_PAUSE)
        if number in self._extra:
            del self._extra[number]
        elif failures:
            longest = max(self._interval, LONGEST_BACKOFF)
            backoff = min(longest, self._interval * 2.0 ** min(failures - 1, 60))
            due = now + max(backoff, at_least)
            heapq.heappush(self._failed, (due, number))
            self._jobs.set_time(number, due)
        else:
            self._queue_up(number, polled)
        if self._nudges is not None:
            self._nudges.end(number, now, failed=failures > 0, pause=at_least)
        return True

    def finish(self, job_id: str) -> None:
        """Never poll a job again that is in flight."""
        self._finish(self.in_flight.pop(job_id))
        if self._finished is not None:
            del self._known[hash(job_id) % TABLES][job_id]
            self._finished.add(job_id)

    def drop(self, job_id: str) -> None:
        """Forget a job that may be dropped, unless it is finished; it may be added again."""
        number = self._known[hash(job_id) % TABLES].pop(job_id, None)
        if number is not None:
            self.in_flight.pop(job_id, None)
            self._finish(number)

    def _finish(self, number: int) -> None:
        self._jobs.finish(number)
        self._extra.pop(number, None)
        if self._nudges is not None:
            self._nudges.forget(number)
        self.open -= 1

    def expire(self, now: float) -> str | None:
        """Finish a job whose deadline has passed, and return it; None if there is none."""
        self._oldest = self._jobs.first_open(self._oldest)
        if self._jobs.deadline_of(self._oldest) > now:
            return None
        job_id = self._poll(self._oldest, now)
        self.finish(job_id)
        return job_id

    def extend(self, until: float) -> None:
        """Let no deadline pass before a time; jobs that it concerns get another last look."""
        number = self._oldest = self._jobs.first_open(self._oldest)
        self._looked = min(self._looked, number)
        while number < self._jobs.end and self._jobs.deadline_of(number) < until:
            self._jobs.set_deadline(number, until)
            number = self._jobs.first_open(number + 1)

    def deadline(self) -> float:
        """Return the next deadline of an open or unread job; infinity if there is none."""
        if self._jobs.shared is not None:
            return self._jobs.shared if self.open or self.unread else math.inf
        self._oldest = self._jobs.first_open(self._oldest)
        return self._jobs.deadline_of(self._oldest)

    def deadline_of(self, job_id: str) -> float:
        """Return the deadline of a job in flight."""
        return self._jobs.deadline_of(self.in_flight[job_id])

    def _next_last_look(self) -> float:
        """Return when the next job is due for its last look; infinity without deadlines."""
        if self.timeout == math.inf:
            return math.inf
        self._looked = self._jobs.first_open(self._looked)
        return self._last_look(self._looked)

    def _last_look(self, number: int) -> float:
        """Return when a job is due for its last look; those that share a deadline queue up."""
        slots = 1 if self._jobs.shared is None else self.open + self.unread
        return self._jobs.deadline_of(number) - self._margin - slots * self._slot

    def _poll(self, number: int, now: float) -> str:
        self._jobs.set_time(number, now)
        return self._begin(number, now)

    def _begin(self, number: int, now: float) -> str:
        job_id = self._jobs.id_of(number)
        self.in_flight[job_id] = number
        if self._nudges is not None:
            self._nudges.begin(number, now)
        return job_id

    def _queue_up(self, number: int, polled: float) -> None:
        """Let a job that was polled at some time wait for its next turn."""
        # After a slow response a job may be due before others that are in the queue already.
        self._tail = max(polled + self._interval, self._tail)
        self._queue.append(number)
        self._jobs.set_time(number, self._tail)

    def _next_nudge(self, now: float) -> tuple[float, int | None]:
        """Return when the next nudged job is due, and the job; infinity if none is."""
        if self._nudges is None:
            return math.inf, None

        def waits(number: int) -> bool:
            over = number < self._looked or now >= self._jobs.deadline_of(number)
            return not over and self._jobs.id_of(number) not in self.in_flight

        return self._nudges.next(now, waits)

    def _next(self, now: float) -> tuple[float, int | None]:
        """Return when the next waiting job is due, and the job; infinity if none waits."""
        for _ in range(CHUNK):
            number = self._first()
            if number is None:
                return math.inf, None
            # A job stays where it waits when it expires, or is polled for the last time.
            waits = number >= self._looked and self._jobs.is_open(number)
            if waits and now < self._jobs.deadline_of(number):
                due = self._jobs.time_of(number)
                if due > now or not self._takes_turn(number, now):
                    return due, number
                continue
            self._drop(number)
        return now, None  # go on in the next step: this one has taken long enough

    def _takes_turn(self, number: int, now: float) -> bool:
        """Return whether the last look at the job that is due first can stand for its turn.

        It began less than a second ago, or has not ended: two polls in a second are one too many.
        """
        if number in self._extra:
            self._drop(number)
            self._jobs.set_time(number, self._extra.pop(number))
            return True
        if self._nudges is None or self._interval < APART:
            return False
        looked = self._nudges.last_look(number, now)
        if looked is None:
            return False
        self._drop(number)
        self._queue_up(number, looked)
        return True

    def _first(self) -> int | None:
        """Return the job that is due first, in the queue or in the heap."""
        queued = self._queue.first if self._queue else None
        if self._failed and (queued is None or self._failed[0][0] <= self._jobs.time_of(queued)):
            return self._failed[0][1]
        return queued

    def _drop(self, number: int) -> None:
        """Remove the job that is due first, which is this one."""
        if self._failed and self._failed[0][1] == number:
            heapq.heappop(self._failed)
        else:
            self._queue.drop()
