"""Interleaved rounds, medians with their spread, and tables, for all measurements.

A machine is never quiet, so a ratio means more than a figure: every round runs all cases, ratios
are taken round by round, and the median of the rounds is printed with the lowest and the highest
in brackets.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias, TypeVar

import attrs

__all__ = ["Cell", "Sample", "Table", "environment", "interleaved"]

PACKAGES = (
    *("ci-live-audit", "aiolimiter", "anyio", "attrs", "httpx", "httpcore", "sniffio", "xmltodict"),
    *("uvicorn", "cos-python-sdk-v5", "requests", "redis", "limits", "pyrate-limiter"),
    *("throttled-py", "self-limiters"),
)

T = TypeVar("T")


def interleaved(
    cases: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[T]]:
    """Run all cases in every round, each round starting with another one.

    Args:
        cases: Functions that measure and return a result, by name.
        rounds: Number of rounds.
        warm_up: Whether to run a first round and drop its results.
    """
    names = list(cases)
    results: dict[str, list[T]] = {name: [] for name in names}
    if warm_up:
        for name in names:
            cases[name]()
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            results[name].append(cases[name]())
    return results


@attrs.frozen
class Sample:
    """A figure that was measured once a round."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """Return a sample of the figures of the rounds."""
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    def __truediv__(self, other: Sample) -> Sample:
        """Return the ratio of each round."""
        return Sample.of(a / b for a, b in zip(self.values, other.values, strict=True))

    def __str__(self) -> str:
        low, high = _short(min(self.values)), _short(max(self.values))
        middle = _short(self.median)
        return middle if low == high else f"{middle} ({low}-{high})"


def _short(value: float) -> str:
    """Format three significant digits, or all digits before the point."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


Cell: TypeAlias = Sample | str | float | None


@attrs.frozen
class Table:
    """Rows under a title; the first column names what a row measures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.columns, *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        texts = [
            "  ".join(map(_aligned, line, widths, range(len(line)))).rstrip() for line in lines
        ]
        return "\n".join([self.title, rule, texts[0], rule, *texts[1:], rule, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the table with the figures of every round, ready for JSON."""
        rows = [
            [list(cell.values) if isinstance(cell, Sample) else cell for cell in row]
            for row in self.rows
        ]
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": rows,
            "notes": list(self.notes),
        }


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return _short(cell) if isinstance(cell, int | float) else str(cell)


def _aligned(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)


def environment() -> dict[str, str]:
    """Return the interpreter, the machine and its load, and the versions of the packages."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
