"""Polls jobs within the quota, over any ``query(job_id)``.

Whenever the quota has room for a request, the next job is taken from the schedule and polled in a
task of its own: there are as many tasks as requests in flight, whatever the number of jobs.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import attrs

from ci_live_audit._loop import cancel_and_wait, running_loop
from ci_live_audit.errors import LiveAuditError, TransportError
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.ids import Ids, Nothing, Source
from ci_live_audit.following.ledger import Ledger, Update
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.models import AuditJob

__all__ = ["Dispatcher", "Items", "Polling", "Progress", "wait_for"]

T = TypeVar("T")
Query: TypeAlias = Callable[[str], Awaitable[AuditJob]]
Items: TypeAlias = Callable[[Update], Iterable[T]]

#: The requests of this many seconds may be in flight, so that slow responses cost no slot.
IN_FLIGHT = 10.0
#: Nothing is polled while this many items wait for the consumer.
READY = 50
#: Known ids are skipped in portions of this many.
SKIP = 1000


@attrs.frozen
class Polling:
    """How a run polls, and what it keeps.

    ``query`` waits for the ``limiter``, which lets ``rate`` requests a second pass. With
    ``keep_last`` the last response of every job is kept for a `WaitTimeout`, otherwise only the
    response to its last poll.
    """

    query: Query
    interval: float
    timeout: float | None = None
    limiter: BackgroundRateLimiter | None = None
    rate: float = math.inf
    checkpoint: Checkpoint | None = None
    keep_last: bool = False


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        open: Number of known ids without an outcome.
        ended: Number of jobs that ended well or were cancelled.
        failed: Number of ids that ended in an error, those of failed jobs included.
        requests: Number of requests sent.
        eta: Seconds in which the quota allows one poll of each open job, the earliest end of the
            run; None while there may be ids that are not known yet.
    """

    open: int
    ended: int
    failed: int
    requests: int
    eta: float | None


