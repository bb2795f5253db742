"""The testing kit beside anyio's plugin and pytest-asyncio, in projects of its users."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ci_live_audit.testing import pytest_loops

HAS_LOOP_FACTORIES = tuple(map(int, version("pytest-asyncio").split(".")[:2])) >= (1, 4)

MARK = "pytestmark = pytest.mark.live_audit_virtual_time"
FOR_ANYIO = "pytestmark = [pytest.mark.anyio, pytest.mark.live_audit_virtual_time]"
FOR_PYTEST_ASYNCIO = "pytestmark = [pytest.mark.asyncio, pytest.mark.live_audit_virtual_time]"

IMPORTS = """
import asyncio
import pytest
from ci_live_audit.testing import VirtualTimeLoop

def virtual():
    return type(asyncio.get_running_loop()) is VirtualTimeLoop
"""
TESTS = """
async def test_hours_pass_at_once(live_audit_emulator, live_audit_client):
    assert virtual()
    job_id = live_audit_emulator.add_job(duration=7200)
    assert (await live_audit_client.wait(job_id, interval=600)).ended

@pytest.mark.live_audit_virtual_time(False)
async def test_in_real_time(live_audit_emulator, live_audit_client):
    assert not virtual()
    assert not (await live_audit_client.query(live_audit_emulator.add_job())).ended
"""


class Project:
    """A folder with tests, a configuration in which warnings are errors, and nothing else."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capture = capture

    def run(self, tests: str, *options: str, conftest: str = "") -> str:
        """Run tests with the plugins of this environment and return what pytest printed."""
        arguments = self.prepare(tests, *options, conftest=conftest)
        self.capture.readouterr()
        # Without a process of its own, for its imports take longer than the run.
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            pytest.main([*arguments, "-p", "no:faulthandler"])
        for name in ("test_bot", "conftest"):
            sys.modules.pop(name, None)
        return self.capture.readouterr().out

    def run_apart(self, tests: str, *options: str) -> str:
        """Run them in a process of their own."""
        command = [sys.executable, "-m", "pytest", *self.prepare(tests, *options)]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False
        ).stdout

    def prepare(self, tests: str, *options: str, conftest: str = "") -> list[str]:
        """Write the files and return the arguments of pytest."""
        ini = "[pytest]\nfilterwarnings = error\n"
        if "no:asyncio" not in options:  # it warns if the configuration is silent about this
            ini += "asyncio_default_fixture_loop_scope = function\n"
        (self.folder / "pytest.ini").write_text(ini)
        (self.folder / "test_bot.py").write_text(IMPORTS + tests)
        (self.folder / "conftest.py").write_text(conftest)
        return [*options, "--strict-markers", "--import-mode=importlib", "-pno:cacheprovider"]


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path, capsys)


@pytest.mark.parametrize(
    "options",
    ["", "-p no:asyncio", "--asyncio-mode=auto", "-p no:asyncio --anyio-mode=auto"],
)
def test_the_marker_works_with_the_plugin_of_anyio(project: Project, options: str) -> None:
    """A test marked for anyio runs on virtual time, even if pytest-asyncio takes it."""
    assert "2 passed" in project.run(FOR_ANYIO + TESTS, *options.split())


@pytest.mark.parametrize("options", ["", "-p no:anyio", "--asyncio-mode=auto"])
def test_the_marker_works_with_pytest_asyncio(project: Project, options: str) -> None:
    """A test marked for pytest-asyncio runs on virtual time."""
    assert "2 passed" in project.run(FOR_PYTEST_ASYNCIO + TESTS, *options.split())


@pytest.mark.parametrize(
    "options",
    [
        "--anyio-mode=auto",
        "--anyio-mode=auto -p no:asyncio",
        "--asyncio-mode=auto",
        "--asyncio-mode=auto -p no:anyio",
        "--asyncio-mode=auto --anyio-mode=auto -W default::pytest.PytestConfigWarning",
    ],
)
def test_the_marker_suffices_in_auto_mode(project: Project, options: str) -> None:
    """Where a plugin takes every coroutine test, the marker is all that a test needs."""
    assert "2 passed" in project.run(MARK + TESTS, *options.split())


def test_the_marker_works_under_xdist(project: Project) -> None:
    """Worker processes run the tests of both plugins in the same way."""
    tests = """
@pytest.mark.anyio
@pytest.mark.live_audit_virtual_time
async def test_anyio(live_audit_client):
    assert virtual()

@pytest.mark.asyncio
@pytest.mark.live_audit_virtual_time
async def test_asyncio(live_audit_client):
    assert virtual()
"""
    assert "2 passed" in project.run_apart(tests, "-n1")


