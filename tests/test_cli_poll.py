"""`poll` and `emulate`: thousands of jobs between two processes, ended in every way there is."""

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
from click.testing import CliRunner, Result
from proofs import IN_FULL
from terminal import PATIENCE, SCRIPT, served, start

from ci_live_audit import ConfigurationError, Verdict
from ci_live_audit.cli import bulk, commands, output, session
from ci_live_audit.cli.commands import cli
from ci_live_audit.testing import Emulator, Fault, frame

#: How many jobs `emulate` has.
JOBS = 5000 if IN_FULL else 2000
HEADER = '{"format": "ci_live_audit.checkpoint", "version": 1}\n'


@attrs.frozen
class Served:
    """What `emulate` told: its environment, and a file with the ids of its jobs."""

    environment: dict[str, str]
    file: Path

    @property
    def ids(self) -> list[str]:
        """The ids."""
        return self.file.read_text().split()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`emulate` in a process of its own, with thousands of jobs."""
    file = tmp_path_factory.mktemp("emulate") / "ids.txt"
    options = ["--port", "0", "--rate", "1000", "--jobs", str(JOBS), "--duration", "2"]
    with (
        file.open("wb") as ids,
        start(SCRIPT, "emulate", *options, stdout=ids, stderr=subprocess.PIPE) as process,
    ):
        told = b""
        assert process.stderr is not None
        while b"TENCENTCLOUD_SECRET_KEY" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        while file.read_bytes().count(b"\n") < JOBS:
            time.sleep(0.01)
        yield Served(dict(re.findall(r"export (\w+)=(\S+)", told.decode())), file)
        process.send_signal(signal.SIGINT)
        assert re.search(rb"[\d,]+ requests, \d+ refused by the quota", process.stderr.read())
        assert process.wait(PATIENCE) == 0


def poll(emulated: Served, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """`poll` of an emulator in a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [SCRIPT, "poll", *arguments, "--interval", "1"]
    return start(*command, **pipes, env={**os.environ, **emulated.environment})


def lines_of(stream: IO[bytes] | None, count: int) -> list[bytes]:
    """So many lines, as soon as they are there."""
    assert stream is not None
    return [stream.readline() for _ in range(count)]


def ids_of(lines: list[bytes]) -> list[str]:
    """The ids of whole JSON lines."""
    return [json.loads(line)["job_id"] for line in lines if line.endswith(b"\n")]


def answered(checkpoint: Path) -> list[str]:
    """The ids that a checkpoint has as answered."""
    entries = [
        json.loads(line) for line in checkpoint.read_bytes().splitlines(True) if line[-1] == 10
    ]
    return [entry["answered"] for entry in entries if "answered" in entry]


def test_thousands_of_jobs(emulated: Served) -> None:
    """Each is answered once, and what is told in the end is what was printed."""
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
        f"{JOBS:,} answered, {results.count(Verdict.SENSITIVE)} sensitive, "
        f"{results.count(Verdict.SUSPECTED)} suspected, {failed} errors, 0 too late; "
    )
    assert min(results.count(Verdict.SENSITIVE), failed) > 0
    assert process.returncode == 3


