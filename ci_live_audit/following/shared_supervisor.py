"""Submits streams that several processes moderate together: `SharedSupervisor`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from ci_live_audit._loop import cancel_and_wait, wait_for_end
from ci_live_audit.calls import Caller
from ci_live_audit.errors import LiveAuditError, TransportError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.dispatcher import Dispatcher
from ci_live_audit.following.finding import Finding
from ci_live_audit.following.ids import AnyCheckpoint, Ids, Source
from ci_live_audit.following.notes import StreamRecord
from ci_live_audit.following.places import HELD, Place
from ci_live_audit.following.shared import Resigned, SharedStreams
from ci_live_audit.following.shared_streams import SharedNotes, StreamIds
from ci_live_audit.following.stream_notes import StreamNotes
from ci_live_audit.following.streams import Stream, Streams, Terms
from ci_live_audit.following.supervisor import Supervisor
from ci_live_audit.wire.requests import Request

__all__ = ["SharedSupervisor"]

#: Seconds that stopping has at the least, whatever giving the streams to others has taken; and
#: seconds that a store has for it that has been away.
LEAST, AWAY = 1.0, 1.0


@attrs.define(eq=False)
class _Wanted:
    """A stream that the source has given, and that this process has not.

    Attributes:
        stream, request: What to submit.
        claim: The note by which it is claimed.
        is_elsewhere: Whether another process has it, so that nothing waits for it.
        due: When it is claimed again.
    """

    stream: Stream
    request: Request
    claim: bytes
    is_elsewhere: bool = False
    due: float = -math.inf


class SharedSupervisor(Supervisor):
    """Submits what no other process does, and takes up what others have left."""

    def __init__(self, caller: Caller, urls: Streams, terms: Terms, store: SharedStreams) -> None:
        super().__init__(caller, urls, terms)
        self._shared = SharedNotes(store)
        self.notes: StreamRecord = self._shared
        self.following: AnyCheckpoint | None = self
        self._ttl = store.ttl
        self._wanted: dict[str, _Wanted] = {}
        self._freed = 0

    # The checkpoint of the run that watches the jobs

    def bind(self, bucket: str, region: str) -> None:
        """Do nothing: the store is bound."""

    def begin(self, job_ids: Source) -> Ids:
        """Return the ids of the jobs that this process watches."""
        return StreamIds(self._shared, job_ids, self)

    # Submitting

    def start(self, run: Dispatcher[Any, Finding]) -> None:
        """Begin to read, to claim and to submit; ``run`` watches the jobs."""
        super().start(run)
        self._claimer = asyncio.create_task(self._claim_all())
        self._claimer.add_done_callback(self._end_claiming)

    async def _begin(self, stream: Stream, request: Request) -> None:
        """Claim a stream, unless it is known, and wait until it is somebody's."""
        key = stream.key
        if key in self._known:
            self._name(key, stream, request)
            return
        self._known.add(key)
        wanted = self._wanted[key] = _Wanted(stream, request, StreamNotes.new(stream))
        self.look()
        await self._until(lambda: self._wanted.get(key) is not wanted or wanted.is_elsewhere)

    def _is_done(self) -> bool:
        """Return whether nothing is submitted any more, not even what others may give back."""
        return not self._wanted and super()._is_done()

    async def _claim_all(self) -> None:
        while True:
            news = self._news
            if self._may_claim() and (claims := self._due()):
                words = await self._shared.member.claim(
                    claims, at_once=self._terms.at_once, once=self._is_collection, doubt=HELD
                )
                mine = "mine" in words.values()
                for key in words.keys() & self._wanted.keys():  # others were taken up meanwhile
                    self._take_word(key, words[key], at_once=mine)
                self.look()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ttl / 3 if self._wanted else None):
                    await news.wait()

    def _may_claim(self) -> bool:
        """Return whether a stream could be submitted at once.

        What is claimed and has not left is in doubt after a kill, without need.
        """
        waits = any(
            place.task is not None and not (place.is_under_way or place.job_id)
            for place in self._places
        )
        return self._has_room() and not waits

    def _due(self) -> Mapping[str, bytes]:
        """Return the claims that are to be made: new ones, and the others now and then."""
        now = asyncio.get_running_loop().time()
        freed, self._freed = self._places.freed > self._freed, self._places.freed
        claims: dict[str, bytes] = {}
        for key, wanted in self._wanted.items():
            if freed or now >= wanted.due:
                wanted.due = now + self._ttl / 3
                claims[key] = wanted.claim
        return claims

    def _take_word(self, key: str, word: str, *, at_once: bool) -> None:
        """Do what the store says to a claim; ``at_once`` if there may be room for it now."""
        wanted = self._wanted[key]
        wanted.is_elsewhere = word == "open"
        if word == "full" and at_once:
            wanted.due = -math.inf
        if word == "mine":
            del self._wanted[key]
            self._shared.claimed(key, wanted.claim)
            self._start(Place(wanted.stream, key, request=wanted.request), wanted.request)
        elif word == "over":
            del self._wanted[key]
            if not self._is_collection:
                self._known.discard(key)

    def _end_claiming(self, claimer: asyncio.Task[None]) -> None:
        problem = None if claimer.cancelled() else claimer.exception()
        if problem is not None and not self._leaving:
            self._fail(problem)

    def _give_back(self, place: Place, error: LiveAuditError) -> None:
        """Give up a stream that was not submitted, unless another process may do that by now."""
        if not (place.dropped and self._prospects.may_pass(error)):
            super()._give_back(place, error)

    def _end_submission(self, place: Place, task: asyncio.Task[None]) -> None:
        super()._end_submission(place, task)
        is_told = place.lost_at is not None or (place.is_under_way and not place.job_id)
        if place.dropped and place in self._places and not is_told:
            self._let_go(place)

    # What the others leave, and take

    def take_up(self, key: str, notes: StreamNotes) -> None:
        """Take up a stream that another process had."""
        wanted = self._wanted.pop(key, None)
        self._known.add(key)
        for place in self._places.of_key(key):
            if place.task is not None:  # this process was taken for dead, and is still submitting
                place.dropped = False
                return
            self._places.free(place)
        place = Place(notes.stream, key, notes.job_id)
        if wanted is not None:
            place.stream, place.request = wanted.stream, wanted.request
        if wanted is not None and wanted.claim == notes.claim and not notes.job_id:
            self._start(place, wanted.request)  # this process was taken for dead before it did
        else:
            self._adopt(place)
        self.look()

    def drop(self, key: str) -> None:
        """Drop a stream that another process has."""
        for place in self._places.of_key(key):
            place.dropped = True
            if place.is_under_way and not place.job_id:
                return  # what becomes of it is told to whoever has it by then
            if place.task is not None:
                place.task.cancel()
            self._let_go(place)
        self._shared.forget(key)
        self.look()

    def may_give(self, key: str) -> bool:  # noqa: ARG002
        """Return whether a stream may be given to another process."""
        return not self._leaving

    def _let_go(self, place: Place) -> None:
        """Free the place of a stream that is elsewhere, and submit it if it is given back."""
        self._places.free(place)
        self._known.discard(place.key)
        if place.request is not None and not self._leaving:
            claim = b"" if place.job_id else self._shared.claim_of(place.key)
            self._known.add(place.key)
            self._wanted[place.key] = _Wanted(
                place.stream, place.request, claim or StreamNotes.new(place.stream), True
            )

    # Leaving

    async def leave(self) -> None:
        """Give the streams to the other processes; stop all that still run if there is none."""
        began = asyncio.get_running_loop().time()
        self._stop_submitting()
        while True:
            handing = asyncio.create_task(self._hand_over(began + self._terms.within))
            with suppress(asyncio.CancelledError):
                await wait_for_end([handing])
            if not handing.cancelled():
                break
        handing.result()
        spent = asyncio.get_running_loop().time() - began
        self.stopping.within = max(self._terms.within - spent, LEAST)
        await self.stopping.end()
        with suppress(asyncio.CancelledError):
            await self._shared.member.aclose()
        await self._stop_reading()

    async def _hand_over(self, until: float) -> None:
        """Give the streams to the others; without others, take all there are, to be stopped."""
        await cancel_and_wait([self._claimer])
        submitting = [place.task for place in self._places if place.task is not None]
        patience = AWAY if self._shared.member.is_away else 3 * self._ttl
        try:
            await self._release(patience)
            if submitting:
                left = until - asyncio.get_running_loop().time() - patience
                await asyncio.wait(submitting, timeout=max(0.0, left))
            async with asyncio.timeout(patience):
                resigned = await self._resign()
        except (OSError, LiveAuditError) as problem:
            self.stopping.cancels = False
            for place in [place for place in self._places if place.job_id]:
                reason = f"it could not be given to another process: {problem or 'Redis is away'}"
                place.error = place.error or TransportError(reason).about("cancel", place.job_id)
            return
        found: dict[str, StreamNotes] = {}
        for key, notes in resigned.streams:
            with suppress(ValueError):  # it has ended a run before
                found[key] = StreamNotes.from_bytes(notes)
        if resigned.others or self.stopping.cancels:
            for place in [place for place in self._places if place.key not in found]:
                place.dropped = True
                if place.job_id:
                    self._places.free(place)
        for key, known in found.items():
            if self._shared.has_ended(key):
                continue  # the consumer has not been told of it: that is for the next run
            self._shared.taken(key, known)
            if not self._places.of_key(key):
                self._adopt(Place(known.stream, key, known.job_id))

    async def _release(self, patience: float) -> None:
        """Give back at once what runs, and what has not been submitted."""
        member = self._shared.member
        async with asyncio.timeout(patience):
            for place in [place for place in self._places if place.job_id]:
                await member.commit(Commit(job_id=place.key, action="release"))
            for wanted in self._wanted.values():
                await member.report(wanted.stream.key, wanted.claim, b"")

    async def _resign(self) -> Resigned:
        """Give back the rest, and wait until the others have it."""
        for place in self._places:
            if place.is_aside:
                await self._shared.take_back(place)
            if not (place.job_id or place.is_under_way) and place.lost_at is None:
                self._places.free(place)
                await self._shared.free(place)
        await self._shared.free_untold([place.key for place in self._places])
        until = asyncio.get_running_loop().time() + 2 * self._ttl
        return await self._shared.member.resign(takes=self.stopping.cancels, until=until)

    async def _lay_aside(self, place: Place) -> None:
        if place in self._places and not place.is_aside:
            await self._shared.lay_aside(place)

    async def _stopped(self, place: Place) -> None:
        if place.is_aside and place in self._places:
            await self._shared.take_back(place)
        if self._leaving and place in self._places:
            self._places.free(place)
            if not place.is_over:
                await self._shared.free(place)
        else:
            await super()._stopped(place)
