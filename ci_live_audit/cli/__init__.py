"""The command line, ``ci-live-audit``; needs the extra ``cli``."""

from __future__ import annotations

import sys

from ci_live_audit.cli import interrupts, streams


def main() -> None:
    """Run the command line, or print what must be installed for it."""
    interrupts.prepare()
    streams.prepare()
    try:
        from ci_live_audit.cli.commands import cli  # noqa: PLC0415 - needs the extra

        cli()  # each command imports what it needs when it runs
    except OSError as problem:  # a help text that cannot be printed
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except ModuleNotFoundError as problem:
        print(  # noqa: T201
            f'{problem.name} is missing; the command line needs: pip install "ci-live-audit[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    finally:
        interrupts.end()
