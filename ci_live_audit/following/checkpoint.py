"""Keeps the state of a bulk run in a file that outlives the process."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Self, cast

from ci_live_audit.errors import ConfigurationError

__all__ = ["Checkpoint"]

HEADER: dict[str, str | int] = {"format": "ci_live_audit.checkpoint", "version": 1}


class Checkpoint:
    """The state of a bulk run: which ids were taken up, and which of them are done.

    A text file with a JSON object on each line: the format and its version, then ``{"taken": id}``
    and ``{"answered": id}`` as things happen. It holds nothing but ids. Each line is written at
    once and survives any end of the process. A last line that was cut off is removed when the file
    is opened again. One run at a time may use it.

    Args:
        path: The file; it is created, or continued.

    Raises:
        ConfigurationError: The file is not a checkpoint, or its version is unknown.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        # Dicts keep their order, and the garbage collector passes over dicts of texts.
        self._open: dict[str, None] = {}
        self._answered: dict[str, None] = {}
        self._file = self.path.open("ab", buffering=0)
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def open(self) -> tuple[str, ...]:
        """The ids that were taken up and are not answered."""
        return tuple(self._open)

    @property
    def answered(self) -> int:
        """The number of answered ids."""
        return len(self._answered)

    def __contains__(self, job_id: object) -> bool:
        """Return whether an id is answered."""
        return job_id in self._answered

    def take(self, job_id: str) -> None:
        """Note that an id has been taken up."""
        if job_id not in self._open and job_id not in self._answered:
            self._write({"taken": job_id})

    def bind(self, bucket: str, region: str) -> None:
        """Temporary."""

    def answer(self, job_id: str, *, verdict: int | None = None, error: str | None = None) -> None:
        """Note that the outcome of an id has been dealt with."""
        self._write({"answered": job_id})

    def _write(self, entry: dict[str, Any]) -> None:
        line = _line(entry)
        written = self._file.write(line)
        if written != len(line):
            os.truncate(self.path, self._file.seek(0, os.SEEK_END) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._note(entry)

    def _load(self) -> None:
        with self.path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n") and _line(HEADER).startswith(header):
                os.truncate(self.path, 0)
                self._write(HEADER)
                return
            whole = len(header)
            self._check(_entry(header))
            for number, line in enumerate(file, 2):
                if not line.endswith(b"\n"):
                    break
                if not self._note(_entry(line)):
                    reason = f"line {number} is not an entry of a checkpoint"
                    raise ConfigurationError(f"{self.path}: {reason}")
                whole += len(line)
        os.truncate(self.path, whole)

    def _check(self, header: dict[str, Any]) -> None:
        version = header.get("version")
        if header.get("format") != HEADER["format"]:
            raise ConfigurationError(f"{self.path}: this is not a checkpoint of ci_live_audit")
        if version != HEADER["version"]:
            known = f"version {HEADER['version']} can be read"
            raise ConfigurationError(f"{self.path}: a checkpoint of version {version!r}; {known}")

    def _note(self, entry: dict[str, Any]) -> bool:
        """Do what an entry says; return False if it is none."""
        match entry:
            case {"taken": str(job_id)}:
                if job_id not in self._answered:
                    self._open[job_id] = None
            case {"answered": str(job_id)}:
                self._open.pop(job_id, None)
                self._answered[job_id] = None
            case _:
                return False
        return True


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
