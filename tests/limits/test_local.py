"""The limiter: never more than the rate in any second, nearly all of it, in order of arrival."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError, LocalRateLimiter, RateLimiter
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.testing import VirtualTimeLoop


def most_in_a_second(times: list[float], second: float = 1.0) -> int:
    """Return the most grants in any window [t, t + second)."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= second:
            first += 1
        most = max(most, last - first + 1)
    return most


async def grants(limiter: LocalRateLimiter, number: int) -> list[float]:
    """Return the times of so many acquisitions that all begin at once."""
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
    """But for one that may be caught up, nobody starts sooner than a slot after another."""
    times = await grants(LocalRateLimiter(20), 200)
    assert all(later - time >= 0.05 - 1e-6 for time, later in zip(times, times[2:], strict=False))


async def test_an_uneven_second_is_not_repeated() -> None:
    """After the caution of the beginning, all slots of an idle loop have the same length."""
    limiter = LocalRateLimiter(20)
    await grants(limiter, 300)
    times = await grants(limiter, 200)
    gaps = [later - time for time, later in pairwise(times)]
    assert (min(gaps), max(gaps)) == pytest.approx((0.05, 0.05), rel=0.001)


async def test_a_rate_below_one_waits_for_whole_requests() -> None:
    """At one request in two seconds, the next one starts two seconds later."""
    times = await grants(LocalRateLimiter(0.5), 5)
    assert [time - times[0] for time in times] == pytest.approx([0, 2, 4, 6, 8], rel=0.01)


async def test_no_limit_lets_everybody_pass() -> None:
    """An infinite rate takes no time, but still obeys a hold."""
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
    """Grants are strictly first come, first served, also for those who come while others wait."""
    limiter = LocalRateLimiter(20)
    order: list[int] = []

    async def come(number: int) -> None:
        await asyncio.sleep(number * 0.001)
        await limiter.acquire()
        order.append(number)

    await asyncio.gather(*(come(number) for number in range(500)))
    assert order == list(range(500))


async def test_a_newcomer_does_not_overtake_after_a_pause() -> None:
    """A caller who comes at the very moment a slot opens still queues behind those who waited."""
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


async def test_a_waiter_cancelled_when_woken_wakes_the_next() -> None:
    """A waiter cancelled in the very step in which it is woken wakes the next."""
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


async def test_a_hold_pauses_everybody() -> None:
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


async def test_a_hold_reaches_the_first_in_the_queue() -> None:
    """A hold that begins while the first in the queue waits for the bucket holds it too."""
    limiter = LocalRateLimiter(20)
    await limiter.acquire()
    await limiter.acquire()
    third = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.01)
    limiter.hold(2)
    assert await third == pytest.approx(2.01, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 1)), min_size=1, max_size=60))
def test_any_schedule_keeps_the_bound(arrivals: list[tuple[float, float]]) -> None:
    """Whoever comes, waits and is cancelled when: no second sees more than the rate."""

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


def test_a_second_event_loop_is_refused() -> None:
    """A limiter that is used on another loop says what to do, instead of hanging."""
    limiter = LocalRateLimiter(20)
    asyncio.run(limiter.acquire())
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(limiter.acquire())


def test_the_protocol_is_what_the_local_limiter_has() -> None:
    """Any object with acquire and hold can stand in for it."""
    assert isinstance(LocalRateLimiter(), RateLimiter)


# Work that can wait


