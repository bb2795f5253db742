"""Where the ids of a run come from: a collection, an iterable, or an async iterable."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
)
from enum import Enum
from typing import TypeAlias, cast

from ci_live_audit._loop import cancel_and_wait
from ci_live_audit.errors import ConfigurationError

__all__ = ["Ids", "Nothing", "Source"]


class Nothing(Enum):
    """What is taken where there is no id."""

    AT_HAND = 0


Source: TypeAlias = Iterable[str] | AsyncIterable[str]


class Ids:
    """Ids, read as they are wanted.

    Args:
        job_ids: The source. A collection is copied, so it may change meanwhile.
        first: Ids that come before.

    Attributes:
        known: Whether it is known from the beginning how many there are.
        exhausted: Whether none are left.

    Raises:
        ConfigurationError: The source is none.
    """

    def __init__(self, job_ids: Source, first: tuple[str, ...] = ()) -> None:
        if isinstance(job_ids, str | bytes) or not isinstance(job_ids, Iterable | AsyncIterable):
            raise ConfigurationError(
                "job_ids: expected a list of ids, an iterable or an async iterable; "
                f"got {type(job_ids).__name__}"
            )
        self.known: bool = isinstance(job_ids, Collection)
        self._source = aiter(job_ids) if isinstance(job_ids, AsyncIterable) else None
        self._reader: asyncio.Task[None] | None = None
        # One lies here, and the reader has one more in hand.
        self._read: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self._given = (*first, *job_ids) if isinstance(job_ids, Collection) else first
        self._place = 0
        self._iterator: Iterator[str] = iter(())
        if isinstance(job_ids, Iterable) and not self.known and self._source is None:
            self._iterator = iter(job_ids)
        self.exhausted: bool = self.known and not self._given

    def open(self, arrived: Callable[[], object]) -> None:
        """Begin to read.

        Args:
            arrived: Called when there is something that was not there before.
        """
        if self._source is not None:
            self._reader = asyncio.create_task(self._read_all(self._source, arrived))
            self._reader.add_done_callback(lambda _: arrived())

    async def _read_all(self, source: AsyncIterator[str], arrived: Callable[[], object]) -> None:
        async for job_id in source:
            await self._read.put(job_id)
            arrived()

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reader is None:
            return
        try:
            await cancel_and_wait({self._reader})
        finally:
            if inspect.isasyncgen(self._source):
                # Left to the garbage collector it would be closed in a task that nobody awaits.
                await cast("AsyncGenerator[str, None]", self._source).aclose()

    @property
    def unread(self) -> int:
        """How many are left, if that is known; otherwise 0."""
        return len(self._given) - self._place if self.known else 0

    @property
    def at_hand(self) -> bool:
        """Whether `take` would find something: an id, the end, or what ended the reading."""
        if self.exhausted or self._reader is None or self._place < len(self._given):
            return not self.exhausted
        return not self._read.empty() or self._reader.done()

    def take(self) -> str | Nothing:
        """The next id, if there is one at hand.

        Raises:
            Exception: Whatever the source raises.
        """
        if self._place < len(self._given):
            self._place += 1
            self.exhausted = self.known and not self.unread
            return self._given[self._place - 1]
        if not self._read.empty():
            return self._read.get_nowait()
        if self._reader is not None and not self._reader.done():
            return Nothing.AT_HAND
        for job_id in self._iterator:
            return job_id
        if self._reader is not None:
            self._reader.result()
        self.exhausted = True
        return Nothing.AT_HAND
