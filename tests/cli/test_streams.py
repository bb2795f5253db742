"""Standard output takes whole lines or ends the run; standard error never does."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from command_line import SCRIPT, parse, served
from terminal import PATIENCE

from ci_live_audit import Checkpoint, Verdict
from ci_live_audit.cli import streams
from ci_live_audit.testing import Emulator, frame

pytestmark = pytest.mark.waits  # for processes and pipes

JOBS = 300
#: A disk of so many blocks of 512 bytes, and how many bytes of it are taken already. The measuring
#: of coverage needs some of them.
DISK, TAKEN = 2000, 960_000
EARLIER = '{"schema": 1, "kind": "outcome", "job_id": "earlier"}\n'
FULL = Path("/dev/full")


@attrs.frozen
class Jobs:
    """The ids of jobs that have ended, the first of them sensitive, and one of no job."""

    known: list[str]
    missing: str = "av" + "0" * 32


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Serve jobs, and set the environment to reach them."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    bad = frame(0.0, "Porn", score=90, result=Verdict.SENSITIVE)
    ids = [emulator.add_job(duration=0, script=[bad])]
    ids += [emulator.add_job(duration=0) for _ in range(JOBS - 1)]
    with served(emulator) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield Jobs(ids)


def shell(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which "$@" is the command line with these arguments."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", SCRIPT, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        text=True,
    )


def ids_in(file: Path) -> list[str]:
    """Return the ids of a file of which every line is whole, but for those of before."""
    lines = parse(file.read_text())
    return [line["job_id"] for line in lines if line["job_id"] != "earlier"]


# Standard output


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("script", ['"$@" >> FILE', '{ cat FILE; "$@"; } > NEW; mv NEW FILE'])
def test_a_disk_that_fills_up_loses_nothing(
    jobs: Jobs, tmp_path: Path, script: str, unbuffered: str
) -> None:
    """What does not fit is removed; the rerun has the other ids, and every line is whole."""
    file, checkpoint = tmp_path / "results", tmp_path / "checkpoint"
    arguments = ["poll", *jobs.known, "--checkpoint", str(checkpoint)]
    environ = {"PYTHONUNBUFFERED": unbuffered}
    file.write_text(EARLIER * (TAKEN // len(EARLIER)))
    script = script.replace("FILE", str(file)).replace("NEW", str(tmp_path / "new"))
    stopped = shell(f"ulimit -f {DISK}; {script}", *arguments, **environ)
    assert stopped.returncode == ("mv" not in script)
    assert "error: [Errno 27] File too large: 'standard output'\n" in stopped.stderr
    assert stopped.stderr.endswith("run the same command to resume\n")
    first = ids_in(file)
    assert 0 < len(first) < JOBS
    with Checkpoint(checkpoint) as record:
        assert {job_id for job_id in jobs.known if job_id in record} == set(first)
    done = shell(f'"$@" >> {file}', *arguments, **environ)
    assert done.returncode == 3
    assert sorted(ids_in(file)) == sorted(jobs.known)


def test_a_torn_last_line_is_ended_first(jobs: Jobs, tmp_path: Path) -> None:
    """What a kill or another program cut off does not spoil the line after it."""
    file = tmp_path / "results"
    file.write_text('{"schema": 1, "ki')
    shell(f'"$@" >> {file}', "poll", *jobs.known[:2])
    torn, *lines = file.read_text().splitlines()
    assert torn == '{"schema": 1, "ki'
    assert sorted(json.loads(line)["job_id"] for line in lines) == sorted(jobs.known[:2])
    shell(f'"$@" >> {file}', "poll", jobs.known[0])
    assert len(file.read_text().splitlines()) == 4


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_does_not_block(jobs: Jobs, unbuffered: str) -> None:
    """A pipe with O_NONBLOCK that is full is waited for, and every line is whole."""
    end, other = os.pipe()
    os.set_blocking(other, False)
    fcntl.fcntl(other, fcntl.F_SETPIPE_SZ, 4096)
    with (
        os.fdopen(end) as reader,
        subprocess.Popen(
            [SCRIPT, "poll", *jobs.known],
            stdout=other,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as process,
    ):
        os.close(other)
        while struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, b"1234"))[0] < 2048:
            assert process.poll() is None
            time.sleep(0.01)
        lines = parse(reader.read())
        assert process.wait(PATIENCE) == 3
    assert sorted(line["job_id"] for line in lines) == sorted(jobs.known)


@pytest.mark.skipif(not FULL.exists(), reason="there is no full device")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["poll", "--help"], ["demo"], ["emulate", "--port", "0"]]
)
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    """Every command says in one line that standard output is full."""
    done = shell('"$@" > /dev/full', *arguments)
    assert done.returncode == 1
    assert done.stderr.endswith("error: [Errno 28] No space left on device: 'standard output'\n")
    assert "Traceback" not in done.stderr


def test_the_end_of_a_file_that_somebody_else_extended(tmp_path: Path) -> None:
    """Only what is the end of the file is removed."""
    file = tmp_path / "file"
    with file.open("w+b", buffering=0) as opened:
        output = streams.WholeFile(opened.fileno(), "file")
        assert output.write(b"one\n") == 4
        with file.open("ab") as other:
            other.write(b"theirs\n")
        output._remove(2)
        assert file.read_bytes() == b"one\ntheirs\n"
        output.seek(0, os.SEEK_END)
        output._remove(7)
        output.write(b"two\n")
        assert file.read_bytes() == b"one\ntwo\n"


def test_an_interrupt_within_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while a pipe is full is raised as it is."""
    end, other = os.pipe()
    os.set_blocking(other, False)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(select, "select", interrupt)
    with os.fdopen(end, "rb"), os.fdopen(other, "wb", buffering=0):
        output = streams.WholeFile(other, "pipe")
        with pytest.raises(KeyboardInterrupt):
            output.write(b"x" * 10_000_000)


