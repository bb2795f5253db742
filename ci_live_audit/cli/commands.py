"""What ``ci-live-audit`` can do.

Only click is imported here; what a command needs comes when it runs, so help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

EXIT_CODES = """\b
Exit codes: 0 all went well; 1 something failed; 2 wrong usage; 3 something was
flagged (sensitive or suspected); 4 a job did not end in time; 130 interrupted;
141 the reader of the results has gone."""


class StandardError:
    """Standard error as it is when something is written: a progress bar may stand before it."""

    def write(self, text: str) -> None:
        """Write it."""
        sys.stderr.write(text)


class Commands(click.Group):
    """Commands that an interrupt ends with its code even while they are imported."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the one that is wanted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="ci-live-audit")
@click.option(
    "-v",
    "--verbose",
    count=True,
    show_default=False,
    help="Log attempts to standard error; -vv: all.",
)
def cli(verbose: int) -> None:
    """Live stream moderation jobs of Tencent Cloud CI.

    Credentials come from where Tencent Cloud's tools keep them: the environment
    (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY), their profiles, the role of a CVM.
    """
    if verbose:
        import logging

        logging.basicConfig(format="%(asctime)s %(name)s %(message)s", stream=StandardError())
        logging.getLogger("ci_live_audit" if verbose == 1 else None).setLevel(logging.DEBUG)


class Running(click.Command):
    """A command whose function gives a coroutine, which is run; its result is the exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it and exit."""
        from ci_live_audit.cli.session import run

        run(lambda: super(Running, self).invoke(ctx))


def _shared(*names: str, **options: Any) -> click.Option:
    """An option of every command that talks to the service; it may come from the environment."""
    return click.Option(names, show_envvar=True, **options)


SERVICE = [
    _shared("--bucket", envvar="CI_LIVE_AUDIT_BUCKET", help="As examplebucket-1250000000."),
    _shared("--region", envvar="TENCENTCLOUD_REGION", help="As ap-beijing."),
    _shared("--endpoint", envvar="CI_LIVE_AUDIT_ENDPOINT", help="URL of an emulator or a proxy."),
    _shared("--allow-http", is_flag=True, help="Even on another machine it may be without TLS."),
    _shared("--rate", default=20.0, envvar="CI_LIVE_AUDIT_RATE", help="Requests a second at most."),
    _shared(
        "--exchange-timeout",
        default=30.0,
        envvar="CI_LIVE_AUDIT_EXCHANGE_TIMEOUT",
        help="Seconds that one exchange may take.",
    ),
    _shared(
        "--attempts", default=4, envvar="CI_LIVE_AUDIT_ATTEMPTS", help="Requests for one call."
    ),
    _shared(
        *("-o", "--output"),
        type=click.Choice(["auto", "table", "json"]),
        default="auto",
        envvar="CI_LIVE_AUDIT_OUTPUT",
        help="auto: a table on a terminal, JSON Lines elsewhere.",
    ),
]


class Asking(Running):
    """A command that talks to the service: its function gets ``settings``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(SERVICE)

    def invoke(self, ctx: click.Context) -> Any:
        """Make the settings of the options that all share."""
        from ci_live_audit.cli.output import Output
        from ci_live_audit.cli.session import Settings

        given = {option.name: ctx.params.pop(str(option.name)) for option in SERVICE}
        output = Output(given.pop("output"))
        timeout = given.pop("exchange_timeout")
        ctx.params["settings"] = Settings(timeout=timeout, output=output, **given)
        return super().invoke(ctx)


INTERVAL = click.option(
    "--interval", default=10.0, help="Seconds from one query of a job to the next."
)
TIMEOUT = click.option("--timeout", type=float, help="Seconds for which a job is followed.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
JOB_IDS = click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")


@cli.command(cls=Asking)
@click.argument("url")
@click.option("--biz-type", help="Id of the moderation policy.")
@click.option("--data-id", help="Own id, returned with all results.")
@click.option("--callback", help="URL that the service calls.")
@click.option("--callback-type", type=int, help="1: for everything; 2: for what violates.")
@click.option("--storage-path", help="Path in the bucket under which the stream is recorded.")
@DRY_RUN
def submit(settings: Settings, url: str, dry_run: bool, **arguments: Any) -> Awaitable[int]:
    """Start a job for the live stream at URL. It costs money until it ends or is cancelled."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    given = {name: value for name, value in arguments.items() if value is not None}
    if dry_run:
        return jobs.dry_run(settings, requests.submit(url, **given))
    return jobs.submit(settings, url, **given)


