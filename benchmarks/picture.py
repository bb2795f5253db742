"""Draws tables: a panel for each, a bar for each row, whiskers from lowest to highest.

A row whose figures are a `Series` gets a panel of its own, with a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from report import Sample, Table

__all__ = ["Series", "draw"]

OURS, OTHERS = "#1b6ca8", "#b8bfc6"
LOG_FROM = 50


@attrs.frozen
class Series(Sample):
    """Figures in the order in which they were measured."""


def draw(tables: Sequence[Table], file: Path) -> None:
    """Draw the first column of figures of every table.

    Args:
        tables: What was measured.
        file: Path of the picture; its suffix is the format: svg, png or pdf.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - needed for pictures only

    panels = [panel for table in tables for panel in _panels(table)]
    heights = [len(rows) + 3 for _, rows in panels]
    figure = Figure(figsize=(11, 0.28 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for (table, rows), panel in zip(panels, axes[:, 0], strict=True):
        first = rows[0][1]
        if isinstance(first, Series):
            _draw_line(panel, table, rows[0][0], first)
        else:
            _draw_bars(panel, table, rows)
        for edge in ("top", "right"):
            panel.spines[edge].set_visible(False)
    figure.savefig(file, dpi=120)


def _panels(table: Table) -> list[tuple[Table, Rows]]:
    """Return the panels of a table: one with all bars, or one for each line."""
    bars = _bars(table)
    if any(isinstance(figures, Series) for _, figures in bars):
        return [(table, [bar]) for bar in bars]
    return [(table, bars)] if bars else []


def _draw_line(panel: Any, table: Table, name: str, figures: Series) -> None:
    panel.plot(range(1, len(figures.values) + 1), figures.values, color=OURS)
    panel.set_ylim(0, 1.15 * max(*figures.values, 1))
    panel.set_title(f"{table.title}: {name}", loc="left", fontsize=10, fontweight="bold")


def _draw_bars(panel: Any, table: Table, bars: Rows) -> None:
    names = [name.strip() for name, _ in bars]
    middles = [figure.median for _, figure in bars]
    spread = [
        [figure.median - min(figure.values) for _, figure in bars],
        [max(figure.values) - figure.median for _, figure in bars],
    ]
    colors = [OURS if _is_ours(name) else OTHERS for name in names]
    panel.barh(range(len(bars)), middles, xerr=spread, color=colors, ecolor="#555555")
    panel.set_yticks(range(len(bars)), names, fontsize=8)
    panel.invert_yaxis()
    panel.set_title(table.title, loc="left", fontsize=10, fontweight="bold")
    panel.set_xlabel(table.columns[1], fontsize=8)
    if max(middles) > LOG_FROM * min(middles) > 0:
        panel.set_xscale("log")


Rows: TypeAlias = list[tuple[str, Sample]]


def _bars(table: Table) -> Rows:
    bars = []
    for name, cell, *_ in table.rows:
        figure = Sample.of([cell]) if isinstance(cell, int | float) else cell
        if isinstance(figure, Sample):
            bars.append((str(name), figure))
    return bars


def _is_ours(name: str) -> bool:
    return any(word in name for word in ("ci_live_audit", "decode.job", "LocalRateLimiter"))
