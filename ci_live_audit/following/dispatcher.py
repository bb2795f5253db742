"""Polls jobs within the quota, over any ``query(job_id)``.

Whenever the quota has room for a request, the next job is taken from the schedule and polled in a
task of its own: there are as many tasks as requests in flight, whatever the number of jobs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Generic, TypeVar

from ci_live_audit._loop import cancel_and_wait, running_loop, wait_for
from ci_live_audit.errors import ConfigurationError, LiveAuditError, TransportError
from ci_live_audit.following.backlog import Backlog
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import Ids, Nothing, Source
from ci_live_audit.following.ledger import Ledger, Update
from ci_live_audit.following.polling import Polling, Reader
from ci_live_audit.following.progress import Progress
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.recent import REMEMBERED
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.models import AuditJob
from ci_live_audit.wire.callbacks import Callback

__all__ = ["Dispatcher"]

T = TypeVar("T")
R = TypeVar("R", bound=Reading)

#: The requests of this many seconds may be in flight, so that slow responses cost no slot.
IN_FLIGHT = 10.0
#: Known ids are skipped in portions of this many, and of at most this many seconds.
SKIP, TURN = 1000, 0.005
#: If the loop wakes up this many seconds late, the process was stopped, or the machine asleep. Then
#: no deadline passes before jobs could be polled once more.
LATE, GRACE = 1.0, 5.0


class Dispatcher(Generic[R, T]):
    """Polls the jobs of one run, and makes items for the consumer of each update.

    It sets ``changed`` when the consumer should look again; the consumer sets ``wake`` when
    something may be polled again.
    """

    def __init__(self, polling: Polling, job_ids: Source, reader: Reader[R, T]) -> None:
        self._polling = polling
        self._reader = reader
        checkpoint = polling.checkpoint
        self._ids = Ids(job_ids) if checkpoint is None else checkpoint.begin(job_ids)
        self.commit: Callable[[Commit], Awaitable[None]] = self._ids.commit
        self.schedule: Schedule = Schedule(
            polling.interval,
            polling.timeout,
            polling.rate,
            # What comes and goes is never there twice, and may come again.
            remembered=math.inf if self._ids.known else 0 if self._ids.come_and_go else REMEMBERED,
            nudged=polling.callbacks is not None,
            droppable=self._ids.come_and_go,
        )
        self._ledger = Ledger(self.schedule, keep_last=polling.keep_last)
        self.schedule.unread = self._ids.unread
        self._max_in_flight = round(IN_FLIGHT * min(max(polling.rate, 5.0), 100.0))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._new_first = False
        self._nudged_first = False
        self._trusts = polling.callbacks is not None and polling.callbacks.is_trusted
        self._listening = ExitStack()
        self.backlog: Backlog[tuple[T, Commit]] = Backlog()
        #: The id of which the consumer has something in hand.
        self.in_hand: str | None = None
        self.job: AuditJob | None = None
        self.changed: asyncio.Event = asyncio.Event()
        self.wake: asyncio.Event = asyncio.Event()
        #: What ends the run.
        self.error: BaseException | None = None
        #: The checkpoint cannot be written; the run stands still until the consumer knows.
        self.write_error: OSError | None = None
        self._beat_due = math.inf
        #: When the most overdue job was due, or the next will be.
        self.due: float = math.inf
        self._timer: asyncio.TimerHandle | None = None

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
        now = running_loop().time()
        return Progress(
            open=open_,
            ended=self._ledger.ended,
            failed=self._ledger.failed,
            requests=0 if limiter is None else limiter.requests,
            eta=open_ / self._polling.rate if all_known else None,
            outage=self._ledger.health.outage(now),
            flagged=len(self._ledger.flagged),
            next_poll=max(0.0, self.due - now) if open_ and self.due < math.inf else None,
        )

    def start(self) -> None:
        """Begin to read ids and to poll."""
        now = running_loop().time()
        if self._polling.callbacks is not None:
            self._listening.callback(self._polling.callbacks.subscribe(self._on_callback))
        if self._ids.known:
            self.schedule.share_deadline(now)
        if self.schedule.timeout < math.inf:
            self._beat()
        self._ids.serve(self)
        self._main = asyncio.create_task(self._run())
        self._main.add_done_callback(self._end)

    async def aclose(self) -> None:
        """Stop polling and reading."""
        self._listening.close()
        self.changed.set()
        if self._timer is not None:
            self._timer.cancel()
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
        if now - self._beat_due > LATE:
            self._beat()
        if now < self.schedule.deadline():
            return False
        if self._ids.known:
            self._take_up(now)  # an id that was never read has an outcome as well
        update = self._ledger.expire(now)
        if update is not None and update.job_id in self._tasks:
            self._tasks[update.job_id].cancel()
        self._deliver(update)
        return update is not None

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be polled or handed out now."""
        return self._ids.is_paused

    def look(self) -> None:
        """Look again at what there is to poll, and have the consumer look."""
        self.wake.set()
        self.changed.set()

    def is_spare(self, job_id: str) -> bool:
        """Return whether a job could be dropped, as the consumer is to get nothing of it yet."""
        is_awaited = job_id in self.backlog or job_id == self.in_hand
        return job_id in self.schedule and not is_awaited

    def drop(self, job_id: str) -> None:
        """Stop following a job, which is another process's now."""
        self._ledger.drop(job_id)
        self._reader.drop(job_id)
        self.backlog.drop(job_id)
        if job_id in self._tasks:
            self._tasks[job_id].cancel()

    def retry_write(self) -> OSError:
        """Try to write the checkpoint again from now on, and return the error until now."""
        assert self.write_error is not None
        error, self.write_error = self.write_error, None
        self.wake.set()
        return error

    async def _run(self) -> None:
        async with self._polling.scope():
            await self._dispatch()

    async def _dispatch(self) -> None:
        health = self._ledger.health
        while not self.is_over and self.error is None:
            now = running_loop().time()
            if (free := self._next_free(now)) > now:
                await wait_for(self.wake, free)
                continue
            if self._polling.limiter is not None:
                await self._polling.limiter.wait_for_gate()
            now = running_loop().time()
            job_id = None if self._ids.is_paused else self._pick(now)
            if job_id is not None:
                if health.is_out:
                    health.record_probe(now)
                self._tasks[job_id] = task = asyncio.create_task(self._poll(job_id))
                task.add_done_callback(partial(self._end_poll, job_id))
            # Let the new task enter the limiter first.
            await asyncio.sleep(0)

    def _next_free(self, now: float) -> float:
        """Return when the next poll may be made; infinity until something happens."""
        self.due = self.schedule.due(now)
        full = len(self._tasks) == self._max_in_flight or self.backlog.is_full
        if full or self.write_error is not None or self._ids.is_paused:
            return math.inf
        due = now if self._may_take_up(now) else self.due
        return max(due, self._ledger.health.next_probe)

    def _pick(self, now: float) -> str | None:
        """Return the next job to poll; None if there is none."""
        steps = [self.schedule.pick_last_look, self.schedule.pick]
        self._new_first = not self._new_first
        if self._may_take_up(now) and self._ids.known:
            steps[0] = self._take_up
        elif self._may_take_up(now):  # an endless source would starve the jobs that are due
            steps.insert(1 if self._new_first or self._ids.go_first else 2, self._take_up)
        # While others are due, half of the polls at most are for those that were nudged.
        steps.insert(0 if self._nudged_first else len(steps), self.schedule.pick_nudged)
        job_id = next((job_id for step in steps if (job_id := step(now)) is not None), None)
        self._nudged_first = job_id is None or not self.schedule.is_extra(job_id)
        return job_id

    def _may_take_up(self, now: float) -> bool:
        return self._ids.at_hand and not (self._ids.known and now >= self.schedule.deadline())

    def _take_up(self, now: float) -> str | None:
        """Add a new job to the schedule, and return it; None if none is available."""
        for skipped in range(SKIP):
            if skipped and running_loop().time() - now > TURN:
                break
            job_id = self._ids.take()
            self.schedule.unread = self._ids.unread
            if job_id is Nothing.EMPTY:
                break
            if not isinstance(job_id, str):
                self._deliver(self._ledger.reject(job_id))
                self.changed.set()
            elif not self._ids.is_done(job_id) and job_id not in self.schedule:
                return self._add(job_id, now)
        return None

    def _add(self, job_id: str, now: float) -> str | None:
        """Note a job in the checkpoint and add it to the schedule."""
        try:
            seen = self._ids.note(job_id)
        except OSError as problem:
            self._ids.put_back(job_id)
            self.write_error = problem
            self.changed.set()
            return None
        self._reader.begin(job_id, seen)
        self.schedule.add(job_id, now)
        if self.schedule.open == 1:
            self.changed.set()  # it has the next deadline
        return job_id

    def _on_callback(self, callback: Callback) -> None:
        """Hand out what a trusted callback tells, or have its job polled."""
        job_id, job = callback.job_id, callback.job
        if job_id is None or not self.schedule.follows(job_id):
            return
        # What does not fit in is left to the poll.
        backlog = self.backlog
        has_room = not backlog.is_full and backlog.has_room(callback.size)
        if self._trusts and job is not None and has_room:
            items, number, is_all = self._reader.told(job_id, job)
            backlog.add(items, number, callback.size, job_id)
            self.changed.set()
            if is_all:
                return
        if self.schedule.nudge(job_id, running_loop().time()):
            self.wake.set()

    def _deliver(self, update: Update | None, reading: R | None = None) -> None:
        if update is not None:
            self.job = update.job or self.job
            size = 0 if reading is None else reading.size
            self.backlog.add(*self._reader.items(update, reading), size, update.job_id)

    async def _poll(self, job_id: str) -> None:
        polling = self._polling
        query = polling.probe if self._ledger.health.is_out else None
        reading = self._reader.reading(job_id, self.backlog.has_room)
        try:
            job = await (query or polling.query)(job_id, reading)
        except LiveAuditError as error:
            self._deliver(self._ledger.record_error(job_id, error, running_loop().time()))
        else:
            update = self._ledger.record_job(job_id, job, running_loop().time())
            self._deliver(update, reading)

    def _end_poll(self, job_id: str, task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        self.error = self.error or problem
        if self._tasks.get(job_id) is not task:
            return  # the job is being polled again already, or the run has been left
        del self._tasks[job_id]
        if problem is None and self._ledger.is_in_flight(job_id):  # cancelled from outside
            error = TransportError("the query was cancelled")
            self._deliver(self._ledger.record_error(job_id, error, running_loop().time()))
        self.changed.set()
        self.wake.set()

    def _end(self, task: asyncio.Task[None]) -> None:
        cancelled = ConfigurationError("the run was cancelled from outside, or has been left")
        self.error = self.error or (cancelled if task.cancelled() else task.exception())
        self._listening.close()
        self.changed.set()

    def _beat(self) -> None:
        """Note that the loop is running, and whether it has been standing still."""
        loop = running_loop()
        now = loop.time()
        if now - self._beat_due > LATE:
            self.schedule.extend(now + min(GRACE, self.schedule.timeout))
            self.changed.set()
            self.wake.set()
        if self._timer is not None:
            self._timer.cancel()
        self._beat_due = now + LATE
        self._timer = loop.call_at(self._beat_due, self._beat)
