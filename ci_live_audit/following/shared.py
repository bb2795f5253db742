"""Checkpoints that several processes share: what a store of theirs has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import attrs

from ci_live_audit._checks import MANY, above_zero
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import Ids, Source
from ci_live_audit.following.member import Member

__all__ = ["Beat", "Claimed", "Committed", "Resigned", "SharedCheckpoint", "SharedStreams"]


@attrs.frozen(kw_only=True)
class Beat:
    """What a store says to a sign of life.

    Attributes:
        lost: Whether the process was taken for dead, or never joined: it has no jobs any more.
        forgotten: With ``lost``: whether the store knows of nothing at all.
        back: Jobs that the process follows from now on and that were followed before, each with
            what was seen of it: all that `Commit.seen` has said, one after the other.
        new: Jobs that nobody has followed before.
        surplus: How many jobs the process has beyond its share.
        open: The number of jobs of all processes that are not over.
        own: The jobs that the process had before, unless their number is the one it has said.
        taken_over: How many of the jobs in ``back`` were those of processes that have died.
    """

    lost: bool = False
    forgotten: bool = False
    back: Sequence[tuple[str, bytes]] = ()
    new: Sequence[tuple[str, bytes]] = ()
    surplus: int = 0
    open: int = 0
    own: Sequence[str] | None = None
    taken_over: int = 0


@attrs.frozen(kw_only=True)
class Committed:
    """What a store says to what was dealt with.

    Attributes:
        lost: As of a `Beat`; then nothing has been noted.
        noted: For each `Commit`, whether the job was the process's own and it has been noted.
        open: As of a `Beat`.
    """

    lost: bool = False
    noted: Sequence[bool] = ()
    open: int = 0


@attrs.frozen(kw_only=True)
class Claimed:
    """What a store says to claims of streams.

    Attributes:
        lost: As of a `Beat`; then nothing has been claimed.
        words: For each of the claims: ``"mine"``, ``"open"`` if it is another's, ``"over"`` if it
            is not to be submitted, and ``"full"`` if there is no room for it now.
        open: As of a `Beat`.
    """

    lost: bool = False
    words: Sequence[str] = ()
    open: int = 0


@attrs.frozen(kw_only=True)
class Resigned:
    """What a store says to a process that leaves.

    Attributes:
        others: The number of other processes.
        waiting: How many streams nobody has at the moment.
        streams: Those that are this process's again, as there is no other, as in ``Beat.back``.
    """

    others: int
    waiting: int
    streams: Sequence[tuple[str, bytes]] = ()


class SharedCheckpoint(ABC):
    """The state of a run that several processes share: each follows a part of the jobs.

    `RedisCheckpoint` is one. For another store, write its four methods (for `moderate`, the three
    of `SharedStreams`, too). Each is called by one task
    of a run at a time, and either takes effect as a whole or raises: an `OSError` if the store
    cannot be reached (the call is repeated), anything else to end the run. A call may take effect
    although it raised, and then comes again.

    Args:
        ttl: Seconds after its last sign of life at which a process counts as dead. It gives one
            three times as often.

    Attributes:
        takeovers: How many jobs this process has taken over from processes that died, as far as the
            store says so. `OpenTelemetry.observe` makes a metric of it.
        scope: What the run is about that makes the call, the same for all processes. Each run has
            its own, so that several may be made with one checkpoint.
        remaining: The number of jobs of all processes that are not over, as last heard; None
            before the store has said it.
    """

    def __init__(self, *, ttl: float = 3.0) -> None:
        above_zero("ttl", ttl, "seconds", at_most=MANY)
        self.ttl: float = ttl
        self.takeovers: int = 0
        self.remaining: int | None = None
        self.scope: str = ""

    def bind(self, bucket: str, region: str, kind: str = "") -> None:
        """Note what the next run is about: the bucket, the region, and which method makes it."""
        self.scope = f"{bucket} {region} {kind}".rstrip()

    def begin(self, job_ids: Source) -> Ids:
        """Return the ids of one run: what this process is given of all jobs."""
        return Member(self, job_ids)

    @abstractmethod
    async def add(self, job_ids: Sequence[str]) -> None:
        """Add jobs to be followed, unless they are there or over already."""

    @abstractmethod
    async def beat(self, process: str, *, joins: bool, want: int, held: int) -> Beat:
        """Take a sign of life, and give the process its share of the jobs.

        The jobs of a process whose last sign is older than its ``ttl`` go to the others.

        Args:
            process: The name of the process.
            joins: Whether it is its first sign; otherwise it must be known.
            want: How many jobs it takes at most.
            held: How many it has.

        Raises:
            OSError: The store cannot be reached.
            ConfigurationError: The store is about another ``scope``.
        """

    @abstractmethod
    async def commit(self, process: str, commits: Sequence[Commit]) -> Committed:
        """Note what a process has dealt with, of jobs that are its own."""

    @abstractmethod
    async def leave(self, process: str) -> None:
        """Give all jobs of a process to the others, at once."""


class SharedStreams(SharedCheckpoint):
    """A store that `moderate` can use, too: there, what is shared are streams, by their keys.

    A stream is *claimed* before it is submitted, and the claim is a note that no other has; what
    `Commit.seen` says of the stream, its job first, comes after that.
    """

    @abstractmethod
    async def claim(
        self, process: str, claims: Mapping[str, bytes], *, at_once: int, once: bool, doubt: float
    ) -> Claimed:
        """Give streams to a process that is about to submit them.

        One that has the very claim already goes to the process, whoever has it; of the others, one
        at a time.

        Args:
            process: The name of the process.
            claims: The notes of streams, by their keys.
            at_once: How many may be open, of all processes.
            once: Whether what was given up since the first process joined is not submitted again.
            doubt: Seconds for which those that are laid aside count as open, but for one place.
        """

    @abstractmethod
    async def report(self, stream: str, claim: bytes, job: bytes) -> None:
        """Note what became of a claim that may be another process's by now.

        If it is not known already, the stream goes to any process; without a ``job`` it is
        forgotten. Nothing happens if the claim is not the stream's, unless the store has lost it.
        """

    @abstractmethod
    async def resign(self, process: str, *, takes: bool) -> Resigned:
        """Give all streams of a process to the others, at once.

        If there are no others and it ``takes``, all streams that are open are the process's again.
        """
