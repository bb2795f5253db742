"""What importing the package costs, against importing the libraries that it stands on.

Every import has a process of its own with the bytecode already there, and the time is what the
statement takes, not the start of the interpreter. httpx comes with the first client that is made
without an ``http_client``, so the package is measured with that client too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial

from report import Sample, Table, interleaved

__all__ = ["run"]

FIVE = "httpx, anyio, xmltodict, attrs, aiolimiter"
VENDOR = "the SDK: qcloud_cos"
CASES = {
    FIVE: f"import {FIVE}",
    "ci_live_audit": "import ci_live_audit",
    "ci_live_audit, and httpx with it": "import ci_live_audit, ci_live_audit.connections",
    VENDOR: "import qcloud_cos",
}


def run(*, quick: bool) -> Iterator[Table]:
    """The table."""
    rounds = 5 if quick else 15
    with tempfile.TemporaryDirectory() as bytecode:
        cases = {name: partial(_cpu, statement, bytecode) for name, statement in CASES.items()}
        results = interleaved(cases, rounds)
    cost = {name: Sample.of(found) for name, found in results.items()}
    yield Table(
        f"Importing, CPU time, {rounds} rounds",
        ("import", "ms", "vs the five", "vs SDK"),
        [(name, it, it / cost[FIVE], it / cost[VENDOR]) for name, it in cost.items()],
    )


def _cpu(statement: str, bytecode: str) -> float:
    """CPU milliseconds of a statement in a new interpreter."""
    program = (
        "import time; began = time.process_time()\n"
        f"{statement}\n"
        "print((time.process_time() - began) * 1000)"
    )
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env=environment, text=True
    )
    return float(printed.stdout)
