"""Callbacks that wait for whoever is slower than they come, bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque

from ci_live_audit.wire.callbacks import Callback

__all__ = ["Line"]

#: Bytes of bodies that may wait: those of some 6,000 Simple callbacks.
MOST = 16 * 2**20
#: What each counts besides its body.
EACH = 2048


class Line:
    """Callbacks in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callback, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, callback: Callback, size: int) -> bool:
        """Add a callback whose body has so many bytes, unless there is no room for it."""
        size += EACH
        if self._waiting and self._bytes + size > MOST:
            return False
        self._waiting.append((callback, size))
        self._bytes += size
        return True

    def first(self) -> Callback:
        """Return the one that has waited longest, and let it wait on."""
        return self._waiting[0][0]

    def remove_first(self) -> Callback:
        """Remove the one that has waited longest, and return it."""
        callback, size = self._waiting.popleft()
        self._bytes -= size
        return callback
