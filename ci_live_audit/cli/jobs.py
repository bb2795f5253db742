"""The commands about single jobs: submit, query, cancel, wait, watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ci_live_audit.cli.output import Exit, Output, is_flagged
from ci_live_audit.cli.session import Settings
from ci_live_audit.cli.shared import opened
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import CredentialsError, JobFailed, LiveAuditError, WaitTimeout
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.finding import Finding, StateChange, WatchFailed
from ci_live_audit.following.run import Run
from ci_live_audit.following.seen import Seen
from ci_live_audit.models import AuditJob, JobState, Verdict
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


async def wait(settings: Settings, job_id: str, interval: float, timeout: float | None) -> int:
    """Wait until a job has ended, and print it."""
    output = settings.output
    error: LiveAuditError | None = None
    try:
        async with (
            settings.client(polls=True) as client,
            _status(output, f"waiting for {job_id} to end"),
        ):
            job: AuditJob | None = await client.wait(job_id, interval=interval, timeout=timeout)
    except JobFailed as failed:
        job, error = failed.job, failed
    except WaitTimeout as timed_out:
        job, error = timed_out.last, timed_out
    if job is not None:
        output.job(job)
    if error is not None:
        output.say(f"error: {error}")
    if job is not None and is_flagged(job.result):
        return Exit.FLAGGED
    if error is None:
        return Exit.OK
    return Exit.TIMEOUT if isinstance(error, WaitTimeout) else Exit.ERROR


async def watch(
    settings: Settings,
    job_ids: Sequence[str],
    *,
    interval: float,
    timeout: float | None,
    show_all: bool,
    cancel_flagged: bool,
    checkpoint: Path | None,
    shared: str | None,
) -> int:
    """Print findings as they appear."""
    await settings.require_credentials()
    async with (
        opened(settings, checkpoint, shared) as record,
        settings.client(polls=True) as client,
    ):
        run = client.watch(list(job_ids), interval, timeout, checkpoint=record.checkpoint)
        try:
            return await follow(
                settings.output,
                client,
                run,
                show_all=show_all,
                cancel_flagged=cancel_flagged,
                record=record.file,
            )
        finally:
            record.tell(settings.output)


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
