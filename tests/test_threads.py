"""Threads of our own: bounded, in order, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from servers import eventually

from ci_live_audit._threads import Threads

pytestmark = pytest.mark.waits  # for threads

MINE = contextvars.ContextVar("MINE", default="")


def ours() -> list[threading.Thread]:
    """Return the threads that run now."""
    return [thread for thread in threading.enumerate() if thread.name == "ci_live_audit"]


async def test_a_call_runs_in_a_daemon_thread_with_the_context_of_its_caller() -> None:
    """It holds no process, and sees the variables of whoever calls."""
    MINE.set("mine")

    def look() -> tuple[bool, str]:
        return threading.current_thread().daemon, MINE.get()

    assert await Threads(1).run(look) == (True, "mine")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_what_a_function_raises_is_raised(error: BaseException) -> None:
    """Whatever a function raises reaches its caller, and the thread takes the next."""

    def fail() -> None:
        raise error

    threads = Threads(1)
    with pytest.raises(type(error)) as caught:
        await threads.run(fail)
    assert caught.value is error
    assert await threads.run(lambda: 1) == 1


async def test_a_stop_iteration_does_not_hang() -> None:
    """A future refuses a StopIteration; the caller gets the RuntimeError of every coroutine."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await Threads(1).run(partial(next, iter(())))


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_a_thread_keeps_nothing_once_the_result_is_there(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a caller drops afterwards is gone, even if the thread still has to end."""
    loop = asyncio.get_running_loop()
    seen = threading.Event()
    tell = loop.call_soon_threadsafe

    def tell_and_wait(*args: Any) -> None:
        tell(*args)
        del args
        assert seen.wait(10)

    class Owner:
        def work(self) -> None:
            if error is not None:
                raise error

    owner = Owner()
    dropped = weakref.ref(owner)
    monkeypatch.setattr(loop, "call_soon_threadsafe", tell_and_wait)
    with nullcontext() if error is None else pytest.raises(ValueError, match="mine"):
        await Threads(1).run(owner.work)
    if error is not None:
        error.__traceback__ = None
    del owner
    alive = dropped() is not None
    seen.set()
    assert not alive


async def test_no_more_run_than_may_and_in_order() -> None:
    """Of twenty calls three run at once, begun in the order of their coming, on no more threads."""
    threads, lock = Threads(3), threading.Lock()
    begun: list[int] = []
    running, most = 0, 0

    def work(number: int) -> None:
        nonlocal running, most
        with lock:
            begun.append(number)
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(partial(work, number)) for number in range(20)))
    assert most <= 3
    assert sorted(begun) == list(range(20))
    assert max(abs(at - number) for at, number in enumerate(begun)) <= 3
    assert await eventually(lambda: not ours())


async def test_a_caller_that_leaves_leaves_at_once() -> None:
    """A function that is stuck holds up neither its caller nor, if there is room, others."""
    threads, free = Threads(2), threading.Event()
    stuck = asyncio.create_task(threads.run(free.wait))
    await asyncio.sleep(0)
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    assert await threads.run(lambda: 1) == 1
    free.set()
    assert await eventually(lambda: not ours())


async def test_who_leaves_the_line_is_not_called() -> None:
    """A call that was cancelled while it waited for a thread is never made."""
    threads, free = Threads(1), threading.Event()
    called: list[int] = []
    first = asyncio.create_task(threads.run(free.wait))
    second = asyncio.create_task(threads.run(partial(called.append, 2)))
    third = asyncio.create_task(threads.run(partial(called.append, 3)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(first, third)
    assert called == [3]


async def test_the_end_of_a_function_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks learns when a function has ended, or that it will not be called, and not before."""
    threads, free = Threads(1), threading.Event()
    ended: list[str] = []

    def run(name: str, function: Callable[[], object]) -> asyncio.Task[object]:
        return asyncio.create_task(threads.run(function, partial(ended.append, name)))

    running, waiting, failing = (
        run("running", free.wait),
        run("waiting", int),
        run("bad", none_left),
    )
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    await asyncio.wait([running, waiting])
    await asyncio.sleep(0)
    assert ended == ["waiting"]
    free.set()
    with pytest.raises(RuntimeError):
        await failing
    assert ended == ["waiting", "running", "bad"]
    assert await eventually(lambda: not ours())
    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(RuntimeError):
        await run("no thread", int)
    await asyncio.sleep(0)
    assert ended == ["waiting", "running", "bad", "no thread"]


def test_a_loop_that_is_closed_is_no_trouble() -> None:
    """A result for which nobody waits any more is dropped, and other loops go on."""
    threads, free = Threads(1), threading.Event()

    async def leave() -> None:
        call = asyncio.create_task(threads.run(free.wait))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave())
    free.set()
    assert asyncio.run(threads.run(lambda: 1)) == 1


def none_left(*_: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_system_without_threads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that cannot be started takes no place."""
    threads = Threads(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="can't start"):
            await threads.run(lambda: 1)
    assert await threads.run(lambda: 1) == 1


async def test_another_process_begins_anew() -> None:
    """What was running elsewhere is forgotten, whatever lock it held."""
    threads = Threads(1)
    threads._lock.acquire()
    threads._running, threads._process = 1, -1
    assert await threads.run(lambda: 1) == 1


def test_a_forked_child_has_threads_of_its_own() -> None:
    """A child whose parent used all threads is not held up by what it has not inherited."""
    threads, free = Threads(1), threading.Event()

    async def use() -> int:
        return await threads.run(lambda: 7)

    async def main() -> None:
        stuck = asyncio.create_task(threads.run(free.wait))
        await asyncio.sleep(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks where threads are
            child = os.fork()
        if not child:
            _in_child(lambda: os._exit(_in_new_loop(use)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        free.set()
        await stuck

    asyncio.run(main())


def _in_child(body: Callable[[], object]) -> None:
    try:
        body()
    finally:
        os._exit(1)


def _in_new_loop(use: Callable[[], object]) -> int:
    asyncio.events._set_running_loop(None)
    return asyncio.run(use())  # type: ignore[arg-type]


STUCK = """
import asyncio, threading
from ci_live_audit._threads import Threads
async def main():
    call = asyncio.create_task(Threads(1).run(threading.Event().wait))
    await asyncio.sleep(0)
asyncio.run(main())
"""


def test_a_thread_that_is_stuck_does_not_hold_the_process() -> None:
    """The interpreter ends although a function never returns."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", STUCK], check=False, timeout=30)
    assert done.returncode == 0
