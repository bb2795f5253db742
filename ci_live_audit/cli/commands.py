"""The commands of ``ci-live-audit``.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ci_live_audit._version import __version__

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

EXIT_CODES = """\b
Exit codes: 0 success; 1 something failed; 2 wrong usage; 3 something was
flagged (sensitive or suspected); 4 a job did not end in time; 130 interrupted;
141 the reader of the results has gone."""


class StandardError:
    """Writes to the current `sys.stderr`, which a progress bar may have replaced."""

    def write(self, text: str) -> None:
        """Write a text, of which nothing moves the cursor of a terminal."""
        kept = "\t\n"  # of tracebacks
        signs = (
            one if one.isprintable() or one in kept else one.encode("unicode_escape").decode()
            for one in text
        )
        sys.stderr.write("".join(signs))


class Commands(click.Group):
    """A group that exits with the code of an interrupt even while a command is being imported."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)


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


class AsyncCommand(click.Command):
    """A command whose function returns an awaitable of its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and exit."""
        from ci_live_audit.cli.session import run

        run(lambda: super(AsyncCommand, self).invoke(ctx))


def _shared(*names: str, **options: Any) -> click.Option:
    """Return an option of every command that calls the service; a variable can set it as well."""
    return click.Option(names, show_envvar=True, **options)


SERVICE = [
    _shared(
        "--bucket",
        envvar="CI_LIVE_AUDIT_BUCKET",
        help="Bucket name with APPID, such as examplebucket-1250000000.",
    ),
    _shared(
        "--region", envvar="TENCENTCLOUD_REGION", help="Region of the bucket, such as ap-beijing."
    ),
    _shared(
        "--endpoint",
        envvar="CI_LIVE_AUDIT_ENDPOINT",
        help="URL of an emulator or a proxy to use instead of the service.",
    ),
    _shared("--allow-http", is_flag=True, help="Allow an endpoint on another machine without TLS."),
    _shared(
        "--rate", default=20.0, envvar="CI_LIVE_AUDIT_RATE", help="Maximum requests per second."
    ),
    _shared(
        "--redis",
        envvar="CI_LIVE_AUDIT_REDIS",
        help="URL of a Redis through which processes share the rate.",
    ),
    _shared(
        "--exchange-timeout",
        default=30.0,
        envvar="CI_LIVE_AUDIT_EXCHANGE_TIMEOUT",
        help="Seconds that one request and its response may take.",
    ),
    _shared(
        "--attempts",
        default=4,
        envvar="CI_LIVE_AUDIT_ATTEMPTS",
        help="Maximum requests for one call.",
    ),
    _shared(
        *("-o", "--output"),
        type=click.Choice(["auto", "table", "json"]),
        default="auto",
        envvar="CI_LIVE_AUDIT_OUTPUT",
        help="auto prints a table on a terminal and JSON Lines elsewhere.",
    ),
]


class ServiceCommand(AsyncCommand):
    """A command that calls the service; its function receives ``settings``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(SERVICE)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the settings made from the shared options."""
        from ci_live_audit.cli.output import Output
        from ci_live_audit.cli.session import Settings

        given = {option.name: ctx.params.pop(str(option.name)) for option in SERVICE}
        output = Output(given.pop("output"))
        timeout = given.pop("exchange_timeout")
        ctx.params["settings"] = Settings(timeout=timeout, output=output, **given)
        return super().invoke(ctx)


INTERVAL = click.option("--interval", default=10.0, help="Seconds between two queries of a job.")
TIMEOUT = click.option("--timeout", type=float, help="Seconds after which to give up on a job.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the requests, but send nothing.")
JOB_IDS = click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")


@cli.command(cls=ServiceCommand)
@click.argument("url")
@click.option("--biz-type", help="Id of the moderation policy to apply.")
@click.option("--data-id", help="Your own id, returned with all results.")
@click.option("--callback", help="URL that the service calls with results.")
@click.option(
    "--callback-type", type=int, help="1 to be called with all results, 2 with violations only."
)
@click.option("--storage-path", help="Path in the bucket where the stream is recorded.")
@DRY_RUN
def submit(settings: Settings, url: str, dry_run: bool, **arguments: Any) -> Awaitable[int]:
    """Start a job for the live stream at URL. It is billed until it ends or is cancelled."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    given = {name: value for name, value in arguments.items() if value is not None}
    if dry_run:
        return jobs.dry_run(settings, requests.submit(url, **given))
    return jobs.submit(settings, url, **given)


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
@click.option("--all", "show_all", is_flag=True, help="Show normal findings as well.")
@click.option(
    "--cancel",
    "cancel_flagged",
    is_flag=True,
    help="Cancel the job of a stream that is found sensitive.",
)
def watch(settings: Settings, job_ids: tuple[str, ...], **options: Any) -> Awaitable[int]:
    """Show the findings of jobs as they appear, until the jobs end."""
    from ci_live_audit.cli import jobs

    return jobs.watch(settings, job_ids, **options)


@cli.command(cls=ServiceCommand)
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False, exists=True),
    help="File of ids, one a line, or of JSON Lines with a job_id; - is standard input.",
)
@INTERVAL
@TIMEOUT
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that records finished jobs, so that the same command can resume.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to which outcomes are appended as JSON Lines, in place of standard output.",
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


@cli.command(cls=AsyncCommand)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    help="Port to listen on; 0 takes a free one.",
)
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
    error.
    """
    from ci_live_audit.cli.emulate import emulate as serve
    from ci_live_audit.cli.output import Output

    return serve(Output(), **options)


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
