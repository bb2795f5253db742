"""Calls a function with callbacks, one after another, while those who bring them never wait."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ci_live_audit._loop import running_loop
from ci_live_audit._threads import Threads
from ci_live_audit.callbacks.line import Line
from ci_live_audit.wire.callbacks import Callback

__all__ = ["Consumer"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")


class Consumer:
    """Calls a function with callbacks, in their order.

    A coroutine function runs on the event loop of whoever brings a callback while none waits, and
    without one on a loop of its own; any other function is called in a thread.
    """

    def __init__(self, function: Callable[[Callback], Any]) -> None:
        self._function = function
        called = getattr(function, "__call__", None)  # noqa: B004 - of an object that is called
        self._is_async = any(map(inspect.iscoroutinefunction, (function, called)))
        self._threads = Threads(1)
        # Of whoever made it, not of the request that happens to come first.
        self._context = contextvars.copy_context()
        self.renew()

    def renew(self) -> None:
        """Forget what waits; for a forked child, as its parent has it too."""
        self._lock = threading.Lock()
        self._line = Line()
        #: Where callbacks are being handed over; None if none is.
        self._home: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._joining: list[asyncio.Future[None]] = []

    def add(self, callback: Callback, size: int) -> bool:
        """Hand over a callback soon; return False if too many wait.

        Args:
            callback: The callback.
            size: Bytes of its body.
        """
        with self._lock:
            if not self._line.add(callback, size):
                return False
        self._work_on()
        return True

    async def join(self) -> None:
        """Wait until the function has returned from all callbacks."""
        loop = running_loop()
        while True:
            with self._lock:
                if not self._line:
                    return
                ended = loop.create_future()
                self._joining.append(ended)
            self._work_on()
            await ended

    def _work_on(self) -> None:
        """Have callbacks handed over, unless they are already."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        with self._lock:
            if self._home is not None and not self._home.is_closed():
                return
            home = self._home = running or asyncio.new_event_loop()
        if running is not None:
            home.call_soon(self._begin, home, context=self._context.copy())
            return
        run = partial(self._context.copy().run, self._run, home)
        try:
            threading.Thread(target=run, name="ci_live_audit", daemon=True).start()
        except RuntimeError as problem:  # the system has no more threads
            home.close()  # so that the next callback tries again
            logger.warning("callbacks have to wait: %s", problem)

    def _begin(self, home: asyncio.AbstractEventLoop) -> None:
        self._task = home.create_task(self._work())

    def _run(self, home: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: home) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        try:
            while self._goes_on():
                await self._hand_over()
        except BaseException:
            with self._lock:
                self._end()
            raise

    def _goes_on(self) -> bool:
        """Return whether callbacks wait; if not, the work ends."""
        with self._lock:
            if not self._line:
                self._end()
            return bool(self._line)

    def _end(self) -> None:
        self._home = self._task = None
        for ended in self._joining:
            try:
                ended.get_loop().call_soon_threadsafe(_wake, ended)
            except RuntimeError:  # its loop is closed
                continue
        self._joining = []

    async def _hand_over(self) -> None:
        try:
            if self._is_async:
                await self._function(self._line.first())
            else:
                begun = await self._threads.run(self._call)
                if begun is None:
                    return
                await begun
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            logger.exception("on_callback failed")
        except Exception:
            logger.exception("on_callback failed")
        with self._lock:
            self._line.remove_first()

    def _call(self) -> Awaitable[object] | None:
        """Call the function, in a thread, until none waits or it returns what is to be awaited.

        Whoever starts this may be gone meanwhile; so it is here that a callback leaves the line.
        """
        while True:
            with self._lock:
                if not self._line:
                    return None
                callback = self._line.first()
            try:
                begun = self._function(callback)
            except Exception:
                logger.exception("on_callback failed")
            else:
                if inspect.isawaitable(begun):
                    return begun
            with self._lock:
                self._line.remove_first()


def _wake(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
