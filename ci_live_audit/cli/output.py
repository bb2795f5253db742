"""Printing: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ci_live_audit.errors import WaitTimeout
from ci_live_audit.following.finding import (
    AudioFinding,
    Finding,
    SnapshotFinding,
    StateChange,
    VerdictChange,
)
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AudioSection, AuditJob, Snapshot, Verdict

__all__ = ["STYLES", "Exit", "Output", "Terminal", "is_flagged", "show_cursor", "to_line"]

STYLES: dict[Verdict | None, str] = {Verdict.SENSITIVE: "bold red", Verdict.SUSPECTED: "yellow"}
SCHEMA = 1


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FLAGGED = 3
    TIMEOUT = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class Terminal(Console):
    """A console that lets the command handle a closed pipe."""

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        raise  # noqa: PLE0704


class Output:
    """Prints for people or for programs.

    Args:
        style: ``"table"``, ``"json"``, or ``"auto"``: a table on a terminal, JSON Lines elsewhere.
        quiet: Whether messages are left out that are no errors and no warnings, and progress.
    """

    def __init__(self, style: str = "auto", *, quiet: bool = False) -> None:
        shown = False if quiet else None  # no terminal, no progress
        self.console: Console = Terminal(
            stderr=True, highlight=False, soft_wrap=True, force_terminal=shown
        )
        self._quiet = quiet
        self.results: Console = Terminal(highlight=False, soft_wrap=True)
        self.json: bool = style == "json" or (style == "auto" and not sys.stdout.isatty())
        # A progress bar's stand-in for the stream would not say.
        self._terminal: bool = sys.stdout.isatty()
        self._encoding: str = sys.stdout.encoding or "utf-8"
        reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
        if not self.json and reconfigure is not None:
            # Characters that the terminal cannot show are no reason to fail.
            reconfigure(errors="backslashreplace")

    def say(self, text: str, *, prose: bool = False) -> None:
        """Print a message to standard error.

        Args:
            text: The message.
            prose: Whether a terminal may wrap it between words, as nobody will copy it.
        """
        if self._quiet and not text.startswith(("error: ", "warning: ")):
            return
        self.console.print(_clean(text), soft_wrap=not (prose and self.console.is_terminal))

    def spinner(self, text: str) -> Status:
        """Return a spinner beside a message, for a terminal of standard error."""
        return self.console.status(_clean(text))

    def result(self, kind: str, value: Mapping[str, Any]) -> None:
        """Print one line of JSON, on a terminal without raw control characters."""
        sys.stdout.write(to_line(kind, value, self._encoding, printable=self._terminal))
        sys.stdout.flush()

    def facts(self, facts: Mapping[str, object]) -> None:
        """Print names and values, one pair a line."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            if value is not None:
                table.add_row(name, _clean(value))
        self.results.print(table)

    def checked(self, name: str, text: str, *, good: bool) -> None:
        """Print the result of a check on one line."""
        mark = Text("ok  " if good else "FAIL", style="green" if good else "bold red")
        self.results.print(Text(" ").join([mark, Text(f"{name}:"), _clean(text)]))

    def job(self, job: AuditJob) -> None:
        """Print a job: all of it as JSON; for people its facts and its flagged findings."""
        if self.json:
            self.result("job", job.to_dict())
            return
        self.facts(
            {
                "job": job.job_id,
                "state": job.state,
                "verdict": _word(job.result),
                "label": job.label,
                "data id": job.data_id,
                "stream": job.url,
                "created": job.creation_time,
                "frames, audio": f"{len(job.snapshots)}, {len(job.audio_sections)}",
                "reason": " ".join(filter(None, [job.code, job.message])) or None,
                "request": job.request_id,
            }
        )
        found: list[Snapshot | AudioSection] = [*job.snapshots, *job.audio_sections]
        flagged = [item for item in found if is_flagged(item.result)]
        if not flagged:
            return
        table = Table(box=None, pad_edge=False)
        for name in ("finding", "time", "verdict", "label", "text"):
            table.add_column(name, overflow="fold")
        for item in flagged:
            time = item.snapshot_time if isinstance(item, Snapshot) else item.offset_time
            cells = (type(item).__name__, time, _word(item.result), item.label, item.text)
            texts = ("" if cell is None else _clean(cell) for cell in cells)
            table.add_row(*texts, style=STYLES.get(item.result))
        self.results.print(table)

    def finding(self, finding: Finding) -> None:
        """Print a finding on one line."""
        if self.json:
            self.result("finding", finding.to_dict())
            return
        judged: list[object] = []
        if finding.verdict is not None:
            judged = [_word(finding.verdict), finding.label]
        match finding:
            case SnapshotFinding(snapshot=item) | AudioFinding(audio_section=item):
                parts = [type(item).__name__, finding.time, *judged, item.text]
            case VerdictChange():
                parts = judged
            case StateChange():
                parts = [finding.state]
            case _:
                parts = [f"error: {finding.error}"]
        self._line([finding.job_id, *parts], STYLES.get(finding.verdict))

    def outcome(self, outcome: Outcome) -> None:
        """Print an outcome on one line."""
        if self.json:
            self.result("outcome", outcome.to_dict())
            return
        job = outcome.job
        if job is None:
            self._line([outcome.job_id, "error:", outcome.error], "red")
            return
        label = job.label if is_flagged(job.result) else None
        late = "timed out" if isinstance(outcome.error, WaitTimeout) else None
        parts = [job.job_id, job.state, _word(job.result), label, job.message, late]
        self._line(parts, STYLES.get(job.result))

    def _line(self, parts: Iterable[object], style: str | None) -> None:
        texts = [_clean(part) for part in parts if part is not None and part != ""]
        self.results.print(Text("  ").join(texts), style=style)


def to_line(
    kind: str, value: Mapping[str, Any], encoding: str = "utf-8", *, printable: bool = False
) -> str:
    """Return one line of JSON; characters that the encoding does not have are escaped.

    Args:
        kind: What the value is.
        value: Plain values, as of ``to_dict()``.
        encoding: Of the stream to which the line goes.
        printable: Whether characters that a terminal may obey are escaped, too.
    """
    fields = {"schema": SCHEMA, "kind": kind, **value}
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=str)
    if printable and not text.isprintable():
        text = "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(fields, allow_nan=False, default=str)
    return text + "\n"


def show_cursor() -> None:
    """Show the cursor of the terminal, which a progress bar hides."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            Console(file=stream).show_cursor()


def is_flagged(verdict: Verdict | None) -> bool:
    """Return whether a verdict is suspected or sensitive."""
    return verdict is not None and verdict.severity > 0


def _clean(value: object) -> Text:
    """Return a text without control characters, as some texts come from streams."""
    return Text("".join(one if one.isprintable() else "\ufffd" for one in str(value)))


def _word(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return None
    return verdict.name.capitalize() if verdict in list(Verdict) else f"verdict {verdict.value}"
