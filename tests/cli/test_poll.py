"""`poll` and `emulate`: thousands of jobs between two processes, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import IO, Any

import attrs
import pytest
from click.testing import Result
from command_line import SCRIPT, parsed, run, served
from proofs import IN_FULL
from terminal import PATIENCE, start

from ci_live_audit import ConfigurationError, Verdict
from ci_live_audit.cli import logs, output, session, status
from ci_live_audit.cli.words import count
from ci_live_audit.testing import Emulator, Fault, frame
from ci_live_audit.testing.render import Refusal

#: How many jobs `emulate` has.
JOBS = 5000 if IN_FULL else 2000
NO_BUCKET = Fault(name="no bucket", refusal=Refusal(404, "NoSuchBucket", "There is none."))
HEADER = '{"format": "ci_live_audit.checkpoint", "version": 1}\n'


@attrs.frozen
class Served:
    """The environment that `emulate` prints, and a file with the ids of its jobs."""

    environment: dict[str, str]
    file: Path

    @property
    def ids(self) -> list[str]:
        """The ids of its jobs."""
        return self.file.read_text().split()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run `emulate` in its own process, with thousands of jobs."""
    file = tmp_path_factory.mktemp("emulate") / "ids.txt"
    options = ["--port", "0", "--rate", "1000", "--jobs", str(JOBS), "--duration", "2"]
    with (
        file.open("wb") as ids,
        start(SCRIPT, "emulate", *options, stdout=ids, stderr=subprocess.PIPE) as process,
    ):
        shown = b""
        assert process.stderr is not None
        while b"TENCENTCLOUD_SECRET_KEY" not in shown:
            line = process.stderr.readline()
            assert line, shown
            shown += line
        while file.read_bytes().count(b"\n") < JOBS:
            time.sleep(0.01)
        yield Served(dict(re.findall(r"export (\w+)=(\S+)", shown.decode())), file)
        process.send_signal(signal.SIGINT)
        assert re.search(rb"[\d,]+ requests, \d+ throttled", process.stderr.read())
        assert process.wait(PATIENCE) == 0


