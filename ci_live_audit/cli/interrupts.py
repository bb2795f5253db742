"""Ctrl-C: the first cancels the command, so that it can clean up; the next ends the process.

Where the cleanup stops what costs money, it takes one more. Python's own way raises
``KeyboardInterrupt`` at whichever line is running, which may be one that restores the terminal, or
that ends the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, NoReturn

__all__ = ["CODE", "cancelling", "end", "prepare", "twice"]

CODE = 130
_SHOW_CURSOR = b"\x1b[?25h"


def prepare() -> None:
    """Let Ctrl-C end the process at once, without a traceback, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def end() -> None:
    """Let the exit code stand, now that the command is over.

    The interpreter gives SIGINT back to the system at its own end, but for those that ignore it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def cancelling(cancel: Callable[[], object]) -> Generator[None, None, None]:
    """Let the first Ctrl-C within the block call a function, and the next end the process.

    Args:
        cancel: Called in the main thread, between two instructions of whatever it is doing.
    """

    def once(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, _end)
        cancel()

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in the background of a shell
        yield
        return
    with _handled_by(once, before):
        yield


@contextlib.contextmanager
def twice(warn: Callable[[], object]) -> Generator[None, None, None]:
    """Let the second Ctrl-C within the block call a function, and only the third end the process.

    Args:
        warn: Called as the function given to ``cancelling``, within which this block is.
    """

    def first(number: int, frame: FrameType | None) -> None:
        before(number, frame)
        signal.signal(signal.SIGINT, second)

    def second(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, _end)
        warn()

    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    with _handled_by(first, before):
        yield


@contextlib.contextmanager
def _handled_by(handler: Any, before: Any) -> Generator[None, None, None]:
    """Install a handler, and restore the one before it unless there was a Ctrl-C."""
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        # After Ctrl-C one more still ends the process, whatever it waits for.
        unused = signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, before if unused else _end)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process, with the cursor shown that a progress bar hides."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor) and os.environ.get("TERM") != "dumb":
                os.write(descriptor, _SHOW_CURSOR)
    os._exit(CODE)
