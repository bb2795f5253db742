"""``--checkpoint`` and ``--shared``: what outlives a command, or is shared with others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ci_live_audit.cli.output import Output
from ci_live_audit.cli.session import Settings
from ci_live_audit.following.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ci_live_audit.redis import RedisCheckpoint

__all__ = ["Record", "opened"]


@attrs.frozen
class Record:
    """What a command has to know of earlier runs, or of other processes.

    Attributes:
        file: The checkpoint of this process alone, if it has one.
        shared: That of several processes, if this is one of them.
    """

    file: Checkpoint | None = None
    shared: RedisCheckpoint | None = None

    @property
    def checkpoint(self) -> Checkpoint | RedisCheckpoint | None:
        """What a run takes."""
        return self.file or self.shared

    def tell(self, output: Output) -> None:
        """Say what is left for the other processes, if this is one of several."""
        if self.shared is not None and self.shared.remaining is None:
            output.say("how many are open in all processes is not known: Redis has not said it")
        elif self.shared is not None:
            left = self.shared.remaining
            rest = "; the others go on with them, and so does the same command" if left else ""
            output.say(f"{left:,} open in all processes{rest}")


@asynccontextmanager
async def opened(
    settings: Settings, checkpoint: Path | None, shared: str | None
) -> AsyncGenerator[Record, None]:
    """Open the file of a command, or what it shares with others, or neither.

    Raises:
        ConfigurationError: The file is not a checkpoint, or in use; the URL of Redis is none.
        OSError: The file cannot be read or written.
    """
    if checkpoint is not None:
        with Checkpoint(checkpoint) as file:
            yield Record(file)
    elif shared is not None:
        from ci_live_audit.redis import RedisCheckpoint  # noqa: PLC0415 - 15 ms

        async with RedisCheckpoint(settings.redis, shared) as store:
            yield Record(shared=store)
    else:
        yield Record()
