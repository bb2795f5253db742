"""Put coroutine tests on `VirtualTimeLoop`, and fail those that would miss it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from unittest import TestCase

import pytest

from ci_live_audit.testing.virtual_time import VirtualTimeLoop

__all__ = ["ANYIO_BACKEND", "LoopFactories", "guard", "policy"]

MAX_REAL_SECONDS = 60.0

MARK = "@pytest.mark.live_audit_virtual_time"
NOT_OBEYED = """\
This test is marked live_audit_virtual_time, but its event loop, {loop}, keeps real time. The mark
works for tests that anyio's plugin or pytest-asyncio 0.24 or later runs; tests and async fixtures
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

# pytest sets up fixtures anew for a parameter that is another object, even an equal one. So that
# tests can share an event loop, they share these two.
ANYIO_BACKEND = ("asyncio", {"loop_factory": VirtualTimeLoop})


@functools.cache
def policy() -> asyncio.AbstractEventLoopPolicy:
    """Return the policy for pytest-asyncio before 1.4, which has no other way to choose a loop."""
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
        """Return the factory of a test's event loop by a name for it."""
        return {"virtual": VirtualTimeLoop}


@contextmanager
def guard(item: pytest.Function, *, marked: bool) -> Generator[None]:
    """Let a coroutine test that is called inside fail if its event loop is the wrong one.

    Args:
        item: The test. It needs virtual time if it is marked or if its ``anyio_backend`` says so;
            otherwise, if it uses the emulator, it has ``MAX_REAL_SECONDS``.
        marked: Whether it is marked ``live_audit_virtual_time``.
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
    """Return the object and the attribute from which a test is called."""
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
        limit = asyncio.timeout(MAX_REAL_SECONDS)
        try:
            async with limit:
                return await test(*args, **kwargs)
        except TimeoutError:
            if limit.expired():
                pytest.fail(TOO_LONG.format(loop=name), pytrace=False)
            raise

    return guarded
