"""The options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import click

from ci_live_audit.cli.values import COUNT, JOB_ID, PER_SECOND, SECONDS, STREAM, setting

__all__ = [
    "ALL",
    "CANCEL",
    "CHECKPOINT",
    "DRY_RUN",
    "INTERVAL",
    "JOBS",
    "PROBLEMS",
    "SERVICE",
    "SHARED",
    "STREAMS",
    "TIMEOUT",
    "Option",
    "argument",
    "file",
    "files",
    "option",
    "port",
    "submission",
]

#: Where a context keeps the problems of its parameters.
PROBLEMS = f"{__name__}.problems"


class _Collected:
    """A parameter whose problem is told together with those of the others."""

    def handle_parse_result(self, ctx: click.Context, opts: Any, args: Any) -> Any:
        """Note a problem rather than raise it."""
        parent = cast("click.Parameter", super())
        try:
            return parent.handle_parse_result(ctx, opts, args)
        except click.UsageError as problem:
            ctx.meta.setdefault(PROBLEMS, []).append(problem)
            return None, args


class Option(_Collected, click.Option):
    """An option."""


class _Argument(_Collected, click.Argument):
    pass


Decorator: TypeAlias = Callable[[Any], Any]

option: Callable[..., Decorator] = partial(click.option, cls=Option)
argument: Callable[..., Decorator] = partial(click.argument, cls=_Argument)


def _shared(*names: str, **options: Any) -> click.Option:
    """Return an option of every command that calls the service; a variable can set it as well."""
    return Option(names, show_envvar=True, **options)


SERVICE = [
    _shared(
        "--bucket",
        envvar="CI_LIVE_AUDIT_BUCKET",
        metavar="NAME",
        help="Bucket name with APPID, such as examplebucket-1250000000.",
    ),
    _shared(
        "--region",
        envvar="TENCENTCLOUD_REGION",
        metavar="NAME",
        help="Region of the bucket, such as ap-beijing.",
    ),
    _shared(
        "--endpoint",
        envvar="CI_LIVE_AUDIT_ENDPOINT",
        metavar="URL",
        help="URL of an emulator or a proxy to use instead of the service.",
    ),
    _shared("--allow-http", is_flag=True, help="Allow plain HTTP to other machines."),
    _shared(
        "--rate",
        type=PER_SECOND,
        default=20,
        envvar="CI_LIVE_AUDIT_RATE",
        help="Maximum requests per second.",
    ),
    _shared(
        "--redis",
        envvar="CI_LIVE_AUDIT_REDIS",
        metavar="URL",
        help="URL of a Redis through which processes share the rate.",
    ),
    _shared(
        "--exchange-timeout",
        type=SECONDS,
        default=30,
        envvar="CI_LIVE_AUDIT_EXCHANGE_TIMEOUT",
        help="Seconds that a single request and its response may take.",
    ),
    _shared(
        "--attempts",
        type=COUNT,
        default=4,
        envvar="CI_LIVE_AUDIT_ATTEMPTS",
        help="Maximum attempts per call.",
    ),
    _shared(
        *("-o", "--output"),
        type=click.Choice(["auto", "table", "json"]),
        default="auto",
        envvar="CI_LIVE_AUDIT_OUTPUT",
        help="auto prints a table on a terminal and JSON Lines elsewhere.",
    ),
]

INTERVAL = option(
    "--interval", type=SECONDS, default=10, help="Seconds between two queries of a job."
)
TIMEOUT = option(
    "--timeout",
    type=SECONDS,
    help="Seconds after which to give up on a job that goes on; by default, never.",
)
ALL = option("--all", "show_all", is_flag=True, help="Show normal findings as well.")
CANCEL = option(
    "--cancel",
    "cancel_flagged",
    is_flag=True,
    help="Cancel the job of a stream that is found sensitive.",
)
DRY_RUN = option("--dry-run", is_flag=True, help="Show the requests, but send nothing.")


def file(name: str, text: str, **options: Any) -> Decorator:
    """Return the option of a file to write."""
    path = click.Path(path_type=Path, dir_okay=False)
    return option(name, type=path, help=text, **options)


def files(*names: str, text: str) -> Decorator:
    """Return the option of files to read, of which one may be standard input."""
    path = click.Path(path_type=Path, allow_dash=True, dir_okay=False, exists=True)
    return option(*names, multiple=True, type=path, help=text)


def port(default: int) -> Decorator:
    """Return the options of an address to listen on."""
    text = "Port to listen on; 0 takes a free one."
    number = click.IntRange(0, 65535)
    add_port = option("--port", type=number, metavar="NUMBER", default=default, help=text)
    add_host = option("--host", default="127.0.0.1", help="Address to listen on.")
    return lambda command: add_host(add_port(command))


CHECKPOINT = file(
    "--checkpoint", "File that records what is done, so that the same command can resume."
)
SHARED = option(
    "--shared",
    metavar="NAME",
    help="Share the work with all processes that have the same NAME, through --redis.",
)


def _several(name: str, kind: Callable[[Any], Any], metavar: str, text: str) -> Decorator:
    """Return an argument of any number, and the option of files of them."""
    add_argument = argument(name, nargs=-1, type=kind, metavar=metavar)
    add_files = files("-f", "--file", "files", text=f"{text}; - is standard input.")
    return lambda command: add_argument(add_files(command))


JOBS = _several(
    *("job_ids", JOB_ID, "[JOB_ID]..."),
    "File of ids, one a line, or of JSON Lines with a job_id",
)
STREAMS = _several(
    *("urls", STREAM, "[URL]..."), "File of URLs, one a line, or of JSON Lines with a url"
)


def submission(command: Any) -> Any:
    """Add the options of a submission."""
    for name, text in (
        ("storage_path", "Path in the bucket where the stream is recorded."),
        ("callback_type", "1: call back with all results; 2: violations only."),
        ("callback", "URL that the service calls with results."),
        ("data_id", "Your own id, returned with all results."),
        ("biz_type", "Id of the moderation policy to apply."),
    ):
        command = option(f"--{name.replace('_', '-')}", type=setting(name), help=text)(command)
    return command
