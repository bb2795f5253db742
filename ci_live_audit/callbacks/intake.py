"""What becomes of a callback: the status that answers it, and who hears of it. No I/O."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

from ci_live_audit._forks import Inherited
from ci_live_audit.callbacks.consumer import Consumer, consumer
from ci_live_audit.callbacks.listeners import Listeners
from ci_live_audit.callbacks.tokens import Grant, Tokens
from ci_live_audit.errors import DecodeError
from ci_live_audit.wire.callbacks import Callback, decode

__all__ = ["Headers", "Intake", "Result", "read"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")

Result: TypeAlias = Literal["taken", "duplicate", "refused", "unreadable", "probe", "busy"]
#: Callbacks that are known when they come again.
REMEMBERED = 50_000
#: Seconds from one warning to the next.
QUIET = 60.0


class Headers(Protocol):
    """The headers of a request, as any framework has them."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return names and values."""
        ...


class Intake:
    """Decides on callbacks, from any thread, and counts what it decides.

    Attributes:
        counts: How many had each result.
        listeners: Those who are told of new callbacks.
        consumer: The one function that they are handed to, if there is one.
        reading: A mark for each body that is being read.
    """

    def __init__(self, tokens: Tokens, on_callback: Callable[[Callback], Any] | None) -> None:
        self.tokens: Tokens = tokens
        self.consumer: Consumer | None = None if on_callback is None else consumer(on_callback)
        self.listeners: Listeners = Listeners()
        self.counts: dict[Result, int] = dict.fromkeys(
            ("taken", "duplicate", "refused", "unreadable", "probe", "busy"), 0
        )
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._warned: dict[str, float] = {}
        self.renew()
        _intakes.add(self)

    def renew(self) -> None:
        """Let go of what belongs to the parent of a forked process."""
        self._lock = threading.RLock()
        self.reading: set[object] = set()
        self.listeners.renew()
        if self.consumer is not None:
            self.consumer.renew()

    def count(self, result: Result, status: int) -> int:
        """Count a result, and return the status that tells it."""
        with self._lock:
            self.counts[result] += 1
        return status

    def cannot_read(self, problem: DecodeError) -> int:
        """Return the status for a body that cannot be read: to repeat it would not help."""
        self._warn("a callback cannot be read: %s", problem)
        return self.count("unreadable", 200)

    def decide(self, grant: Grant, callback: Callback, size: int) -> int:
        """Return the status for a callback, and tell of it if it is new.

        Args:
            grant: What the token of its URL permits.
            callback: The callback.
            size: Bytes of its body.
        """
        if callback.probe:
            return self.count("probe", 200)
        # What names no job is about no other stream.
        if callback.job_id is not None and not grant.covers(callback.data_id):
            self._warn("a callback came to the URL of another data_id")
            return self.count("refused", 404)
        key = bytes.fromhex(callback.key)
        with self._lock:
            if key in self._seen:
                self._seen.move_to_end(key)
                if callback.form == "Simple":
                    # It has no time and no state, so what is new may look the same.
                    self.listeners.tell(callback, size)
                return self.count("duplicate", 200)
            if self.consumer is not None and not self.consumer.add(callback, size):
                self._warn("callbacks are sent away: on_callback is too slow")
                return self.count("busy", 503)
            self._seen[key] = None
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        self.listeners.tell(callback, size)
        return self.count("taken", 200)

    def _warn(self, text: str, *about: object) -> None:
        """Log a warning, unless the same was logged lately."""
        now = time.monotonic()
        with self._lock:
            if now < self._warned.get(text, 0.0):
                return
            self._warned[text] = now + QUIET
        logger.warning(text, *about)


def read(body: bytes, headers: Headers | None) -> Callback:
    """Decode a body.

    Raises:
        DecodeError: It is no callback.
    """
    given = {} if headers is None else dict(headers.items())
    return decode(body, given, received_at=datetime.now(UTC))


_intakes: Inherited[Intake] = Inherited(Intake.renew)
