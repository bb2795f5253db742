"""What is public is what __all__ says, and nothing heavy comes with it."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ci_live_audit
import ci_live_audit.testing

MODULES = [
    module.name
    for module in pkgutil.walk_packages(ci_live_audit.__path__, "ci_live_audit.")
    if not module.name.startswith("ci_live_audit.cli")
]


@pytest.mark.parametrize("package", [ci_live_audit, ci_live_audit.testing])
def test_a_package_exports_what_it_says(package: types.ModuleType) -> None:
    """__all__ is sorted, and every name exists, is listed and is what type checkers see."""
    names = package.__all__
    assert list(names) == sorted(names)
    tree = ast.parse(inspect.getsource(package))
    seen: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.col_offset:  # below "if TYPE_CHECKING"
            seen |= {alias.name: str(node.module) for alias in node.names}
    assert set(seen) == set(names)
    for name, module in seen.items():
        found = getattr(package, name)
        assert found is (
            importlib.import_module(f"{module}.{name}")
            if name in {"callbacks", "decode"}
            else vars(importlib.import_module(module))[name]
        )
    assert set(names) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_names_are_imported_on_first_use() -> None:
    """Importing the package imports none of its working modules, and no library."""
    loaded = modules_after("import ci_live_audit, ci_live_audit.testing")
    ours = {name for name in loaded if name.startswith("ci_live_audit")}
    own = {"ci_live_audit", "ci_live_audit._lazy", "ci_live_audit._version"}
    assert ours == own | {"ci_live_audit.testing"}
    assert not {"asyncio", "anyio", "attr", "httpx", "xmltodict"} & loaded
    assert "ci_live_audit.decode" in modules_after("import ci_live_audit; ci_live_audit.decode.job")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public(name: str) -> None:
    """Each name in a module's __all__ exists there."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public)


def test_the_import_needs_only_the_five_packages() -> None:
    """Importing the client loads no extra and nothing of the testing kit; httpx comes later."""
    loaded = modules_after("from ci_live_audit import LiveAuditClient")
    assert {"anyio", "aiolimiter", "xmltodict", "attrs"} <= loaded
    assert not {"httpx", "httpcore", "click", "rich", "uvicorn", "httpx2", "pytest"} & loaded
    assert "ci_live_audit.testing" not in loaded
    loaded = modules_after("import ci_live_audit.transport.connections")
    assert {"httpx", "httpcore"} <= loaded
    # httpx itself loads click and rich where they are installed.
    assert not {"uvicorn", "httpx2", "pytest"} & loaded


def test_a_copied_package_needs_no_metadata(tmp_path: Path) -> None:
    """In a folder of its own, without what pip notes about it, the package works."""
    shutil.copytree(Path(ci_live_audit.__file__).parent, tmp_path / "ci_live_audit")
    code = """if True:
        import asyncio, contextlib, importlib.metadata, httpx, ci_live_audit
        found = importlib.metadata.distribution
        def distribution(name):
            if name == "ci-live-audit":
                raise importlib.metadata.PackageNotFoundError(name)
            return found(name)
        importlib.metadata.distribution = distribution
        def respond(request):
            print(request.headers["user-agent"], ci_live_audit.__file__)
            return httpx.Response(403)
        async def main():
            client = ci_live_audit.LiveAuditClient(
                "examplebucket-1250000000",
                "ap-beijing",
                credentials=ci_live_audit.Credentials("id", "key"),
                http_client=httpx.AsyncClient(transport=httpx.MockTransport(respond)),
            )
            with contextlib.suppress(ci_live_audit.AccessDenied):
                await client.query("av0123")
        asyncio.run(main())
    """
    # The copy's lines are not the package's.
    environ = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(tmp_path)},
    )
    agent, place = shown.stdout.split()
    assert agent == f"ci-live-audit/{ci_live_audit.__version__}"
    assert Path(place).is_relative_to(tmp_path)


def test_the_version_is_that_of_the_distribution() -> None:
    """The constant is what pip shows."""
    assert ci_live_audit.__version__ == importlib.metadata.version("ci-live-audit")


def modules_after(statement: str) -> set[str]:
    """Return what is loaded in a new interpreter after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    command = [sys.executable, "-I", "-c", code]  # nothing but what is installed
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_package_is_typed() -> None:
    """Type checkers find the marker."""
    assert importlib.resources.files("ci_live_audit").joinpath("py.typed").is_file()
