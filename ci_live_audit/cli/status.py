"""How far a run has come, while it runs: a line at the bottom of a terminal, or lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import attrs
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from ci_live_audit.cli.output import Output
from ci_live_audit.cli.words import elapsed

__all__ = ["REDRAW", "REPORT", "Status", "outage", "shown", "waiting"]

#: Seconds between two updates of the line, and between two lines where there is no terminal.
REDRAW, REPORT = 0.5, 10.0


@attrs.frozen
class Status:
    """How far a run has come: in words, and of how many."""

    text: str
    done: int = 0
    total: int | None = None


@asynccontextmanager
async def shown(
    output: Output, look: Callable[[], Status], report: Callable[[], str] | None = None
) -> AsyncGenerator[None, None]:
    """Show progress until the context ends.

    Args:
        output: Where messages go.
        look: Returns what a terminal shows.
        report: Returns the line that is printed now and then elsewhere; without it there is none,
            and no bar on a terminal.
    """
    if _can_show(output):
        display = asyncio.create_task(_redraw(output, look, bar=report is not None))
    elif report is not None:
        display = asyncio.create_task(_report(output, report))
    else:
        yield
        return
    try:
        yield
    finally:
        display.cancel()
        with suppress(asyncio.CancelledError):
            await display
        output.bottom = None


async def _redraw(output: Output, look: Callable[[], Status], *, bar: bool) -> NoReturn:
    # Shorter than 80 columns, or the ^C that a terminal echoes would wrap to the next line.
    columns = [*([BarColumn(bar_width=12)] if bar else []), TextColumn("{task.description}")]
    # Results on the same terminal are printed above the line.
    shared = sys.stdout.isatty()
    console = output.results if shared else output.console
    display = Bar(*columns, console=console, transient=True, redirect_stdout=shared)
    output.bottom = console
    with display:
        task = display.add_task("", total=None)
        while True:
            now = look()
            display.update(task, total=now.total, completed=now.done, description=now.text)
            await asyncio.sleep(REDRAW)


async def _report(output: Output, report: Callable[[], str]) -> NoReturn:
    while True:
        await asyncio.sleep(REPORT)
        output.say(report())


@asynccontextmanager
async def waiting(output: Output, text: str) -> AsyncGenerator[None, None]:
    """Show what is waited for until the context ends; say it where nothing can be shown."""
    if not _can_show(output):
        output.say(text)
    async with shown(output, lambda: Status(text)):
        yield


def _can_show(output: Output) -> bool:
    return output.console.is_terminal and not output.console.is_dumb_terminal


def outage(seconds: float | None) -> str:
    """Return how long there has been no response."""
    return "" if seconds is None else f"no response for {elapsed(round(seconds))}"
