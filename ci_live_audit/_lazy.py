"""Names of a package that are imported on first use.

So the command line responds and pytest starts without what they may not need.
https://peps.python.org/pep-0562/
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["exports"]


def exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package.

    Args:
        package: Name of the package.
        homes: The public names in each of its modules, separated by blanks; a module without any
            is itself a public name.
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}
    public = sorted([*modules, *(module for module, names in homes.items() if not names)])

    def get(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = import_module(f"{package}.{modules.get(name, name)}")
        if name in modules:
            found = getattr(found, name)
            setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return get, names, public
