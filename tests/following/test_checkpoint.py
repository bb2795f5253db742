"""The checkpoint: no id is lost and none is answered twice, however a run ends."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import children
from hypothesis import given
from hypothesis import strategies as st
from proofs import no_file_above

from ci_live_audit import Checkpoint, ConfigurationError
from ci_live_audit._files import _files

HEADER = b'{"format": "ci_live_audit.checkpoint", "version": 2}\n'
OLD = HEADER.replace(b"2", b"1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.checkpoint"


@pytest.fixture
def filled(path: Path) -> bytes:
    """Write a file of three ids, one of them answered, and return its bytes."""
    with Checkpoint(path) as checkpoint:
        checkpoint.take("a")
        checkpoint.take("b")
        checkpoint.answer("a")
        checkpoint.take("c")
    return path.read_bytes()


def state(path: Path) -> tuple[tuple[str, ...], int]:
    """Open a checkpoint and return its open ids and the number of answered ones."""
    with Checkpoint(path) as checkpoint:
        return checkpoint.open, checkpoint.answered


@contextlib.contextmanager
def running(program: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program with the path of a file, and give the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline()


# The file


def test_a_new_file_has_a_header(path: Path) -> None:
    """A new checkpoint says what it is as soon as it is made."""
    with Checkpoint(str(path)) as checkpoint:
        assert path.read_bytes() == HEADER
        assert checkpoint.path == path
        assert checkpoint.open == ()
        assert checkpoint.answered == 0


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    """An empty file gets the header."""
    path.touch()
    assert state(path) == ((), 0)
    assert path.read_bytes() == HEADER


def test_the_lines_are_as_documented(filled: bytes) -> None:
    """Each event is a JSON object on a line of its own, in order; ids, and nothing else."""
    assert filled == HEADER + (
        b'{"taken": "a"}\n{"taken": "b"}\n{"answered": "a"}\n{"taken": "c"}\n'
    )


def test_each_line_is_written_at_once(path: Path) -> None:
    """An entry is in the file before the call returns."""
    checkpoint = Checkpoint(path)
    checkpoint.take("a")
    assert path.read_bytes().endswith(b'{"taken": "a"}\n')
    checkpoint.answer("a")
    assert path.read_bytes().endswith(b'{"answered": "a"}\n')
    checkpoint.close()


def test_ids_are_open_until_they_are_answered(path: Path) -> None:
    """Open ids are those taken up and not answered, in order."""
    with Checkpoint(path) as checkpoint:
        for job_id in "cab":
            checkpoint.take(job_id)
        assert list(checkpoint.open) == ["c", "a", "b"]
        assert "a" not in checkpoint
        checkpoint.answer("a")
        assert list(checkpoint.open) == ["c", "b"]
        assert "a" in checkpoint
        assert checkpoint.answered == 1
    assert state(path) == (("c", "b"), 1)


def test_an_id_is_noted_once(path: Path) -> None:
    """A continued run that takes up open ids writes nothing."""
    with Checkpoint(path) as checkpoint:
        checkpoint.take("a")
    before = path.read_bytes()
    with Checkpoint(path) as checkpoint:
        checkpoint.take("a")
    assert path.read_bytes() == before


def test_an_id_may_be_answered_without_being_taken(path: Path) -> None:
    """An answer alone is enough."""
    with Checkpoint(path) as checkpoint:
        checkpoint.answer("a")
        assert "a" in checkpoint
    assert state(path) == ((), 1)


def test_an_answered_id_is_not_opened_by_the_file(path: Path) -> None:
    """A line that takes up an answered id changes nothing."""
    path.write_bytes(HEADER + b'{"answered": "a"}\n{"taken": "a"}\n')
    assert state(path) == ((), 1)


def test_reopening_goes_on_where_it_ended(path: Path, filled: bytes) -> None:
    """The file stays as it is, byte for byte, and new lines are appended."""
    with Checkpoint(path) as checkpoint:
        assert path.read_bytes() == filled
        assert checkpoint.open == ("b", "c")
        assert "a" in checkpoint
        checkpoint.answer("c")
    assert path.read_bytes() == filled + b'{"answered": "c"}\n'


def test_leaving_closes_the_file(path: Path) -> None:
    """The file is closed at the end of the block, also after an error."""
    with Checkpoint(path) as checkpoint:
        pass
    with pytest.raises(ValueError, match="closed"):
        checkpoint.take("a")
    with pytest.raises(KeyError), Checkpoint(path) as checkpoint:
        raise KeyError
    with pytest.raises(ValueError, match="closed"):
        checkpoint.take("a")
    checkpoint.close()
    assert path.read_bytes() == HEADER


ODD = [
    "",
    " ",
    "\n",
    "\r\n",
    '"taken"',
    "back\\slash",
    "nul\0",
    "\u2028",
    "\x85",
    "新しい",
    "\U0001f3a5",
    "\ud800",
    '{"answered": "a"}\n{"answered": "b"}\n',
    "x" * 100_000,
]


@pytest.mark.parametrize("job_id", ODD, ids=lambda job_id: ascii(job_id[:12]))
def test_odd_ids_are_kept(path: Path, job_id: str) -> None:
    """Any id takes one line of ASCII and comes back unchanged."""
    with Checkpoint(path) as checkpoint:
        checkpoint.take(job_id)
        checkpoint.take("other")
    lines = path.read_bytes().decode("ascii").split("\n")
    assert [json.loads(line) for line in lines[1:-1]] == [{"taken": job_id}, {"taken": "other"}]
    with Checkpoint(path) as checkpoint:
        assert checkpoint.open == (job_id, "other")
        checkpoint.answer(job_id)
    with Checkpoint(path) as checkpoint:
        assert job_id in checkpoint
        assert checkpoint.open == ("other",)


# An id, whether it is answered now, and whether the file is opened again then.
events = st.lists(st.tuples(st.sampled_from("abcde") | st.text(), st.booleans(), st.booleans()))


@given(events)
def test_any_run_survives(
    tmp_path_factory: pytest.TempPathFactory, course: list[tuple[str, bool, bool]]
) -> None:
    """Whenever the file is opened again, open and answered ids are as before, in order."""
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    checkpoint = Checkpoint(path)
    open_: list[str] = []
    answered: set[str] = set()
    for job_id, answers, reopens in course:
        if answers:
            checkpoint.answer(job_id)
            answered.add(job_id)
            open_ = [other for other in open_ if other != job_id]
        elif job_id not in checkpoint:  # no run takes up an answered id
            checkpoint.take(job_id)
            open_ += [] if job_id in open_ else [job_id]
        if reopens:
            checkpoint.close()
            checkpoint = Checkpoint(path)
        assert checkpoint.open == tuple(open_)
        assert checkpoint.answered == len(answered)
        assert all(job_id in checkpoint for job_id in answered)
    checkpoint.close()
    assert state(path) == (tuple(open_), len(answered))
    entries = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    assert all(entry.keys() in ({"taken"}, {"answered"}) for entry in entries)


# Files that were cut off


def test_a_torn_file_loses_no_whole_line(path: Path, filled: bytes) -> None:
    """Cut off at any byte, a file opens and goes on; only the cut line is gone.

    Only what might be the beginning of somebody else's file is refused.
    """
    ends = [place for place in range(len(filled) + 1) if filled[:place].endswith(b"\n")]
    assert len(ends) == 5
    for length in range(len(filled) + 1):
        path.write_bytes(filled[:length])
        if 0 < length < len(b'{"format": "ci_live_audit.checkpoint'):
            with pytest.raises(ConfigurationError, match="this is not a checkpoint"):
                Checkpoint(path)
            assert path.read_bytes() == filled[:length]
            continue
        whole = filled[: max((end for end in ends if end <= length), default=0)] or HEADER
        lines = [json.loads(line) for line in whole.splitlines()[1:]]
        answered = [line["answered"] for line in lines if "answered" in line]
        taken = [line["taken"] for line in lines if line.get("taken", "a") not in answered]
        with Checkpoint(path) as checkpoint:
            assert path.read_bytes() == whole
            assert checkpoint.answered == len(answered)
            assert all(job_id in checkpoint for job_id in answered)
            assert [job_id for job_id in checkpoint.open if job_id not in taken] == []
            assert len(checkpoint.open) == len(taken)
            checkpoint.take("new")
        assert path.read_bytes() == whole + b'{"taken": "new"}\n'
        assert state(path) == ((*taken, "new"), len(answered))


@pytest.mark.parametrize(
    "rest", [b"\xff\x00", b"{}", b"[" * 100_000, b"x", '{"taken": "é'.encode()]
)
def test_a_last_line_without_an_end_is_removed(path: Path, filled: bytes, rest: bytes) -> None:
    """Bytes after the last end of line are no entry, whatever they are."""
    path.write_bytes(filled + rest)
    assert state(path) == (("b", "c"), 1)
    assert path.read_bytes() == filled


# Files that are something else


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"5",
        b"{",
        b'{"format": "',
        b"\0",
        b"\0" * 5000 + b"\n",
        b"job-1\njob-2\n",
        b'{"format": "something else", "version": 1}\n',
        b'{"version": 1}\n',
        b'["format", "ci_live_audit.checkpoint"]\n',
        b"PK\x03\x04\x00\xff\xfe",
        b"\xff" * 1000 + b"\n" * 10,
        b"[" * 100_000,
        HEADER[:-2] + b"x",
        HEADER[1:],
    ],
    ids=lambda content: ascii(content[:20]),
)
def test_another_file_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    """Any other file is refused by name and not changed."""
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"run\.checkpoint: this is not a checkpoint"):
        Checkpoint(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", ["0", "3", '"1"', "null", "[1]", "true"])
@pytest.mark.parametrize("end", ["\n", "", '\n{"taken": "a"}\n{"tak'])
def test_another_version_is_refused_and_left_as_it_is(path: Path, version: str, end: str) -> None:
    """A file of a later version is not changed, cut off or not."""
    content = f'{{"format": "ci_live_audit.checkpoint", "version": {version}}}{end}'.encode()
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"of version .*; versions 1 and 2 can be read$"):
        Checkpoint(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x",
        b"{}",
        b"5",
        b'{"taken": 5}',
        b'{"taken": null}',
        b'{"answered": ["a"]}',
        b'{"polled": "a"}',
        b'{"bucket": "b"}',
        b"\0" * 500,
        b'"taken"',
        b'{"taken": "a"',
        b'{"taken": "\xff"}',
        b'{"taken": "a"}{"taken": "b"}',
        b"[" * 100_000,
        HEADER[:-1],
    ],
    ids=lambda line: ascii(line[:20]),
)
def test_a_bad_line_is_named(path: Path, filled: bytes, line: bytes) -> None:
    """A whole line that is not an entry is refused by number; the file is left as it is."""
    content = filled + line + b'\n{"taken": "d"}\n{"tak'
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"run\.checkpoint: line 6 is not an entry"):
        Checkpoint(path)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_used_is_an_os_error(path: Path) -> None:
    """The error of the system about a path is raised unwrapped."""
    with pytest.raises(IsADirectoryError):
        Checkpoint(path.parent)
    with pytest.raises(FileNotFoundError):
        Checkpoint(path / "below")


def test_a_refused_file_is_closed(path: Path) -> None:
    """An error leaves no open file behind."""
    path.write_bytes(b"something else\n")
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(ConfigurationError):
        Checkpoint(path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_device_is_refused() -> None:
    """Only a regular file can be read again."""
    with pytest.raises(ConfigurationError, match="/dev/null: this is not a regular file"):
        Checkpoint(os.devnull)


def test_a_pipe_is_refused(path: Path) -> None:
    """A named pipe is refused at once, without a process at its other end."""
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="this is not a regular file"):
        Checkpoint(path)


@pytest.mark.parametrize("begin", [b"", HEADER], ids=["alone", "after a header"])
def test_a_gigabyte_without_a_line_end_is_refused_in_little_memory(
    path: Path, begin: bytes
) -> None:
    """No more than a line of a megabyte is read at once."""
    path.write_bytes(begin)
    os.truncate(path, 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError, match=r"not a checkpoint|line 2 is not an entry"):
            Checkpoint(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    assert path.stat().st_size == 2**30


def test_an_id_of_a_megabyte_is_not_noted(path: Path) -> None:
    """What no service takes for an id does not spoil the file."""
    with Checkpoint(path) as checkpoint:
        checkpoint.take("x" * 2**20)
        checkpoint.answer("x" * 2**20)
        assert checkpoint.open == ()
        assert (checkpoint.answered, "x" * 2**20 in checkpoint) == (0, False)
    assert path.read_bytes() == HEADER


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: HEADER + rest))
def test_any_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever the bytes are, the file opens, or it is refused and not changed."""
    path = tmp_path_factory.mktemp("any") / "checkpoint"
    path.write_bytes(content)
    try:
        Checkpoint(path).close()
    except ConfigurationError:
        assert path.read_bytes() == content


