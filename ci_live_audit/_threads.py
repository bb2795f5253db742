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
        self._waiting: deque[_Job] = deque()

    async def run(self, function: Callable[[], T], ended: Callable[[], object] | None = None) -> T:
        """Call a function in a thread, and return its result or raise what it raises.

        A caller that is cancelled leaves at once; a function that has begun goes on to its end.

        Args:
            function: The function.
            ended: Called on the loop once the function has ended, or will not be called.

        Raises:
            RuntimeError: The system has no more threads.
        """
        if self._process != os.getpid():
            self._reset()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Callable[[], T]] = loop.create_future()
        if ended is not None:
            future.add_done_callback(lambda _: ended())
        job = _Job(partial(contextvars.copy_context().run, function), loop, future)
        with self._lock:
            self._waiting.append(job)
        try:
            self._start()
            await asyncio.wait([future])
        finally:
            if not future.done():
                self._leave(job, future)
        return future.result()()

    def _start(self) -> None:
        """Start a thread if one more may run."""
        with self._lock:
            if self._running == self.most:
                return
            self._running += 1
        try:
            threading.Thread(target=self._serve, name="ci_live_audit", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._running -= 1
            raise

    def _leave(self, job: _Job, future: asyncio.Future[Any]) -> None:
        """Take a job that has not begun out of the line."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(job)
            future.cancel()

    def _serve(self) -> None:
        """Work until nothing waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job = self._waiting.popleft()
            job.work()


class _Job:
    """A function to call, and the future that gets what comes of it."""

    def __init__(
        self,
        function: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
    ) -> None:
        self._function: Callable[[], Any] | None = function
        self._loop = loop
        self._future = future

    def work(self) -> None:
        """Call the function, and let go of it before its caller goes on."""
        assert self._function is not None
        outcome: Callable[[], Any]
        try:
            outcome = partial(_identity, self._function())
        except BaseException as problem:  # noqa: BLE001 - it is raised where the function was called
            outcome = partial(_throw, problem)
        self._function = None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._future.set_result, outcome)


def _identity(result: T) -> T:
    return result


def _throw(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:  # or the error and this frame would keep each other alive
        del error
