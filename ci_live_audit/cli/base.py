"""What the commands are made of: how they are parsed, how they run, what their help shows.

Only click is imported here; a command imports what it needs when it runs, so that help is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from ci_live_audit.cli.options import PROBLEMS, SERVICE, Option

if TYPE_CHECKING:
    from ci_live_audit.cli.output import Output

__all__ = ["AsyncCommand", "Command", "ServiceCommand", "output"]

VERBOSE, QUIET = f"{__name__}.verbose", f"{__name__}.quiet"


class _Problems(click.UsageError):
    """Several problems of one command line."""

    def __init__(self, problems: Sequence[click.UsageError], ctx: click.Context) -> None:
        super().__init__("\nError: ".join(one.format_message() for one in problems), ctx)


def _add(ctx: click.Context, param: click.Parameter, value: int) -> None:
    """Add what a flag counts before and after the name of a command."""
    name = VERBOSE if param.name == "verbose" else QUIET
    ctx.meta[name] = ctx.meta.get(name, 0) + value


def _everywhere(*names: str, text: str, **options: Any) -> click.Option:
    """Return a flag that can stand before and after the name of a command."""
    return Option(
        names, callback=_add, expose_value=False, show_default=False, help=text, **options
    )


class Command(click.Command):
    """A command with examples in its help; all problems of its arguments are told at once.

    Args:
        examples: Command lines, without the name of the program.
        section: Where the list of all commands shows it.
        docs: Address of the documents of the service about it.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        section: str = "",
        docs: str = "",
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        self.section = section
        self._docs = docs
        self.everywhere: list[click.Option] = [
            _everywhere(
                *("-v", "--verbose"),
                text="Log attempts to standard error; -vv logs everything.",
                count=True,
            ),
            _everywhere(
                *("-q", "--quiet"), text="Print results, warnings and errors only.", is_flag=True
            ),
        ]
        self.params.extend(self.everywhere)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments.

        Raises:
            click.UsageError: Some of them cannot be used.
        """
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as problem:
            problems = [*ctx.meta.pop(PROBLEMS, ()), problem]
            raise problem if len(problems) == 1 else _Problems(problems, ctx) from None
        problems = list(ctx.meta.pop(PROBLEMS, ()))
        if not ctx.resilient_parsing:
            problems += self.problems(ctx)
        if problems:
            raise problems[0] if len(problems) == 1 else _Problems(problems, ctx)
        return rest

    def problems(self, ctx: click.Context) -> Iterator[click.UsageError]:  # noqa: ARG002
        """Yield what is wrong with arguments that are good one by one."""
        yield from ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and the options in groups."""
        program = ctx.find_root().info_name
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{program} {example}\n")
        for name, options in self._groups(ctx).items():
            records = [one.get_help_record(ctx) for one in options]
            with formatter.section(name):
                formatter.write_dl([record for record in records if record is not None])

    def _groups(self, ctx: click.Context) -> dict[str, list[click.Option]]:
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        shared = self.shared()
        common = [one for one in options if one in self.everywhere or one.is_eager]
        own = [one for one in options if one not in [*shared, *common]]
        groups = {"Options": own, "Connection options": shared, "Common options": common}
        return {name: group for name, group in groups.items() if group}

    def shared(self) -> list[click.Option]:
        """Return the options of the connection to the service."""
        return []

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what ends the help."""
        super().format_epilog(ctx, formatter)
        if self._docs:
            formatter.write_paragraph()
            formatter.write(f"The service's own documents: {self._docs}\n")


class AsyncCommand(Command):
    """A command whose function returns an awaitable of its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with a log if one is requested, and exit."""
        if verbose := ctx.meta.get(VERBOSE):
            from ci_live_audit.cli.logs import log_attempts

            log_attempts(everything=verbose > 1)
        from ci_live_audit.cli.session import run
        from ci_live_audit.errors import InvalidInput

        invoke = super().invoke

        async def main() -> int:
            try:
                return cast("int", await invoke(ctx))
            except InvalidInput as problem:
                raise click.UsageError(str(problem), ctx) from None

        run(main)


def output(style: str = "auto") -> Output:
    """Return where the current command prints."""
    from ci_live_audit.cli.output import Output

    return Output(style, quiet=bool(click.get_current_context().meta.get(QUIET)))


class ServiceCommand(AsyncCommand):
    """A command that calls the service; its function receives ``settings``.

    Args:
        calls: Whether it calls the service with these parameters; by default, always.
    """

    def __init__(
        self,
        *args: Any,
        calls: Callable[[Mapping[str, Any]], object] = lambda _: True,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._calls = calls
        own = {name for option in self.params for name in option.opts}
        self._shared = [option for option in SERVICE if own.isdisjoint(option.opts)]
        self.params.extend(self._shared)

    def shared(self) -> list[click.Option]:
        """Return the options of the connection to the service."""
        return self._shared

    def problems(self, ctx: click.Context) -> Iterator[click.UsageError]:
        """Yield what is wrong with the connection to the service."""
        from ci_live_audit.errors import ConfigurationError
        from ci_live_audit.wire import endpoint

        given = ctx.params
        for name, what in (("job_ids", "job ids"), ("urls", "URLs")):
            # Whether it names files, even such as do not exist: that is a problem of its own.
            others = any(
                ctx.get_parameter_source(one) == ParameterSource.COMMANDLINE
                for one in ("files", "recorded")
            )
            if given.get(name) == () and not others and sys.stdin.isatty():
                text = f"no {what}: pass some, or --file FILE, or pipe them in"
                yield click.UsageError(text, ctx)
        yield from _checked_shared(given, ctx)
        if not self._calls(given):
            return
        http = bool(given.get("allow_http"))
        for name, check in (
            ("bucket", endpoint.checked_bucket),
            ("region", endpoint.checked_region),
            ("endpoint", partial(endpoint.checked_endpoint, allow_http=http)),
            ("redis", _checked_redis),
        ):
            shared = next(one for one in SERVICE if one.name == name)
            value = given.get(name)
            try:
                if value:
                    check(value)
                elif name in {"bucket", "region"}:
                    text = f"{name}: pass --{name} or set {shared.envvar}"
                    yield click.UsageError(text, ctx)
            except ConfigurationError as problem:
                yield click.UsageError(f"{problem}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the settings made from the shared options."""
        from ci_live_audit.cli.session import Settings

        given = {option.name: ctx.params.pop(str(option.name)) for option in self._shared}
        style = given.pop("output", "auto")
        timeout = given.pop("exchange_timeout")
        ctx.params["settings"] = Settings(timeout=timeout, output=output(style), **given)
        return super().invoke(ctx)


def _checked_redis(url: str) -> None:
    from ci_live_audit._redis import Server

    Server(url, 1.0)


def _checked_shared(given: Mapping[str, Any], ctx: click.Context) -> Iterator[click.UsageError]:
    """Yield why ``--shared`` cannot go with the other options."""
    name = given.get("shared")
    if name is None:
        return
    if not name.strip():
        yield click.UsageError("--shared needs a name, the same for all processes.", ctx)
    if not given.get("redis"):
        text = "--shared needs --redis URL, or CI_LIVE_AUDIT_REDIS: there the processes meet."
        yield click.UsageError(text, ctx)
    if given.get("checkpoint") is not None:
        text = "--shared and --checkpoint exclude each other: a file is of one process."
        yield click.UsageError(text, ctx)
