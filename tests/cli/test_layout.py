"""Columns that line up in every width, whatever is in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ci_live_audit.cli.layout import FINDINGS, ITEMS, OUTCOMES, Layout, wrapped
from ci_live_audit.cli.rows import Row
from ci_live_audit.cli.words import clean

LAYOUTS = st.sampled_from([FINDINGS, ITEMS, OUTCOMES])
ID = "av0123456789abcdef0123456789abcdef"
TEXTS = (st.text(max_size=60) | st.sampled_from(["\u623f" * 40, "\u0300" * 9, ID])).map(clean)
ROWS = st.builds(
    Row,
    job_id=st.just(ID),
    time=st.sampled_from(["21:24:16", ""]),
    offset=st.sampled_from(["(+1:08)", "(+1:02:03)", ""]),
    verdict=st.sampled_from(["Sensitive", "Timed out", "verdict 1234567890", ""]),
    scene=TEXTS,
    score=st.sampled_from(["98", "100", ""]),
    stream=TEXTS,
    details=TEXTS,
    whole=st.booleans(),
)


def shown(layout: Layout, row: Row, width: int, **options: Any) -> list[str]:
    """Return the lines of a row."""
    return [line.plain for line in layout.lines(row, width, **{"cuts": True, **options})]


@given(LAYOUTS, ROWS, st.integers(40, 220), st.booleans())
def test_no_line_is_longer_than_the_terminal(
    layout: Layout, row: Row, width: int, whole: bool
) -> None:
    """In cells; and no line is empty."""
    lines = shown(layout, row, width, whole=whole)
    assert all(0 < cell_len(line) <= width for line in lines)
    assert all(cell_len(line.plain) <= width for line in layout.header(width, "UTC"))


@given(LAYOUTS, ROWS, st.integers(0, 40), st.booleans(), st.booleans())
def test_no_terminal_is_too_narrow(
    layout: Layout, row: Row, width: int, cuts: bool, whole: bool
) -> None:
    """Not even one that says that it has no columns."""
    layout.header(width, "UTC")
    shown(layout, row, width, cuts=cuts, whole=whole)


@given(LAYOUTS, ROWS, st.integers(36, 220), st.booleans())
def test_an_id_is_whole_or_not_there(layout: Layout, row: Row, width: int, cuts: bool) -> None:
    """In the name of the stream, too."""
    text = "\n".join(shown(layout, row, width, cuts=cuts))
    if layout is OUTCOMES or (layout is FINDINGS and row.stream == ID):
        assert ID in text
    assert "av01" not in text.replace(ID, "") or "av01" in row.details + row.scene + row.stream


@given(LAYOUTS, ROWS, st.integers(20, 220))
def test_nothing_is_lost_where_nothing_is_cut(layout: Layout, row: Row, width: int) -> None:
    """In a pipe the details have one line, and are as they are."""
    text = "\n".join(shown(layout, row, width, cuts=False))
    assert row.details.rstrip() in text


@pytest.mark.parametrize("stream", ["room7", "\u623f\u95f4\u4e03\u53f7\u623f\u95f4", "e\u0301" * 5])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_columns_line_up(width: int, stream: str) -> None:
    """In cells, under their titles, whatever the width of the characters."""
    row = Row(
        time="21:24:16", verdict="Sensitive", scene="Ads", score="9", stream=stream, details="x"
    )
    (line,), (header,) = shown(FINDINGS, row, width), FINDINGS.header(width)
    for title, cell in {"VERDICT": "Sensitive", "SCENE": "Ads", "DETAILS": "x"}.items():
        place = cell_len(line[: line.rindex(cell)])
        assert place == header.plain.index(title)


@pytest.mark.parametrize("width", [46, 60, 79, 80, 81, 120])
def test_an_id_in_the_place_of_a_name(width: int) -> None:
    """It takes what it needs, on a line of its own if there is no room."""
    row = Row(job_id=ID, stream=ID, time="21:24:16", verdict="Normal", details="more to say of it")
    lines = shown(FINDINGS, row, width)
    assert sum(ID in line for line in lines) == 1
    assert any("more to say" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 80])
def test_words_are_not_broken(width: int) -> None:
    """Unless one is wider than a line."""
    text = "the stream could not be read, as its server has closed the connection"
    row = Row(verdict="Failed", details=text, whole=True)
    lines = shown(ITEMS, row, width)
    assert {word for line in lines for word in line.split()} == {"Failed", *text.split()}
    assert wrapped("\u623f" * 30, 20) == ["\u623f" * 10] * 3
    assert wrapped("a " + "b" * 25, 20) == ["a", "b" * 20, "b" * 5]
    assert wrapped("b" * 4, 20, 2) == ["", "bbbb"]
    assert wrapped("", 20) == [""]
    assert wrapped("ab  c", 20, 2) == ["ab", "c"]


def test_a_link_is_on_the_first_line() -> None:
    """For terminals that can open it."""
    row = Row(verdict="Sensitive", scene="Porn", details="x", url="https://example.com/1.jpg")
    first, *others = ITEMS.lines(row, 40, cuts=True)
    assert any("https://example.com/1.jpg" in str(span.style) for span in first.spans)
    assert not any("https" in str(span.style) for line in others for span in line.spans)