# Which jobs it is about


def test_the_bucket_and_the_region_are_noted_once(path: Path) -> None:
    """The file names them after the first run, and another run adds nothing."""
    for _ in range(2):
        with Checkpoint(path) as checkpoint:
            checkpoint.bind("bucket-1", "ap-one")
            checkpoint.bind("bucket-1", "ap-one")
    assert path.read_bytes() == HEADER + b'{"bucket": "bucket-1", "region": "ap-one"}\n'


@pytest.mark.parametrize("other", [("bucket-2", "ap-one"), ("bucket-1", "ap-two")])
def test_another_bucket_or_region_is_refused(path: Path, other: tuple[str, str]) -> None:
    """The error names both, and the file is not changed."""
    with Checkpoint(path) as checkpoint:
        checkpoint.bind("bucket-1", "ap-one")
        checkpoint.take("a")
    before = path.read_bytes()
    with Checkpoint(path) as checkpoint:
        reason = rf"of bucket bucket-1 in ap-one, not of {other[0]} in {other[1]}; use another"
        with pytest.raises(ConfigurationError, match=reason):
            checkpoint.bind(*other)
    assert path.read_bytes() == before


def test_a_file_of_version_1_is_continued(path: Path) -> None:
    """Its entries count, and from the first run on it is of version 2."""
    entries = b'{"taken": "a"}\n{"taken": "b"}\n{"answered": "a"}\n'
    path.write_bytes(OLD + entries)
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.open, checkpoint.answered) == (("b",), 1)
        assert path.read_bytes() == OLD + entries
        checkpoint.bind("bucket-1", "ap-one")
        checkpoint.take("c")
    scope = b'{"bucket": "bucket-1", "region": "ap-one"}\n'
    assert path.read_bytes() == HEADER + entries + scope + b'{"taken": "c"}\n'
    assert state(path) == (("b", "c"), 1)


