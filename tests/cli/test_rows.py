"""What a line says of a finding, an outcome, or an item of a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from ci_live_audit import (
    AudioFinding,
    AudioSection,
    AuditJob,
    HitFlag,
    JobFailed,
    JobState,
    Outcome,
    Scene,
    ServiceError,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Stream,
    Verdict,
    VerdictChange,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.cli.filters import Filter
from ci_live_audit.cli.rows import Row, View, judged
from ci_live_audit.models import OcrResult, ReadOnly

BEGIN = datetime(2026, 11, 27, 21, 23, 8, tzinfo=UTC)
VIEW = View(zone=UTC)
PORN = Scene(hit_flag=HitFlag.HIT, score=98, sub_label="SexBehavior", category="Act")
ADS = Scene(
    hit_flag=HitFlag.HIT, score=91, ocr_results=(OcrResult(text="buy now", keywords=("buy",)),)
)
LIST = Scene(hit_flag=HitFlag.SUSPECTED)


def at(seconds: float) -> int:
    """Return a time in the stream as the service sends it."""
    return int((BEGIN + timedelta(seconds=seconds)).timestamp() * 1000)


def shot(**scenes: Scene) -> Snapshot:
    """Return a sensitive snapshot with hits."""
    return Snapshot(
        snapshot_time=at(68), result=Verdict.SENSITIVE, label="Porn", scenes=ReadOnly(scenes)
    )


def job(*items: Snapshot, state: JobState = JobState.AUDITING, **fields: Any) -> AuditJob:
    """Return a job that was created at the beginning."""
    given = {"creation_time": BEGIN, "url": "rtmp://live.example.com/app/room7", **fields}
    return AuditJob(job_id="av1", state=state, snapshots=items, **given)


def test_a_snapshot() -> None:
    """When, which stream, how bad, and why."""
    item = attrs.evolve(
        shot(Porn=PORN, Ads=ADS, List=LIST), url="https://example.com/1.jpg", text="so buy it"
    )
    finding = SnapshotFinding(job_id="av1", key="1", snapshot=item, job=job(item))
    assert VIEW.finding(finding, BEGIN) == Row(
        job_id="av1",
        time="21:24:16",
        offset="(+1:08)",
        verdict="Sensitive",
        scene="Porn",
        score="98",
        stream="room7",
        details='SexBehavior, Act, Ads 91, List, "buy" in "so buy it"',
        url="https://example.com/1.jpg",
        style="bold red",
    )


def test_a_filter_shows_what_passes() -> None:
    """The scene that was asked for, though another one is worse."""
    item = shot(Porn=PORN, Ads=ADS)
    row = attrs.evolve(VIEW, keep=Filter(scenes=("ads",))).item(job(item), item)
    assert (row.scene, row.score) == ("Ads", "91")
    assert row.details == 'Porn 98, "buy" in "buy now"'


def test_a_section() -> None:
    """It says that it is no picture; a URL that is none of the web is no link."""
    section = AudioSection(
        offset_time=3000,
        result=Verdict.SUSPECTED,
        label="Ads",
        sub_label="Loud",
        text="one",
        url="javascript:alert(1)",
    )
    finding = AudioFinding(
        job_id="av1", key="1", audio_section=section, job=job(), stream=Stream("rtmp://a.example/x")
    )
    row = VIEW.finding(finding, BEGIN)
    assert (row.time, row.offset, row.stream, row.url) == ("", "(+0:03)", "x", None)
    assert (row.scene, row.score, row.details) == ("Ads", "", 'audio, Loud, "one"')
    assert row.style == "yellow"


@pytest.mark.parametrize(
    ("time", "created", "shown"),
    [
        (at(-5), BEGIN, ("21:23:03", "")),
        (at(5), None, ("21:23:13", "")),
        (at(36_120), BEGIN, ("07:25:08", "(+10h02m)")),
        (68_000, BEGIN, ("", "(+1:08)")),
        (-68_000, BEGIN, ("", "(-1:08)")),
        (None, BEGIN, ("", "")),
    ],
)
def test_times(time: int | None, created: datetime | None, shown: tuple[str, str]) -> None:
    """The time of day if it is known, and the time since the job was created, or as sent."""
    item = Snapshot(snapshot_time=time, result=Verdict.SENSITIVE)
    row = VIEW.item(job(item, creation_time=created), item)
    assert (row.time, row.offset) == shown


def test_changes_of_the_job() -> None:
    """A state has the time of the answer, or else that of now; a failed one has its reason."""
    now = BEGIN + timedelta(minutes=1)
    ended = job(state=JobState.FAILED, code="DownloadFailed", received_at=BEGIN, data_id="studio")
    row = VIEW.finding(StateChange(job_id="av1", key="1", state=ended.state, job=ended), now)
    assert (row.time, row.verdict, row.stream) == ("21:23:08", "Failed", "studio")
    assert (row.details, row.whole) == ("DownloadFailed", True)
    bare = job(state=JobState.FAILED)
    row = VIEW.finding(StateChange(job_id="av1", key="1", state=bare.state, job=bare), now)
    assert (row.time, row.details) == ("21:24:08", "no reason was given")
    flagged = job(result=Verdict.SENSITIVE, label="Porn", scenes=ReadOnly({"Ads": LIST}))
    change = VerdictChange(job_id="av1", key="1", verdict=Verdict.SUSPECTED, job=flagged)
    assert judged(change) is flagged
    row = VIEW.finding(change, now)
    assert (row.verdict, row.scene, row.style) == ("Suspected", "Ads", "yellow")
    assert row.details == "the stream as a whole"


def test_an_error() -> None:
    """Nothing of it is cut; a job that timed out keeps its name."""
    error = ServiceError("gone", status=404)
    row = VIEW.finding(WatchFailed(job_id="av1", key="1", error=error), BEGIN)
    assert (row.verdict, row.stream, row.whole) == ("Error", "av1", True)
    assert row.details == str(error)
    for last, name in ((None, "av1"), (job(), "room7")):
        late = WatchFailed(job_id="av1", key="1", error=WaitTimeout("late", last=last))
        row = VIEW.finding(late, BEGIN)
        assert (row.verdict, row.stream) == ("Timed out", name)


@pytest.mark.parametrize(
    ("outcome", "verdict", "scene", "details"),
    [
        (
            Outcome(job_id="av1", job=job(state=JobState.SUCCESS, result=Verdict.NORMAL)),
            "Normal",
            "",
            "",
        ),
        (Outcome(job_id="av1", job=job(state=JobState.SUCCESS)), "Success", "", ""),
        (
            Outcome(job_id="av1", job=job(state=JobState.CANCELLED, result=Verdict.NORMAL)),
            "Cancelled",
            "",
            "",
        ),
        (
            Outcome(
                job_id="av1",
                job=job(state=JobState.FAILED, code="DownloadFailed", label="Normal"),
                error=JobFailed("failed", job=job()),
            ),
            "Failed",
            "",
            "DownloadFailed",
        ),
        (
            Outcome(job_id="av1", job=job(result=Verdict.NORMAL), error=WaitTimeout("late")),
            "Timed out",
            "",
            "",
        ),
        (
            Outcome(
                job_id="av1",
                job=job(shot(Porn=PORN), result=Verdict.SENSITIVE),
                error=WaitTimeout("late"),
            ),
            "Sensitive",
            "Porn",
            "timed out",
        ),
        (Outcome(job_id="av1", error=WaitTimeout("late")), "Timed out", "", "late"),
        (Outcome(job_id="av1", error=ServiceError("no", status=404)), "Error", "", "404 no"),
    ],
)
def test_outcomes(outcome: Outcome, verdict: str, scene: str, details: str) -> None:
    """A verdict stands only for what was seen to its end, unless it is a bad one."""
    row = VIEW.outcome(outcome)
    assert (row.job_id, row.verdict, row.scene, row.details) == ("av1", verdict, scene, details)
    assert (row.time == "21:24:16") == (scene == "Porn")


def test_the_worst_comes_first() -> None:
    """By verdict, then by score; among equals the first of the stream."""
    items = [
        attrs.evolve(shot(Porn=PORN), snapshot_time=at(9)),
        attrs.evolve(shot(Ads=ADS), snapshot_time=at(2)),
        attrs.evolve(shot(Porn=LIST), snapshot_time=at(1), result=Verdict.SUSPECTED),
        attrs.evolve(shot(Porn=PORN), snapshot_time=at(3)),
        attrs.evolve(shot(), snapshot_time=None),
        Snapshot(result=Verdict.NORMAL),
    ]
    given = job(*items)
    times = [VIEW.item(given, item).time for item in VIEW.worst_first(given)]
    assert times == ["21:23:11", "21:23:17", "21:23:10", "", "21:23:09"]
    assert len(VIEW.flagged(given)) == 5
    assert len(attrs.evolve(VIEW, keep=Filter(95)).flagged(given)) == 4  # two have no score
