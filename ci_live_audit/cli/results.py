"""A file of results that later runs continue: ``poll --results``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ci_live_audit._files import LineFile
from ci_live_audit.cli.output import to_line
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

    def __init__(self, file: LineFile) -> None:
        self._file = file

    def add(self, outcome: Outcome) -> None:
        """Write the line of an outcome.

        Raises:
            OSError: It cannot be written; nothing of it is in the file.
        """
        self._file.append(to_line("outcome", outcome.to_dict()).encode())


@contextmanager
def open_results(path: Path) -> Generator[Results, None, None]:
    """Open a file of results, and remove a last line that was cut off.

    Raises:
        ConfigurationError: The file is something else, or another process is using it.
        OSError: The file cannot be read or written.
    """
    with closing(LineFile(path)) as file:
        _check(file)
        file.lock("another process is writing to it")
        _end_last_line(file)
        yield Results(file)


def _check(file: LineFile) -> None:
    with file.reader() as reader:
        begin = reader.read(256)
    torn = BEGINNING.startswith(begin) and (not begin or b'"schema"' in begin)
    if not torn and not OURS.match(begin):
        raise ConfigurationError(f"{file.path}: this is not a file of results; pass another one")


def _end_last_line(file: LineFile) -> None:
    """Remove a last line that was cut off, or end it if only its end is missing."""
    with file.reader() as reader:
        size = reader.seek(0, os.SEEK_END)
        whole = _end_of_last_line(reader, size)
        reader.seek(whole)
        last = reader.read(LONGEST)
    try:
        json.loads(last)
    except ValueError:
        file.cut(whole)
    else:
        file.cut(size)
        file.append(b"\n")


def _end_of_last_line(reader: BinaryIO, end: int) -> int:
    """Return the number of bytes up to the last line end."""
    while end:
        begin = max(0, end - BLOCK)
        reader.seek(begin)
        found = reader.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
