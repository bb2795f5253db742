"""Functions that are called with each new callback, each on the event loop of its own."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

from ci_live_audit._loop import running_loop
from ci_live_audit.callbacks.line import Line
from ci_live_audit.wire.callbacks import Callback

__all__ = ["Listeners"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")


class Listeners:
    """Listeners, which know nothing of each other."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget the listeners; for a forked child, which has none of their loops."""
        self._all: dict[_Listener, None] = {}

    def add(self, function: Callable[[Callback], Any]) -> Callable[[], None]:
        """Call a function with each callback from now on, on the running loop.

        Returns:
            A function that ends that, at once.

        Raises:
            ConfigurationError: No event loop is running.
        """
        listener = _Listener(function)
        self._all[listener] = None

        def end() -> None:
            listener.has_ended = True
            self._all.pop(listener, None)

        return end

    def tell(self, callback: Callback, size: int) -> None:
        """Call all listeners soon.

        Args:
            callback: The callback.
            size: Bytes of its body.
        """
        for listener in [*self._all]:
            if not listener.tell(callback, size):
                self._all.pop(listener, None)


class _Listener:
    def __init__(self, function: Callable[[Callback], Any]) -> None:
        self.has_ended = False
        self._function = function
        self._loop = running_loop()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._line = Line()
        self._is_behind = False

    def tell(self, callback: Callback, size: int) -> bool:
        """Call the function soon; return False if its loop is closed."""
        with self._lock:
            is_first = not self._line
            if not self._line.add(callback, size):
                # Callbacks are hints: whoever follows jobs finds the same by asking.
                if not self._is_behind:
                    logger.warning("a listener misses callbacks: its event loop is blocked")
                self._is_behind = True
                return True
            self._is_behind = False
        if is_first:
            try:
                self._loop.call_soon_threadsafe(self._call, context=self._context)
            except RuntimeError:  # the loop is closed
                return False
        return True

    def _call(self) -> None:
        with self._lock:
            line, self._line = self._line, Line()
        while line and not self.has_ended:
            try:
                self._function(line.remove_first())
            except Exception:
                logger.exception("a listener failed")
