"""Reads the ids of a run from a collection, an iterable or an async iterable."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol, TypeAlias, cast

from ci_live_audit._loop import cancel_and_wait
from ci_live_audit.errors import ConfigurationError, InvalidInput
from ci_live_audit.following.commit import Commit

__all__ = ["AnyCheckpoint", "Following", "Ids", "Nothing", "Source"]


class Nothing(Enum):
    """Stands in place of an id where there is none."""

    EMPTY = 0


Source: TypeAlias = Iterable[str] | AsyncIterable[str]


class Following(Protocol):
    """The run that follows the ids."""

    def look(self) -> None:
        """Look again at what there is to do."""

    def drop(self, job_id: str) -> None:
        """Stop following a job, and hand out nothing more of it."""

    def is_spare(self, job_id: str) -> bool:
        """Return whether a job could be dropped, as the consumer is to get nothing of it yet."""
        ...


class Ids:
    """Ids, read when they are needed; a collection is copied, so it may change afterwards.

    What a run says about its jobs is noted by the subclasses.

    Args:
        job_ids: Where they come from.
        first: Ids that come before those.

    Attributes:
        known: Whether their number is known from the start.
        exhausted: Whether none is left.
        come_and_go: Whether jobs may be taken away, and given again.
    """

    come_and_go: bool = False

    def __init__(self, job_ids: Source, first: tuple[str, ...] = ()) -> None:
        if isinstance(job_ids, str | bytes) or not isinstance(job_ids, Iterable | AsyncIterable):
            raise InvalidInput(
                "job_ids: expected a list of ids, an iterable or an async iterable; "
                f"got {type(job_ids).__name__}"
            )
        self.known: bool = isinstance(job_ids, Collection)
        self._source: AsyncIterator[str] | None = None
        self._reader: asyncio.Task[None] | None = None
        # Holds one id; the reader has one more in hand.
        self._read: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        rest: Iterable[str] = ()
        if isinstance(job_ids, Collection):
            first = (*first, *job_ids)
        elif isinstance(job_ids, AsyncIterable):
            self._source = aiter(job_ids)
        else:
            rest = job_ids
        self._iterator = itertools.chain(first, rest)
        self._left = len(first)
        self.exhausted: bool = self.known and not first

    def serve(self, run: Following) -> None:
        """Begin to serve a run."""
        self.open(run.look)

    def open(self, arrived: Callable[[], object]) -> None:
        """Begin to read; ``arrived`` is called when an id has come, or the reading has ended."""
        if self._source is not None:
            self._reader = asyncio.create_task(self._read_all(self._source, arrived))
            self._reader.add_done_callback(lambda _: arrived())

    async def _read_all(self, source: AsyncIterator[str], arrived: Callable[[], object]) -> None:
        async for job_id in source:
            if isinstance(job_id, str):
                # Without room on the disk it is noted when it is taken up.
                with suppress(OSError):
                    self.note(job_id)
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
                # The garbage collector would close it in a task that nobody awaits.
                await cast("Any", self._source).aclose()

    @property
    def unread(self) -> int:
        """The number of ids left, if it is known; otherwise 0."""
        return self._left if self.known else 0

    @property
    def go_first(self) -> bool:
        """Whether what is at hand goes before what is due."""
        return False

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be polled or handed out now."""
        return False

    @property
    def at_hand(self) -> bool:
        """Whether `take` would find something: an id, the end, or an exception of the source."""
        if self.exhausted or self._reader is None or self._left > 0:
            return not self.exhausted
        return not self._read.empty() or self._reader.done()

    def take(self) -> str | Nothing:
        """Return the next id, or ``Nothing.EMPTY``; an exception of the source is raised."""
        try:
            for job_id in self._iterator:
                self._left -= 1
                self.exhausted = self.known and not self._left
                return job_id
            if not self._read.empty():
                return self._read.get_nowait()
            if self._reader is not None and not self._reader.done():
                return Nothing.EMPTY
            if self._reader is not None:
                self._reader.result()
        except asyncio.CancelledError as problem:
            # Nobody cancels the consumer, which must not take this for a cancellation of its own.
            raise ConfigurationError("job_ids: the source was cancelled") from problem
        self.exhausted = True
        return Nothing.EMPTY

    def is_done(self, job_id: str) -> bool:  # noqa: ARG002
        """Return whether an id is not to be followed, as nothing more is to be said of it."""
        return False

    def note(self, job_id: str) -> bytes:  # noqa: ARG002
        """Note that an id has been taken, and return what was seen of it before.

        Raises:
            OSError: It cannot be noted.
        """
        return b""

    async def commit(self, commit: Commit) -> None:
        """Note what has been dealt with.

        Raises:
            OSError: It cannot be noted.
        """

    def put_back(self, job_id: str) -> None:
        """Let an id be taken once more."""
        self._iterator = itertools.chain([job_id], self._iterator)
        self._left += 1
        self.exhausted = False


class AnyCheckpoint(Protocol):
    """What outlives a run: `Checkpoint`, a file, or a `SharedCheckpoint` of several processes."""

    def bind(self, bucket: str, region: str) -> None:
        """Note the bucket and the region of the jobs; each run on a client does."""

    def begin(self, job_ids: Source) -> Ids:
        """Return the ids of one run: those that are open, and those of a source."""
        ...
