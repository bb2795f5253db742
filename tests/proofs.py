"""Helpers of the proofs: how often, over which backends, and what is still open afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import httpx2

#: Whether everything is done as often as is promised: ``nox -s full``.
IN_FULL = os.environ.get("CI_LIVE_AUDIT_TESTS") == "full"
#: The three ways to the network: own connections and the clients of the httpx family.
BACKENDS: dict[str, Any] = {"own": None, "httpx": httpx, "httpx2": httpx2}


def times(full: int) -> int:
    """Return how often something is done: the full number, or a tenth of it."""
    return full if IN_FULL else max(full // 10, 1)


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Limit the size of files, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@attrs.frozen
class Left:
    """What is open: tasks of the running loop, file descriptors of the process."""

    tasks: int
    files: int


def left_open() -> Left:
    """Return what is open now."""
    gc.collect()
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:  # no loop
        tasks = 0
    return Left(tasks, len(list(Path("/dev/fd").iterdir())))


async def nothing_more_open(than: Left, *, within: float = 10.0) -> bool:
    """Whether no more is open than was; sockets of a server need a moment to close."""
    for _ in range(round(within / 0.01)):
        now = left_open()
        if now.tasks <= than.tasks and now.files <= than.files:
            return True
        await asyncio.sleep(0.01)
    return False
