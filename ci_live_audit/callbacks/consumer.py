"""Calls a function with callbacks, one after another; those who bring them hardly wait."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ci_live_audit._loop import current_loop, running_loop
from ci_live_audit.callbacks.line import Line
from ci_live_audit.wire.callbacks import Callback

__all__ = ["Consumer", "consumer"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")

#: Seconds that whoever brings a callback waits for a function in a thread that has nothing else to
#: do: most are done by then, and what they did can be seen at once.
SOON = 0.01
#: Seconds from one look to the next whether a loop is still there that runs what was returned.
LOOK = 1.0


def consumer(function: Callable[[Callback], Any]) -> Consumer:
    """Return what calls a function: a coroutine function on an event loop, another in a thread."""
    called = getattr(function, "__call__", None)  # noqa: B004 - of an object that is called
    is_async = any(map(inspect.iscoroutinefunction, (function, called)))
    return _OnLoop(function) if is_async else _InThread(function)


class Consumer(ABC):
    """Calls a function with callbacks, in their order."""

    def __init__(self, function: Callable[[Callback], Any]) -> None:
        self._function = function
        # Of whoever made it, not of the request that happens to come first.
        self._context = contextvars.copy_context()
        self.renew()

    def renew(self) -> None:
        """Forget what waits; for a forked child, as its parent has it too."""
        self._lock = threading.Lock()
        self._line = Line()
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

    @abstractmethod
    def _work_on(self) -> None:
        """Have callbacks handed over, unless they are already."""

    def _end(self) -> None:
        """Tell those who wait that the work has ended."""
        for ended in self._joining:
            try:
                ended.get_loop().call_soon_threadsafe(_wake, ended)
            except RuntimeError:  # its loop is closed
                continue
        self._joining = []

    def _start(self, run: Callable[[], object]) -> bool:
        """Call a function in a thread; return False if the system has no more threads."""
        run = partial(self._context.copy().run, run)
        try:
            threading.Thread(target=run, name="ci_live_audit", daemon=True).start()
        except RuntimeError as problem:
            logger.warning("callbacks have to wait: %s", problem)
            return False
        return True


class _OnLoop(Consumer):
    """Calls a coroutine function on the event loop of whoever brings a callback while none waits.

    Without one it is on a loop of its own. If a loop ends, another goes on.
    """

    def renew(self) -> None:
        super().renew()
        #: Where callbacks are being handed over; None if none is.
        self._home: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def _work_on(self) -> None:
        running = current_loop()
        with self._lock:
            if self._home is not None and not self._home.is_closed():
                return
            home = self._home = running or asyncio.new_event_loop()
        if running is not None:
            home.call_soon(self._begin, home, context=self._context.copy())
        elif not self._start(lambda: self._run(home)):
            home.close()  # so that the next callback tries again

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
        super()._end()

    async def _hand_over(self) -> None:
        try:
            await self._function(self._line.first())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            logger.exception("on_callback failed")
        except Exception:
            logger.exception("on_callback failed")
        with self._lock:
            self._line.remove_first()


class _InThread(Consumer):
    """Calls a function in a thread, which ends when no callback waits.

    What the function returns is awaited, if it can be, on the event loop of whoever brought a
    callback last, or else on one of its own.
    """

    def renew(self) -> None:
        super().renew()
        self._is_working = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._returned = threading.Event()

    def _work_on(self) -> None:
        with self._lock:
            self._loop = current_loop() or self._loop
            if self._is_working:
                return
            self._is_working = True
            self._returned.clear()
        if self._start(self._work):
            self._returned.wait(SOON)
        else:
            self._is_working = False

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._line:
                    self._is_working = False
                    self._end()
                    return
                callback = self._line.first()
            try:
                returned = self._function(callback)
                if inspect.isawaitable(returned):
                    self._returned.set()
                    self._wait_for(returned)
            except BaseException:  # the thread has nobody to tell
                logger.exception("on_callback failed")
            with self._lock:
                self._line.remove_first()
            self._returned.set()

    def _wait_for(self, returned: Awaitable[object]) -> None:
        async def wait() -> None:
            await returned

        loop = self._loop
        if loop is None or not loop.is_running():
            asyncio.run(wait())
            return
        future = asyncio.run_coroutine_threadsafe(wait(), loop)
        while not future.done() and not loop.is_closed():
            try:
                future.result(LOOK)
            except TimeoutError:
                continue


def _wake(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
