"""Makes sure that jobs do not run any more: those that are given up, and all in the end.

Once begun, the end goes on whatever is cancelled around it, within its own deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs

from ci_live_audit import cancelling
from ci_live_audit._loop import cancel_and_wait, wait_for_end
from ci_live_audit.calls import Caller
from ci_live_audit.errors import CredentialsError, LiveAuditError, RequestTimeout
from ci_live_audit.following.places import Place, Places
from ci_live_audit.following.streams import Stream, Terms

__all__ = ["Cancellation", "Stopping"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

#: Seconds before a cancellation is tried again, doubled up to the longest, or the longest at the
#: end.
PAUSE, LONGEST_PAUSE, LONGEST_AT_THE_END = 1.0, 60.0, 4.0
#: So many exchanges in a row, at the least, may hang at the end.
HANGING = 4


@attrs.frozen(kw_only=True)
class Cancellation:
    """What became of a stream that still ran, or may have, when the block was left.

    Attributes:
        stream: What was submitted.
        job_id: Its job; empty if the answer to the submission was lost.
        error: Why it may run on; None if it was cancelled, or was not to be.
    """

    stream: Stream
    job_id: str
    error: LiveAuditError | None = None


class Stopping:
    """Stops the jobs of places.

    Args:
        caller: Makes the calls.
        places: The places.
        terms: Whether jobs are cancelled, or have to end by themselves; how many at once; and
            within how many seconds the end has to come.
        free: Gives a place back whose job does not run any more.
        lay_aside: Keeps a place from being waited for, as its job was given up and may run on.

    Attributes:
        cancels: Whether jobs are cancelled.
        within: Seconds within which the end has to come.
        cancelled: What was cancelled in the end.
        not_cancelled: What may run on after the end.
    """

    def __init__(
        self,
        caller: Caller,
        places: Places,
        terms: Terms,
        *,
        free: Callable[[Place], Awaitable[None]],
        lay_aside: Callable[[Place], Awaitable[None]],
    ) -> None:
        self._caller = caller
        self._places = places
        self._free = free
        self._lay_aside = lay_aside
        self._slots = asyncio.Semaphore(terms.at_once)
        self.cancels: bool = terms.cancels
        self.within: float = terms.within
        self._until = math.inf
        self._expired = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.cancelled: tuple[Cancellation, ...] = ()
        self.not_cancelled: tuple[Cancellation, ...] = ()

    def give_up(self, place: Place) -> None:
        """Begin to stop a job that is not followed any more, and free its place then."""
        task = asyncio.create_task(self._give_up(place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Stop all jobs, within the deadline; submissions that have left are waited for."""
        time = asyncio.get_running_loop().time
        self._until = time() + self.within
        retry = self._caller.retry
        self._caller = attrs.evolve(
            self._caller,
            retry=attrs.evolve(retry, deadline=min(retry.deadline, self.within)),
            timeout=min(self._caller.timeout, self.within / HANGING),
        )
        given_up = tuple(self._tasks)
        for task in given_up:
            task.cancel()
        ends: dict[Place, asyncio.Task[None]] = {}
        while time() < self._until:
            for place in self._places:
                # One that was cancelled from outside before it began has done nothing.
                if place not in ends or ends[place].cancelled():
                    ends[place] = asyncio.create_task(self._end(place))
            pending = [end for end in ends.values() if not end.done()]
            if not pending:
                break
            with suppress(asyncio.CancelledError):
                await asyncio.wait(pending, timeout=self._until - time())
        self._expired = True
        submitting = [place.task for place in self._places if place.task is not None]
        with suppress(asyncio.CancelledError):
            await cancel_and_wait([*ends.values(), *submitting, *given_up])
        self.not_cancelled = tuple(map(self._left, self._places))

    def _left(self, place: Place) -> Cancellation:
        error = place.error
        if error is None and (self.cancels or not place.job_id):
            operation, job_id = ("cancel", place.job_id) if place.job_id else ("submit", None)
            error = RequestTimeout(f"not done within {self.within:g} s, when the run was left")
            error.about(operation, job_id)
        if error is not None:
            job = f"job {place.job_id}" if place.job_id else "a job that may exist"
            logger.warning("%s: %s was not cancelled: %s", place.stream, job, error)
        return Cancellation(stream=place.stream, job_id=place.job_id, error=error)

    async def _end(self, place: Place) -> None:
        if place.task is not None:
            with suppress(asyncio.CancelledError):
                await wait_for_end([place.task])
        if place not in self._places:
            return  # it was refused
        if place.lost_at is not None or (place.is_under_way and not place.job_id):
            return  # there may be a job, but nobody knows its id
        if not place.job_id:
            await self._free(place)
        elif self.cancels and await self._stop(place):
            self.cancelled += (Cancellation(stream=place.stream, job_id=place.job_id),)
            await self._free(place)

    async def _give_up(self, place: Place) -> None:
        await self._stop(place)  # which succeeds, or is cancelled by the end
        await self._free(place)

    async def _stop(self, place: Place) -> bool:
        """Stop a job, trying until that succeeds; return False if it may run on.

        That is only at the end, after the deadline, or if trying again is pointless. Then
        ``place.error`` says why.
        """
        until, wait, pause = self._until, 0.0, PAUSE
        longest = LONGEST_PAUSE if until == math.inf else LONGEST_AT_THE_END
        while True:
            try:
                await asyncio.sleep(wait)
                async with self._slots:
                    if await self._has_stopped(place):
                        return True
                wait, may_pass = pause, False
            except LiveAuditError as error:
                place.error = error
                wait = max(pause, error.retry_after or 0.0)
                may_pass = error.transient or isinstance(error, CredentialsError)
                now = asyncio.get_running_loop().time()
                if until < math.inf and not (may_pass and now + wait < until):
                    return False
            except asyncio.CancelledError:
                # When a program ends, `asyncio.run` cancels all tasks, and waits for them.
                if until == math.inf or self._expired:
                    raise
                wait, may_pass = 0.0, True
            if until == math.inf and not may_pass:
                await self._lay_aside(place)
            pause = min(pause * 2, longest)

    async def _has_stopped(self, place: Place) -> bool:
        if not self.cancels:
            return await cancelling.is_over(self._caller, place.job_id)
        is_cancelled = await cancelling.stop(self._caller, place.job_id)
        if not is_cancelled and self._until < math.inf:
            place.is_over = True  # nobody has been told of its end: that is for the next run
        return True
