"""Ids from arguments, files and standard input."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from io import BufferedWriter, FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from command_line import SCRIPT, Service, parsed, serving
from hypothesis import given
from hypothesis import strategies as st
from terminal import PATIENCE, start

from ci_live_audit import Checkpoint, ConfigurationError
from ci_live_audit.cli import ids
from ci_live_audit.testing import frame

pytestmark = pytest.mark.waits  # for pipes


@pytest.fixture
def service() -> Iterator[Service]:
    """Serve an emulator with some jobs that have ended."""
    with serving() as service:
        for number in range(4):
            service.emulator.add_job(f"av{number}", duration=0)
        yield service


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileIO]:
    """Replace standard input by a pipe and give its writing end."""
    before = set(threading.enumerate())
    end, other = os.pipe()
    with os.fdopen(end, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        with FileIO(other, "w") as writer:
            yield writer
        for thread in set(threading.enumerate()) - before:
            thread.join(0.2)  # it has read everything, or waits for its batches to be taken


def read(content: bytes, folder: Path) -> list[str]:
    """Read the ids of a file with this content."""
    path = folder / "ids"
    path.write_bytes(content)
    return ids.read([], [path])


# Files

JOB_IDS = st.lists(st.from_regex(r"\A[A-Za-z0-9_-]{1,128}\Z"), max_size=20)
NOTHING = st.sampled_from(["", " ", "\t", "# no id", "  # no id", "#", '# {"job_id": 1}'])


@given(
    JOB_IDS,
    st.data(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
)
def test_ids_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    job_ids: list[str],
    data: st.DataObject,
    end: str,
    mark: str,
    whole: bool,
) -> None:
    """Ids are read back, plain or as JSON, between comments and blank lines."""
    lines: list[str] = []
    for job_id in job_ids:
        lines += data.draw(st.lists(NOTHING, max_size=1))
        line = {"kind": "outcome", "job_id": job_id, "job": {"job_id": "another"}}
        lines.append(data.draw(st.sampled_from([job_id, f"  {job_id} ", json.dumps(line)])))
    text = mark + end.join(lines) + (end if whole else "")
    assert read(text.encode(), tmp_path_factory.getbasetemp()) == job_ids


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"av1", ["av1"]),
        (b"av1\nav2", ["av1", "av2"]),
        (b"av1\r\nav2\r\n", ["av1", "av2"]),
        (b"\xef\xbb\xbfav1\n", ["av1"]),
        (b"\xef\xbb\xbf# comment\nav1\n", ["av1"]),
        (b'\xef\xbb\xbf{"job_id": "av1"}\n', ["av1"]),
        (b"# one\n\n  av1\t\n#two\nav1\n", ["av1", "av1"]),
        (b'{"job_id": "av1"}\nav2\n{"kind": "job", "job_id": "av3"}', ["av1", "av2", "av3"]),
        (b"av\xff1\n", ["av\ufffd1"]),
    ],
)
def test_the_content_of_a_file(tmp_path: Path, content: bytes, found: list[str]) -> None:
    """A file has one id a line; byte order marks, blank lines and comments are skipped."""
    assert read(content, tmp_path) == found


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"{",
        b'{"job_id": 1}',
        b'{"job_id": null}',
        b'{"id": "av1"}',
        b'{"job_id": "av1"',
        b'{"job_id": "av1"} x',
        b'{"a":' + b"[" * 100_000,
        b'{"\xff": 1}',
    ],
)
def test_json_without_an_id_is_located(tmp_path: Path, line: bytes) -> None:
    """JSON without an id is reported with its file and line number."""
    with pytest.raises(ConfigurationError) as caught:
        read(b"av1\n\n# three\n" + line + b"\nav5\n", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'ids'}, line 4: JSON without a job_id"


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-16-be-sig", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_the_encodings_of_windows(tmp_path: Path, encoding: str, end: str, last: bool) -> None:
    """What PowerShell and editors save is read, with and without a byte order mark."""
    mark = "\ufeff" if encoding.endswith("be-sig") else ""
    text = mark + end.join(["# \u623f\u0a0a", "av1", '{"job_id": "av\u623f"}', "", "av2"])
    content = (text + end * last).encode(encoding.removesuffix("-sig") if mark else encoding)
    assert read(content, tmp_path) == ["av1", "av\u623f", "av2"]


def test_files_that_were_joined(tmp_path: Path) -> None:
    """The marks of files that were joined into one are no part of an id."""
    assert read(2 * "av1\r\n".encode("utf-8-sig"), tmp_path) == ["av1", "av1"]
    assert read("\ufeffav1\n\ufeffav2\n".encode("utf-16"), tmp_path) == ["av1", "av2"]


#: What is no list of ids, and what it looks like.
SHAPES = [
    ('["av1", "av2"]\n', "a JSON array"),
    ('[\n  "av1",\n  "av2"\n]\n', "a JSON array"),
    ('[{"job_id": "av1"}]', "a JSON array"),
    ("id,name\nav1,one\nav2,two\n", "a table (CSV)"),
    ("\ufeffJobId;Name\r\nav1;one\r\n", "a table (CSV)"),
    ("job_id\tname\nav1\tone\n", "a table (CSV)"),
    ("sep=;\nav1;one\n", "a table (CSV)"),
    ('"job_id","name"\n"av1","one"\n', "a table (CSV)"),
    ('"job_id"\n"av1"\n"av2"\n', "quoted text, as in CSV"),
    ("'av1'\n'av2'\n", "quoted text, as in CSV"),
    ('<?xml version="1.0"?>\n<Response>\n', "XML or HTML"),
    ("job_id\nav1\n", "a table (CSV)"),
    ("ID\nav1\n", "a table (CSV)"),
    ("JobId\n-----\nav1\n", "a table (CSV)"),
    ("av1  Success  Porn\nav2  Failed\n", "a table (CSV)"),
    ("# ids\n\nav1,av2,av3\n", "a table (CSV)"),
    ("PK\x03\x04\x14\x00\n\n", "no text"),
    ("\x1f\ufffd\x08\x00\n", "no text"),
]


@pytest.mark.parametrize(("text", "looks_like"), SHAPES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_is_no_list_of_ids_is_named_once(
    tmp_path: Path, text: str, looks_like: str, encoding: str
) -> None:
    """A table or an array is one error, which says what to pass."""
    with pytest.raises(ConfigurationError) as caught:
        read(text.encode(encoding), tmp_path)
    number = 3 if text.startswith("# ids") else 1
    assert str(caught.value) == (
        f"{tmp_path / 'ids'}, line {number}: this looks like {looks_like}; expected one job id "
        "a line, or JSON Lines with a job_id"
    )


def test_arguments_come_before_files(tmp_path: Path) -> None:
    """Ids are returned in the order of arguments, then files."""
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(f"of-{path.name}\n")
    assert ids.read(["x", "y"], paths) == ["x", "y", "of-a", "of-b"]


def test_files_and_arguments_of_a_command(service: Service, tmp_path: Path) -> None:
    """Each job has one outcome, even if its id is given more than once."""
    path = tmp_path / "ids"
    path.write_text('av1\n{"job_id": "av2"}\nav1\n')
    result = service.run("poll", "av0", "--file", str(path), "-f", str(path))
    assert result.exit_code == 0
    assert sorted(line["job_id"] for line in parsed(result)) == ["av0", "av1", "av2"]


def test_an_invalid_id_does_not_affect_the_others(service: Service, tmp_path: Path) -> None:
    """An invalid id fails without a request; the others are followed."""
    path = tmp_path / "ids"
    path.write_bytes(b"av0\nav\xff\n../x\nav1\n")
    result = service.run("poll", "--file", str(path))
    assert result.exit_code == 1
    outcomes = {line["job_id"]: line["error"] for line in parsed(result)}
    assert outcomes.keys() == {"av0", "av\ufffd", "../x", "av1"}
    assert [job_id for job_id, error in outcomes.items() if error is None] == ["av0", "av1"]
    assert len(service.emulator.arrivals) == 2


def test_an_invalid_file_is_one_line(service: Service, tmp_path: Path) -> None:
    """An invalid file is reported in one line before anything is sent."""
    path = tmp_path / "ids"
    path.write_text("av1\n{}\n")
    result = service.run("poll", "--file", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {path}, line 2: JSON without a job_id\n"
    assert service.emulator.arrivals == []


def test_an_unreadable_file_is_one_line(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read is reported in one line."""
    path = tmp_path / "ids"
    path.write_text("av1\n")

    open_ = Path.open

    def broken(file: Path, *args: Any, **options: Any) -> Any:
        if file == path:
            raise OSError(5, "Input/output error", str(path))
        return open_(file, *args, **options)

    monkeypatch.setattr(Path, "open", broken)
    result = service.run("poll", "--file", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: [Errno 5] Input/output error: '{path}'\n"


# Standard input


async def test_ids_are_yielded_as_they_arrive(pipe: FileIO) -> None:
    """Ids on standard input are yielded as they arrive, before the end of the input."""
    reading = ids.read_input(["first"])
    assert await anext(reading) == "first"
    pipe.write(b"av1\nav2\nav")
    assert [await anext(reading), await anext(reading)] == ["av1", "av2"]
    pipe.write(b"3\n")
    assert await anext(reading) == "av3"
    pipe.write(b"\xef\xbb")
    pipe.write(b"\xbf# half a mark\r\nlast")
    pipe.close()
    assert [job_id async for job_id in reading] == ["last"]


async def test_many_ids_pass_a_pipe(pipe: FileIO) -> None:
    """More ids than a pipe holds are yielded in order."""
    expected = [f"av{number:030}" for number in range(20_000)]

    def write() -> None:
        with BufferedWriter(pipe) as stream:
            stream.write("\n".join(expected).encode())

    writer = threading.Thread(target=write)
    writer.start()
    assert [job_id async for job_id in ids.read_input([])] == expected
    writer.join()


async def test_an_invalid_line_of_standard_input_is_located(pipe: FileIO) -> None:
    """Its number is reported after the ids of the lines before were yielded."""
    reading = ids.read_input([])
    pipe.write(b"av1\n\n")
    assert await anext(reading) == "av1"
    pipe.write(b"# three\n{}\n")
    with pytest.raises(ConfigurationError, match="standard input, line 4: JSON without a job_id"):
        await anext(reading)
    pipe.close()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
async def test_any_encoding_arrives_in_any_pieces(pipe: FileIO, encoding: str) -> None:
    """Ids on standard input may arrive byte by byte, and are yielded at the end of a line."""
    reading = ids.read_input([])
    for byte in "av1\r\n".encode(encoding):
        pipe.write(bytes([byte]))
    assert await anext(reading) == "av1"
    more = "\ufeffav2\u0a0a\r\nlast".encode(encoding.removesuffix("-sig"))
    for byte in more.removeprefix(codecs.BOM_UTF16_LE):
        pipe.write(bytes([byte]))
    pipe.close()
    assert [job_id async for job_id in reading] == ["av2\u0a0a", "last"]


@pytest.mark.parametrize(("text", "looks_like"), SHAPES[1:7:2])
def test_what_is_no_list_of_ids_costs_no_request(
    service: Service, tmp_path: Path, text: str, looks_like: str
) -> None:
    """Nothing of it is sent, and nothing gets into the checkpoint."""
    path = tmp_path / "checkpoint"
    result = service.run("poll", "--checkpoint", str(path), input=text.encode())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("error: ") == 1
    assert f"this looks like {looks_like}; expected one job id a line" in result.stderr
    with Checkpoint(path) as checkpoint:
        assert (list(checkpoint.open), checkpoint.answered) == ([], 0)
    assert service.emulator.arrivals == []


async def test_the_last_line_needs_no_newline(pipe: FileIO) -> None:
    """The last line needs no newline, and its number is right."""
    pipe.write(b"av1\n{")
    pipe.close()
    reading = ids.read_input([])
    assert await anext(reading) == "av1"
    with pytest.raises(ConfigurationError, match="standard input, line 2"):
        await anext(reading)


async def test_leaving_the_ids_early(pipe: FileIO) -> None:
    """A caller may stop reading ids before the input ends."""
    reading: AsyncGenerator[str, None] = ids.read_input([])
    pipe.write(b"av1\n")
    assert await anext(reading) == "av1"
    await reading.aclose()
    pipe.write(b"av2\n")
    pipe.close()


@pytest.mark.parametrize("arguments", [["--file", "-"], [], ["av3", "-f", "-"]])
def test_a_slow_pipe(service: Service, arguments: list[str]) -> None:
    """Outcomes are printed while the pipe is still open."""
    with subprocess.Popen(
        [SCRIPT, "poll", *arguments],
        env={**os.environ, **service.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        expected = ["av0", "av1"] if "av3" not in arguments else ["av3"]
        if "av3" not in arguments:
            process.stdin.write("av0\n# and\n\nav1\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline())["job_id"] for _ in expected]
        assert sorted(found) == expected
        process.stdin.write('{"job_id": "av2"}')
        rest, _ = process.communicate(timeout=60)
        assert [json.loads(line)["job_id"] for line in rest.splitlines()] == ["av2"]
        assert process.returncode == 0


def test_standard_input_besides_files(service: Service, tmp_path: Path) -> None:
    """Ids of arguments, files and standard input are all followed."""
    path = tmp_path / "ids"
    path.write_text("av1\n")
    result = subprocess.run(
        [SCRIPT, "poll", "av0", "--file", path, "--file", "-"],
        env={**os.environ, **service.environ},
        input="av2\nav3",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0
    assert sorted(line["job_id"] for line in parsed(result)) == ["av0", "av1", "av2", "av3"]


# What was read off standard input is in the checkpoint

MANY = 1000


@attrs.frozen
class Piped:
    """Ids in a pipe, of which both ends are open."""

    ids: list[str]
    end: int
    other: int

    def left(self) -> list[str]:
        """Return the lines that nobody has read."""
        os.set_blocking(self.end, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self.end, 1_000_000).decode().splitlines()
        return []


@pytest.fixture
def piped(service: Service) -> Iterator[Piped]:
    """Put the ids of many jobs into a pipe; those of the first ten have ended."""
    ids = [
        service.emulator.add_job(f"av{number:032}", duration=0 if number < 10 else math.inf)
        for number in range(MANY)
    ]
    end, other = os.pipe()
    os.write(other, "".join(f"{job_id}\n" for job_id in ids).encode())
    yield Piped(ids, end, other)
    for number in (end, other):
        os.close(number)


def started(service: Service, piped: Piped, *arguments: str, **streams: Any) -> Any:
    """Follow the ids of a pipe in a process of its own, five a second."""
    environ = {**os.environ, **service.environ, "CI_LIVE_AUDIT_RATE": "5"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return start(SCRIPT, "poll", *arguments, stdin=piped.end, env=environ, **streams)


def known_to(path: Path, job_ids: list[str]) -> list[str]:
    """Return the ids that a checkpoint knows."""
    with Checkpoint(path) as checkpoint:
        return [job_id for job_id in job_ids if job_id in checkpoint or job_id in checkpoint.open]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_an_interrupted_run_had_read_is_in_its_checkpoint(
    service: Service, piped: Piped, tmp_path: Path, name: str
) -> None:
    """Each id is either in the checkpoint or still in the pipe, and the rest is followed later."""
    path = tmp_path / "checkpoint"
    with started(service, piped, "--checkpoint", str(path)) as process:
        assert process.stdout.readline()
        process.send_signal(getattr(signal, name))
        assert process.wait(PATIENCE) == 130
        summary, hint = process.stderr.read().decode().splitlines()[-2:]
    known = known_to(path, piped.ids)
    assert known + piped.left() == piped.ids
    with Checkpoint(path) as checkpoint:
        open_ = set(checkpoint.open)
        assert f", {len(open_):,} open; " in summary
    assert hint == "run the same command to resume"
    for job_id in piped.ids:
        service.emulator.jobs[job_id].cancelled = 0.0
    with Path(os.devnull).open() as nothing:
        again = subprocess.run(
            [SCRIPT, "poll", "--checkpoint", path],
            env={**os.environ, **service.environ},
            stdin=nothing,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            text=True,
        )
    assert {line["job_id"] for line in parsed(again)} == open_


def test_what_a_failed_run_had_read_is_in_its_checkpoint(
    service: Service, piped: Piped, tmp_path: Path
) -> None:
    """If the results cannot be written, the ids that were read are in the checkpoint."""
    path = tmp_path / "checkpoint"
    with (
        Path("/dev/full").open("w") as full,
        started(service, piped, "--checkpoint", str(path), stdout=full) as process,
    ):
        assert process.wait(PATIENCE) == 1
    assert known_to(path, piped.ids) + piped.left() == piped.ids


def test_ids_around_an_invalid_line_are_in_the_checkpoint(
    service: Service, piped: Piped, tmp_path: Path
) -> None:
    """An invalid line ends the run, but not before the ids that were read with it are noted."""
    path = tmp_path / "checkpoint"
    lines = f"{piped.ids[0]}\n{{}}\n{piped.ids[1]}\n[]\n{{}}\n"
    result = service.run("poll", "--checkpoint", str(path), input=lines)
    assert result.exit_code == 1
    assert "error: standard input, line 2: JSON without a job_id\n" in result.stderr
    assert result.stderr.endswith("run the same command to resume\n")
    assert known_to(path, piped.ids) == piped.ids[:2]


async def test_a_piece_ends_with_a_line(pipe: FileIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is cut in two between what was read and what was left in the pipe."""
    monkeypatch.setattr(ids, "PIECE", 7)
    noted: list[str] = []
    reading = ids.read_input([], noted.append)
    pipe.write(b"av1\nav2\nav3\nav4\nav5\nav6\nav7\nav8")
    assert await anext(reading) == "av1"
    await reading.aclose()
    assert noted == [f"av{number}" for number in range(1, len(noted) + 1)]
    assert sys.stdin.buffer.read(4 * (7 - len(noted)) + 3)[:2] == b"av"


async def test_a_piece_of_utf_16_ends_with_a_line(
    pipe: FileIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of two bytes a character is as whole."""
    monkeypatch.setattr(ids, "PIECE", 7)
    noted: list[str] = []
    reading = ids.read_input([], noted.append)
    text = "".join(f"av{number}\r\n" for number in range(1, 9))
    pipe.write(text.encode("utf-16-le"))
    assert await anext(reading) == "av1"
    await reading.aclose()
    pipe.close()
    left = sys.stdin.buffer.read().decode("utf-16-le")
    assert "".join(f"{job_id}\r\n" for job_id in noted) + left == text


@pytest.mark.parametrize(("piece", "line"), [(2, 256), (6, 3), (3, 1), (1, 1)])
async def test_lines_longer_than_pieces(
    pipe: FileIO, monkeypatch: pytest.MonkeyPatch, piece: int, line: int
) -> None:
    """A line that is not at an end nearby is put together from several pieces."""
    monkeypatch.setattr(ids, "PIECE", piece)
    monkeypatch.setattr(ids, "LINE", line)
    pipe.write(b"av1\nav23456789\nav3\n")
    pipe.close()
    assert [one async for one in ids.read_input([])] == ["av1", "av23456789", "av3"]


async def test_a_line_that_is_complete_at_the_end_is_noted(pipe: FileIO) -> None:
    """The end of a line that comes while others wait is read before the end of the run."""
    noted: list[str] = []
    reading = ids.read_input([], noted.append)
    pipe.write(b"av1\nav")
    assert await anext(reading) == "av1"
    pipe.write(b"2\nav3\n")
    await reading.aclose()
    assert noted in (["av1", "av2"], ["av1", "av2", "av3"])


async def test_a_last_line_without_an_end_is_noted(pipe: FileIO) -> None:
    """The last line needs no line end to be noted when the input has ended."""
    noted: list[str] = []
    reading = ids.read_input([], noted.append)
    pipe.write(b"av1\nav2")
    pipe.close()
    assert await anext(reading) == "av1"
    await reading.aclose()
    assert noted == ["av1", "av2"]


async def test_ids_that_cannot_be_noted_are_noted_later(pipe: FileIO) -> None:
    """An id for which there is no room is tried again at the end, and then the error is raised."""
    noted: list[str] = []
    room = False

    def note(job_id: str) -> None:
        if not room:
            raise OSError(28, "No space left on device")
        noted.append(job_id)

    pipe.write(b"av1\nav2\n")
    reading = ids.read_input([], note)
    assert await anext(reading) == "av1"
    with pytest.raises(OSError, match="No space left"):
        await reading.aclose()
    pipe.write(b"av3\nav4\n")
    reading = ids.read_input([], note)
    assert await anext(reading) == "av3"
    room = True
    await reading.aclose()
    assert noted == ["av3", "av4"]


async def test_reading_ahead_is_bounded(pipe: FileIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two pieces are read before their ids are taken."""
    monkeypatch.setattr(ids, "PIECE", 8)
    noted: list[str] = []
    reading = ids.read_input([], noted.append)
    pipe.write(b"av1\nav2\n" * 100)
    assert await anext(reading) == "av1"
    await asyncio.sleep(0.05)
    assert len(noted) <= 4
    await reading.aclose()


async def test_an_input_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a read is raised where the ids are consumed."""
    number = os.open(os.curdir, os.O_RDONLY)
    stream = SimpleNamespace(fileno=lambda: number, read=lambda size: os.read(number, size))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    with pytest.raises(IsADirectoryError):
        await anext(ids.read_input([]))
    os.close(number)


async def test_a_read_that_blocks_does_not_hold_up_the_end(
    pipe: FileIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a read waits, as on Windows, the end of a run does not wait for it."""
    monkeypatch.setattr(ids, "PATIENCE", 0.01)
    stream = sys.stdin.buffer

    def fileno() -> int:
        raise OSError("not a socket")

    reads = threading.Semaphore(0)

    def read(_: int) -> bytes:
        reads.release()
        return stream.read(4)

    alone = SimpleNamespace(read=read, fileno=fileno)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=alone))
    reading = ids.read_input([])
    pipe.write(b"av1\n")
    assert await anext(reading) == "av1"
    reads.acquire()
    reads.acquire()  # the second read has begun, and waits
    await reading.aclose()
    pipe.write(b"av2\n")


# All commands

#: Commands that take ids, and options to end them soon.
COMMANDS = {
    "query": [],
    "cancel": [],
    "wait": ["--interval", "0.05"],
    "watch": ["--interval", "0.05", "--all"],
    "poll": ["--interval", "0.05"],
    "report": ["-o", "-"],
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_takes_ids_in_every_way(
    service: Service, command: str, tmp_path: Path
) -> None:
    """Arguments, a file with odd lines, standard input by itself or as a dash, all together."""
    odd = tmp_path / "ids.txt"
    odd.write_bytes(b"\xef\xbb\xbf# of the night\r\n\r\n  av1 \r\nav2\t\r\nav1\r\n")
    lines = '{"kind": "submitted", "job_id": "av2"}\nav3'
    for arguments, text, expected in (
        (["av0", " av1 "], "", {"av0", "av1"}),
        (["--file", str(odd)], "", {"av1", "av2"}),
        ([], lines, {"av2", "av3"}),
        (["av0", "-f", str(odd), "-f", "-"], lines, {"av0", "av1", "av2", "av3"}),
    ):
        service.emulator.arrivals.clear()
        result = service.run(command, *COMMANDS[command], *arguments, input=text)
        assert result.exit_code == (1 if command == "cancel" else 0), result.output
        assert {
            arrival.path.rpartition("/")[2] for arrival in service.emulator.arrivals
        } == expected
        if command not in {"watch", "cancel"}:  # which ask again
            assert len(service.emulator.arrivals) == len(expected)


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no job ids there; expected one job id a line, or JSON Lines with a job_id"),
        (b"\n# nothing\n", "no job ids there"),
        (b"rtmp://live.example.com/app/room7\n", "URLs of streams, which submit and moderate"),
        (b"av1,av2,av3\n", "a table (CSV)"),
        (b"job_id,state\nav1,Success\n", "a table (CSV)"),
        (b"\x89PNG\r\n\x1a\n", "no text"),
        (b"<html>", "XML or HTML"),
        (b'["av1"]', "a JSON array"),
    ],
)
@pytest.mark.parametrize("way", ["file", "input"])
def test_what_holds_no_ids_is_told(
    service: Service, command: str, content: bytes, told: str, way: str, tmp_path: Path
) -> None:
    """An error says what it looks like, where, and what is expected; nothing is sent."""
    file = tmp_path / "ids"
    file.write_bytes(content)
    place = str(file) if way == "file" else "standard input"
    arguments = ["--file", str(file) if way == "file" else "-"]
    text = None if way == "file" else content
    result = service.run(command, *COMMANDS[command], *arguments, input=text)
    assert result.exit_code in {1, 2}
    (line,) = [one for one in result.stderr.splitlines() if one.lower().startswith("error: ")]
    assert place in line
    assert told in line
    assert service.emulator.arrivals == []


@pytest.mark.parametrize("command", ["moderate", "submit"])
def test_what_holds_no_urls_is_told(service: Service, command: str, tmp_path: Path) -> None:
    """As of ids; what comes besides is enough."""
    file = tmp_path / "urls"
    file.touch()
    for arguments in (["--file", str(file)], ["--file", "-"]):
        result = service.run(command, *arguments, input="")
        assert result.exit_code == 2
        assert "no URLs there; expected one URL a line" in result.stderr
        both = service.run(command, "rtmp://a/b", *arguments, "--dry-run", input="")
        assert both.exit_code == 0
    assert service.emulator.arrivals == []


@pytest.mark.parametrize("command", ["watch", "poll"])
def test_with_a_checkpoint_no_ids_will_do(service: Service, command: str, tmp_path: Path) -> None:
    """It may have some of its own."""
    file = tmp_path / "ids"
    file.touch()
    checkpoint = ["--checkpoint", str(tmp_path / "checkpoint")]
    for arguments in (["--file", str(file)], []):
        result = service.run(command, *checkpoint, *arguments, input="")
        assert result.exit_code == 0, result.stderr
    dry = service.run(command, *checkpoint, "--dry-run", input="")
    assert dry.exit_code == 0


def test_a_dry_run_sends_nothing(service: Service) -> None:
    """`watch` and `query` show what they would ask first."""
    for command in ("watch", "query"):
        result = service.run(command, "--dry-run", input="av1\nav2\n")
        assert result.exit_code == 0
        assert result.stderr.count(f"GET {service.url}/video/auditing/av") == 2
    assert service.emulator.arrivals == []


def test_several_jobs_are_waited_for(service: Service) -> None:
    """Each is shown when it has ended; the worst of all is the exit code."""
    service.emulator.add_job("flagged", duration=0, script=[frame(0, "Porn")])
    service.emulator.add_job("endless", duration=1e9)
    fast = ["--interval", "0.05", "--timeout", "0.3"]
    result = service.run("wait", "av0", "av1", *fast)
    assert (result.exit_code, result.stderr) == (0, "waiting for 2 jobs to end\n")
    assert sorted(line["job_id"] for line in parsed(result)) == ["av0", "av1"]
    late = service.run("wait", "av0", "endless", *fast)
    assert late.exit_code == 4
    assert [line["state"] for line in parsed(late)] == ["Success", "Submitted"]
    assert service.run("wait", "missing", "endless", *fast).exit_code == 1
    assert service.run("wait", "missing", "endless", "flagged", *fast).exit_code == 3