def test_a_killed_run_is_taken_up(emulated: Served, tmp_path: Path) -> None:
    """Nothing is lost, and of what was answered nothing comes again but what was in hand."""
    path = tmp_path / "checkpoint"
    arguments = ("--file", str(emulated.file), "--checkpoint", str(path))
    with poll(emulated, *arguments) as killed:
        lines = lines_of(killed.stdout, JOBS // 5)
        killed.kill()
        assert killed.stdout is not None
        first = ids_of([*lines, *killed.stdout.readlines()])
    noted = answered(path)
    assert len(first) < JOBS
    with poll(emulated, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    second = ids_of(out.splitlines(keepends=True))
    assert {*first, *second} == set(emulated.ids)
    assert len(second) == len(set(second)) == JOBS - len(noted)
    assert not set(noted) & set(second)
    assert len(set(first) & set(second)) <= 1
    assert f"taking up {path}: {len(noted):,} ids were answered before" in err.decode()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_is_taken_up(emulated: Served, tmp_path: Path, name: str) -> None:
    """It sums up, and the same command answers the rest: every id once, all together."""
    path = tmp_path / "checkpoint"
    ids = emulated.ids[: JOBS * 2 // 5]
    arguments = (*ids, "--checkpoint", str(path))
    with poll(emulated, *arguments) as process:
        lines = lines_of(process.stdout, 100)
        process.send_signal(getattr(signal, name))
        # Not by communicate(): it does not know what readline() has read ahead.
        assert process.stdout is not None
        assert process.stderr is not None
        lines += process.stdout.readlines()
        err = process.stderr.read()
    first = ids_of(lines)
    assert process.returncode == 130
    assert len(first) < len(ids)
    assert f"{len(first):,} answered, " in err.decode()
    assert f", {len(ids) - len(first):,} open; " in err.decode()
    assert "the same command goes on from here" in err.decode()
    assert "Traceback" not in err.decode()
    with poll(emulated, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    second = ids_of(out.splitlines(keepends=True))
    assert sorted([*first, *second]) == sorted(ids)
    assert process.returncode == 3


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ids_that_may_still_come_hold_nothing_up(emulated: Served, name: str) -> None:
    """While standard input is open ids are answered as they come, and an interrupt ends it."""
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
        assert summary.startswith("3 answered, ")
        process.stdin.close()


def test_the_reader_goes_away(emulated: Served) -> None:
    """As with ``| head -1``: no traceback, and the code that says why."""
    with poll(emulated, "--file", str(emulated.file)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        (plan,) = process.stderr.read().decode().splitlines()
        assert plan.startswith(f"{JOBS:,} jobs")


@pytest.mark.parametrize("style", ["json", "table"])
def test_the_reader_of_everything_goes_away(emulated: Served, style: str) -> None:
    """As with ``2>&1 | head -1``, whichever of both is written first."""
    arguments = ("-o", style, "--file", str(emulated.file))
    with poll(emulated, *arguments, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("style", ["json", "table"])
def test_the_disk_is_full(emulated: Served, style: str) -> None:
    """One line says so, and the code is that of a failure."""
    with (
        Path("/dev/full").open("wb") as full,
        poll(emulated, "-o", style, *emulated.ids[:3], stdout=full) as process,
    ):
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    plan, error = err.decode().splitlines()
    assert plan.startswith("3 jobs")
    assert error == "error: [Errno 28] No space left on device"


# In this process


class StopsLater(BytesIO):
    """Standard input that stays open for a while after its lines."""

    def read(self, size: int | None = -1) -> bytes:
        """The lines, then nothing, after a while."""
        found = super().read(size)
        if size and not found:
            time.sleep(0.5)
        return found


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator on a socket, of which the environment tells."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    with served(emulator, monkeypatch):
        yield emulator


def add(emulator: Emulator, fate: str) -> str:
    """A job that ends at once, or never, or is not there."""
    if fate == "missing":
        return "av" + "0" * 32
    verdict = {"sensitive": Verdict.SENSITIVE, "suspected": Verdict.SUSPECTED}.get(fate)
    script = [frame(0.001, "Porn", score=90, result=verdict) if verdict else frame(0.001)]
    failure = ("ResourceDownloadFailed", "unreadable") if fate == "failed" else None
    duration = math.inf if fate == "late" else 0.01
    return emulator.add_job(duration=duration, script=script, failure=failure)


def run(*arguments: str, **options: Any) -> Result:
    """The command line in this process."""
    command = [*arguments, "--interval", "0.1"]
    return CliRunner().invoke(cli, command, catch_exceptions=False, **options)


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
    """What was flagged counts most, then errors, then what was too late."""
    ids = [add(emulator, fate) for fate in fates]
    result = run("poll", *ids, "--timeout", "0.5" if "late" in fates else "60")
    assert result.exit_code == code
    assert sorted(ids_of(result.stdout_bytes.splitlines(keepends=True))) == sorted(ids)
    late, errors = fates.count("late"), fates.count("failed") + fates.count("missing")
    assert f"{errors} errors, {late} too late; " in result.stderr


def test_ids_of_all_sources_together(emulator: Emulator, tmp_path: Path) -> None:
    """From arguments, files and standard input; who is named twice is answered once."""
    one, two, three, four = (add(emulator, "clean") for _ in range(4))
    file = tmp_path / "ids.txt"
    file.write_text(f"# ids\n{two}\n\n{one}\n")
    lines = f'{three}\r\n{{"job_id": "{four}", "label": "Ads"}}\n{one}\n{three}'
    result = run("poll", one, "--file", str(file), "--file", "-", input=lines)
    assert result.exit_code == 0
    assert sorted(ids_of(result.stdout_bytes.splitlines(keepends=True))) == sorted(
        [one, two, three, four]
    )


def test_what_was_printed_can_be_polled_again(emulator: Emulator) -> None:
    """The output of one run is good as the input of another."""
    ids = [add(emulator, "clean") for _ in range(3)]
    first = run("poll", *ids).stdout
    assert sorted(ids_of(run("poll", input=first).stdout_bytes.splitlines(keepends=True))) == (
        sorted(ids)
    )


def test_the_plan_comes_first(emulator: Emulator) -> None:
    """What the quota means for so many jobs, each counted once."""
    one, two = add(emulator, "clean"), add(emulator, "clean")
    result = run("poll", one, two, one, "--rate", "10")
    assert result.stderr.startswith("2 jobs at 10 requests a second: ")


def test_a_dry_run_sends_nothing(emulator: Emulator) -> None:
    """It shows the plan, for the ids of standard input too."""
    one, two = add(emulator, "clean"), add(emulator, "clean")
    for result in (
        run("poll", "--dry-run", one, two),
        run("poll", "--dry-run", input=f"{one}\n{two}\n"),
        run("poll", "--dry-run", one, "--file", "-", input=two),
    ):
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.startswith("2 jobs at 1000 requests a second: ")
    assert emulator.arrivals == []


def test_a_table_has_a_line_for_each(emulator: Emulator) -> None:
    """What a person wants to know; of an error, what it is."""
    ids = [add(emulator, fate) for fate in ("clean", "sensitive", "failed", "missing")]
    result = run("poll", *ids, "--output", "table")
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert list(map(lines.get, ids[:3])) == [
        "Success  Normal",
        "Success  Sensitive  Porn",
        "Failed  Normal  unreadable",
    ]
    assert lines[ids[3]].startswith("error:  query of av")


def test_progress_without_a_terminal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line now and then; how long it takes only if it is known how many there are."""
    monkeypatch.setattr(bulk, "TELL", 0.05)
    late = add(emulator, "late")
    known = run("poll", late, "--timeout", "1")
    assert "0 errors, 0 too late, 1 open, at least 0:00\n" in known.stderr
    text = StopsLater(f"{late}\n".encode())
    read = run("poll", "--timeout", "1", input=text)
    assert "0 errors, 0 too late, 1 open\n" in read.stderr


def test_progress_on_a_terminal(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar has the counts; while more ids may come, no total."""
    monkeypatch.setattr(bulk, "REDRAW", 0.05)
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "100")):
        monkeypatch.setenv(name, value)
    late, clean = add(emulator, "late"), add(emulator, "clean")
    known = run("poll", late, clean, "--timeout", "1")
    assert "1 of 2, 0 flagged, 0 errors, at least 0:00" in known.stderr
    text = StopsLater(f"{late}\n{clean}\n".encode())
    read = run("poll", "--timeout", "1", input=text)
    assert "1 answered, 0 flagged, 0 errors" in read.stderr


def test_an_interrupt_in_the_middle(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It sums up what there is; the same command takes it up, and says so."""
    path = tmp_path / "checkpoint"
    clean, late = add(emulator, "clean"), add(emulator, "late")
    told = output.Output.outcome

    def interrupt(self: output.Output, outcome: Any) -> None:
        told(self, outcome)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(output.Output, "outcome", interrupt)
        stopped = run("poll", clean, late, "--checkpoint", str(path))
    assert stopped.exit_code == 130
    assert ids_of(stopped.stdout_bytes.splitlines(keepends=True)) == [clean]
    assert "1 answered, 0 sensitive, 0 suspected, 0 errors, 0 too late, 1 open; " in stopped.stderr
    assert stopped.stderr.endswith("the same command goes on from here\n")
    again = run("poll", clean, late, "--checkpoint", str(path), "--timeout", "0.3")
    assert again.exit_code == 4
    assert ids_of(again.stdout_bytes.splitlines(keepends=True)) == [late]
    assert f"taking up {path}: 1 ids were answered before\n" in again.stderr


def test_an_interrupt_without_a_checkpoint(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is promised that cannot be held."""
    monkeypatch.setattr(output.Output, "outcome", lambda *_: signal.raise_signal(signal.SIGTERM))
    result = run("poll", add(emulator, "clean"), add(emulator, "late"))
    assert result.exit_code == 130
    assert "goes on" not in result.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("some notes of mine\n", "this is no checkpoint of ci_live_audit"),
        (HEADER.replace("1}", "9}"), "a checkpoint of version 9; version 1 can be read"),
        (HEADER + "[]\n", "line 2 is no entry of a checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint(
    emulator: Emulator, tmp_path: Path, content: str, reason: str
) -> None:
    """One line says so, the file stays as it is, and nothing is sent."""
    path = tmp_path / "checkpoint"
    path.write_text(content)
    result = run("poll", add(emulator, "clean"), "--checkpoint", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[1:] == [f"error: {path}: {reason}"]
    assert path.read_text() == content
    assert emulator.arrivals == []


def test_a_checkpoint_that_cannot_be_made(emulator: Emulator, tmp_path: Path) -> None:
    """One line says why."""
    path = tmp_path / "no folder" / "checkpoint"
    result = run("poll", add(emulator, "clean"), "--checkpoint", str(path))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        f"error: [Errno 2] No such file or directory: '{path}'"
    ]


def test_without_ids_a_person_is_told(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody types thousands of ids: on a terminal they are not waited for."""
    monkeypatch.setattr(StopsLater, "isatty", lambda _: True)
    result = run("poll", input=StopsLater())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no job ids: pass some, or --file FILE, or pipe them in\n"


def test_faults_are_retried(emulator: Emulator) -> None:
    """A poll through a bad hour of the service answers all the same."""
    emulator.inject(Fault.error(503), share=0.2)
    ids = [add(emulator, "clean") for _ in range(50)]
    result = run("poll", *ids)
    assert result.exit_code == 0
    assert sorted(ids_of(result.stdout_bytes.splitlines(keepends=True))) == sorted(ids)


def test_emulate_serves_until_it_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells its ids, how it is reached, and in the end what came in."""
    said = output.Output.say

    def end(self: output.Output, text: str, **options: Any) -> None:
        said(self, text, **options)
        if "SECRET_KEY" in text:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(output.Output, "say", end)
    command = ["emulate", "--port", "0", "--jobs", "200", "--duration", "1"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert len(set(result.stdout.split())) == 200
    assert re.search(r"listens at http://127\.0\.0\.1:\d+\.", result.stderr)
    assert result.stderr.endswith("0 requests, 0 refused by the quota\n")
    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert again.stdout == result.stdout


@pytest.mark.parametrize("duration", ["0", "-1", "inf", "nan"])
def test_emulate_needs_a_duration(duration: str) -> None:
    """One line says so."""
    result = CliRunner().invoke(cli, ["emulate", "--port", "0", "--duration", duration])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: duration: expected seconds, above 0; got ")


def test_a_port_that_is_taken(emulator: Emulator) -> None:
    """One line says so."""
    port = os.environ["CI_LIVE_AUDIT_ENDPOINT"].rpartition(":")[2]
    result = CliRunner().invoke(cli, ["emulate", "--port", port])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "ddress already in use" in line


@pytest.mark.parametrize("name", ["CI_LIVE_AUDIT_BUCKET", "TENCENTCLOUD_REGION"])
def test_where_is_needed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without bucket or region one line says how they are given."""
    monkeypatch.delenv(name)
    result = run("poll", add(emulator, "clean"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(f"or set {name}")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
        (ConfigurationError("so"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_however_a_command_ends_it_has_a_code(
    capfd: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    """Errors are a line, interrupts nothing."""

    async def main() -> int:
        raise error

    with pytest.raises(SystemExit, match=str(code)):
        session.run(main)
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"error: {error}\n" if code == 1 else "")


def test_a_closed_pipe_is_not_written_to_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both streams lead nowhere from then on, so the interpreter has nothing to complain of."""
    led: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, number: led.append(number))

    async def main() -> int:
        raise BrokenPipeError

    with (
        (tmp_path / "out").open("w") as out,
        (tmp_path / "err").open("w") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit, match="141"),
    ):
        session.run(main)
    assert led == [out_number := led[0], led[1]]
    assert out_number != led[1]


def test_lines_for_people_tell_of_a_closed_pipe_too() -> None:
    """The library that prints tables would end the process with a code of its own."""

    class Closed(StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        output.Terminal(file=Closed()).print("a line")


def test_an_interrupt_while_a_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the code of an interrupt, however early it comes."""

    def interrupt(_: object) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "Output", interrupt)
    assert CliRunner().invoke(cli, ["poll", "av1"]).exit_code == 130


def test_logs_go_where_standard_error_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Even if something, as a progress bar, has put itself in front of it since."""
    log = commands.StandardError()
    before = StringIO()
    with contextlib.redirect_stderr(before):
        log.write("one\n")
    log.write("two\n")
    assert (before.getvalue(), capsys.readouterr().err) == ("one\n", "two\n")
