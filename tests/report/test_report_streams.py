"""Streams: their names, their verdicts, and what must not be missed about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest
from reports import BEGIN, filled, picture, stream_job

from ci_live_audit import (
    AuditJob,
    HitFlag,
    JobFailed,
    JobNotFound,
    JobState,
    Outcome,
    Scene,
    Snapshot,
    UserInfo,
    Verdict,
    WaitTimeout,
)
from ci_live_audit.models import ListResult, ReadOnly
from ci_live_audit.report.streams import Stream, stream

NORMAL: dict[str, Any] = {"state": JobState.SUCCESS, "result": Verdict.NORMAL, "label": "Normal"}


def shown(given: AuditJob | Outcome | None = None, **attributes: Any) -> Stream:
    job = AuditJob(job_id="av1", **{**NORMAL, **attributes})
    return stream(1, job if given is None else given)[0]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"data_id": "room 7", "url": "rtmp://live.example.com/app/room8"}, "room 7"),
        ({"url": "rtmp://live.example.com/app/room8?txSecret=1"}, "room8"),
        ({"url": "https://live.example.com/app/room9/"}, "room9"),
        ({"url": "https://live.example.com"}, "av1"),
        ({"url": "https://[live/x"}, "av1"),
        ({}, "av1"),
    ],
)
def test_a_stream_has_a_name(attributes: dict[str, Any], name: str) -> None:
    """Its own, or the end of its URL without what follows, or the id of the job."""
    assert shown(**attributes).name == name


@pytest.mark.parametrize(
    ("attributes", "word", "tone"),
    [
        ({}, "Normal", "normal"),
        ({"state": JobState.AUDITING}, "Normal so far", "unclear"),
        ({"state": JobState("Paused")}, "Normal so far", "unclear"),
        ({"state": JobState.CANCELLED}, "Normal until cancelled", "unclear"),
        ({"state": JobState.AUDITING, "result": None}, "No verdict so far", "unclear"),
        ({"result": None}, "No verdict", "unclear"),
        ({"result": Verdict(7)}, "Verdict 7", "unclear"),
        ({"state": JobState.FAILED}, "Failed", "failed"),
        ({"state": JobState.FAILED, "result": None}, "Failed", "failed"),
        ({"state": JobState.FAILED, "result": Verdict.SUSPECTED}, "Suspected", "suspected"),
        ({"state": JobState.AUDITING, "result": Verdict.SENSITIVE}, "Sensitive", "sensitive"),
        ({"scenes": ReadOnly({"Ads": Scene(hit_flag=HitFlag.HIT)})}, "Sensitive", "sensitive"),
        ({"snapshots": (picture(1), picture(2, "Ads", result=2))}, "Suspected", "suspected"),
        ({"snapshots": (Snapshot(result=Verdict(7)),)}, "Verdict 7", "unclear"),
    ],
)
def test_the_worst_that_is_known(attributes: dict[str, Any], word: str, tone: str) -> None:
    """Only what ended well with a normal verdict, and nothing else in it, is normal."""
    found = shown(**attributes)
    assert (found.judgement.word, found.judgement.tone) == (word, tone)


def test_a_failed_job_says_why() -> None:
    """The service's code and message are the first note."""
    failed = AuditJob(
        job_id="av1", state=JobState.FAILED, code="ResourceDownloadFailed", message="no stream"
    )
    error = JobFailed("the job failed", job=failed)
    for given in (failed, Outcome(job_id="av1", job=failed, error=error)):
        (note,) = shown(given).notes
        assert note.endswith("not moderated to its end: ResourceDownloadFailed no stream")
    (note,) = shown(state=JobState.FAILED).notes
    assert note.endswith("the service gave no reason")


def test_a_job_that_was_not_found() -> None:
    """An error in place of a job is told, and does not look clean."""
    error = JobNotFound(status=404, code="AuditingJobNotFound").about("query", "av1")
    found = shown(Outcome(job_id="av1", error=error))
    assert (found.name, found.judgement.word, found.state) == ("av1", "No result", "Not known")
    assert found.notes == ("query of av1: 404 AuditingJobNotFound",)
    assert [fact.value for fact in found.facts] == ["av1"]


