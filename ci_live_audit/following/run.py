"""The consumer's side of a run: an async iterator over what comes of its jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import anyio
import attrs

from ci_live_audit._loop import running_loop, wait_for
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.dispatcher import Dispatcher
from ci_live_audit.following.ids import Source
from ci_live_audit.following.polling import Polling, Reader
from ci_live_audit.following.progress import Progress

__all__ = ["Run"]

T = TypeVar("T")

#: The loop does something else after this many jobs of one deadline.
EXPIRED = 100


@attrs.frozen
class _Followed:
    """A run as its observers see it."""

    kind: str
    _dispatcher: Dispatcher[Any, Any]
    _time: Callable[[], float]

    @property
    def open(self) -> int:
        """The number of known ids without an outcome; 0 once an error has ended the run."""
        schedule = self._dispatcher.schedule
        return schedule.unread + schedule.open if self._dispatcher.error is None else 0

    @property
    def lag(self) -> float:
        """The seconds by which the most overdue job is late."""
        return max(0.0, self._time() - self._dispatcher.due) if self.open else 0.0


class Run(Generic[T]):
    """Follows jobs until they have ended, and yields the items that come of each update."""

    def __init__(self, polling: Polling, job_ids: Source, reader: Reader[Any, T]) -> None:
        # ``reader`` has no reference to the run, which is freed as soon as it is left.
        self._dispatcher = Dispatcher(polling, job_ids, reader)
        self._polling = polling
        self._followed: _Followed | None = None
        self._entered = self._left = self._awaited = False
        self._expired = 0
        self._in_hand: Commit | None = None

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self._dispatcher.progress

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigurationError("a run can be entered once; make another one")
        self._dispatcher.start()
        self._entered = True
        self._followed = _Followed(self._polling.kind, self._dispatcher, running_loop().time)
        self._polling.audience.tell("run_began", self._followed)
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self._left = True
        self._polling.audience.tell("run_ended", self._followed)
        try:
            if exc_type is None:
                await self._settle()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """Stop everything."""
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            await self._dispatcher.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item; the one before counts as dealt with."""
        if not self._entered:
            raise ConfigurationError("enter the run first: async with … as …")
        if self._awaited:
            raise ConfigurationError(
                "another task is waiting for the next item of this run; let one task pass them on"
            )
        self._awaited = True
        try:
            await self._settle()
            item, self._in_hand = await self._next()
            self._dispatcher.in_hand = self._in_hand.job_id
            return item
        finally:
            self._awaited = False

    async def _settle(self) -> None:
        """Note in the checkpoint that the item in hand has been dealt with."""
        commit, self._in_hand = self._in_hand, None
        if commit is not None:
            self._dispatcher.in_hand = None
            try:
                await self._dispatcher.commit(commit)
            except OSError:
                self._in_hand = commit  # without room on the disk it is noted the next time
                raise

    async def _next(self) -> tuple[T, Commit]:
        dispatcher = self._dispatcher
        while not self._left:
            if not (dispatcher.backlog or dispatcher.is_paused) and dispatcher.expire():
                self._expired += 1
                if self._expired % EXPIRED == 0:
                    await asyncio.sleep(0)
            if dispatcher.backlog and not dispatcher.is_paused:
                dispatcher.wake.set()
                return dispatcher.backlog.take()
            if dispatcher.error is not None:
                raise dispatcher.error
            if dispatcher.write_error is not None:
                raise dispatcher.retry_write()
            if dispatcher.is_over:
                break
            # While the run is paused, the jobs may be another's: none expires.
            until = math.inf if dispatcher.is_paused else dispatcher.schedule.deadline()
            await wait_for(dispatcher.changed, until)
        raise StopAsyncIteration
