"""R7: retries do not make an outage worse, throttling pauses every caller, and the rate recovers.

On virtual time, through the whole client; only stale connections need sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clocks import now, run_virtual
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times
from servers import Recorder, client_for, serving

from ci_live_audit import (
    Attempt,
    Credentials,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    RetryPolicy,
)
from ci_live_audit.testing import Emulator, Fault

#: Calls into an outage.
CALLS = max(times(1000), 300)
#: The retry budget holds 500 tokens; a retry costs 14, or 5 after throttling or once the cause of
#: the error is fixed. So this is how many retries an outage sees, however many calls there are.
RETRIES, CHEAP_RETRIES = 35, 100
EPOCH = 1_700_000_000.0


class Count:
    """Counts calls, attempts and immediate retries, as an ``on_attempt`` hook."""

    def __init__(self) -> None:
        self.calls = 0
        self.attempts = 0
        self.at_once = 0

    def __call__(self, attempt: Attempt) -> None:
        self.calls += attempt.number == 1
        self.attempts += 1
        self.at_once += attempt.delay == 0


class Unreachable(httpx.AsyncBaseTransport):
    """A network on which every connection is refused."""

    def __init__(self) -> None:
        self.refused = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.refused += 1
        raise httpx.ConnectError("connection refused")


# Callers: one query after the other, fifty at a time, a run over many jobs

MakeCalls = Callable[[LiveAuditClient, Count, str], Any]


async def one_by_one(client: LiveAuditClient, count: Count, job_id: str) -> None:
    while count.calls < CALLS:
        with contextlib.suppress(LiveAuditError):
            await client.query(job_id)


async def fifty_at_a_time(client: LiveAuditClient, count: Count, job_id: str) -> None:
    await asyncio.gather(*(one_by_one(client, count, job_id) for _ in range(50)))


async def a_run(client: LiveAuditClient, count: Count, job_id: str) -> None:
    ids = [job_id, *(f"{job_id}{number}" for number in range(1, CALLS))]

    async def follow() -> None:
        while True:  # a fault of the account ends a run
            with contextlib.suppress(LiveAuditError):
                async with client.as_completed(ids) as outcomes:
                    async for _ in outcomes:
                        pass

    following = asyncio.create_task(follow())
    while count.calls < CALLS:
        await asyncio.sleep(1)
    following.cancel()
    await asyncio.wait([following])


WAYS = pytest.mark.parametrize("make_calls", [one_by_one, fifty_at_a_time, a_run])

FAULTS = {
    "500": Fault.error(500),
    "503": Fault.error(503),
    "429": Fault.throttle(),
    "429, Retry-After": Fault.throttle(retry_after=2),
    "503 SlowDown": Fault.throttle(status=503),
    "reset": Fault.reset(),
    "truncated": Fault.truncated(),
    "garbage": Fault.garbage(),
    "timeout": Fault.slow(1e9),
}
THROTTLING = {"429", "429, Retry-After", "503 SlowDown"}


@WAYS
@pytest.mark.parametrize("kind", FAULTS)
async def test_r07_an_outage_costs_at_most_100_retries(kind: str, make_calls: MakeCalls) -> None:
    """1,000 calls into an outage send at most 1,035 requests, or 1,100 while it throttles."""
    emulator = Emulator(rate=1e6)
    emulator.inject(FAULTS[kind])
    count = Count()
    async with emulator.client(on_attempt=count, rate=20) as client:
        await make_calls(client, count, emulator.add_job(duration=math.inf))
    assert count.calls >= CALLS
    assert len(emulator.arrivals) >= count.attempts  # some may be in flight
    most = CHEAP_RETRIES if kind in THROTTLING else RETRIES
    assert count.attempts <= count.calls + most


@WAYS
async def test_r07_refused_connections_cost_at_most_35_retries(make_calls: MakeCalls) -> None:
    """1,000 calls to a port on which nobody listens try at most 1,035 connections."""
    network = Unreachable()
    count = Count()
    emulator = Emulator()
    async with (
        httpx.AsyncClient(transport=network) as http,
        emulator.client(on_attempt=count, http_client=http) as client,
    ):
        await make_calls(client, count, "av1")
    assert count.calls >= CALLS
    assert network.refused <= count.calls + RETRIES


# Immediate retries, made once the cause of an error is fixed, do not evade the bound


@WAYS
async def test_r07_refused_credentials_cost_at_most_100_retries(make_calls: MakeCalls) -> None:
    """1,000 calls with credentials that the service does not know send at most 1,100 requests."""
    emulator = Emulator(rate=1e6)
    known = emulator.credentials
    emulator.credentials = Credentials("AKIDROTATED", "rotated")
    count = Count()

    async def provide() -> Credentials:
        return known

    async with emulator.client(on_attempt=count, rate=20, credentials=provide) as client:
        await make_calls(client, count, emulator.add_job(duration=math.inf))
    assert {arrival.status for arrival in emulator.arrivals} == {401}
    assert len(emulator.arrivals) <= count.calls + CHEAP_RETRIES


@WAYS
async def test_r07_a_jumping_clock_costs_at_most_100_retries(make_calls: MakeCalls) -> None:
    """Servers whose clocks differ by hours cost 100 retries, and what rare successes give back."""
    rng = random.Random(1)
    emulator = Emulator(rate=1e6, now=lambda: EPOCH + rng.uniform(-40_000, 40_000))
    count = Count()
    async with emulator.client(on_attempt=count, rate=20, now=lambda: EPOCH) as client:
        await make_calls(client, count, emulator.add_job(duration=math.inf))
    succeeded = sum(arrival.status == 200 for arrival in emulator.arrivals)
    assert succeeded <= 0.02 * len(emulator.arrivals)
    # A success returns at most the 14 tokens of its retry.
    assert 5 * (len(emulator.arrivals) - count.calls) <= 500 + 14 * succeeded


# Throttling pauses every caller, and then the rate recovers


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.2])
async def test_r07_nobody_sends_after_a_refusal(share: float, *, adaptive: bool) -> None:
    """After each 429 nothing arrives from two clients and a run on one limiter until there is room.

    That takes a second, or, if the limiter adapts its pace and sent more than two requests in the
    last second, until two of them are a second old.
    """
    emulator = Emulator(rate=1e6, seed=3)
    ids = [emulator.add_job(duration=math.inf) for _ in range(100)]
    emulator.inject(Fault.throttle(), share=share)
    limiter = LocalRateLimiter(20, adaptive=adaptive)
    async with (
        emulator.client(limiter=limiter) as one,
        emulator.client(limiter=limiter) as other,
        one.as_completed(ids),
    ):

        async def call(client: LiveAuditClient) -> None:
            while now() < times(1000):
                with contextlib.suppress(LiveAuditError):
                    await client.query(ids[0])

        await asyncio.gather(*(call(client) for client in (one, other) for _ in range(5)))
    refused = 0
    recent: list[float] = []
    for before, after in itertools.pairwise(emulator.arrivals):
        recent = [moment for moment in [*recent, before.time] if moment > before.time - 1]
        # Two may leave at the same instant, before the response to the first has arrived.
        if before.status == 429 and after.time > before.time + 1e-6:
            refused += 1
            room = recent[1] if adaptive and len(recent) > 2 else before.time
            assert after.time >= room + 1 - 1e-6
    assert refused >= times(100)
    assert 0.1 * share <= refused / len(emulator.arrivals) <= 2 * share


@pytest.mark.parametrize("seed", range(times(30)))
async def test_r07_the_rate_comes_back(seed: int) -> None:
    """After 30 s of throttling, the second from the first success on sees 95 % of the rate."""
    emulator = Emulator(rate=1e6, seed=seed)
    job_id = emulator.add_job(duration=math.inf)
    async with emulator.client(rate=20) as client:

        async def call() -> None:
            while now() < 60:
                with contextlib.suppress(LiveAuditError):
                    await client.query(job_id)

        calls = asyncio.gather(*(call() for _ in range(30)))
        await asyncio.sleep(10)
        emulator.inject(Fault.throttle())
        await asyncio.sleep(30)
        emulator.faults.clear()
        await calls
    during = [arrival for arrival in emulator.arrivals if 10 < arrival.time < 40]
    assert {arrival.status for arrival in during} == {429}
    assert len(during) <= 2 * 30  # after a hold two may leave together
    after = [arrival.time for arrival in emulator.arrivals if arrival.time > 40]
    assert after[0] <= 44  # the longest wait after a third refusal
    assert sum(moment < after[0] + 1 for moment in after) >= 19
    assert len(after) / (60 - after[0]) >= 0.95 * 20


# The retry policy


@pytest.mark.parametrize("kind", FAULTS)
async def test_r07_one_attempt_never_retries(kind: str) -> None:
    """With attempts=1 every call sends one request, whatever goes wrong."""
    emulator = Emulator(rate=1e6)
    emulator.inject(FAULTS[kind])
    count = Count()
    async with emulator.client(on_attempt=count, rate=20, retry=RetryPolicy(attempts=1)) as client:
        await fifty_at_a_time(client, count, emulator.add_job(duration=math.inf))
    assert count.attempts == count.calls


POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    base_delay=st.floats(0.01, 10),
    throttle_delay=st.floats(0.01, 10),
    max_delay=st.floats(0.1, 30),
    deadline=st.floats(0.1, 100),
)


@settings(max_examples=times(1000))
@given(
    policy=POLICIES,
    kinds=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=20),
    timeout=st.floats(0.1, 30),
)
def test_r07_a_policy_bounds_the_whole(
    policy: RetryPolicy, kinds: list[str], timeout: float
) -> None:
    """A call makes at most ``attempts`` attempts, and ends by its deadline."""

    async def run() -> None:
        emulator = Emulator(rate=1e6)
        job_id = emulator.add_job(duration=math.inf)
        for kind in kinds:
            emulator.inject(FAULTS[kind], times=1)
        emulator.inject(FAULTS[kinds[0]])
        seen: list[Attempt] = []
        async with emulator.client(
            retry=policy, timeout=timeout, rate=1e6, on_attempt=seen.append
        ) as client:
            with pytest.raises(LiveAuditError) as caught:
                await client.query(job_id)
        assert caught.value.attempts == len(seen) <= policy.attempts
        assert [attempt.number for attempt in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].delay is None
        assert emulator.arrivals[-1].time <= policy.deadline + 1e-6
        assert now() <= max(policy.deadline, 0) + 0.05

    run_virtual(run)


@pytest.mark.waits
class TestOverASocket:
    """Kept connections that the server closes."""

    @pytest.mark.parametrize("together", [1, 50])
    async def test_r07_stale_connections_cost_at_most_500_tokens(self, together: int) -> None:
        """Retries after a 500 or a reset on a kept connection never cost more than the budget."""
        responses: list[None] = []

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert isinstance(reader, Recorder)
            await reader.request()
            responses.append(None)
            writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
            await reader.request()

        count = Count()
        async with (
            serving(once) as served,
            client_for(served.url, retry=RetryPolicy(base_delay=0.001), on_attempt=count) as client,
        ):
            await asyncio.gather(*(one_by_one(client, count, "av1") for _ in range(together)))
        assert len(served.requests) >= CALLS
        assert len(responses) <= len(served.requests) <= count.attempts
        assert count.at_once > 0
        assert 5 * count.at_once + 14 * (count.attempts - count.calls - count.at_once) <= 500
