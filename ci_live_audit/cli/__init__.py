"""The command ``ci-live-audit``; needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from ci_live_audit.cli.commands import cli  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as problem:
        print(  # noqa: T201
            f'{problem.name} is missing; the command line needs: pip install "ci-live-audit[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    cli()
