"""The README is the manual: its examples run, and what it refers to is there."""

from __future__ import annotations

import ast
import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import ci_live_audit
from ci_live_audit import errors
from ci_live_audit.testing import Emulator, VirtualTimeLoop, frame

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
EXAMPLES = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(README))


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Emulator:
    """The service behind the examples: their clients reach it, their minutes pass at once."""
    monkeypatch.chdir(tmp_path)
    emulator = Emulator()
    emulator.add_stream(
        "rtmp://live.example.com/app/room7", duration=60, script=[frame(25, "Porn")]
    )
    http = httpx.AsyncClient(transport=httpx.ASGITransport(emulator))
    reaching = partial(
        ci_live_audit.LiveAuditClient, http_client=http, credentials=emulator.credentials
    )
    monkeypatch.setattr(ci_live_audit, "LiveAuditClient", reaching)

    def run(main: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main)

    monkeypatch.setattr(asyncio, "run", run)
    return emulator


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line {example.line}")
def test_the_example_runs(
    example: Any, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python block of the README is a whole program that does what it says."""
    example.evaluate()
    assert {arrival.status for arrival in emulator.arrivals} <= {200, 404}


def test_the_first_example_cancels_what_is_bad(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ten lines on the first screen stop a stream as soon as it shows something bad."""
    EXAMPLES[0].evaluate()
    assert re.fullmatch(r"Porn at \d{13}\nCancelled\n", capsys.readouterr().out)


def test_there_are_examples() -> None:
    """The parser finds the blocks at all."""
    assert len(EXAMPLES) == TEXT.count("```python\n") >= 7


@pytest.mark.parametrize(
    "promise", sorted(set(re.findall(r"`((?:\w+/)?test_\w+\.py[^`]*)`", TEXT)))
)
def test_every_promise_has_its_test(promise: str) -> None:
    """What the README promises names a test that exists."""
    file, _, name = promise.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
    assert not name or name in names


def test_every_session_it_names_exists() -> None:
    """The commands of the README are sessions of the noxfile."""
    source = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    sessions = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert set(re.findall(r"nox -s (\w+)", TEXT)) <= sessions


def test_every_error_is_in_its_tree() -> None:
    """The tree of errors names each class of the module."""
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", TEXT), name


def test_every_module_is_in_its_table() -> None:
    """The table of modules names each module and folder of the package."""
    package = Path(ci_live_audit.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    for name in modules - {"__init__", "__pycache__"}:
        assert f"`{name}`" in TEXT


def test_ci_runs_its_commands() -> None:
    """CI calls the two commands of the first screen as they are written."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for command in re.findall(r"^\$ (nox .*)$", TEXT, re.MULTILINE):
        assert f"\n{command}\n" in script