class Dispatcher(Generic[T]):
    """Polls the jobs of one run, and makes items for the consumer of each update.

    It sets ``changed`` when the consumer should look again; the consumer sets ``wake`` when
    something may be polled again.
    """

    def __init__(self, polling: Polling, job_ids: Source, items: Items[T]) -> None:
        self._polling = polling
        self._items = items
        self.schedule: Schedule = Schedule(polling.interval, polling.timeout, polling.rate)
        self._ledger = Ledger(self.schedule, keep_last=polling.keep_last)
        self._ids = Ids(job_ids, () if polling.checkpoint is None else polling.checkpoint.open)
        self.schedule.unread = self._ids.unread
        self._max_in_flight = round(IN_FLIGHT * min(max(polling.rate, 5.0), 100.0))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._new_first = False
        self.ready: deque[T] = deque()
        self.job: AuditJob | None = None
        self.changed: asyncio.Event = asyncio.Event()
        self.wake: asyncio.Event = asyncio.Event()
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether no job is left to follow."""
        return self._ids.exhausted and not self.schedule.open

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        limiter = self._polling.limiter
        open_ = self._ids.unread + self.schedule.open
        all_known = self._ids.known or self._ids.exhausted
        return Progress(
            open=open_,
            ended=self._ledger.ended,
            failed=self._ledger.failed,
            requests=0 if limiter is None else limiter.requests,
            eta=open_ / self._polling.rate if all_known else None,
        )

    def start(self) -> None:
        """Begin to read ids and to poll."""
        now = running_loop().time()
        if self._ids.known:
            self.schedule.share_deadline(now)
        self._ids.open(self.wake.set)
        self._main = asyncio.create_task(self._dispatch())
        self._main.add_done_callback(self._end)

    async def aclose(self) -> None:
        """Stop polling and reading."""
        self.changed.set()
        tasks = [self._main, *self._tasks.values()]
        self._tasks.clear()
        del self._main  # once cancelled it refers to this, which should be freed at once
        try:
            await cancel_and_wait(tasks)
        finally:
            await self._ids.aclose()

    def expire(self) -> bool:
        """Give up one job whose deadline has passed; return False if there is none."""
        now = running_loop().time()
        if now < self.schedule.deadline():
            return False
        if self._ids.known:
            self._take_up(now)  # an id that was never read has an outcome as well
        update = self._ledger.expire(now)
        if update is not None and update.job_id in self._tasks:
            self._tasks[update.job_id].cancel()
        self._deliver(update)
        return update is not None

    async def _dispatch(self) -> None:
        while not self.is_over:
            now = running_loop().time()
            if len(self._tasks) == self._max_in_flight or len(self.ready) >= READY:
                await wait_for(self.wake, math.inf)
                continue
            if not self._may_take_up(now) and (due := self.schedule.due(now)) > now:
                await wait_for(self.wake, due)
                continue
            if self._polling.limiter is not None:
                await self._polling.limiter.wait_for_gate()
            job_id = self._pick(running_loop().time())
            if job_id is not None:
                self._tasks[job_id] = task = asyncio.create_task(self._poll(job_id))
                task.add_done_callback(partial(self._end_poll, job_id))
            # Let the new task enter the limiter first.
            await asyncio.sleep(0)

    def _pick(self, now: float) -> str | None:
        """Return the next job to poll; None if there is none."""
        steps = [self.schedule.pick_last_look, self.schedule.pick]
        self._new_first = not self._new_first
        if self._may_take_up(now) and self._ids.known:
            steps[0] = self._take_up
        elif self._may_take_up(now):  # an endless source would starve the jobs that are due
            steps.insert(1 if self._new_first else 2, self._take_up)
        return next((job_id for step in steps if (job_id := step(now)) is not None), None)

    def _may_take_up(self, now: float) -> bool:
        return self._ids.at_hand and not (self._ids.known and now >= self.schedule.deadline())

    def _take_up(self, now: float) -> str | None:
        """Add a new job to the schedule, and return it; None if none is available."""
        checkpoint = self._polling.checkpoint
        for _ in range(SKIP):
            job_id = self._ids.take()
            self.schedule.unread = self._ids.unread
            if job_id is Nothing.EMPTY:
                break
            if not isinstance(job_id, str):
                self._deliver(self._ledger.reject(job_id))
                self.changed.set()
            elif checkpoint is not None and job_id in checkpoint:
                pass
            elif self.schedule.add(job_id, now):
                if self.schedule.open == 1:
                    self.changed.set()  # it has the next deadline
                if checkpoint is not None:
                    checkpoint.take(job_id)
                return job_id
        return None

    def _deliver(self, update: Update | None) -> None:
        if update is not None:
            self.job = update.job or self.job
            self.ready.extend(self._items(update))

    async def _poll(self, job_id: str) -> None:
        try:
            job = await self._polling.query(job_id)
        except LiveAuditError as error:
            self._deliver(self._ledger.record_error(job_id, error, running_loop().time()))
        else:
            self._deliver(self._ledger.record_job(job_id, job, running_loop().time()))

    def _end_poll(self, job_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.error = task.exception() or self.error
        if self._tasks.get(job_id) is not task:
            return  # the job is being polled again already, or the run has been left
        del self._tasks[job_id]
        if self._ledger.is_in_flight(job_id):  # cancelled from outside, or broken
            error = TransportError("the query was cancelled")
            self._deliver(self._ledger.record_error(job_id, error, running_loop().time()))
        self.changed.set()
        self.wake.set()

    def _end(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.error = error or self.error
        self.changed.set()


async def wait_for(event: asyncio.Event, until: float) -> None:
    """Wait until an event is set or a time has come, and clear the event."""
    loop = asyncio.get_running_loop()
    timer = loop.call_at(until, event.set) if until < math.inf else None
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
    event.clear()
    await asyncio.sleep(0)  # a loop around this never starves others
