"""What waits for the consumer of a run. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Backlog"]

T = TypeVar("T")

#: Nothing is polled while this many items wait.
READY = 50
#: Bytes that may have been parsed for what waits.
MEMORY = 32 * 2**20


class Backlog(Generic[T]):
    """The items of responses, each made only when it is taken."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Iterator[T], int]] = deque()
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

    def add(self, items: Iterator[T], number: int, size: int) -> None:
        """Add the items of a response."""
        if number:
            self._batches.append((items, size))
            self._waiting += number
            self._size += size

    def take(self) -> T:
        """Return the next item; raise IndexError if none waits."""
        while True:
            items, size = self._batches[0]
            for item in items:
                self._waiting -= 1
                return item
            self._batches.popleft()
            self._size -= size
