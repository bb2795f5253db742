"""Printing: untrusted texts are shown, and nothing in them is interpreted."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import attrs
import pytest
from command_line import SCRIPT, Service, parse, parsed, serving
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import (
    AudioFinding,
    AudioSection,
    AuditJob,
    Finding,
    JobState,
    Outcome,
    ServiceError,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Verdict,
    VerdictChange,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.cli.output import Output
from ci_live_audit.cli.words import is_flagged
from ci_live_audit.models import ReadOnly
from ci_live_audit.testing import frame

#: Texts that a terminal, rich or a reader of lines would interpret.
HOSTILE = (
    *("\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x90q\x9c", "\r", "\n", "\x00", "\x08", "\x7f"),
    *("\u202e", "\u2066", "\u200f", "\u2028", "\x85", "\ufeff", "\U000e0041", "\ud800"),
    *("[red]", "[/red]", "[link=http://example.com]", "\\[", ":smile:", "[bold", "{}", "%s"),
)
TEXTS = st.sampled_from(["", "av1 Success", "".join(HOSTILE), *HOSTILE]) | st.text(max_size=9)
VERDICTS = st.none() | st.integers(-1, 9).map(Verdict)
TIMES = st.none() | st.integers()
SNAPSHOTS = st.builds(Snapshot, label=TEXTS, text=TEXTS, result=VERDICTS, snapshot_time=TIMES)
SECTIONS = st.builds(AudioSection, label=TEXTS, text=TEXTS, result=VERDICTS, offset_time=TIMES)
JOBS = st.builds(
    AuditJob,
    job_id=TEXTS,
    state=TEXTS.map(JobState),
    label=TEXTS,
    result=VERDICTS,
    data_id=TEXTS,
    url=TEXTS,
    code=TEXTS,
    message=TEXTS,
    snapshots=st.tuples(SNAPSHOTS) | st.just(()),
    audio_sections=st.tuples(SECTIONS) | st.just(()),
    request_id=TEXTS,
    extra=st.fixed_dictionaries({"One": TEXTS}),
)
ERRORS = st.builds(
    ServiceError, TEXTS, code=TEXTS, status=st.integers(400, 599), retry_after=st.floats()
)
FINDINGS = (
    st.builds(SnapshotFinding, job_id=TEXTS, key=TEXTS, snapshot=SNAPSHOTS, job=JOBS)
    | st.builds(AudioFinding, job_id=TEXTS, key=TEXTS, audio_section=SECTIONS, job=JOBS)
    | st.builds(StateChange, job_id=TEXTS, key=TEXTS, state=TEXTS.map(JobState), job=JOBS)
    | st.builds(
        VerdictChange, job_id=TEXTS, key=TEXTS, verdict=st.integers(-1, 9).map(Verdict), job=JOBS
    )
    | st.builds(WatchFailed, job_id=TEXTS, key=TEXTS, error=ERRORS)
)
OUTCOMES = st.builds(Outcome, job_id=TEXTS, job=JOBS) | st.builds(
    Outcome, job_id=TEXTS, error=ERRORS
)


@attrs.frozen
class Printed:
    stdout: str
    stderr: str


class Stream(io.TextIOWrapper):
    """A stream in memory that may say that it is a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


def printed(
    style: str,
    show: Callable[[Output], object],
    encoding: str = "utf-8",
    *,
    terminal: bool = False,
) -> Printed:
    """Return what is printed without a terminal, or on one without colours."""
    written = [io.BytesIO(), io.BytesIO()]
    streams = [Stream(buffer, encoding, newline="") for buffer in written]
    streams[0].terminal = terminal
    streams[1].reconfigure(errors="backslashreplace")  # as Python does for standard error
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        show(Output(style))
    for stream in streams:
        stream.flush()
    out, err = (buffer.getvalue().decode(encoding) for buffer in written)
    return Printed(out, err)


def harmless(text: str) -> bool:
    """Return whether a text has only printable characters and newlines."""
    return all(one == "\n" or one.isprintable() for one in text)


# Tables and lines


@given(JOBS)
def test_no_text_of_a_job_reaches_a_terminal_raw(job: AuditJob) -> None:
    """Control characters in a job are replaced."""
    shown = printed("table", lambda output: output.job(job))
    assert harmless(shown.stdout)
    assert shown.stderr == ""


@given(FINDINGS)
def test_no_text_of_a_finding_reaches_a_terminal_raw(finding: Finding) -> None:
    """Control characters in a finding are replaced, so that it stays on one line."""
    shown = printed("table", lambda output: output.finding(finding))
    assert harmless(shown.stdout)
    assert shown.stdout.count("\n") <= 2  # with the header


@given(OUTCOMES)
def test_no_text_of_an_outcome_reaches_a_terminal_raw(outcome: Outcome) -> None:
    """Control characters in an outcome are replaced, so that it stays on one line."""
    shown = printed("table", lambda output: output.outcome(outcome))
    assert harmless(shown.stdout)
    assert shown.stdout.count("\n") <= 2


