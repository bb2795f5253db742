"""The commands about jobs and streams; with them come the tools.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ci_live_audit.cli import tools
from ci_live_audit.cli.base import ServiceCommand
from ci_live_audit.cli.group import DOCS, MANY, ONE, cli
from ci_live_audit.cli.options import (
    ALL,
    CANCEL,
    CHECKPOINT,
    DRY_RUN,
    INTERVAL,
    JOBS,
    SHARED,
    STREAMS,
    TIMEOUT,
    file,
    files,
    option,
    submission,
)
from ci_live_audit.cli.values import COUNT
from ci_live_audit.cli.views import MIN_SCORE, SCENE, URLS_SHOWN, UTC, view

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

__all__ = ["cli", "tools"]


def _is_no_dry_run(given: Mapping[str, Any]) -> bool:
    return not given.get("dry_run")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@cli.command(
    cls=ServiceCommand,
    section=ONE,
    docs=f"{DOCS}/49340",
    examples=[
        "submit rtmp://live.example.com/app/room7 --biz-type b81d45f9",
        "submit --file rooms.txt | ci-live-audit watch",
    ],
)
@STREAMS
@submission
@DRY_RUN
def submit(
    settings: Settings, urls: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Start a job for each live stream. It is billed until it ends or is cancelled.

    A URL that is given twice is submitted once.
    """
    from ci_live_audit.cli import moderate

    return moderate.submit(settings, urls, files, **_given(options))


@cli.command(
    cls=ServiceCommand,
    section=ONE,
    docs=f"{DOCS}/49342",
    examples=["query av0123 av4567", "query --file ids.txt --output json"],
)
@JOBS
@DRY_RUN
@view(UTC, URLS_SHOWN, MIN_SCORE, SCENE)
def query(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], dry_run: bool
) -> Awaitable[int]:
    """Show what jobs have found so far."""
    from ci_live_audit.cli import ids, jobs
    from ci_live_audit.wire import requests

    async def run(found: list[str]) -> int:
        if dry_run:
            return await jobs.dry_run(settings, *map(requests.query, found))
        return await jobs.query(settings, found)

    return ids.given(job_ids, files, run)


@cli.command(
    cls=ServiceCommand,
    section=ONE,
    examples=["wait av0123 --timeout 3600"],
)
@JOBS
@INTERVAL
@TIMEOUT
@view(UTC, URLS_SHOWN, MIN_SCORE, SCENE)
def wait(
    settings: Settings,
    job_ids: tuple[str, ...],
    files: tuple[Path, ...],
    interval: float,
    timeout: float | None,
) -> Awaitable[int]:
    """Wait until jobs have ended, and show each when it has."""
    from ci_live_audit.cli import ids, jobs

    async def run(found: list[str]) -> int:
        return await jobs.wait(settings, found, interval, timeout)

    return ids.given(job_ids, files, run)


@cli.command(
    cls=ServiceCommand,
    section=ONE,
    docs=f"{DOCS}/49341",
    examples=["cancel av0123", "cancel --file ids.txt --dry-run"],
)
@JOBS
@DRY_RUN
def cancel(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], dry_run: bool
) -> Awaitable[int]:
    """Cancel jobs."""
    from ci_live_audit.cli import ids, jobs
    from ci_live_audit.wire import requests

    async def run(found: list[str]) -> int:
        if dry_run:
            return await jobs.dry_run(settings, *map(requests.cancel, found))
        return await jobs.cancel(settings, found)

    return ids.given(job_ids, files, run)


