"""What has been seen of a watched job, and what the response to a poll adds to it. Pure.

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
from collections.abc import Callable, Iterator, Sequence
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
    """

    digests: Digests = attrs.Factory(Digests)
    last: array[int] = attrs.Factory(lambda: array("q"))
    state: JobState | None = None
    severity: int = 0

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
        seen: What has been seen with this response.
    """

    def __init__(self, seen: Seen, has_room: Callable[[int], bool] = lambda _: True) -> None:
        self._before = seen
        self._has_room = has_room
        self.seen: Seen = seen
        self.items: list[Item] = []
        self.digests: array[int] = array("Q")
        self.marks: frozenset[int] = frozenset()
        self.state: JobState | None = None
        self.verdict: Verdict | None = None

    def __len__(self) -> int:
        return len(self.items) + (self.state is not None) + (self.verdict is not None)

    def read(
        self, body: bytes, *, received_at: datetime | None = None, pause: Any = None
    ) -> AuditJob:
        """Decode a body; of a job that goes on, the lists hold what is new.

        If that is too much to wait for the consumer, they are empty, and stay new.
        """
        rest = items.without_known(body, self._before.last)
        last = array("q") if rest is None else rest.digests
        if rest is not None and not self._has_room(len(rest.body)):
            rest, last = items.without(body), self._before.last
        job = None if rest is None else self._part(rest, received_at, pause)
        if job is None or not self.compare(job, whole=False):
            job = self._whole(body, received_at, pause)
            self.compare(job)
        self.seen = attrs.evolve(self.seen, last=last)
        if job.ended:
            return job
        return attrs.evolve(
            job,
            snapshots=tuple(one for one in self.items if isinstance(one, Snapshot)),
            audio_sections=tuple(one for one in self.items if isinstance(one, AudioSection)),
        )

    def compare(self, job: AuditJob, *, whole: bool = True) -> bool:
        """Find out what is new in a job.

        Return False if that cannot be told, as the job is not ``whole`` and lists something that
        may be known.
        """
        comparison = _Comparison(self._before.digests, whole=whole)
        if not (comparison.add(job.snapshots) and comparison.add(job.audio_sections)):
            return False
        found = sorted(comparison.new, key=lambda one: _in_stream_order(one[0]))
        self.items = [item for item, _ in found]
        self.digests = array("Q", [one for _, one in found])
        self.marks = frozenset(comparison.added.difference(self.digests))
        severity = max(
            self._before.severity,
            *(item.result.severity for item in self.items if item.result is not None),
            0,
        )
        if job.result is not None and job.result.severity > severity:
            # Lists may be capped, or absent until the end.
            self.verdict = job.result
            severity = job.result.severity
        self.state = job.state if job.state != self._before.state else None
        self.seen = attrs.evolve(
            self._before,
            digests=self._before.digests.plus(comparison.added),
            state=job.state,
            severity=severity,
        )
        return True


class _Comparison:
    """Tells the items of a response that are new from those that have been seen."""

    def __init__(self, seen: Digests, *, whole: bool) -> None:
        self._seen = seen
        self._whole = whole
        self.new: list[tuple[Item, int]] = []
        self.added: set[int] = set()

    def add(self, shown: Sequence[Item]) -> bool:
        """Compare the items of one list; return False if it takes those that were left out."""
        identities = [_identity(item) for item in shown]
        several = {one for one, number in Counter(identities).items() if number > 1}
        equal: Counter[int] = Counter()
        for item, identity in zip(shown, identities, strict=True):
            if identity is not None and not self._whole and self._is_known(identity):
                return False
            if identity is not None and identity not in several and not self._is_shared(identity):
                if identity not in self._seen:
                    self._find(item, identity)
                continue
            content = _content(item)
            equal[content] += 1
            one = digest(content, equal[content])
            if one in self._seen:
                if not self._whole:
                    return False
            elif identity is not None and self._was_alone(identity):
                self.added |= {identity, one}
            else:
                self._find(item, one)
            if identity is not None:
                self.added.add(identity ^ SHARED)
        return True

    def _is_known(self, identity: int) -> bool:
        return identity in self._seen or self._is_shared(identity)

    def _is_shared(self, identity: int) -> bool:
        return identity ^ SHARED in self._seen

    def _was_alone(self, identity: int) -> bool:
        """Return whether an item was found by its identity, and none has been told from it yet."""
        known = identity in self._seen and not self._is_shared(identity)
        return known and identity not in self.added

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
