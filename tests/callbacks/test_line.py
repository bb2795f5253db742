"""The line in which callbacks wait."""

from __future__ import annotations

from posted import body

from ci_live_audit.callbacks import decode
from ci_live_audit.callbacks.line import EACH, MOST, Line


def test_a_line_is_bounded_in_bytes() -> None:
    """The first fits whatever its size; others as long as there is room, in their order."""
    first, second = decode(body("av1")), decode(body("av2"))
    line = Line()
    assert line.add(first, 2 * MOST)
    assert not line.add(second, 0)
    assert line.remove_first() is first
    assert line.add(first, MOST - 2 * EACH)
    assert not line.add(second, 1)
    assert line.add(second, 0)
    assert [line.remove_first(), line.first(), line.remove_first()] == [first, second, second]
    assert len(line) == 0
