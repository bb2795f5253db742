"""The slots of processes that nobody coordinates."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ci_live_audit.limits.share import Share


@pytest.mark.parametrize("processes", [1, 3, 4, 7, 30])
def test_the_slots_of_all_are_one_even_row(processes: int) -> None:
    """However many there are, and whatever their clocks show, they never send together."""
    moments: list[float] = []
    for rank in range(processes):
        ahead = 1000.0 * rank
        share = Share.of(20, processes, rank, ahead)
        first = share.index(-ahead) + 1
        moments += [share.opens(first + number) + ahead for number in range(20)]
    moments.sort()
    gaps = [b - a for a, b in pairwise(moments)]
    assert min(gaps) == pytest.approx(1 / 19) == pytest.approx(max(gaps))


def test_a_slot_is_known_by_its_number() -> None:
    """The number of a slot is that of the last one that has opened."""
    share = Share.of(20, 4, 1, 0.0)
    for number in (-3, 0, 5):
        assert share.index(share.opens(number) + 1e-6) == number
        assert share.index(share.opens(number) - 1e-6) == number - 1
