"""Keeps the state of a run in a file that outlives the process."""

from __future__ import annotations

import contextlib
import json
import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

from ci_live_audit._files import LineFile
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import Ids, Source
from ci_live_audit.following.recent import REMEMBERED, Recent
from ci_live_audit.following.seen import Seen
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
#: The file is rewritten when more bytes than this, and more than all the rest, say what was seen.
COMPACT = 2**20
#: How what was seen begins, and how many digests a line of it has after the file was rewritten.
SEEN, DIGESTS = b'{"seen": ', 2**16


class Checkpoint:
    """The state of a run: which ids were taken up, what was seen of them, and which are done.

    A text file, readable by its owner only, with a JSON object on each line: the format and its
    version, ``{"bucket": …, "region": …}``, then ``{"taken": id}``, ``{"seen": id, "new": …}`` for
    each finding of a watched job, and ``{"answered": id}`` as things happen; the latter with the
    ``verdict`` of the job or the ``error`` of its outcome. Each line is written at once and
    survives any end of the process. A last line that was cut off is removed when the file is opened
    again. Files of version 1 are continued. What was seen is rewritten in less space now and then,
    as a new file in place of the old one.

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
        # Dicts keep their order, and the garbage collector passes over dicts of texts. What was
        # seen is in the bytes of `Seen`.
        self._open: dict[str, bytes] = {}
        self._answered: set[str] = set()
        self._recent = Recent(REMEMBERED)
        self._counts: Counter[str] = Counter()
        self._scope: tuple[str, str] | None = None
        self._streams = Records()
        self._is_old = False
        self._seen_size = 0
        self._file = LineFile(self.path, fsync=fsync)
        try:
            self._file.lock("in use by {}; one run at a time may use it")
            self._load()
            self._compact()
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

    def begin(self, job_ids: Source) -> Ids:
        """Return the ids of one run: those that are open, then those of a source."""
        return _Continued(self, job_ids)

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

    def seen(self, job_id: str) -> bytes:
        """Return what was seen of an open id: all that `keep` was given; else nothing."""
        return self._open.get(job_id, b"")

    def keep(self, job_id: str, seen: bytes) -> None:
        """Note what has been seen of an open id, in addition to what was noted before.

        Raises:
            OSError: It cannot be noted.
        """
        if job_id in self._open:
            self._write({"seen": job_id, "new": b64encode(seen).decode()})
            self._compact()

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
            noted = self.seen(job_id)
            severity = Seen.from_bytes(noted).severity if noted else 0
            self._answer(job_id, released=key, verdict={1: 2, 2: 1}.get(severity))
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
        self._seen_size += len(line) if line.startswith(SEEN) else 0
        return self._note(entry)

    def _compact(self) -> None:
        """Rewrite what was seen of the open ids, if most of the file says what was seen."""
        if self._seen_size <= max(COMPACT, self._file.size - self._seen_size):
            return
        # If it cannot be rewritten, the next attempt is made when it is twice as large.
        with contextlib.suppress(OSError):
            self._file.replace(self._shorter())
        self._seen_size = 0

    def _shorter(self) -> Iterator[bytes]:
        with self._file.reader() as file:
            yield from (line for line in file if not line.startswith(SEEN))
        for job_id, noted in self._open.items():
            for part in Seen.from_bytes(noted).parts(DIGESTS) if noted else ():
                entry = {"seen": job_id, "new": b64encode(part.to_bytes()).decode()}
                yield json.dumps(entry).encode() + b"\n"

    def _load(self) -> None:
        """Read the file, and remove a last line that was cut off."""
        self._open, self._answered, self._recent = {}, set(), Recent(REMEMBERED)
        self._counts, self._scope, self._seen_size = Counter(), None, 0
        self._streams = Records()
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
        self._seen_size += len(line) if line.startswith(SEEN) else 0

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
                    self._open.setdefault(job_id, b"")
            case {"seen": str(job_id), "new": str(new)}:
                try:
                    seen = b64decode(new, validate=True)
                    Seen.from_bytes(seen)
                except ValueError:
                    return False
                if job_id in self._open:
                    self._open[job_id] += seen
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


class _Continued(Ids):
    """The ids of a run that a checkpoint continues."""

    def __init__(self, checkpoint: Checkpoint, job_ids: Source) -> None:
        super().__init__(job_ids, checkpoint.open)
        self._checkpoint = checkpoint

    def is_done(self, job_id: str) -> bool:
        """Return whether an id is answered."""
        return job_id in self._checkpoint

    def note(self, job_id: str) -> bytes:
        """Note that an id has been taken up; return what was seen of it before."""
        self._checkpoint.take(job_id)
        return self._checkpoint.seen(job_id)

    async def commit(self, commit: Commit) -> None:
        """Note what has been seen of a job, or that it is answered."""
        if commit.action == "keep":
            self._checkpoint.keep(commit.job_id, commit.seen)
        elif commit.action == "end":
            self._checkpoint.answer(commit.job_id, verdict=commit.verdict, error=commit.error)


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
