"""Files of lines: whatever does not fit, each line is whole; checkpoints and results rely on it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proofs import no_file_above

from ci_live_audit import ConfigurationError, _files
from ci_live_audit._files import LineFile


@given(st.lists(st.binary(max_size=9).map(lambda text: text + b"\n")), st.integers(0, 60))
def test_lines_are_written_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], room: int
) -> None:
    """On a disk of any size the file holds exactly the lines that raised no error."""
    path = tmp_path_factory.mktemp("disk") / "lines"
    file = LineFile(path)
    written = b""
    with no_file_above(room):
        for line in lines:
            with contextlib.suppress(OSError):
                file.append(line)
                written += line
            assert path.read_bytes() == written
    assert len(written) <= room
    file.append(b"last\n")
    file.close()
    assert path.read_bytes() == written + b"last\n"


def test_lines_go_behind_what_is_whole(tmp_path: Path) -> None:
    """What is cut is gone, and reading does not move the place at which lines are appended."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthr")
    file = LineFile(path)
    file.cut(8)
    with file.reader() as reader:
        assert reader.read() == b"one\ntwo\n"
    file.append(b"three\n")
    file.overwrite(b"ONE")
    file.append(b"four\n")
    file.close()
    assert path.read_bytes() == b"ONE\ntwo\nthree\nfour\n"


def test_a_locked_file_is_refused_with_the_message_given(tmp_path: Path) -> None:
    """Both may be open, but only one has the lock, until it is closed."""
    first, second = LineFile(tmp_path / "lines"), LineFile(tmp_path / "lines")
    first.lock("somebody has it")
    with pytest.raises(ConfigurationError, match="lines: somebody has it"):
        second.lock("somebody has it")
    first.close()
    second.lock("somebody has it")
    second.close()


def test_a_lock_whose_holder_is_not_told(tmp_path: Path) -> None:
    """Where the system does not say who has locked a file, it is another process."""
    with (tmp_path / "file").open("w") as file:
        assert _files._holder(file.fileno()) == "another process"


def test_a_replacement_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The old lines stay, and nothing is left beside them."""
    file = LineFile(tmp_path / "lines")
    file.cut(0)
    file.append(b"one\n")

    def failing() -> Iterator[bytes]:
        yield b"two\n"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        file.replace(failing())
    file.append(b"three\n")
    assert file.size == len(b"one\nthree\n")
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]
    assert (tmp_path / "lines").read_bytes() == b"one\nthree\n"


def test_a_replacement_keeps_the_mode(tmp_path: Path) -> None:
    """A file that its owner has shared stays shared."""
    path = tmp_path / "lines"
    file = LineFile(path)
    path.chmod(0o640)
    file.replace([b"one\n", b"two\n"])
    file.append(b"three\n")
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == b"one\ntwo\nthree\n"
