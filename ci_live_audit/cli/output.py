"""Printing: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ci_live_audit.cli import interrupts
from ci_live_audit.cli.filters import Filter
from ci_live_audit.cli.layout import FINDINGS, ITEMS, OUTCOMES, Layout, wrapped
from ci_live_audit.cli.rows import Row, View
from ci_live_audit.cli.strip import strip
from ci_live_audit.cli.words import clean, count, date, judgement, name_of
from ci_live_audit.following.finding import Finding
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AuditJob, JobState, Verdict

__all__ = ["Exit", "Output", "Terminal", "to_line"]

SCHEMA = 1
#: The label of what nothing was found in, also of jobs that failed before anybody looked.
NORMAL = Verdict.NORMAL.name.capitalize()
#: Cells of the names of facts, and how many hits are named in one.
NAMES, TOP = 10, 3


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FLAGGED = 3
    TIMEOUT = 4
    INTERRUPTED = interrupts.CODE
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
        #: What of the results people see, and how.
        self.view: View = View()
        #: The time now, for findings that have none.
        self.now: Callable[[], datetime] = partial(datetime.now, UTC)
        #: Where a line at the bottom of the terminal is shown, above which all else goes.
        self.bottom: Console | None = None
        self._layout: Layout | None = None
        self._jobs = 0
        # A progress bar's stand-in for the stream would not say.
        self._terminal: bool = sys.stdout.isatty()
        self._encoding: str = sys.stdout.encoding or "utf-8"
        reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
        if not self.json and reconfigure is not None:
            # Characters that the terminal cannot show are no reason to fail.
            reconfigure(errors="backslashreplace")

    def see(
        self,
        *,
        utc: bool | None = None,
        urls_shown: bool | None = None,
        min_score: int | None = None,
        scene: tuple[str, ...] | None = None,
    ) -> None:
        """Set what of the results people see, by the options of a command."""
        self.view = View(
            zone=UTC if utc else None,
            urls=bool(urls_shown),
            keep=Filter(min_score, scene or ()),
        )

    def say(self, text: str, *, prose: bool = False) -> None:
        """Print a message to standard error.

        Args:
            text: The message.
            prose: Whether a terminal may wrap it between words, as nobody will copy it; true of
                errors and warnings.
        """
        warns = text.startswith(("error: ", "warning: "))
        if self._quiet and not warns:
            return
        console = self.bottom or self.console
        console.print(Text(clean(text)), soft_wrap=not ((prose or warns) and console.is_terminal))

    def result(self, kind: str, value: Mapping[str, Any]) -> None:
        """Print one line of JSON, on a terminal without raw control characters."""
        sys.stdout.write(to_line(kind, value, self._encoding, printable=self._terminal))
        sys.stdout.flush()

    def facts(self, facts: Mapping[str, object]) -> None:
        """Print names and values, one pair a line; on a terminal, long ones on several.

        What has no spaces, such as an id or a URL, is never broken by us.
        """
        room = self.results.width if self.results.is_terminal else 10**6
        names = max([NAMES, *map(len, facts)])
        for name, value in facts.items():
            if value is None:
                continue
            label = Text(f"{name:{names}}  ", style="dim")
            text = clean(value)
            if label.cell_len + cell_len(text) <= room:
                lines = [text]
            elif " " not in text:
                lines = ["", f"  {text}"]
            else:
                first, *more = wrapped(text, room - names - 2)
                lines = [first, *(" " * (names + 2) + line for line in more)]
            self._print(label + Text(lines[0]))
            for line in lines[1:]:
                self._print(Text(line))

    def checked(self, name: str, text: str, *, good: bool) -> None:
        """Print the result of a check on one line."""
        mark = Text("ok  " if good else "FAIL", style="green" if good else "bold red")
        self._print(Text(" ").join([mark, Text(f"{name}:"), Text(clean(text))]))

    def job(self, job: AuditJob) -> None:
        """Print a job: all of it as JSON; for people its facts and its flagged findings."""
        if self.json:
            self.result("job", job.to_dict())
            return
        if self._jobs:
            self.results.print()
        self._jobs += 1
        view, name, worst = self.view, name_of(job), self.view.worst_first(job)
        shown = [view.item(job, item) for item in worst[:TOP]]
        hits = (" ".join(filter(None, [row.scene, row.score, "at", row.time])) for row in shown)
        taken = max(len(job.snapshots), job.snapshot_count or 0)
        if is_whole := taken == len(job.snapshots):
            sounds = count(len(job.audio_sections), "audio section")
            found = f"{count(taken, 'frame')}, {sounds}; {len(worst):,} flagged"
        else:  # of a job that timed out, only the worst items are kept
            found = f"{count(taken, 'frame')}; {len(worst):,} of the flagged are listed"
        self.facts(
            {
                "job": job.job_id,
                "stream": name,
                "state": job.state,
                "verdict": judgement(job),
                "label": None if job.label == NORMAL else job.label,
                "url": job.url,
                "created": None
                if job.creation_time is None
                else date(job.creation_time, view.zone),
                "found": found,
                "reason": _reason(job),
                "worst": "; ".join(hits) if len(worst) > TOP else None,
                "request": job.request_id,
            }
        )
        if is_whole:
            for line in strip(job, self.results.width - NAMES - 2, view.zone):
                self.results.print(Text(" " * (NAMES + 2) + line), soft_wrap=True)
        self._layout = None
        for item in view.flagged(job):
            self._row(view.item(job, item), ITEMS, whole=True)

    def finding(self, finding: Finding, row: Row | None = None) -> None:
        """Print a finding, on one line if it fits; ``row`` if it has been made."""
        if self.json:
            self.result("finding", finding.to_dict())
        else:
            self._row(row or self.view.finding(finding, self.now()), FINDINGS)

    def outcome(self, outcome: Outcome) -> None:
        """Print an outcome: on one line if it fits."""
        if self.json:
            self.result("outcome", outcome.to_dict())
        else:
            self._row(self.view.outcome(outcome), OUTCOMES)

    def _row(self, row: Row, layout: Layout, *, whole: bool = False) -> None:
        """Print a row, and before the first of its kind the header."""
        width, cuts = self.results.width, self.results.is_terminal
        if self._layout is not layout:
            self._layout = layout
            for line in layout.header(width, "UTC" if self.view.zone is UTC else ""):
                self._print(line)
        for line in layout.lines(row, width, cuts=cuts, whole=whole and cuts):
            self._print(line)
        if self.view.urls and row.url:
            self._print(Text(f"  {row.url}"))

    def _print(self, line: Text) -> None:
        """Print a line as it is."""
        self.results.print(line, soft_wrap=True)


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


def _reason(job: AuditJob) -> str | None:
    """Return why a job failed; of others the service may send "Success"."""
    reason = " ".join(filter(None, [job.code, job.message]))
    if job.state == JobState.FAILED:
        return reason or "none was given"
    return None if job.code in {None, "Success"} else reason
