"""``poll``: follow many thousands of jobs to their ends, with progress and a summary."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import attrs
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from ci_live_audit.cli import ids
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.session import Settings
from ci_live_audit.errors import ConfigurationError, WaitTimeout
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.outcomes import Outcome, Outcomes, Progress
from ci_live_audit.following.plan import plan
from ci_live_audit.models import Verdict

__all__ = ["poll"]

#: Seconds between two updates of the progress bar, and between two progress lines.
REDRAW, REPORT = 0.5, 10.0


@attrs.define
class _Tally:
    """Counts the outcomes of a run."""

    done: int = 0
    sensitive: int = 0
    suspected: int = 0
    late: int = 0
    errors: int = 0
    interrupted: bool = False

    def count(self, outcome: Outcome) -> None:
        self.done += 1
        verdict = outcome.job.result if outcome.job is not None else None
        self.sensitive += verdict == Verdict.SENSITIVE
        self.suspected += verdict == Verdict.SUSPECTED
        self.late += isinstance(outcome.error, WaitTimeout)
        self.errors += outcome.error is not None and not isinstance(outcome.error, WaitTimeout)

    def __str__(self) -> str:
        return (
            f"{self.done:,} done, {self.sensitive:,} sensitive, "
            f"{self.suspected:,} suspected, {self.errors:,} errors, {self.late:,} timed out"
        )

    def exit_code(self) -> Exit:
        if self.interrupted:
            return Exit.INTERRUPTED
        if self.sensitive or self.suspected:
            return Exit.FLAGGED
        if self.errors:
            return Exit.ERROR
        return Exit.TIMEOUT if self.late else Exit.OK


async def poll(
    settings: Settings,
    job_ids: Sequence[str],
    files: Sequence[Path],
    *,
    interval: float,
    timeout: float | None,
    checkpoint: Path | None,
    dry_run: bool,
) -> int:
    """Follow jobs until all have ended; return the exit code."""
    output = settings.output
    from_input = Path("-") in files or not (job_ids or files)
    if from_input and not files and sys.stdin.isatty():
        raise ConfigurationError("no job ids: pass some, or --file FILE, or pipe them in")
    known = ids.read(job_ids, [path for path in files if path != Path("-")])
    if from_input and dry_run:
        known = [job_id async for job_id in ids.read_input(known)]
    if dry_run or not from_input:
        output.say(str(plan(len(set(known)), interval, rate=settings.rate)), prose=True)
    if dry_run:
        return Exit.OK
    await settings.require_credentials()
    tally = _Tally()
    with nullcontext() if checkpoint is None else Checkpoint(checkpoint) as record:
        if record is not None and (record.answered or record.open):
            output.say(f"resuming from {checkpoint}: {record.answered:,} already done")
        async with settings.client() as client:
            source = ids.read_input(known) if from_input else known
            run = client.as_completed(source, interval=interval, timeout=timeout, checkpoint=record)
            try:
                async with run as outcomes, _progress(output, outcomes, tally):
                    async for outcome in outcomes:
                        output.outcome(outcome)
                        tally.count(outcome)
            except asyncio.CancelledError:
                tally.interrupted = True
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
    left = _known(run.progress) - tally.done
    still_open = f", {left:,} open" if left else ""
    output.say(f"{tally}{still_open}; {run.progress.requests:,} requests", prose=True)
    if tally.interrupted and checkpoint is not None:
        output.say("run the same command to resume")
    return tally.exit_code()


@asynccontextmanager
async def _progress(
    output: Output, outcomes: Outcomes, tally: _Tally
) -> AsyncGenerator[None, None]:
    """Show progress until the context ends: a bar on a terminal, a line now and then elsewhere."""
    console = output.console
    show = _bar if console.is_terminal and not console.is_dumb_terminal else _lines
    display = asyncio.create_task(show(output, outcomes, tally))
    try:
        yield
    finally:
        display.cancel()
        with suppress(asyncio.CancelledError):
            await display


async def _bar(output: Output, outcomes: Outcomes, tally: _Tally) -> None:
    # Shorter than 80 columns, or the ^C that a terminal echoes would wrap to the next line.
    columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
    # Results on the same terminal are printed above the bar.
    shared = sys.stdout.isatty()
    console = output.results if shared else output.console
    bar = Bar(*columns, console=console, transient=True, redirect_stdout=shared)
    with bar:
        task = bar.add_task("", total=None)
        while True:
            now = outcomes.progress
            total = None if now.eta is None else _known(now)
            done = f"{tally.done:,} " + ("done" if total is None else f"of {total:,}")
            flagged = f"{tally.sensitive + tally.suspected:,} flagged"
            errors = f"{tally.errors + tally.late:,} errors"
            text = ", ".join(filter(None, [done, flagged, errors, _eta(now.eta)]))
            bar.update(task, total=total, completed=tally.done, description=text)
            await asyncio.sleep(REDRAW)


async def _lines(output: Output, outcomes: Outcomes, tally: _Tally) -> None:
    while True:
        await asyncio.sleep(REPORT)
        now = outcomes.progress
        parts = [str(tally), f"{_known(now) - tally.done:,} open", _eta(now.eta)]
        output.say(", ".join(filter(None, parts)))


def _known(progress: Progress) -> int:
    """Return the number of ids read so far."""
    return progress.open + progress.ended + progress.failed


def _eta(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"at least {minutes}:{rest:02}"