class Turnstile:
    """A foreign limiter that knows who waits in it; not hashable, and with no room for more."""

    __slots__ = ("error", "held", "inside", "most", "passed")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.passed = 0
        self.held: list[float] = []
        self.error: Exception | None = None

    async def acquire(self) -> float:
        """Wait for a slot of 50 ms."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(0.05)
            if self.error is not None:
                raise self.error
            self.passed += 1
        finally:
            self.inside -= 1
        return 0.05

    def hold(self, seconds: float) -> None:
        """Note the hold."""
        self.held.append(seconds)


async def test_one_background_caller_at_a_time_enters_the_queue() -> None:
    """Of 1,000 background callers, by three ways to one limiter, each enters the queue once."""
    turnstile = Turnstile()
    background = BackgroundRateLimiter(turnstile)
    siblings = [background, background.sibling(), BackgroundRateLimiter(turnstile)]
    began = asyncio.get_running_loop().time()
    waits = await asyncio.gather(*(siblings[n % 3].acquire() for n in range(1000)))
    assert (turnstile.most, turnstile.passed, turnstile.inside) == (1, 1000, 0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(50)
    assert waits == pytest.approx([0.05 * (n + 1) for n in range(1000)])


async def test_siblings_count_their_own_requests() -> None:
    """Each sibling counts the requests it let pass itself, also where a sibling has a sibling."""
    first = BackgroundRateLimiter(LocalRateLimiter(math.inf))
    second = first.sibling()
    third = second.sibling()
    for limiter, number in ((first, 5), (second, 3), (third, 1)):
        assert limiter.requests == 0
        await asyncio.gather(*(limiter.acquire() for _ in range(number)))
    assert (first.requests, second.requests, third.requests) == (5, 3, 1)


async def test_background_callers_pass_in_order() -> None:
    """Background callers are served in order of arrival, whichever sibling they use."""
    first = BackgroundRateLimiter(LocalRateLimiter(20))
    siblings = [first, first.sibling()]
    order: list[int] = []

    async def come(number: int) -> None:
        await asyncio.sleep(number * 0.001)
        await siblings[number % 2].acquire()
        order.append(number)

    await asyncio.gather(*(come(number) for number in range(200)))
    assert order == list(range(200))


@pytest.mark.parametrize("rate", [1.0, 20.0])
async def test_a_direct_caller_waits_for_two_slots_at_the_most(rate: float) -> None:
    """A direct caller waits for two slots at most, however many wait in the background."""
    limiter = LocalRateLimiter(rate)
    background = BackgroundRateLimiter(limiter)
    waiting = [asyncio.create_task(background.acquire()) for _ in range(2000)]
    rng = random.Random(5)
    waits: list[float] = []
    for _ in range(100):
        await asyncio.sleep(rng.uniform(2, 5) / rate)
        waits.append(await limiter.acquire())
    assert max(waits) <= 2.001 / rate * (1 + LocalRateLimiter.MARGIN)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("number", [1, 5, 20])
async def test_many_background_limiters_have_one_gate(number: int) -> None:
    """A direct caller waits for two slots at most behind many of them, who take turns."""
    limiter = LocalRateLimiter(20)
    backgrounds = [BackgroundRateLimiter(limiter) for _ in range(number)]

    async def poll(background: BackgroundRateLimiter) -> None:
        while True:
            await background.acquire()

    polling = [asyncio.create_task(poll(background)) for background in backgrounds]
    rng = random.Random(5)
    waits: list[float] = []
    for _ in range(100):
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        waits.append(await limiter.acquire())
    assert max(waits) <= 2 * 0.05 * (1 + LocalRateLimiter.MARGIN) + 1e-6
    requests = [background.requests for background in backgrounds]
    assert max(requests) - min(requests) <= 2
    for task in polling:
        task.cancel()
    await asyncio.gather(*polling, return_exceptions=True)


def test_a_limiter_on_two_loops_has_two_gates() -> None:
    """A foreign limiter that serves several threads has a gate on the loop of each."""
    turnstile = Turnstile()

    async def crowd() -> int:
        backgrounds = [BackgroundRateLimiter(turnstile) for _ in range(2)]
        await asyncio.gather(*(backgrounds[n % 2].acquire() for n in range(20)))
        return sum(background.requests for background in backgrounds)

    def serve() -> int:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(crowd())

    with ThreadPoolExecutor(2) as threads:
        assert [done.result() for done in [threads.submit(serve) for _ in range(2)]] == [20, 20]


async def test_a_gate_is_gone_when_nobody_is_at_it() -> None:
    """Nothing is kept of a limiter that is no longer used."""
    limiter = LocalRateLimiter(math.inf)
    background = BackgroundRateLimiter(limiter)
    await asyncio.gather(*(background.acquire() for _ in range(3)))
    alive = weakref.ref(limiter)
    del limiter, background
    gc.collect()
    assert alive() is None


async def test_a_crowd_of_direct_callers_waits_behind_one_of_the_background() -> None:
    """Of a hundred direct callers at once, nobody waits behind more than one background caller."""
    limiter = LocalRateLimiter(20)
    background = BackgroundRateLimiter(limiter)
    waiting = [asyncio.create_task(background.acquire()) for _ in range(500)]
    await asyncio.sleep(1.01)
    before = background.requests
    times = await grants(limiter, 100)
    assert times[-1] - 1.01 <= 101 * 0.05 * (1 + LocalRateLimiter.MARGIN)
    assert background.requests - before == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_background_and_direct_callers_share_the_rate() -> None:
    """Together they keep the bound, and nothing is lost at the gate."""
    limiter = LocalRateLimiter(20)
    background = BackgroundRateLimiter(limiter)
    time = asyncio.get_running_loop().time
    times: list[float] = []

    async def come(to: RateLimiter, after: float) -> None:
        await asyncio.sleep(after)
        await to.acquire()
        times.append(time())

    rng = random.Random(6)
    direct = [come(limiter, rng.uniform(0, 45)) for _ in range(300)]
    await asyncio.gather(*(come(background, 0) for _ in range(700)), *direct)
    assert most_in_a_second(times) <= 20
    assert 999 / (times[-1] - times[0]) >= 0.999 * 20
    assert background.requests == 700


async def test_a_hold_passes_through() -> None:
    """A hold in the background holds everybody, in front of the gate too."""
    limiter = LocalRateLimiter(20)
    background = BackgroundRateLimiter(limiter)
    background.sibling().hold(5)
    waits = await asyncio.gather(limiter.acquire(), background.acquire(), background.acquire())
    assert min(waits) >= 5
    assert max(waits) <= 5.15
    turnstile = Turnstile()
    BackgroundRateLimiter(turnstile).hold(2.5)
    assert turnstile.held == [2.5]


async def test_cancelled_background_callers_cost_nothing() -> None:
    """With half of 500 cancelled at any moment, the others get every slot."""
    limiter = LocalRateLimiter(20)
    background = BackgroundRateLimiter(limiter)
    time = asyncio.get_running_loop().time
    times: list[float] = []

    async def come(to: BackgroundRateLimiter) -> None:
        await to.acquire()
        times.append(time())

    rng = random.Random(7)
    siblings = [background, background.sibling()]
    tasks = [asyncio.create_task(come(siblings[n % 2])) for n in range(500)]
    for task in rng.sample(tasks, 250):
        asyncio.get_running_loop().call_later(rng.uniform(0, 12), task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(times) >= 250
    assert most_in_a_second(times) <= 20
    assert times[-1] - times[0] <= len(times) * 0.05
    assert siblings[0].requests + siblings[1].requests == len(times)
    assert await background.acquire() <= 0.051


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_whenever_background_callers_are_cancelled(visits: list[tuple[float, float]]) -> None:
    """The gate lets one pass at a time, and is open when all have gone."""

    async def run() -> None:
        turnstile = Turnstile()
        background = BackgroundRateLimiter(turnstile)

        async def come(patience: float, *, turn: bool) -> None:
            async with asyncio.timeout(patience):
                await (background.wait_for_gate() if turn else background.acquire())

        tasks: list[asyncio.Task[None]] = []
        for number, (pause, patience) in enumerate(visits):
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(come(patience, turn=number % 4 == 3)))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert turnstile.most <= 1
        assert turnstile.passed == background.requests
        await asyncio.wait_for(background.wait_for_gate(), 0.001)
        assert await background.acquire() == pytest.approx(0.05)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_the_gate_is_free_when_none_of_ours_is_in_the_queue() -> None:
    """The gate is free when none of ours is in the queue, whoever comes, goes or is cancelled."""
    turnstile = Turnstile()
    background = BackgroundRateLimiter(turnstile)
    sibling = background.sibling()
    rng = random.Random(8)
    turns = 0

    async def come() -> None:
        await asyncio.sleep(rng.uniform(0, 10))
        async with asyncio.timeout(rng.uniform(0, 3)):
            await background.acquire()

    async def look() -> None:
        nonlocal turns
        await asyncio.sleep(rng.uniform(0, 10))
        await sibling.wait_for_gate()
        assert turnstile.inside == 0
        turns += 1

    comers = [come() for _ in range(300)]
    results = await asyncio.gather(*comers, *(look() for _ in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {type(None), TimeoutError}
    assert (turns, turnstile.most) == (100, 1)
    assert (background.requests, sibling.requests) == (turnstile.passed, 0)


async def test_waiting_for_the_gate_takes_no_slot() -> None:
    """Waiting for the gate takes no slot: it ends at once, or with the slot of who is there."""
    background = BackgroundRateLimiter(LocalRateLimiter(20))
    time = asyncio.get_running_loop().time
    for _ in range(100):
        await background.wait_for_gate()
    assert time() < 0.001
    await background.acquire()
    waiting = asyncio.create_task(background.acquire())
    await asyncio.sleep(0)
    await background.wait_for_gate()
    assert time() == pytest.approx(0.05, abs=0.001)
    assert await waiting == pytest.approx(0.05, abs=0.001)
    assert background.requests == 2


async def test_an_error_of_the_underlying_limiter_opens_the_gate() -> None:
    """It arrives as it is and counts for nothing, and the next caller gets through."""
    turnstile = Turnstile()
    background = BackgroundRateLimiter(turnstile)
    turnstile.error = ConfigurationError("the quota's server is gone")
    results = await asyncio.gather(
        *(background.acquire() for _ in range(3)), return_exceptions=True
    )
    assert results == [turnstile.error] * 3
    turnstile.error = None
    assert await background.acquire() == pytest.approx(0.05)
    assert background.requests == 1


def test_a_background_limiter_on_a_second_event_loop() -> None:
    """The underlying limiter says what is wrong, to all who come at once."""
    background = BackgroundRateLimiter(LocalRateLimiter(1000))

    async def crowd() -> list[float | BaseException]:
        callers = (background.acquire() for _ in range(5))
        return await asyncio.gather(*callers, return_exceptions=True)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert len(runner.run(crowd())) == background.requests == 5
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        results = runner.run(crowd())
    assert {type(result) for result in results} == {ConfigurationError}
    assert background.requests == 5


def test_background_limiters_have_the_protocol_too() -> None:
    """One can stand in front of another, and anything with acquire and hold can be underneath."""
    limiters: list[RateLimiter] = [Turnstile(), BackgroundRateLimiter(Turnstile())]
    limiters.append(BackgroundRateLimiter(limiters[1]))
    assert all(isinstance(limiter, RateLimiter) for limiter in limiters)
