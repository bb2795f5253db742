"""Threads of our own for what blocks.

What else an application does in its threads delays nothing here, and what is stuck here holds
nobody up, not even the end of the process. A thread ends when nothing waits for it: starting one
costs a tenth of a millisecond.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """Daemon threads, at most so many at once; further calls wait in order.

    May be shared by event loops, and is new in a forked child.

    Args:
        most: The number of threads that may run.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._reset()

    def _reset(self) -> None:
        # A child inherits neither the threads nor the right to a lock that one of them held.
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[Callable[[], None]] = deque()

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread, and return its result or raise what it raises.

        A caller that is cancelled leaves at once; a function that has begun goes on to its end.

        Raises:
            RuntimeError: The system has no more threads.
        """
        if self._process != os.getpid():
            self._reset()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Callable[[], T]] = loop.create_future()
        job = partial(_work, contextvars.copy_context(), function, loop, future)
        with self._lock:
            starts = self._running < self.most
            if starts:
                self._running += 1
            else:
                self._waiting.append(job)
        if starts:
            self._start(job)
        return (await future)()

    def _start(self, job: Callable[[], None]) -> None:
        try:
            threading.Thread(
                target=self._serve, args=(job,), name="ci_live_audit", daemon=True
            ).start()
        except RuntimeError:
            with self._lock:
                self._running -= 1
            raise

    def _serve(self, job: Callable[[], None] | None) -> None:
        """Work until nothing waits."""
        while job is not None:
            job()
            with self._lock:
                job = self._waiting.popleft() if self._waiting else None
                if job is None:
                    self._running -= 1


def _work(
    context: contextvars.Context,
    function: Callable[[], Any],
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
) -> None:
    if future.done():  # the caller has left
        return
    outcome: Callable[[], Any]
    try:
        outcome = partial(_identity, context.run(function))
    except BaseException as problem:  # noqa: BLE001 - it is raised where the function was called
        outcome = partial(_throw, problem)
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_deliver, future, outcome)


def _deliver(future: asyncio.Future[Any], outcome: Callable[[], Any]) -> None:
    if not future.done():
        future.set_result(outcome)


def _identity(result: T) -> T:
    return result


def _throw(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:  # or the error and this frame would keep each other alive
        del error
