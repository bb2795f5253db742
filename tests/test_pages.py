"""The pages of the repository: what they refer to exists, and they are set to be read anywhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from screenshot import COMMAND, styled

import ci_live_audit

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text("utf-8")
    for name in (
        *("README.md", "CHANGELOG.md", "tests/README.md"),
        *("tests/promises/README.md", "benchmarks/README.md"),
    )
}
PROMISES = PAGES["tests/promises/README.md"]
PROOFS = sorted(set(re.findall(r"(?m)^  - `([^`]+)`$", PROMISES)))
LONGEST = 100


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short(page: str) -> None:
    """A page can be read in a terminal, its tables and examples too."""
    lines = enumerate(PAGES[page].splitlines(), 1)
    assert [number for number, line in lines if len(line) > LONGEST] == []


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and PyPI make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings of a page."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    return {anchor(heading) for heading in re.findall(r"(?m)^#+ (.*)$", prose)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A link within the repository leads to a file, and to a heading of it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        path, _, heading = link.partition("#")
        if "://" in path:
            continue
        target = ROOT / page if not path else (ROOT / page).parent / path
        assert target.is_file(), link
        assert not heading or heading in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_the_sessions_it_names_exist(page: str) -> None:
    """The commands of the pages are sessions of the noxfile."""
    source = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    sessions = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert set(re.findall(r"nox -s (\w+)", PAGES[page])) <= sessions


def test_every_promise_has_a_proof() -> None:
    """Below each promise stands at least one test."""
    entries = re.findall(r"(?m)^(- .*(?:\n  .*)*)", PROMISES)
    assert len(entries) > 100
    assert [entry for entry in entries if not re.search(r"(?m)^  - `", entry)] == []


@pytest.mark.parametrize("proof", PROOFS)
def test_every_proof_exists(proof: str) -> None:
    """The page of promises names tests that exist."""
    file, _, name = proof.partition("::")
    tree = ast.parse((ROOT / "tests" / "promises" / file).read_text("utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
    assert not name or name in names


def test_every_module_has_its_room() -> None:
    """The list of rooms names each module and folder of the package."""
    package = Path(ci_live_audit.__file__).parent
    of_core = [path for path in package.rglob("*.py") if path.parts[-2] not in {"testing", "cli"}]
    rooms = {path.name for path in package.iterdir() if path.is_dir()}
    for name in ({path.stem for path in of_core} | rooms) - {"__init__", "__pycache__"}:
        assert f"`{name}`" in PAGES["tests/README.md"], name


def test_ci_runs_the_first_commands() -> None:
    """CI calls the commands for a clone as they are written."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    commands = re.findall(r"(?m)^\$ (nox .*)$", PAGES["README.md"])
    assert commands
    for command in commands:
        assert f"\n{command}\n" in script


def test_the_picture_is_that_of_the_program() -> None:
    """The picture of the manual shows the command that made it, and loads nothing."""
    picture = (ROOT / "tests" / "screenshot.svg").read_text("utf-8")
    assert " ".join(COMMAND) in picture.replace("&#160;", " ")
    assert "url(http" not in picture.replace('"', "")


def test_what_the_screen_shows_in_the_end() -> None:
    """A line that is written again stands there once, in its last colours."""
    link = "\x1b]8;;http://a\x1b\\"
    text = styled(f"{link}\x1b[1mone\x1b[0m\r\ntwo\r\n\x1b[2A\x1b[2K\x1b[31mfour\x1b[0m\r\n")
    assert text.plain.split("\n") == ["four", "two", ""]
    assert [str(span.style) for span in text.spans] == 4 * ["color(1)"]


def test_the_version_has_its_section() -> None:
    """The changelog begins with the version of the package and its date."""
    first = re.findall(r"(?m)^## (.*)$", PAGES["CHANGELOG.md"])[0]
    assert re.fullmatch(rf"{re.escape(ci_live_audit.__version__)} - \d{{4}}-\d\d-\d\d", first)
