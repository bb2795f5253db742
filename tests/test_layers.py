"""The folder listing is the architecture: one total order of modules, read from their imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ci_live_audit

PACKAGE = Path(ci_live_audit.__file__).parent

# Each module imports only from those before it. Those of a room stand together.
ORDER = (
    "_version",
    "_lazy",
    "models",
    "errors",
    "_checks",
    "_environment",
    "_forks",
    "_files",
    "_loop",
    "_threads",
    "_redis",
    "credentials/values",
    "credentials/cache",
    "credentials/chain",
    "wire/endpoint",
    "wire/requests",
    "wire/signature",
    "wire/responses",
    "wire/scalars",
    "wire/repair",
    "wire/documents",
    "wire/items",
    "wire/context",
    "wire/nodes",
    "wire/refusals",
    "wire/results",
    "wire/plain",
    "wire/callbacks",
    "decode",
    "callbacks/tokens",
    "callbacks/line",
    "callbacks/consumer",
    "callbacks/listeners",
    "callbacks/intake",
    "callbacks/asgi",
    "callbacks/receiver",
    "limits/limiter",
    "limits/pace",
    "limits/local",
    "limits/background",
    "limits/share",
    "limits/lanes",
    "limits/claim",
    "limits/claimant",
    "limits/redis",
    "retry",
    "observers",
    "clock",
    "transport/memory",
    "transport/body",
    "transport/state",
    "transport/environment",
    "transport/streams",
    "transport/connections",
    "transport/own",
    "transport/foreign",
    "transport/exchange",
    "calls",
    "cancelling",
    "following/digests",
    "following/backlog",
    "following/recent",
    "following/commit",
    "following/streams",
    "following/ids",
    "following/member",
    "following/stream_notes",
    "following/stream_member",
    "following/shared",
    "following/redis_scripts",
    "following/redis_checkpoint",
    "following/reading",
    "following/seen",
    "following/checkpoint",
    "following/plan",
    "following/progress",
    "following/jobs",
    "following/nudges",
    "following/schedule",
    "following/health",
    "following/ledger",
    "following/polling",
    "following/dispatcher",
    "following/run",
    "following/outcomes",
    "following/finding",
    "following/findings",
    "following/submitting",
    "following/places",
    "following/notes",
    "following/shared_streams",
    "following/stopping",
    "following/supervisor",
    "following/shared_supervisor",
    "following/moderation",
    "following/verbs",
    "client",
    "redis",
    "__init__",
    "report/texts",
    "report/verdicts",
    "report/items",
    "report/cards",
    "report/timeline",
    "report/streams",
    "report/page",
    "telemetry/words",
    "telemetry/gauges",
    "telemetry/instruments",
    "telemetry/observer",
    "testing/virtual_time",
    "testing/render",
    "testing/browsers",
    "testing/verify",
    "testing/streams",
    "testing/bodies",
    "testing/service",
    "testing/faults",
    "testing/asgi",
    "testing/posting",
    "testing/callbacks",
    "testing/chaos",
    "testing/serving",
    "testing/emulator",
    "testing/pytest_loops",
    "testing/pytest_plugin",
    "cli/interrupts",
    "cli/streams",
    "cli/words",
    "cli/filters",
    "cli/rows",
    "cli/layout",
    "cli/strip",
    "cli/output",
    "cli/status",
    "cli/tally",
    "cli/session",
    "cli/shared",
    "cli/lines",
    "cli/ids",
    "cli/results",
    "cli/bulk",
    "cli/demo",
    "cli/doctor",
    "cli/emulate",
    "cli/listen",
    "cli/jobs",
    "cli/recorded",
    "cli/report",
    "cli/moderate",
    "cli/logs",
    "cli/values",
    "cli/options",
    "cli/base",
    "cli/views",
    "cli/group",
    "cli/tools",
    "cli/commands",
    "__main__",
)
CORE = ORDER[: ORDER.index("__init__")]
# What decides has no input, no output and no clock.
PURE = {"models", "errors", "_checks", "credentials/values", "limits/pace", "limits/share", "retry"}
FOLLOWING = (
    "plan",
    "progress",
    "digests",
    "backlog",
    "recent",
    "commit",
    "reading",
    "seen",
    "jobs",
    "nudges",
    "schedule",
    "health",
    "ledger",
    "progress",
    "finding",
    "streams",
)
PURE |= {f"following/{name}" for name in FOLLOWING}
PURE |= {"callbacks/tokens", "callbacks/line", "telemetry/words"}
PURE |= {module for module in ORDER if module.startswith(("wire/", "report/"))}
STDLIB_IO = {"asyncio", "socket", "http", "urllib.request", "time", "os", "pathlib"}
# The modules of the core that may import each library.
LIBRARIES = {
    "httpx": {"transport/connections"},
    "httpcore": {"transport/streams", "transport/connections"},
    "aiolimiter": {"limits/local"},
    "redis": {"_redis"},
    "xmltodict": {"wire/documents"},
    "anyio": {
        *("transport/connections", "transport/exchange", "following/run"),
        "following/moderation",
    },
}
LONGEST = 350


def imports(module: str) -> set[str]:
    """Return the absolute names of the modules that a module imports when it runs."""
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
            inside = f"{node.module}".replace(".", "/").removeprefix("ci_live_audit")
            is_room = (PACKAGE / inside.strip("/") / "__init__.py").is_file()
            found |= {
                f"{node.module}.{alias.name}"
                if f"{node.module}".startswith("ci_live_audit") and is_room
                else f"{node.module}"
                for alias in node.names
            }
    return found


def ours(module: str) -> set[str]:
    """Return the modules of the package that a module imports; a name of a package is its face."""
    found: set[str] = set()
    for name in imports(module):
        top, _, rest = name.replace(".", "/").partition("/")
        if top == "ci_live_audit":
            found.add(rest if rest in ORDER else rest.rpartition("/")[0] or "__init__")
    return found


def test_the_order_is_complete() -> None:
    """Every module of the package has its place, and those of a room stand together."""
    files = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    faces = {path for path in files if path.name == "__init__.py" and len(path.parts) > 1}
    assert sorted(ORDER) == sorted(path.with_suffix("").as_posix() for path in files - faces)
    rooms = [module.partition("/")[0] for module in ORDER]
    blocks = [room for at, room in enumerate(rooms) if rooms[at - 1 : at] != [room]]
    assert len(blocks) == len(set(blocks))


@pytest.mark.parametrize("module", ORDER)
def test_imports_run_one_way(module: str) -> None:
    """A module imports only from modules before it in the order."""
    faces = {"testing", "cli"} if module == "__main__" else {"testing"}
    before = {*ORDER[: ORDER.index(module)]} | faces
    assert ours(module) <= before


@pytest.mark.parametrize("module", ORDER)
def test_no_module_is_long(module: str) -> None:
    """A module has at most 350 lines, but for the declarations of the results."""
    lines = len((PACKAGE / f"{module}.py").read_text().splitlines())
    assert lines <= LONGEST or module == "models"


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_decides_is_pure(module: str) -> None:
    """It does no input or output and knows no clock."""
    libraries = {"httpx", "anyio", "aiolimiter"}
    assert not {name.split(".")[0] for name in imports(module)} & libraries
    assert not imports(module) & STDLIB_IO


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_has_its_place(library: str) -> None:
    """A library is imported where its work is done and nowhere else in the core."""
    users = {m for m in CORE if library in {name.split(".")[0] for name in imports(m)}}
    assert users == LIBRARIES[library]
