"""The command line in this process, against an emulator on a real socket."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result

from ci_live_audit.cli.commands import cli
from ci_live_audit.testing import Emulator

__all__ = ["SCRIPT", "Clock", "Service", "parsed", "run", "serving"]

SCRIPT = Path(sys.executable).parent / "ci-live-audit"
#: What whoever runs the tests may have set; None unsets it.
NEUTRAL: dict[str, str | None] = {
    **dict.fromkeys(["FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"]),
    **{name: None for name in os.environ if name.startswith("CI_LIVE_AUDIT_")},
    "COLUMNS": "200",
}


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@attrs.define
class Service:
    """A served emulator whose streams stand still, and what the command line needs to reach it."""

    emulator: Emulator
    clock: Clock
    url: str

    @property
    def environ(self) -> dict[str, str]:
        """Everything as environment variables."""
        return {
            "CI_LIVE_AUDIT_BUCKET": self.emulator.bucket,
            "CI_LIVE_AUDIT_ENDPOINT": self.url,
            "CI_LIVE_AUDIT_RATE": "1000",
            "TENCENTCLOUD_REGION": self.emulator.region,
            "TENCENTCLOUD_SECRET_ID": self.emulator.credentials.secret_id,
            "TENCENTCLOUD_SECRET_KEY": self.emulator.credentials.secret_key,
        }

    def run(self, *arguments: str, **environ: str | None) -> Result:
        """Run a command in this process."""
        return run(*arguments, **{**self.environ, **environ})

    def start(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        return subprocess.run(
            [SCRIPT, *arguments],
            env={**os.environ, **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def run(*arguments: str, **environ: str | None) -> Result:
    """Run a command in this process; what it does not catch is raised."""
    runner = CliRunner(env={**NEUTRAL, **environ})
    return runner.invoke(cli, arguments, catch_exceptions=False)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Service]:
    """An emulator on a socket, without a limit; ``options`` are those of the emulator."""
    clock = Clock()
    emulator = Emulator(clock=clock, rate=math.inf, **options)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(emulator.serve()) as url,
    ):
        yield Service(emulator, clock, url)


def parsed(result: Result | subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The JSON Lines that were printed; each is one object, and has no NaN in it."""
    *lines, rest = result.stdout.split("\n")
    assert rest == ""
    return [json.loads(line, parse_constant=_refuse) for line in lines]


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(constant)
