"""JSON Lines of other commands become jobs again."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from command_line import serving
from reports import picture, section, stream_job

from ci_live_audit import (
    AuditJob,
    JobFailed,
    JobNotFound,
    JobState,
    Outcome,
    Snapshot,
    Verdict,
    WaitTimeout,
)
from ci_live_audit.cli.output import to_line
from ci_live_audit.cli.recorded import Recorded
from ci_live_audit.testing import frame, sound

JOB = stream_job()


def read(folder: Path, *lines: str | dict[str, Any]) -> tuple[list[Outcome], list[str]]:
    """Return the outcomes in lines, and the problems of others."""
    file = folder / "lines.jsonl"
    texts = (one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines)
    file.write_text("".join(texts), "utf-8")
    recorded = Recorded()
    recorded.read(file)
    problems = [problem.removeprefix(f"{file}, ") for problem in recorded.problems]
    return list(recorded.outcomes()), problems


def finding(item: Any = None, **values: Any) -> dict[str, Any]:
    """Return the line of a finding."""
    name = "snapshot" if isinstance(item, Snapshot) else "audio_section"
    named = {} if item is None else {name: item.to_dict(), "label": item.label}
    return {"schema": 1, "kind": "finding", "job_id": "av1", "error": None, **named, **values}


def test_what_commands_write_is_read(tmp_path: Path) -> None:
    """The jobs of `query` and `poll`, and what a program wrote with `to_dict`, are the same."""
    done = Outcome(job_id="av1", job=JOB)
    for line in (
        to_line("job", JOB.to_dict()),
        to_line("outcome", done.to_dict()),
        json.dumps(JOB.to_dict()),
        json.dumps(done.to_dict()),
    ):
        assert read(tmp_path, "\n", line) == ([done], [])


def test_real_commands(tmp_path: Path) -> None:
    """What `query`, `watch` and `poll` print of a job on the emulator has its flagged items."""
    with serving() as service:
        job_id = service.emulator.add_job(
            duration=8, script=[frame(1), frame(2, "Porn"), sound(3, "Ads")]
        )
        service.clock.seconds = 10
        for command in ("query", "watch", "poll"):
            printed = service.run(command, job_id, "--output", "json").stdout
            ((outcome,), problems) = read(tmp_path, printed)
            assert (outcome.job_id, outcome.error, problems) == (job_id, None, [])
            assert outcome.job is not None
            assert outcome.job.state == JobState.SUCCESS
            pictures = [item.label for item in outcome.job.snapshots if item.result]
            sounds = [item.label for item in outcome.job.audio_sections if item.result]
            assert (pictures, sounds) == (["Porn"], ["Ads"])


def test_errors_are_told(tmp_path: Path) -> None:
    """An error has the place of a job, or stands beside it; that of a failed job is in the job."""
    failed = AuditJob(job_id="av2", state=JobState.FAILED, code="x")
    lost = JobNotFound(status=404, message="no such job").about("query", "av3")
    found, problems = read(
        tmp_path,
        to_line("outcome", Outcome(job_id="av1", job=JOB, error=WaitTimeout("late")).to_dict()),
        to_line(
            "outcome",
            Outcome(job_id="av2", job=failed, error=JobFailed("failed", job=failed)).to_dict(),
        ),
        to_line("error", {"job_id": "av3", "error": lost.to_dict()}),
    )
    assert [(one.job_id, one.job, one.error and str(one.error)) for one in found] == [
        ("av1", JOB, "late"),
        ("av2", failed, None),
        ("av3", None, "query of av3: 404 no such job"),
    ]
    assert problems == []


def test_the_last_line_of_a_job_counts(tmp_path: Path) -> None:
    """Later ones replace earlier ones; an error leaves the job as it was last seen."""
    later = attrs.evolve(JOB, state=JobState.CANCELLED)
    lines = [to_line("job", one.to_dict()) for one in (JOB, later)]
    assert read(tmp_path, *lines)[0] == [Outcome(job_id="av1", job=later)]
    error = to_line("error", {"job_id": "av1", "error": WaitTimeout("late").to_dict()})
    ((outcome,), _) = read(tmp_path, *lines, error)
    assert (outcome.job, str(outcome.error)) == (later, "late")
    assert read(tmp_path, error, *lines)[0] == [Outcome(job_id="av1", job=later)]


def test_findings_make_a_job(tmp_path: Path) -> None:
    """Items, states and verdicts of `watch` are put together; an item that comes twice is one."""
    item, sign = picture(5, "Porn", url="https://a.example/1?q=1"), section(9, "Ads")
    again = attrs.evolve(item, url="https://a.example/1?q=2")
    ((outcome,), problems) = read(
        tmp_path,
        finding(state="Auditing", key="1"),
        finding(item, key="2"),
        finding(again, key="3"),
        finding(sign, key="4"),
        finding(verdict=1, label="Porn", key="5"),
        finding(state="Success", key="6"),
        finding(picture(7)),
    )
    assert problems == []
    assert outcome.job == AuditJob(
        job_id="av1",
        state=JobState.SUCCESS,
        result=Verdict.SENSITIVE,
        label="Porn",
        snapshots=(item, picture(7)),
        audio_sections=(sign,),
    )


def test_findings_beside_a_job(tmp_path: Path) -> None:
    """They add what the job's lists have no more; its state is its own."""
    line = to_line("job", JOB.to_dict())
    found, _ = read(
        tmp_path,
        line,
        finding(JOB.snapshots[20], key="1"),
        finding(picture(7000, "Porn"), key="2"),
        finding(state="Auditing", key="3"),
    )
    whole = attrs.evolve(JOB, snapshots=(*JOB.snapshots, picture(7000, "Porn")))
    assert found == [Outcome(job_id="av1", job=whole)]


