"""How bad something is, in a word."""

from __future__ import annotations

import pytest

from ci_live_audit import HitFlag, Scene, Verdict
from ci_live_audit.report.verdicts import judge


@pytest.mark.parametrize(
    ("verdict", "flag", "word", "tone", "flagged"),
    [
        (0, None, "Normal", "normal", False),
        (0, 0, "Normal", "normal", False),
        (1, None, "Sensitive", "sensitive", True),
        (2, None, "Suspected", "suspected", True),
        (2, 1, "Sensitive", "sensitive", True),
        (0, 2, "Suspected", "suspected", True),
        (None, 1, "Sensitive", "sensitive", True),
        (None, None, "No verdict", "unclear", False),
        (None, 5, "No verdict", "unclear", False),
        (7, None, "Verdict 7", "unclear", False),
        (-1, 0, "Verdict -1", "unclear", False),
    ],
)
def test_the_worse_of_verdict_and_hits(
    verdict: int | None, flag: int | None, word: str, tone: str, flagged: bool
) -> None:
    """The worse counts; what is not said, or not known, is not normal."""
    hits = {} if flag is None else {"Porn": Scene(hit_flag=HitFlag(flag)), "Ads": Scene()}
    found = judge(None if verdict is None else Verdict(verdict), hits)
    assert (found.word, found.tone, found.flagged) == (word, tone, flagged)
    assert found.unknown == (verdict in {7, -1})
