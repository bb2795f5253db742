"""The testing kit as users have it: a project of their own, and pytest finds the fixtures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

PROJECT = """
import asyncio

import pytest

from ci_live_audit import JobNotFound, Verdict
from ci_live_audit.testing import Fault, VirtualTimeLoop, frame


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.mark.anyio
async def test_a_bad_frame_is_found(live_audit_emulator, live_audit_client):
    job_id = live_audit_emulator.add_job(duration=7200, script=[frame(3600, "Porn", score=98)])
    async with live_audit_client.watch(job_id, interval=60) as findings:
        bad = [finding async for finding in findings if finding.verdict == Verdict.SENSITIVE]
    assert {finding.label for finding in bad} == {"Porn"}


@pytest.mark.anyio
async def test_faults_are_survived(live_audit_emulator, live_audit_client):
    job_id = live_audit_emulator.add_job(duration=60)
    live_audit_emulator.inject(Fault.throttle(retry_after=1), times=2)
    assert (await live_audit_client.wait(job_id)).ended
    assert [arrival.status for arrival in live_audit_emulator.arrivals][:3] == [429, 429, 200]


@pytest.mark.anyio
async def test_every_test_has_an_emulator_of_its_own(live_audit_emulator, live_audit_client):
    assert not live_audit_emulator.jobs
    with pytest.raises(JobNotFound):
        await live_audit_client.query("av" + "0" * 32)


@pytest.mark.anyio
async def test_a_bot_is_called_back(live_audit_emulator, live_audit_client, live_audit_receiver):
    got = []
    live_audit_receiver.subscribe(got.append)
    url = live_audit_receiver.url("https://bot.example.com", "room7")
    live_audit_emulator.add_stream("rtmp://a/b", duration=60, script=[frame(5, "Porn")])
    await live_audit_client.submit("rtmp://a/b", data_id="room7", callback=url)
    await asyncio.sleep(100)
    assert {callback.result for callback in got} == {Verdict.SENSITIVE}
    assert {delivery.status for delivery in live_audit_emulator.deliveries} == {200}
"""
# What whoever uses pytest without these fixtures should not have to pay for.
HEAVY = (
    *("anyio", "httpx", "httpcore", "attr", "attrs", "xmltodict", "ci_live_audit.client"),
    *("ci_live_audit.testing.pytest_loops", "ci_live_audit.testing.virtual_time"),
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a fresh environment with the packages of this one."""
    place = tmp_path_factory.mktemp("users")
    venv.create(place, symlinks=True)
    folder = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=folder))
    # The package itself comes from wherever this process has it.
    here = Path(str(distribution("ci-live-audit").locate_file(""))).resolve()
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(here)}
    # Through site, not as a plain line: what lies there may have .pth files too.
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in sorted(installed)]
    (packages / "parent.pth").write_text("".join(lines))
    return Path(sysconfig.get_path("scripts", "venv", vars=folder)) / "python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with tests and nothing else, whose end is marked, for it may be anywhere."""
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_bot.py").write_text(PROJECT)
    return tmp_path


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder, without what only this repository's settings would do."""
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_project_of_a_user(python: Path, project: Path) -> None:
    """Four tests pass with no conftest and an empty configuration, warnings being errors."""
    # With warnings as errors and no configuration, pytest-asyncio stops pytest on its own account.
    options = ("-p", "no:asyncio", "-p", "no:cacheprovider")
    done = run(python, project, "-W", "error", "-m", "pytest", *options)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert f"rootdir: {project}" in done.stdout


def test_the_fixtures_can_be_listed(python: Path, project: Path) -> None:
    """`pytest --fixtures` tells what they are."""
    done = run(python, project, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider")
    assert "live_audit_emulator -- " in done.stdout, done.stdout + done.stderr
    assert "Return a new emulator" in done.stdout
    assert "live_audit_client -- " in done.stdout
    assert "live_audit_receiver -- " in done.stdout


def test_the_plugin_imports_nothing_but_pytest(python: Path, project: Path) -> None:
    """Beside pytest itself only modules of the standard library come with it."""
    program = """
import json, sys
import pytest
before = set(sys.modules)
import ci_live_audit.testing.pytest_plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = run(python, project, "-c", program)
    modules = set(json.loads(done.stdout))
    assert "ci_live_audit.testing.pytest_plugin" in modules
    foreign = {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {
        "ci_live_audit",
        "ci_live_audit._lazy",
        "ci_live_audit._version",
        "ci_live_audit.testing",
        "ci_live_audit.testing.pytest_plugin",
    }


def test_tests_without_the_fixtures_do_not_pay_for_them(python: Path, project: Path) -> None:
    """A pytest run that loads the plugin, and no other, imports nothing of what it stands on."""
    (project / "test_bot.py").write_text(
        f"import sys\n\ndef test_it():\n    assert not set(sys.modules) & {set(HEAVY)!r}\n"
        "    assert 'ci_live_audit.testing.pytest_plugin' in sys.modules\n"
    )
    code = (
        "import os, sys, pytest; os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1';"
        "sys.exit(pytest.main(['-p', 'ci_live_audit', '-p', 'no:cacheprovider']))"
    )
    done = run(python, project, "-c", code)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
