"""Jobs in JSON Lines that other commands wrote: the last that they say of each."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from ci_live_audit.cli.output import SCHEMA
from ci_live_audit.cli.streams import raw_input
from ci_live_audit.errors import DecodeError, InvalidInput, JobFailed, LiveAuditError
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot
from ci_live_audit.wire import plain

__all__ = ["Recorded"]

#: Lines that say nothing of what was found.
OTHERS = {"submitted", "cancelled", "check"}
#: The state of a job of which only findings are known.
NOT_KNOWN = JobState("Not known")


@attrs.define
class _Record:
    """What was said of one job: packed, as there may be many thousands in little memory."""

    job: bytes | None = None
    error: str | None = None
    findings: dict[str, bytes] = attrs.field(factory=dict[str, bytes])


class Recorded:
    """Reads what ``query``, ``watch`` and ``poll`` printed, and programs with ``to_dict()``.

    Attributes:
        problems: Of lines that cannot be used, each with its place.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._records: dict[str, _Record] = {}

    def read(self, path: Path) -> None:
        """Read a file; ``-`` is standard input.

        Raises:
            OSError: It cannot be read.
        """
        if path == Path("-"):
            self._read("standard input", raw_input())
            return
        with path.open("rb", buffering=0) as file:
            self._read(str(path), file)

    def _read(self, name: str, stream: Any) -> None:
        file = io.BufferedReader(stream)
        encoding = json.detect_encoding(file.peek(4)[:4])
        lines = io.TextIOWrapper(file, encoding, "replace", newline="\n")
        try:
            for number, line in enumerate(lines, 1):
                self._take_line(f"{name}, line {number}", line)
        finally:  # the stream is not ours to close
            lines.detach()
            file.detach()

    def _take_line(self, place: str, line: str) -> None:
        text = line.strip("\ufeff \t\r\n")
        if not text:
            return
        try:
            self._take(json.loads(text))
        except DecodeError as problem:
            self.problems.append(f"{place}: {problem}")
        except (ValueError, RecursionError) as problem:
            told = problem if isinstance(problem, InvalidInput) else "this is no whole JSON"
            self.problems.append(f"{place}: {told}")

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the jobs one by one, in the order in which they were met first."""
        for job_id, record in self._records.items():
            job = None if record.job is None else plain.job(_unpack(record.job))
            if record.findings:
                job = _with_findings(job_id, job, map(_unpack, record.findings.values()))
            error = None if record.error is None else LiveAuditError(record.error)
            yield Outcome(job_id=job_id, job=job, error=error)

    def _take(self, value: Any) -> None:
        """Take what a line says; nothing of it counts before all of it was found good."""
        if not isinstance(value, dict):
            raise InvalidInput("this is no result")
        line = cast("dict[str, Any]", value)
        kind = _kind(line)
        if kind in OTHERS:
            return
        job_id = line.get("job_id")
        if not isinstance(job_id, str):
            raise InvalidInput("it has no job_id")
        error = _error(line)
        if kind == "finding" and error is None:
            _found(job_id, line)
            findings = self._record(job_id).findings
            findings[f"{line.get('key') or f'line {len(findings)}'}"] = _pack(line)
            return
        job = line if kind == "job" else line.get("job")
        if job is not None:
            plain.job(job)
            self._record(job_id).job = _pack(job)
        elif error is None:
            raise InvalidInput("it has neither a job nor an error")
        self._record(job_id).error = error

    def _record(self, job_id: str) -> _Record:
        return self._records.setdefault(job_id, _Record())


def _kind(line: Mapping[str, Any]) -> str:
    if line.get("schema", SCHEMA) != SCHEMA:
        raise InvalidInput(f"schema {line['schema']!r:.20} is not known, only {SCHEMA}")
    # What a program wrote with `to_dict()` has none.
    kind = line.get("kind", "job" if "snapshots" in line else "outcome")
    if kind not in [*("job", "outcome", "error", "finding"), *OTHERS]:
        raise InvalidInput(f"the kind {kind!r:.40} is not known")
    return f"{kind}"


def _error(line: Mapping[str, Any]) -> str | None:
    """Return the text of the error in a line; None if there is none, or the job itself says it."""
    error = line.get("error")
    if error is None:
        return None
    named = cast("dict[str, Any]", error if isinstance(error, dict) else {})
    if not isinstance(named.get("text"), str):
        raise InvalidInput("its error has no text")
    return None if named.get("error") == JobFailed.__name__ and line.get("job") else named["text"]


def _pack(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode(), 1)


def _unpack(packed: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(zlib.decompress(packed)))


def _found(job_id: str, line: Mapping[str, Any]) -> AuditJob:
    """Return a job that has nothing but a finding: an item, or its state, or its verdict."""
    snapshot, section = line.get("snapshot"), line.get("audio_section")
    item = snapshot is not None or section is not None
    named = {
        "job_id": job_id,
        "state": line.get("state") or NOT_KNOWN,
        "result": None if item else line.get("verdict"),
        "label": None if item else line.get("label"),
        "snapshots": [] if snapshot is None else [snapshot],
        "audio_sections": [] if section is None else [section],
    }
    return plain.job(named)


def _with_findings(
    job_id: str, job: AuditJob | None, findings: Iterator[Mapping[str, Any]]
) -> AuditJob:
    """Add findings to what is known of a job; what it has of its own stays."""
    whole = job is not None
    found = job or AuditJob(job_id=job_id, state=NOT_KNOWN)
    snapshots = {_identity(item): item for item in found.snapshots}
    sections = {_identity(item): item for item in found.audio_sections}
    for line in findings:
        one = _found(job_id, line)
        for snapshot in one.snapshots:
            snapshots.setdefault(_identity(snapshot), snapshot)
        for section in one.audio_sections:
            sections.setdefault(_identity(section), section)
        if not whole:
            state = found.state if one.state == NOT_KNOWN else one.state
            label = one.label or found.label
            result = found.result if one.result is None else one.result
            found = attrs.evolve(found, state=state, label=label, result=result)
    return attrs.evolve(
        found, snapshots=tuple(snapshots.values()), audio_sections=tuple(sections.values())
    )


def _identity(item: Snapshot | AudioSection) -> tuple[object, ...]:
    """Return what stays the same while URLs are signed anew."""
    time = item.snapshot_time if isinstance(item, Snapshot) else (item.offset_time, item.duration)
    path = None if item.url is None else item.url.partition("?")[0]
    return time, item.label, item.result, path
