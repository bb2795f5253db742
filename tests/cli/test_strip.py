"""The course of a stream in one line of text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import AudioSection, AuditJob, JobState, Snapshot, Verdict
from ci_live_audit.cli.strip import strip

BEGIN = int(datetime(2026, 11, 27, 21, 23, 8, tzinfo=UTC).timestamp() * 1000)
VERDICTS = {".": Verdict.NORMAL, "s": Verdict.SUSPECTED, "S": Verdict.SENSITIVE, "?": None}


def job(
    signs: str, *, state: JobState = JobState.AUDITING, begin: int = BEGIN, step: int = 60_000
) -> AuditJob:
    """Return a job with an item for each sign, at equal intervals."""
    shots = [
        Snapshot(snapshot_time=begin + step * number, result=VERDICTS[sign])
        for number, sign in enumerate(signs)
    ]
    return AuditJob(job_id="av1", state=state, snapshots=tuple(shots))


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (
            job("....S......s.."),
            ["21:23 ...S....s. 21:36", "S sensitive, s suspected, . not flagged"],
        ),
        (job("..", step=1000), ["21:23:08 .. 21:23:09", ". not flagged"]),
        (job("?.S", state=JobState.CANCELLED), None),
        (job("..S", begin=0), ["0:00 ..S 2:00", "S sensitive, . not flagged"]),
        (job("."), []),
        (job("..", step=0), []),
        (job(""), []),
        (AuditJob(job_id="av1", state=JobState.FAILED, snapshots=(Snapshot(), Snapshot())), []),
    ],
)
def test_the_worst_of_each_part(given: AuditJob, lines: list[str] | None) -> None:
    """With the times of its begin and end, and what the signs mean; nothing if there is nothing."""
    if lines is None:
        lines = ["21:23:08 ..Sx 21:25:08", "S sensitive, . not flagged, x cancelled"]
    assert strip(given, 60, UTC) == lines


def test_a_gap_is_seen() -> None:
    """Where nothing was taken, there is nothing; a sound counts as a picture does."""
    pieces = job("....", step=1000)
    sound = AudioSection(offset_time=BEGIN + 60_000, result=Verdict.SENSITIVE)
    line, _ = strip(attrs_with(pieces, sound), 60, UTC)
    assert line == "21:23:08 .  S! 21:24:08"


def attrs_with(given: AuditJob, sound: AudioSection) -> AuditJob:
    """Return a job with a sound as well."""
    return AuditJob(
        job_id="av1", state=JobState.FAILED, snapshots=given.snapshots, audio_sections=(sound,)
    )


@given(st.text("sS.?", max_size=300), st.integers(10, 200))
def test_it_fits(signs: str, width: int) -> None:
    """Whatever the number of items; nothing that is flagged is lost."""
    lines = strip(job(signs), width, UTC)
    for line in lines[:1]:
        assert len(line) <= max(width, 22)
        assert ("S" in line) == ("S" in signs)
