"""``poll``: follow many thousands of jobs to their ends, with progress and a summary."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from ci_live_audit.cli import ids
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.results import open_results
from ci_live_audit.cli.session import Settings
from ci_live_audit.cli.shared import opened
from ci_live_audit.errors import LiveAuditError, WaitTimeout
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

    def exit_code(self, record: Checkpoint | None) -> Exit:
        """Return the exit code of a run that went to its end, earlier parts of it included."""
        earlier = (record.sensitive + record.suspected, record.errors) if record else (0, 0)
        if self.sensitive or self.suspected or earlier[0]:
            return Exit.FLAGGED
        if self.errors or earlier[1]:
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
    shared: str | None,
    results: Path | None,
    dry_run: bool,
) -> int:
    """Follow jobs until all have ended; return the exit code."""
    output = settings.output
    known, from_input = ids.gather(job_ids, files)
    if from_input and dry_run:
        known = [job_id async for job_id in ids.read_input(known)]
    if dry_run or not from_input:
        output.say(str(plan(len(set(known)), interval, rate=settings.rate)), prose=True)
    if dry_run:
        return Exit.OK
    await settings.require_credentials()
    async with opened(settings, checkpoint, shared) as opening, AsyncExitStack() as stack:
        record = opening.file
        add = output.outcome if results is None else stack.enter_context(open_results(results)).add
        due = 0
        if record is not None:
            to_do = {*record.open, *(job_id for job_id in known if job_id not in record)}
            due = record.answered + len(to_do)
            if record.answered or record.open:
                output.say(f"resuming from {checkpoint}: {_describe(record)}")
        note = None if record is None else record.take
        source = ids.read_input(known, note) if from_input else known
        async with settings.client(polls=True) as client:
            run = client.as_completed(
                source, interval=interval, timeout=timeout, checkpoint=opening.checkpoint
            )
            tally, stopped = await _follow(run, output, add)
            now = run.progress
        left = _known(now) - tally.done
        if record is not None:  # it knows what was read ahead, and which errors are not for good
            left = max(due - record.answered, len(record.open))
        elif opening.shared is not None:
            left = 0  # it is told apart
        summary = [str(tally), f"{left:,} open" if left else "", _outage(now.outage)]
        output.say(f"{', '.join(filter(None, summary))}; {now.requests:,} requests", prose=True)
        opening.tell(output)
        if stopped is not None and record is not None:
            output.say("run the same command to resume")
        return tally.exit_code(record) if stopped is None else stopped


def _describe(record: Checkpoint) -> str:
    return (
        f"{record.answered:,} already done, {record.sensitive:,} of them sensitive, "
        f"{record.suspected:,} suspected, {record.errors:,} errors"
    )


async def _follow(
    run: Outcomes, output: Output, add: Callable[[Outcome], None]
) -> tuple[_Tally, Exit | None]:
    """Add each outcome to the results; return their numbers, and the exit code of a run cut short.

    Raises:
        BrokenPipeError: The reader of the results has gone.
    """
    tally, stopped = _Tally(), None
    try:
        async with run as outcomes, _progress(output, outcomes, tally):
            async for outcome in outcomes:
                add(outcome)
                tally.count(outcome)
    except asyncio.CancelledError:
        stopped = Exit.INTERRUPTED
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
    except BrokenPipeError:
        raise
    except (LiveAuditError, OSError) as problem:
        stopped = Exit.ERROR
        output.say(f"error: {problem}")
    return tally, stopped


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
            rest = _outage(now.outage) or _eta(now.eta)
            text = ", ".join(filter(None, [done, flagged, errors, rest]))
            bar.update(task, total=total, completed=tally.done, description=text)
            await asyncio.sleep(REDRAW)


async def _lines(output: Output, outcomes: Outcomes, tally: _Tally) -> None:
    while True:
        await asyncio.sleep(REPORT)
        now = outcomes.progress
        rest = _outage(now.outage) or _eta(now.eta)
        parts = [str(tally), f"{_known(now) - tally.done:,} open", rest]
        output.say(", ".join(filter(None, parts)))


def _known(progress: Progress) -> int:
    """Return the number of ids read so far."""
    return progress.open + progress.ended + progress.failed


def _eta(seconds: float | None) -> str:
    return "" if seconds is None else f"at least {_minutes(seconds)}"


def _outage(seconds: float | None) -> str:
    return "" if seconds is None else f"no response for {_minutes(seconds)}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
