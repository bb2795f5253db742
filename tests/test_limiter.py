"""The limiter: never more than the rate in any one second, nearly all of it, in order."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError, LocalRateLimiter, RateLimiter
from ci_live_audit.testing import VirtualTimeLoop


def most_in_a_second(times: list[float], second: float = 1.0) -> int:
    """The most grants in any window [t, t + second)."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= second:
            first += 1
        most = max(most, last - first + 1)
    return most


async def grants(limiter: LocalRateLimiter, number: int) -> list[float]:
    """The times of so many acquisitions, all asked for at once."""
    time = asyncio.get_running_loop().time
    times: list[float] = []

    async def one() -> None:
        await limiter.acquire()
        times.append(time())

    await asyncio.gather(*(one() for _ in range(number)))
    return times


@pytest.mark.parametrize("rate", [1.0, 3.0, 20.0, 1000.0])
async def test_the_rate_is_kept_and_used(rate: float) -> None:
    """1,000 acquisitions: never more than the rate in a second, and 99.9 % of it sustained."""
    times = await grants(LocalRateLimiter(rate), 1000)
    assert most_in_a_second(times) <= rate
    assert 999 / (times[-1] - times[0]) >= 0.999 * rate


async def test_requests_are_spaced_evenly() -> None:
    """Apart from one that may be caught up, nobody starts sooner than a slot after another."""
    times = await grants(LocalRateLimiter(20), 200)
    assert all(later - time >= 0.05 - 1e-6 for time, later in zip(times, times[2:], strict=False))


async def test_a_rate_below_one_waits_for_whole_requests() -> None:
    """At one request in two seconds, the next one starts two seconds later."""
    times = await grants(LocalRateLimiter(0.5), 5)
    assert [time - times[0] for time in times] == pytest.approx([0, 2, 4, 6, 8], rel=0.01)


async def test_no_limit_lets_everybody_pass() -> None:
    """An infinite rate takes no time, but still holds when told to."""
    limiter = LocalRateLimiter(math.inf)
    assert (await grants(limiter, 100))[-1] < 0.001
    limiter.hold(3)
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(1)
    limiter.hold(4)
    assert await waiting == pytest.approx(5)


@pytest.mark.parametrize("rate", [0, -1, math.nan, "20", None])
def test_a_rate_must_be_above_zero(rate: Any) -> None:
    """A rate at which nothing could ever be sent is refused."""
    with pytest.raises(ConfigurationError, match="rate"):
        LocalRateLimiter(rate)


async def test_grants_come_in_the_order_of_arrival() -> None:
    """Strictly first come, first served, also for those who come while others wait."""
    limiter = LocalRateLimiter(20)
    order: list[int] = []

    async def come(number: int) -> None:
        await asyncio.sleep(number * 0.001)
        await limiter.acquire()
        order.append(number)

    await asyncio.gather(*(come(number) for number in range(500)))
    assert order == list(range(500))


async def test_a_newcomer_does_not_overtake_after_a_pause() -> None:
    """Who comes at the very moment a slot gets free still stands behind those who waited."""
    limiter = LocalRateLimiter(20)
    loop = asyncio.get_running_loop()
    order: list[str] = []

    async def come(name: str) -> None:
        await limiter.acquire()
        order.append(name)

    waiting = [asyncio.create_task(come(f"waiting {number}")) for number in range(5)]
    await asyncio.sleep(0)
    loop.now += 0.06  # type: ignore[attr-defined]  # the loop was busy for a slot
    newcomer = asyncio.create_task(come("newcomer"))
    await asyncio.gather(*waiting, newcomer)
    assert order[-1] == "newcomer"


async def test_cancelled_waiters_cost_nothing() -> None:
    """With half of 2,000 waiters cancelled, the others get every slot."""
    limiter = LocalRateLimiter(20)
    time = asyncio.get_running_loop().time
    times: list[float] = []

    async def come() -> None:
        await limiter.acquire()
        times.append(time())

    tasks = [asyncio.create_task(come()) for _ in range(2000)]
    await asyncio.sleep(1)
    chosen = random.Random(1).sample(tasks, 1000)
    for task in chosen:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most_in_a_second(times) <= 20
    assert (len(times) - 1) / (times[-1] - times[0]) >= 0.999 * 20


async def test_whoever_is_cancelled_at_the_bucket_leaves_it_to_the_next() -> None:
    """Cancelled in the very step in which its turn came, a waiter passes the turn on."""
    limiter = LocalRateLimiter(20)
    await grants(limiter, 20)
    first, second, third = (asyncio.create_task(limiter.acquire()) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()  # hands its turn to the second ...
    await asyncio.sleep(0)
    second.cancel()  # ... which is cancelled before it could go on
    assert await third < 1.1
    assert first.cancelled()
    assert second.cancelled()


async def test_a_stall_is_caught_up_within_the_bound() -> None:
    """A loop that stalls 20 ms now and then keeps 98 % of the rate and the bound."""
    limiter = LocalRateLimiter(20)
    loop: Any = asyncio.get_running_loop()
    rng = random.Random(2)

    async def stall() -> None:
        while True:
            await asyncio.sleep(rng.random() * 0.3)
            loop.now += 0.02

    stalls = asyncio.create_task(stall())
    times = await grants(limiter, 1000)
    stalls.cancel()
    assert most_in_a_second(times) <= 20
    assert 999 / (times[-1] - times[0]) >= 0.98 * 20


async def test_hold_keeps_everybody_back() -> None:
    """Nobody passes during a hold, a shorter one does not shorten it, and then the pace is kept."""
    limiter = LocalRateLimiter(20)
    waiting = asyncio.create_task(grants(limiter, 100))
    await asyncio.sleep(0.5)
    limiter.hold(5)
    limiter.hold(1)
    times = await waiting
    assert not [time for time in times if 0.51 < time < 5.5]
    assert most_in_a_second(times) <= 20
    assert times[-1] - 5.5 == pytest.approx(4.45, abs=0.1)


async def test_a_hold_reaches_who_stands_at_the_bucket() -> None:
    """A hold that begins while the first of the queue waits for the bucket holds it too."""
    limiter = LocalRateLimiter(20)
    await limiter.acquire()
    await limiter.acquire()
    third = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.01)
    limiter.hold(2)
    assert await third == pytest.approx(2.01, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 1)), min_size=1, max_size=60))
def test_any_schedule_keeps_the_bound(arrivals: list[tuple[float, float]]) -> None:
    """Whatever comes, waits and is cancelled when, no second sees more than the rate."""

    async def run() -> list[float]:
        limiter = LocalRateLimiter(5)
        time = asyncio.get_running_loop().time
        times: list[float] = []

        async def come(patience: float) -> None:
            async with asyncio.timeout(patience * 10):
                await limiter.acquire()
                times.append(time())

        tasks: list[asyncio.Task[None]] = []
        for pause, patience in arrivals:
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(come(patience)))
        await asyncio.gather(*tasks, return_exceptions=True)
        return times

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert most_in_a_second(runner.run(run())) <= 5


def test_a_second_event_loop_is_told_so() -> None:
    """A limiter that is used on another loop says what to do, instead of hanging."""
    limiter = LocalRateLimiter(20)
    asyncio.run(limiter.acquire())
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(limiter.acquire())


def test_the_protocol_is_what_the_local_limiter_has() -> None:
    """Anything with acquire and hold can stand in for it."""
    assert isinstance(LocalRateLimiter(), RateLimiter)