def test_the_marker_of_a_module_does_not_concern_plain_functions(project: Project) -> None:
    """A test that is no coroutine function runs as ever."""
    tests = MARK + "\ndef test_it(live_audit_emulator):\n    assert not live_audit_emulator.jobs\n"
    assert "1 passed" in project.run(tests, "--asyncio-mode=auto")


def test_ids_stay_as_they_are(project: Project) -> None:
    """The marker adds no parameter to the id of a test."""
    printed = project.run(FOR_ANYIO + TESTS, "--collect-only", "-q")
    assert "test_bot.py::test_hours_pass_at_once\n" in printed


def test_async_fixtures_share_the_loop_of_a_marked_test(project: Project) -> None:
    """What a fixture sets up lives on the event loop of the test, with either plugin."""
    tests = """
@pytest.fixture
async def loop():
    await asyncio.sleep(3600 if virtual() else 0)
    yield asyncio.get_running_loop()
    await asyncio.sleep(3600 if virtual() else 0)

@pytest.mark.live_audit_virtual_time
async def test_virtual(loop):
    assert virtual() and loop is asyncio.get_running_loop()

async def test_real(loop):
    assert not virtual() and loop is asyncio.get_running_loop()
"""
    assert "2 passed" in project.run(tests, "--asyncio-mode=auto")
    assert "2 passed" in project.run(tests, "--anyio-mode=auto", "-p", "no:asyncio")


@pytest.mark.skipif(not HAS_LOOP_FACTORIES, reason="needs pytest-asyncio 1.4")
@pytest.mark.parametrize("scope", ["module", "session"])
def test_wider_scopes_change_loops_with_the_marker(project: Project, scope: str) -> None:
    """Tests with a shared scope get the loop they are marked for, and so do its fixtures."""
    tests = f"""
import pytest_asyncio
pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def loop():
    yield asyncio.get_running_loop()

async def test_real(loop):
    assert not virtual() and loop is asyncio.get_running_loop()

@pytest.mark.live_audit_virtual_time
async def test_virtual(loop):
    assert virtual() and loop is asyncio.get_running_loop()

async def test_real_again(loop):
    assert not virtual() and loop is asyncio.get_running_loop()
"""
    assert "3 passed" in project.run(tests)


def test_tests_without_the_marker_get_no_loop_factory(project: Project) -> None:
    """pytest-asyncio goes on as if the kit were not there."""
    tests = """
async def test_it(live_audit_emulator, request):
    hook = getattr(request.config.hook, "pytest_asyncio_loop_factories", None)
    assert hook is None or not hook.get_hookimpls()
"""
    assert "1 passed" in project.run(tests, "--asyncio-mode=auto")


def test_before_loop_factories_there_was_a_policy(project: Project) -> None:
    """For pytest-asyncio before 1.4 the policy makes the event loop."""
    conftest = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def event_loop_policy():
    return None

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    loop = pyfuncitem.funcargs["event_loop_policy"].new_event_loop()
    loop.run_until_complete(pyfuncitem.obj())
    loop.close()
    return True
"""
    tests = MARK + "\nasync def test_it():\n    assert virtual()\n"
    options = ("-p", "no:asyncio", "-p", "no:anyio")
    assert "1 passed" in project.run(tests, *options, conftest=conftest)
    assert pytest_loops.policy() is pytest_loops.policy()


SLEEPS = "async def test_it():\n    await asyncio.sleep(3600)\n"
# A plugin that knows neither the marker nor `VirtualTimeLoop`.
FOREIGN = """
import asyncio
import pytest
import {module}

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    loop = {module}.new_event_loop()
    try:
        loop.run_until_complete(pyfuncitem.obj())
    finally:
        loop.close()
    return True
"""


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_a_plugin_that_ignores_the_marker_fails_the_test(project: Project, module: str) -> None:
    """The message names the event loop and what to do, instead of an hour's silence."""
    pytest.importorskip(module)
    conftest = FOREIGN.format(module=module)
    printed = project.run(MARK + "\n" + SLEEPS, "-p", "no:asyncio", conftest=conftest)
    assert "1 failed" in printed
    assert f"its event loop, {module}." in printed
    assert "keeps real time" in printed


def test_without_a_plugin_pytest_fails_the_test(project: Project) -> None:
    """A coroutine test that nobody runs does not pass."""
    printed = project.run(MARK + "\n" + SLEEPS, "-p", "no:asyncio", "-p", "no:anyio")
    assert "1 failed" in printed
    assert "async def functions are not natively supported" in printed


def test_an_ignored_anyio_backend_fails_the_test(project: Project) -> None:
    """pytest-asyncio's auto mode takes anyio's tests, and the message says how to go on."""
    tests = """
@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualTimeLoop}

@pytest.mark.anyio
"""
    printed = project.run(tests + SLEEPS, "--asyncio-mode=auto")
    assert "1 failed" in printed
    assert "Mark the test @pytest.mark.live_audit_virtual_time" in printed
    assert "1 passed" in project.run(tests + SLEEPS, "--asyncio-mode=strict")


