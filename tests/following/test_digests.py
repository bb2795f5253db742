"""Sets of digests in little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from runs import size

from ci_live_audit.following.digests import RECENT, Digests, digest

NUMBERS = st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 10), max_size=50)


@given(st.lists(NUMBERS, max_size=5), NUMBERS)
def test_digests_are_a_set(added: list[set[int]], others: set[int]) -> None:
    """It holds what was added, once each, and nothing else."""
    found, expected = Digests(), set[int]()
    for numbers in added:
        found, before, old = found.plus(numbers), found, expected
        expected = expected | numbers
        assert set(before) == old
    assert set(found) == expected
    assert len(found) == len(expected)
    assert all((number in found) == (number in expected) for number in others | expected)


def test_many_digests_take_8_bytes_each() -> None:
    """Those added last are kept in a set, and all others in an array."""
    found = Digests()
    for start in range(0, 20_000, 7):
        found = found.plus(range(start, start + 7))
    assert len(found) == 20_006
    assert list(range(0, 20_006, 1000)) == [one for one in range(0, 21_000, 1000) if one in found]
    assert size(found) < 8 * 20_006 + 100 * RECENT


def test_a_digest_of_anything() -> None:
    """Digests of different values differ, also of texts that are no Unicode."""
    values = ["a", "b", ("a", "b"), ("ab",), 1, "1", None, "\ud800"]
    digests = {digest(value) for value in values}
    assert len(digests) == len(values)
    assert max(digests) < 2**64
    assert digest("a", 1) == 11132678856793633452
