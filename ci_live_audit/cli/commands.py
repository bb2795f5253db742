"""The commands of ``ci-live-audit``.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from ci_live_audit._version import __version__
from ci_live_audit.cli.base import AsyncCommand, Commands, ServiceCommand, StandardError

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

__all__ = ["StandardError", "cli"]

EXIT_CODES = """\b
Exit codes: 0 success; 1 something failed; 2 wrong usage; 3 something was
flagged (sensitive or suspected); 4 a job did not end in time; 130 interrupted;
141 the reader of the results has gone."""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=EXIT_CODES,
)
@click.version_option(__version__)
@click.option(
    "-v",
    "--verbose",
    count=True,
    show_default=False,
    help="Log attempts to standard error; -vv logs everything.",
)
def cli(verbose: int) -> None:
    """Manage live stream moderation jobs of Tencent Cloud CI.

    Credentials are found as by Tencent Cloud's own tools: in the environment
    (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY), in their profiles, or from the role
    of a CVM.
    """
    if verbose:
        import logging

        logging.basicConfig(format="%(asctime)s %(name)s %(message)s", stream=StandardError())
        logging.getLogger("ci_live_audit" if verbose == 1 else None).setLevel(logging.DEBUG)


Option: TypeAlias = Callable[[Any], Any]

INTERVAL = click.option("--interval", default=10.0, help="Seconds between two queries of a job.")
TIMEOUT = click.option("--timeout", type=float, help="Seconds after which to give up on a job.")
SHOW_ALL = click.option("--all", "show_all", is_flag=True, help="Show normal findings as well.")
CANCEL = click.option(
    "--cancel",
    "cancel_flagged",
    is_flag=True,
    help="Cancel the job of a stream that is found sensitive.",
)


def _file(name: str, text: str, **options: Any) -> Option:
    """Return the option of a file to write."""
    path = click.Path(path_type=Path, dir_okay=False)
    return click.option(name, type=path, help=text, **options)


def _files(*names: str, text: str) -> Option:
    """Return the option of files to read, of which one may be standard input."""
    path = click.Path(path_type=Path, allow_dash=True, dir_okay=False, exists=True)
    return click.option(*names, "files", multiple=True, type=path, help=text)


def _port(default: int) -> Option:
    """Return the options of an address to listen on."""
    number = click.IntRange(0, 65535)
    text = "Port to listen on; 0 takes a free one."
    port = click.option("--port", type=number, default=default, help=text)
    host = click.option("--host", default="127.0.0.1", help="Address to listen on.")
    return lambda command: host(port(command))


CHECKPOINT = _file(
    "--checkpoint", "File that records what is done, so that the same command can resume."
)
SHARED = click.option(
    "--shared",
    metavar="NAME",
    help="Share the work with all processes that have the same NAME, through --redis.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the requests, but send nothing.")
JOB_IDS = click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")


URLS = click.argument("urls", nargs=-1, metavar="[URL]...")
URL_FILES = _files(
    *("-f", "--file"),
    text="File of URLs, one a line, or of JSON Lines with a url; - is standard input.",
)


def _submission(command: Any) -> Any:
    """Add the options of a submission."""
    for option in (
        click.option("--storage-path", help="Path in the bucket where the stream is recorded."),
        click.option(
            "--callback-type",
            type=int,
            help="1 to be called with all results, 2 with violations only.",
        ),
        click.option("--callback", help="URL that the service calls with results."),
        click.option("--data-id", help="Your own id, returned with all results."),
        click.option("--biz-type", help="Id of the moderation policy to apply."),
    ):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@cli.command(cls=ServiceCommand)
@URLS
@URL_FILES
@_submission
@DRY_RUN
def submit(
    settings: Settings, urls: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Start a job for each live stream. It is billed until it ends or is cancelled.

    A URL that is given twice is submitted once.
    """
    from ci_live_audit.cli import moderate

    if not (urls or files):
        raise click.UsageError("Missing argument 'URL...', or --file.")
    return moderate.submit(settings, urls, files, **_given(options))


@cli.command(cls=ServiceCommand)
@JOB_IDS
@DRY_RUN
def query(settings: Settings, job_ids: tuple[str, ...], dry_run: bool) -> Awaitable[int]:
    """Show what jobs have found so far."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    if dry_run:
        return jobs.dry_run(settings, *map(requests.query, job_ids))
    return jobs.query(settings, job_ids)


@cli.command(cls=ServiceCommand)
@JOB_IDS
@DRY_RUN
def cancel(settings: Settings, job_ids: tuple[str, ...], dry_run: bool) -> Awaitable[int]:
    """Cancel jobs."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    if dry_run:
        return jobs.dry_run(settings, *map(requests.cancel, job_ids))
    return jobs.cancel(settings, job_ids)