@given(TEXTS, ERRORS)
def test_no_text_of_an_error_reaches_a_terminal_raw(text: str, error: ServiceError) -> None:
    """Control characters in an error are replaced, so that it stays on one line."""
    shown = printed("json", lambda output: output.say(f"error: {text} {error}"))
    assert harmless(shown.stderr)
    assert shown.stderr.count("\n") == 1
    shown = printed("table", lambda output: output.checked("service", text, good=False))
    assert harmless(shown.stdout)


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/red]", ":smile:", "\\[x]", "[link=a]b", "{x}"])
def test_markup_is_not_interpreted(text: str) -> None:
    """Markup of rich in a text is printed as it is."""
    job = AuditJob(
        job_id=text,
        state=JobState(text),
        label=text,
        data_id=text,
        result=Verdict.SENSITIVE,
        snapshots=(Snapshot(label=text, text=text, result=Verdict.SENSITIVE),),
    )
    finding = SnapshotFinding(job_id=text, key="1", snapshot=job.snapshots[0], job=job)
    outcome = Outcome(job_id=text, job=job)
    assert printed("table", lambda output: output.job(job)).stdout.count(text) == 6
    assert printed("table", lambda output: output.finding(finding)).stdout.count(text) == 3
    assert printed("table", lambda output: output.outcome(outcome)).stdout.count(text) == 3
    assert printed("table", lambda output: output.say(text)).stderr == f"{text}\n"


def test_unknown_words_of_the_service_are_shown() -> None:
    """Undocumented states, verdicts and labels are printed."""
    job = AuditJob(job_id="av1", state=JobState("Resting"), result=Verdict(7), label="Novel")
    shown = printed("table", lambda output: output.job(job)).stdout
    for pattern in ("state +Resting", "verdict +verdict 7", "label +Novel"):
        assert re.search(rf"(?m)^{pattern} *$", shown)
    state = StateChange(job_id="av1", key="1", state=job.state, job=job)
    verdict = VerdictChange(job_id="av1", key="2", verdict=Verdict(7), job=job)
    for finding, words in ((state, "Resting av1"), (verdict, "verdict 7 Novel av1")):
        shown = printed("table", partial(Output.finding, finding=finding)).stdout
        assert words in " ".join(shown.split())
    line = json.loads(printed("json", lambda output: output.job(job)).stdout)
    assert (line["state"], line["result"], line["label"]) == ("Resting", 7, "Novel")


def test_unknown_verdicts_are_not_flagged() -> None:
    """Only sensitive and suspected verdicts are flagged."""
    verdicts = [None, *Verdict, Verdict(7), Verdict(-1)]
    assert [is_flagged(verdict) for verdict in verdicts] == [False, False, True, True, False, False]


