"""The consumer's side of a run: an async iterator over what comes of its jobs."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import anyio

from ci_live_audit.errors import ConfigurationError, LiveAuditError
from ci_live_audit.following.dispatcher import Dispatcher, Polling, wait_for
from ci_live_audit.following.ids import Source
from ci_live_audit.following.ledger import Update
from ci_live_audit.models import AuditJob

__all__ = ["Run"]

T = TypeVar("T")

#: Nothing is polled while this many items wait for the consumer.
READY = 50
#: The loop does something else after this many jobs of one deadline.
EXPIRED = 100


class Run(Generic[T]):
    """Follows jobs until they have ended. `Outcomes` and `Findings` say which items come of them.

    Args:
        polling: How to poll.
        job_ids: The ids.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(self, polling: Polling, job_ids: Source) -> None:
        self._dispatcher = Dispatcher(polling, job_ids, self._deliver, self._is_full)
        self._ready: deque[T] = deque()
        self._entered = self._left = False
        self._expired = 0

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigurationError("a run can be entered once; make another one")
        self._dispatcher.start()
        self._entered = True
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self._left = True
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            await self._dispatcher.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._entered:
            raise ConfigurationError("enter the run first: async with … as …")
        while not self._left:
            if not self._ready and (update := self._dispatcher.expire()) is not None:
                self._deliver(update)
                self._expired += 1
                if self._expired % EXPIRED == 0:
                    await asyncio.sleep(0)
            if self._ready:
                self._dispatcher.wake.set()
                return self._ready.popleft()
            if self._dispatcher.error is not None:
                raise self._dispatcher.error
            if self._dispatcher.is_over:
                break
            await wait_for(self._dispatcher.changed, self._dispatcher.schedule.deadline())
        raise StopAsyncIteration

    def _deliver(self, update: Update | None) -> None:
        if update is not None and update.job is not None:
            self._ready.extend(self._items(update.job_id, update.job))
        if update is not None and update.error is not None:
            self._ready.extend(self._error_items(update.job_id, update.error))

    def _is_full(self) -> bool:
        return len(self._ready) >= READY

    @abstractmethod
    def _items(self, job_id: str, job: AuditJob) -> Sequence[T]:
        """Return the items that come of a polled job."""

    @abstractmethod
    def _error_items(self, job_id: str, error: LiveAuditError) -> Sequence[T]:
        """Return the items that come of an error after which a job is not followed."""
