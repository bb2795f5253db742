"""The console script as people run it: in a terminal, or with pipes."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

#: Seconds after which a process counts as hanging.
PATIENCE = 60.0
# If the tests run in the background, interrupts are ignored, and children would inherit that. A
# terminal that is given as standard input becomes the controlling terminal.
_START = """
import contextlib, fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with contextlib.suppress(OSError):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_LINKS = re.compile(r"\x1b\]8;[^\x1b]*\x1b\\")
_CODES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a process in its own session, where it can be interrupted."""
    command = [sys.executable, "-c", _START, *arguments]
    return subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]


class Terminal:
    """A program in a pseudo-terminal.

    Args:
        command: The program and its arguments.
        columns: Width of the terminal.
        stdout: Destination of standard output, by default the terminal; a pipe is read as well.
        environment: Variables to set.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        stdout: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.shown = b""
        self.piped = b""
        self._columns = columns
        self._main, self._other = pty.openpty()
        self.resize(columns)
        self.settings: object = termios.tcgetattr(self._other)
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"}
        }
        self.process = start(
            *command,
            stdin=self._other,
            stdout=self._other if stdout is None else stdout,
            stderr=self._other,
            env={**kept, "TERM": "xterm-256color", **(environment or {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.hang_up()

    def resize(self, columns: int, rows: int = 24) -> None:
        """Resize the terminal; the program gets SIGWINCH."""
        termios.tcsetwinsize(self._main, (rows, columns))

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._main, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal."""
        for end in (self._main, self._other):
            with contextlib.suppress(OSError):
                os.close(end)

    def read_until(self, text: str) -> None:
        """Read until a text has been shown since this call."""
        begin, until = len(self.shown), time.monotonic() + PATIENCE
        while text.encode() not in self.shown[begin:]:
            assert time.monotonic() < until, f"no {text!r} in {self.screen[-30:]}"
            ended = self.process.poll() is not None
            if not self._read() and ended:
                raise AssertionError(f"it ended without {text!r}: {self.screen[-30:]}")

    def finish(self) -> int:
        """Read until the program has ended; return its exit code."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it is still running: {self.screen[-30:]}"
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def _read(self) -> bool:
        pipe = self.process.stdout
        ends = [self._main, *([] if pipe is None or pipe.closed else [pipe.fileno()])]
        ready, _, _ = select.select(ends, [], [], 0.05)
        found = {end: os.read(end, 65536) for end in ready}
        self.shown += found.pop(self._main, b"")
        more = b"".join(found.values())
        self.piped += more
        return self._main in ready or bool(more)

    @property
    def cursor_visible(self) -> bool:
        """Whether the cursor is visible."""
        return self.shown.rfind(b"\x1b[?25l") <= self.shown.rfind(b"\x1b[?25h")

    @property
    def unchanged(self) -> bool:
        """Whether the settings of the terminal are as they were at the start."""
        return termios.tcgetattr(self._other) == self.settings

    @property
    def screen(self) -> list[str]:
        """The lines on the screen, including those that were scrolled away."""
        lines, row, column = [""], 0, 0
        for numbers, command, move, text in _CODES.findall(
            _LINKS.sub("", self.shown.decode(errors="replace"))
        ):
            if move == "\r":
                column = 0
            elif move == "\n":
                row += 1
            elif command == "A":
                row = max(0, row - int(numbers or 1))
            elif command == "K":
                lines[row] = "" if numbers == "2" else lines[row][:column]
            for character in text:
                if column == self._columns:
                    row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
                line = lines[row].ljust(column)
                lines[row] = line[:column] + character + line[column + 1 :]
                column += 1
            lines += [""] * (row + 1 - len(lines))
        return lines
