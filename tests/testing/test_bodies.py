"""Bodies of callbacks for tests of receivers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import (
    AudioSection,
    AuditJob,
    InvalidInput,
    JobState,
    Scene,
    Snapshot,
    UserInfo,
    Verdict,
    callbacks,
    decode,
)
from ci_live_audit.testing import (
    callback_body,
    callback_headers,
    callback_probe,
    frame,
    sound,
)
from ci_live_audit.testing.bodies import encode

SAMPLES = Path(__file__).parents[1] / "samples"
FOUND: list[Snapshot | AudioSection] = [
    frame(5, "Porn", score=98, text="a"),
    frame(6),
    sound(7, "Ads", text='"b" & é\ud800'),
]
FORMS: list[Any] = ["Simple", "Detail"]

labels = st.sampled_from(["Normal", "Porn", "Ads", "Terrorism", "IPAddress", "MyScene", "Öl"])
seconds = st.integers(0, 100_000_000).map(lambda number: number / 1000)
verdicts = st.none() | st.sampled_from(Verdict)
# The ends of a text are read without white space.
texts = st.none() | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
scores = st.integers(0, 100)
items = st.builds(
    frame, seconds, labels, score=scores, result=verdicts, sub_label=texts, text=texts
) | st.builds(sound, seconds, labels, duration=seconds, score=scores, result=verdicts, text=texts)


@given(st.lists(items, max_size=4), st.sampled_from(JobState), texts, st.sampled_from(FORMS))
def test_a_body_says_what_it_was_made_of(
    found: list[Any], state: JobState, data_id: str | None, form: Any
) -> None:
    """Whatever was found is read again: all in a Detail one, the summary in a Simple one."""
    body = callback_body("av1", found, form=form, state=state, data_id=data_id, created=1.8e9)
    read = callbacks.decode(body, callback_headers(form))
    assert (read.form, read.job_id, read.data_id, read.probe) == (form, "av1", data_id, False)
    assert read.unreadable == ()
    hit = {item.label for item in found if item.label != "Normal" and item.result}
    assert hit == {name for name, scene in read.scenes.items() if scene.hit_flag}
    worst = max((item.result.severity for item in found), default=0)
    assert (read.result or Verdict.NORMAL).severity == worst
    if form == "Simple":
        assert read.job is None
        return
    assert read.job is not None
    assert read.state == state
    again: list[Any] = [*read.job.snapshots, *read.job.audio_sections]
    assert sorted(map(plain, again)) == sorted(plain(item, 1_800_000_000_000) for item in found)
    assert all(item.url for item in again)


def plain(item: Any, created: int = 0) -> str:
    """Return a finding as text, without its URL."""
    name = "snapshot_time" if hasattr(item, "snapshot_time") else "offset_time"
    time = {name: getattr(item, name) + created}
    return repr(attrs.evolve(item, url=None, url_expires_at=None, **time))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_arguments_make_the_same_body(form: Any) -> None:
    """So a receiver sees the same callback twice."""
    assert callback_body("av1", FOUND, form=form) == callback_body("av1", FOUND, form=form)
    assert callback_body("av1", FOUND, form=form) != callback_body("av2", FOUND, form=form)


def test_the_time_of_a_finding() -> None:
    """It counts from the submission, which was at the beginning of 2026 by default."""
    job = callbacks.decode(callback_body("av1", FOUND)).job
    assert job is not None
    assert job.creation_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert job.snapshots[0].taken_at == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert job.audio_sections[0].began_at == datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)


def test_further_facts() -> None:
    """They are attributes of the job, and go before what follows from the findings."""
    facts: dict[str, Any] = {
        "url": "rtmp://live.example.com/app/room7",
        "user_info": UserInfo(room="7"),
        "result": Verdict.SUSPECTED,
        "region": "eu-frankfurt",
        "cos_headers": {"x-cos-meta-room": "7"},
        "forbid_state": 1,
    }
    body = callback_body("av1", FOUND, **facts)
    job = decode.job(body)
    assert {name: getattr(job, name) for name in facts} == facts
    simple = callbacks.decode(callback_body("av1", form="Simple", **facts))
    assert (simple.result, simple.forbid_state) == (Verdict.SUSPECTED, 1)
    assert (simple.url, simple.cos_headers) == (facts["url"], facts["cos_headers"])
    with pytest.raises(TypeError, match="room"):
        callback_body("av1", room="7")


@pytest.mark.parametrize("form", FORMS)
def test_the_test_of_a_url(form: Any) -> None:
    """It is a probe in both forms."""
    found = callbacks.decode(callback_probe(form), callback_headers(form))
    assert (found.form, found.probe) == (form, True)
    assert found.message == "Test request when setting callback url"


def test_the_names_of_the_service() -> None:
    """As its documents have them, with arrays and numbers."""
    simple = json.loads(callback_body("av1", FOUND, form="Simple", data_id="room7", url="rtmp://a"))
    assert simple == {
        "code": 0,
        "message": "success",
        "data": {
            "event": "ReviewVideo",
            "trace_id": "av1",
            "data_id": "room7",
            "url": "rtmp://a",
            "result": 1,
            "forbidden_status": 0,
            "cos_headers": {},
            "porn_info": {"hit_flag": 1, "label": "", "count": 1},
            "ads_info": {"hit_flag": 1, "label": "", "count": 0},
        },
    }
    detail = json.loads(callback_body("av1", FOUND[:1]))
    assert detail["EventName"] == "ReviewVideo"
    details = detail["JobsDetail"]
    snapshot = details["Snapshot"][0]
    assert (details["Result"], details["ForbidState"], details["CosHeaders"]) == (1, 0, {})
    assert (snapshot["SnapshotTime"], snapshot["PornInfo"]["Score"]) == (1_767_225_605_000, 98)
    assert callback_headers() == {
        "Content-Type": "application/json",
        "X-Ci-Content-Version": "Detail",
    }


@pytest.mark.parametrize("name", ["callback.json", "complete.xml"])
def test_any_job_that_was_received_can_be_sent(name: str) -> None:
    """With lists, keywords and unknown nodes, as it was."""
    job = decode.job((SAMPLES / name).read_bytes())
    job = attrs.evolve(job, request_id=None, code="a", message="b", forbid_state=0)
    job = attrs.evolve(job, extra={}, cos_headers={"a": ("b", "c")})
    again = decode.job(encode(job, "Detail"))
    assert attrs.evolve(again, extra={}) == job


def test_a_name_that_cannot_be_spelled_in_small_letters_is_kept() -> None:
    """A Simple callback then has it as a query has it."""
    scenes = {"Porn": Scene(), "liveStream": Scene(count=2)}
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, scenes=scenes)
    data = json.loads(encode(job, "Simple"))["data"]
    assert (data["porn_info"]["count"], data["liveStreamInfo"]["count"]) == (0, 2)


def test_a_form_that_is_none() -> None:
    """It is refused by name."""
    form: Any = "Full"
    with pytest.raises(InvalidInput, match="form: expected 'Simple' or 'Detail'; got 'Full'"):
        callback_body("av1", form=form)
