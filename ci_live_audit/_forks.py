"""What a forked child has to do about what it inherits from its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

__all__ = ["Inherited"]

T = TypeVar("T")


class Inherited(WeakSet[T]):
    """A set with each of whose members every forked child calls a function."""

    def __init__(self, function: Callable[[T], object]) -> None:
        super().__init__()
        self._function = function
        if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
            os.register_at_fork(after_in_child=self.call)

    def call(self) -> None:
        """Call the function with each member."""
        for member in list(self):
            self._function(member)
