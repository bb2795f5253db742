"""Runs all measurements, or those that are named, and prints their tables.

``python benchmarks/run.py [NAME...] [--json FILE] [--plot FILE] [--quick]``, where a name is one
of ``limiter quota importing calls decoding heartbeat memory hostile deadlines polling nudging
endurance profiling watching receiving soak takeover telemetry``.

Everything runs on this machine and needs no account: the service is the emulator or a server with
one response. ``--quick`` takes a few minutes in place of half an hour, to see that everything
works; its figures are rougher.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import calls
import deadlines
import decoding
import endurance
import heartbeat
import hostile
import importing
import limiter
import memory
import nudging
import picture
import polling
import profiling
import quota
import receiving
import soak
import takeover
import telemetry
import watching
from report import Table, environment


class Benchmark(Protocol):
    """Measures, and yields each table as soon as it is ready."""

    def __call__(self, *, quick: bool) -> Iterator[Table]:
        """Run the measurement."""
        ...


BENCHMARKS: dict[str, Benchmark] = {
    "limiter": limiter.run,
    "quota": quota.run,
    "importing": importing.run,
    "calls": calls.run,
    "decoding": decoding.run,
    "heartbeat": heartbeat.run,
    "memory": memory.run,
    "hostile": hostile.run,
    "deadlines": deadlines.run,
    "polling": polling.run,
    "nudging": nudging.run,
    "endurance": endurance.run,
    "profiling": profiling.run,
    "watching": watching.run,
    "receiving": receiving.run,
    "soak": soak.run,
    "takeover": takeover.run,
    "telemetry": telemetry.run,
}


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    options = _options(arguments)
    started = time.monotonic()
    before = environment()
    _print_facts(before)
    measured: dict[str, list[dict[str, Any]]] = {}
    tables: list[Table] = []
    for name in options.names or BENCHMARKS:
        measured[name] = []
        for table in BENCHMARKS[name](quick=options.quick):
            print(f"\n{table}", flush=True)
            measured[name].append(table.to_dict())
            tables.append(table)
    after = {
        "load at the end": environment()["load"],
        "took": f"{time.monotonic() - started:.0f} s",
    }
    print()
    _print_facts(after)
    if options.json is not None:
        document = {"environment": before | after, "quick": options.quick, "tables": measured}
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if options.plot is not None:
        picture.draw(tables, options.plot)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", type=_name, help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the tables: .svg, .png or .pdf"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    return parser.parse_args(arguments)


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(BENCHMARKS)}")
    return text


def _print_facts(facts: dict[str, str]) -> None:
    for name, fact in facts.items():
        print(f"{name}: {fact}", flush=True)


if __name__ == "__main__":
    main()
