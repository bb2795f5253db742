"""Submits streams while there is room for them, and cancels what still runs when it is left.

A stream has its place from before it is submitted until its job is known not to run any more, so
that no more of them run than there are places, by the service's own count.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, cast

from ci_live_audit._loop import cancel_and_wait
from ci_live_audit.calls import Caller
from ci_live_audit.errors import (
    ConfigurationError,
    CredentialsError,
    InvalidInput,
    JobNotFound,
    LiveAuditError,
    TransportError,
)
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.digests import digest
from ci_live_audit.following.dispatcher import Dispatcher
from ci_live_audit.following.finding import Finding, WatchFailed
from ci_live_audit.following.health import Health
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.notes import Notes
from ci_live_audit.following.places import Place, Places
from ci_live_audit.following.stopping import Stopping
from ci_live_audit.following.streams import Stream, Streams, Terms, reader, stream_of
from ci_live_audit.following.submitting import Submission
from ci_live_audit.models import JobState, SubmittedJob

__all__ = ["Supervisor", "Terms"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

#: Seconds before a stream is submitted again, doubled up to the longest; and from a submission
#: whose answer was lost to the next one.
PAUSE, LONGEST_PAUSE = 1.0, 60.0


class Supervisor:
    """Keeps at most so many streams running, and hands the ids of their jobs on to be watched."""

    def __init__(
        self,
        caller: Caller,
        urls: Streams,
        terms: Terms,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._caller = caller
        self._options = terms.options
        self.notes: Notes = Notes(checkpoint, self._may_note_again)
        self._is_collection = isinstance(urls, Collection)
        self._source = reader(urls)
        self._places = Places(terms.at_once)
        self.stopping: Stopping = Stopping(caller, self._places, terms, free=self._stopped)
        #: Keys of streams that are not to be submitted, as they run, ran, or may run.
        self._known: set[str] = set()
        self._job_ids: asyncio.Queue[str | None] = asyncio.Queue()
        self._health = Health()
        #: Streams that the service has refused for now wait in it.
        self._line = asyncio.Lock()
        self._news = asyncio.Event()
        #: Answers that were lost in a row, and when the next stream may be submitted.
        self._lost, self._resume = 0, -math.inf
        self._leaving = False

    async def job_ids(self) -> AsyncGenerator[str, None]:
        """Yield the ids of jobs, until all streams have been submitted."""
        while (job_id := await self._job_ids.get()) is not None:
            yield job_id

    def start(self, run: Dispatcher[Any, Finding]) -> None:
        """Begin to read and to submit; ``run`` watches the jobs."""
        self._run = run
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(self._end_feeding)

    def look(self) -> None:
        """Look whether what waits can go on."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def stream_of(self, job_id: str) -> Stream | None:
        """Return the stream of a job that has a place."""
        return next((place.stream for place in self._places.of_job(job_id)), None)

    def record(self, update: Update) -> None:
        """Record what a poll has shown: that a job has ended, or is given up."""
        for place in self._places.of_job(update.job_id):
            if update.job is not None and update.job.ended:
                # An earlier run has cancelled it when it was left, and could not hand out all.
                again = place.submission is None and update.job.state == JobState.CANCELLED
                self.notes.end(place, may_come_again=again)
                self._free(place, is_over=not again)
            elif update.error is not None:
                if isinstance(update.error, JobNotFound):
                    self.notes.end(place)
                    place.is_over = True
                self.stopping.give_up(place)
        self.look()

    # Submitting

    async def _feed(self) -> None:
        await self._take_up()
        while True:
            await self._until(self._has_room)
            try:
                element = await anext(self._source)
            except StopAsyncIteration:
                break
            self._begin(element)
            await asyncio.sleep(0)  # a source that never waits starves nobody
        await self._until(lambda: all(place.task is None for place in self._places))

    def _end_feeding(self, feeder: asyncio.Task[None]) -> None:
        if feeder.cancelled():
            if not self._leaving:
                self._fail(ConfigurationError("urls: the source was cancelled"))
        elif (problem := feeder.exception()) is not None:
            self._fail(problem)
        else:
            self._job_ids.put_nowait(None)

    async def _take_up(self) -> None:
        """Go on with what the checkpoint knows to run, and name what may."""
        records = await self.notes.read()
        self._known |= records.over | records.open.keys()
        for key, (stream, job_id) in tuple(records.open.items()):
            place = Place(stream, key, job_id)
            self._places.take(place)
            if job_id:
                self._job_ids.put_nowait(job_id)
            else:
                error = TransportError("an earlier run ended before the response; a job may exist")
                self._give_back(place, error.about("submit", None))

    def _has_room(self) -> bool:
        run, now = self._run, asyncio.get_running_loop().time()
        # During an outage a stream might be lost; the polls, if there are any, see its end.
        is_out = run.schedule.open > 0 and run.progress.outage is not None
        stands = run.error is not None or run.write_error is not None or run.backlog.is_full
        waits = is_out or stands or self._line.locked() or now < self._resume
        return not waits and self._places.has_room(now)

    def _begin(self, element: object) -> None:
        """Submit what the source has given, unless it is known."""
        stream = element if isinstance(element, Stream) else None
        try:
            stream = stream_of(element)
            request = stream.request(**self._options)
        except InvalidInput as error:
            self._deliver(stream, error.about("submit", None))
            return
        key = stream.key
        if key not in self._known:
            self._known.add(key)
            place = Place(stream, key)
            self._places.take(place)
            submission = Submission(self._caller, request, lambda: self._leaving)
            place.submission = submission
            place.task = asyncio.create_task(self._submit(place, submission))
            place.task.add_done_callback(partial(self._end_submission, place))
            return
        for place in self._places:
            if place.key == key and place.submission is None:  # as it was in the checkpoint
                place.stream = stream

    async def _submit(self, place: Place, submission: Submission) -> None:
        try:
            await self.notes.stream(place)
            place.job_id = (await self._accepted(place, submission)).job_id
        except LiveAuditError as error:
            self._judge(error)
            self._give_back(place, error)
            if not error.may_have_happened:
                await self.notes.release(place)
            return
        self._lost = 0
        self._health.record_success(asyncio.get_running_loop().time())
        self._job_ids.put_nowait(place.job_id)
        await self.notes.job(place)

    def _end_submission(self, place: Place, task: asyncio.Task[None]) -> None:
        place.task = None
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self._fail(problem)
        elif task.cancelled() and not (self._leaving or place.job_id):
            error = TransportError("the submission was cancelled", sent=place.is_under_way)
            self._give_back(place, error.about("submit", None))
        self.look()

    async def _accepted(self, place: Place, submission: Submission) -> SubmittedJob:
        """Submit a stream, and wait as long as the service takes none; return its job."""
        pause = PAUSE
        async with AsyncExitStack() as turn:
            while True:
                try:
                    return await submission.send()
                except LiveAuditError as error:
                    if self._leaving or not self._may_pass(error):
                        raise
                    wait = max(pause, error.retry_after or 0.0)
                    if pause == PAUSE and not self._line.locked():
                        logger.warning("%s is not submitted yet: %s", place.stream, error)
                if pause == PAUSE:
                    await turn.enter_async_context(self._line)
                await self._pause(wait)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _may_pass(self, error: LiveAuditError) -> bool:
        """Return whether a stream was certainly not submitted, and may be later."""
        if isinstance(error, CredentialsError):
            return self._health.may_pass(error)
        return error.transient and not error.may_have_happened

    def _judge(self, error: LiveAuditError) -> None:
        """Judge what an error means for the other streams."""
        now = asyncio.get_running_loop().time()
        if error.may_have_happened:
            # The next one may be lost as well.
            self._lost += 1
            pause = PAUSE * 2.0 ** min(self._lost - 2, 10) if self._lost > 1 else 0.0
            self._resume = now + min(pause, LONGEST_PAUSE)
        if not self._health.may_pass(error):
            self._health.record_error(error, now, 1)
        if self._health.is_fatal(error):
            self._fail(error)

    def _give_back(self, place: Place, error: LiveAuditError) -> None:
        """Give up a stream that was not submitted, or may not have been."""
        if error.may_have_happened:
            place.error, place.lost_at = error, asyncio.get_running_loop().time()
        else:
            self._free(place)
        self._deliver(place.stream, error)

    async def _stopped(self, place: Place) -> None:
        self._free(place, is_over=place.is_over)
        if not place.is_over:
            await self.notes.release(place)

    def _free(self, place: Place, *, is_over: bool = False) -> None:
        self._places.free(place)
        # What a collection lists twice, or a checkpoint knows to be over, is not submitted again.
        if not self._is_collection and not (is_over and self.notes.outlast):
            self._known.discard(place.key)
        self.look()

    def _deliver(self, stream: Stream | None, error: LiveAuditError) -> None:
        key = digest("", stream and stream.key, "error", type(error).__name__)
        finding = WatchFailed(job_id="", key=f"{key:016x}", stream=stream, error=error)
        self._run.backlog.add(iter([(finding, Commit(job_id="", action="release"))]), 1, 0)
        self._run.changed.set()

    def _fail(self, problem: BaseException) -> None:
        """End the run."""
        self._run.error = self._run.error or problem
        self._run.changed.set()
        self._run.wake.set()

    # Waiting

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            news, now = self._news, asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._resume if self._resume > now else None):
                    await news.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait for some seconds, or until a place has been given back."""
        freed = self._places.freed
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until(lambda: self._places.freed > freed)

    async def _may_note_again(self, problem: OSError) -> bool:
        """Tell the consumer that the checkpoint cannot be written, and wait until it knows."""
        if not self._leaving:
            self._run.write_error = self._run.write_error or problem
            self._run.changed.set()
            await self._until(lambda: self._run.write_error is None or self._leaving)
        if self._leaving:
            logger.warning("the checkpoint cannot be written: %s", problem)
        return not self._leaving

    # Leaving

    async def leave(self) -> None:
        """Stop reading and submitting, and stop the jobs that still run."""
        self._leaving = True
        self._feeder.cancel()
        for place in self._places:
            if place.task is not None and not (place.is_under_way or place.job_id):
                place.task.cancel()
        self.look()
        await self.stopping.end()
        with suppress(asyncio.CancelledError):
            await cancel_and_wait([self._feeder])
        if inspect.isasyncgen(self._source):
            # The garbage collector would close it in a task that nobody awaits.
            await cast("Any", self._source).aclose()
