"""One odd value in a response costs that value, and blinds nobody."""

from __future__ import annotations

import logging

import attrs
import pytest

from ci_live_audit import SnapshotFinding
from ci_live_audit.models import ReadOnly, Scene, Verdict
from ci_live_audit.testing import Emulator, frame


def odd(at: float) -> object:
    """Return a snapshot with values of other types than documented, beside a hit."""
    snapshot = frame(at, "Porn", score=98)
    porn = snapshot.scenes["Porn"]
    damaged: Scene = attrs.evolve(porn, score=None, extra=ReadOnly({"Score": "high"}))
    return attrs.evolve(
        snapshot, scenes=ReadOnly({"Porn": damaged}), extra=ReadOnly({"OcrHitInfos": "none yet"})
    )


async def test_a_finding_beside_an_odd_value_is_handed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A watch hands out a new finding whatever is wrong beside it, and warns once of each path."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=60, script=[odd(5), odd(25), odd(45)])  # type: ignore[list-item]
    with caplog.at_level(logging.WARNING, "ci_live_audit"):
        async with emulator.client() as client, client.watch(job_id, interval=10) as findings:
            found = [finding async for finding in findings if finding.verdict is Verdict.SENSITIVE]
            last = await client.query(job_id)
    snapshots = [one.snapshot for one in found if isinstance(one, SnapshotFinding)]
    assert len(snapshots) == 3
    assert len(last.unreadable) == 6
    assert last.unreadable[0] == "JobsDetail.Snapshot[0].PornInfo.Score"
    assert last.snapshots[0].scenes["Porn"].extra == {"Score": "high"}
    warned = [record.getMessage() for record in caplog.records if "cannot be read" in record.msg]
    assert len(warned) == 2
    assert all(job_id in text for text in warned)


async def test_the_warnings_of_a_client_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many paths a hostile service makes up, the log is not flooded."""
    monkeypatch.setattr("ci_live_audit.calls.MAX_WARNED", 1)
    emulator = Emulator()
    job_id = emulator.add_job(duration=60, script=[odd(5)])  # type: ignore[list-item]
    async with emulator.client() as client:
        job = await client.wait(job_id, interval=10)
    assert len(job.unreadable) == 2
    assert len([one for one in caplog.records if "cannot be read" in one.msg]) == 1