@cli.command(
    cls=ServiceCommand,
    section=MANY,
    examples=[
        "moderate rtmp://live.example.com/app/room7 --cancel",
        "moderate --file rooms.txt --checkpoint rooms.checkpoint",
    ],
)
@STREAMS
@submission
@option("--at-once", type=COUNT, default=10, help="Number of streams that run at the same time.")
@INTERVAL
@TIMEOUT
@ALL
@CANCEL
@file("--checkpoint", "File that knows of each stream before it is submitted, in case of a kill.")
@SHARED
@DRY_RUN
@view(UTC, URLS_SHOWN, MIN_SCORE, SCENE)
def moderate(
    settings: Settings, urls: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Submit live streams, and show their findings until they end.

    URLs are read from arguments, files and standard input, the next one when there is room
    for it. Jobs that still run are cancelled in the end, also after Ctrl-C.
    """
    from ci_live_audit.cli import moderate as streams

    return streams.moderate(settings, urls, files, **_given(options))


@cli.command(
    cls=ServiceCommand,
    section=MANY,
    examples=["watch av0123 av4567 --cancel", "watch --file ids.txt --timeout 3600 > night.jsonl"],
)
@JOBS
@INTERVAL
@TIMEOUT
@ALL
@CANCEL
@CHECKPOINT
@SHARED
@DRY_RUN
@view(UTC, URLS_SHOWN, MIN_SCORE, SCENE)
def watch(
    settings: Settings,
    job_ids: tuple[str, ...],
    files: tuple[Path, ...],
    dry_run: bool,
    **options: Any,
) -> Awaitable[int]:
    """Show the findings of jobs as they appear, until the jobs end."""
    from ci_live_audit.cli import ids, jobs
    from ci_live_audit.wire import requests

    async def run(found: list[str]) -> int:
        if dry_run:
            return await jobs.dry_run(settings, *map(requests.query, found))
        return await jobs.watch(settings, found, **options)

    may_be_empty = options["checkpoint"] is not None or options["shared"] is not None
    return ids.given(job_ids, files, run, may_be_empty=may_be_empty)


@cli.command(
    cls=ServiceCommand,
    section=MANY,
    calls=_is_no_dry_run,
    examples=[
        "poll --file ids.txt --dry-run",
        "poll --file ids.txt --checkpoint night.checkpoint",
    ],
)
@JOBS
@INTERVAL
@TIMEOUT
@CHECKPOINT
@SHARED
@file(
    "--results",
    "File to which outcomes are appended as JSON Lines, in place of standard output.",
)
@option("--dry-run", is_flag=True, help="Show the plan, but send nothing.")
@view(UTC)
def poll(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Follow many jobs until they have ended.

    Prints one outcome per job, in the order in which they end. Ids are read from arguments,
    files and standard input.
    """
    from ci_live_audit.cli import bulk

    return bulk.poll(settings, job_ids, files, **options)


def _queries(given: Mapping[str, Any]) -> bool:
    """Return whether a report queries jobs: it may be made of files alone."""
    return bool(given.get("job_ids") or given.get("files") or not given.get("recorded"))


@cli.command(
    cls=ServiceCommand,
    section=MANY,
    calls=_queries,
    examples=["report av0123 av4567", "report --from night.jsonl -o night.html"],
)
@JOBS
@files(
    *("--from", "recorded"),
    text="File of JSON Lines that query, watch or poll wrote; - is standard input.",
)
@option(
    *("-o", "--output", "path"),
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    default="report.html",
    help="File to write; - is standard output.",
)
@option("--title", default="Live stream moderation", help="Title of the page.")
def report(
    settings: Settings,
    job_ids: tuple[str, ...],
    files: tuple[Path, ...],
    recorded: tuple[Path, ...],
    **options: Any,
) -> Awaitable[int]:
    """Make a page for people of what jobs have found.

    Jobs are queried, or read from files. Links to pictures and sounds work for two hours after
    the query.
    """
    from ci_live_audit.cli import ids
    from ci_live_audit.cli.report import report as make

    async def run(found: list[str]) -> int:
        return await make(settings, found, recorded, **options)

    if Path("-") in files and Path("-") in recorded:
        raise click.UsageError("--file and --from cannot both be standard input.")
    if not (job_ids or files) and recorded:
        return run([])
    return ids.given(job_ids, files, run)
