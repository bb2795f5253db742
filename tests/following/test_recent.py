"""A set of texts that forgets the oldest."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit.following.recent import Recent


@given(st.integers(1, 20), st.lists(st.integers(0, 100).map(str)))
def test_the_last_texts_are_known(bound: int, texts: list[str]) -> None:
    """At least the last texts are known, at most twice as many, and none that was not added."""
    recent = Recent(bound)
    for text in texts:
        recent.add(text)
    known = {str(number) for number in range(101) if str(number) in recent}
    assert set(texts[-bound + 1 :] if bound > 1 else []) <= known <= set(texts)
    assert len(known) < 2 * bound


def test_without_a_bound_nothing_is_forgotten() -> None:
    """Infinity is no bound."""
    recent = Recent(math.inf)
    for number in range(1000):
        recent.add(str(number))
    assert all(str(number) in recent for number in range(1000))


def test_nothing_is_remembered_of_a_bound_of_zero() -> None:
    """Not even the last text."""
    recent = Recent(0)
    recent.add("a")
    assert "a" not in recent
    assert not recent.has_forgotten
