"""The jobs of a run, in little memory: numbered in the order in which they are added. Pure.

Jobs are kept in chunks of plain arrays. A chunk is dropped when all its jobs are finished, and
rebuilt when few are left, so a run without end costs no more than its open jobs.
"""

from __future__ import annotations

import math
from array import array

__all__ = ["CHUNK", "Jobs", "Numbers"]

#: Jobs of a chunk; also a bound on the work of one step.
CHUNK = 1024
#: A chunk is rebuilt from this number of open jobs on, whenever it has halved.
FEW = CHUNK // 8
OPEN, FINISHED = range(2)


class Numbers:
    """A queue of numbers in little memory."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._head = 0

    def __len__(self) -> int:
        return len(self._numbers) - self._head

    def append(self, number: int) -> None:
        """Put a number last."""
        self._numbers.append(number)

    @property
    def first(self) -> int:
        """The first number of a queue that is not empty."""
        return self._numbers[self._head]

    def drop(self) -> None:
        """Remove the first number."""
        self._head += 1
        if self._head > len(self._numbers) // 2 and self._head > CHUNK:
            del self._numbers[: self._head]
            self._head = 0


class _Chunk:
    """Consecutive jobs: their ids, times, deadlines and flags, and whether they are finished."""

    __slots__ = ("deadlines", "first", "flags", "ids", "open", "places", "states", "times")

    def __init__(self, first: int) -> None:
        self.first = first
        # A tuple of texts once it is full: the garbage collector passes over it.
        self.ids: list[str] | tuple[str, ...] = []
        self.states = bytearray()
        #: None as long as no job has any.
        self.flags: bytearray | None = None
        self.times = array("d")
        self.deadlines = array("d")
        self.open = 0
        #: The numbers of the jobs that are left; None while all are there.
        self.places: dict[int, int] | None = None

    def place(self, number: int) -> int | None:
        """Return the index of a job; None if it is finished and gone."""
        return number - self.first if self.places is None else self.places.get(number)

    def first_open(self, number: int) -> int | None:
        """Return the first open job from this one on; None if there is none."""
        if self.places is None:
            found = self.states.find(OPEN, max(0, number - self.first))
            return None if found < 0 else self.first + found
        later = (job for job, place in self.places.items() if self.states[place] == OPEN)
        return next((job for job in later if job >= number), None)

    def rebuild(self) -> None:
        """Drop the finished jobs."""
        numbers = self.places or {self.first + place: place for place in range(len(self.ids))}
        kept = {job: place for job, place in numbers.items() if self.states[place] == OPEN}
        self.ids = tuple(self.ids[place] for place in kept.values())
        self.times = array("d", [self.times[place] for place in kept.values()])
        if self.deadlines:
            self.deadlines = array("d", [self.deadlines[place] for place in kept.values()])
        if self.flags is not None:
            self.flags = bytearray(self.flags[place] for place in kept.values())
        self.states = bytearray(len(kept))
        self.places = {job: place for place, job in enumerate(kept)}


class Jobs:
    """Jobs by number. Each has a time, a byte of flags, and a deadline unless all share one.

    Attributes:
        end: The number of the next job to be added.
        shared: The deadline of all jobs; None if each has its own.
    """

    def __init__(self, *, shared: float | None = None) -> None:
        self._chunks: dict[int, _Chunk] = {}
        self.end: int = 0
        self.shared: float | None = shared

    def add(self, job_id: str, time: float, deadline: float) -> int:
        """Add an open job, and return its number."""
        number = self.end
        chunk = self._chunks.get(number // CHUNK)
        if chunk is None:
            chunk = self._chunks[number // CHUNK] = _Chunk(number)
        assert isinstance(chunk.ids, list)
        chunk.ids.append(job_id)
        chunk.states.append(OPEN)
        chunk.times.append(time)
        if self.shared is None:
            chunk.deadlines.append(deadline)
        chunk.open += 1
        self.end = number + 1
        if len(chunk.ids) == CHUNK:
            chunk.ids = tuple(chunk.ids)
            self._tidy(chunk)
        return number

    def is_open(self, number: int) -> bool:
        """Return whether a job is not finished."""
        chunk, place = self._find(number)
        return chunk is not None and place is not None and chunk.states[place] == OPEN

    def id_of(self, number: int) -> str:
        """Return the id of an open job."""
        chunk, place = self._found(number)
        return chunk.ids[place]

    def time_of(self, number: int) -> float:
        """Return the time of a job; minus infinity if it is finished and gone."""
        chunk, place = self._find(number)
        return -math.inf if chunk is None or place is None else chunk.times[place]

    def set_time(self, number: int, time: float) -> None:
        """Set the time of an open job."""
        chunk, place = self._found(number)
        chunk.times[place] = time

    def flags_of(self, number: int) -> int:
        """Return the flags of a job; 0 if it is finished and gone."""
        chunk, place = self._find(number)
        return 0 if chunk is None or chunk.flags is None or place is None else chunk.flags[place]

    def set_flags(self, number: int, flags: int) -> None:
        """Set the flags of an open job."""
        chunk, place = self._found(number)
        if chunk.flags is None:
            chunk.flags = bytearray(CHUNK)
        chunk.flags[place] = flags

    def deadline_of(self, number: int) -> float:
        """Return the deadline of a job; infinity if there is no such job."""
        if number >= self.end:
            return math.inf
        if self.shared is not None:
            return self.shared
        chunk, place = self._find(number)
        return math.inf if chunk is None or place is None else chunk.deadlines[place]

    def set_deadline(self, number: int, deadline: float) -> None:
        """Set the deadline of an open job, or of all if they share one."""
        if self.shared is not None:
            self.shared = deadline
            return
        chunk, place = self._found(number)
        chunk.deadlines[place] = deadline

    def finish(self, number: int) -> None:
        """Finish an open job, which may be gone afterwards."""
        chunk, place = self._found(number)
        chunk.states[place] = FINISHED
        chunk.open -= 1
        if isinstance(chunk.ids, tuple):
            self._tidy(chunk)

    def first_open(self, number: int) -> int:
        """Return the first open job from this one on, or the number of the next to be added."""
        for key in range(number // CHUNK, -(-self.end // CHUNK)):
            chunk = self._chunks.get(key)
            found = None if chunk is None else chunk.first_open(number)
            if found is not None:
                return found
        return self.end

    def _tidy(self, chunk: _Chunk) -> None:
        if not chunk.open:
            del self._chunks[chunk.first // CHUNK]
        elif chunk.open <= FEW and chunk.open * 2 <= len(chunk.ids):
            chunk.rebuild()

    def _find(self, number: int) -> tuple[_Chunk | None, int | None]:
        chunk = self._chunks.get(number // CHUNK)
        return chunk, None if chunk is None else chunk.place(number)

    def _found(self, number: int) -> tuple[_Chunk, int]:
        chunk, place = self._find(number)
        assert chunk is not None
        assert place is not None
        return chunk, place
