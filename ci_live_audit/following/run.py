"""The machinery of following many jobs, over any ``query(job_id)``.

One task dispatches: whenever the quota has room for a request, it takes the job that has been due
for longest and asks it in a task of its own. So there are as many tasks as requests under way,
whatever the number of jobs. What comes of them lies ready for the consumer, and when too much of
it does, nobody is asked until the consumer has taken some.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

import anyio

from ci_live_audit._loop import cancel_and_wait, running_loop
from ci_live_audit.errors import (
    ConfigurationError,
    CredentialsError,
    LiveAuditError,
    ServiceError,
    TransportError,
    WaitTimeout,
)
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.ids import Ids, Nothing, Source
from ci_live_audit.following.schedule import Schedule
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.models import AuditJob

__all__ = ["Query", "Run"]

Query: TypeAlias = Callable[[str], Awaitable[AuditJob]]
T = TypeVar("T")

#: As many as leave in so many seconds may be under way, so that slow answers cost no slot.
IN_FLIGHT = 10.0
#: While so much waits for the consumer, nobody is asked.
READY = 50
#: A job is given up when it cannot be asked so many times in a row: after ten minutes or more.
FAILURES = 16
#: Seconds before its deadline from which a job's last answer is kept until then; before, it is
#: handed out at once, for there may be very many.
HELD = 1.0
#: After so many jobs of one deadline others may do something.
EXPIRED = 100
#: Ids that are known already are passed over in portions of this many.
SKIP = 1000


class Run(Generic[T]):
    """Follows jobs until they have ended: an async iterator over what comes of them.

    Args:
        query: Asks for a job.
        job_ids: The ids.
        interval: Seconds from asking a job to asking it again, if the quota allows.
        timeout: Seconds for which a job is followed; None for no limit.
        limiter: The limiter that ``query`` waits for.
        rate: Its requests a second.
        checkpoint: Where it is noted what has been taken up and answered.
        keep_last: Whether the newest answer of every job is kept for a `WaitTimeout`, not only the
            one that came in time to be the last.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        query: Query,
        job_ids: Source,
        *,
        interval: float,
        timeout: float | None,
        limiter: BackgroundRateLimiter | None = None,
        rate: float = math.inf,
        checkpoint: Checkpoint | None = None,
        keep_last: bool = False,
    ) -> None:
        self._query = query
        self._schedule = Schedule(interval, timeout, rate)
        self._timeout = timeout
        self._limiter = limiter
        self._rate = rate
        self._checkpoint = checkpoint
        self._ids = Ids(job_ids, first=() if checkpoint is None else checkpoint.open)
        self._limit = round(IN_FLIGHT * min(max(rate, 5.0), 100.0))
        self._began = 0.0
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._failures: dict[int, int] = {}
        self._keep_last = keep_last
        self._last: dict[int, AuditJob] = {}
        # Those that have been asked for the last time, and the error if that came to nothing.
        self._spent: dict[int, LiveAuditError | None] = {}
        self._expired = 0
        self._polls = 0
        self._succeeded = False
        self._new_turn = False
        self._ready: deque[T] = deque()
        self._broken: BaseException | None = None
        self._dispatcher: asyncio.Task[None] | None = None
        self._left = False
        # Something for the consumer; something for the dispatcher.
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    # The consumer's side

    async def __aenter__(self) -> Self:
        if self._dispatcher is not None:
            raise ConfigurationError("a run can be entered once; make another one")
        self._began = running_loop().time()
        self._ids.open(self._room.set)
        self._dispatcher = asyncio.create_task(self._dispatch())
        self._dispatcher.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._dispatcher is not None
        self._left = True
        self._news.set()
        # In a cancelled scope of anyio every await would end at once.
        with anyio.CancelScope(shield=True):
            try:
                await cancel_and_wait({self._dispatcher, *self._asked.values()})
            finally:
                await self._ids.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._dispatcher is None:
            raise ConfigurationError("enter the run first: async with … as …")
        while not self._left:
            self._expire()
            if self._expired == EXPIRED:
                self._expired = 0
                await asyncio.sleep(0)
            if self._ready:
                self._room.set()
                return self._ready.popleft()
            if self._broken is not None:
                raise self._broken
            if self._is_over():
                break
            if self._dispatcher.done():
                self._dispatcher.result()
            await _wait(self._news, until=self._deadline())
        raise StopAsyncIteration

    def _is_over(self) -> bool:
        return self._ids.exhausted and not self._schedule.open

    def _expire(self) -> None:
        """Answer for one job whose time is up, unless there is something else to take."""
        now = _time()
        if self._ready or now < self._deadline():
            return
        if self._ids.known:
            self._take_up(now)
        number = self._schedule.expired(now)
        if number is not None:
            if number in self._asked:
                self._asked[number].cancel()
            self._give_up(number, self._timed_out(number))
            self._expired += 1

    def _deadline(self) -> float:
        """When the next job runs out of time."""
        if self._ids.known and not self._ids.exhausted and self._timeout is not None:
            return self._began + self._timeout
        return self._schedule.deadline()

    # The dispatcher's side

    async def _dispatch(self) -> None:
        while not self._is_over():
            has_room = len(self._asked) < self._limit and len(self._ready) < READY
            until = self._due() if has_room else math.inf
            if until > _time():
                await _wait(self._room, until=until)
                continue
            if self._limiter is not None:
                await self._limiter.wait_for_gate()
            number = self._pick()
            if number is not None:
                self._asked[number] = task = asyncio.create_task(self._ask(number))
                task.add_done_callback(partial(self._end, number))
            # Until whoever is asked now stands in the limiter.
            await asyncio.sleep(0)

    def _due(self) -> float:
        now = _time()
        return now if self._may_take_up(now) else self._schedule.due(now)

    def _pick(self) -> int | None:
        """The next job to ask, if there is one.

        New ones first if it is known how many they are; otherwise they take turns with those that
        are due, for a source without end would never let these be asked again.
        """
        now = _time()
        number = None
        if not (self._ids.unread and self._may_take_up(now)):
            number = self._schedule.pick_last_look(now)
        self._new_turn = self._ids.known or not self._new_turn
        if number is None and self._new_turn and self._may_take_up(now):
            number = self._take_up(now)
        if number is None:
            number = self._schedule.pick(now)
        if number is None and not self._new_turn and self._may_take_up(now):
            number = self._take_up(now)
        return number

    def _may_take_up(self, now: float) -> bool:
        return self._ids.at_hand and not (self._ids.known and now >= self._deadline())

    def _take_up(self, now: float) -> int | None:
        """A job that is new to the run; None if there is none at hand."""
        for _ in range(SKIP):
            job_id = self._ids.take()
            self._schedule.unread = self._ids.unread
            if isinstance(job_id, Nothing):
                break
            if not isinstance(job_id, str):
                reason = f"job_ids: expected texts; got {type(job_id).__name__}"
                self._deliver_error(None, job_id, ConfigurationError(reason))
                self._news.set()
                continue
            if self._checkpoint is not None and job_id in self._checkpoint:
                continue
            since = self._began if self._ids.known else now
            number = self._schedule.take_up(job_id, now, since)
            if number is not None:
                if self._checkpoint is not None:
                    self._checkpoint.take(job_id)
                return number
        return None

    async def _ask(self, number: int) -> None:
        self._polls += 1
        try:
            job = await self._query(self._schedule.job_id(number))
        except LiveAuditError as error:
            self._failed(number, error)
        else:
            self._answered(number, job)

    def _answered(self, number: int, job: AuditJob) -> None:
        self._succeeded = True
        self._failures.pop(number, None)
        if not self._schedule.is_asked(number):
            return  # its time was up
        self._deliver(number, job)
        if self._keep_last:
            self._last[number] = job
        if job.ended:
            self._schedule.answer(number)
        elif not self._schedule.again(number, _time()):
            self._last[number] = job
            self._spend(number, None)

    def _failed(self, number: int, error: LiveAuditError) -> None:
        if not self._schedule.is_asked(number):
            return
        failures = self._failures.get(number, 0) + 1
        if not (error.transient or self._may_pass(error)) or failures >= FAILURES:
            self._give_up(number, error)
        elif self._schedule.again(number, _time(), failures, at_least=_asked_to_wait(error)):
            self._failures[number] = failures
        else:
            self._spend(number, error)

    def _may_pass(self, error: LiveAuditError) -> bool:
        """Whether an error that lasts for a single call may be gone by the next turn."""
        if isinstance(error, CredentialsError):
            return self._succeeded
        # A refusal without a document is not the service's own: a proxy's page, half an answer.
        return isinstance(error, ServiceError) and error.status > 0 and not error.code

    def _spend(self, number: int, error: LiveAuditError | None) -> None:
        """A job will not be asked again, but it has until its deadline."""
        self._spent[number] = error
        if self._schedule.deadline_of(number) - _time() > HELD:
            self._give_up(number, self._timed_out(number))

    def _give_up(self, number: int, error: LiveAuditError) -> None:
        self._failures.pop(number, None)
        self._schedule.answer(number)
        self._deliver_error(number, self._schedule.job_id(number), error)

    def _timed_out(self, number: int) -> WaitTimeout:
        last = self._last.pop(number, None)
        seen = "" if last is None else f"; it was {last.state}"
        early = self._schedule.deadline_of(number) - _time() > HELD
        what = "too many jobs to ask again" if early else "not ended"
        error = WaitTimeout(f"{what} within {self._timeout:g} s{seen}", last=last)
        error.__cause__ = self._spent.pop(number, None)
        error.operation, error.job_id = "wait", self._schedule.job_id(number)
        return error

    def _end(self, number: int, task: asyncio.Task[None]) -> None:
        """A task has come to its end, whatever that was."""
        if not task.cancelled():
            self._broken = task.exception() or self._broken
        if self._asked[number] is not task:
            return  # the job is being asked again already
        del self._asked[number]
        if self._left:
            return
        if self._schedule.is_asked(number) and number not in self._spent:
            # Cancelled by somebody else; it is asked again.
            self._failed(number, TransportError("the query was cancelled"))
        self._news.set()
        self._room.set()

    # What makes a kind of run

    @abstractmethod
    def _deliver(self, number: int, job: AuditJob) -> None:
        """Make ready for the consumer what is in an answer."""

    @abstractmethod
    def _deliver_error(self, number: int | None, job_id: str, error: LiveAuditError) -> None:
        """Make ready for the consumer that nothing more will come of a job."""


async def _wait(event: asyncio.Event, *, until: float = math.inf) -> None:
    """Until an event is set or a time has come; the event is not set afterwards."""
    loop = asyncio.get_running_loop()
    timer = loop.call_at(until, event.set) if until < math.inf else None
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
    event.clear()
    await asyncio.sleep(0)  # waiting is never busy


def _asked_to_wait(error: LiveAuditError) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ServiceError) else 0.0


def _time() -> float:
    return asyncio.get_running_loop().time()