@cli.command(cls=Asking)
@JOB_IDS
@DRY_RUN
def query(settings: Settings, job_ids: tuple[str, ...], dry_run: bool) -> Awaitable[int]:
    """Show what jobs have found so far."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    if dry_run:
        return jobs.dry_run(settings, *map(requests.query, job_ids))
    return jobs.query(settings, job_ids)


@cli.command(cls=Asking)
@JOB_IDS
@DRY_RUN
def cancel(settings: Settings, job_ids: tuple[str, ...], dry_run: bool) -> Awaitable[int]:
    """Stop jobs."""
    from ci_live_audit.cli import jobs
    from ci_live_audit.wire import requests

    if dry_run:
        return jobs.dry_run(settings, *map(requests.cancel, job_ids))
    return jobs.cancel(settings, job_ids)


@cli.command(cls=Asking)
@click.argument("job_id")
@INTERVAL
@TIMEOUT
def wait(settings: Settings, job_id: str, interval: float, timeout: float | None) -> Awaitable[int]:
    """Wait until a job has ended, and show it."""
    from ci_live_audit.cli import jobs

    return jobs.wait(settings, job_id, interval, timeout)


@cli.command(cls=Asking)
@JOB_IDS
@INTERVAL
@TIMEOUT
@click.option("--all", "show_all", is_flag=True, help="Show what is normal, too.")
@click.option("--cancel", "cancel_flagged", is_flag=True, help="Stop a stream found sensitive.")
def watch(settings: Settings, job_ids: tuple[str, ...], **options: Any) -> Awaitable[int]:
    """Show what is found in jobs as it turns up, until they have ended."""
    from ci_live_audit.cli import jobs

    return jobs.watch(settings, job_ids, **options)


@cli.command(cls=Asking)
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False, exists=True),
    help="Ids, one a line, or JSON Lines with a job_id; - for standard input.",
)
@INTERVAL
@TIMEOUT
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Note there what was answered, and go on from there next time.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan; send nothing.")
def poll(
    settings: Settings, job_ids: tuple[str, ...], files: tuple[Path, ...], **options: Any
) -> Awaitable[int]:
    """Follow many jobs to their ends.

    There is an outcome for each, in the order in which they end. Ids come from arguments,
    files and standard input.
    """
    from ci_live_audit.cli import bulk

    return bulk.poll(settings, job_ids, files, **options)


@cli.command(cls=Running)
@click.option("--host", default="127.0.0.1", help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    help="Port to listen at; 0 takes a free one.",
)
@click.option("--rate", default=20.0, help="Requests a second above which it refuses.")
@click.option("--jobs", type=click.IntRange(min=0), default=12, help="How many jobs it has.")
@click.option("--duration", default=60.0, help="Seconds that their streams run, on the average.")
@click.option("--seed", default=0, help="Makes the jobs the same every time.")
def emulate(**options: Any) -> Awaitable[int]:
    """Serve an emulator of the service, with jobs.

    Their ids go to standard output, what to set for it to standard error.
    """
    from ci_live_audit.cli.emulate import emulate as serve
    from ci_live_audit.cli.output import Output

    return serve(Output(), **options)


@cli.command(cls=Asking)
def doctor(settings: Settings) -> Awaitable[int]:
    """Check credentials, network, clock and versions.

    No secret is shown. The service is asked for a job that does not exist.
    """
    from ci_live_audit.cli.doctor import doctor as check

    return check(settings)


@cli.command(cls=Running)
def demo() -> Awaitable[int]:
    """See streams moderated on an embedded emulator; no account needed.

    They are submitted, watched until they end, and cancelled as soon as something
    bad is found, by the real client over a real socket.
    """
    from ci_live_audit.cli.demo import Demo

    return Demo().run()
