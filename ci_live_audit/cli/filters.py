"""Which findings are shown: ``--min-score`` and ``--scene``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import attrs

from ci_live_audit.cli.words import is_flagged
from ci_live_audit.models import AudioSection, AuditJob, Scene, Snapshot

__all__ = ["Filter", "Judged"]

#: What the service judges.
Judged: TypeAlias = Snapshot | AudioSection | AuditJob


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.strip().casefold() for name in names)


@attrs.frozen
class Filter:
    """Lets findings pass by the scenes that were hit; of others, by all their scenes.

    What has no score passes, as it may be a high one.

    Attributes:
        min_score: The lowest score that passes; None for all.
        scenes: The names that pass, whatever their case; empty for all.
    """

    min_score: int | None = None
    scenes: frozenset[str] = attrs.field(factory=frozenset[str], converter=_folded)

    def passes(self, found: Judged) -> bool:
        """Return whether something is shown."""
        scenes = found.hits or found.scenes
        if not scenes:
            return self._takes(found.label or "", None)
        return any(self._takes(name, scene) for name, scene in scenes.items())

    def _takes(self, name: str, scene: Scene | None) -> bool:
        score = None if scene is None else scene.score
        named = not self.scenes or name.casefold() in self.scenes
        return named and (self.min_score is None or score is None or score >= self.min_score)

    def hit(self, found: Judged) -> tuple[str, Scene] | None:
        """Return the worst hit that passes, with its name; None if there is none."""
        hits = found.hits.items()
        return next(((name, scene) for name, scene in hits if self._takes(name, scene)), None)

    def flags(self, job: AuditJob) -> bool:
        """Return whether a job counts as flagged: by what it found, or by its own verdict."""
        items: list[Judged] = [*job.snapshots, *job.audio_sections]
        flagged = [item for item in items if is_flagged(item.result)]
        if flagged:
            return any(map(self.passes, flagged))
        return is_flagged(job.result) and self.passes(job)
