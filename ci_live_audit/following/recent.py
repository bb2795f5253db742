"""A set of texts that forgets the oldest. Pure."""

from __future__ import annotations

__all__ = ["REMEMBERED", "Recent"]

#: How many of the ids that a run without end has finished are known; memory must not grow for ever.
REMEMBERED = 50_000


class Recent:
    """Remembers at least the last ``bound`` texts that were added, and at most twice as many.

    Attributes:
        has_forgotten: Whether it has forgotten any.
    """

    def __init__(self, bound: float) -> None:
        self.has_forgotten: bool = False
        self._bound = bound
        # When the young ones are too many they become the old ones, which are forgotten.
        self._young: set[str] = set()
        self._old: set[str] = set()

    def add(self, text: str) -> None:
        """Add a text."""
        if not self._bound:
            return
        self._young.add(text)
        if len(self._young) >= self._bound:
            self.has_forgotten = self.has_forgotten or bool(self._old)
            self._young, self._old = set(), self._young

    def __contains__(self, text: object) -> bool:
        """Return whether a text was added and is not forgotten."""
        return text in self._young or text in self._old
