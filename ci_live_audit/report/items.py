"""A snapshot or an audio section in a stream: when it was, and how bad it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TypeAlias

import attrs

from ci_live_audit.following.finding import AudioFinding, SnapshotFinding
from ci_live_audit.following.findings import findings_of
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.seen import News, Seen
from ci_live_audit.models import AudioSection, AuditJob, Scene, Snapshot
from ci_live_audit.report.texts import clipped
from ci_live_audit.report.verdicts import Judgement, judge

__all__ = ["FEW", "Found", "Hit", "Item", "items"]

Found: TypeAlias = Snapshot | AudioSection

#: Scenes, texts and the like of one item that are shown.
FEW = 30
#: Milliseconds that a section may last.
LONGEST = 86_400_000


@attrs.frozen(kw_only=True)
class Hit:
    """A scene that was hit."""

    name: str
    judgement: Judgement
    score: int | None
    words: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Item:
    """A snapshot or an audio section.

    Attributes:
        kind: ``"picture"`` or ``"sound"``.
        key: The key of its finding.
        time: As sent, in milliseconds; ``until`` is when it ends.
        at: The time of day, if it is known.
        hits: The scenes that were hit, the worst first.
        score: The highest of these.
    """

    kind: str
    key: str
    judgement: Judgement
    time: int | None
    until: int | None
    at: datetime | None
    label: str
    hits: tuple[Hit, ...]
    score: int | None

    @property
    def listed(self) -> bool:
        """Whether a person should look at it."""
        return self.judgement.flagged or self.judgement.unknown


def items(job: AuditJob) -> Iterator[tuple[Item, Found]]:
    """Yield the snapshots and sections of a job in the order of the stream."""
    news = News(Seen())
    news.compare(job)
    for finding in findings_of(Update(job.job_id, job), news):
        if isinstance(finding, SnapshotFinding):
            yield _item("picture", finding, 0), finding.snapshot
        elif isinstance(finding, AudioFinding):
            length = min(max(finding.audio_section.duration or 0, 0), LONGEST)
            yield _item("sound", finding, length), finding.audio_section


def _item(kind: str, finding: SnapshotFinding | AudioFinding, length: int) -> Item:
    hits = finding.hits
    return Item(
        kind=kind,
        key=finding.key,
        judgement=judge(finding.verdict, hits),
        time=finding.time,
        until=None if finding.time is None else finding.time + length,
        at=finding.at,
        label=clipped(finding.label),
        hits=tuple(_hit(name, scene) for name, scene in islice(hits.items(), FEW)),
        score=finding.score if hits else None,
    )


def _hit(name: str, scene: Scene) -> Hit:
    words = (scene.label, scene.sub_label, scene.category)
    return Hit(
        name=clipped(name),
        judgement=judge(None, {name: scene}),
        score=scene.score,
        words=tuple(dict.fromkeys(clipped(word) for word in words if word and word != name)),
    )
