"""What has been seen of a watched job, and what a response or a callback adds to it. Pure.

A snapshot is identified by its time and an audio section by its offset and duration, because their
URLs are signed anew in every response; with another label or verdict an item counts as new again.
Items without a time, or with the same identity as others of their response, are told apart by
their content and the path of their URL.
Nothing is concluded from what a response leaves out: no document says whether a query shows
findings while a stream runs, and how many.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Self, TypeAlias

import attrs

from ci_live_audit.following.digests import Digests, digest
from ci_live_audit.following.reading import Reading
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict
from ci_live_audit.wire import items

__all__ = ["Item", "News", "Seen"]

Item: TypeAlias = Snapshot | AudioSection

# Turns the digest of an identity into the note that several items have shared it.
SHARED = 0x5555_5555_5555_5555
#: Before the state and the digests: the version, the severity, how many bytes and digests follow.
FRAME = struct.Struct("<BBII")
VERSION = 1


@attrs.frozen
class Seen:
    """What has been seen of one job.

    Attributes:
        digests: Of all items that were found.
        last: Of the items in the last response, for `items.without_known`.
        state: The last state.
        severity: Of the worst finding.
        told: The contents, by identity, of items that were in a callback, and in no response yet.
    """

    digests: Digests = attrs.Factory(Digests)
    last: array[int] = attrs.Factory(lambda: array("q"))
    state: JobState | None = None
    severity: int = 0
    told: Mapping[int, int] = attrs.Factory(dict[int, int])

    def to_bytes(self) -> bytes:
        """Return what is kept from one run to another: all but ``last``."""
        state = b"" if self.state is None else self.state.value.encode("utf-8", "surrogatepass")
        digests = array("Q", self.digests)
        if sys.byteorder == "big":  # pragma: no cover
            digests.byteswap()
        head = FRAME.pack(VERSION, self.severity, len(state), len(digests))
        return head + state + digests.tobytes()

    def parts(self, size: int) -> Iterator[Seen]:
        """Return the same in parts of so many digests."""
        digests = iter(self.digests)
        yield attrs.evolve(self, digests=Digests().plus(islice(digests, size)))
        while some := tuple(islice(digests, size)):
            yield Seen(Digests().plus(some))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what several `to_bytes` say together, the later ones after the earlier.

        Raises:
            ValueError: It is something else, or a part of it is missing.
        """
        digests, state, severity, start = array("Q"), b"", 0, 0
        while start < len(data):
            if len(data) - start < FRAME.size:
                raise ValueError("cut off")
            version, worst, length, number = FRAME.unpack_from(data, start)
            if version != VERSION:
                raise ValueError(f"of version {version}; version {VERSION} can be read")
            words = start + FRAME.size
            numbers = words + length
            start = numbers + number * digests.itemsize
            if start > len(data):
                raise ValueError("cut off")
            state = data[words:numbers] or state
            severity = max(severity, worst)
            digests.frombytes(data[numbers:start])
        if sys.byteorder == "big":  # pragma: no cover
            digests.byteswap()
        word = state.decode("utf-8", "surrogatepass")
        known = Digests().plus(digests)
        return cls(known, state=JobState(word) if word else None, severity=severity)


class News(Reading):
    """What the response to one poll shows for the first time, and what will then have been seen.

    Attributes:
        items: The new items, in the order of the stream.
        digests: Of each of these.
        marks: Digests of none of these that are to be known from now on.
        state: The state of the job, if it is new.
        verdict: The verdict of the job, if it is worse than those of all items until now.
        before: What had been seen when the poll began.
        seen: What has been seen with this response.
        unsure: Whether some items of a callback are left to the next poll.
    """

    def __init__(self, seen: Seen, has_room: Callable[[int], bool] = lambda _: True) -> None:
        self.before: Seen = seen
        self._has_room = has_room
        self.seen: Seen = seen
        self.items: list[Item] = []
        self.digests: array[int] = array("Q")
        self.marks: frozenset[int] = frozenset()
        self.state: JobState | None = None
        self.verdict: Verdict | None = None
        self.unsure: bool = False
        self._added: set[int] = set()

    def __len__(self) -> int:
        return len(self.items) + (self.state is not None) + (self.verdict is not None)

    def read(
        self, body: bytes, *, received_at: datetime | None = None, pause: Any = None
    ) -> AuditJob:
        """Decode a body; of a job that goes on, the lists hold what is new.

        If that is too much to wait for the consumer, they are empty, and stay new.
        """
        rest = items.without_known(body, self.before.last)
        last = array("q") if rest is None else rest.digests
        if rest is not None and not self._has_room(len(rest.body)):
            rest, last = items.without(body), self.before.last
        job = None if rest is None else self._part(rest, received_at, pause)
        if job is None or not self.compare(job, whole=False):
            job = self._whole(body, received_at, pause)
            self.compare(job)
        self.seen = attrs.evolve(self.seen, last=last)
        return job if job.ended else self.part(job)

    def part(self, job: AuditJob) -> AuditJob:
        """Return a job whose lists hold what is new."""
        return attrs.evolve(
            job,
            snapshots=tuple(one for one in self.items if isinstance(one, Snapshot)),
            audio_sections=tuple(one for one in self.items if isinstance(one, AudioSection)),
        )

    def compare(self, job: AuditJob, *, whole: bool = True, told: bool = False) -> bool:
        """Find out what is new in a job.

        Return False if that cannot be told, as the job is not ``whole`` and lists something that
        may be known. Of a job that a callback ``told``, the state is not news: callbacks come in
        any order.
        """
        comparison = _Comparison(self.before, whole=whole, told=told)
        if not (comparison.add(job.snapshots) and comparison.add(job.audio_sections)):
            return False
        found = sorted(comparison.new, key=lambda one: _in_stream_order(one[0]))
        self.items = [item for item, _ in found]
        self.digests = array("Q", [one for _, one in found])
        self.marks = frozenset(comparison.added.difference(self.digests))
        severity = max(
            self.before.severity,
            *(item.result.severity for item in self.items if item.result is not None),
            0,
        )
        if job.result is not None and job.result.severity > severity:
            # Lists may be capped, or absent until the end.
            self.verdict = job.result
            severity = job.result.severity
        state = self.before.state if told else job.state
        self.state = state if state != self.before.state else None
        self.unsure = comparison.unsure
        self._added = comparison.added
        self.seen = attrs.evolve(
            self.before,
            digests=self.before.digests.plus(comparison.added),
            state=state,
            severity=severity,
            told=comparison.told,
        )
        return True

    def rebase(self, seen: Seen) -> None:
        """Take out what callbacks have told since the poll began, after which that was seen."""
        new = list(zip(self.items, self.digests, strict=True))
        added, told, last = set(self._added), dict(seen.told), self.seen.last
        self.items, self.digests = [], array("Q")
        for item, one in new:
            identity, content = _identity(item), digest(_content(item), 1)
            if identity is not None and one == identity and identity ^ SHARED in seen.digests:
                # Told apart from others of its identity from now on, as they are.
                added = added - {one} | {content}
                one = content  # noqa: PLW2901
            if identity is not None and told.get(identity) == content:
                del told[identity]
            elif one not in seen.digests:
                self.items.append(item)
                self.digests.append(one)
            elif identity in told:
                # Another item has its identity: the next poll shows both.
                last = self.before.last
        self.marks = frozenset(added.difference(self.digests))
        if self.verdict is not None and self.verdict.severity <= seen.severity:
            self.verdict = None
        self.seen = attrs.evolve(
            self.seen,
            digests=seen.digests.plus(added),
            last=last,
            severity=max(self.seen.severity, seen.severity),
            told=told,
        )


