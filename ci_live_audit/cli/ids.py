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
    """Standard input, read by a thread in pieces of a bounded size.

    A daemon, as a read that never returns must not keep the process alive.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._read: deque[_Piece | None] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._missed: list[str] = []
        self.pieces: asyncio.Queue[_Piece | None] = asyncio.Queue()
        self.slots = threading.Semaphore(2)
        threading.Thread(target=self._read_all, daemon=True).start()

    def close(self) -> None:
        """Stop reading, and note what has been read.

        Raises:
            OSError: An id cannot be noted.
        """
        # Not for ever, as another process may have read what this one was about to read.
        is_mine = self._lock.acquire(timeout=PATIENCE)
        self._closed = True
        if is_mine:
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
        # Unbuffered, as Python aborts when it exits while a thread reads from a buffered stream.
        stream: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        rest, number, chunk = b"", 0, None
        while chunk != b"":
            # Nothing is taken off before there is room for it.
            self.slots.acquire()
            with suppress(OSError, ValueError):  # Windows can wait for sockets only
                select.select([stream], [], [])
            with self._lock:
                if self._closed:
                    return
                try:
                    chunk = stream.read(PIECE)  # None if another process was faster
                except (OSError, ValueError) as problem:
                    chunk, piece = b"", _Piece(error=problem)
                else:
                    *lines, rest = (rest + (chunk or b"")).split(b"\n")
                    piece = _piece(lines if chunk != b"" else [rest], number)
                    number += len(lines)
                self._read += [piece] if chunk != b"" else [piece, None]
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._receive)


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
