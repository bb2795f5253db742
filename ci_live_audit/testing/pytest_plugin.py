"""Fixtures and a marker that pytest finds by itself wherever this package is installed.

The marker ``live_audit_virtual_time`` runs a coroutine test on `VirtualTimeLoop`, whether the test
belongs to anyio's plugin or to pytest-asyncio. A test that should run on virtual time but does not
fails at once; otherwise it would wait for the hours that it plays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# Every test run in an environment with this package loads this module, so imports that cost time
# are left to the tests that need them.
# ruff: noqa: PLC0415

if TYPE_CHECKING:
    from collections.abc import Generator

    from ci_live_audit import LiveAuditClient
    from ci_live_audit.callbacks.receiver import CallbackReceiver
    from ci_live_audit.testing import Emulator


@pytest.fixture
def live_audit_emulator() -> Emulator:
    """Return a new emulator: ``.client()`` for use in process, ``.serve()`` for a socket."""
    from ci_live_audit.testing import Emulator

    return Emulator()


@pytest.fixture
def live_audit_client(live_audit_emulator: Emulator) -> LiveAuditClient:
    """Return an in-process client of ``live_audit_emulator``; it does not need closing."""
    return live_audit_emulator.client()


@pytest.fixture
def live_audit_receiver(live_audit_emulator: Emulator) -> Generator[CallbackReceiver]:
    """Return a receiver that ``live_audit_emulator`` calls back, in process.

    Submit ``live_audit_receiver.url("https://bot.example.com", data_id)`` as ``callback``.
    """
    from ci_live_audit.callbacks.receiver import CallbackReceiver

    receiver = CallbackReceiver("only for the tests of a bot")
    live_audit_emulator.callbacks = receiver
    yield receiver
    live_audit_emulator.callbacks = None


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "live_audit_virtual_time(enabled=True): run a coroutine test on VirtualTimeLoop, whichever "
        "plugin runs it; False lets the test take more than a minute of real time.",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Make the plugins run a marked test and its async fixtures on `VirtualTimeLoop`."""
    if not _marked(metafunc.definition):
        return (yield)
    from ci_live_audit.testing import pytest_loops

    ids = [getattr(pytest, "HIDDEN_PARAM", "virtual")]  # pytest before 8.4 has to show something
    if "anyio_backend" in metafunc.fixturenames:
        backend = [pytest_loops.ANYIO_BACKEND]
        metafunc.parametrize("anyio_backend", backend, ids=ids, scope="module")
    plugins = metafunc.config.pluginmanager
    if _has_loop_factories(metafunc.config):
        # For this test alone: once there is an implementation of the hook, pytest-asyncio insists
        # on loop factories for every test, including those that have nothing to do with us.
        plugins.register(pytest_loops.LoopFactories)
    elif "event_loop_policy" in metafunc.fixturenames:
        policy = [pytest_loops.policy()]
        metafunc.parametrize("event_loop_policy", policy, ids=ids, scope="session")
    try:
        return (yield)
    finally:
        if plugins.is_registered(pytest_loops.LoopFactories):
            plugins.unregister(pytest_loops.LoopFactories)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell pytest-asyncio that tests with a shared loop scope may need different loops."""
    if _has_loop_factories(session.config) and any(_marked(item) for item in session.items):
        from ci_live_audit.testing import pytest_loops

        # The hook is not called any more. If it has an implementation, pytest-asyncio closes one
        # loop with its fixtures before it sets up another for the same scope.
        session.config.pluginmanager.register(pytest_loops.LoopFactories)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a coroutine test that would wait in real time without meaning to."""
    marked = _marked(item)
    if not isinstance(item, pytest.Function) or marked is False:
        return (yield)
    options = isinstance(item.funcargs.get("anyio_backend"), tuple)
    if not (marked or options or "live_audit_emulator" in item.fixturenames):
        return (yield)
    from ci_live_audit.testing import pytest_loops

    with pytest_loops.guard(item, marked=marked is True):
        return (yield)


def _marked(item: pytest.Item) -> bool | None:
    """Return the argument of the closest marker, or None if there is none."""
    marker = item.get_closest_marker("live_audit_virtual_time")
    return None if marker is None else marker.args != (False,)


def _has_loop_factories(config: pytest.Config) -> bool:
    """Return whether pytest-asyncio is there and has the hook, which came with 1.4."""
    return hasattr(config.hook, "pytest_asyncio_loop_factories")
