"""The command line in this process, against an emulator on a real socket."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
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

__all__ = [
    "NO_CREDENTIALS",
    "SCRIPT",
    "Clock",
    "Service",
    "closed_port",
    "parse",
    "parsed",
    "run",
    "served",
    "serving",
]

SCRIPT = str(Path(sys.executable).parent / "ci-live-audit")
#: Unsets (None) or overrides what the environment of the test run may contain.
NEUTRAL: dict[str, str | None] = {
    **dict.fromkeys(["FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"]),
    "COLUMNS": "200",
}
NO_CREDENTIALS = dict.fromkeys(["TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"])


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@attrs.define
class Service:
    """A served emulator whose time stands still, and the environment to reach it."""

    emulator: Emulator
    clock: Clock
    environ: dict[str, str]

    @property
    def url(self) -> str:
        """URL of the emulator."""
        return self.environ["CI_LIVE_AUDIT_ENDPOINT"]

    def run(self, *arguments: str, input: Any = None, **environ: str | None) -> Result:  # noqa: A002
        """Run a command in this process."""
        return run(*arguments, input=input, **{**self.environ, **environ})

    def start(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its own process."""
        return subprocess.run(
            [SCRIPT, *arguments],
            env={**os.environ, **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def run(*arguments: str, input: Any = None, **environ: str | None) -> Result:  # noqa: A002
    """Run a command in this process and raise what it does not catch."""
    runner = CliRunner(env={**NEUTRAL, **environ})
    return runner.invoke(cli, arguments, input=input, catch_exceptions=False)


@contextlib.contextmanager
def served(emulator: Emulator) -> Iterator[dict[str, str]]:
    """Serve an emulator, and give the environment in which commands reach it."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(emulator.serve()) as url,
    ):
        yield {
            "CI_LIVE_AUDIT_BUCKET": emulator.bucket,
            "CI_LIVE_AUDIT_ENDPOINT": url,
            "CI_LIVE_AUDIT_RATE": f"{min(emulator.rate, 1000):g}",
            "TENCENTCLOUD_REGION": emulator.region,
            "TENCENTCLOUD_SECRET_ID": emulator.credentials.secret_id,
            "TENCENTCLOUD_SECRET_KEY": emulator.credentials.secret_key,
        }


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Service]:
    """Serve an emulator without a rate limit; ``options`` are those of the emulator."""
    clock = Clock()
    emulator = Emulator(clock=clock, rate=math.inf, **options)
    with served(emulator) as environ:
        yield Service(emulator, clock, environ)


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """Give the URL of a port of this machine on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def parsed(result: Result | subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON Lines of standard output."""
    return parse(result.stdout)


def parse(text: str) -> list[dict[str, Any]]:
    """Parse JSON Lines; each is one object, ends with a newline, and contains no NaN."""
    *lines, rest = text.split("\n")
    assert rest == ""
    return [json.loads(line, parse_constant=_refuse) for line in lines]


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(constant)
