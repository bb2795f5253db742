"""What a store of several processes keeps of a stream: its claim, its job, what was seen. Pure."""

from __future__ import annotations

import json
import secrets
from typing import Any, Self

import attrs

from ci_live_audit.following.streams import Records, Stream

__all__ = ["StreamNotes"]


@attrs.frozen
class StreamNotes:
    """What is noted of a stream: two lines of JSON, and what was seen of its job.

    Attributes:
        claim: The line that was noted before the stream was submitted; no two are the same.
        job: The line that was noted afterwards; empty as long as no job is known.
        stream: The stream, as far as it can be told without secrets.
        job_id: Its job; empty if that is not known.
        seen: The bytes of `Seen`.
    """

    claim: bytes
    job: bytes
    stream: Stream
    job_id: str
    seen: bytes

    @staticmethod
    def new(stream: Stream) -> bytes:
        """Return the claim of a stream that is about to be submitted."""
        return _line({**Records.submitting(stream.key, stream), "claim": secrets.token_hex(8)})

    @staticmethod
    def taken(job_id: str) -> bytes:
        """Return the line of a job."""
        return _line({"taken": job_id})

    @classmethod
    def from_bytes(cls, notes: bytes) -> Self:
        """Return what the notes of a stream say; nothing of those that are lost.

        Raises:
            ValueError: They cannot be read.
        """
        claim, rest = _split(notes)
        job, seen = _split(rest)
        said, taken = _entry(claim), _entry(job)
        url, data_id = str(said.get("url", "")), said.get("data_id")
        stream = Stream(url, data_id=data_id if isinstance(data_id, str) else None)
        while seen.startswith(job) and job:  # a note whose answer was lost has been made again
            seen = seen[len(job) :]
        return cls(claim, job, stream, str(taken.get("taken", "")), seen)


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _split(notes: bytes) -> tuple[bytes, bytes]:
    """Return the first line, and the rest."""
    if not notes.startswith(b"{"):
        return b"", notes
    line, end, rest = notes.partition(b"\n")
    return line + end, rest


def _entry(line: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(line or b"{}")
    return entry
