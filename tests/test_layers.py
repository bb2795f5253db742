"""The house: which module may import which, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ci_live_audit

PACKAGE = Path(ci_live_audit.__file__).parent

# What each module of the core may import of ours; data flows from left to right only.
CORE: dict[str, set[str]] = {
    "lazy": set(),
    "errors": set(),
    "models": set(),
    "scalars": {"errors"},
    "nodes": {"models", "scalars"},
    "documents": set(),
    "decode": {"errors", "models", "scalars", "nodes", "documents"},
    "requests": {"errors", "models"},
    "loop": {"errors"},
    "credentials": {"errors"},
    "providers": {"errors", "credentials"},
    "default_chain": {"errors", "credentials"},
    "signature": {"requests", "credentials"},
    "limiter": {"errors", "loop"},
    "retry": {"errors"},
    "connections": {"errors", "requests"},
    "answers": {"errors"},
    "transport": {"errors", "loop", "connections", "answers"},
}
CORE["clock"] = {"decode"}
CORE["attempts"] = set(CORE) - {
    "scalars",
    "nodes",
    "documents",
    "default_chain",
    "connections",
    "loop",
    "lazy",
}
CORE["schedule"] = CORE["sources"] = CORE["checkpoint"] = {"errors"}
CORE["polling"] = {"errors", "models", "loop", "limiter", "schedule", "sources", "checkpoint"}
CORE["outcomes"] = {"errors", "models", "polling"}
CORE["findings"] = {"errors", "models", "polling", "sources"}
CORE["client"] = set(CORE)
CORE["__init__"] = set(CORE)
# Modules without input and output, and the only ones that may import each library.
PURE = {"errors", "models", "scalars", "nodes", "documents", "decode"}
PURE |= {"requests", "credentials", "signature", "retry", "schedule"}
LIBRARIES = {
    "httpx": {"connections"},
    "httpcore": {"connections"},
    "aiolimiter": {"limiter"},
    "xmltodict": {"documents"},
    "anyio": {"providers", "transport", "attempts", "polling"},
}
STDLIB_IO = {"asyncio", "socket", "http", "urllib.request", "time", "os", "pathlib"}


def imports(module: str) -> set[str]:
    """The absolute names that a module imports when it runs."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in ast.walk(node):
                inner.__dict__["names"] = []
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            inside = node.module == "ci_live_audit"
            found |= {
                f"{node.module}.{alias.name}" if inside else str(node.module)
                for alias in node.names
            }
    return found


def test_the_table_is_complete() -> None:
    """Every module of the core is in the table."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(CORE)


@pytest.mark.parametrize("module", CORE)
def test_data_flows_one_way(module: str) -> None:
    """A module imports only what stands before it."""
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("ci_live_audit.")}
    assert ours <= CORE[module]


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_core_is_pure(module: str) -> None:
    """What decides does no input or output and knows no clock."""
    libraries = {"httpx", "anyio", "aiolimiter"}
    assert not {name.split(".")[0] for name in imports(module)} & libraries
    assert not imports(module) & STDLIB_IO


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_has_its_place(library: str) -> None:
    """A library is imported where its work is done and nowhere else."""
    users = {m for m in CORE if library in {name.split(".")[0] for name in imports(m)}}
    assert users == LIBRARIES[library]
