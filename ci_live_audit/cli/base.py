"""What the commands are made of: how they run, and the options of all that call the service.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

__all__ = ["SERVICE", "AsyncCommand", "Commands", "ServiceCommand", "StandardError"]


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
        own = {name for option in self.params for name in option.opts}
        self._shared = [option for option in SERVICE if own.isdisjoint(option.opts)]
        self.params.extend(self._shared)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the settings made from the shared options."""
        from ci_live_audit.cli.output import Output
        from ci_live_audit.cli.session import Settings

        _check_shared(ctx.params)
        given = {option.name: ctx.params.pop(str(option.name)) for option in self._shared}
        output = Output(given.pop("output", "auto"))
        timeout = given.pop("exchange_timeout")
        ctx.params["settings"] = Settings(timeout=timeout, output=output, **given)
        return super().invoke(ctx)


def _check_shared(given: Mapping[str, Any]) -> None:
    """Raise a usage error if ``--shared`` cannot go with the other options."""
    name = given.get("shared")
    if name is None:
        return
    if not given["redis"]:
        raise click.UsageError(
            "--shared needs --redis URL, or CI_LIVE_AUDIT_REDIS: there the processes meet."
        )
    if given["checkpoint"] is not None:
        raise click.UsageError(
            "--shared and --checkpoint exclude each other: a file is of one process."
        )
    if not name.strip():
        raise click.UsageError("--shared needs a name, the same for all processes.")