def test_the_file_says_what_the_outcomes_were(path: Path) -> None:
    """Verdicts and errors of answered ids are counted, once each, also when it is opened again."""
    with Checkpoint(path) as checkpoint:
        checkpoint.answer("a", verdict=1)
        checkpoint.answer("b", verdict=2)
        checkpoint.answer("c", verdict=0)
        checkpoint.answer("d", error="JobNotFound")
        checkpoint.answer("e", verdict=1, error="JobFailed")
        checkpoint.answer("a", verdict=1)
        counts = checkpoint.answered, checkpoint.errors, checkpoint.sensitive, checkpoint.suspected
    assert counts == (5, 2, 2, 1)
    with Checkpoint(path) as again:
        assert (again.answered, again.errors, again.sensitive, again.suspected) == counts
    assert path.read_bytes().splitlines()[1:6:4] == [
        b'{"answered": "a", "verdict": 1}',
        b'{"answered": "e", "verdict": 1, "error": "JobFailed"}',
    ]


# Whose it is


def test_the_file_is_its_owners(path: Path) -> None:
    """Job ids are nobody else's to read."""
    before = os.umask(0)
    try:
        Checkpoint(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_opening_is_refused(path: Path, filled: bytes) -> None:
    """In this process too; the error names the process, and closing frees the file."""
    with Checkpoint(path):
        with pytest.raises(ConfigurationError, match=r"in use by (this process|process \d+|anoth)"):
            Checkpoint(path)
        assert path.read_bytes() == filled
    assert state(path) == (("b", "c"), 1)


HOLD = """
import sys, time
from ci_live_audit import Checkpoint
with Checkpoint(sys.argv[1]) as checkpoint:
    checkpoint.take("of the other")
    print("held", flush=True)
    time.sleep(3600)
"""


def test_another_process_is_named_and_its_end_frees_the_file(path: Path) -> None:
    """As long as a process has the file no other changes a byte of it, torn line or not."""
    with running(HOLD, path) as (holder, line):
        assert line == "held\n"
        with path.open("ab") as torn:
            torn.write(b'{"taken": "half')
        content = path.read_bytes()
        named = f"in use by process {holder.pid};" if has_locks(path) else "in use by another"
        with pytest.raises(ConfigurationError, match=named):
            Checkpoint(path)
        assert path.read_bytes() == content
        holder.kill()
    assert state(path) == (("of the other",), 0)


FORK = """
import os, sys, time
from ci_live_audit import Checkpoint
checkpoint = Checkpoint(sys.argv[1])
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(3600)
"""


def test_a_forked_child_does_not_keep_the_file(path: Path) -> None:
    """The end of the process that opened the file frees it, though its child lives on."""
    with running(FORK, path) as (holder, line):
        child = int(line)
        try:
            with pytest.raises(ConfigurationError, match="in use by"):
                Checkpoint(path)
            holder.kill()
            holder.wait()
            assert state(path) == ((), 0)
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_writes_nothing(path: Path) -> None:
    """What the child does with the checkpoint of its parent is an error."""
    with Checkpoint(path) as checkpoint:
        _files.call()
        with pytest.raises(ValueError, match="closed"):
            checkpoint.take("a")
    assert path.read_bytes() == HEADER


def has_locks(path: Path) -> bool:
    """Return whether the system lists its locks with the inodes that it shows to us."""
    locks = Path("/proc/locks")
    return locks.exists() and f":{path.stat().st_ino} " in locks.read_text()


def test_without_locks_it_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no such locks."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert state(path) == ((), 0)


def test_the_holder_is_found_among_all_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of other kinds, of other files and of other containers are passed over."""
    with Checkpoint(path):
        inode = path.stat().st_ino
        locks = (
            f"1: POSIX  ADVISORY  WRITE 11 fd:01:{inode} 0 EOF\n"
            f"2: FLOCK  ADVISORY  WRITE 12 fd:01:{inode}1 0 EOF\n"
            f"3: FLOCK  ADVISORY  WRITE 0 fd:01:{inode} 0 EOF\n"
            f"4: FLOCK  ADVISORY  WRITE 14 fd:01:{inode} 0 EOF\n"
        )
        monkeypatch.setattr(Path, "read_text", lambda _: locks)
        with pytest.raises(ConfigurationError, match="in use by process 14;"):
            Checkpoint(path)


def test_a_system_that_lists_no_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the error says that it is another process, but not which."""
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError))
    with Checkpoint(path), pytest.raises(ConfigurationError, match="in use by another process"):
        Checkpoint(path)