class _Comparison:
    """Tells the items of a response that are new from those that have been seen.

    Attributes:
        new: The new items, with their digests.
        added: All digests that are new.
        told: As in `Seen`, afterwards.
        unsure: Whether some items of a callback were left to the next poll.
    """

    def __init__(self, seen: Seen, *, whole: bool, told: bool) -> None:
        self._seen = seen.digests
        self._whole = whole
        self._is_callback = told
        self.unsure = False
        self.told: dict[int, int] = dict(seen.told)
        self.new: list[tuple[Item, int]] = []
        self.added: set[int] = set()

    def add(self, shown: Sequence[Item]) -> bool:
        """Compare the items of one list; return False if it takes those that were left out."""
        identities = [_identity(item) for item in shown]
        several = {one for one, number in Counter(identities).items() if number > 1}
        told = self._find_told(shown, identities)
        equal: Counter[int] = Counter()
        for place, (item, identity) in enumerate(zip(shown, identities, strict=True)):
            is_told = place in told
            if identity is not None and not (self._whole or is_told) and self._is_known(identity):
                return False
            if identity is not None and identity not in several and not self._is_shared(identity):
                if identity not in self._seen:
                    self._find(item, identity)
                    if self._is_callback:
                        self.told[identity] = digest(_content(item), 1)
                continue
            content = _content(item)
            equal[content] += 1
            one = digest(content, equal[content])
            if one in self._seen:
                if not self._whole:
                    return False
            elif is_told:
                self.added.add(one)
            elif identity is not None and self._is_callback and self._was_alone(identity):
                # A poll has shown one of these, or another of their identity.
                self.unsure = True
                continue
            elif identity is not None and self._was_alone(identity):
                self.added |= {identity, one}
            else:
                self._find(item, one)
            if identity is not None:
                self.added.add(identity ^ SHARED)
        return True

    def _find_told(self, shown: Sequence[Item], identities: Sequence[int | None]) -> set[int]:
        """Return the places of items that a callback has told, which they are by their content."""
        places: set[int] = set()
        for place, (item, identity) in enumerate(zip(shown, identities, strict=True)):
            if identity is None or identity not in self.told:
                continue
            if self.told[identity] == digest(_content(item), 1) and identity not in self.added:
                places.add(place)
                self.added.add(identity)
                if not self._is_callback:
                    del self.told[identity]
        return places

    def _is_known(self, identity: int) -> bool:
        return identity in self._seen or self._is_shared(identity)

    def _is_shared(self, identity: int) -> bool:
        return identity ^ SHARED in self._seen

    def _was_alone(self, identity: int) -> bool:
        """Return whether an item was found by its identity, and none has been told from it yet."""
        known = identity in self._seen and not self._is_shared(identity)
        # What a callback told is known by its content.
        return known and identity not in self.added and identity not in self.told

    def _find(self, item: Item, one: int) -> None:
        self.new.append((item, one))
        self.added.add(one)


def _identity(item: Item) -> int | None:
    """Return a digest of what stays the same in all responses; None if there is no time."""
    result = None if item.result is None else int(item.result)
    if isinstance(item, Snapshot):
        time = item.snapshot_time
        return digest("Snapshot", time, item.label, result) if time else None
    time = item.offset_time
    return digest("AudioSection", time, item.duration, item.label, result) if time else None


def _content(item: Item) -> int:
    """Return a digest of all but the signature of the URL."""
    path = None if item.url is None else item.url.partition("?")[0]
    return digest(attrs.evolve(item, url=path, url_expires_at=None))


def _in_stream_order(item: Item) -> tuple[bool, int]:
    time = item.snapshot_time if isinstance(item, Snapshot) else item.offset_time
    return time is None, time or 0
