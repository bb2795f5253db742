"""What is public is what __all__ says, and nothing heavy comes with it."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import ci_live_audit
import ci_live_audit.testing

MODULES = [
    module.name
    for module in pkgutil.iter_modules(ci_live_audit.__path__, "ci_live_audit.")
    if module.name != "ci_live_audit.cli"
]


def test_the_package_exports_what_it_says() -> None:
    """__all__ is sorted, every name exists, and no public name is missing from it."""
    public = {
        name
        for name, value in vars(ci_live_audit).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert ci_live_audit.__all__ == sorted(ci_live_audit.__all__)
    assert set(ci_live_audit.__all__) - {"decode"} == public
    assert callable(ci_live_audit.decode.job)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public(name: str) -> None:
    """Each name in a module's __all__ exists there."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public)


def test_the_import_needs_only_the_five_packages() -> None:
    """Importing the package loads no extra and nothing of the testing kit; httpx comes later."""
    loaded = modules_after("import ci_live_audit")
    assert {"anyio", "aiolimiter", "xmltodict", "attrs"} <= loaded
    assert not {"httpx", "httpcore", "click", "rich", "uvicorn", "httpx2", "pytest"} & loaded
    assert "ci_live_audit.testing" not in loaded
    loaded = modules_after("import ci_live_audit.connections")
    assert {"httpx", "httpcore"} <= loaded
    # httpx itself loads click and rich where they are installed.
    assert not {"uvicorn", "httpx2", "pytest"} & loaded


def modules_after(statement: str) -> set[str]:
    """What is loaded in a new interpreter after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_package_is_typed() -> None:
    """Type checkers find the marker."""
    assert importlib.resources.files("ci_live_audit").joinpath("py.typed").is_file()
