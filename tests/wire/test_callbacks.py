"""Bodies of callbacks, in both forms."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import DecodeError, HitFlag, JobState, Scene, Verdict, callbacks, decode
from ci_live_audit.callbacks import Callback

SAMPLE = Path(__file__).parents[1].joinpath("samples", "callback.json").read_bytes()
DATA: dict[str, Any] = {
    "event": "ReviewVideo",
    "trace_id": "av1",
    "url": "rtmp://live.example.com/app/room7",
    "result": 1,
    "forbidden_status": 0,
    "data_id": "room7",
    "cos_headers": {"x-cos-meta-room": "7"},
    "porn_info": {"hit_flag": 1, "label": "Porn", "count": 3},
    "ads_info": {"hit_flag": 0, "label": "", "count": 0},
}


def simple(data: Any = DATA, code: Any = 0, message: Any = "success", **more: Any) -> bytes:
    """Return the body of a Simple callback."""
    return json.dumps({"code": code, "message": message, "data": data, **more}).encode()


def detail(**details: Any) -> bytes:
    """Return the body of a Detail callback."""
    return json.dumps({"EventName": "ReviewVideo", "JobsDetail": details}).encode()


def test_a_simple_callback() -> None:
    """Its scenes have the names of a query; the state of the job is not told."""
    found = callbacks.decode(simple())
    assert found == Callback(
        form="Simple",
        key=found.key,
        job_id="av1",
        data_id="room7",
        result=Verdict.SENSITIVE,
        scenes={
            "Porn": Scene(hit_flag=HitFlag.HIT, label="Porn", count=3),
            "Ads": Scene(hit_flag=HitFlag.MISS, count=0),
        },
        url="rtmp://live.example.com/app/room7",
        forbid_state=0,
        cos_headers={"x-cos-meta-room": "7"},
        code="0",
        message="success",
        extra={"data.event": "ReviewVideo"},
    )
    assert (found.state, found.job, list(found.hits)) == (None, None, ["Porn"])


def test_a_detail_callback() -> None:
    """It has the job as a query has it, and what it shares with a Simple one beside that."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = callbacks.decode(SAMPLE, received_at=now)
    job = decode.job(SAMPLE, received_at=now)
    assert found.job == job
    assert (found.form, found.job_id, found.data_id) == ("Detail", job.job_id, job.data_id)
    assert (found.state, found.result, found.label) == (job.state, job.result, job.label)
    assert (found.scenes, found.code, found.message) == (job.scenes, job.code, job.message)
    assert (found.forbid_state, found.extra) == (0, job.extra)
    assert found.job.snapshots[0].url_expires_at is not None


def test_a_callback_that_was_sent_again_has_the_same_key() -> None:
    """The key tells bodies apart, and nothing else."""
    assert callbacks.decode(simple()).key == callbacks.decode(simple()).key
    assert callbacks.decode(simple()).key != callbacks.decode(simple({**DATA, "result": 2})).key


@pytest.mark.parametrize(
    "body",
    [
        simple({"trace_id": "test_trace_id"}),
        simple({"trace_id": "av1"}, message="Test request when setting callback url"),
        detail(JobId="test_trace_id", Message="Test request when setting callback url"),
        detail(JobId="test_trace_id", State="Success"),
    ],
)
def test_the_test_of_a_url_is_told_from_a_job(body: bytes) -> None:
    """What the service sends when a URL is set is a probe."""
    assert callbacks.decode(body).probe
    assert not callbacks.decode(simple()).probe


def test_a_detail_callback_without_a_state() -> None:
    """There is no job to return, but what is said of it."""
    body = detail(JobId="av1", DataId="room7", Result=1, Label={"a": 1}, Other=1)
    found = callbacks.decode(body)
    assert (found.job, found.state, found.job_id) == (None, None, "av1")
    assert (found.data_id, found.result) == ("room7", Verdict.SENSITIVE)
    assert found.unreadable == ("JobsDetail.Label",)
    assert found.extra == {"Label": {"a": 1}, "Other": 1}
    ended = callbacks.decode(detail(JobId="av1", State="Success"))
    assert (ended.state, ended.job is not None) == (JobState.SUCCESS, True)


def test_an_odd_value_costs_itself() -> None:
    """It is None, and its path and its text are kept under the names of the callback."""
    odd = {**DATA, "result": "odd", "new_thing": [1], "porn_info": {"hit_flag": "odd", "count": 1}}
    found = callbacks.decode(simple(odd, code=[], tag="a"))
    assert (found.result, found.code, found.scenes["Porn"].count) == (None, None, 1)
    assert found.unreadable == ("data.result", "data.porn_info.HitFlag")
    assert found.extra == {
        "tag": "a",
        "data.event": "ReviewVideo",
        "data.result": "odd",
        "data.new_thing": (1,),
    }
    assert json.loads(json.dumps(found.to_dict()))["extra"]["data.result"] == "odd"


def test_names_of_a_query_in_a_simple_callback() -> None:
    """A name may be spelled either way."""
    found = callbacks.decode(simple({"TraceId": "av1", "PornInfo": {"HitFlag": 1}}))
    assert (found.job_id, found.scenes["Porn"].hit_flag) == ("av1", HitFlag.HIT)


@pytest.mark.parametrize("name", ["X-Ci-Content-Version", "x-ci-content-version"])
def test_the_header_decides_if_the_body_does_not(name: str) -> None:
    """A failure may come with a code and a message alone."""
    body = b'{"code": 1045, "message": "failed"}'
    found = callbacks.decode(body, {name: "Simple"})
    assert (found.form, found.code, found.message, found.job_id) == (
        *("Simple", "1045", "failed", None),
    )
    with pytest.raises(DecodeError, match="JobsDetail or data"):
        callbacks.decode(body, {name: "Detail"})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "an empty body"),
        (b"[]", "not a document"),
        (b"<html/>", "expected a callback, with JobsDetail or data"),
        (b'{"data": []}', "expected a callback"),
        (b'{"Error": {"Code": "AccessDenied"}}', "expected a callback"),
        (simple({}), "data.trace_id: expected one id"),
        (simple({"trace_id": ["a", "b"]}), "data.trace_id: expected one id"),
        (detail(State="Success"), "JobsDetail.JobId: missing"),
        (detail(JobId=[1], State="Success"), "JobsDetail.JobId: cannot be read"),
        (b"{" * 10_000, "nested deeper"),
    ],
)
def test_what_is_no_callback(body: bytes, text: str) -> None:
    """The error says what was expected, and where."""
    with pytest.raises(DecodeError, match=text):
        callbacks.decode(body)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text() | st.sampled_from([*DATA]), inside),
    max_leaves=10,
)


@given(
    st.binary()
    | st.builds(simple, st.dictionaries(st.sampled_from([*DATA]), TREES) | TREES, TREES, TREES)
    | st.dictionaries(st.sampled_from(["JobId", "State", "Label", "Snapshot", "Code"]), TREES).map(
        lambda details: detail(**details)
    )
)
def test_any_body_is_a_callback_or_an_error(body: bytes) -> None:
    """Nothing else is raised, and what is read can be written as JSON."""
    try:
        found = callbacks.decode(body, {"X-Ci-Content-Version": "Simple"})
    except DecodeError:
        return
    json.dumps(found.to_dict())
