"""The function that is called with callbacks: on a loop, in a thread, whatever it does."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from functools import partial
from typing import Any

import pytest
from clocks import now, run_tasks_eagerly
from posted import Taken, body

from ci_live_audit import ConfigurationError
from ci_live_audit.callbacks import Callback, decode
from ci_live_audit.callbacks import consumer as module
from ci_live_audit.callbacks.line import MOST

Consumer = module.consumer
FIRST, SECOND, THIRD = (decode(body(f"av{number}")) for number in (1, 2, 3))


class Called(Taken):
    """An object that is called, and whose call is a coroutine."""

    async def __call__(self, callback: Callback) -> None:
        self.append(callback)


async def test_a_coroutine_function_is_called_on_the_loop() -> None:
    """Functions, partial ones, methods and objects are called on the loop, in order."""
    taken = Called()

    async def add(into: Taken, callback: Callback) -> None:
        assert threading.current_thread() is threading.main_thread()
        into.append(callback)

    for function in (partial(add, taken), taken.add, taken):
        taken.clear()
        consumer = Consumer(function)
        assert all(consumer.add(callback, 100) for callback in (FIRST, SECOND, THIRD))
        assert taken == []
        await consumer.join()
        assert taken == [FIRST, SECOND, THIRD]


async def test_another_function_is_called_in_a_thread() -> None:
    """What blocks delays nobody; what it returns is awaited on the loop if it can be."""
    taken = Taken()
    threads: list[threading.Thread] = []

    def add(callback: Callback) -> Any:
        threads.append(threading.current_thread())
        return taken.add(callback)

    consumer = Consumer(add)
    consumer.add(FIRST, 100)
    consumer.add(SECOND, 100)
    await consumer.join()
    assert taken == [FIRST, SECOND]
    assert threading.main_thread() not in threads


def test_a_function_that_has_begun_is_not_called_again() -> None:
    """What a thread was doing when its loop ended is waited for on the next loop."""
    taken, begun, go_on = Taken(), threading.Event(), threading.Event()

    def slow(callback: Callback) -> None:
        begun.set()
        go_on.wait()
        taken.append(callback)

    consumer = Consumer(slow)

    async def add_and_leave() -> None:
        consumer.add(FIRST, 100)
        await asyncio.to_thread(begun.wait)

    async def join() -> None:
        waiting = asyncio.create_task(consumer.join())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        go_on.set()
        await waiting

    asyncio.run(add_and_leave())
    asyncio.run(join())
    assert taken == [FIRST]


async def test_a_function_that_fails_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """The next callback comes all the same."""
    taken = Taken()

    def fail(callback: Callback) -> None:
        taken.append(callback)
        raise ValueError("no")

    consumer = Consumer(fail)
    for callback in (FIRST, SECOND, THIRD):
        consumer.add(callback, 100)
    await consumer.join()
    assert taken == [FIRST, SECOND, THIRD]
    assert caplog.messages == 3 * ["on_callback failed"]


@pytest.mark.parametrize("is_async", [True, False])
def test_without_a_loop_there_is_one(is_async: bool) -> None:
    """Threads of a framework without asyncio bring callbacks, too."""
    taken, done = Taken(), threading.Event()

    async def on_loop(callback: Callback) -> None:
        in_thread(callback)

    def in_thread(callback: Callback) -> None:
        taken.append(callback)
        if len(taken) == 3:
            done.set()

    consumer = Consumer(on_loop if is_async else in_thread)
    for callback in (FIRST, SECOND, THIRD):
        consumer.add(callback, 100)
    assert done.wait(10)
    asyncio.run(consumer.join())
    assert taken == [FIRST, SECOND, THIRD]


async def test_what_a_quick_function_did_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever brings a callback waits for it a little, if nothing else is to be done before."""
    monkeypatch.setattr(module, "SOON", 10)
    taken, go_on = Taken(), threading.Event()
    consumer = Consumer(taken.append)
    for number, callback in enumerate((FIRST, SECOND, THIRD), 1):
        consumer.add(callback, 100)
        assert len(taken) == number
    monkeypatch.setattr(module, "SOON", 0.001)
    busy = Consumer(lambda _: go_on.wait())
    for callback in (FIRST, SECOND, THIRD):
        assert busy.add(callback, 100)
    go_on.set()
    await busy.join()


def test_a_loop_for_each_request() -> None:
    """A function in a thread needs no loop to be still there."""
    taken = Taken()
    consumer = Consumer(taken.append)

    async def add() -> None:
        consumer.add(FIRST, 100)

    for _ in range(20):
        asyncio.run(add())
    asyncio.run(consumer.join())
    assert taken == 20 * [FIRST]


def test_what_is_returned_without_a_loop_is_awaited() -> None:
    """A function that is none of a coroutine may return one."""
    taken = Taken()
    consumer = Consumer(lambda callback: taken.add(callback))  # noqa: PLW0108
    for callback in (FIRST, SECOND):
        consumer.add(callback, 100)
    asyncio.run(consumer.join())
    assert taken == [FIRST, SECOND]


async def test_what_is_returned_is_awaited_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes."""
    monkeypatch.setattr(module, "LOOK", 0.01)
    go_on, began = asyncio.Event(), asyncio.Event()

    async def work(_: Callback) -> None:
        assert asyncio.get_running_loop() is loop
        began.set()
        await go_on.wait()

    loop = asyncio.get_running_loop()
    consumer = Consumer(lambda callback: work(callback))  # noqa: PLW0108
    consumer.add(FIRST, 100)
    await began.wait()
    time.sleep(0.05)
    go_on.set()
    await consumer.join()


async def test_what_it_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A function that fails, even by a CancelledError, is called with the next callback."""
    failures: list[BaseException] = [ValueError("no"), asyncio.CancelledError("no"), OSError("no")]

    async def fail(_: Callback) -> None:
        raise failures.pop(0)

    consumer = Consumer(fail)
    for callback in (FIRST, SECOND, THIRD):
        consumer.add(callback, 100)
    await consumer.join()
    assert failures == []
    assert [record.getMessage() for record in caplog.records] == 3 * ["on_callback failed"]