def test_a_watch_that_failed(tmp_path: Path) -> None:
    """Its error is that of the job."""
    ((outcome,), _) = read(tmp_path, finding(error=WaitTimeout("late").to_dict()))
    assert (outcome.job, str(outcome.error)) == (None, "late")


@pytest.mark.parametrize("kind", ["submitted", "cancelled", "check"])
def test_other_lines_are_passed_over(tmp_path: Path, kind: str) -> None:
    """They say nothing of what was found."""
    assert read(tmp_path, {"schema": 1, "kind": kind, "job_id": "av1"}) == ([], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"schema": 1, "kind": "outc', "this is no whole JSON"),
        ("job_id,label", "this is no whole JSON"),
        ("[" * 100_000, "this is no whole JSON"),
        ("[]", "this is no result"),
        ("1", "this is no result"),
        ({"schema": 2, "kind": "job"}, "schema 2 is not known, only 1"),
        ({"kind": "marks"}, "the kind 'marks' is not known"),
        ({"kind": {}}, "the kind {} is not known"),
        ({"kind": "job", "state": "Success"}, "it has no job_id"),
        ({"job_id": 7, "job": None}, "it has no job_id"),
        ({"kind": "job", "job_id": "av1"}, "state: it is missing; got 'None'"),
        ({"job_id": "av1", "job": None, "error": None}, "it has neither a job nor an error"),
        ({"job_id": "av1", "error": "x"}, "its error has no text"),
        ({"job_id": "av1", "error": {"error": "Throttled"}}, "its error has no text"),
        ({"job_id": "av1", "job": {"job_id": "av1", "state": 1}}, "state: expected str; got '1'"),
        (finding(snapshot={"label": 1}), "snapshots[0].label: expected str; got '1'"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, line: Any, problem: str) -> None:
    """They are named with their numbers, and cost no other line."""
    good = to_line("job", JOB.to_dict())
    bad = line if isinstance(line, str) else json.dumps(line)
    found, problems = read(tmp_path, good, "\n", bad + "\n", good.replace("av1", "av9"))
    assert problems == [f"line 3: {problem}"]
    assert [outcome.job_id for outcome in found] == ["av1", "av9"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings(tmp_path: Path, encoding: str, end: str) -> None:
    """What PowerShell writes is read, too; a name of any script stays what it is."""
    job = attrs.evolve(JOB, data_id="\u623f\u95f4 7\u2028")
    file = tmp_path / "lines.jsonl"
    file.write_bytes((to_line("job", job.to_dict()).strip() + end).encode(encoding))
    recorded = Recorded()
    recorded.read(file)
    assert [outcome.job for outcome in recorded.outcomes()] == [job]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read to its end, and stays open."""
    stdin = io.TextIOWrapper(io.BytesIO(to_line("job", JOB.to_dict()).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    recorded = Recorded()
    recorded.read(Path("-"))
    assert [outcome.job for outcome in recorded.outcomes()] == [JOB]
    assert not stdin.buffer.closed
