"""The streams of a process, of those that several moderate together: `SharedNotes`, `StreamIds`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Protocol

import attrs

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import Following, Ids, Nothing, Source
from ci_live_audit.following.places import Place
from ci_live_audit.following.shared import SharedStreams
from ci_live_audit.following.stream_member import StreamMember
from ci_live_audit.following.stream_notes import StreamNotes
from ci_live_audit.following.streams import Records

__all__ = ["Exchange", "SharedNotes", "StreamIds"]


@attrs.define
class _Known:
    """What this process knows of a stream: its claim, and its job with its line."""

    claim: bytes
    job: bytes = b""
    job_id: str = ""


class SharedNotes:
    """Notes what happens to streams in a store, through the process's `member`.

    Nothing is tried again here: the member does that for as long as the store is away.
    """

    outlast = True

    def __init__(self, store: SharedStreams) -> None:
        self.member: StreamMember = StreamMember(store, self._lines)
        self._known: dict[str, _Known] = {}
        self._keys: dict[str, str] = {}
        self._ended: dict[str, bool] = {}

    async def read(self) -> Records:
        """Return nothing: what there is comes through the member."""
        return Records()

    def claimed(self, key: str, claim: bytes) -> None:
        """Keep in mind the claim of a stream that this process submits."""
        self._known[key] = _Known(claim)

    def taken(self, key: str, notes: StreamNotes) -> None:
        """Keep in mind what is noted of a stream that this process has been given."""
        self._known[key] = _Known(notes.claim, notes.job, notes.job_id)
        if notes.job_id:
            self._keys[notes.job_id] = key

    def claim_of(self, key: str) -> bytes:
        """Return the claim of a stream; nothing if it is not known."""
        return self._known[key].claim if key in self._known else b""

    def knows(self, job_id: str) -> bool:
        """Return whether a job is of a stream that this process has."""
        return job_id in self._keys

    def job_of(self, key: str) -> str:
        """Return the job of a stream; an empty text if it has none, or is not this process's."""
        return self._known[key].job_id if key in self._known else ""

    def has_ended(self, key: str) -> bool:
        """Return whether the job of a stream has ended, and the consumer has not dealt with it."""
        return self.job_of(key) in self._ended

    def forget(self, key: str) -> None:
        """Forget a stream that is another process's, or nobody's."""
        known = self._known.pop(key, None)
        if known is not None:
            self._keys.pop(known.job_id, None)
            self._ended.pop(known.job_id, None)

    async def stream(self, place: Place) -> None:
        """Do nothing: the claim has said that the stream is about to be submitted."""

    async def job(self, place: Place) -> None:
        """Note the job of a stream, also if the stream is another process's by now."""
        known = self._known[place.key]
        known.job, known.job_id = StreamNotes.taken(place.job_id), place.job_id
        self._keys[place.job_id] = place.key
        if self.member.holds(place.key):
            commit = Commit(job_id=place.key, action="keep", seen=known.job)
            await self.member.commit(commit)
        else:
            self.forget(place.key)
            await self.member.report(place.key, known.claim, known.job)

    async def refuse(self, place: Place) -> None:
        """Note with `commit` that a stream was not submitted, if it is this process's."""
        if not self.member.holds(place.key):
            await self.release(place)

    async def free_untold(self, keys: Collection[str]) -> None:
        """Note that any process may submit what was refused, but for ``keys`` that have places.

        The consumer has not been told of it, and will not be.
        """
        for key, known in tuple(self._known.items()):
            if not known.job_id and key not in keys:
                self.forget(key)
                await self.member.report(key, known.claim, b"")

    async def release(self, place: Place) -> None:
        """Note that no job runs for a stream, which a later run may submit."""
        known = self._known.get(place.key)
        self.forget(place.key)
        if self.member.holds(place.key):
            await self.member.commit(Commit(job_id=place.key, action="give_up"))
        elif known is not None and not known.job_id:
            await self.member.report(place.key, known.claim, b"")

    async def free(self, place: Place) -> None:
        """Note that no job runs for a stream, which any process may submit."""
        known = self._known.get(place.key)
        self.forget(place.key)
        if place.job_id:
            await self.member.commit(Commit(job_id=place.key, action="forget"))
        elif known is not None:
            await self.member.report(place.key, known.claim, b"")

    async def lay_aside(self, place: Place) -> None:
        """Note that a stream may run on, and that no process waits for it."""
        place.is_aside = True
        await self.member.commit(Commit(job_id=place.key, action="aside"))

    async def take_back(self, place: Place) -> None:
        """Note that a stream that was laid aside is this process's again."""
        place.is_aside = False
        claims = {place.key: self.claim_of(place.key)}
        await self.member.claim(claims, at_once=1, once=True, doubt=0.0)

    def end(self, place: Place, *, may_come_again: bool = False) -> None:
        """Keep in mind that a job has ended, for `commit`."""
        self._ended[place.job_id] = may_come_again

    def seen(self, job_id: str) -> bytes:  # noqa: ARG002
        """Return nothing: it has come with the stream."""
        return b""

    async def commit(self, commit: Commit) -> None:
        """Note what the consumer has dealt with: a finding, the end of a job, or a doubt."""
        key = self._keys.get(commit.job_id)
        if key is None:
            if commit.action in ("aside", "give_up"):  # of a stream whose job is not known
                self.forget(commit.job_id)
                await self.member.commit(commit)
        elif commit.action == "keep":
            await self.member.commit(attrs.evolve(commit, job_id=key))
        elif commit.action == "end" and commit.job_id in self._ended:
            may_come_again = self._ended[commit.job_id]
            self.forget(key)
            action: Literal["give_up", "end"] = "give_up" if may_come_again else "end"
            await self.member.commit(attrs.evolve(commit, job_id=key, action=action))

    def _lines(self, key: str) -> tuple[bytes, bytes]:
        known = self._known.get(key)
        return (b"", b"") if known is None else (known.claim, known.job)


