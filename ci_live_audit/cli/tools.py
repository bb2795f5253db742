"""The commands that are no calls about a job: to receive, to try things out, to check, to help.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ci_live_audit.cli.base import AsyncCommand, Command, ServiceCommand, output
from ci_live_audit.cli.group import HERE, MANY, cli
from ci_live_audit.cli.options import argument, file, option, port
from ci_live_audit.cli.values import PER_SECOND, SECONDS

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

__all__: list[str] = []


def _never(_: Mapping[str, Any]) -> bool:
    """Return that settings are no wrong usage: a check tells what is wrong with them."""
    return False


@cli.command(
    cls=AsyncCommand,
    section=MANY,
    examples=["listen --secret-file secret --base https://bot.example.com"],
)
@port(8081)
@file(
    "--secret-file",
    "File of the secret of the URLs; of several, one a line, the first makes URLs. "
    "It is written if it does not exist.",
    required=True,
)
@option("--base", metavar="URL", help="URL at which the service reaches this command.")
@option("--data-id", "data_ids", multiple=True, help="Data id of a stream, for a URL of its own.")
def listen(**options: Any) -> Awaitable[int]:
    """Receive callbacks, and print them as JSON Lines.

    Says on standard error which URL to submit with a stream.
    """
    from ci_live_audit.cli.listen import listen as receive

    return receive(output("json"), **options)


@cli.command(cls=AsyncCommand, section=HERE, examples=["demo"])
def demo() -> Awaitable[int]:
    """Moderate streams on a built-in emulator; no account needed.

    The real client, over a real socket, submits the streams, watches them until they end,
    and cancels those in which it finds something sensitive.
    """
    from ci_live_audit.cli.demo import Demo

    return Demo().run()


@cli.command(
    cls=AsyncCommand,
    section=HERE,
    examples=["emulate", "emulate --port 0 --jobs 5000 --rate 1000 > ids.txt"],
)
@port(8080)
@option("--rate", type=PER_SECOND, default=20, help="Requests per second above which it throttles.")
@option(
    *("--jobs",),
    type=click.IntRange(min=0),
    metavar="NUMBER",
    default=12,
    help="Number of jobs to start with.",
)
@option(
    "--duration",
    type=SECONDS,
    default=60,
    help="Average duration of their streams in seconds.",
)
@option("--seed", default=0, help="Seed of the random jobs; the same seed makes the same jobs.")
def emulate(**options: Any) -> Awaitable[int]:
    """Serve an emulator of the service on this machine.

    Prints the ids of its jobs to standard output, and the variables to set to standard
    error. Callback URLs are called if they are of this machine.
    """
    from ci_live_audit.cli.emulate import emulate as serve

    return serve(output(), **options)


@cli.command(cls=ServiceCommand, section=HERE, calls=_never, examples=["doctor", "doctor -o json"])
def doctor(settings: Settings) -> Awaitable[int]:
    """Check settings, credentials, network, clock and versions.

    Shows no secrets. Queries a job that does not exist.
    """
    from ci_live_audit.cli.doctor import doctor as check

    return check(settings)


@cli.command(
    cls=Command,
    section=HERE,
    examples=["completion fish > ~/.config/fish/completions/ci-live-audit.fish"],
)
@argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that makes a shell complete commands and options.

    Bash and zsh: put eval "$(ci-live-audit completion bash)", or zsh, into ~/.bashrc or ~/.zshrc.
    Fish reads files in ~/.config/fish/completions.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "ci-live-audit", "_CI_LIVE_AUDIT_COMPLETE").source())


@cli.command("help", cls=Command, section=HERE, examples=["help poll"])
@argument("command", required=False)
@click.pass_context
def help_(ctx: click.Context, command: str | None) -> None:
    """Show the help of a command, as --help does."""
    root = ctx.find_root()
    if command is None:
        click.echo(root.get_help())
        return
    _, found, _ = cli.resolve_command(root, [command])
    click.echo(found.get_help(click.Context(found, root, command, **cli.context_settings)))
