"""What is printed: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ci_live_audit.following.findings import Finding
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AudioSection, AuditJob, Snapshot, Verdict

__all__ = ["STYLES", "Exit", "Output", "Terminal", "severity"]

STYLES = {Verdict.SENSITIVE: "bold red", Verdict.SUSPECTED: "yellow"}
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
    """A console that leaves it to the command what happens when its reader has gone."""

    def on_broken_pipe(self) -> None:
        """Called where the error is handled."""
        raise  # noqa: PLE0704


class Output:
    """Prints for people or for programs.

    Args:
        style: ``"table"``, ``"json"``, or ``"auto"``: a table on a terminal, JSON Lines elsewhere.
    """

    def __init__(self, style: str = "auto") -> None:
        self.console: Console = Terminal(stderr=True, highlight=False, soft_wrap=True)
        self.results: Console = Terminal(highlight=False, soft_wrap=True)
        self.json: bool = style == "json" or (style == "auto" and not sys.stdout.isatty())
        reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
        if not self.json and reconfigure is not None:
            # What the terminal has no letters for is no reason to fail.
            reconfigure(errors="backslashreplace")

    def say(self, text: str, style: str | None = None, *, prose: bool = False) -> None:
        """Tell the person at the terminal something that is no result.

        Args:
            text: What.
            style: How.
            prose: Whether a terminal may break it between words: nobody will copy it.
        """
        soft_wrap = not (prose and self.console.is_terminal)
        self.console.print(_clean(text), style=style or "", soft_wrap=soft_wrap)

    def result(self, kind: str, value: Mapping[str, Any]) -> None:
        """One line of JSON."""
        line = {"schema": SCHEMA, "kind": kind, **value}
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
        try:
            text.encode(sys.stdout.encoding or "utf-8")  # a bar's stand-in has none
        except UnicodeEncodeError:
            text = json.dumps(line, allow_nan=False, default=str)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def facts(self, facts: Mapping[str, object]) -> None:
        """Names and values, one to a line."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            if value is not None:
                table.add_row(name, _clean(value))
        self.results.print(table)

    def checked(self, name: str, text: str, *, good: bool) -> None:
        """Something that was checked, on a line."""
        mark = Text("ok  " if good else "FAIL", style="green" if good else "bold red")
        self.results.print(Text(" ").join([mark, Text(f"{name}:"), _clean(text)]))

    def job(self, job: AuditJob) -> None:
        """A job: all of it as JSON; for people what it is and what was flagged in it."""
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
                "frames, sounds": f"{len(job.snapshots)}, {len(job.audio_sections)}",
                "reason": " ".join(filter(None, [job.code, job.message])) or None,
                "request": job.request_id,
            }
        )
        found: list[Snapshot | AudioSection] = [*job.snapshots, *job.audio_sections]
        flagged = [item for item in found if severity(item.result)]
        if flagged:
            self._table(
                ("what", "time", "verdict", "label", "text"),
                [
                    (
                        type(item).__name__,
                        _moment(item),
                        _word(item.result),
                        item.label,
                        item.text,
                    )
                    for item in flagged
                ],
                [STYLES.get(item.result or Verdict.NORMAL) for item in flagged],
            )

    def _table(
        self,
        columns: Iterable[str],
        rows: Iterable[tuple[Any, ...]],
        styles: Iterable[str | None],
    ) -> None:
        table = Table(box=None, pad_edge=False)
        for name in columns:
            table.add_column(name, overflow="fold")
        for row, style in zip(rows, styles, strict=True):
            table.add_row(*("" if cell is None else _clean(cell) for cell in row), style=style)
        self.results.print(table)

    def finding(self, finding: Finding) -> None:
        """A finding, on a line."""
        if self.json:
            self.result("finding", finding.to_dict())
            return
        what = finding.snapshot or finding.audio_section
        parts = [
            finding.job_id,
            finding.state or (finding.error and f"error: {finding.error}"),
            what and type(what).__name__,
            finding.time,
            _word(finding.verdict),
            finding.label if finding.verdict is not None else None,
            what and what.text,
        ]
        self._line(parts, STYLES.get(finding.verdict or Verdict.NORMAL))

    def outcome(self, outcome: Outcome) -> None:
        """An outcome, on a line."""
        if self.json:
            self.result("outcome", outcome.to_dict())
            return
        job = outcome.job
        if job is None:
            self._line([outcome.job_id, "error:", outcome.error], "red")
            return
        self._line(
            [
                job.job_id,
                job.state,
                _word(job.result),
                job.label if severity(job.result) else None,
                job.message,
            ],
            STYLES.get(job.result or Verdict.NORMAL),
        )

    def _line(self, parts: Iterable[object], style: str | None) -> None:
        texts = [_clean(part) for part in parts if part is not None and part != ""]
        self.results.print(Text("  ").join(texts), style=style)


def severity(verdict: Verdict | None) -> int:
    """0 for what is normal or not judged, 1 for suspected, 2 for sensitive."""
    return {Verdict.SUSPECTED: 1, Verdict.SENSITIVE: 2}.get(verdict or Verdict.NORMAL, 0)


def _clean(value: object) -> Text:
    """A text without what a terminal would take for a command: some of it comes from streams."""
    return Text("".join(one if one.isprintable() else "\ufffd" for one in str(value)))


def _word(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return None
    return verdict.name.capitalize() if verdict in list(Verdict) else f"verdict {verdict.value}"


def _moment(item: Snapshot | AudioSection) -> int | None:
    return item.snapshot_time if isinstance(item, Snapshot) else item.offset_time
