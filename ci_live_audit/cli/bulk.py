"""``poll``: follow many thousands of jobs to their ends, with progress and a summary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from ci_live_audit.cli import ids
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.results import open_results
from ci_live_audit.cli.session import Settings, end_cancellation
from ci_live_audit.cli.shared import opened
from ci_live_audit.cli.status import Status, outage, shown
from ci_live_audit.cli.tally import Tally, earlier
from ci_live_audit.cli.words import count, elapsed
from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.outcomes import Outcome, Outcomes
from ci_live_audit.following.plan import plan
from ci_live_audit.following.progress import Progress

__all__ = ["poll"]


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
    may_be_empty = checkpoint is not None or shared is not None
    known, from_input = ids.gather(job_ids, files, may_be_empty=may_be_empty)
    if from_input and dry_run:
        known = [job_id async for job_id in ids.read_input(known, may_be_empty=may_be_empty)]
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
            new = to_do.difference(record.open)
            known = [job_id for job_id in known if job_id in new]  # the others it follows anyway
            due = record.answered + len(to_do)
            if record.answered or record.open:
                output.say(f"resuming from {checkpoint}: {earlier(record)}")
        note = None if record is None else record.take
        source = ids.read_input(known, note, may_be_empty=may_be_empty) if from_input else known
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
        open_ = f"{left:,} open" if left else ""
        summary = [str(tally), _so_far(now), open_, outage(now.outage)]
        output.say(
            f"{', '.join(filter(None, summary))}; {count(now.requests, 'request')}", prose=True
        )
        opening.tell(output)
        if stopped is not None and record is not None:
            output.say("run the same command to resume")
        return tally.exit_code(record) if stopped is None else stopped


async def _follow(
    run: Outcomes, output: Output, add: Callable[[Outcome], None]
) -> tuple[Tally, Exit | None]:
    """Add each outcome to the results; return their numbers, and the exit code of a run cut short.

    Raises:
        BrokenPipeError: The reader of the results has gone.
    """
    tally, stopped = Tally(), None
    try:
        async with (
            run as outcomes,
            shown(
                output,
                lambda: _status(run.progress, tally),
                lambda: _report(run.progress, tally),
            ),
        ):
            async for outcome in outcomes:
                add(outcome)
                tally.count(outcome)
    except asyncio.CancelledError:
        stopped = Exit.INTERRUPTED
        end_cancellation()
    except BrokenPipeError:
        raise
    except (LiveAuditError, OSError) as problem:
        stopped = Exit.ERROR
        output.say(f"error: {problem}")
    return tally, stopped


def _status(now: Progress, tally: Tally) -> Status:
    total = None if now.eta is None else _known(now)
    done = f"{tally.done:,} " + ("done" if total is None else f"of {total:,}")
    flagged = f"{tally.sensitive + tally.suspected + now.flagged:,} flagged"
    errors = count(tally.errors + tally.late, "error")
    text = ", ".join(filter(None, [done, flagged, errors, _rest(now)]))
    return Status(text, tally.done, total)


def _report(now: Progress, tally: Tally) -> str:
    parts = [str(tally), _so_far(now), f"{_known(now) - tally.done:,} open", _rest(now)]
    return ", ".join(filter(None, parts))


def _so_far(now: Progress) -> str:
    """Return how many of the jobs that go on are known to be bad."""
    return f"{now.flagged:,} flagged so far" if now.flagged else ""


def _known(progress: Progress) -> int:
    """Return the number of ids read so far."""
    return progress.open + progress.ended + progress.failed


def _rest(now: Progress) -> str:
    eta = "" if now.eta is None else f"at least {elapsed(round(now.eta))}"
    return outage(now.outage) or eta