def test_long_texts_in_a_pipe_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor broken: whoever reads them knows best."""
    monkeypatch.setenv("COLUMNS", "40")
    text = "".join(map(str, range(100)))
    job = AuditJob(
        job_id="av" + "0" * 32,
        state=JobState.SUCCESS,
        url=f"rtmp://{text}",
        snapshots=(Snapshot(label="Porn", text=text, result=Verdict.SENSITIVE),),
    )
    shown = printed("table", lambda output: output.job(job)).stdout
    assert "…" not in shown
    assert shown.count(text) == 3
    finding = SnapshotFinding(job_id=job.job_id, key="1", snapshot=job.snapshots[0], job=job)
    *_, line = printed("table", lambda output: output.finding(finding)).stdout.splitlines()
    assert line.endswith(f'"{text}"')


@pytest.mark.parametrize("error", [ServiceError("no", status=404), WaitTimeout("not ended")])
def test_an_outcome_without_a_job(error: ServiceError | WaitTimeout) -> None:
    """An outcome without a job shows its error on one line."""
    outcome = Outcome(job_id="av1", error=error)
    shown = printed("table", lambda output: output.outcome(outcome)).stdout
    state = "Timed out" if isinstance(error, WaitTimeout) else "Error"
    *_, line = shown.splitlines()
    assert " ".join(line.split()) == f"av1 {state} {error}"


# JSON Lines


def all_of(job: AuditJob, finding: Finding, outcome: Outcome, output: Output) -> None:
    """Print a result of each kind."""
    output.job(job)
    output.finding(finding)
    output.outcome(outcome)


@given(JOBS, FINDINGS, OUTCOMES)
def test_json_is_one_valid_line(job: AuditJob, finding: Finding, outcome: Outcome) -> None:
    """Every result is one line of valid JSON with its schema and kind."""
    show = partial(all_of, job, finding, outcome)
    found = parse(printed("json", show).stdout)
    assert [line["schema"] for line in found] == [1, 1, 1]
    assert [line["kind"] for line in found] == ["job", "finding", "outcome"]
    assert {key: found[0][key] for key in ("job_id", "state", "label", "extra")} == {
        "job_id": job.job_id,
        "state": None if job.state is None else job.state.value,
        "label": job.label,
        "extra": dict(job.extra),
    }


@given(JOBS, FINDINGS, OUTCOMES)
def test_json_on_a_terminal_is_escaped(job: AuditJob, finding: Finding, outcome: Outcome) -> None:
    """On a terminal no control character is raw, and the values are those of a pipe."""
    show = partial(all_of, job, finding, outcome)
    shown = printed("json", show, terminal=True).stdout
    assert harmless(shown)
    assert parse(shown) == parse(printed("json", show).stdout)


def test_what_can_be_printed_is_not_escaped() -> None:
    """One control character costs nothing around it."""
    job = AuditJob(
        job_id="av1",
        state=JobState.SUCCESS,
        label="\u8272\u60c5 \x9b31m \u202e \U000e0041\U0001f600",
    )
    shown = printed("json", lambda output: output.job(job), terminal=True).stdout
    assert '"\u8272\u60c5 \\u009b31m \\u202e \\udb40\\udc41\U0001f600"' in shown
    assert json.loads(shown)["label"] == job.label


def test_json_in_a_pipe_is_as_sent() -> None:
    """A reader of a pipe gets what the service sent, in valid UTF-8 whatever that is."""
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, label="\x9b\u202e\u8272")
    assert '"\x9b\u202e\u8272"' in printed("json", lambda output: output.job(job)).stdout
    torn = AuditJob(
        job_id="av1", state=JobState.SUCCESS, label="\ud83d", extra=ReadOnly({"\udcff": "\u8272"})
    )
    for terminal in (True, False):
        shown = printed("json", lambda output: output.job(torn), terminal=terminal).stdout
        found = json.loads(shown)
        assert (found["label"], found["extra"]) == ("\ud83d", {"\udcff": "\u8272"})


def test_nan_is_refused() -> None:
    """NaN is refused, as it is not valid JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        printed("json", lambda output: output.result("check", {"off": math.nan}))


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("encoding", "readable"),
    [("utf-8", True), ("gbk", True), ("ascii", False), ("cp1252", False)],
)
def test_characters_outside_the_encoding(encoding: str, readable: bool, terminal: bool) -> None:
    """Characters outside the output's encoding are escaped; JSON still parses to them."""
    job = AuditJob(job_id="av1", state=JobState.SUCCESS, label="色情", message="房")
    line = printed("json", lambda output: output.job(job), encoding, terminal=terminal).stdout
    assert json.loads(line)["label"] == "色情"
    assert ("色情" in line) is readable
    table = printed("table", lambda output: output.job(job), encoding).stdout
    assert ("色情" in table) is readable
    assert readable or "\\u8272\\u60c5" in table


# End to end


@pytest.fixture
def service() -> Iterator[Service]:
    """Serve streams whose texts contain control characters and markup."""
    with serving() as service:
        text = "[red]\x9b31m\u202e\nav2  Success"
        service.emulator.add_job("av1", duration=0, script=[frame(0, "Porn", text=text)])
        service.emulator.add_job("av3", duration=0, data_id="房", failure=("[/red]\x9b", text))
        yield service


@pytest.mark.parametrize("color", [None, "1"])
@pytest.mark.parametrize("command", ["query", "wait", "watch", "poll"])
@pytest.mark.parametrize("job_id", ["av1", "av3"])
def test_texts_of_the_service_on_a_terminal(
    service: Service, command: str, job_id: str, color: str | None
) -> None:
    """Texts of the service add no escape codes and no lines to the output."""
    environ = {"FORCE_COLOR": color, "TERM": "xterm-256color"}
    result = service.run(command, job_id, "-o", "table", **environ)
    assert result.exit_code in {1, 3}
    ours = re.compile(r"\x1b\[[0-9;?]*[mKhlAG]|\x1b\]8;[!-~]*\x1b\\|\r")
    for text in (result.stdout, result.stderr):
        assert harmless(ours.sub("", text))
        assert not [line for line in text.splitlines() if line.startswith("av2")]


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252"])
def test_the_encoding_of_a_process(service: Service, encoding: str) -> None:
    """With another encoding, tables are escaped and JSON is complete."""
    environ = {"PYTHONIOENCODING": encoding}
    result = service.start("query", "av3", "-o", "json", **environ)
    assert (result.returncode, result.stderr) == (1, "")
    assert parsed(result)[0]["data_id"] == "房"
    result = service.start("query", "av3", "-o", "table", **environ)
    assert (result.returncode, result.stderr) == (1, "")
    assert "\\u623f" in result.stdout


@pytest.mark.parametrize("output", ["table", "json"])
def test_an_argument_that_is_not_utf_8(service: Service, output: str) -> None:
    """An argument that is not UTF-8 is reported as an invalid id."""
    result = subprocess.run(
        [SCRIPT.encode(), b"query", b"\xff", b"-o", output.encode()],
        env={**os.environ, **service.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    assert b"expected 1 to 128 of A-Z a-z 0-9 _ -; got '\\udcff'" in result.stderr
    assert result.stdout == b""