def test_what_is_cut_is_cut_from_its_own_file(
    tmp_path: Path, filled: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of folder and a rotation, a full disk cuts nothing of another file."""
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(path.name)
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    for stranger in (other / path.name, path):
        if stranger == path:
            path.rename(tmp_path / "rotated")
        stranger.write_bytes(b"of somebody else\n" * 20)
        with no_file_above(len(filled) + 9), pytest.raises(OSError):
            checkpoint.answer("b")
        assert stranger.read_bytes() == b"of somebody else\n" * 20
    checkpoint.answer("b")
    checkpoint.close()
    assert (tmp_path / "rotated").read_bytes() == filled + b'{"answered": "b"}\n'


def test_fsync_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, each line and the new file itself are on the disk before the call returns."""
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    with Checkpoint(path, fsync=True) as checkpoint:
        checkpoint.take("a")
    file, folder = path.stat().st_ino, path.parent.stat().st_ino
    assert synced == [file, folder, file]
    Checkpoint(path).close()
    assert len(synced) == 3


# Memory


def test_what_was_answered_long_ago_is_forgotten_until_the_next_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on for ever does not grow, and another run knows all ids again."""
    monkeypatch.setattr("ci_live_audit.following.checkpoint.REMEMBERED", 10)
    with Checkpoint(path) as checkpoint:
        for number in range(100):
            checkpoint.take(str(number))
            checkpoint.answer(str(number))
        assert sum(str(number) in checkpoint for number in range(100)) < 20
        assert "99" in checkpoint
        assert checkpoint.answered == 100
        checkpoint.bind("bucket-1", "ap-one")
        assert all(str(number) in checkpoint for number in range(100))
        assert (checkpoint.answered, checkpoint.open) == (100, ())


# Disks that are full


@pytest.mark.parametrize("room", range(len(b'{"answered": "a"}\n')))
def test_a_line_that_does_not_fit_is_an_error(path: Path, filled: bytes, room: int) -> None:
    """A line that cannot be written as a whole raises an error and changes nothing."""
    with Checkpoint(path) as checkpoint:
        with no_file_above(len(filled) + room):
            with pytest.raises(OSError, match=r"No space left|File too large") as full:
                checkpoint.answer("b")
            assert full.value.filename == str(path)
            with pytest.raises(OSError, match=r"No space left|File too large"):
                checkpoint.take("a longer one")
        assert checkpoint.open == ("b", "c")
        assert checkpoint.answered == 1
    assert state(path) == (("b", "c"), 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error(path: Path) -> None:
    """The error of the system is raised with its number, and a repair that fails comes later."""
    checkpoint = Checkpoint(path)
    lines = checkpoint._file
    with lines._file as own, Path("/dev/full").open("r+b", buffering=0) as full:
        lines._file = full
        for _ in range(2):
            with pytest.raises(OSError, match=r"No space left|Invalid argument"):
                checkpoint.take("a")
            assert not checkpoint.open
        lines._file = own
        checkpoint.take("a")
        assert checkpoint.open == ("a",)


# Runs that are killed

JOBS = 3000
KILLS = 50
#: Most outcomes that a run deals with before it waits to be killed.
MOST = 55

# What a child runs. It notes lines of 8 and 16 bytes, which no page boundary divides.
RUNS = f"""
import asyncio, os, random, signal, sys
from ci_live_audit import AuditJob, Checkpoint, JobNotFound, JobState, Outcomes
from ci_live_audit.following.polling import Polling

def note(name, line):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode() + b"\\n")
    os.close(file)

