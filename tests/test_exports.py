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
    """Importing the package loads no extra and nothing of the testing kit."""
    code = "import sys, ci_live_audit; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"httpx", "anyio", "aiolimiter", "xmltodict", "attrs"} <= set(loaded)
    # httpx itself loads click and rich where they are installed.
    assert not {"uvicorn", "httpx2", "pytest"} & set(loaded)
    assert "ci_live_audit.testing" not in loaded


def test_the_package_is_typed() -> None:
    """Type checkers find the marker."""
    assert importlib.resources.files("ci_live_audit").joinpath("py.typed").is_file()
