"""What turns up about a watched job: `Finding`, a closed union of values for ``match``.

All of them have these attributes, None or empty where they do not apply: ``job_id``; ``key``, a
text that is the same in every delivery of this finding, by any process; ``source``, whether a poll
or a callback brought it; ``stream``, what `moderate` submitted (``watch`` does not know it);
``verdict``, ``label``, ``score``, ``hits``, ``url``; ``at`` and ``time``, when the snapshot was
taken or the section began. All but `WatchFailed` have ``job``, the job as it was when this was
found. The ``job_id`` of a stream that was not submitted is empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.streams import Stream
from ci_live_audit.models import (
    EMPTY,
    AudioSection,
    AuditJob,
    JobState,
    Scene,
    Scenes,
    Snapshot,
    Verdict,
    plain,
)

__all__ = [
    "AudioFinding",
    "Finding",
    "SnapshotFinding",
    "StateChange",
    "VerdictChange",
    "WatchFailed",
]


_PLAIN = (
    *("job_id", "verdict", "snapshot", "audio_section", "state", "error", "label", "time"),
    *("key", "source", "score", "at"),
)


@attrs.frozen(kw_only=True)
class _Base:
    """The base of all findings.

    What never applies to a class is a constant, so that a type checker knows which classes are left
    once ``verdict`` or ``at`` is there.
    """

    job_id: str
    key: str
    source: Literal["poll", "callback"] = "poll"
    stream: Stream | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, ready for ``json.dumps``; without the job.

        The keys are the same for every class, with None where they do not apply. ``stream`` is
        there if it is known.
        """
        known = _PLAIN if self.stream is None else (*_PLAIN, "stream")
        return {name: plain(getattr(self, name, None)) for name in known}


@attrs.frozen(kw_only=True)
class _ItemFinding(_Base, ABC):
    """A new item of the lists of a job."""

    job: AuditJob

    @property
    @abstractmethod
    def _item(self) -> Snapshot | AudioSection: ...

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the snapshot or the section."""
        return self._item.result

    @property
    def label(self) -> str | None:
        """The label of the snapshot or the section, such as ``"Porn"``."""
        return self._item.label

    @property
    def score(self) -> int | None:
        """The highest score of the hits; of all scenes if nothing was hit."""
        return _highest_score(self._item)

    @property
    def hits(self) -> Mapping[str, Scene]:
        """The scenes of the snapshot or the section with a hit, the worst first."""
        return self._item.hits

    @property
    def url(self) -> str | None:
        """The URL of the picture or the sound; it works for two hours."""
        return self._item.url


@attrs.frozen(kw_only=True)
class _JobFinding(_Base):
    """Something about a job as a whole."""

    url: ClassVar[None] = None
    at: ClassVar[None] = None
    time: ClassVar[None] = None


@attrs.frozen(kw_only=True)
class SnapshotFinding(_ItemFinding):
    """A new snapshot, or one with another label or verdict than before."""

    snapshot: Snapshot

    @property
    def _item(self) -> Snapshot:
        return self.snapshot

    @property
    def at(self) -> datetime | None:
        """``snapshot.taken_at``."""
        return self.snapshot.taken_at

    @property
    def time(self) -> int | None:
        """``snapshot.snapshot_time``, in milliseconds as sent."""
        return self.snapshot.snapshot_time


@attrs.frozen(kw_only=True)
class AudioFinding(_ItemFinding):
    """A new audio section, or one with another label or verdict than before."""

    audio_section: AudioSection

    @property
    def _item(self) -> AudioSection:
        return self.audio_section

    @property
    def at(self) -> datetime | None:
        """``audio_section.began_at``."""
        return self.audio_section.began_at

    @property
    def time(self) -> int | None:
        """``audio_section.offset_time``, in milliseconds as sent."""
        return self.audio_section.offset_time


@attrs.frozen(kw_only=True)
class StateChange(_JobFinding):
    """The first state seen, or a changed one; ``job.ended`` tells whether it is the last."""

    verdict: ClassVar[None] = None
    score: ClassVar[None] = None
    hits: ClassVar[Mapping[str, Scene]] = EMPTY

    state: JobState
    job: AuditJob

    @property
    def label(self) -> str | None:
        """The label of the job."""
        return self.job.label


@attrs.frozen(kw_only=True)
class VerdictChange(_JobFinding):
    """A verdict of the job that is worse than those of all findings before."""

    verdict: Verdict
    job: AuditJob

    @property
    def label(self) -> str | None:
        """The label of the job."""
        return self.job.label

    @property
    def score(self) -> int | None:
        """The highest score of the hits of the job; of all its scenes if nothing was hit."""
        return _highest_score(self.job)

    @property
    def hits(self) -> Mapping[str, Scene]:
        """The scenes of the job with a hit, the worst first."""
        return self.job.hits


@attrs.frozen(kw_only=True)
class WatchFailed(_JobFinding):
    """The error that ends watching a job, or of a submission; of a single job it is raised."""

    verdict: ClassVar[None] = None
    label: ClassVar[None] = None
    score: ClassVar[None] = None
    hits: ClassVar[Mapping[str, Scene]] = EMPTY

    error: LiveAuditError


Finding: TypeAlias = SnapshotFinding | AudioFinding | StateChange | VerdictChange | WatchFailed


def _highest_score(result: Scenes) -> int | None:
    scenes = result.hits or result.scenes
    return max((scene.score for scene in scenes.values() if scene.score is not None), default=None)
