"""Processes that start children which can be killed anywhere and import nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Children", "Members", "children", "members"]

# For each number that it reads, a new child runs ``run(number)``, which the program defines.
START = """
import asyncio, os, signal, sys
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(100)  # even if the test hangs
        asyncio.run(run(int(line)))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# For each line that it reads, a new child runs ``run()``, which the program defines, beside others.
START_MEMBERS = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in sys.stdin:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(100)  # even if the test hangs
        run()
        os._exit(0)
    print(child, flush=True)
"""


class Children:
    """The children of a process, one at a time."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent
        self._child = 0

    def start(self, number: int) -> None:
        """Start the next child."""
        assert self._parent.stdin is not None
        print(number, file=self._parent.stdin, flush=True)
        self._child = int(self._read())

    def kill(self) -> None:
        """Kill the child, and wait for its end."""
        os.kill(self._child, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Return the exit code of the child, once it has ended."""
        return int(self._read())

    def _read(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


class Members:
    """The children of a process, several at a time."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent
        self.alive: list[int] = []

    def start(self) -> None:
        """Start one more child."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(file=self._parent.stdin, flush=True)
        self.alive.append(int(self._parent.stdout.readline()))

    def send(self, child: int, sign: int) -> None:
        """Send a signal to a child, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, sign)


@contextlib.contextmanager
def children(
    program: str, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Children]:
    """Run a program that defines ``run``, in a folder, and let it start children."""
    with _running(program + START, folder, environ or {}) as parent:
        yield Children(parent)


@contextlib.contextmanager
def members(
    program: str, folder: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[Members]:
    """Run a program that defines ``run``, in a folder; in the end, kill all that is alive."""
    with _running(program + START_MEMBERS, folder, environ or {}, *arguments) as parent:
        started = Members(parent)
        try:
            yield started
        finally:
            for child in started.alive:
                started.send(child, signal.SIGKILL)


def _running(
    program: str, folder: Path, environ: Mapping[str, str], *arguments: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