async def run(generation):
    polled = {{}}
    rng = random.Random(generation)

    async def query(job_id, _=None):
        note("polled", f"{{generation:<8}}{{job_id}}")
        await asyncio.sleep(rng.random() / 1000)
        number = int(job_id[3:])
        polled[job_id] = polled.get(job_id, 0) + 1
        if number % 40 == 0:
            raise JobNotFound("no such job", status=404, code="NoSuchJob")
        ended = polled[job_id] > number % 3
        return AuditJob(job_id=job_id, state=JobState.SUCCESS if ended else JobState.AUDITING)

    ids = [f"job{{number:04}}" for number in range({JOBS})]
    with Checkpoint("checkpoint") as checkpoint:
        async with Outcomes(Polling(query, 0.001, checkpoint=checkpoint), ids) as outcomes:
            dealt_with = 0
            async for outcome in outcomes:
                note("outcomes", outcome.job_id)
                dealt_with += 1
                if generation < {KILLS} and dealt_with == {MOST}:
                    await asyncio.sleep(3600)
"""


def whole_lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


def test_a_killed_run_is_taken_up_again(tmp_path: Path) -> None:
    """Killed 50 times anywhere, a run answers every id; only an outcome in hand comes again."""
    rng = random.Random(1)
    outcomes = tmp_path / "outcomes"
    outcomes.touch()
    answered: dict[str, int] = {}

    with children(RUNS, tmp_path) as runs:
        for generation in range(KILLS):
            runs.start(generation)
            enough = outcomes.stat().st_size + len("job0000\n") * rng.randint(1, MOST)
            while outcomes.stat().st_size < enough:
                time.sleep(0.0002)
            time.sleep(rng.random() * 0.003)
            runs.kill()
            entries = [json.loads(line) for line in whole_lines(tmp_path / "checkpoint")]
            for entry in entries:
                if "answered" in entry:
                    answered.setdefault(entry["answered"], generation)
            assert answered.keys() <= set(whole_lines(outcomes))
        runs.start(KILLS)
        assert runs.wait() == 0

    times = Counter(whole_lines(outcomes))
    assert times.keys() == {f"job{number:04}" for number in range(JOBS)}
    assert times.total() - JOBS <= KILLS
    polled = [(int(line[:8]), line[8:]) for line in whole_lines(tmp_path / "polled")]
    assert not [job_id for run, job_id in polled if run > answered.get(job_id, KILLS)]
    assert state(tmp_path / "checkpoint") == ((), JOBS)


def test_a_line_that_did_not_fit_spoils_no_other(path: Path, filled: bytes) -> None:
    """When there is room again, the file goes on behind its last whole line."""
    with Checkpoint(path) as checkpoint:
        with no_file_above(len(filled) + 9), pytest.raises(OSError):
            checkpoint.answer("b")
        checkpoint.answer("b")
        checkpoint.take("d")
    assert state(path) == (("c", "d"), 2)


def test_an_answered_id_is_not_taken_again(path: Path) -> None:
    """Taking an answered id changes nothing, before and after the file is reopened."""
    with Checkpoint(path) as checkpoint:
        checkpoint.answer("a")
        checkpoint.take("a")
        open_ = checkpoint.open
    assert state(path)[0] == open_
