"""The commands about single jobs: submit, query, cancel, wait, watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.rows import judged
from ci_live_audit.cli.session import Settings, end_cancellation
from ci_live_audit.cli.shared import opened
from ci_live_audit.cli.status import Status, outage, shown, waiting
from ci_live_audit.cli.tally import Findings, earlier
from ci_live_audit.cli.words import count, is_flagged, name_of, span
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import CredentialsError, LiveAuditError, WaitTimeout
from ci_live_audit.following.checkpoint import Checkpoint
from ci_live_audit.following.finding import Finding, StateChange
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.following.progress import Progress
from ci_live_audit.following.run import Run
from ci_live_audit.following.seen import Seen
from ci_live_audit.following.streams import Stream
from ci_live_audit.models import AuditJob, JobState, Verdict
from ci_live_audit.wire import requests

__all__ = ["cancel", "dry_run", "follow", "query", "show", "submit", "suggest", "wait", "watch"]

#: Jobs that are named when it is said how to watch them.
NAMED = 3


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
    suggest(settings.output, [submitted.job_id])
    return Exit.OK


def suggest(output: Output, job_ids: Sequence[str]) -> None:
    """Say what to do next with jobs that were submitted."""
    if job_ids and not output.json:
        named = job_ids if len(job_ids) <= NAMED else ["JOB_ID..."]
        output.say(f"next: ci-live-audit watch {' '.join(named)}")


async def query(settings: Settings, job_ids: Sequence[str]) -> int:
    """Print what jobs have found so far."""
    flagged, failed = False, False

    async def one(client: LiveAuditClient, job_id: str) -> None:
        nonlocal flagged, failed
        job = await client.query(job_id)
        settings.output.job(job)
        flagged = flagged or settings.output.view.keep.flags(job)
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
        async with run as outcomes, waiting(output, f"waiting for {what} to end"):
            async for outcome in outcomes:
                found.append(outcome)
                _ended(output, outcome)
    jobs = [outcome.job for outcome in found if outcome.job is not None]
    errors = [outcome.error for outcome in found if outcome.error is not None]
    if any(output.view.keep.flags(job) for job in jobs):
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
                settings,
                client,
                run,
                command="watch",
                show_all=show_all,
                cancel_flagged=cancel_flagged,
                record=record.file,
            )
        finally:
            record.tell(settings.output)


async def follow(
    settings: Settings,
    client: LiveAuditClient,
    run: Run[Finding],
    *,
    command: str,
    show_all: bool,
    cancel_flagged: bool,
    record: Checkpoint | None,
    tell: Callable[[], None] = lambda: None,
) -> Exit:
    """Print the findings of a run, and return the exit code: that of all runs on a checkpoint.

    Args:
        settings: Where to print.
        client: What cancels jobs.
        run: The run.
        command: What cancels them, for people.
        show_all: Whether normal findings and states on the way are shown.
        cancel_flagged: Whether jobs with a sensitive finding are cancelled.
        record: The checkpoint.
        tell: Is called when the run has been left, before the summary.
    """
    output = settings.output
    following = _Following(output, client, command, show_all=show_all, cancels=cancel_flagged)
    flagged, code = False, Exit.OK
    if record is not None:
        known = (Seen.from_bytes(record.seen(job_id)) for job_id in record.open)
        flagged = record.sensitive + record.suspected > 0 or any(one.severity for one in known)
        code = Exit.ERROR if record.errors else code
        if record.answered or record.open:
            output.say(f"resuming from the checkpoint: {earlier(record)}")
    interrupted = False
    try:
        async with run as findings:
            status = _Asked(run, following.tally)
            async with shown(output, status.look):
                async for finding in findings:
                    await following.take(finding)
    except asyncio.CancelledError:
        interrupted = True
        end_cancellation()
    finally:
        tell()
        following.summarize(run.progress)
    if interrupted:
        return Exit.INTERRUPTED
    tally = following.tally
    if flagged or tally.sensitive or tally.suspected:
        return Exit.FLAGGED
    if code or tally.errors or following.has_failed:
        return Exit.ERROR
    return Exit.TIMEOUT if tally.late else Exit.OK


class _Following:
    """Prints findings, and cancels what is sensitive if it is to.

    What a filter hides does not count, and cancels nothing.
    """

    def __init__(
        self,
        output: Output,
        client: LiveAuditClient,
        command: str,
        *,
        show_all: bool,
        cancels: bool,
    ) -> None:
        self.tally = Findings()
        #: Whether something could not be cancelled.
        self.has_failed = False
        self._output = output
        self._client = client
        self._command = command
        self._shows_all = show_all
        self._cancels = cancels
        self._cancelled: set[str] = set()

    async def take(self, finding: Finding) -> None:
        """Print a finding if it is to be shown, and do what follows from it."""
        view = self._output.view
        about = judged(finding)
        if about is not None and not view.keep.passes(about):
            self.tally.hidden += is_flagged(finding.verdict)
            return
        row = view.finding(finding, self._output.now())
        self.tally.add(finding, row)
        if self._shows_all or self._is_news(finding):
            self._output.finding(finding, row)
        if self._cancels and finding.verdict == Verdict.SENSITIVE:
            await self._cancel(finding.job_id, finding.job, finding.stream)

    def _is_news(self, finding: Finding) -> bool:
        if isinstance(finding, StateChange):  # for people, its end is
            return self._output.json or finding.job.ended
        return finding.verdict != Verdict.NORMAL

    async def _cancel(self, job_id: str, job: AuditJob, stream: Stream | None) -> None:
        if job.ended or job_id in self._cancelled:
            return
        try:
            await self._client.cancel(job_id)
        except LiveAuditError as error:  # tried again at the next finding
            self._output.say(f"error: {error}")
            self.has_failed = True
        else:
            self._cancelled.add(job_id)
            name = str(stream) if stream is not None else name_of(job)
            named = f"{job_id} ({name})" if name else job_id
            self._output.say(f"cancelled by {self._command}: {named}", prose=True)

    def summarize(self, now: Progress) -> None:
        """Say what was found in all."""
        output, tally = self._output, self.tally
        if not output.json:
            for line in tally.named():
                output.say(line, prose=True)
        hidden = f"{count(tally.hidden, 'flagged finding')} hidden" if tally.hidden else ""
        # What moderate leaves it cancels: that is not open.
        how = "not followed to the end" if self._command == "moderate" else "open"
        left = f"{now.open:,} {how}" if now.open else ""
        parts = ", ".join(filter(None, [str(tally), left, hidden, outage(now.outage)]))
        output.say(f"{parts}; {count(now.requests, 'request')}", prose=True)


class _Asked:
    """What a terminal shows of a run while nothing is found."""

    def __init__(self, run: Run[Finding], tally: Findings) -> None:
        self._run = run
        self._tally = tally
        self._requests = 0
        self._since = asyncio.get_running_loop().time()

    def look(self) -> Status:
        """Return how far the run has come."""
        now, time = self._run.progress, asyncio.get_running_loop().time()
        if now.requests != self._requests:
            self._requests, self._since = now.requests, time
        asked = f"last asked {span(time - self._since)} ago" if now.requests else ""
        soon = now.next_poll is None or now.next_poll < 1
        following = "" if soon else f"next look in {span(now.next_poll or 0)}"
        flagged = f"{self._tally.sensitive + self._tally.suspected:,} flagged"
        parts = [f"{now.open:,} open", flagged, count(now.requests, "request")]
        rest = [outage(now.outage)] if now.outage is not None else [asked, following]
        return Status(", ".join(filter(None, [*parts, *rest])))


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
