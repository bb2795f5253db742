"""A file of results that later runs continue: ``poll --results``."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ci_live_audit.cli.output import to_line
from ci_live_audit.cli.streams import WholeFile
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.outcomes import Outcome

__all__ = ["Results", "open_results"]

#: How each line begins. One that was cut off within this is still told from those of others.
BEGINNING = b'{"schema": 1, "kind": "outcome"'
OURS = re.compile(rb'\{\s*"schema"\s*:\s*\d+\s*,\s*"kind"\s*:\s*"')
BLOCK = 65536
#: Bytes of a last line that are looked at.
LONGEST = 2**26


class Results:
    """Outcomes as lines of JSON, appended to a file; each is in the file before the next."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._file = WholeFile(descriptor, str(path))

    def add(self, outcome: Outcome) -> None:
        """Write the line of an outcome.

        Raises:
            OSError: It cannot be written; nothing of it is in the file.
        """
        self._file.write(to_line("outcome", outcome.to_dict()).encode())


@contextmanager
def open_results(path: Path) -> Generator[Results, None, None]:
    """Open a file of results, and remove a last line that was cut off.

    Raises:
        ConfigurationError: The file is something else, or another process is using it.
        OSError: The file cannot be read or written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    for name in ("O_NONBLOCK", "O_BINARY"):  # for pipes; on Windows
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        _check(descriptor, path)
        _lock(descriptor, path)
        _end_last_line(descriptor)
        yield Results(descriptor, path)
    finally:
        os.close(descriptor)


def _check(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ConfigurationError(f"{path}: this is not a regular file")
    begin = os.read(descriptor, 256)
    torn = BEGINNING.startswith(begin) and (not begin or b'"schema"' in begin)
    if not torn and not OURS.match(begin):
        raise ConfigurationError(f"{path}: this is not a file of results; pass another one")


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # on Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(f"{path}: another process is writing to it") from None


def _end_last_line(descriptor: int) -> None:
    """Remove a last line that was cut off, or end it if only its end is missing."""
    whole = _end_of_last_line(descriptor)
    os.lseek(descriptor, whole, os.SEEK_SET)
    try:
        json.loads(os.read(descriptor, LONGEST))
    except ValueError:
        os.ftruncate(descriptor, whole)
    else:
        os.lseek(descriptor, 0, os.SEEK_END)
        os.write(descriptor, b"\n")


def _end_of_last_line(descriptor: int) -> int:
    """Return the number of bytes up to the last line end."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - BLOCK)
        os.lseek(descriptor, begin, os.SEEK_SET)
        found = os.read(descriptor, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
