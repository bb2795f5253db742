"""The pace after refusals: lower, steady, and faster and faster up again; and the pauses."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit.limits.pace import Pace, Patience

RATE = 20.0


def test_the_pace_is_the_rate_without_refusals() -> None:
    """A pace at which nothing is refused is the rate, also without a limit."""
    pace = Pace(RATE)
    for number in range(1000):
        pace.count()
        assert pace.at(number) == RATE
    assert Pace(math.inf).at(1e9) == math.inf


def test_lower_then_steady_then_the_rate() -> None:
    """A refusal costs a ninth at first, 5 % for some seconds, and nothing after 11 s."""
    pace = Pace(RATE)
    pace.lower(100)
    assert pace.at(100) == pytest.approx(0.89 * RATE, abs=0.02)
    assert [pace.at(moment) for moment in (104, 105.5, 107)] == pytest.approx([19] * 3, abs=0.05)
    assert pace.at(110.4) < RATE
    assert pace.at(111) == RATE


def test_each_refusal_counts_from_the_pace_at_that_moment() -> None:
    """Two refusals in a row leave 95 % of 95 %."""
    pace = Pace(RATE)
    pace.lower(0)
    pace.lower(5.5)
    assert pace.at(11) == pytest.approx(0.95 * 0.95 * RATE)


@pytest.mark.parametrize(
    ("share", "floors"), [(0.05, [0.505]), (0.15, [0.505, 0.25, 0.1]), (0.4, [0.505, 0.25, 0.1])]
)
def test_the_more_is_refused_the_lower_is_the_floor(share: float, floors: list[float]) -> None:
    """What may be chance leaves half of the rate; more, a quarter, and in the end a tenth."""
    rng = random.Random(1)
    pace = Pace(RATE)
    time = 0.0
    lowest = RATE
    found: list[float] = []
    for _ in range(2000):
        time += 1 / pace.at(time)
        pace.count()
        if rng.random() < share:
            before, now = pace.at(time), time
            pace.lower(now)
            lowest = pace.at(now)
            if lowest == pytest.approx(before) and lowest / RATE not in found:
                found.append(lowest / RATE)
    assert found == pytest.approx(floors)


def test_a_floor_is_forgotten_at_the_full_rate() -> None:
    """When the pace was the rate again, what is refused may be chance again."""
    pace = Pace(RATE)
    for number in range(100):
        pace.lower(number * 0.1)
    assert pace.at(10) == pytest.approx(0.1 * RATE)
    for number in range(7):
        pace.lower(1000 + number * 0.1)
    assert 0.505 * RATE <= pace.at(1001) < 0.7 * RATE


@given(st.lists(st.floats(0, 30), max_size=60), st.floats(0.1, 1e6))
def test_any_refusals_keep_the_pace_within_its_bounds(gaps: list[float], rate: float) -> None:
    """It is a tenth of the rate at least, no higher after a refusal, and the rate after 20 s."""
    pace = Pace(rate)
    now = 0.0
    for gap in gaps:
        now += gap
        pace.count()
        before = pace.at(now)
        pace.lower(now)
        assert 0.0999 * rate <= pace.at(now) <= before <= rate
        growing = [pace.at(now + after / 2) for after in range(41)]
        assert all(earlier <= later for earlier, later in pairwise(growing))
        assert growing[-1] == rate


def test_retry_after_counts_for_10_seconds_until_it_is_repeated() -> None:
    """Repeated after the pause, it counts for twice as long each time, up to a minute."""
    patience = Patience(few=40)
    now, pauses = 100.0, []
    for _ in range(6):
        pauses.append(patience.seconds(1e9, now))
        now += pauses[-1]
        for _ in range(40):
            patience.count()
    assert pauses == [10, 20, 40, 60, 60, 60]
    patience.count()
    assert patience.seconds(math.inf, now) == 10


def test_what_left_before_the_pause_repeats_nothing() -> None:
    """Requests in flight at a refusal are refused for the same reason."""
    patience = Patience(few=40)
    assert [patience.seconds(1e9, now) for now in (0, 0.1, 9.9)] == [10, 10, 10]
    assert patience.seconds(1e9, 19.8) == 10
    assert patience.seconds(1e9, 29.8) == 20


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e12)), max_size=50))
def test_no_pause_is_longer_than_asked_or_than_a_minute(asked: list[tuple[float, float]]) -> None:
    """Up to 10 s the service has its way; more is a minute at most."""
    patience = Patience(few=2)
    now = 0.0
    for gap, seconds in asked:
        now += gap
        patience.count()
        pause = patience.seconds(seconds, now)
        assert min(seconds, 10) <= pause <= min(seconds, 60)
