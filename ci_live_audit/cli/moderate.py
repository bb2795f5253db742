"""``moderate``, and ``submit`` for many: streams from their URLs on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ci_live_audit.cli import ids, interrupts, jobs
from ci_live_audit.cli.lines import URLS
from ci_live_audit.cli.output import Exit, Output
from ci_live_audit.cli.session import Settings
from ci_live_audit.cli.shared import opened
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.health import Health
from ci_live_audit.following.moderation import Moderation
from ci_live_audit.following.stopping import Cancellation
from ci_live_audit.following.streams import Stream
from ci_live_audit.wire import requests

__all__ = ["moderate", "submit"]

#: Seconds to wait for the answer to a submission when the command is interrupted.
PATIENCE = 20.0


async def moderate(
    settings: Settings,
    urls: Sequence[str],
    files: Sequence[Path],
    *,
    show_all: bool,
    cancel_flagged: bool,
    dry_run: bool,
    at_once: int,
    interval: float,
    timeout: float | None = None,
    checkpoint: Path | None = None,
    shared: str | None = None,
    **options: Any,
) -> int:
    """Print findings as they appear; in the end, cancel what still runs."""
    may_be_empty = checkpoint is not None or shared is not None
    known, from_input = ids.gather(urls, files, URLS, may_be_empty=may_be_empty)
    source = _each(known, from_input=from_input, may_be_empty=may_be_empty or bool(known))
    if dry_run:
        return await _dry_run(settings, source, options)
    await settings.require_credentials()
    async with (
        opened(settings, checkpoint, shared) as record,
        settings.client(polls=True) as client,
    ):
        run = client.moderate(
            source if from_input else list(dict.fromkeys(known)),
            at_once=at_once,
            interval=interval,
            timeout=timeout,
            checkpoint=record.checkpoint,
            **options,
        )
        try:
            with _patience(settings.output, "cancelling what still runs"):
                code = await jobs.follow(
                    settings,
                    client,
                    run,
                    command="moderate",
                    show_all=show_all,
                    cancel_flagged=cancel_flagged,
                    record=record.file,
                    tell=lambda: _tell(settings.output, run),
                )
        finally:
            record.tell(settings.output)
    return Exit.ERROR if run.not_cancelled and code == Exit.OK else code


def _tell(output: Output, run: Moderation) -> None:
    """Say what was cancelled in the end, and what was not."""
    for one in run.cancelled:
        output.say(f"cancelled {_name(one)}", prose=True)
    for one in run.not_cancelled:
        output.say(f"error: {_name(one)} may run on: {one.error}")


def _name(one: Cancellation) -> str:
    return f"{one.job_id} ({one.stream})" if one.job_id else f"a job for {one.stream}"


def _patience(output: Output, what: str) -> contextlib.AbstractContextManager[None]:
    """Return a block that a second Ctrl-C does not cut short, but for a warning."""
    loop = asyncio.get_running_loop()
    warning = f"warning: {what}; Ctrl-C once more leaves it as it is"
    return interrupts.twice(lambda: loop.call_soon_threadsafe(output.say, warning))


async def submit(
    settings: Settings,
    urls: Sequence[str],
    files: Sequence[Path],
    *,
    dry_run: bool,
    **options: Any,
) -> int:
    """Start a job for each stream, and print its id at once."""
    source = _urls(urls, files)
    if dry_run:
        return await _dry_run(settings, source, options)
    if len(urls) == 1 and not files:
        return await jobs.submit(settings, urls[0], **options)
    code, health, job_ids = Exit.OK, Health(), list[str]()
    async with settings.client() as client, aclosing(source) as found:
        async for url in found:
            try:
                job_ids.append(await _submit(settings.output, client, url, options))
            except LiveAuditError as error:
                settings.output.say(f"error: {Stream(url)}: {error}")
                if settings.output.json:
                    settings.output.result("error", {"url": url, "error": error.to_dict()})
                if not health.may_pass(error):
                    health.record_error(error, asyncio.get_running_loop().time(), 1)
                if health.is_fatal(error):  # it would be the same for all
                    raise
                code = Exit.ERROR
            else:
                health.record_success(asyncio.get_running_loop().time())
    jobs.suggest(settings.output, job_ids)
    return code


async def _submit(
    output: Output, client: LiveAuditClient, url: str, options: dict[str, Any]
) -> str:
    """Start a job and return its id; an interrupt waits for the answer, as the job is billed."""
    call = asyncio.create_task(client.submit(url, **options))
    with _patience(output, "waiting for the response to a submission"):
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            await asyncio.wait([call], timeout=PATIENCE)
            if not call.done():
                call.cancel()
                output.say(f"error: {Stream(url)}: there was no answer; a job may run")
            elif (error := call.exception()) is not None:
                output.say(f"error: {Stream(url)}: {error}")
            else:
                jobs.show(output, "submitted", call.result(), url=url)
            raise
    submitted = call.result()
    jobs.show(output, "submitted", submitted, url=url)
    return submitted.job_id


def _urls(
    urls: Sequence[str], files: Sequence[Path], *, may_be_empty: bool = False
) -> AsyncGenerator[str, None]:
    """Return what yields each URL once, those of standard input as they arrive."""
    known, from_input = ids.gather(urls, files, URLS, may_be_empty=may_be_empty)
    return _each(known, from_input=from_input, may_be_empty=may_be_empty or bool(known))


async def _dry_run(
    settings: Settings, urls: AsyncGenerator[str, None], options: dict[str, Any]
) -> int:
    """Print the submissions that would be sent; send nothing."""
    would_send = [requests.submit(url, **options) async for url in urls]
    return await jobs.dry_run(settings, *would_send)


async def _each(
    known: Sequence[str], *, from_input: bool, may_be_empty: bool
) -> AsyncGenerator[str, None]:
    seen = set(known)
    for url in dict.fromkeys(known):
        yield url
    if from_input:
        async with aclosing(ids.read_input((), kind=URLS, may_be_empty=may_be_empty)) as found:
            async for url in found:
                if url not in seen:
                    seen.add(url)
                    yield url
