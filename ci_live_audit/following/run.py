"""The consumer's side of a run: an async iterator over what comes of its jobs."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, Self, TypeVar

import anyio

from ci_live_audit._loop import wait_for
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.dispatcher import Dispatcher, Polling, Reader
from ci_live_audit.following.ids import Source

__all__ = ["Run"]

T = TypeVar("T")

#: The loop does something else after this many jobs of one deadline.
EXPIRED = 100


class Run(Generic[T]):
    """Follows jobs until they have ended, and yields the items that come of each update."""

    def __init__(self, polling: Polling, job_ids: Source, reader: Reader[Any, T]) -> None:
        # ``reader`` has no reference to the run, which is freed as soon as it is left.
        self._dispatcher = Dispatcher(polling, job_ids, reader)
        self._entered = self._left = self._awaited = False
        self._expired = 0
        self._in_hand: Commit | None = None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigurationError("a run can be entered once; make another one")
        self._dispatcher.start()
        self._entered = True
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self._left = True
        try:
            if exc_type is None:
                await self._settle()
        finally:
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
            if not dispatcher.backlog and dispatcher.expire():
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
            await wait_for(dispatcher.changed, dispatcher.schedule.deadline())
        raise StopAsyncIteration
