"""The group of all commands: its help, and which command may be meant."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Any

import click

from ci_live_audit._version import __version__
from ci_live_audit.cli.base import Command

__all__ = ["DOCS", "HERE", "MANY", "ONE", "Commands", "cli"]

#: The sections of the list of commands.
ONE, MANY, HERE = "Jobs", "Many streams", "This machine"

#: What people type who know other programs, and the command that does it.
SYNONYMS = {
    "cancel": "abort delete end kill remove rm stop terminate",
    "doctor": "auth check config configure login ping test",
    "moderate": "audit auditing scan",
    "poll": "batch bulk",
    "query": "describe get info inspect job result results show state status",
    "submit": "add create new open run start",
    "watch": "findings follow log logs monitor tail",
}
NO_LIST = (
    "The service has no call that lists jobs: keep the ids that submit prints. "
    "What it knows of a job, query shows."
)


class Commands(Command, click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an interrupt has its exit code also while the command is imported."""
        try:
            return click.Group.invoke(self, ctx)
        except KeyboardInterrupt:
            sys.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that is named first.

        Raises:
            click.UsageError: There is none of the name; the message tells which one may be meant.
        """
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}. {self._meant(name)}".strip(), ctx)
        return click.Group.resolve_command(self, ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what comes before the name of a command.

        Raises:
            click.UsageError: It cannot be used.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as problem:
            raise self._misplaced(ctx, problem) from None

    def _meant(self, name: str) -> str:
        if name in {"list", "ls", "jobs", "search", "history"}:
            return NO_LIST
        meant = {word: one for one, words in SYNONYMS.items() for word in words.split()}
        meant |= {one: one for one in self.commands}
        near = [name] if name in meant else get_close_matches(name, meant, 3, 0.7)
        commands = dict.fromkeys(repr(meant[one]) for one in near)
        return f"Did you mean {' or '.join(commands)}?" if commands else ""

    def _misplaced(self, ctx: click.Context, problem: click.NoSuchOption) -> click.UsageError:
        """Return the problem of an option that may be one of a command."""
        name = problem.option_name
        params = [one for command in self.commands.values() for one in command.params]
        if not any(name in one.opts for one in params):
            return problem
        text = f"{name} is an option of commands, and comes after their name"
        return click.UsageError(f"{text}: {ctx.info_name} COMMAND {name} …", ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by what they are for, then the options."""
        width = max(map(len, self.commands))
        for section in (ONE, MANY, HERE):
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width - 4 - width))
                for name, command in self.commands.items()
                if getattr(command, "section", HERE) == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)


EXIT_CODES = """\b
Exit codes: 0 success; 1 something failed; 2 wrong usage; 3 something was
flagged (sensitive or suspected); 4 a job did not end in time; 130 interrupted;
141 the reader of the results has gone."""
DOCS = "https://www.tencentcloud.com/document/product/1045"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=EXIT_CODES,
    docs=f"{DOCS}/49340",
    examples=[
        "demo",
        "doctor",
        "moderate rtmp://live.example.com/app/room7 --cancel",
        "help watch",
    ],
)
@click.version_option(__version__)
def cli() -> None:
    """Manage live stream moderation jobs of Tencent Cloud CI.

    Credentials are found as by Tencent Cloud's own tools: in the environment
    (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY), in their profiles, or from the role
    of a CVM.
    """