def test_another_loop_for_anyio_is_none_of_the_kits_business(project: Project) -> None:
    """A test that uses nothing of the kit is left alone."""
    tests = """
@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}

@pytest.mark.anyio
async def test_it():
    assert not virtual()
"""
    assert "1 passed" in project.run(tests)


@pytest.mark.parametrize("mode", ["--anyio-mode=auto", "--asyncio-mode=auto"])
def test_real_time_is_limited_unless_a_test_wants_it(
    project: Project, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that forgot the marker fails after a minute; a timeout of its own stays its own."""
    monkeypatch.setattr(pytest_loops, "MAX_REAL_SECONDS", 0.01)
    tests = """
async def test_forgotten(live_audit_client):
    await asyncio.sleep(3600)

@pytest.mark.live_audit_virtual_time(False)
async def test_slow(live_audit_client):
    await asyncio.sleep(0.02)

async def test_with_a_timeout(live_audit_client):
    raise TimeoutError("mine")
"""
    printed = project.run(tests, mode)
    assert "2 failed, 1 passed" in printed
    assert printed.count("\nThis test has taken ") == 1
    assert "TimeoutError: mine" in printed


def test_the_virtual_time_of_others_is_not_real_time(project: Project) -> None:
    """An hour on another package's virtual clock does not exceed the limit."""
    tests = """
import selectors

class Jump(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout=None):
        Jump.now += timeout or 0
        return super().select(0 if timeout else timeout)

class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__(Jump())

    def time(self):
        return Jump.now

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": Loop}

@pytest.mark.anyio
async def test_it(live_audit_client):
    await asyncio.sleep(3600)
"""
    assert "1 passed" in project.run(tests)


def test_a_test_outside_asyncio_is_not_timed(project: Project) -> None:
    """With trio, say, the kit's client raises by itself, and the marker fails the test."""
    conftest = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    args = [pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames]
    try:
        pyfuncitem.obj(*args).send(None)
    except StopIteration:
        return True
"""
    tests = """
async def test_it(live_audit_emulator):
    pass

@pytest.mark.live_audit_virtual_time
async def test_marked():
    pass
"""
    printed = project.run(tests, "-p", "no:asyncio", conftest=conftest)
    assert "1 failed, 1 passed" in printed
    assert "not asyncio's" in printed


def test_unittest_has_a_loop_of_its_own(project: Project) -> None:
    """A marked `IsolatedAsyncioTestCase` fails at once."""
    tests = """
import unittest

@pytest.mark.live_audit_virtual_time
class TestIt(unittest.IsolatedAsyncioTestCase):
    async def test_it(self):
        await asyncio.sleep(3600)
"""
    printed = project.run(tests, "-p", "no:asyncio")
    assert "1 failed" in printed
    assert "keeps real time" in printed


@pytest.mark.parametrize("mode", ["--anyio-mode=auto", "--asyncio-mode=auto"])
def test_hypothesis_tests_are_watched_too(project: Project, mode: str) -> None:
    """The examples of a marked test run on virtual time."""
    tests = """
from hypothesis import given, settings, strategies

@pytest.mark.live_audit_virtual_time
@given(strategies.integers())
@settings(max_examples=3, database=None)
async def test_it(number):
    assert virtual()
    await asyncio.sleep(3600)
"""
    assert "1 passed" in project.run(tests, mode)


UVLOOP = """
async def test_real(live_audit_emulator, live_audit_client):
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    assert not (await live_audit_client.query(live_audit_emulator.add_job())).ended

@pytest.mark.live_audit_virtual_time
async def test_virtual(live_audit_emulator, live_audit_client):
    assert virtual()
    job_id = live_audit_emulator.add_job(duration=7200)
    assert (await live_audit_client.wait(job_id, interval=600)).ended
"""


@pytest.mark.skipif(not HAS_LOOP_FACTORIES, reason="needs pytest-asyncio 1.4")
def test_the_marker_replaces_uvloop_of_pytest_asyncio(project: Project) -> None:
    """The emulator works on uvloop in real time; a marked test gets virtual time instead."""
    pytest.importorskip("uvloop")
    conftest = """
import uvloop

def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop}
"""
    assert "2 passed" in project.run(UVLOOP, "--asyncio-mode=auto", conftest=conftest)


def test_the_marker_replaces_uvloop_of_anyio(project: Project) -> None:
    """The same with anyio's plugin and its option `use_uvloop`."""
    pytest.importorskip("uvloop")
    tests = """
@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}
"""
    assert "2 passed" in project.run(tests + UVLOOP, "--anyio-mode=auto", "-p", "no:asyncio")
