"""Rows in columns that line up, within the width of a terminal: in cells, not characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.style import Style
from rich.text import Text

from ci_live_audit.cli.rows import Row
from ci_live_audit.cli.words import cut

__all__ = ["FINDINGS", "ITEMS", "OUTCOMES", "Layout", "wrapped"]

#: How far the second and further lines of a row are indented.
INDENT = "  "
#: Cells for the last column below which it goes to a line of its own.
FEW = 12
SCENE, SCORE = 9, 4
#: What is no more than this wide is not shortened.
ENDLESS = 10**6


class Column(NamedTuple):
    """A column.

    Attributes:
        title: What is above it, and what is in it.
        cells: Its width; 0 takes what is left of the line.
        gap: The spaces after it.
    """

    title: str
    cells: int = 0
    gap: int = 2


Columns = Sequence[Column]
JOB, CLOCK, TIME = Column("JOB", 34), Column("TIME", 8), Column("TIME", 19, 1)
JUDGED = (Column("VERDICT", 9), Column("SCENE   SCORE", SCENE + SCORE))
STREAM, DETAILS = Column("STREAM", 14), Column("DETAILS")
#: Both of them, one after the other.
REST = Column("STREAM")


class Layout:
    """Columns for wide terminals, and the same on two lines for narrow ones.

    Args:
        least: The narrowest width for ``wide``.
        wide: The columns; the last one takes what is left.
        narrow: The columns of each line.
    """

    def __init__(self, least: int, wide: Columns, narrow: Sequence[Columns]) -> None:
        self._least = least
        self._wide = wide
        self._narrow = narrow

    def header(self, width: int, zone: str = "") -> list[Text]:
        """Return the titles of the columns, and the zone of times."""
        lines: list[Text] = []
        for columns in self._lines(width):
            text = Text(INDENT if lines else "")
            for column in columns:
                title = column.title
                if zone and title == "TIME" and column.cells > len(title) + len(zone) + 3:
                    title = f"{title} ({zone})"
                if text.cell_len + len(title) <= width:
                    text.append(title.ljust(column.cells + column.gap))
            lines.append(text)
        return _styled(lines, "dim")

    def lines(self, row: Row, width: int, *, cuts: bool, whole: bool = False) -> list[Text]:
        """Return the lines of a row.

        Args:
            row: The row.
            width: Of the terminal, in cells.
            cuts: Whether the last column is cut off where the terminal ends; else lines may be
                longer.
            whole: Whether the last column goes on in further lines instead.
        """
        room = width if cuts else ENDLESS
        lines: list[Text] = []
        for *columns, last in self._lines(width):
            lines.append(text := Text(INDENT if lines else ""))
            for column in columns:
                cell = _cell(row, column)
                if cell != row.job_id:  # an id is whole, or of no use
                    cell = cut(cell, column.cells)
                elif text.cell_len + cell_len(cell) > room:
                    lines.append(text := Text(INDENT))
                text.append(cell + " " * max(0, column.cells - cell_len(cell)))
                text.append(" " * column.gap)
            first, *more = _last(row, last, room, room - text.cell_len, whole=whole or row.whole)
            text.append(first)
            lines += (Text(INDENT + line) for line in more)
        lines = _styled(lines, row.style)
        for text in lines[:1]:
            text.stylize(Style(link=row.url))
        return lines

    def _lines(self, width: int) -> Sequence[Columns]:
        if width < self._least:
            return self._narrow
        name = STREAM._replace(cells=max(STREAM.cells, min(width // 5 - 2, JOB.cells)))
        return [[name if column is STREAM else column for column in self._wide]]


#: Of `watch` and `moderate`.
FINDINGS = Layout(72, (TIME, *JUDGED, STREAM, DETAILS), ((CLOCK, *JUDGED), (REST,)))
#: Of the table of `query`.
ITEMS = Layout(64, (TIME, *JUDGED, DETAILS), ((CLOCK, *JUDGED), (DETAILS,)))
#: Of `poll`.
OUTCOMES = Layout(80, (JOB, *JUDGED, CLOCK, REST), ((JOB,), (*JUDGED, CLOCK, REST)))


def _last(row: Row, column: Column, room: int, left: int, *, whole: bool) -> list[str]:
    """Return the last cell in lines, of which the first has some cells left."""
    cell = _cell(row, column)
    if cell_len(cell) <= left or column is JOB:
        return [cell]
    if column is REST and row.stream == row.job_id:
        first = [] if cell_len(row.stream) <= left else [""]
        return [*first, row.stream, *_last(row, DETAILS, room, room - len(INDENT), whole=whole)]
    first, left = ([""], room - len(INDENT)) if left < FEW else ([], left)
    return [*first, *(wrapped(cell, room - len(INDENT), left) if whole else [cut(cell, left)])]


def wrapped(text: str, width: int, first: int | None = None) -> list[str]:
    """Return a text in lines, broken inside words only where they are wider than a line.

    Args:
        text: The text.
        width: Of the lines, in cells.
        first: Of the first of them, if it is another.
    """
    width = max(width, FEW)  # what is narrower cannot be read anyway
    lines, room = [""], width if first is None else first
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= room:
            lines[-1] = joined
        else:
            lines += chop_cells(word, width) or [""]
            room = width
    return lines[1:] if first is None and len(lines) > 1 and not lines[0] else lines


def _cell(row: Row, column: Column) -> str:
    match column.title:
        case "TIME" if column is TIME:
            return f"{row.time:8} {row.offset}".rstrip()
        case "TIME":
            return row.time
        case "VERDICT":
            return row.verdict
        case "STREAM" if column is REST:
            return "  ".join(filter(None, [row.stream, row.details]))
        case "STREAM":
            return row.stream
        case "JOB":
            return row.job_id
        case "DETAILS":
            return row.details
        case _:
            scene = cut(row.scene, SCENE if row.score else column.cells)
            return f"{scene}{row.score:>{column.cells - cell_len(scene)}}" if row.score else scene


def _styled(lines: list[Text], style: str) -> list[Text]:
    """Return the lines that have something in them, with a style and no spaces at their ends."""
    for text in lines:
        text.rstrip()
        text.stylize(style)
    return [text for text in lines if text]
