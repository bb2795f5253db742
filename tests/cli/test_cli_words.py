"""Texts, numbers and times for people: in cells of a terminal, and harmless."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ci_live_audit import AuditJob, JobState, Verdict
from ci_live_audit.cli.words import (
    clean,
    clock,
    count,
    cut,
    date,
    elapsed,
    judgement,
    name_of,
    span,
    word,
)


@given(st.text(), st.integers(-3, 40))
def test_what_is_cut_fits(text: str, cells: int) -> None:
    """In cells, of which some characters take two; what fits is as it was."""
    shown = cut(text, cells)
    assert cell_len(shown) <= max(cells, 0)
    if cell_len(text) <= cells:
        assert shown == text
    elif cells > 0:
        assert shown.endswith("\u2026")


def test_texts_are_harmless() -> None:
    """What a terminal obeys, what turns or hides text, and what piles up is replaced or counted."""
    assert clean("a\x1b[2Jb\nc\x9b") == "a\ufffd[2Jb\ufffdc\ufffd"
    assert (
        clean("a\u202eb\u200bc\u2066d\u3164e\U000e0041f") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"
    )
    assert cell_len(clean("z" + "\u0300" * 500)) < 30
    assert clean("\u0301x") == "\u25cc\u0301x"
    assert clean("\u623f\u00e9 \U0001f600") == "\u623f\u00e9 \U0001f600"
    assert len(clean("x" * 10**6)) == 10_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (68.9, "1:08"),
        (3723, "1:02:03"),
        (35_999, "9:59:59"),
        (36_120, "10h02m"),
        (-68, "-1:08"),
    ],
)
def test_stretches_of_time(seconds: float, text: str) -> None:
    """As short as they can be read."""
    assert elapsed(seconds) == text


def test_small_words() -> None:
    """One thing is not several; seconds are seconds."""
    assert [count(number, "job") for number in (0, 1, 2, 2000)] == [
        *("0 jobs", "1 job", "2 jobs", "2,000 jobs")
    ]
    assert (span(3.2), span(75)) == ("3 s", "1:15")
    assert [word(one) for one in (None, Verdict.SENSITIVE, Verdict(7))] == [
        *(None, "Sensitive", "verdict 7")
    ]


def test_times_are_those_of_a_zone() -> None:
    """Of this machine, or another; a day that a zone does not have stays as it is."""
    at = datetime(2026, 11, 27, 21, 24, 16, 999_000, UTC)
    assert clock(at, UTC) == "21:24:16"
    assert clock(at, timezone(timedelta(hours=8))) == "05:24:16"
    assert clock(at, None) == f"{at.astimezone():%H:%M:%S}"
    assert date(at, timezone(timedelta(hours=8))) == "2026-11-28 05:24:16+08:00"
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert date(first, UTC) == "0001-01-01 00:00:00+14:00"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtmp://live.example.com/app/room7", "room7"),
        ("rtmp://live.example.com/app/room7/?txSecret=hidden&txTime=1", "room7"),
        ("https://cdn.example.com/app/room7/index.m3u8?sign=1", "room7/index.m3u8"),
        ("https://cdn.example.com/app/room7.flv", "room7.flv"),
        ("https://cdn.example.com/index.m3u8", "index.m3u8"),
        ("https://cdn.example.com/app/%E6%88%BF", "\u623f"),
        ("https://cdn.example.com/app/%1b%5b2J", "\ufffd[2J"),
        ("rtmp://user:password@live.example.com/", "live.example.com"),
        ("http://[broken", None),
        ("", None),
        (None, None),
    ],
)
def test_a_stream_has_a_name(url: str | None, name: str | None) -> None:
    """The end of its URL, without what may be secret in it, unless it has a data id."""
    job = AuditJob(job_id="av1", state=JobState.AUDITING, url=url)
    assert name_of(job) == name_of(None, None, url) == name
    assert name_of(job, "studio 3\x1b") == "studio 3\ufffd"
    own = AuditJob(job_id="av1", state=JobState.AUDITING, url=url, data_id="own")
    assert name_of(own) == "own"


@pytest.mark.parametrize(
    ("state", "verdict", "text"),
    [
        (JobState.SUCCESS, Verdict.NORMAL, "Normal"),
        (JobState.AUDITING, Verdict.NORMAL, "Normal so far"),
        (JobState.CANCELLED, Verdict.NORMAL, "Normal until cancelled"),
        (JobState.FAILED, Verdict.NORMAL, None),
        (JobState.FAILED, Verdict.SENSITIVE, "Sensitive"),
        (JobState.AUDITING, Verdict.SUSPECTED, "Suspected"),
        (JobState.AUDITING, Verdict(7), "verdict 7"),
        (JobState.SUBMITTED, None, None),
    ],
)
def test_what_nobody_has_seen_is_not_normal(
    state: JobState, verdict: Verdict | None, text: str | None
) -> None:
    """A stream that could not be read to its end does not look clean."""
    assert judgement(AuditJob(job_id="av1", state=state, result=verdict)) == text
