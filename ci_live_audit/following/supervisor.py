"""Submits streams while there is room for them, and cancels what still runs when it is left.

A stream has its place from before it is submitted until its job is known not to run any more, so
that no more of them run than there are places, by the service's own count.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, cast

from ci_live_audit._loop import cancel_and_wait
from ci_live_audit.calls import Caller
from ci_live_audit.errors import (
    ConfigurationError,
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
from ci_live_audit.following.ids import AnyCheckpoint
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.notes import Notes, StreamRecord
from ci_live_audit.following.places import Place, Places
from ci_live_audit.following.stopping import Stopping
from ci_live_audit.following.streams import Stream, Streams, Terms, reader, stream_of
from ci_live_audit.following.submitting import LONGEST_PAUSE, PAUSE, Prospects, Submission
from ci_live_audit.models import JobState, SubmittedJob
from ci_live_audit.wire.requests import Request

__all__ = ["Supervisor", "Terms"]

logger: logging.Logger = logging.getLogger("ci_live_audit")


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
        self._terms = terms
        self.notes: StreamRecord = Notes(checkpoint, self._may_note_again)
        self._is_collection = isinstance(urls, Collection)
        self._source = reader(urls)
        self._places = Places(terms.at_once)
        #: As whose checkpoint the jobs are watched, if they come and go.
        self.following: AnyCheckpoint | None = None
        self.stopping: Stopping = Stopping(
            caller, self._places, terms, free=self._stopped, lay_aside=self._lay_aside
        )
        #: Keys of streams that are not to be submitted, as they run, ran, or may run.
        self._known: set[str] = set()
        self._job_ids: asyncio.Queue[str | None] = asyncio.Queue()
        self._prospects = Prospects()
        #: Streams that the service has refused for now wait in it.
        self._line = asyncio.Lock()
        self._news = asyncio.Event()
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
            if (read := self._read(element)) is not None:
                await self._begin(*read)
            await asyncio.sleep(0)  # a source that never waits starves nobody
        await self._until(self._is_done)

    def _is_done(self) -> bool:
        """Return whether nothing is being submitted any more."""
        return all(place.task is None for place in self._places)

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
            self._adopt(Place(stream, key, job_id))
            if job_id:
                self._job_ids.put_nowait(job_id)

    def _adopt(self, place: Place) -> None:
        """Take what an earlier run, or another process, has submitted; name what it may have."""
        self._places.take(place)
        if not place.job_id:
            error = TransportError("an earlier run ended before the response; a job may exist")
            self._give_back(place, error.about("submit", None))

    def _has_room(self) -> bool:
        run, now = self._run, asyncio.get_running_loop().time()
        # During an outage a stream might be lost; the polls, if there are any, see its end.
        is_out = run.schedule.open > 0 and run.progress.outage is not None
        stands = run.error is not None or run.write_error is not None or run.backlog.is_full
        waits = is_out or stands or self._line.locked() or now < self._prospects.resume
        return not waits and self._places.has_room(now)

    def _read(self, element: object) -> tuple[Stream, Request] | None:
        """Return the stream that the source has given, and the request that submits it."""
        stream = element if isinstance(element, Stream) else None
        try:
            stream = stream_of(element)
            return stream, stream.request(**self._terms.options)
        except InvalidInput as error:
            self._deliver(stream, error.about("submit", None))
            return None

    async def _begin(self, stream: Stream, request: Request) -> None:
        """Submit a stream, unless it is known."""
        key = stream.key
        if key not in self._known:
            self._known.add(key)
            self._start(Place(stream, key, request=request), request)
        else:
            self._name(key, stream, request)

    def _name(self, key: str, stream: Stream, request: Request) -> None:
        """Tell a stream as the source does, if it was taken up without its secrets."""
        for place in self._places.of_key(key):
            if place.submission is None:
                place.stream, place.request = stream, request

    def _start(self, place: Place, request: Request) -> None:
        """Begin to submit a stream."""
        self._places.take(place)
        submission = Submission(
            self._caller, request, lambda: self._leaving or place.dropped, self.look
        )
        place.submission = submission
        place.task = asyncio.create_task(self._submit(place, submission))
        place.task.add_done_callback(partial(self._end_submission, place))

    async def _submit(self, place: Place, submission: Submission) -> None:
        try:
            await self.notes.stream(place)
            place.job_id = (await self._accepted(place, submission)).job_id
        except LiveAuditError as error:
            if self._prospects.is_bad_for_all(error, asyncio.get_running_loop().time()):
                self._fail(error)
            self._give_back(place, error)
            if not error.may_have_happened:
                await self.notes.refuse(place)
            return
        self._prospects.record_success(asyncio.get_running_loop().time())
        if not place.dropped:
            self._job_ids.put_nowait(place.job_id)
        await self.notes.job(place)

    def _end_submission(self, place: Place, task: asyncio.Task[None]) -> None:
        place.task = None
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self._fail(problem)
        elif task.cancelled() and not (self._leaving or place.dropped or place.job_id):
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
                    if self._leaving or place.dropped or not self._prospects.may_pass(error):
                        raise
                    wait = max(pause, error.retry_after or 0.0)
                    if pause == PAUSE and not self._line.locked():
                        logger.warning("%s is not submitted yet: %s", place.stream, error)
                if pause == PAUSE:
                    await turn.enter_async_context(self._line)
                await self._pause(wait)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _give_back(self, place: Place, error: LiveAuditError) -> None:
        """Give up a stream that was not submitted, or may not have been."""
        if error.may_have_happened:
            place.error, place.lost_at = error, asyncio.get_running_loop().time()
            commit = Commit(job_id=place.key, action="aside")
        else:
            self._free(place)
            commit = Commit(job_id=place.key, action="give_up")
        self._deliver(place.stream, error, commit)

    async def _stopped(self, place: Place) -> None:
        if place not in self._places:
            return  # another process has it
        self._free(place, is_over=place.is_over)
        if not place.is_over:
            await self.notes.release(place)

    async def _lay_aside(self, place: Place) -> None:
        """Do nothing: no other process waits for the stream."""

    def _free(self, place: Place, *, is_over: bool = False) -> None:
        self._places.free(place)
        # What a collection lists twice, or a checkpoint knows to be over, is not submitted again.
        if not self._is_collection and not (is_over and self.notes.outlast):
            self._known.discard(place.key)
        self.look()

    def _deliver(
        self, stream: Stream | None, error: LiveAuditError, commit: Commit | None = None
    ) -> None:
        key = digest("", stream and stream.key, "error", type(error).__name__)
        finding = WatchFailed(job_id="", key=f"{key:016x}", stream=stream, error=error)
        self._run.backlog.add(
            iter([(finding, commit or Commit(job_id="", action="release"))]), 1, 0
        )
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
            resume = self._prospects.resume
            with suppress(TimeoutError):
                async with asyncio.timeout_at(resume if resume > now else None):
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
        self._stop_submitting()
        await self.stopping.end()
        await self._stop_reading()

    def _stop_submitting(self) -> None:
        self._leaving = True
        self._feeder.cancel()
        for place in self._places:
            if place.task is not None and not (place.is_under_way or place.job_id):
                place.task.cancel()
        self.look()

    async def _stop_reading(self) -> None:
        with suppress(asyncio.CancelledError):
            await cancel_and_wait([self._feeder])
        if inspect.isasyncgen(self._source):
            # The garbage collector would close it in a task that nobody awaits.
            await cast("Any", self._source).aclose()
