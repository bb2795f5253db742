"""A process that starts children which can be killed anywhere and import nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Children", "children"]

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


@contextlib.contextmanager
def children(
    program: str, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Children]:
    """Run a program that defines ``run``, in a folder, and let it start children."""
    with subprocess.Popen(
        [sys.executable, "-c", program + START],
        cwd=folder,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        yield Children(parent)