@cli.command(cls=ServiceCommand)
@click.argument("job_id")
@INTERVAL
@TIMEOUT
def wait(settings: Settings, job_id: str, interval: float, timeout: float | None) -> Awaitable[int]:
    """Wait until a job has ended, then show it."""
    from ci_live_audit.cli import jobs

    return jobs.wait(settings, job_id, interval, timeout)


@cli.command(cls=ServiceCommand)
@JOB_IDS
@INTERVAL
@TIMEOUT
@SHOW_ALL
@CANCEL
@CHECKPOINT
@SHARED
def watch(settings: Settings, job_ids: tuple[str, ...], **options: Any) -> Awaitable[int]:
    """Show the findings of jobs as they appear, until the jobs end."""
    from ci_live_audit.cli import jobs

    return jobs.watch(settings, job_ids, **options)


@cli.command(cls=ServiceCommand)
@URLS
@URL_FILES
@_submission
@click.option("--at-once", default=10, help="Number of streams that run at the same time.")
@INTERVAL
@TIMEOUT
@SHOW_ALL
@CANCEL
@_file("--checkpoint", "File that knows of each stream before it is submitted, in case of a kill.")
@SHARED
@DRY_RUN
def moderate(
    settings: Settings, urls: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Submit live streams, and show their findings until they end.

    URLs are read from arguments, files and standard input, the next one when there is room
    for it. Jobs that still run are cancelled in the end, also after Ctrl-C.
    """
    from ci_live_audit.cli import moderate as streams

    return streams.moderate(settings, urls, files, **_given(options))


@cli.command(cls=ServiceCommand)
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_files(
    *("-f", "--file"),
    text="File of ids, one a line, or of JSON Lines with a job_id; - is standard input.",
)
@INTERVAL
@TIMEOUT
@CHECKPOINT
@SHARED
@_file(
    "--results",
    "File to which outcomes are appended as JSON Lines, in place of standard output.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, but send nothing.")
def poll(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Follow many jobs until they have ended.

    Prints one outcome per job, in the order in which they end. Ids are read from arguments,
    files and standard input.
    """
    from ci_live_audit.cli import bulk

    return bulk.poll(settings, job_ids, files, **options)


@cli.command(cls=ServiceCommand)
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_files("--from", text="File of JSON Lines that query, watch or poll wrote; - is standard input.")
@click.option(
    *("-o", "--output", "path"),
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    default="report.html",
    help="File to write; - is standard output.",
)
@click.option("--title", default="Live stream moderation", help="Title of the page.")
def report(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Make a page for people of what jobs have found.

    Jobs are queried, or read from files. Links to pictures and sounds work for two hours after
    the query.
    """
    if not (job_ids or files):
        raise click.UsageError("no jobs: pass job ids, or --from FILE")
    from ci_live_audit.cli.report import report as make

    return make(settings, job_ids, files, **options)


@cli.command(cls=AsyncCommand)
@_port(8080)
@click.option("--rate", default=20.0, help="Requests per second above which it throttles.")
@click.option(
    "--jobs", type=click.IntRange(min=0), default=12, help="Number of jobs to start with."
)
@click.option("--duration", default=60.0, help="Average duration of their streams in seconds.")
@click.option(
    "--seed", default=0, help="Seed of the random jobs; the same seed makes the same jobs."
)
def emulate(**options: Any) -> Awaitable[int]:
    """Serve an emulator of the service on this machine.

    Prints the ids of its jobs to standard output, and the variables to set to standard
    error. Callback URLs are called if they are of this machine.
    """
    from ci_live_audit.cli.emulate import emulate as serve
    from ci_live_audit.cli.output import Output

    return serve(Output(), **options)


@cli.command(cls=AsyncCommand)
@_port(8081)
@_file(
    "--secret-file",
    "File of the secret of the URLs; of several, one a line, the first makes URLs. "
    "It is written if it does not exist.",
    required=True,
)
@click.option("--base", help="URL at which the service reaches this command.")
@click.option(
    "--data-id", "data_ids", multiple=True, help="Data id of a stream, for a URL of its own."
)
def listen(**options: Any) -> Awaitable[int]:
    """Receive callbacks, and print them as JSON Lines.

    Says on standard error which URL to submit with a stream.
    """
    from ci_live_audit.cli.listen import listen as receive
    from ci_live_audit.cli.output import Output

    return receive(Output("json"), **options)


@cli.command(cls=ServiceCommand)
def doctor(settings: Settings) -> Awaitable[int]:
    """Check settings, credentials, network, clock and versions.

    Shows no secrets. Queries a job that does not exist.
    """
    from ci_live_audit.cli.doctor import doctor as check

    return check(settings)


@cli.command(cls=AsyncCommand)
def demo() -> Awaitable[int]:
    """Moderate streams on a built-in emulator; no account needed.

    The real client, over a real socket, submits the streams, watches them until they end,
    and cancels those in which it finds something sensitive.
    """
    from ci_live_audit.cli.demo import Demo

    return Demo().run()
