"""How a run polls, and what it makes of the responses."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol, TypeAlias, TypeVar

import attrs

from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import AnyCheckpoint
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.nudges import CallbackSource, check_source
from ci_live_audit.following.reading import Reading
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.models import AuditJob
from ci_live_audit.observers import Audience

__all__ = ["HasRoom", "Polling", "Query", "Reader"]

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R", bound=Reading)
HasRoom: TypeAlias = Callable[[int], bool]
Query: TypeAlias = Callable[[str, Reading], Awaitable[AuditJob]]


@attrs.frozen
class Polling:
    """How a run polls, and what it keeps.

    ``query`` waits for the ``limiter``, which lets ``rate`` requests a second pass; ``probe`` is
    used in its place during an outage, and makes a single attempt. With ``keep_last`` the whole
    last response of every job is kept for a `WaitTimeout`. All happens within a ``scope``. What
    comes of ``callbacks`` makes its job due. The ``audience`` is told of the run, which is of a
    ``kind``: the method that made it.
    """

    query: Query
    interval: float
    timeout: float | None = None
    limiter: BackgroundRateLimiter | None = None
    rate: float = math.inf
    checkpoint: AnyCheckpoint | None = None
    keep_last: bool = False
    probe: Query | None = None
    scope: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    callbacks: CallbackSource | None = attrs.field(default=None, validator=check_source)
    kind: str = "as_completed"
    audience: Audience = attrs.field(factory=Audience)


class Reader(Protocol[R, T_co]):
    """What a run makes of the responses."""

    def begin(self, job_id: str, seen: bytes) -> None:
        """Begin to follow a job of which this has been seen, in the bytes of `Commit.seen`."""
        ...

    def drop(self, job_id: str) -> None:
        """Forget a job that is followed no longer."""
        ...

    def reading(self, job_id: str, has_room: HasRoom) -> R:
        """Return what reads the next response about a job.

        ``has_room`` tells whether what is made of so many bytes can wait for the consumer.
        """
        ...

    def items(self, update: Update, reading: R | None) -> tuple[Iterator[tuple[T_co, Commit]], int]:
        """Return what an update is for the consumer, and how many items that will be.

        With each comes what is to be noted once the consumer has dealt with it. ``reading`` has
        read the response, if the update comes of one.
        """
        ...

    def told(self, job_id: str, job: AuditJob) -> tuple[Iterator[tuple[T_co, Commit]], int, bool]:
        """Return what a trusted callback is for the consumer, and how many items that will be.

        The last value tells whether that is all; if not, the job has to be polled.
        """
        ...
