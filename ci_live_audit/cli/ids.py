"""Job ids and URLs from arguments, files and standard input."""

from __future__ import annotations

import asyncio
import select
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from ci_live_audit.cli.lines import IDS, Kind, Lines, Piece
from ci_live_audit.cli.streams import raw_input
from ci_live_audit.errors import InvalidInput

__all__ = ["gather", "given", "read", "read_input"]

#: Bytes of standard input that are read at once; at most two such pieces wait to be followed.
PIECE = 16384
#: Bytes of a file that are read at once.
BLOCK = 2**20
#: Bytes by which a piece is read on, one by one, to the end of its last line.
LINE = 256
#: Seconds to wait at the end for a read that should not take any.
PATIENCE = 1.0


async def given(
    ids: Sequence[str],
    files: Sequence[Path],
    run: Callable[[list[str]], Awaitable[int]],
    *,
    may_be_empty: bool = False,
) -> int:
    """Run a command with all ids of arguments, files and standard input, each once.

    Raises:
        ConfigurationError: There are none, or these are no ids.
        OSError: A file or standard input cannot be read.
    """
    known, from_input = gather(ids, files, may_be_empty=may_be_empty)
    if from_input:
        async with aclosing(read_input(known, may_be_empty=may_be_empty)) as found:
            known = [job_id async for job_id in found]
    return await run(list(dict.fromkeys(known)))


def gather(
    ids: Sequence[str], files: Sequence[Path], kind: Kind = IDS, *, may_be_empty: bool = False
) -> tuple[list[str], bool]:
    """Return the ids of arguments and files, and whether standard input has more.

    Args:
        ids: Those of arguments.
        files: Files to read; ``-`` is standard input.
        kind: What is read.
        may_be_empty: Whether no ids will do, as a checkpoint may have some.

    Raises:
        ConfigurationError: There are none, or these are no ids.
        OSError: A file cannot be read.
    """
    from_input = Path("-") in files or not (ids or files)
    paths = [path for path in files if path != Path("-")]
    found = read(ids, paths, kind)
    if not (found or from_input or may_be_empty):
        raise _nothing(", ".join(map(str, paths)), kind)
    return found, from_input


def _nothing(place: str, kind: Kind) -> InvalidInput:
    return InvalidInput(f"{place}: no {kind.name} there; {kind.expected}")


def read(ids: Iterable[str], files: Iterable[Path], kind: Kind = IDS) -> list[str]:
    """Return the ids given as arguments and in files.

    Raises:
        ConfigurationError: These are no ids, or a line of JSON has no ``job_id``.
        OSError: A file cannot be read.
    """
    found = list(ids)
    for path in files:
        lines = Lines(str(path), kind)
        with path.open("rb") as file:
            for data in iter(lambda: file.read(BLOCK), b""):
                lines.feed(data)
        lines.feed(b"", final=True)
        piece = lines.take()
        if piece.error is not None:
            raise piece.error
        found += piece.ids
    return found


async def read_input(
    ids: Iterable[str],
    note: Callable[[str], object] | None = None,
    kind: Kind = IDS,
    *,
    may_be_empty: bool = False,
) -> AsyncGenerator[str, None]:
    """Yield some ids, then those of standard input as they arrive.

    Args:
        ids: The ids that come first.
        note: Called with each id of standard input as soon as it has been read.
        kind: What is read.
        may_be_empty: Whether no ids will do; with ``note``, they always do.

    Raises:
        ConfigurationError: There are none, or these are no ids, or a line of JSON has no
            ``job_id``.
        OSError: Standard input cannot be read, or an id not be noted.
    """
    empty = not (may_be_empty or note)
    for job_id in ids:
        empty = False
        yield job_id
    source = _Input(note or str, kind)
    try:
        while (piece := await source.pieces.get()) is not None:
            for job_id in piece.ids:
                empty = False
                yield job_id
            if piece.error is not None:
                raise piece.error
            source.slots.release()
        if empty:
            raise _nothing("standard input", kind)
    finally:
        source.close()


class _Input:
    """Standard input, read by a thread in pieces of a bounded size, which end with a line.

    A daemon, as a read that never returns must not keep the process alive.
    """

    def __init__(self, note: Callable[[str], object], kind: Kind) -> None:
        self._stream: Any = raw_input()
        self._lines, self._ended = Lines("standard input", kind), False
        self._note = note
        self._missed: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._read: deque[Piece | None] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
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
            self._take(b"")
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
                    self._take(chunk or b"")  # None if another process was faster
                except (OSError, ValueError) as problem:
                    self._ended = True
                    self._read += [Piece(error=problem), None]
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._receive)

    def _take(self, chunk: bytes) -> None:
        """Keep the ids of whole lines; read on to the end of the last one, if that is near."""
        self._lines.feed(chunk, final=self._ended)
        with suppress(OSError, ValueError):
            for _ in range(LINE):
                whole = self._lines.ended or self._ended
                if whole or not select.select([self._stream], [], [], 0)[0]:
                    break
                byte = self._stream.read(1)
                self._ended = byte == b""
                self._lines.feed(byte or b"", final=self._ended)
        self._read.append(self._lines.take())
        if self._ended:
            self._read.append(None)
