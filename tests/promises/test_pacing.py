"""R1, R2 and R6: the quota is kept and used, in order, and Retry-After is obeyed.

On virtual time, through the whole client, measured where the requests arrive. For the wall clock
and a socket see ``benchmarks/limiter.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
from clocks import now, run_virtual
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proofs import times

from ci_live_audit import (
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    RateLimiter,
    RetryPolicy,
    ServiceUnavailable,
    Throttled,
)
from ci_live_audit.testing import Emulator, Fault

#: Virtual seconds that the steps of one instant may take.
INSTANT = 1e-6


def most(moments: Sequence[float], window: float) -> int:
    """Return the highest number of moments in any window of so many seconds."""
    first = found = 0
    for last, moment in enumerate(moments):
        while first < last and moment - moments[first] >= window - INSTANT:
            first += 1
        found = max(found, last - first + 1)
    return found


def sustained(moments: Sequence[float]) -> float:
    """Return the moments per second, from the first to the last."""
    return (len(moments) - 1) / (moments[-1] - moments[0])


def assert_paced(moments: Sequence[float], rate: float) -> None:
    """Assert at most the rate in any second; if it is fractional, whole requests in their time."""
    quota = max(1, math.floor(rate))
    assert most(moments, quota / rate) <= quota
    assert most(moments, 1.0) <= math.ceil(rate)


def arrivals(emulator: Emulator) -> list[float]:
    return [arrival.time for arrival in emulator.arrivals]


# R1: at most the rate in any second, and nearly all of it


@pytest.mark.parametrize(
    ("rate", "number"),
    [(0.5, 1000), (1.0, 1000), (7.3, 2000), (20.0, 10_000), (100.0, 2000)],
)
async def test_r01_the_rate_is_kept_and_used(rate: float, number: int) -> None:
    """Queries made at once arrive within the rate, at 99.9 % of it, and none is throttled."""
    emulator = Emulator(rate=rate)
    job_id = emulator.add_job(duration=math.inf)
    async with emulator.client() as client:
        await asyncio.gather(*(client.query(job_id) for _ in range(max(times(number), 1000))))
    assert {arrival.status for arrival in emulator.arrivals} == {200}
    assert_paced(arrivals(emulator), rate)
    assert sustained(arrivals(emulator)) >= 0.999 * rate


async def test_r01_retries_polling_and_direct_calls_share_the_rate() -> None:
    """10,000 requests of all kinds, a tenth failing, stay within the rate and use 99.9 % of it."""
    number = times(10_000)
    emulator = Emulator(seed=1)
    polled = [emulator.add_job(duration=math.inf) for _ in range(600)]
    called = emulator.add_job(duration=math.inf)
    emulator.inject(Fault.error(500), share=0.05)
    emulator.inject(Fault.reset(), share=0.05)
    rng = random.Random(1)
    async with emulator.client() as client:

        async def call() -> None:
            while len(emulator.arrivals) < number:
                await asyncio.sleep(rng.expovariate(0.5))
                with contextlib.suppress(LiveAuditError):
                    await rng.choice([client.query, client.cancel])(called)

        async with client.as_completed(polled), client.watch(polled[:50]):
            await asyncio.gather(*(call() for _ in range(10)))
    assert not {arrival.status for arrival in emulator.arrivals} & {429}
    assert {arrival.method for arrival in emulator.arrivals} == {"GET", "POST"}
    assert_paced(arrivals(emulator), 20)
    assert sustained(arrivals(emulator)) >= 0.999 * 20


RATE = 5.0
SLOT = 1 / RATE
#: What may happen, with a number or seconds.
EVENTS = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 8)),
    st.tuples(st.just("idle"), st.floats(0, 2)),
    st.tuples(st.just("slots"), st.integers(0, 6)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("hold"), st.floats(0, 3)),
    st.tuples(st.just("steps"), st.integers(0, 12)),
    st.tuples(st.just("stall"), st.floats(0, 0.5)),
    st.tuples(st.just("stall soon"), st.floats(0, 0.5)),
)


class Schedule:
    """A client, a limiter, and what happens to them."""

    def __init__(self, events: list[tuple[str, float]]) -> None:
        self.events = events
        self.stalled = sum(value for kind, value in events if "stall" in kind)
        self.emulator = Emulator(rate=math.inf if self.stalled else RATE)
        self.limiter = LocalRateLimiter(RATE)
        self.granted: list[float] = []
        self._calls: list[asyncio.Task[Any]] = []
        acquire = self.limiter.acquire

        async def recorded() -> float:
            queued = await acquire()
            self.granted.append(now())
            return queued

        self.limiter.acquire = recorded  # type: ignore[method-assign]

    async def run(self) -> None:
        job_id = self.emulator.add_job(duration=math.inf)
        async with self.emulator.client(limiter=self.limiter) as client:
            for kind, value in self.events:
                await self._happen(kind, value, client, job_id)
            await asyncio.sleep(SLOT)  # slots lost in a stall need not be caught up
            self._come(20, client, job_id)
            await asyncio.gather(*self._calls, return_exceptions=True)

    def _come(self, number: int, client: LiveAuditClient, job_id: str) -> None:
        self._calls += [asyncio.create_task(client.query(job_id)) for _ in range(number)]

    async def _happen(self, kind: str, value: float, client: LiveAuditClient, job_id: str) -> None:
        loop: Any = asyncio.get_running_loop()
        match kind:
            case "come":
                self._come(int(value), client, job_id)
            case "idle":
                await asyncio.sleep(value)
            case "slots":  # so that arrivals coincide with departures
                await asyncio.sleep(value * SLOT)
            case "cancel" if self._calls:
                self._calls[int(value) % len(self._calls)].cancel()
            case "hold":
                self.limiter.hold(value)
            case "steps":
                for _ in range(int(value)):
                    await asyncio.sleep(0)
            case "stall":
                loop.now += value
            case "stall soon":
                loop.call_later(SLOT * value, lambda: setattr(loop, "now", loop.now + value))


@settings(max_examples=times(1000))
@given(st.lists(EVENTS, max_size=30))
def test_r01_any_schedule_is_paced(events: list[tuple[str, float]]) -> None:
    """After arrivals, pauses, cancellations, holds and stalls, no second exceeds the rate."""
    schedule = Schedule(events)
    run_virtual(schedule.run)
    moments = arrivals(schedule.emulator)
    assert {arrival.status for arrival in schedule.emulator.arrivals} == {200}
    assert sustained(moments[-20:]) >= 0.97 * RATE  # a single lost slot would make it 0.95
    assert most(schedule.granted, 1) <= RATE
    # A stall between the grant and the departure delays that one request.
    assert most(moments, 1 - schedule.stalled) <= RATE


# R2: first come, first served; cancelled callers cost nothing


@pytest.mark.parametrize("seed", range(times(20)))
async def test_r02_first_come_first_served(seed: int) -> None:
    """2,000 waiters, in crowds and alone, a tenth of them cancelled, are served in order."""
    rng = random.Random(seed)
    limiter = LocalRateLimiter(20)
    came: list[int] = []
    served: list[int] = []

    async def come(number: int) -> None:
        came.append(number)
        await limiter.acquire()
        served.append(number)

    tasks: list[asyncio.Task[None]] = []
    for number in range(2000):
        tasks.append(asyncio.create_task(come(number)))
        await asyncio.sleep(rng.choice([0, 0, 0, 0.05, rng.random() / 10]))
        if number % 10 == 9:
            rng.choice(tasks[-50:]).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert came == list(range(2000))
    assert len(served) >= 1800
    assert sum(later < earlier for earlier, later in pairwise(served)) == 0


async def test_r02_calls_arrive_in_the_order_of_their_making() -> None:
    """2,000 queries of as many jobs arrive in the order in which they were made."""
    emulator = Emulator()
    ids = [emulator.add_job(duration=math.inf) for _ in range(times(2000))]
    async with emulator.client() as client:
        await asyncio.gather(*(client.query(job_id) for job_id in ids))
    assert [arrival.path.rpartition("/")[2] for arrival in emulator.arrivals] == ids


@pytest.mark.parametrize("seed", range(times(20)))
async def test_r02_cancelled_calls_cost_nothing(seed: int) -> None:
    """With half of the waiting calls cancelled at random, the others get 99.9 % of the rate."""
    rng = random.Random(seed)
    number = 2000
    emulator = Emulator()
    job_id = emulator.add_job(duration=math.inf)
    async with emulator.client() as client:
        calls = [asyncio.create_task(client.query(job_id)) for _ in range(number)]
        await asyncio.sleep(1)
        for call in rng.sample(calls[30:], number // 2):  # at once or later
            asyncio.get_running_loop().call_later(rng.choice([0, rng.uniform(0, 60)]), call.cancel)
        await asyncio.gather(*calls, return_exceptions=True)
    assert sum(call.cancelled() for call in calls) >= number // 4
    assert len(emulator.arrivals) == sum(not call.cancelled() for call in calls)
    assert {arrival.status for arrival in emulator.arrivals} == {200}
    assert sustained(arrivals(emulator)) >= 0.999 * 20


# R2: an urgent call waits behind one poll, however many clients share the limiter


class Foreign:
    """A limiter by somebody else: not hashable, no weak references, only the two methods."""

    __slots__ = ("held", "limiter")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.limiter = LocalRateLimiter(20)
        self.held: list[float] = []

    async def acquire(self) -> float:
        """Wait for a slot."""
        return await self.limiter.acquire()

    def hold(self, seconds: float) -> None:
        """Note the hold."""
        self.held.append(seconds)


@pytest.mark.parametrize("make", [LocalRateLimiter, Foreign])
@pytest.mark.parametrize("clients", [1, 5, 20])
async def test_r02_an_urgent_call_waits_behind_one_poll_of_all_clients(
    clients: int, make: Callable[[], RateLimiter]
) -> None:
    """It waits for two slots at most, also behind siblings and several runs of each client."""
    emulator = Emulator(rate=1e6)
    ids = [emulator.add_job(duration=math.inf) for _ in range(100)]
    limiter = make()
    rng = random.Random(clients)
    waits: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(clients):
            client = await stack.enter_async_context(emulator.client(limiter=limiter))
            await stack.enter_async_context(client.as_completed(ids[:50]))
            sibling = client.with_options(timeout=60)
            await stack.enter_async_context(sibling.as_completed(ids[50:]))
        await asyncio.sleep(2)
        for _ in range(max(times(200), 50)):
            await asyncio.sleep(rng.uniform(0, 1))
            waits.append(await limiter.acquire())
    assert max(waits) <= 2 * 0.05 * (1 + LocalRateLimiter.MARGIN) + INSTANT


# R6: Retry-After is obeyed or refused


class Refusing:
    """An emulator behind a server that refuses the first request with these headers."""

    EPOCH = 1_700_000_000.0

    def __init__(self, *retry_after: str, status: int = 429, date: str | None = None) -> None:
        self.emulator = Emulator(rate=1e6, now=lambda: self.EPOCH + now())
        self.job_id = self.emulator.add_job(duration=math.inf)
        self.left = 1
        self.moments: list[float] = []
        self.status = status
        dated = [] if date is None else [("date", date)]
        self.headers = [("retry-after", value) for value in retry_after] + dated

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.moments.append(now())
        self.left -= 1
        if self.left < 0:
            await self.emulator(scope, receive, send)
            return
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})

    def client(self, **options: Any) -> LiveAuditClient:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(self))
        return self.emulator.client(http_client=http, **options)


#: The ``Date`` of a response.
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
#: Seconds for which everybody pauses after a throttled request, if the others are idle; and for no
#: longer after a single one.
HOLD, LONGEST_HOLD = 1.0, 10.0
NOTHING = 0.0
REFUSED = math.inf
#: Values of the header, and the seconds for which they ask.
RETRY_AFTER: list[tuple[tuple[str, ...], float]] = [
    # seconds
    (("0",), NOTHING),
    (("1",), 1),
    (("2",), 2),
    (("7",), 7),
    (("059",), 59),
    (("60",), 60),
    (("0.25",), 0.25),
    (("1.5",), 1.5),
    (("59.999",), 59.999),
    (("+5",), 5),
    (("5.",), 5),
    (("3e1",), 30),
    ((" 9 ",), 9),
    # more than is waited for
    (("60.001",), REFUSED),
    (("61",), REFUSED),
    (("3600",), REFUSED),
    (("1e9",), REFUSED),
    (("9" * 40,), REFUSED),
    (("inf",), REFUSED),
    (("Infinity",), REFUSED),
    # dates
    (("Tue, 14 Nov 2023 22:13:27 GMT",), 7),
    (("Tue, 14 Nov 2023 22:14:20 GMT",), 60),
    (("Tue, 14 Nov 2023 22:14:21 GMT",), REFUSED),
    (("Wed, 14 Nov 2029 22:13:20 GMT",), REFUSED),
    (("Tuesday, 14-Nov-23 22:13:29 GMT",), 9),
    (("Wed, 15 Nov 2023 06:13:31 +0800",), 11),
    ((DATE,), NOTHING),
    (("Tue, 14 Nov 2023 22:13:19 GMT",), NOTHING),
    (("Thu, 01 Jan 1970 00:00:00 GMT",), NOTHING),
    (("Tue, 14 Nov 2023 25:61:61 GMT",), NOTHING),
    # nonsense
    ((), NOTHING),
    (("",), NOTHING),
    (("   ",), NOTHING),
    (("-1",), NOTHING),
    (("-inf",), NOTHING),
    (("nan",), NOTHING),
    (("soon",), NOTHING),
    (("7 s",), NOTHING),
    (("0x10",), NOTHING),
    (("\xb2",), NOTHING),
    (("\xe4\xb8\x83",), NOTHING),
    # several: a list says nothing; of repeated headers the last counts
    (("5, 30",), NOTHING),
    (("5", "30"), 30),
    (("30", "5"), 5),
]


@pytest.mark.parametrize(("values", "seconds"), RETRY_AFTER, ids=repr)
async def test_r06_retry_after_is_obeyed_or_refused(
    values: tuple[str, ...], seconds: float
) -> None:
    """Nobody on the limiter sends for that long, or for 10 s; the call waits in full or fails."""
    service = Refusing(*values, date=DATE)
    limiter = LocalRateLimiter(20)
    async with service.client(limiter=limiter) as one, service.client(limiter=limiter) as other:
        first = asyncio.create_task(one.query(service.job_id))
        ended: list[float] = []
        first.add_done_callback(lambda _: ended.append(now()))
        await asyncio.sleep(0.01)
        assert len(service.moments) == 1
        async with other.as_completed([service.job_id]):
            await asyncio.gather(*(client.query(service.job_id) for client in (one, other)))
        await asyncio.wait([first])
    held = min(max(seconds, HOLD), LONGEST_HOLD)
    assert service.moments[1] - service.moments[0] == pytest.approx(held, abs=0.01)
    assert ended[0] >= seconds or seconds == REFUSED
    if seconds == REFUSED:
        assert ended[0] < 0.01
        error = first.exception()
        assert isinstance(error, Throttled)
        assert error.attempts == 1
        assert error.retry_after is not None
        assert error.retry_after > 60


@pytest.mark.parametrize(("values", "seconds"), RETRY_AFTER, ids=repr)
async def test_r06_retry_after_of_a_503_is_obeyed_or_refused(
    values: tuple[str, ...], seconds: float
) -> None:
    """A call waits for as long as an unavailable service asks, or fails at once."""
    service = Refusing(*values, status=503, date=DATE)
    async with service.client() as client:
        if seconds == REFUSED:
            with pytest.raises(ServiceUnavailable):
                await client.query(service.job_id)
            assert now() < INSTANT
            return
        await client.query(service.job_id)
    longest = max(seconds, RetryPolicy().base_delay)
    assert seconds <= service.moments[1] - service.moments[0] <= longest + 0.1


@pytest.mark.parametrize("value", ["7", DATE, "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize("date", [None, "", "yesterday"])
async def test_r06_a_date_needs_a_date(value: str, date: str | None) -> None:
    """A date is ignored in a response without a ``Date`` of its own; seconds need none."""
    service = Refusing(value, date=date)
    async with service.client() as client:
        await client.query(service.job_id)
    expected = 7 if value == "7" else HOLD
    assert service.moments[1] - service.moments[0] == pytest.approx(expected, abs=0.01)


@settings(max_examples=times(1000))
@given(st.floats(0, 200), st.sampled_from([429, 503]), st.floats(1, 200))
@example(60.0, 429, 60.0)
def test_r06_any_seconds(asked: float, status: int, limit: float) -> None:
    """Any number of seconds is waited for, or refused if the policy allows less."""

    async def run() -> None:
        service = Refusing(repr(asked), status=status)
        policy = RetryPolicy(max_retry_after=limit, deadline=1000)
        async with service.client(retry=policy) as client:
            if asked > limit:
                with pytest.raises((Throttled, ServiceUnavailable)):
                    await client.query(service.job_id)
                assert len(service.moments) == 1
                assert now() < INSTANT
            else:
                await client.query(service.job_id)
                assert service.moments[1] - service.moments[0] >= asked

    run_virtual(run)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", ["30", "600"])
async def test_r06_a_run_obeys_retry_after(status: int, asked: str) -> None:
    """A run does not poll a job again before the time for which the service asks."""
    service = Refusing(asked, status=status)
    async with service.client(retry=RetryPolicy(attempts=1)) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1000), client.as_completed([service.job_id]) as outcomes:
                await anext(outcomes)
    assert service.moments[1] - service.moments[0] >= float(asked)
