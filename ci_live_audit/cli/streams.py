"""The standard streams: results are written whole or not at all, messages as far as they can be."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["WholeFile", "prepare", "raw_input"]


def raw_input() -> Any:
    """Return standard input without a buffer.

    Python aborts when it exits while a thread reads from a buffered stream.
    """
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


class WholeFile(io.FileIO):
    """A descriptor to which everything is written as a whole, whatever it is.

    What does not fit on a disk is removed again, so that the file ends with a whole line.

    Args:
        descriptor: Where to write; it stays open.
        label: What error messages call it.
    """

    def __init__(self, descriptor: int, label: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._label = label
        self._begun = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all bytes, waiting for as long as a pipe is full; return their number.

        Raises:
            OSError: They cannot be written.
        """
        if not self._begun:
            self._begun = True
            if self._ends_torn():
                self.write(b"\n")
        rest = memoryview(data).cast("B")
        count, size = 0, len(rest)
        try:
            while count < size:
                # None if the descriptor does not block; what waits for it blocks as others do.
                written: int | None = super().write(rest[count:])
                if written is None:
                    select.select([], [self], [])
                count += written or 0
        except BaseException as problem:
            self._remove(count)
            if isinstance(problem, OSError) and problem.errno is not None:
                raise OSError(problem.errno, problem.strerror, self._label) from None
            raise
        return size

    def _ends_torn(self) -> bool:
        """Return whether this appends to a file whose last line was cut off."""
        # Not every system lets a file be read that was opened for writing.
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - not on Windows

            number = self.fileno()
            if self._is_regular() and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND:
                with Path(f"/dev/fd/{number}").open("rb") as file:
                    file.seek(-1, os.SEEK_END)
                    return file.read() != b"\n"
        return False

    def _remove(self, count: int) -> None:
        """Remove the last bytes that were written, unless something came after them."""
        with contextlib.suppress(OSError):
            end = self.tell()
            if self._is_regular() and os.fstat(self.fileno()).st_size == end:
                os.ftruncate(self.fileno(), end - count)
                self.seek(end - count)

    def _is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self.fileno()).st_mode)


class _BestEffortFile(io.FileIO):
    """A descriptor for messages: none of them is worth the end of a run."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


def prepare() -> None:
    """Prepare the standard streams: those that are closed count as empty."""
    # Python has None for standard streams that are closed at the start.
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115
    sys.stdout = _unbuffered(sys.stdout, lambda number: WholeFile(number, "standard output"))
    sys.stderr = _unbuffered(sys.stderr, lambda number: _BestEffortFile(number, "w", closefd=False))


def _unbuffered(stream: Any, file: Callable[[int], io.FileIO]) -> Any:
    """Return a text stream over a file, which writes at once, in place of an ordinary one."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if type(raw) is not io.FileIO:  # a console of Windows, for example
        return stream
    return io.TextIOWrapper(
        file(raw.fileno()), encoding=stream.encoding, errors=stream.errors, write_through=True
    )
