"""The service's clock: learnt from a Date, by whoever signed by a wrong one."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from ci_live_audit.clock import Clock

NOW = 1_700_000_000


def test_the_service_is_ahead() -> None:
    """After a refusal the clock goes as the service's."""
    clock = Clock(lambda: NOW)
    assert clock.now() == NOW
    assert clock.learn(formatdate(NOW + 3600, usegmt=True), used=0)
    assert (clock.ahead, clock.now()) == (3600, NOW + 3600)


def test_others_were_wrong_too() -> None:
    """A call that had signed before another one learnt the clock may try again as well."""
    clock = Clock(lambda: NOW)
    date = formatdate(NOW + 3600, usegmt=True)
    assert clock.learn(date, used=0)
    assert clock.learn(date, used=0)
    assert not clock.learn(date, used=3600)
    assert clock.ahead == 3600


@pytest.mark.parametrize("ahead", [0, 29, -29, 86_401, -86_401])
def test_what_is_not_learnt(ahead: int) -> None:
    """A small difference is not the cause, and an absurd one is no clock."""
    clock = Clock(lambda: NOW)
    assert not clock.learn(formatdate(NOW + ahead, usegmt=True), used=0)
    assert clock.ahead == 0


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 14 Nov 2023 99:00:00 GMT"])
def test_what_is_no_date(date: str) -> None:
    """Without a readable Date nothing is learnt."""
    assert not Clock(lambda: NOW).learn(date, used=0)