def poll(emulated: Served, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run `poll` in its own process."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [SCRIPT, "poll", *arguments, "--interval", "1"]
    return start(*command, **pipes, env={**os.environ, **emulated.environment})


def lines_of(stream: IO[bytes] | None, count: int) -> list[bytes]:
    """Read a number of lines."""
    assert stream is not None
    return [stream.readline() for _ in range(count)]


def ids_of(lines: list[bytes]) -> list[str]:
    """Return the ids of complete JSON lines."""
    return [json.loads(line)["job_id"] for line in lines if line.endswith(b"\n")]


def answered(checkpoint: Path) -> list[str]:
    """Return the ids that a checkpoint records as answered."""
    entries = [
        json.loads(line) for line in checkpoint.read_bytes().splitlines(True) if line[-1] == 10
    ]
    return [entry["answered"] for entry in entries if "answered" in entry]


def test_thousands_of_jobs(emulated: Served) -> None:
    """Each job has one outcome, and the summary counts them correctly."""
    with poll(emulated, "--file", str(emulated.file)) as process:
        out, err = process.communicate(timeout=PATIENCE)
    outcomes = [json.loads(line) for line in out.splitlines()]
    assert sorted(outcome["job_id"] for outcome in outcomes) == sorted(emulated.ids)
    assert {(outcome["schema"], outcome["kind"]) for outcome in outcomes} == {(1, "outcome")}
    results = [outcome["job"]["result"] for outcome in outcomes]
    failed = sum(outcome["error"] is not None for outcome in outcomes)
    plan, *_, summary = err.decode().splitlines()
    assert plan.startswith(f"{JOBS:,} jobs at 1000 requests a second")
    assert summary.startswith(
        f"{JOBS:,} done, {results.count(Verdict.SENSITIVE)} sensitive, "
        f"{results.count(Verdict.SUSPECTED)} suspected, {failed} errors, 0 timed out; "
    )
    assert min(results.count(Verdict.SENSITIVE), failed) > 0
    assert process.returncode == 3


def test_a_killed_run_is_resumed(emulated: Served, tmp_path: Path) -> None:
    """After a kill no outcome is lost, and at most the one in progress is repeated."""
    path = tmp_path / "checkpoint"
    arguments = ("--file", str(emulated.file), "--checkpoint", str(path))
    with poll(emulated, *arguments) as killed:
        lines = lines_of(killed.stdout, JOBS // 5)
        killed.kill()
        assert killed.stdout is not None
        first = ids_of([*lines, *killed.stdout.readlines()])
    recorded = answered(path)
    assert len(first) < JOBS
    with poll(emulated, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    second = ids_of(out.splitlines(keepends=True))
    assert {*first, *second} == set(emulated.ids)
    assert len(second) == len(set(second)) == JOBS - len(recorded)
    assert not set(recorded) & set(second)
    assert len(set(first) & set(second)) <= 1
    assert f"resuming from {path}: {len(recorded):,} already done" in err.decode()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_is_resumed(emulated: Served, tmp_path: Path, name: str) -> None:
    """An interrupted run and its resumption together have one outcome for each id."""
    path = tmp_path / "checkpoint"
    ids = emulated.ids[: JOBS * 2 // 5]
    arguments = (*ids, "--checkpoint", str(path))
    with poll(emulated, *arguments) as process:
        lines = lines_of(process.stdout, 100)
        process.send_signal(getattr(signal, name))
        # Not by communicate(), which would miss what readline() has read ahead.
        assert process.stdout is not None
        assert process.stderr is not None
        lines += process.stdout.readlines()
        err = process.stderr.read()
    first = ids_of(lines)
    assert process.returncode == 130
    assert len(first) < len(ids)
    assert f"{len(first):,} done, " in err.decode()
    assert f", {len(ids) - len(first):,} open; " in err.decode()
    assert "run the same command to resume" in err.decode()
    assert "Traceback" not in err.decode()
    with poll(emulated, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    second = ids_of(out.splitlines(keepends=True))
    assert sorted([*first, *second]) == sorted(ids)
    assert process.returncode == 3


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_open_input_delays_nothing(emulated: Served, name: str) -> None:
    """While standard input is open, outcomes are printed and an interrupt is obeyed."""
    with poll(emulated, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for job_id in emulated.ids[:3]:
            process.stdin.write(f"{job_id}\n".encode())
            process.stdin.flush()
            assert ids_of(lines_of(process.stdout, 1)) == [job_id]
        process.send_signal(getattr(signal, name))
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        *_, summary = process.stderr.read().decode().splitlines()
        assert summary.startswith("3 done, ")
        process.stdin.close()


def test_a_closed_pipe(emulated: Served) -> None:
    """When the reader closes the pipe, poll exits with 141 and no traceback."""
    with poll(emulated, "--file", str(emulated.file)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        (plan,) = process.stderr.read().decode().splitlines()
        assert plan.startswith(f"{JOBS:,} jobs")


@pytest.mark.parametrize("style", ["json", "table"])
def test_a_closed_pipe_for_both_streams(emulated: Served, style: str) -> None:
    """The exit code is 141 if both streams share the closed pipe."""
    arguments = ("-o", style, "--file", str(emulated.file))
    with poll(emulated, *arguments, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("style", ["json", "table"])
def test_a_full_disk(emulated: Served, style: str) -> None:
    """A full disk is reported in one line, and the summary tells what is left."""
    with (
        Path("/dev/full").open("wb") as full,
        poll(emulated, "-o", style, *emulated.ids[:3], stdout=full) as process,
    ):
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    plan, error, summary = err.decode().splitlines()
    assert plan.startswith("3 jobs")
    assert error == "error: [Errno 28] No space left on device: 'standard output'"
    assert summary.startswith("0 done, 0 sensitive, 0 suspected, 0 errors, 0 timed out, 3 open; ")


# In this process


class StopsLater(BytesIO):
    """Standard input that stays open for a while after its lines."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the lines, and later nothing."""
        found = super().read(size)
        if size and not found:
            time.sleep(0.5)
        return found


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Serve an emulator and set the environment to reach it."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    with served(emulator) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield emulator


def add(emulator: Emulator, fate: str) -> str:
    """Add a job that ends at once, or never, or return the id of a missing one."""
    if fate == "missing":
        return "av" + "0" * 32
    verdict = {"sensitive": Verdict.SENSITIVE, "suspected": Verdict.SUSPECTED}.get(fate)
    script = [frame(0.001, "Porn", score=90, result=verdict) if verdict else frame(0.001)]
    failure = ("ResourceDownloadFailed", "unreadable") if fate == "failed" else None
    duration = math.inf if fate == "late" else 0.01
    return emulator.add_job(duration=duration, script=script, failure=failure)


def poll_here(*arguments: str, **options: Any) -> Result:
    """Run `poll` in this process."""
    return run("poll", *arguments, "--interval", "0.1", **options)


def printed(result: Result) -> list[str]:
    """Return the ids of the outcomes that were printed."""
    return [line["job_id"] for line in parsed(result)]


@pytest.mark.parametrize(
    ("fates", "code"),
    [
        (["clean", "clean"], 0),
        (["clean", "failed"], 1),
        (["missing", "clean"], 1),
        (["missing", "late"], 1),
        (["clean", "sensitive"], 3),
        (["suspected", "clean"], 3),
        (["sensitive", "failed", "late"], 3),
        (["late", "clean"], 4),
    ],
)
def test_exit_codes(emulator: Emulator, fates: list[str], code: int) -> None:
    """Flagged outcomes take priority over errors, and errors over timeouts."""
    ids = [add(emulator, fate) for fate in fates]
    result = poll_here(*ids, "--timeout", "0.5" if "late" in fates else "60")
    assert result.exit_code == code
    assert sorted(printed(result)) == sorted(ids)
    late, errors = fates.count("late"), fates.count("failed") + fates.count("missing")
    assert f"{count(errors, 'error')}, {late} timed out; " in result.stderr


def test_ids_of_all_sources(emulator: Emulator, tmp_path: Path) -> None:
    """Ids come from arguments, files and standard input; duplicates have one outcome."""
    one, two, three, four = (add(emulator, "clean") for _ in range(4))
    file = tmp_path / "ids.txt"
    file.write_text(f"# ids\n{two}\n\n{one}\n")
    lines = f'{three}\r\n{{"job_id": "{four}", "label": "Ads"}}\n{one}\n{three}'
    result = poll_here(one, "--file", str(file), "--file", "-", input=lines)
    assert result.exit_code == 0
    assert sorted(printed(result)) == sorted([one, two, three, four])


def test_output_can_be_polled_again(emulator: Emulator) -> None:
    """The output of one run can be the input of another."""
    ids = [add(emulator, "clean") for _ in range(3)]
    first = poll_here(*ids).stdout
    assert sorted(printed(poll_here(input=first))) == sorted(ids)


def test_the_plan_is_printed_first(emulator: Emulator) -> None:
    """The plan is printed first and counts each job once."""
    one, two = add(emulator, "clean"), add(emulator, "clean")
    result = poll_here(one, two, one, "--rate", "10")
    assert result.stderr.startswith("2 jobs at 10 requests a second: ")


def test_a_dry_run_sends_nothing(emulator: Emulator) -> None:
    """A dry run prints the plan and sends nothing."""
    one, two = add(emulator, "clean"), add(emulator, "clean")
    for result in (
        poll_here("--dry-run", one, two),
        poll_here("--dry-run", input=f"{one}\n{two}\n"),
        poll_here("--dry-run", one, "--file", "-", input=two),
    ):
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.startswith("2 jobs at 1000 requests a second: ")
    assert emulator.arrivals == []


def test_a_table_has_one_line_per_outcome(emulator: Emulator) -> None:
    """Each outcome is one line of the table."""
    ids = [add(emulator, fate) for fate in ("clean", "sensitive", "failed", "missing")]
    result = poll_here(*ids, "--output", "table")
    header, *lines = (line.split() for line in result.stdout.splitlines())
    assert header == ["JOB", "VERDICT", "SCENE", "SCORE", "TIME", "STREAM"]
    shown = {job_id: cells for job_id, *cells in lines}
    assert shown[ids[0]] == ["Normal"]
    assert shown[ids[1]][:3] == ["Sensitive", "Porn", "90"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", shown[ids[1]][3])
    assert shown[ids[2]] == ["Failed", "ResourceDownloadFailed", "unreadable"]
    assert shown[ids[3]][:3] == ["Error", "query", "of"]


def test_progress_without_a_terminal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, progress lines have counts, and an estimate if all ids are known."""
    monkeypatch.setattr(status, "REPORT", 0.05)
    late = add(emulator, "late")
    known = poll_here(late, "--timeout", "1")
    assert "0 errors, 0 timed out, 1 open, at least 0:00\n" in known.stderr
    text = StopsLater(f"{late}\n".encode())
    read = poll_here("--timeout", "1", input=text)
    assert "0 errors, 0 timed out, 1 open\n" in read.stderr


def test_progress_on_a_terminal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows the counts, and a total if all ids are known."""
    monkeypatch.setattr(status, "REDRAW", 0.05)
    environ = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}
    late, clean = add(emulator, "late"), add(emulator, "clean")
    known = poll_here(late, clean, "--timeout", "1", **environ)
    assert "1 of 2, 0 flagged, 0 errors, at least 0:00" in known.stderr
    text = StopsLater(f"{late}\n{clean}\n".encode())
    read = poll_here("--timeout", "1", input=text, **environ)
    assert "1 done, 0 flagged, 0 errors" in read.stderr


def test_progress_of_a_resumed_run(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From its first line on, the total is that of the jobs that are not done."""
    monkeypatch.setattr(status, "REDRAW", 0.01)
    environ = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}
    jobs = [add(emulator, "late") for _ in range(100)]
    path = tmp_path / "checkpoint"
    arguments = (*jobs, "--checkpoint", str(path), "--timeout", "2")
    assert poll_here(*arguments).exit_code == 4
    again = poll_here(*arguments, **environ)
    assert set(re.findall(r"\d+ of (\d+), ", again.stderr)) == {"100"}


def test_an_interrupt_with_a_checkpoint(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An interrupt prints a summary, and the same command resumes."""
    path = tmp_path / "checkpoint"
    clean, late = add(emulator, "clean"), add(emulator, "late")
    show = output.Output.outcome

    def interrupt(self: output.Output, outcome: Any) -> None:
        show(self, outcome)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(output.Output, "outcome", interrupt)
        stopped = poll_here(clean, late, "--checkpoint", str(path))
    assert stopped.exit_code == 130
    assert printed(stopped) == [clean]
    assert "1 done, 0 sensitive, 0 suspected, 0 errors, 0 timed out, 1 open; " in stopped.stderr
    assert stopped.stderr.endswith("run the same command to resume\n")
    again = poll_here(clean, late, "--checkpoint", str(path), "--timeout", "0.3")
    assert again.exit_code == 4
    assert printed(again) == [late]
    assert f"resuming from {path}: 1 already done, 0 of them sensitive" in again.stderr


def test_an_interrupt_without_a_checkpoint(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint, the summary offers no resumption."""
    monkeypatch.setattr(output.Output, "outcome", lambda *_: signal.raise_signal(signal.SIGTERM))
    result = poll_here(add(emulator, "clean"), add(emulator, "late"))
    assert result.exit_code == 130
    assert "resume" not in result.stderr


@pytest.mark.parametrize(
    ("fates", "code", "counts"),
    [
        (["clean", "sensitive"], 3, "1 of them sensitive, 0 suspected, 0 errors"),
        (["suspected", "missing"], 3, "0 of them sensitive, 1 suspected, 1 error"),
        (["failed", "missing"], 1, "0 of them sensitive, 0 suspected, 2 errors"),
        (["clean", "clean"], 0, "0 of them sensitive, 0 suspected, 0 errors"),
    ],
)
def test_a_rerun_exits_as_the_first_run(
    emulator: Emulator, tmp_path: Path, fates: list[str], code: int, counts: str
) -> None:
    """A rerun of what is done tells what was found then, and has the same exit code."""
    path = tmp_path / "checkpoint"
    arguments = (*(add(emulator, fate) for fate in fates), "--checkpoint", str(path))
    first, again = poll_here(*arguments), poll_here(*arguments)
    assert (first.exit_code, again.exit_code) == (code, code)
    assert again.stdout == ""
    assert f"resuming from {path}: 2 already done, {counts}\n" in again.stderr
    late = poll_here(*arguments, add(emulator, "late"), "--timeout", "0.3")
    assert late.exit_code == (code or 4)


def test_a_flagged_job_counts_while_it_goes_on(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the bar, and in the lines; nobody has to wait for its end."""
    monkeypatch.setattr(status, "REDRAW", 0.05)
    monkeypatch.setattr(status, "REPORT", 0.05)
    script = [frame(0.001, "Porn", score=90, result=Verdict.SENSITIVE)]
    job_id = emulator.add_job(duration=math.inf, script=script)
    emulator.jobs[job_id].started = time.monotonic() - 60
    lines = poll_here(job_id, "--timeout", "1")
    assert "0 done, 0 sensitive, 0 suspected, 0 errors, 0 timed out, 1 flagged so far, 1 open" in (
        lines.stderr
    )
    environ = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}
    bar = poll_here(job_id, "--timeout", "1", **environ)
    assert "0 of 1, 1 flagged, 0 errors" in bar.stderr


@pytest.mark.parametrize("style", ["json", "table"])
def test_a_flagged_job_that_goes_on_is_flagged(emulator: Emulator, style: str) -> None:
    """A job that was seen to be sensitive counts, although it did not end in time."""
    script = [frame(0.001, "Porn", score=90, result=Verdict.SENSITIVE)]
    job_id = emulator.add_job(duration=math.inf, script=script)
    emulator.jobs[job_id].started = time.monotonic() - 60
    result = poll_here(job_id, "--timeout", "0.5", "-o", style)
    assert result.exit_code == 3
    assert "1 done, 1 sensitive, 0 suspected, 0 errors, 1 timed out; " in result.stderr
    if style == "json":
        (line,) = parsed(result)
        assert (line["job"]["result"], line["job"]["state"]) == (1, "Auditing")
        assert line["error"]["error"] == "WaitTimeout"
    else:
        *_, row = result.stdout.splitlines()
        assert row.split() == [job_id, "Sensitive", "Porn", "timed", "out"]


@pytest.mark.parametrize("environ", [{}, {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}])
def test_an_outage_is_shown(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """The lines, the bar and the summary say for how long nothing has succeeded."""
    monkeypatch.setattr(status, "REPORT", 0.05)
    monkeypatch.setattr(status, "REDRAW", 0.05)
    emulator.inject(Fault.error(503))
    result = poll_here(add(emulator, "clean"), "--attempts", "1", "--timeout", "1", **environ)
    assert result.exit_code == 4
    *progress, summary = result.stderr.splitlines()
    assert "no response for 0:0" in "".join(progress)
    assert "1 timed out, no response for 0:01; " in summary


def test_a_fault_of_the_account_ends_the_run(emulator: Emulator, tmp_path: Path) -> None:
    """A wrong bucket is one error, with the summary; nothing is done, and the rerun has it all."""
    path = tmp_path / "checkpoint"
    ids = [add(emulator, "clean") for _ in range(60)]
    emulator.inject(NO_BUCKET)
    stopped = poll_here(*ids, "--checkpoint", str(path))
    assert stopped.exit_code == 1
    _, error, summary, hint = stopped.stderr.splitlines()
    assert error.startswith("error: query of av")
    assert "NoSuchBucket" in error
    done = len(printed(stopped))
    assert summary.startswith(f"{done} done, 0 sensitive, 0 suspected, {done} errors, ")
    assert ", 60 open; " in summary
    assert hint == "run the same command to resume"
    emulator.faults.clear()
    again = poll_here(*ids, "--checkpoint", str(path))
    assert (again.exit_code, sorted(printed(again))) == (0, sorted(ids))


def test_an_error_without_a_checkpoint(emulator: Emulator) -> None:
    """Without a checkpoint the summary of a run that was ended offers no resumption."""
    emulator.inject(NO_BUCKET)
    result = poll_here(*(add(emulator, "clean") for _ in range(60)))
    assert result.exit_code == 1
    assert "resume" not in result.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("some notes of mine\n", "this is not a checkpoint of ci_live_audit"),
        (HEADER.replace("1}", "9}"), "a checkpoint of version 9; versions 1 and 2 can be read"),
        (HEADER + "[]\n", "line 2 is not an entry of a checkpoint"),
    ],
)
def test_an_invalid_checkpoint(
    emulator: Emulator, tmp_path: Path, content: str, reason: str
) -> None:
    """An invalid checkpoint is reported in one line and left unchanged; nothing is sent."""
    path = tmp_path / "checkpoint"
    path.write_text(content)
    result = poll_here(add(emulator, "clean"), "--checkpoint", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[1:] == [f"error: {path}: {reason}"]
    assert path.read_text() == content
    assert emulator.arrivals == []


def test_a_checkpoint_that_cannot_be_created(emulator: Emulator, tmp_path: Path) -> None:
    """A checkpoint that cannot be created is reported in one line."""
    path = tmp_path / "no folder" / "checkpoint"
    result = poll_here(add(emulator, "clean"), "--checkpoint", str(path))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        f"error: [Errno 2] No such file or directory: '{path}'"
    ]


def test_a_terminal_is_not_read_for_ids(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ids, a command on a terminal fails instead of waiting for input."""
    monkeypatch.setattr(StopsLater, "isatty", lambda _: True)
    result = poll_here(input=StopsLater())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: no job ids: pass some, or --file FILE, or pipe them in\n" in result.stderr
    for command in (["poll", "--file"], ["report", "--from"]):
        lost = run(*command, "none.txt", input=StopsLater())
        assert lost.exit_code == 2
        assert lost.stderr.endswith(": File 'none.txt' does not exist.\n")


def test_faults_are_retried(emulator: Emulator) -> None:
    """Errors of the service are retried until every job has its outcome."""
    emulator.inject(Fault.error(503), share=0.2)
    ids = [add(emulator, "clean") for _ in range(50)]
    result = poll_here(*ids)
    assert result.exit_code == 0
    assert sorted(printed(result)) == sorted(ids)


def test_emulate_serves_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`emulate` prints its ids, how to reach it, and at the end what arrived."""
    say = output.Output.say

    def end(self: output.Output, text: str, **options: Any) -> None:
        say(self, text, **options)
        if "SECRET_KEY" in text:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(output.Output, "say", end)
    command = ["emulate", "--port", "0", "--jobs", "200", "--duration", "1"]
    result = run(*command)
    assert result.exit_code == 0
    assert len(set(result.stdout.split())) == 200
    assert re.search(r"listening at http://127\.0\.0\.1:\d+\.", result.stderr)
    assert result.stderr.endswith("0 requests, 0 throttled\n")
    assert run(*command).stdout == result.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
        (ConfigurationError("so"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_exceptions_have_exit_codes(
    capfd: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    """An error prints one line and exits with 1, an interrupt exits with 130."""

    async def main() -> int:
        raise error

    with pytest.raises(SystemExit, match=str(code)):
        session.run(main)
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"error: {error}\n" if code == 1 else "")


def test_a_console_raises_on_a_closed_pipe() -> None:
    """A console raises on a closed pipe instead of exiting with a code of its own."""

    class Closed(StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        output.Terminal(file=Closed()).print("a line")


def test_an_interrupt_while_a_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt during imports exits with 130."""

    def interrupt(*_: object, **__: object) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "Output", interrupt)
    assert run("poll", "av1", "--dry-run").exit_code == 130


def test_logs_go_to_the_current_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Log lines go to the current standard error, even if it was replaced."""
    log = logs.StandardError()
    before = StringIO()
    with contextlib.redirect_stderr(before):
        log.write("one\n")
    log.write("two\n")
    assert (before.getvalue(), capsys.readouterr().err) == ("one\n", "two\n")
