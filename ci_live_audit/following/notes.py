"""What is noted of streams in a checkpoint, if there is one; what is shared is another matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.places import Place
from ci_live_audit.following.streams import Records

__all__ = ["Notes", "StreamRecord"]


class StreamRecord(Protocol):
    """What is noted of streams, for later runs or for other processes."""

    @property
    def outlast(self) -> bool:
        """Whether what is noted outlasts the run."""
        ...

    async def read(self) -> Records:
        """Return what was noted by earlier runs."""
        ...

    async def stream(self, place: Place) -> None:
        """Note that a stream is about to be submitted."""

    async def job(self, place: Place) -> None:
        """Note the job of a stream."""

    async def refuse(self, place: Place) -> None:
        """Note that a stream was not submitted, now or with `commit`."""

    async def release(self, place: Place) -> None:
        """Note that no job runs for a stream."""

    def end(self, place: Place, *, may_come_again: bool = False) -> None:
        """Keep in mind that a job has ended, for `commit`."""

    def seen(self, job_id: str) -> bytes:
        """Return what was seen of a job by earlier runs."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Note what the consumer has dealt with: a finding, or the end of a job.

        Raises:
            OSError: It cannot be noted.
        """


class Notes:
    """Notes what happens to streams in a file, each before anything else happens to it.

    Args:
        checkpoint: Where it is noted, if anywhere.
        may_go_on: Waits after an error until the same may be tried again, and returns whether it
            should be.
    """

    def __init__(
        self, checkpoint: Checkpoint | None, may_go_on: Callable[[OSError], Awaitable[bool]]
    ) -> None:
        self._checkpoint = checkpoint
        self._may_go_on = may_go_on
        #: Keys of streams whose job has ended, by its id, until the consumer has dealt with that;
        #: and whether the stream may be submitted again.
        self._ended: dict[str, tuple[str, bool]] = {}

    @property
    def outlast(self) -> bool:
        """Whether what is noted outlasts the run."""
        return self._checkpoint is not None

    async def read(self) -> Records:
        """Return what was noted by earlier runs."""
        return Records() if self._checkpoint is None else await self._checkpoint.streams()

    async def stream(self, place: Place) -> None:
        """Note that a stream is about to be submitted."""
        await self._note(lambda checkpoint: checkpoint.note_stream(place.key, place.stream))

    async def job(self, place: Place) -> None:
        """Note the job of a stream."""
        await self._note(lambda checkpoint: checkpoint.note_job(place.key, place.job_id))

    async def refuse(self, place: Place) -> None:
        """Note that a stream was not submitted."""
        await self.release(place)

    async def release(self, place: Place) -> None:
        """Note that no job runs for a stream."""
        await self._note(lambda checkpoint: checkpoint.release_stream(place.key, place.job_id))

    def end(self, place: Place, *, may_come_again: bool = False) -> None:
        """Keep in mind that a job has ended, for `commit`."""
        if self._checkpoint is not None:
            self._ended[place.job_id] = place.key, may_come_again

    def seen(self, job_id: str) -> bytes:
        """Return what was seen of a job by earlier runs."""
        return b"" if self._checkpoint is None else self._checkpoint.seen(job_id)

    async def commit(self, commit: Commit) -> None:
        """Note what the consumer has dealt with: a finding, or the end of a job.

        Raises:
            OSError: It cannot be noted.
        """
        if self._checkpoint is None:
            return
        ended = self._ended.get(commit.job_id)
        if commit.action == "end" and ended is not None:
            key, may_come_again = ended
            if may_come_again:
                await self._checkpoint.release_stream(key, commit.job_id)
            else:
                await self._checkpoint.end_stream(
                    key, commit.job_id, verdict=commit.verdict, error=commit.error
                )
            del self._ended[commit.job_id]
        elif commit.action == "keep":
            self._checkpoint.keep(commit.job_id, commit.seen)

    async def _note(self, note: Callable[[Checkpoint], Awaitable[None]]) -> None:
        while self._checkpoint is not None:
            try:
                await note(self._checkpoint)
            except OSError as problem:
                if await self._may_go_on(problem):
                    continue
            return