# Standard error


@pytest.mark.parametrize(
    "environ", [{}, {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}], ids=["lines", "bar"]
)
@pytest.mark.parametrize("verbose", [[], ["-vv"]], ids=["quiet", "verbose"])
@pytest.mark.parametrize("redirect", ["2> /dev/full", "2>&-", ""], ids=["full", "closed", "broken"])
def test_nothing_said_on_standard_error_ends_a_run(
    jobs: Jobs, redirect: str, verbose: list[str], environ: dict[str, str]
) -> None:
    """All results come, and the exit code is that of a run whose messages were read."""
    if "full" in redirect and not FULL.exists():
        pytest.skip("there is no full device")
    end, other = os.pipe()
    os.close(end)
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'exec "$@" {redirect}',
            "sh",
            SCRIPT,
            *verbose,
            "poll",
            *jobs.known[:50],
        ],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=other,
        check=False,
        timeout=PATIENCE,
        text=True,
    )
    os.close(other)
    assert done.returncode == 3
    assert sorted(line["job_id"] for line in parse(done.stdout)) == sorted(jobs.known[:50])


@pytest.mark.parametrize("redirect", ["2> /dev/full", "2>&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["query", "MISSING", "KNOWN"], 3),
        (["query", "MISSING"], 1),
        (["cancel", "MISSING"], 1),
        (["wait", "KNOWN"], 3),
        (["watch", "KNOWN"], 3),
        (["submit", "rtmp://live.example.com/app/room7"], 0),
        (["submit", "rtmp://live.example.com/app/room7", "--dry-run"], 0),
        (["poll", "--bucket", "no bucket", "KNOWN"], 2),
        (["poll", "--no-such-option"], 2),
        (["no-such-command"], 2),
        (["--version"], 0),
    ],
)
def test_every_command_keeps_its_exit_code(
    jobs: Jobs, command: list[str], code: int, redirect: str
) -> None:
    """The exit code of each command is the same if nobody can be told anything."""
    if "full" in redirect and not FULL.exists():
        pytest.skip("there is no full device")
    names = {"MISSING": jobs.missing, "KNOWN": jobs.known[0]}
    arguments = [names.get(word, word) for word in command]
    assert shell(f'"$@" {redirect}', *arguments).returncode == code
    assert shell('"$@"', *arguments).returncode == code


def test_a_closed_stream_has_any_encoding() -> None:
    """A locale without the characters of a message does not matter if nobody reads it."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    bad = frame(0.0, "Porn", score=90, result=Verdict.SENSITIVE)
    job_id = emulator.add_job(duration=0, script=[bad], failure=("\u623f", "\xe9"))
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    with served(emulator) as environ:
        for closed in ("2>&-", ">&- 2>&-"):
            done = shell(f'"$@" {closed}', "wait", job_id, **environ, **ascii_only)
            assert done.returncode == 3


# The streams of this process


def test_streams_that_are_not_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of another kind is used as it is; those that are closed count as empty."""
    shown = SimpleNamespace()
    for name, stream in (("stdin", None), ("stdout", shown), ("stderr", None)):
        monkeypatch.setattr(sys, name, stream)
    streams.prepare()
    assert sys.stdout is shown
    assert sys.stdin.read() == ""
    print("nothing \u623f \ud800", file=sys.stderr)
    sys.stdin.close()
    sys.stderr.close()


def test_files_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordinary streams write at once, in their own encodings."""
    files: dict[str, Any] = {
        name: (tmp_path / name).open("w", encoding="latin-1", errors="replace")
        for name in ("stdout", "stderr")
    }
    for name, file in files.items():
        monkeypatch.setattr(sys, name, file)
    streams.prepare()
    for name, file in files.items():
        stream: io.TextIOWrapper = getattr(sys, name)
        stream.write("café\n")
        assert (tmp_path / name).read_bytes() == b"caf\xe9\n"
        stream.close()
        file.close()


def test_where_a_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a way to see its last line, a file is continued where it ends."""
    file = tmp_path / "file"
    for content in (b"", b"torn"):
        file.write_bytes(content)
        with monkeypatch.context() as patch, file.open("ab", buffering=0) as opened:
            patch.setitem(sys.modules, "fcntl", None)
            streams.WholeFile(opened.fileno(), "file").write(b"line\n")
        assert file.read_bytes() == content + b"line\n"
