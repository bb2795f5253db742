"""Deadlines on the loop's clock, noticed in time or late."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from clocks import now

from ci_live_audit._loop import GRACE, deadline
from ci_live_audit.testing import VirtualTimeLoop


def jump(seconds: float) -> None:
    """Let time pass of which the loop knows nothing."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.now += seconds


async def jump_within(scope: AbstractAsyncContextManager[None], seconds: float) -> None:
    """Let time pass within a context, and then wait for long."""
    async with scope:
        jump(seconds)
        await asyncio.sleep(60)


async def test_a_deadline_that_is_noticed_in_time_holds() -> None:
    """What has not ended by then is cancelled at once."""
    with pytest.raises(TimeoutError):
        async with deadline(now() + 5):
            await asyncio.sleep(60)
    assert now() == pytest.approx(5, abs=1e-3)


async def test_what_ends_in_time_is_not_disturbed() -> None:
    """A deadline that was met leaves nothing behind."""
    async with deadline(now() + 5):
        await asyncio.sleep(1)
    await asyncio.sleep(60)


async def test_a_timeout_within_stays_itself() -> None:
    """A TimeoutError of what is waited for keeps its words."""
    with pytest.raises(TimeoutError, match="mine"):
        async with deadline(now() + 5):
            raise TimeoutError("mine")


@pytest.mark.parametrize("stopped", [5.1, 6.0, 3600.0])
async def test_after_a_stop_there_is_one_more_look(stopped: float) -> None:
    """What takes a few steps more still ends, after however long a stop."""
    async with deadline(now() + 5):
        jump(stopped)
        for _ in range(50):
            await asyncio.sleep(0.0001)


@pytest.mark.parametrize(("stopped", "more"), [(5.1, 0.1), (5.5, 0.5), (3600.0, GRACE)])
async def test_the_look_is_short(stopped: float, more: float) -> None:
    """What still hangs after a stop ends soon: after as long as the stop was over, or a second."""
    with pytest.raises(TimeoutError):
        await jump_within(deadline(now() + 5), stopped)
    assert now() == pytest.approx(stopped + more, abs=1e-3)


async def test_there_is_no_look_where_nothing_can_have_come() -> None:
    """What has not even been sent ends at once."""
    with pytest.raises(TimeoutError):
        await jump_within(deadline(now() + 5, may_end=lambda: False), 100)
    assert now() == pytest.approx(100, abs=1e-3)


async def test_a_deadline_can_be_put_off() -> None:
    """What does not count may go on for long, and be told while it does."""

    def away() -> float:
        return min(max(now() - 2, 0.0), 90.0)  # from the 2nd second to the 92nd

    with pytest.raises(TimeoutError):
        async with deadline(now() + 5, put_off=away):
            await asyncio.sleep(1000)
    assert now() == pytest.approx(95, abs=1e-3)
