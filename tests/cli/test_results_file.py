"""`poll --results`: a file of whole lines, one for each id, whatever ends the run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SCRIPT, parse, run, served
from terminal import PATIENCE, start

from ci_live_audit import Checkpoint, ConfigurationError
from ci_live_audit.cli import results
from ci_live_audit.testing import Emulator

pytestmark = pytest.mark.waits  # for processes

JOBS = 300
#: A disk with so many bytes that are taken already. The measuring of coverage needs some of them.
DISK, TAKEN = 1_000_001, 940_000
EARLIER = '{"schema": 1, "kind": "outcome", "job_id": "earlier"}\n'


@pytest.fixture
def job_ids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve jobs that have ended, and set the environment to reach them."""
    emulator = Emulator(rate=1000, clock=time.monotonic)
    ids = [emulator.add_job(duration=0) for _ in range(JOBS)]
    with served(emulator) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield ids


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond a size, as on a disk that fills up."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def poll(*arguments: str, limit: int = -1, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `poll` in its own process."""
    return subprocess.run(
        [SCRIPT, "poll", "-o", "json", *arguments],
        preexec_fn=lambda: limit_files(limit),
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=PATIENCE,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def ids_in(file: Path) -> list[str]:
    """Return the ids of a file of which every line is whole."""
    lines = parse(file.read_text())
    return [line["job_id"] for line in lines if line["job_id"] != "earlier"]


def answered(checkpoint: Path, job_ids: list[str]) -> set[str]:
    """Return the ids that are answered in a checkpoint."""
    with Checkpoint(checkpoint) as record:
        return {job_id for job_id in job_ids if job_id in record}


def wait_for_results(file: Path) -> None:
    """Wait until a good part of a file of results has been written."""
    while not file.exists() or file.stat().st_size < 20_000:
        time.sleep(0.01)


def test_outcomes_go_to_the_file_alone(job_ids: list[str], tmp_path: Path) -> None:
    """Each outcome is a line of the file, which its owner alone can read, and nowhere else."""
    file = tmp_path / "results"
    done = poll(*job_ids[:3], "--results", str(file))
    assert (done.returncode, done.stdout) == (0, b"")
    assert sorted(ids_in(file)) == sorted(job_ids[:3])
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_killed_run_leaves_no_torn_line(job_ids: list[str], tmp_path: Path) -> None:
    """The line comes before the answer; what a kill cut off is gone when the run is resumed."""
    file, checkpoint = tmp_path / "results", tmp_path / "checkpoint"
    arguments = [*job_ids, "--results", str(file), "--checkpoint", str(checkpoint)]
    with start(SCRIPT, "poll", *arguments, stderr=subprocess.DEVNULL) as killed:
        wait_for_results(file)
        killed.kill()
    text = file.read_text()
    first = [json.loads(line)["job_id"] for line in text.splitlines(True) if line.endswith("\n")]
    done = answered(checkpoint, job_ids)
    assert done <= set(first)
    assert len(set(first) - done) <= 1
    with file.open("a") as torn:
        torn.write('{"schema": 1, "kind": "outcome", "job_id": "av')
    assert poll(*arguments).returncode == 0
    assert set(ids_in(file)) == set(job_ids)
    assert len(ids_in(file)) <= JOBS + 1


def test_a_disk_that_fills_up_loses_nothing(job_ids: list[str], tmp_path: Path) -> None:
    """The line that does not fit is removed, and a rerun continues with exactly the others."""
    file, checkpoint = tmp_path / "results", tmp_path / "checkpoint"
    arguments = [*job_ids, "--results", str(file), "--checkpoint", str(checkpoint)]
    file.write_text(EARLIER * (TAKEN // len(EARLIER)))
    stopped = poll(*arguments, limit=DISK)
    assert stopped.returncode == 1
    assert b"File too large: '" + str(file).encode() in stopped.stderr
    assert stopped.stderr.endswith(b"run the same command to resume\n")
    first = ids_in(file)
    assert 0 < len(first) < JOBS
    assert set(first) == answered(checkpoint, job_ids)
    assert poll(*arguments).returncode == 0
    assert sorted(ids_in(file)) == sorted(job_ids)


@pytest.mark.parametrize(
    "content", [b"some notes\n", b"{", b'{"a": 1}\n', b"[]\n", b"{}", b"\0" * 10, b"\n"]
)
def test_a_file_of_somebody_else_is_refused(
    job_ids: list[str], tmp_path: Path, content: bytes
) -> None:
    """A file that does not begin with a result is left as it is."""
    file = tmp_path / "results"
    file.write_bytes(content)
    done = poll(job_ids[0], "--results", str(file))
    assert done.returncode == 1
    error = f"error: {file}: this is not a file of results; pass another one\n"
    assert done.stderr.decode().endswith(error)
    assert file.read_bytes() == content


def test_a_checkpoint_is_no_file_of_results(job_ids: list[str], tmp_path: Path) -> None:
    """The same file for both is refused."""
    both = str(tmp_path / "both")
    done = poll(job_ids[0], "--results", both, "--checkpoint", both)
    assert b"both: this is not a file of results" in done.stderr
    assert done.returncode == 1


def test_what_is_no_regular_file_is_refused(job_ids: list[str], tmp_path: Path) -> None:
    """A directory and a named pipe are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    assert poll(job_ids[0], "--results", str(tmp_path)).returncode == 2
    done = poll(job_ids[0], "--results", str(tmp_path / "pipe"))
    assert done.returncode == 1
    assert b"pipe: this is not a regular file" in done.stderr
    with pytest.raises(IsADirectoryError), results.open_results(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b'{"schema": 1, "ki', b""),
        (b'{"schema": 1, "kind": "outcome", "job_id": "a', b""),
        (b'{"schema":1,"kind":"outcome"}\n{"sch', b'{"schema":1,"kind":"outcome"}\n'),
        (
            b'{"schema": 1, "kind": "outcome"}\n' + b"x" * 200_000,
            b'{"schema": 1, "kind": "outcome"}\n',
        ),
        (b'{"schema": 1, "kind": "outcome' + b"x" * 200_000, b""),
    ],
)
def test_a_last_line_that_was_cut_off_is_removed(
    tmp_path: Path, content: bytes, kept: bytes
) -> None:
    """Whatever the length of the last line, it is removed if it has no end."""
    file = tmp_path / "results"
    file.write_bytes(content)
    with results.open_results(file):
        pass
    assert file.read_bytes() == kept


def test_a_last_line_that_is_whole_is_ended(tmp_path: Path) -> None:
    """A result of which only the line end is missing, as after an editor, is kept."""
    file = tmp_path / "results"
    line = b'{"schema": 1, "kind": "outcome", "job_id": "a"}'
    for before in (b"", line + b"\n"):
        file.write_bytes(before + line)
        with results.open_results(file):
            pass
        assert file.read_bytes() == before + line + b"\n"


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    """The second is refused, and may write when the first has ended."""
    file = tmp_path / "results"
    refused = pytest.raises(ConfigurationError, match="results: another process is writing to it")
    with results.open_results(file), refused, results.open_results(file):
        pass
    with results.open_results(file):
        pass


def test_without_locks_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be locked they are used without."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with results.open_results(tmp_path / "results"), results.open_results(tmp_path / "results"):
        pass


def test_an_interrupted_run_is_resumed_with_its_file(job_ids: list[str], tmp_path: Path) -> None:
    """After Ctrl-C the same command gives the file exactly one line for each id."""
    file, checkpoint = tmp_path / "results", tmp_path / "checkpoint"
    arguments = [*job_ids, "--results", str(file), "--checkpoint", str(checkpoint)]
    with start(SCRIPT, "poll", *arguments, stderr=subprocess.PIPE) as process:
        wait_for_results(file)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert 0 < len(ids_in(file)) < JOBS
    assert run("poll", *arguments).exit_code == 0
    assert sorted(ids_in(file)) == sorted(job_ids)
