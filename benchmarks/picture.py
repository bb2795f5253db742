"""Tables as a picture: a panel for each, a bar for each row, whiskers from lowest to highest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from report import Sample, Table

__all__ = ["draw"]

OURS, OTHERS = "#1b6ca8", "#b8bfc6"
LOG_FROM = 50


def draw(tables: Sequence[Table], file: Path) -> None:
    """Draw the first column of figures of every table.

    Args:
        tables: What was measured.
        file: Where to; its ending names the format, svg, png or pdf.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who wants a picture needs it

    tables = [table for table in tables if _bars(table)]
    heights = [len(_bars(table)) + 3 for table in tables]
    figure = Figure(figsize=(11, 0.28 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(tables), squeeze=False, height_ratios=heights)
    for table, panel in zip(tables, panels[:, 0], strict=True):
        bars = _bars(table)
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
        for edge in ("top", "right"):
            panel.spines[edge].set_visible(False)
    figure.savefig(file, dpi=120)


def _bars(table: Table) -> list[tuple[str, Sample]]:
    bars = []
    for name, cell, *_ in table.rows:
        figure = Sample.of([cell]) if isinstance(cell, int | float) else cell
        if isinstance(figure, Sample):
            bars.append((str(name), figure))
    return bars


def _is_ours(name: str) -> bool:
    return any(word in name for word in ("ci_live_audit", "decode.job", "LocalRateLimiter"))
