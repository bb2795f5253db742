"""How bad something is: a verdict as a page tells it, in a word and by a tone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import attrs

from ci_live_audit.models import HitFlag, Scene, Verdict
from ci_live_audit.report.texts import clipped

__all__ = ["FAILED", "NOTHING", "Judgement", "Rank", "judge"]


class Rank(IntEnum):
    """The order in which things are shown, the worst first; each has a tone of its own."""

    NORMAL = 0
    UNCLEAR = 1
    FAILED = 2
    SUSPECTED = 3
    SENSITIVE = 4


@attrs.frozen
class Judgement:
    """A rank and the words for it; ``unknown`` if no document has the service's number."""

    rank: Rank
    word: str
    unknown: bool = False

    @property
    def tone(self) -> str:
        """The name of the rank for style sheets."""
        return self.rank.name.lower()

    @property
    def flagged(self) -> bool:
        """Whether it is suspected or sensitive."""
        return self.rank >= Rank.SUSPECTED


SENSITIVE = Judgement(Rank.SENSITIVE, "Sensitive")
SUSPECTED = Judgement(Rank.SUSPECTED, "Suspected")
NORMAL = Judgement(Rank.NORMAL, "Normal")
NOTHING = Judgement(Rank.UNCLEAR, "No verdict")
FAILED = Judgement(Rank.FAILED, "Failed")


def judge(verdict: Verdict | None, hits: Mapping[str, Scene]) -> Judgement:
    """Return the judgement of a verdict and of the scenes that were hit, whichever is worse."""
    flags = [scene.hit_flag for scene in hits.values() if scene.hit_flag is not None]
    severity = max((one.severity for one in (verdict, *flags) if one is not None), default=0)
    if severity:
        return SENSITIVE if severity == HitFlag.HIT.severity else SUSPECTED
    if verdict is None:
        return NOTHING
    if verdict == Verdict.NORMAL:
        return NORMAL
    return Judgement(Rank.UNCLEAR, clipped(f"Verdict {verdict.value}", 30), unknown=True)
