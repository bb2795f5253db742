"""Measures the cost of importing the package, against importing its dependencies.

Every import runs in a process of its own with bytecode present; measured is the statement, without
the start of the interpreter. Names of the package are imported on first use, and httpx with the
first client without an ``http_client``; so the package is measured with its client, and with both.
The command line is measured by its help, from the start of the interpreter to its end, against an
interpreter that does nothing.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from report import Sample, Table, interleaved

__all__ = ["run"]

FIVE = "httpx, anyio, xmltodict, attrs, aiolimiter"
VENDOR = "the SDK: qcloud_cos"
CASES = {
    FIVE: f"import {FIVE}",
    "ci_live_audit and its client": "from ci_live_audit import LiveAuditClient",
    "ci_live_audit, and httpx with it": (
        "import ci_live_audit.client, ci_live_audit.transport.connections"
    ),
    VENDOR: "import qcloud_cos",
}
NOTHING = "python -c pass"
COMMANDS = {
    NOTHING: (sys.executable, "-c", "pass"),
    "ci-live-audit --help": (str(Path(sys.executable).parent / "ci-live-audit"), "--help"),
    "ci-live-audit poll --help": (
        str(Path(sys.executable).parent / "ci-live-audit"),
        "poll",
        "--help",
    ),
}


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    rounds = 5 if quick else 15
    with tempfile.TemporaryDirectory() as bytecode:
        cases = {name: partial(_cpu, statement, bytecode) for name, statement in CASES.items()}
        results = interleaved(cases, rounds)
        commands = {name: partial(_spent, command, bytecode) for name, command in COMMANDS.items()}
        helps = interleaved(commands, rounds)
    cost = {name: Sample.of(found) for name, found in results.items()}
    yield Table(
        f"Importing, CPU time, {rounds} rounds",
        ("import", "ms", "vs the five", "vs SDK"),
        [(name, it, it / cost[FIVE], it / cost[VENDOR]) for name, it in cost.items()],
    )
    spent = {name: Sample.of(found) for name, found in helps.items()}
    more = {
        name: Sample.of([one - other for one, other in zip(found, helps[NOTHING], strict=True)])
        for name, found in helps.items()
    }
    yield Table(
        f"Help of the command line, CPU time, {rounds} rounds; at most 150 ms more is the goal",
        ("command", "ms", "ms more"),
        [(name, it, more[name]) for name, it in spent.items()],
    )


def _spent(command: tuple[str, ...], bytecode: str) -> float:
    """Return the CPU milliseconds of a process."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True, env=_environment(bytecode))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime) * 1000


def _cpu(statement: str, bytecode: str) -> float:
    """Return the CPU milliseconds of a statement in a new interpreter."""
    program = (
        "import time; began = time.process_time()\n"
        f"{statement}\n"
        "print((time.process_time() - began) * 1000)"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(
        command, capture_output=True, check=True, env=_environment(bytecode), text=True
    )
    return float(printed.stdout)


def _environment(bytecode: str) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