class Exchange(Protocol):
    """Who takes up the streams that a process is given, and drops those that it is not any more."""

    def take_up(self, key: str, notes: StreamNotes) -> None:
        """Take up a stream that another process had."""

    def drop(self, key: str) -> None:
        """Drop a stream that another process has."""

    def may_give(self, key: str) -> bool:
        """Return whether a stream may be given to another process."""
        ...

    def look(self) -> None:
        """Look whether what waits can go on."""


class StreamIds(Ids):
    """The ids of jobs of a process: of the streams that it submits, and of those it is given."""

    come_and_go = True

    def __init__(self, notes: SharedNotes, job_ids: Source, exchange: Exchange) -> None:
        super().__init__([])
        self._notes = notes
        self._member = notes.member
        self._own = Ids(job_ids)
        self._exchange = exchange
        self._seen: dict[str, bytes] = {}
        self.known: bool = False
        self.exhausted: bool = False

    @property
    def unread(self) -> int:
        """The number of streams that are at hand."""
        return self._member.unread

    @property
    def at_hand(self) -> bool:
        """Whether `take` would find an id, or an exception."""
        return self._member.at_hand or self._own.at_hand

    @property
    def go_first(self) -> bool:
        """Whether what is at hand was followed before, so that something may be missed."""
        return self._member.go_first

    @property
    def is_paused(self) -> bool:
        """Whether the jobs may be another's by now."""
        return self._member.is_paused

    def serve(self, run: Following) -> None:
        """Join the others, and begin to read."""
        self._run = run
        self._own.open(self.look)
        self._member.serve(self)

    def take(self) -> Any:
        """Return the next id, or ``Nothing.EMPTY``; whatever ended the reading is raised."""
        try:
            if not self._member.at_hand:
                return self._own.take()
            key: Any = self._member.take()
            try:
                notes = StreamNotes.from_bytes(self._member.note(key))
            except ValueError as problem:
                raise ConfigurationError(f"checkpoint: cannot be read: {problem}") from None
            self._notes.taken(key, notes)
            self._exchange.take_up(key, notes)
            if not notes.job_id:
                return Nothing.EMPTY
            self._seen[notes.job_id] = notes.seen
            return notes.job_id
        finally:
            self._look()

    def is_done(self, job_id: str) -> bool:
        """Return whether the stream of a job has been dropped meanwhile."""
        return not self._notes.knows(job_id)

    def note(self, job_id: str) -> bytes:
        """Return what was seen of a job before."""
        return self._seen.pop(job_id, b"")

    async def aclose(self) -> None:
        """Stop reading; the streams are given back when they have been seen to."""
        await self._own.aclose()

    # What the member tells

    def look(self) -> None:
        """Look again at what there is to do."""
        self._look()
        self._exchange.look()
        self._run.look()

    def drop(self, job_id: str) -> None:
        """Drop a stream, and hand out nothing more of it."""
        key, job_id = job_id, self._notes.job_of(job_id)
        if job_id:
            self._run.drop(job_id)
        self._exchange.drop(key)

    def is_spare(self, job_id: str) -> bool:
        """Return whether a stream could be dropped, as the consumer is to get nothing of it yet."""
        key, job_id = job_id, self._notes.job_of(job_id)
        return bool(job_id) and self._exchange.may_give(key) and self._run.is_spare(job_id)

    def _look(self) -> None:
        self.exhausted = self._own.exhausted and self._member.exhausted
