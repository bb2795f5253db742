"""Job ids from arguments, files and standard input."""

from __future__ import annotations

import asyncio
import json
import select
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import attrs

from ci_live_audit.errors import ConfigurationError

__all__ = ["read", "read_input"]

#: Bytes of standard input that are read at once; at most two such pieces wait to be followed.
PIECE = 16384
#: Bytes by which a piece is read on, one by one, to the end of its last line.
LINE = 256
#: Seconds to wait at the end for a read that should not take any.
PATIENCE = 1.0


def read(ids: Iterable[str], files: Iterable[Path]) -> list[str]:
    """Return the ids given as arguments and in files.

    Raises:
        ConfigurationError: A line of JSON has no ``job_id``.
        OSError: A file cannot be read.
    """
    found = list(ids)
    for path in files:
        with path.open("rb") as lines:
            found.extend(_ids(lines, str(path)))
    return found


async def read_input(
    ids: Iterable[str], note: Callable[[str], object] | None = None
) -> AsyncGenerator[str, None]:
    """Yield some ids, then those of standard input as they arrive.

    Args:
        ids: The ids that come first.
        note: Called with each id of standard input as soon as it has been read.

    Raises:
        ConfigurationError: A line of JSON has no ``job_id``.
        OSError: Standard input cannot be read, or an id not be noted.
    """
    for job_id in ids:
        yield job_id
    source = _Input(note or str)
    try:
        while (piece := await source.pieces.get()) is not None:
            for job_id in piece.ids:
                yield job_id
            if piece.error is not None:
                raise piece.error
            source.slots.release()
    finally:
        source.close()


@attrs.define
class _Piece:
    """The ids of some lines, and the first error among them."""

    ids: list[str] = attrs.field(factory=list[str])
    error: Exception | None = None


class _Input:
    """Standard input, read by a thread in pieces of a bounded size, which end with a line.

    A daemon, as a read that never returns must not keep the process alive.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        # Unbuffered, as Python aborts when it exits while a thread reads from a buffered stream.
        self._stream: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        self._rest, self._number, self._ended = b"", 0, False
        self._note = note
        self._missed: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._read: deque[_Piece | None] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.pieces: asyncio.Queue[_Piece | None] = asyncio.Queue()
        self.slots = threading.Semaphore(2)
        threading.Thread(target=self._read_all, daemon=True).start()

    def close(self) -> None:
        """Stop reading, and note what has been read.

        Raises:
            OSError: An id cannot be noted.
        """
        self._closed = True
        self.slots.release()
        # Not for ever, as another process may have read what the thread was about to read.
        if self._lock.acquire(timeout=PATIENCE):
            self._take(self._to_line_end() if self._rest else b"")
            self._lock.release()
        self._receive()
        for job_id in self._missed:
            self._note(job_id)

    def _receive(self) -> None:
        """Note the ids that have been read, and hand them over."""
        while self._read:
            piece = self._read.popleft()
            for job_id in () if piece is None else piece.ids:
                try:
                    self._note(job_id)
                except OSError:  # tried again when the id is taken up, and at the end
                    self._missed.append(job_id)
            self.pieces.put_nowait(piece)

    def _read_all(self) -> None:
        while not self._ended:
            # Nothing is taken off before there is room for it.
            self.slots.acquire()
            with suppress(OSError, ValueError):  # Windows can wait for sockets only
                select.select([self._stream], [], [])
            with self._lock:
                if self._closed:
                    return
                try:
                    chunk = self._stream.read(PIECE)
                    self._ended = chunk == b""
                    chunk = chunk or b""  # None if another process was faster
                    self._take(chunk + (self._to_line_end() if chunk[-1:] != b"\n" else b""))
                except (OSError, ValueError) as problem:
                    self._ended = True
                    self._read += [_Piece(error=problem), None]
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._receive)

    def _to_line_end(self) -> bytes:
        """Read to the end of a line, if that is there and not far away."""
        found = b""
        with suppress(OSError, ValueError):
            while len(found) < LINE and found[-1:] != b"\n" and not self._ended:
                if not select.select([self._stream], [], [], 0)[0]:
                    break
                byte = self._stream.read(1)
                self._ended = byte == b""
                found += byte or b""
        return found

    def _take(self, chunk: bytes) -> None:
        """Keep the ids of whole lines, and the rest for later."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._ended:
            lines.append(self._rest)
            self._rest = b""
        self._read.append(_piece(lines, self._number))
        self._number += len(lines)
        if self._ended:
            self._read.append(None)


def _piece(lines: Iterable[bytes], number: int) -> _Piece:
    """Read all ids of some lines, even if some of the lines are invalid."""
    piece = _Piece()
    for line in lines:
        try:
            piece.ids += _ids([line], "standard input", number)
        except ConfigurationError as problem:
            piece.error = piece.error or problem
        number += 1
    return piece


def _ids(lines: Iterable[bytes], place: str, number: int = 0) -> Iterator[str]:
    """Yield one id a line, plain or JSON with a ``job_id``; skip blanks and ``#`` comments."""
    for line in lines:
        number += 1
        text = line.decode("utf-8-sig", "replace").strip()
        if text.startswith("{"):
            yield _from_json(text, f"{place}, line {number}")
        elif text and not text.startswith("#"):
            yield text


def _from_json(text: str, place: str) -> str:
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        record = {}
    job_id = cast("dict[str, Any]", record).get("job_id")
    if not isinstance(job_id, str):
        raise ConfigurationError(f"{place}: JSON without a job_id")
    return job_id