async def test_nobody_waits_for_it() -> None:
    """While it is busy, callbacks wait in line until there are too many."""
    taken = Taken()

    async def slow(callback: Callback) -> None:
        await asyncio.sleep(60)
        taken.append(callback)

    consumer = Consumer(slow)
    assert consumer.add(FIRST, MOST // 2)
    await asyncio.sleep(1)
    assert consumer.add(SECOND, MOST // 4)
    assert not consumer.add(THIRD, MOST // 2)
    assert (now() < 2, taken) == (True, [])
    await consumer.join()
    assert consumer.add(THIRD, MOST // 2)
    await consumer.join()
    assert taken == [FIRST, SECOND, THIRD]


async def test_eager_tasks_do_not_call_it_at_once() -> None:
    """It is not called by whoever brings a callback."""
    run_tasks_eagerly()
    taken = Taken()
    consumer = Consumer(taken.add)
    consumer.add(FIRST, 100)
    assert taken == []
    await consumer.join()
    assert taken == [FIRST]


def test_another_loop_goes_on() -> None:
    """What a loop left that was closed, begun or not, is handed over on the next one."""
    taken = Taken()

    async def slow(callback: Callback) -> None:
        await asyncio.sleep(60 if asyncio.get_running_loop() is first else 0)
        taken.append(callback)

    consumer = Consumer(slow)

    async def add_and_leave() -> None:
        consumer.add(FIRST, 100)
        await asyncio.sleep(0.01)

    async def add_and_leave_at_once() -> None:
        consumer.add(SECOND, 100)

    for leave in (add_and_leave, add_and_leave_at_once):
        with asyncio.Runner() as runner:
            first = runner.get_loop()
            runner.run(leave())
    # A loop that is closed before it has begun.
    first = asyncio.new_event_loop()
    first.call_soon(consumer.add, THIRD, 100)
    first.call_soon(first.stop)
    first.run_forever()
    first.close()
    asyncio.run(consumer.join())
    assert taken == [FIRST, SECOND, THIRD]


async def test_whoever_waits_on_a_closed_loop_holds_nobody_up() -> None:
    """The end is told to those whose loops are open."""
    go_on = asyncio.Event()

    async def slow(_: Callback) -> None:
        await go_on.wait()

    consumer = Consumer(slow)
    consumer.add(FIRST, 100)
    await asyncio.sleep(0)

    def wait_and_leave() -> None:
        loop = asyncio.new_event_loop()
        waiting: Any = loop.create_task(consumer.join())
        waiting._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    await asyncio.to_thread(wait_and_leave)
    go_on.set()
    await consumer.join()


async def test_whoever_no_longer_waits_is_not_told() -> None:
    """A wait may be cancelled."""
    taken = Taken()
    consumer = Consumer(taken.add)
    consumer.add(FIRST, 100)
    waiting = asyncio.create_task(consumer.join())
    await asyncio.sleep(0)
    waiting.cancel()
    await consumer.join()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert taken == [FIRST]


def test_without_a_loop_nobody_can_wait() -> None:
    """Waiting needs a running loop."""
    waiting = Consumer(print).join()
    with pytest.raises(ConfigurationError, match="no asyncio event loop"):
        waiting.send(None)


async def test_its_context_is_that_of_its_maker() -> None:
    """What belongs to the request that brings a callback is not seen."""
    seen: list[str] = []
    variable = contextvars.ContextVar("variable", default="nobody")
    variable.set("maker")

    async def look(_: Callback) -> None:
        seen.append(variable.get())

    consumers = [Consumer(look), Consumer(lambda _: seen.append(variable.get()))]
    variable.set("request")
    for one in consumers:
        one.add(FIRST, 100)
        await one.join()
    assert seen == ["maker", "maker"]


@pytest.mark.parametrize("is_async", [True, False])
def test_the_system_has_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """A callback waits until there is a thread again."""
    taken = Taken()
    consumer = Consumer(taken.add if is_async else taken.append)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert consumer.add(FIRST, 100)
    assert caplog.messages == ["callbacks have to wait: can't start new thread"]
    consumer.add(SECOND, 100)
    asyncio.run(consumer.join())
    assert taken == [FIRST, SECOND]


def test_an_interrupt_ends_the_loop() -> None:
    """A KeyboardInterrupt is none of ours; the callback is handed over on the next loop."""
    taken = Taken()

    tasks: list[Any] = []

    async def interrupt(callback: Callback) -> None:
        tasks.append(asyncio.current_task())
        taken.append(callback)
        if len(taken) == 1:
            raise KeyboardInterrupt

    consumer = Consumer(interrupt)

    async def main() -> None:
        consumer.add(FIRST, 100)
        await consumer.join()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert isinstance(tasks[0].exception(), KeyboardInterrupt)
    asyncio.run(consumer.join())
    assert taken == [FIRST, FIRST]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_renewed_one_has_nothing_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """What waited was its parent's."""
    caplog.set_level(logging.DEBUG)
    taken = Taken()
    consumer = Consumer(taken.add)
    assert consumer.add(FIRST, MOST)
    consumer.renew()
    await consumer.join()
    assert consumer.add(SECOND, MOST)
    await consumer.join()
    assert taken[-1] == SECOND
