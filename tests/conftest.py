from __future__ import annotations

import gc
import inspect
import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from clocks import PatientLoop
from daemons import RedisServer, redis_server
from hypothesis import given, settings, strategies
from proofs import IN_FULL

from ci_live_audit.testing import VirtualTimeLoop

# With CI_LIVE_AUDIT_TASKS=eager all tasks are, as in applications that ask for it; those of child
# processes, too.
if os.environ.get("CI_LIVE_AUDIT_TASKS") == "eager":
    eager = str(Path(__file__).with_name("eager"))
    runpy.run_path(f"{eager}/sitecustomize.py")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [eager, os.environ.get("PYTHONPATH")]))

settings.register_profile("tests", max_examples=2000 if IN_FULL else 200, deadline=None)
settings.load_profile("tests")


# Who is started in the background has interrupts ignored, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(obj: object) -> None:
    """Let anyio run every coroutine test, without a mark on each."""
    if inspect.iscoroutinefunction(obj):
        pytest.mark.anyio(obj)


@settings(max_examples=1, database=None)
@given(strategies.none())
def use_hypothesis(_: None) -> None:
    """Let Hypothesis set itself up."""


def pytest_collection_finish() -> None:
    """Exempt what collection has made from garbage collection: it stays until the end."""
    # Hypothesis checks on its first use who refers to its source of chance, and warns if nobody
    # does; what is frozen is not seen.
    use_hypothesis()
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every async test runs on virtual time, unless it waits for what has its own."""
    waits = request.node.get_closest_marker("waits")
    return "asyncio", {"loop_factory": PatientLoop if waits else VirtualTimeLoop}


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Run a redis-server for all tests of this process; each uses names of its own."""
    with TemporaryDirectory() as folder, redis_server(Path(folder)).running() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Run a redis-server that a test may stop, kill and empty."""
    with TemporaryDirectory() as folder, redis_server(Path(folder)).running() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No test sees the credentials, the region, the proxies or the home of whoever runs it."""
    for name in list(os.environ):
        if name.upper().endswith(("_PROXY", "SECRETID", "SECRETKEY")) or name.startswith(
            ("TENCENTCLOUD_", "COS_", "TCCLI_", "CI_LIVE_AUDIT_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
