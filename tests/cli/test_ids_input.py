"""Ids from arguments, files and standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from io import BufferedWriter, FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import SCRIPT, Service, parsed, serving
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError
from ci_live_audit.cli import ids

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
