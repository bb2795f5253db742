"""The service's clock is learnt from a response, by every call that signed by a wrong one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ci_live_audit.clock import Clock

NOW = 1_700_000_000
HERE = datetime.fromtimestamp(NOW, UTC)


def test_the_service_is_ahead() -> None:
    """After a refusal the clock shows the service's time."""
    clock = Clock(lambda: NOW)
    assert clock.now() == NOW
    assert clock.learn(HERE + timedelta(hours=1), used=0)
    assert (clock.ahead, clock.now()) == (3600, NOW + 3600)


def test_others_were_wrong_too() -> None:
    """A call that was signed before another one learnt the clock may try again as well."""
    clock = Clock(lambda: NOW)
    date = HERE + timedelta(hours=1)
    assert clock.learn(date, used=0)
    assert clock.learn(date, used=0)
    assert not clock.learn(date, used=3600)
    assert clock.ahead == 3600


@pytest.mark.parametrize("ahead", [0, 29, -29, 86_401, -86_401])
def test_a_small_or_absurd_difference_is_not_learnt(ahead: int) -> None:
    """A small difference is not the cause of a refusal, and an absurd one is not a clock."""
    clock = Clock(lambda: NOW)
    assert not clock.learn(HERE + timedelta(seconds=ahead), used=0)
    assert clock.ahead == 0


def test_without_a_date_nothing_is_learnt() -> None:
    """A response without a readable Date leaves the clock as it is."""
    assert not Clock(lambda: NOW).learn(None, used=0)
