"""`--min-score` and `--scene`: which findings pass."""

from __future__ import annotations

from typing import Any

import pytest

from ci_live_audit import AuditJob, HitFlag, JobState, Scene, Snapshot, Verdict
from ci_live_audit.cli.filters import Filter
from ci_live_audit.models import ReadOnly


def shot(verdict: Verdict | None = Verdict.SENSITIVE, /, **scores: int | None) -> Snapshot:
    """Return a snapshot with hits of scores; no hits unless it is flagged."""
    flag = HitFlag.HIT if verdict else HitFlag.MISS
    scenes = {name: Scene(hit_flag=flag, score=score) for name, score in scores.items()}
    return Snapshot(result=verdict, label=next(iter(scores), None), scenes=ReadOnly(scenes))


def job(*snapshots: Snapshot, **fields: Any) -> AuditJob:
    """Return a job that found something."""
    return AuditJob(job_id="av1", state=JobState.SUCCESS, snapshots=snapshots, **fields)


@pytest.mark.parametrize(
    ("keep", "found", "passes"),
    [
        (Filter(), shot(Porn=1), True),
        (Filter(90), shot(Porn=90), True),
        (Filter(90), shot(Porn=89), False),
        (Filter(90), shot(Porn=None), True),
        (Filter(90), shot(Porn=10, Ads=95), True),
        (Filter(None, ("porn",)), shot(Porn=10), True),
        (Filter(None, (" PORN ", "Moan")), shot(Porn=10), True),
        (Filter(None, ("Ads",)), shot(Porn=10), False),
        (Filter(90, ("Porn",)), shot(Porn=10, Ads=95), False),
        (Filter(90, ("Ads",)), shot(Porn=10, Ads=95), True),
        (Filter(50), shot(Verdict.NORMAL, Porn=55), True),
        (Filter(50), shot(Verdict.NORMAL, Porn=45), False),
        (Filter(50), Snapshot(label="Porn"), True),
        (Filter(50, ("Porn",)), Snapshot(label="Porn"), True),
        (Filter(50, ("Porn",)), Snapshot(label="Ads"), False),
        (Filter(50, ("Porn",)), Snapshot(), False),
    ],
)
def test_what_passes(keep: Filter, found: Snapshot, passes: bool) -> None:
    """One scene has to have both the name and the score; what has no score may be the worst."""
    assert keep.passes(found) == passes


def test_the_worst_hit_that_passes() -> None:
    """That is what is shown."""
    found = shot(Porn=98, Ads=60)
    hit = Filter().hit(found)
    assert hit is not None
    assert hit[0] == "Porn"
    hit = Filter(None, ("ads",)).hit(found)
    assert hit is not None
    assert (hit[0], hit[1].score) == ("Ads", 60)
    assert Filter(99).hit(found) is None


def test_a_job_counts_by_what_passes() -> None:
    """By its own verdict only if it lists nothing that shows why."""
    keep = Filter(90)
    assert Filter().flags(job(shot(Porn=10)))
    assert keep.flags(job(shot(Porn=10), shot(Ads=95), result=Verdict.SENSITIVE))
    assert not keep.flags(job(shot(Porn=10), result=Verdict.SENSITIVE))
    assert keep.flags(job(result=Verdict.SENSITIVE))
    assert not Filter(None, ("Ads",)).flags(job(result=Verdict.SENSITIVE, label="Porn"))
    assert not keep.flags(job(shot(Verdict.NORMAL, Porn=95), result=Verdict.NORMAL))
