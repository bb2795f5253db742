"""The command line, ``ci-live-audit``; needs the extra ``cli``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line, or print what must be installed for it."""
    # Python has None for standard streams that are closed at the start.
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    try:
        from ci_live_audit.cli.commands import cli  # noqa: PLC0415 - needs the extra

        cli()  # each command imports what it needs when it runs
    except ModuleNotFoundError as problem:
        print(  # noqa: T201
            f'{problem.name} is missing; the command line needs: pip install "ci-live-audit[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
