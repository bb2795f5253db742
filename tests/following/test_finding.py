"""A finding: five classes, each with what belongs to it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, get_args

import attrs
import pytest
from runs import Watched

from ci_live_audit import (
    AudioFinding,
    AudioSection,
    AuditJob,
    Finding,
    HitFlag,
    JobNotFound,
    JobState,
    Scene,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Verdict,
    VerdictChange,
    WatchFailed,
)
from ci_live_audit.models import ReadOnly

SENSITIVE, NORMAL = Verdict.SENSITIVE, Verdict.NORMAL
PORN = Scene(hit_flag=HitFlag.HIT, score=97)
ADS = Scene(hit_flag=HitFlag.SUSPECTED, score=99)
SCENES = ReadOnly({"Ads": ADS, "Porn": PORN, "Politics": Scene(hit_flag=HitFlag.MISS, score=3)})
PICTURE = Snapshot(
    url="https://e.com/1.jpg",
    label="Porn",
    result=SENSITIVE,
    snapshot_time=1_649_387_157_000,
    scenes=SCENES,
)
SOUND = AudioSection(
    url="https://e.com/1.mp3",
    label="Normal",
    result=NORMAL,
    offset_time=5000,
    scenes=ReadOnly({"Ads": Scene(score=12), "Porn": Scene()}),
)
JOB = AuditJob(
    job_id="j",
    state=JobState.AUDITING,
    label="Ads",
    result=Verdict.SUSPECTED,
    url="rtmp://e.com/app/room7",
    scenes=ReadOnly({"Ads": Scene(hit_flag=HitFlag.SUSPECTED, count=1)}),
)
OF_SNAPSHOT = SnapshotFinding(job_id="j", key="1", job=JOB, snapshot=PICTURE)
OF_AUDIO = AudioFinding(job_id="j", key="2", job=JOB, audio_section=SOUND)
OF_STATE = StateChange(job_id="j", key="3", job=JOB, state=JobState.AUDITING)
OF_VERDICT = VerdictChange(job_id="j", key="4", job=JOB, verdict=Verdict.SUSPECTED)
OF_ERROR = WatchFailed(job_id="j", key="5", error=JobNotFound("gone", status=404))
FINDINGS: list[Finding] = [OF_SNAPSHOT, OF_AUDIO, OF_STATE, OF_VERDICT, OF_ERROR]
OWN = ("snapshot", "audio_section", "state", "error", "job")


@pytest.mark.parametrize(
    ("finding", "own", "verdict", "label", "score", "hits", "url", "time"),
    [
        (
            OF_SNAPSHOT,
            {"snapshot", "job"},
            *(SENSITIVE, "Porn", 99, ["Porn", "Ads"], "https://e.com/1.jpg", 1_649_387_157_000),
        ),
        (
            OF_AUDIO,
            {"audio_section", "job"},
            *(NORMAL, "Normal", 12, [], "https://e.com/1.mp3", 5000),
        ),
        (OF_STATE, {"state", "job"}, None, "Ads", None, [], None, None),
        (OF_VERDICT, {"job"}, Verdict.SUSPECTED, "Ads", None, ["Ads"], None, None),
        (OF_ERROR, {"error"}, None, None, None, [], None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Finding) else "",
)
def test_what_a_finding_has(
    finding: Finding,
    own: set[str],
    verdict: Verdict | None,
    label: str | None,
    score: int | None,
    hits: list[str],
    url: str | None,
    time: int | None,
) -> None:
    """Every class has what all have, None or empty where it does not apply, and its own values."""
    assert {name for name in OWN if hasattr(finding, name)} == own
    assert (finding.verdict, finding.label, finding.score) == (verdict, label, score)
    assert (list(finding.hits), finding.url, finding.time) == (hits, url, time)
    assert (finding.job_id, finding.source, finding.stream) == ("j", "poll", None)


def test_when_it_was() -> None:
    """A time since 1970 is aware; an offset in a recording, or none, is no time of day."""
    assert [finding.at for finding in FINDINGS] == [
        datetime(2022, 4, 8, 3, 5, 57, tzinfo=UTC),
        *[None] * 4,
    ]


def test_the_union_is_closed() -> None:
    """It consists of the five classes, which are what a watch hands out."""
    assert [type(finding) for finding in FINDINGS] == list(get_args(Finding))
    assert all(isinstance(finding, Finding) for finding in FINDINGS)
    assert not isinstance(JOB, Finding)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: type(finding).__name__)
def test_a_finding_is_a_value(finding: Finding) -> None:
    """Equal findings compare and hash equal and survive pickling; none can be changed."""
    same = attrs.evolve(finding)
    assert finding == same
    assert len({finding, same}) == 1
    assert finding != attrs.evolve(finding, job_id="other")
    again = pickle.loads(pickle.dumps(finding))
    assert again.to_dict() == finding.to_dict()
    assert again == finding or isinstance(finding, WatchFailed)  # errors compare by identity
    for name in ("verdict", "new"):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(finding, name, SENSITIVE)
    assert not hasattr(finding, "__dict__")


@pytest.mark.parametrize(
    ("finding", "values"),
    [
        (
            OF_SNAPSHOT,
            {
                "verdict": 1,
                "snapshot": PICTURE.to_dict(),
                "label": "Porn",
                "time": 1_649_387_157_000,
                "score": 99,
                "at": "2022-04-08T03:05:57+00:00",
            },
        ),
        (
            OF_AUDIO,
            {"verdict": 0, "audio_section": SOUND.to_dict(), "label": "Normal"}
            | {"time": 5000, "score": 12},
        ),
        (OF_STATE, {"state": "Auditing", "label": "Ads"}),
        (OF_VERDICT, {"verdict": 2, "label": "Ads"}),
        (OF_ERROR, {"error": OF_ERROR.error.to_dict()}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Finding) else "",
)
def test_a_finding_as_plain_values(finding: Finding, values: dict[str, Any]) -> None:
    """A finding is ready for json.dumps, without its job, and with the same keys for all."""
    nothing = dict.fromkeys(
        ("verdict", "snapshot", "audio_section", "state", "error", "label", "time", "score", "at")
    )
    of_all = {"job_id": "j", "key": finding.key, "source": "poll"}
    plain = json.loads(json.dumps(finding.to_dict()))
    assert plain == nothing | of_all | json.loads(json.dumps(values))


# The key

TWICE = """if True:
    from ci_live_audit import decode
    from ci_live_audit.following.findings import findings_of
    from ci_live_audit.following.ledger import Update
    from ci_live_audit.following.seen import News, Seen
    item = "<Snapshot><SnapshotTime>{}</SnapshotTime><Url>http://e.com/{}</Url></Snapshot>"
    seen = Seen()
    for state, result, shown in ("Auditing", 0, "77"), ("Success", 1, "7782"):
        items = "".join(item.format(time, time) for time in shown)
        items += "<Snapshot><Label>Normal</Label></Snapshot>" * 2
        section = "<AudioSection><OffsetTime>7</OffsetTime></AudioSection>"
        head = f"<JobId>j</JobId><State>{state}</State><Result>{result}</Result>"
        body = f"<Response><JobsDetail>{head}{items}{section}</JobsDetail></Response>"
        news = News(seen)
        job = news.read(body.encode())
        seen = news.seen
        for finding in findings_of(Update("j", job), news):
            print(finding.key, type(finding).__name__)
"""


def test_a_key_is_the_same_in_every_process() -> None:
    """It identifies a finding, equal items included, however the process hashes texts."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", TWICE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    lines = printed[0].splitlines()
    assert printed == [printed[0]] * 2
    assert len({line.split()[0] for line in lines}) == len(lines) == 10
    assert {len(line.split()[0]) for line in lines} == {16}


def test_a_key_is_of_its_job() -> None:
    """The same in another job has another key, and in another response the same one."""
    (_, mine), (_, again) = (
        Watched().update(attrs.evolve(JOB, result=None, snapshots=(picture,)))
        for picture in (PICTURE, attrs.evolve(PICTURE, url="https://e.com/1.jpg?signed=anew"))
    )
    (_, other) = Watched().update(attrs.evolve(JOB, job_id="k", result=None, snapshots=(PICTURE,)))
    assert mine.key == again.key != other.key
