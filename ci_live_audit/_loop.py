"""The running event loop, deadlines on it, and tasks that have to end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from ci_live_audit.errors import ConfigurationError

__all__ = [
    "cancel_and_wait",
    "current_loop",
    "deadline",
    "own_loop",
    "running_loop",
    "wait_for",
    "wait_for_end",
]

#: Seconds that a deadline is put off, at most, if it is noticed late.
GRACE = 1.0


def current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop; None if none is."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigurationError: No asyncio event loop is running.
    """
    loop = current_loop()
    if loop is None:
        raise ConfigurationError(
            "no asyncio event loop is running: await the call within one; after a fork, "
            "make a loop and a client in the child"
        )
    return loop


def own_loop(limiter: object) -> asyncio.AbstractEventLoop:
    """Return the running event loop, to which a limiter belongs from its first use on.

    Raises:
        ConfigurationError: It is in use on another event loop, or none is running.
    """
    loop = running_loop()
    # In one step: two threads may be here at once.
    owner: asyncio.AbstractEventLoop = vars(limiter).setdefault("_loop", loop)
    if owner is not loop:
        raise ConfigurationError(
            "this limiter is in use on another event loop; make one for each loop"
        )
    return loop


@asynccontextmanager
async def deadline(
    when: float,
    *,
    may_end: Callable[[], bool] = lambda: True,
    put_off: Callable[[], float] = lambda: 0.0,
) -> AsyncGenerator[None, None]:
    """Raise a TimeoutError at a time of the loop, unless the context has ended before.

    A process that was stopped, or a loop that was blocked, sees at once that the time has come and
    what came in the meantime. So a deadline that is noticed late is put off by as much, up to
    `GRACE` seconds.

    Args:
        when: The time of the loop; infinity for none.
        may_end: Whether what the context waits for may have come; without it there is no delay.
        put_off: Seconds for which it does not count that time passes, so far.
    """
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)
    due = when

    def notice(again: Callable[..., None]) -> None:  # by its own name it would keep itself alive
        nonlocal due
        if when + put_off() > due:
            due = when + put_off()
            timers.append(loop.call_at(due, again, again))
            return
        late = min(loop.time() - due, GRACE)
        if late > 0 and may_end():
            timers.append(loop.call_later(late, scope.reschedule, when))
        else:
            scope.reschedule(when)

    timers = [loop.call_at(when, notice, notice)] if when < math.inf else []
    try:
        async with scope:
            yield
    finally:
        for timer in timers:
            timer.cancel()


async def cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, even if the waiting is cancelled.

    Their exceptions are marked as retrieved.
    """
    for task in tasks:
        task.cancel()
    try:
        await wait_for_end(tasks)
    finally:
        for task in tasks:
            if not task.cancelled():
                task.exception()


async def wait_for_end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait until tasks have ended, even if the waiting is cancelled: that is raised then."""
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def wait_for(event: asyncio.Event, until: float) -> None:
    """Wait until an event is set or a time has come, and clear the event."""
    loop = asyncio.get_running_loop()
    timer = loop.call_at(until, event.set) if until < math.inf else None
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
    event.clear()
    await asyncio.sleep(0)  # a loop around this never starves others
