"""`decode.from_dict`: what is no job of `to_dict` is one error that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ci_live_audit import AuditJob, JobState, Verdict, decode
from ci_live_audit.errors import DecodeError
from ci_live_audit.models import ReadOnly
from ci_live_audit.wire import plain

SAMPLE = (Path(__file__).parents[1] / "samples" / "complete.xml").read_bytes()
LEAST = {"job_id": "av1", "state": "Auditing"}


def test_a_sample_comes_back() -> None:
    """A job with every node of the documents is the same after a way through JSON."""
    job = decode.job(SAMPLE)
    assert decode.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    for item, read in (
        (job.snapshots[0], plain.snapshot),
        (job.audio_sections[0], plain.audio_section),
    ):
        assert read(item.to_dict()) == item


def test_what_another_version_wrote() -> None:
    """Missing attributes have their defaults; new ones, states and verdicts do not matter."""
    job = decode.from_dict({**LEAST, "state": "Paused", "result": 7, "new": 1, "schema": 1})
    assert job == AuditJob(job_id="av1", state=JobState("Paused"), result=Verdict(7))


def test_values_in_extra_are_frozen() -> None:
    """Lists and mappings in `extra` are as those of a decoded job."""
    job = decode.from_dict({**LEAST, "extra": {"a": [1, {"b": None}, True, 0.5]}})
    assert job.extra == ReadOnly({"a": (1, ReadOnly({"b": None}), True, 0.5)})
    assert hash(job) == hash(job)


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ([], ""),
        ("av1", ""),
        ({}, "job_id"),
        ({"job_id": "av1"}, "state"),
        ({**LEAST, "job_id": 1}, "job_id"),
        ({**LEAST, "state": 1}, "state"),
        ({**LEAST, "result": "1"}, "result"),
        ({**LEAST, "result": True}, "result"),
        ({**LEAST, "snapshot_count": 1.5}, "snapshot_count"),
        ({**LEAST, "creation_time": "yesterday"}, "creation_time"),
        ({**LEAST, "creation_time": 1}, "creation_time"),
        ({**LEAST, "received_at": "2026-11-27T20:31:05"}, "received_at"),
        ({**LEAST, "scenes": []}, "scenes"),
        ({**LEAST, "scenes": {"Porn": {"score": "high"}}}, "scenes.Porn.score"),
        ({**LEAST, "snapshots": {}}, "snapshots"),
        ({**LEAST, "snapshots": [{}, {"label": 1}]}, "snapshots[1].label"),
        ({**LEAST, "unreadable": [None]}, "unreadable[0]"),
        ({**LEAST, "user_info": "u"}, "user_info"),
        ({**LEAST, "extra": "e"}, "extra"),
        ({**LEAST, "extra": nested(900)}, "extra"),
        ({**LEAST, "label": nested(900)}, "label"),
        ({**LEAST, "label": 10**5000}, "label"),
    ],
)
def test_what_is_no_job_is_one_error(given: Any, path: str) -> None:
    """The error names the attribute and shows the value."""
    with pytest.raises(DecodeError) as caught:
        decode.from_dict(given)
    assert caught.value.path == path
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 10**400, "1"])
def test_a_place_is_finite(x: Any) -> None:
    """What Python's JSON reads beyond the standard is refused."""
    scenes = {"Ads": {"ocr_results": [{"location": {"x": x}}]}}
    with pytest.raises(DecodeError, match=r"scenes\.Ads\.ocr_results\[0\]\.location\.x"):
        decode.from_dict({**LEAST, "scenes": scenes})
