"""The options of what people see of results: zone, addresses, filters.

Only click is imported here, so that help is fast.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from ci_live_audit.cli.options import option

if TYPE_CHECKING:
    from ci_live_audit.cli.session import Settings

__all__ = ["MIN_SCORE", "SCENE", "URLS_SHOWN", "UTC", "view"]

Option: TypeAlias = Callable[[Any], Any]


def _scene(value: str) -> str:
    if not value.strip():
        raise click.BadParameter("expected the name of a scene, such as Porn")
    return value


UTC = option("--utc", is_flag=True, help="Show times in UTC, not in the zone of this machine.")
URLS_SHOWN = option(
    "--urls",
    "urls_shown",
    is_flag=True,
    help="Show the addresses of pictures and sounds, each on a line.",
)
MIN_SCORE = option(
    "--min-score",
    type=click.IntRange(0, 100),
    help="Hide findings of a lower score; they do not count for the exit code.",
)
SCENE = option(
    "--scene",
    type=_scene,
    metavar="NAME",
    multiple=True,
    help="Show findings of this scene only, such as Porn; repeatable.",
)


def view(*options: Option) -> Option:
    """Return the options of what people see, which are told to the output."""

    def add(command: Callable[..., Awaitable[int]]) -> Any:
        @wraps(command)
        def see(settings: Settings, **given: Any) -> Awaitable[int]:
            own = {
                name: given.pop(name, None) for name in ("utc", "urls_shown", "min_score", "scene")
            }
            settings.output.see(**own)
            return command(settings, **given)

        shown: Any = see
        for one in options:
            shown = one(shown)
        return shown

    return add
