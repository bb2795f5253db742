"""What a command says at its end: how many streams it followed, and what was found in them."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ci_live_audit.cli.output import Exit
from ci_live_audit.cli.rows import Row
from ci_live_audit.cli.words import count, cut, is_flagged
from ci_live_audit.errors import WaitTimeout
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.finding import Finding, StateChange, WatchFailed
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import JobState, Verdict

__all__ = ["Tally", "earlier"]

#: Flagged streams that are named at the end.
NAMED = 20
#: Cells of their names.
NAME = 30


@attrs.define
class Tally:
    """Counts streams that are done, and the verdicts and errors among them."""

    done: int = 0
    sensitive: int = 0
    suspected: int = 0
    late: int = 0
    errors: int = 0

    def count(self, outcome: Outcome) -> None:
        """Count an outcome."""
        verdict = outcome.job.result if outcome.job is not None else None
        self.sensitive += verdict == Verdict.SENSITIVE
        self.suspected += verdict == Verdict.SUSPECTED
        self.end(outcome.error)

    def flag(self, verdict: Verdict, *, again: bool) -> None:
        """Count a flagged stream, ``again`` if it was suspected before."""
        is_sensitive = verdict == Verdict.SENSITIVE
        self.sensitive += is_sensitive
        self.suspected += (not is_sensitive) - again

    def end(self, error: Exception | None, *, failed: bool = False) -> None:
        """Count the end of a stream."""
        late = isinstance(error, WaitTimeout)
        self.done += 1
        self.late += late
        self.errors += failed or (error is not None and not late)

    def __str__(self) -> str:
        return (
            f"{self.done:,} done, {self.sensitive:,} sensitive, {self.suspected:,} suspected, "
            f"{count(self.errors, 'error')}, {self.late:,} timed out"
        )

    def exit_code(self, record: Checkpoint | None) -> Exit:
        """Return the exit code of a run that went to its end, earlier parts of it included."""
        before = (record.sensitive + record.suspected, record.errors) if record else (0, 0)
        if self.sensitive or self.suspected or before[0]:
            return Exit.FLAGGED
        if self.errors or before[1]:
            return Exit.ERROR
        return Exit.TIMEOUT if self.late else Exit.OK


@attrs.define
class Findings(Tally):
    """Counts the findings of a run: streams that ended, and each flagged one by its worst finding.

    Attributes:
        hidden: Number of flagged findings that a filter has hidden.
    """

    hidden: int = 0
    _worst: dict[str, tuple[int, int, Row]] = attrs.field(factory=dict[str, tuple[int, int, Row]])

    def add(self, finding: Finding, row: Row) -> None:
        """Count a finding that is shown, with its row."""
        if isinstance(finding, WatchFailed):
            self.end(finding.error)
        elif isinstance(finding, StateChange):
            if finding.job.ended:
                self.end(None, failed=finding.state == JobState.FAILED)
        elif finding.verdict is not None and is_flagged(finding.verdict):
            self._flag(finding.job_id, finding.verdict, finding.score, row)

    def _flag(self, job_id: str, verdict: Verdict, score: int | None, row: Row) -> None:
        severity, number = verdict.severity, -1 if score is None else score
        known = self._worst.get(job_id, (0, -1, row))
        if (severity, number) > known[:2]:
            self._worst[job_id] = severity, number, row
            if severity > known[0]:
                self.flag(verdict, again=known[0] > 0)

    def named(self) -> Iterator[str]:
        """Yield what was worst in each flagged stream, the worst first, with the whole job id."""
        rows = sorted(self._worst.values(), key=lambda one: one[:2], reverse=True)
        for _, _, row in rows[:NAMED]:
            name = "" if row.stream == row.job_id else f"{cut(row.stream, NAME)}: "
            what = " ".join(filter(None, [row.verdict, row.scene, row.score]))
            when = " ".join(filter(None, [row.time, row.offset]))
            yield f"{name}{what} at {when}, job {row.job_id}"
        if len(rows) > NAMED:
            yield f"and {count(len(rows) - NAMED, 'more flagged stream')}"


def earlier(record: Checkpoint) -> str:
    """Return what a checkpoint says of earlier runs."""
    return (
        f"{record.answered:,} already done, {record.sensitive:,} of them sensitive, "
        f"{record.suspected:,} suspected, {count(record.errors, 'error')}"
    )
