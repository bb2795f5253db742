"""Moderates streams from their URLs on: `Moderation` (moderate)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableSet
from contextlib import suppress
from typing import Self

import anyio
import attrs

from ci_live_audit._loop import wait_for_end
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.finding import Finding
from ci_live_audit.following.findings import Watching
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.run import Run
from ci_live_audit.following.seen import News
from ci_live_audit.following.stopping import Cancellation
from ci_live_audit.following.streams import Stream
from ci_live_audit.following.supervisor import Supervisor
from ci_live_audit.models import AuditJob

__all__ = ["Moderation", "close_all"]


class Moderation(Run[Finding]):
    """The findings of streams that are submitted, watched and cancelled: an async iterator.

    Made by `LiveAuditClient.moderate`. Use it as ``async with … as findings``. It ends when all
    streams have ended; it raises what `watch` raises, what the source of the URLs raises, and the
    `OSError` of a checkpoint that cannot be written: called again, it goes on then.

    A submission that fails is a `WatchFailed` without a ``job_id``, and ends no other. It is never
    repeated if it may have happened (``error.may_have_happened``). Where the service takes no more
    streams, or cannot be reached, they wait. Five refusals in a row for a reason of the account
    end the run.

    The arguments of `moderate`:

    - ``urls``: The next one is read when there is room for it. A stream that runs is not submitted
      again. One that has ended may come again, unless it is in the same collection, or over by the
      checkpoint.
    - ``at_once``: Number of streams that run at the same time, at most: ten is the service's
      default. A place is free when the job is known not to run any more. A job whose id was lost
      keeps one for twelve hours, but not the last one.
    - ``interval``, ``timeout``: As of `watch`. A stream that is given up is cancelled.
    - ``cancel_on_exit``: Whether what still runs when the block is left, whatever way, is
      cancelled; otherwise nothing ever is.
    - ``cancel_within``: Seconds that this may take, with the answers of submissions under way.
    - ``checkpoint``: A file that knows of each stream before it is submitted. After a kill, the
      next run goes on with the jobs that it knows, and names the streams of which a job may exist;
      it submits neither again, nor those that are over. What was cancelled when the block was left
      is submitted again when it comes again, for its stream may still run.

      Or a `RedisCheckpoint`, which several processes share: each stream is submitted by one of
      them, ``at_once`` is of all together, and what one follows when it dies goes to the others.
      One that leaves gives them its streams; the last one to leave cancels what runs. If Redis is
      away then, nothing is cancelled, and the next process goes on with it.
      A stream that was refused is tried again when the source gives it again; one of a list, when
      all processes have left and another joins.
    """

    def __init__(
        self, polling: Polling, supervisor: Supervisor, opened: MutableSet[Moderation]
    ) -> None:
        polling = attrs.evolve(polling, checkpoint=supervisor.following)
        super().__init__(polling, supervisor.job_ids(), _Moderating(supervisor))
        self._dispatcher.commit = supervisor.notes.commit
        self._supervisor = supervisor
        self._opened = opened
        self._closing: asyncio.Task[None] | None = None

    @property
    def cancelled(self) -> tuple[Cancellation, ...]:
        """What was cancelled when the block was left; empty before."""
        return self._supervisor.stopping.cancelled

    @property
    def not_cancelled(self) -> tuple[Cancellation, ...]:
        """What may run on after the block was left; empty before.

        These are jobs that could not be cancelled, or were not to be (``cancel_on_exit=False``),
        and submissions whose answer was lost: a job of unknown id may run.
        """
        return self._supervisor.stopping.not_cancelled

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._opened.add(self)
        self._supervisor.start(self._dispatcher)
        return self

    async def __anext__(self) -> Finding:
        """Return the next finding; the one before counts as dealt with."""
        try:
            finding = await super().__anext__()
        finally:
            self._supervisor.look()
        self._polling.audience.tell("found", finding)
        return finding

    async def close(self, error: ConfigurationError | None = None) -> None:
        """Stop everything, and cancel what still runs.

        Args:
            error: What the iteration raises from then on.
        """
        self._dispatcher.error = self._dispatcher.error or error
        cancelled: asyncio.CancelledError | None = None
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            while True:
                if self._closing is None or self._closing.cancelled():  # before it had begun
                    self._closing = asyncio.create_task(self._close())
                    self._closing.add_done_callback(_retrieve)
                closing = self._closing
                try:
                    await asyncio.wait([closing])
                except asyncio.CancelledError as problem:
                    cancelled = problem
                if closing.done() and not closing.cancelled():
                    break
            if cancelled is not None:
                raise cancelled
            closing.result()

    async def _leave(self) -> None:
        await self.close()

    async def _close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self._dispatcher.aclose()
        try:
            await self._supervisor.leave()
        finally:
            self._opened.discard(self)


class _Moderating(Watching):
    """Makes findings that know their stream, and tells the supervisor of the ends of jobs."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__({}, noted=supervisor.notes.outlast)
        self._supervisor = supervisor

    def begin(self, job_id: str, seen: bytes) -> None:
        """Go on where an earlier run has stopped."""
        super().begin(job_id, seen or self._supervisor.notes.seen(job_id))

    def items(
        self, update: Update, reading: News | None
    ) -> tuple[Iterator[tuple[Finding, Commit]], int]:
        """Return the findings of an update."""
        stream = self._supervisor.stream_of(update.job_id)
        findings, number = super().items(update, reading)
        self._supervisor.record(update)
        return _of_stream(stream, findings), number

    def told(
        self, job_id: str, job: AuditJob
    ) -> tuple[Iterator[tuple[Finding, Commit]], int, bool]:
        """Return the findings of a callback; none if it came to the URL of another stream."""
        stream = self._supervisor.stream_of(job_id)
        data_id = None if stream is None else stream.data_id
        if data_id and data_id.strip() != job.data_id:
            return iter(()), 0, False
        findings, number, is_all = super().told(job_id, job)
        return _of_stream(stream, findings), number, is_all


def _of_stream(
    stream: Stream | None, findings: Iterator[tuple[Finding, Commit]]
) -> Iterator[tuple[Finding, Commit]]:
    return ((attrs.evolve(finding, stream=stream), commit) for finding, commit in findings)


def _retrieve(closing: asyncio.Task[None]) -> None:
    """Mark its exception as retrieved, as who waits for it may be cancelled."""
    if not closing.cancelled():
        closing.exception()


async def close_all(opened: MutableSet[Moderation]) -> None:
    """Close what is open, as the client is being closed."""
    error = ConfigurationError("the client was closed during the run")
    closing = [asyncio.create_task(one.close(error)) for one in opened]
    with anyio.CancelScope(shield=True):
        await wait_for_end(closing)
    for task in closing:
        task.result()
