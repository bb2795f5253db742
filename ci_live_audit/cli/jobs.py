"""The commands about single jobs: submit, query, cancel, wait, watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ci_live_audit.cli.output import Exit, Output, is_flagged
from ci_live_audit.cli.session import Settings, opened
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import CredentialsError, LiveAuditError, WaitTimeout
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.finding import Finding, StateChange, WatchFailed
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.following.run import Run
from ci_live_audit.following.seen import Seen
from ci_live_audit.models import JobState, Verdict
from ci_live_audit.wire import requests

__all__ = ["cancel", "dry_run", "follow", "query", "show", "submit", "wait", "watch"]


async def dry_run(settings: Settings, *would_send: requests.Request) -> int:
    """Print the requests that would be sent; send nothing."""
    base_url = settings.base_url()
    for request in would_send:
        settings.output.say(f"{request.method} {base_url}{request.path}")
        for name, value in request.headers.items():
            settings.output.say(f"{name}: {value}")
        settings.output.say("authorization: (signed when sent)")
        if request.body:
            for line in ["", *request.body.decode().split("\n")]:
                settings.output.say(line)
    return Exit.OK


async def submit(settings: Settings, url: str, **arguments: Any) -> int:
    """Start a job and print its id."""
    async with settings.client() as client:
        submitted = await client.submit(url, **arguments)
    show(settings.output, "submitted", submitted)
    return Exit.OK


async def query(settings: Settings, job_ids: Sequence[str]) -> int:
    """Print what jobs have found so far."""
    flagged, failed = False, False

    async def one(client: LiveAuditClient, job_id: str) -> None:
        nonlocal flagged, failed
        job = await client.query(job_id)
        settings.output.job(job)
        flagged = flagged or is_flagged(job.result)
        failed = failed or job.state == JobState.FAILED

    code = await _each(settings, job_ids, one)
    if flagged:
        return Exit.FLAGGED
    return Exit.ERROR if failed else code


async def cancel(settings: Settings, job_ids: Sequence[str]) -> int:
    """Cancel jobs."""

    async def one(client: LiveAuditClient, job_id: str) -> None:
        show(settings.output, "cancelled", await client.cancel(job_id))

    return await _each(settings, job_ids, one)


async def wait(
    settings: Settings, job_ids: Sequence[str], interval: float, timeout: float | None
) -> int:
    """Wait until jobs have ended, and print each when it has."""
    await settings.require_credentials()
    output, found = settings.output, list[Outcome]()
    what = job_ids[0] if len(job_ids) == 1 else f"{len(job_ids):,} jobs"
    async with settings.client(polls=True) as client:
        run = client.as_completed(job_ids, interval=interval, timeout=timeout)
        async with _status(output, f"waiting for {what} to end"), run as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                if len(job_ids) > 1:
                    _ended(output, outcome)
    if len(job_ids) == 1:  # the spinner has gone
        _ended(output, found[0])
    jobs = [outcome.job for outcome in found if outcome.job is not None]
    errors = [outcome.error for outcome in found if outcome.error is not None]
    if any(is_flagged(job.result) for job in jobs):
        return Exit.FLAGGED
    if not errors:
        return Exit.OK
    late = all(isinstance(error, WaitTimeout) for error in errors)
    return Exit.TIMEOUT if late else Exit.ERROR


def _ended(output: Output, outcome: Outcome) -> None:
    """Print a job that has ended, or was seen last, and say why it is not known how it ended."""
    if outcome.job is not None:
        output.job(outcome.job)
    if outcome.error is not None:
        output.say(f"error: {outcome.error}")


async def watch(
    settings: Settings,
    job_ids: Sequence[str],
    *,
    interval: float,
    timeout: float | None,
    show_all: bool,
    cancel_flagged: bool,
    checkpoint: Path | None,
) -> int:
    """Print findings as they appear."""
    await settings.require_credentials()
    with opened(checkpoint) as record:
        async with settings.client(polls=True) as client:
            run = client.watch(list(job_ids), interval, timeout, checkpoint=record)
            return await follow(
                settings.output,
                client,
                run,
                show_all=show_all,
                cancel_flagged=cancel_flagged,
                record=record,
            )


async def follow(
    output: Output,
    client: LiveAuditClient,
    run: Run[Finding],
    *,
    show_all: bool,
    cancel_flagged: bool,
    record: Checkpoint | None,
) -> Exit:
    """Print the findings of a run, and return the exit code: that of all runs on a checkpoint."""
    flagged, code = False, Exit.OK
    cancelled: set[str] = set()
    if record is not None:
        known = (Seen.from_bytes(record.seen(job_id)) for job_id in record.open)
        flagged = record.sensitive + record.suspected > 0 or any(one.severity for one in known)
        code = Exit.ERROR if record.errors else code
    async with run as findings:
        async for finding in findings:
            flagged = flagged or is_flagged(finding.verdict)
            if isinstance(finding, WatchFailed):
                timed_out = isinstance(finding.error, WaitTimeout)
                code = Exit.TIMEOUT if timed_out and code != Exit.ERROR else Exit.ERROR
            if isinstance(finding, StateChange) and finding.state == JobState.FAILED:
                code = Exit.ERROR
            if show_all or finding.verdict != Verdict.NORMAL:
                output.finding(finding)
            if not cancel_flagged or finding.job_id in cancelled:
                continue
            if finding.verdict == Verdict.SENSITIVE and not finding.job.ended:
                try:
                    await client.cancel(finding.job_id)
                except LiveAuditError as error:  # tried again at the next finding
                    output.say(f"error: {error}")
                    code = Exit.ERROR
                else:
                    cancelled.add(finding.job_id)
    return Exit.FLAGGED if flagged else code


async def _each(
    settings: Settings,
    job_ids: Sequence[str],
    one: Callable[[LiveAuditClient, str], Awaitable[None]],
) -> Exit:
    """Call a function for every job, even if it fails for some."""
    code = Exit.OK
    async with settings.client() as client:
        for job_id in job_ids:
            try:
                await one(client, job_id)
            except CredentialsError:  # it would be the same for all
                raise
            except LiveAuditError as error:
                settings.output.say(f"error: {error}")
                if settings.output.json:
                    failure = {"job_id": job_id, "error": error.to_dict()}
                    settings.output.result("error", failure)
                code = Exit.ERROR
    return code


def show(output: Output, kind: str, result: Any, **more: str) -> None:
    """Print the result of a submission or a cancellation, and what else is known."""
    if output.json:
        output.result(kind, {**more, **result.to_dict()})
    else:
        facts = {"job": result.job_id, "state": result.state, "request": result.request_id}
        output.facts({**more, **facts})


@asynccontextmanager
async def _status(output: Output, text: str) -> AsyncGenerator[None, None]:
    if output.console.is_terminal:
        with output.spinner(text):
            yield
    else:
        output.say(text)
        yield
