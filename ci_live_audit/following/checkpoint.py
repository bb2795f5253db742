"""Keeps the state of a bulk run in a file that outlives the process."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Self, cast

from ci_live_audit._files import LineFile
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.recent import REMEMBERED, Recent
from ci_live_audit.following.streams import Records, Stream

__all__ = ["Checkpoint"]

FORMAT = "ci_live_audit.checkpoint"
#: In version 1 no bucket is named, and not what the outcomes were.
HEADERS: dict[Any, bytes] = {
    version: b'{"format": "%s", "version": %d}\n' % (FORMAT.encode(), version) for version in (1, 2)
}
NEW = HEADERS[2]
#: Longest line in bytes; longer ones are no entries, and no service takes ids of that length.
LONGEST = 2**20


class Checkpoint:
    """The state of a bulk run: which ids were taken up, and which of them are done.

    A text file, readable by its owner only, with a JSON object on each line: the format and its
    version, ``{"bucket": …, "region": …}``, then ``{"taken": id}`` and ``{"answered": id}`` as
    things happen; the latter with the ``verdict`` of the job or the ``error`` of its outcome. Each
    line is written at once and survives any end of the process. A last line that was cut off is
    removed when the file is opened again. Files of version 1 are continued.

    The file is locked as long as it is open (not on Windows): one run at a time may use it. After
    an error of the disk nothing has changed, and the same call may be repeated.

    Args:
        path: The file; it is created, or continued.
        fsync: Whether each line is also to survive a crash of the machine, at the cost of some
            milliseconds on the event loop.

    Raises:
        ConfigurationError: The file is not a checkpoint, its version is unknown, or another process
            is using it.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = False) -> None:
        self.path: Path = Path(path)
        # Dicts keep their order, and the garbage collector passes over dicts of texts.
        self._open: dict[str, None] = {}
        self._answered: set[str] = set()
        self._recent = Recent(REMEMBERED)
        self._counts: Counter[str] = Counter()
        self._scope: tuple[str, str] | None = None
        self._streams = Records()
        self._is_old = False
        self._file = LineFile(self.path, fsync=fsync)
        try:
            self._file.lock("in use by {}; one run at a time may use it")
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

    def bind(self, bucket: str, region: str) -> None:
        """Note the bucket and the region of the ids, once; each run on a client does.

        Raises:
            ConfigurationError: The file is about those of another bucket or region.
            OSError: The file cannot be read or written.
        """
        if self._recent.has_forgotten:
            self._load()
        if self._scope is None:
            if self._is_old:
                self._file.overwrite(NEW)  # as long as the old header
                self._is_old = False
            self._write({"bucket": bucket, "region": region})
        elif self._scope != (bucket, region):
            raise self._refuse(
                "it is about jobs of bucket {} in {}, not of {} in {}; use another file".format(
                    *self._scope, bucket, region
                )
            )

    @property
    def open(self) -> tuple[str, ...]:
        """The ids that were taken up and are not answered."""
        return tuple(self._open)

    @property
    def answered(self) -> int:
        """The number of answered ids."""
        return self._counts["answered"]

    @property
    def errors(self) -> int:
        """How many of the answered ids had an error for an outcome."""
        return self._counts["error"]

    @property
    def sensitive(self) -> int:
        """How many of the answered ids had the verdict sensitive."""
        return self._counts["1"]

    @property
    def suspected(self) -> int:
        """How many of the answered ids had the verdict suspected."""
        return self._counts["2"]

    def __contains__(self, job_id: object) -> bool:
        """Return whether an id is answered."""
        return job_id in self._answered or job_id in self._recent

    def take(self, job_id: str) -> None:
        """Note that an id has been taken up.

        Raises:
            OSError: It cannot be noted.
        """
        if job_id not in self._open and job_id not in self:
            self._write({"taken": job_id})

    def answer(self, job_id: str, *, verdict: int | None = None, error: str | None = None) -> None:
        """Note that the outcome of an id has been dealt with.

        Args:
            job_id: The id.
            verdict: The verdict of the job, if it has one.
            error: The name of the error's class, if the outcome was one.

        Raises:
            OSError: It cannot be noted.
        """
        self._answer(job_id, verdict=verdict, error=error)

    # What `moderate` notes of streams. These wait where another kind of checkpoint has to. Each
    # entry is also one that a run over ids knows, so that all runs read the same files.

    async def streams(self) -> Records:
        """Return what is known of streams."""
        return self._streams

    async def note_stream(self, key: str, stream: Stream) -> None:
        """Note that a stream is about to be submitted; `OSError` if that is impossible."""
        self._write({**self._place(), **Records.submitting(key, stream)})

    async def note_job(self, key: str, job_id: str) -> None:
        """Note the job of a stream; `OSError` if that is impossible."""
        self._write({"taken": job_id, "stream": key})

    async def release_stream(self, key: str, job_id: str = "") -> None:
        """Note that no job runs for a stream, which a later run may submit; or raise `OSError`."""
        if job_id:
            self._answer(job_id, released=key)
        else:
            self._write({**self._place(), "released": key})

    async def end_stream(
        self, key: str, job_id: str, *, verdict: int | None = None, error: str | None = None
    ) -> None:
        """Note that a stream is over, as `answer` does; `OSError` if that is impossible."""
        self._answer(job_id, verdict=verdict, error=error, stream=key)

    def _place(self) -> dict[str, str]:
        bucket, region = self._scope or ("", "")
        return {"bucket": bucket, "region": region}

    def _answer(self, job_id: str, **more: object) -> None:
        known = {name: value for name, value in more.items() if value is not None}
        if self._write({"answered": job_id, **known}):
            self._recent.add(job_id)

    def _write(self, entry: dict[str, Any]) -> bool:
        """Append an entry and do what it says; return False if it is too long for one."""
        line = json.dumps(entry).encode() + b"\n"
        if len(line) > LONGEST:
            return False
        self._file.append(line)
        return self._note(entry)

    def _load(self) -> None:
        """Read the file, and remove a last line that was cut off."""
        self._open, self._answered, self._recent = {}, set(), Recent(REMEMBERED)
        self._counts, self._scope, self._streams = Counter(), None, Records()
        end = 0
        with self._file.reader() as file:
            line = file.readline(LONGEST)
            self._check_header(line)
            number = 1
            while line.endswith(b"\n"):
                end += len(line)
                number += 1
                line = file.readline(LONGEST)
                if line.endswith(b"\n") or len(line) == LONGEST:
                    self._read(line, number)
        self._file.cut(end)
        if not end:
            self._file.append(NEW)

    def _read(self, line: bytes, number: int) -> None:
        entry = _entry(line)
        if not self._note(entry):
            raise self._refuse(f"line {number} is not an entry of a checkpoint")
        if "answered" in entry:
            self._answered.add(entry["answered"])

    def _check_header(self, line: bytes) -> None:
        created = any(whole.startswith(line) for whole in HEADERS.values() if whole != line)
        if not line or (created and FORMAT.encode() in line):
            return  # new, or cut off while it was created
        header = _entry(line)
        if header.get("format") != FORMAT:
            raise self._refuse("this is not a checkpoint of ci_live_audit")
        if line not in HEADERS.values():
            version = header.get("version")
            raise self._refuse(f"a checkpoint of version {version!r}; versions 1 and 2 can be read")
        self._is_old = line == HEADERS[1]

    def _note(self, entry: dict[str, Any]) -> bool:
        """Do what an entry says; return False if it is none."""
        self._streams.note(entry)
        match entry:
            case {"taken": str(job_id)}:
                if job_id not in self:
                    self._open[job_id] = None
            case {"answered": str(job_id)}:
                self._open.pop(job_id, None)
                if job_id not in self:
                    self._counts.update(["answered", *(["error"] if "error" in entry else [])])
                    if entry.get("verdict") in (1, 2):
                        self._counts[str(entry["verdict"])] += 1
            case {"bucket": str(bucket), "region": str(region)}:
                self._scope = bucket, region
            case _:
                return False
        return True

    def _refuse(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: {reason}")


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
