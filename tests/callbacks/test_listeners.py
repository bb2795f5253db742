"""Listeners: each on its own loop, each for itself."""

from __future__ import annotations

import asyncio
import contextvars
import logging

import pytest
from posted import Taken, body

from ci_live_audit import ConfigurationError
from ci_live_audit.callbacks import Callback, decode
from ci_live_audit.callbacks.line import MOST
from ci_live_audit.callbacks.listeners import Listeners

FIRST, SECOND = decode(body("av1")), decode(body("av2"))


async def turn() -> None:
    """Let the loop do what it was asked for."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_listeners_hear_what_comes_from_now_on() -> None:
    """Each hears all callbacks in their order, from when it began until it ends."""
    listeners, one, other = Listeners(), Taken(), Taken()
    listeners.tell(FIRST, 100)
    end = listeners.add(one.append)
    listeners.tell(FIRST, 100)
    assert one == []
    listeners.add(other.append)
    listeners.tell(SECOND, 100)
    await turn()
    assert (one, other) == ([FIRST, SECOND], [SECOND])
    listeners.tell(FIRST, 100)
    end()
    end()
    listeners.tell(SECOND, 100)
    await turn()
    assert (one, other) == ([FIRST, SECOND], [SECOND, FIRST, SECOND])


async def test_the_same_function_can_listen_twice() -> None:
    """Two runs with one function are two listeners."""
    listeners, taken = Listeners(), Taken()
    ends = [listeners.add(taken.append) for _ in range(2)]
    listeners.tell(FIRST, 100)
    await turn()
    ends[0]()
    listeners.tell(SECOND, 100)
    await turn()
    assert taken == [FIRST, FIRST, SECOND]


async def test_a_listener_that_raises_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, and it hears the next callback."""
    listeners, before, after = Listeners(), Taken(), Taken()

    def fail(callback: Callback) -> None:
        raise ValueError(callback.job_id)

    for function in (before.append, fail, after.append):
        listeners.add(function)
    for callback in (FIRST, SECOND):
        listeners.tell(callback, 100)
    await turn()
    assert before == after == [FIRST, SECOND]
    assert caplog.messages == 2 * ["a listener failed"]


async def test_a_listener_may_end_itself_and_begin_others() -> None:
    """Whoever ends hears nothing more, not even what has come already."""
    listeners, taken = Listeners(), Taken()

    def once(callback: Callback) -> None:
        taken.append(callback)
        end()
        listeners.add(taken.append)

    end = listeners.add(once)
    listeners.tell(FIRST, 100)
    listeners.tell(SECOND, 100)
    await turn()
    assert taken == [FIRST]
    listeners.tell(SECOND, 100)
    await turn()
    assert taken == [FIRST, SECOND]


async def test_callbacks_come_from_other_threads() -> None:
    """They are told on the loop of the listener, in its context."""
    listeners, taken = Listeners(), Taken()
    variable = contextvars.ContextVar("variable", default="other")
    variable.set("own")
    heard: list[str] = []
    listeners.add(lambda _: heard.append(variable.get()))
    listeners.add(taken.append)
    for callback in (FIRST, SECOND):
        await asyncio.to_thread(contextvars.Context().run, listeners.tell, callback, 100)
    await turn()
    assert taken == [FIRST, SECOND]
    assert heard == ["own", "own"]


def test_a_listener_whose_loop_is_closed_is_forgotten() -> None:
    """It hears nothing more, and costs nothing."""
    listeners, taken = Listeners(), Taken()

    async def listen() -> None:
        listeners.add(taken.append)

    asyncio.run(listen())
    listeners.tell(FIRST, 100)
    assert taken == []
    assert not listeners._all


async def test_a_loop_that_is_blocked_has_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """A listener whose loop does not run misses what is too much, and is told so once."""
    caplog.set_level(logging.WARNING)
    listeners, taken = Listeners(), Taken()
    listeners.add(taken.append)
    for _ in range(2):
        listeners.tell(FIRST, MOST)
        listeners.tell(SECOND, 100)
        listeners.tell(SECOND, 100)
        await turn()
    assert taken == [FIRST, FIRST]
    assert caplog.messages == 2 * ["a listener misses callbacks: its event loop is blocked"]


def test_without_a_loop_nobody_listens() -> None:
    """A listener needs a running loop."""
    with pytest.raises(ConfigurationError, match="no asyncio event loop"):
        Listeners().add(print)
