"""Job ids from arguments, files and standard input."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ci_live_audit.errors import ConfigurationError

__all__ = ["read", "read_input"]


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


async def read_input(ids: Iterable[str]) -> AsyncGenerator[str, None]:
    """Yield some ids, then those of standard input as they arrive; a thread waits for them."""
    for job_id in ids:
        yield job_id
    batches: asyncio.Queue[list[str] | Exception | None] = asyncio.Queue()
    slots = threading.Semaphore(2)
    loop = asyncio.get_running_loop()

    def put(batch: list[str] | Exception | None) -> None:
        slots.acquire()
        with suppress(RuntimeError):  # the loop is closed: nobody wants the batch any more
            loop.call_soon_threadsafe(batches.put_nowait, batch)

    # A daemon, as a read that never returns must not keep the process alive. Unbuffered, as Python
    # aborts when it exits while a thread is reading from a buffered stream.
    stream = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    threading.Thread(target=_read_all, args=(stream, put), daemon=True).start()
    while (batch := await batches.get()) is not None:
        slots.release()
        if isinstance(batch, Exception):
            raise batch
        for job_id in batch:
            yield job_id


def _read_all(stream: Any, put: Any) -> None:
    """Read lines, and hand over at once those that are available."""
    rest, number = b"", 0
    try:
        while chunk := stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            put(list(_ids(lines, "standard input", number)))
            number += len(lines)
        put(list(_ids([rest], "standard input", number)))
        put(None)
    except Exception as error:  # noqa: BLE001 - raised where the ids are consumed
        put(error)


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
