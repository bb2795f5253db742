"""Put coroutine tests on `VirtualTimeLoop`, and fail those that would miss it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from unittest import TestCase

import pytest

from ci_live_audit.testing.virtual_time import VirtualTimeLoop

__all__ = ["ANYIO_BACKEND", "LoopFactories", "guard", "policy"]

MAX_REAL_SECONDS = 60.0

MARK = "@pytest.mark.live_audit_virtual_time"
# What a failing test says; {loop} is the class of its event loop.
NOT_OBEYED = """\
This test is marked live_audit_virtual_time, but its event loop, {loop}, keeps real time. The mark
works for tests that anyio's plugin or pytest-asyncio 1.0 or later runs; tests and async fixtures
that share an event loop must all be marked, or none of them. Any other plugin must be told to use
ci_live_audit.testing.VirtualTimeLoop."""
IGNORED = f"""\
The fixture anyio_backend names VirtualTimeLoop, but the plugin that runs this test ignores it: the
event loop, {{loop}}, keeps real time. Mark the test {MARK}, which
pytest-asyncio obeys too, or set asyncio_mode = strict to leave the test to anyio's plugin."""
TOO_LONG = f"""\
This test has taken {MAX_REAL_SECONDS:g} s of real time; its event loop is {{loop}}. Mark it
{MARK} to let hours pass at once, or
{MARK}(False) if it needs real time."""

# All tests get the same object, here and from `policy`: with another one, even an equal one, pytest
# would set up their shared fixtures again.
ANYIO_BACKEND = ("asyncio", {"loop_factory": VirtualTimeLoop})


@functools.cache
def policy() -> asyncio.AbstractEventLoopPolicy:
    """Return the event loop policy for pytest-asyncio before 1.4, which has no hook for loops."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.14 on

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return VirtualTimeLoop()

        return Policy()


class LoopFactories:
    """A plugin for pytest-asyncio 1.4 and later."""

    @staticmethod
    @pytest.hookimpl(tryfirst=True)  # before the project's own
    def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Return the factories of event loops, by name; a test runs once with each."""
        return {"virtual": VirtualTimeLoop}


@contextmanager
def guard(item: pytest.Function, *, marked: bool) -> Generator[None]:
    """Make a coroutine test, run inside this context, fail rather than wait in real time.

    A test that is marked, or whose ``anyio_backend`` names `VirtualTimeLoop`, must run on it. Any
    other test that uses the emulator may take ``MAX_REAL_SECONDS`` of real time.
    """
    advice = NOT_OBEYED if marked else IGNORED if _names_virtual_time(item) else None
    if advice is None and "live_audit_emulator" not in item.fixturenames:
        yield
        return
    target, name = _place(item)
    test = getattr(target, name)
    with pytest.MonkeyPatch.context() as patch:
        if inspect.iscoroutinefunction(test):
            patch.setattr(target, name, _guarded(test, advice))
        yield


def _place(item: pytest.Function) -> tuple[object, str]:
    """Return the object and the name of its attribute that holds the function of a test."""
    if isinstance(item.instance, TestCase):
        return item.instance, item.name
    if hasattr(item.obj, "hypothesis"):
        return item.obj.hypothesis, "inner_test"
    return item, "obj"


def _names_virtual_time(item: pytest.Function) -> bool:
    """Return whether the fixture ``anyio_backend`` of a test names `VirtualTimeLoop`."""
    backend: object = item.funcargs.get("anyio_backend")
    if not isinstance(backend, tuple):
        return False
    _, options = cast("tuple[str, dict[str, object]]", backend)
    factory = options.get("loop_factory")
    return isinstance(factory, type) and issubclass(factory, VirtualTimeLoop)


def _guarded(test: Callable[..., Any], advice: str | None) -> Callable[..., Any]:
    @functools.wraps(test)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            loop = asyncio.get_running_loop()
            name = f"{type(loop).__module__}.{type(loop).__qualname__}"
        except RuntimeError:  # trio, where a client of this package raises at once
            loop, name = None, "not asyncio's"
        if isinstance(loop, VirtualTimeLoop) or (loop is None and advice is None):
            return await test(*args, **kwargs)
        if advice is not None:
            pytest.fail(advice.format(loop=name), pytrace=False)
        async with _limit_of_real_time(TOO_LONG.format(loop=name)):
            return await test(*args, **kwargs)

    return guarded


@asynccontextmanager
async def _limit_of_real_time(message: str) -> AsyncGenerator[None]:
    """Fail with a message after ``MAX_REAL_SECONDS``, whatever the loop's own clock says."""
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + MAX_REAL_SECONDS
    limit = asyncio.timeout(None)
    timer: asyncio.Handle

    def check() -> None:
        nonlocal timer
        left = deadline - time.monotonic()
        if left > 0:
            timer = loop.call_later(left, check)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_soon(check)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            pytest.fail(message, pytrace=False)
        raise
    finally:
        timer.cancel()