def test_a_job_that_did_not_end_in_time() -> None:
    """It is shown as it was last seen, with the reason."""
    last = stream_job(state=JobState.AUDITING)
    found = shown(Outcome(job_id="av1", job=last, error=WaitTimeout("not ended", last=last)))
    assert (found.judgement.word, found.notes) == ("Sensitive", ("not ended",))
    assert found.as_of == BEGIN + timedelta(minutes=10)


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ({"result": Verdict.SENSITIVE}, "calls this stream sensitive, but sent no picture"),
        ({"snapshots": (picture(1, "Porn"),)}, "is milder than these: normal."),
        ({"snapshot_count": 1200, "snapshots": (picture(1),)}, "took 1,200 pictures and lists 1."),
        ({"unreadable": ("JobsDetail.Code", "JobsDetail.Url")}, "(2): JobsDetail.Code, JobsDet"),
    ],
)
def test_what_must_not_be_missed(attributes: dict[str, Any], note: str) -> None:
    """What the service says of the whole and of its parts is compared, and gaps are told."""
    (told,) = shown(**attributes).notes
    assert note in told


def test_an_ordinary_stream_needs_no_note() -> None:
    """Where whole and parts agree, nothing is said."""
    found = shown(stream_job(snapshot_count=60))
    assert found.notes == ()
    assert (found.pictures, found.sounds) == (60, 2)
    assert found.flagged == {"Sensitive": 2, "Suspected": 2}
    assert found.labels == ("Porn",)
    running = stream_job(state=JobState.AUDITING, result=None, label=None)
    assert shown(running).notes == ()  # its verdict is still to come


def test_the_worst_comes_first() -> None:
    """Within a stream by verdict, then by score, then in the order of the stream."""
    found, cards = stream(1, stream_job())
    assert [item.score for item in found.listed] == [98, 91, 70, 60]
    assert [card.item for card in cards] == list(found.listed)
    assert found.worst == found.listed[0]
    none = attrs.evolve(picture(3, "Porn"), scenes=ReadOnly())
    same = shown(snapshots=(none, picture(9, "Porn"), picture(7, "Porn")))
    assert [item.time for item in same.listed] == [
        picture(second).snapshot_time for second in (7, 9, 3)
    ]


def test_the_order_of_streams() -> None:
    """The worst first; among equals the higher score, then more that is flagged."""
    sensitive = stream(4, stream_job())[0]
    more = stream(3, stream_job(snapshots=(picture(1, "Porn", score=98),) * 9))[0]
    suspected = stream(2, AuditJob(job_id="av2", **{**NORMAL, "result": Verdict.SUSPECTED}))[0]
    failed = stream(1, AuditJob(job_id="av3", state=JobState.FAILED))[0]
    first = stream(0, AuditJob(job_id="av4", **NORMAL))[0]
    order = [more, sensitive, suspected, failed, first]
    assert sorted([failed, first, sensitive, suspected, more], key=lambda one: one.order) == order


def test_facts_of_a_job() -> None:
    """All that the service says of it is there; only URLs of the web are links."""
    facts = stream(1, filled(AuditJob, "text"))[0].facts
    names = [fact.name for fact in facts]
    assert {"Job", "Data id", "Stream", "Request", "User: nickname", "User: other"} <= {*names}
    assert {"Account list", "Masking", "Texts", "COS headers", "Other"} <= {*names}
    assert {fact.link for fact in facts} == {None}
    hls = "https://live.example.com/room7.m3u8"
    found = shown(
        url=hls,
        list_results=(ListResult(list_type=0, list_name="friends", entity="Mia"),),
        user_info=UserInfo(nickname="Mia"),
    )
    assert {fact.link for fact in found.facts if fact.name == "Stream"} == {hls}
    assert [fact.value for fact in found.facts if fact.name == "Allow list"] == ["friends, Mia"]
