"""What waits for the consumer of a run. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import attrs

__all__ = ["Backlog"]

T = TypeVar("T")

#: Nothing is polled while this many items wait.
READY = 50
#: Bytes that may have been parsed for what waits.
MEMORY = 32 * 2**20


class Backlog(Generic[T]):
    """The items of responses, each made only when it is taken."""

    def __init__(self) -> None:
        self._batches: deque[_Batch[T]] = deque()
        self._waiting = 0
        self._size = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be polled."""
        return self._waiting >= READY

    def has_room(self, size: int) -> bool:
        """Return whether a response of which ``size`` bytes are to be parsed can wait too."""
        return not self._size or self._size + size <= MEMORY

    def add(self, items: Iterator[T], number: int, size: int, job_id: Any = None) -> None:
        """Add the items of a response, of which ``size`` bytes have been parsed."""
        if number:
            self._batches.append(_Batch(items, number, size, job_id))
            self._waiting += number
            self._size += size

    def __contains__(self, job_id: object) -> bool:
        """Return whether any items of a job wait."""
        return any(batch.job_id == job_id for batch in self._batches)

    def drop(self, job_id: str) -> None:
        """Remove all items of a job."""
        for batch in [batch for batch in self._batches if batch.job_id == job_id]:
            self._batches.remove(batch)
            self._waiting -= batch.number
            self._size -= batch.size

    def take(self) -> T:
        """Return the next item; raise IndexError if none waits."""
        batch = self._batches[0]
        item = next(batch.items)
        batch.number -= 1
        self._waiting -= 1
        if not batch.number:
            self._batches.popleft()
            self._size -= batch.size
        return item


@attrs.define(eq=False)
class _Batch(Generic[T]):
    items: Iterator[T]
    number: int
    size: int
    job_id: Any
