"""R16: processes that share a quota find their shares of it, and are alone again in 20 s.

On virtual time. Many cases with nothing but limiters, a quota and the time that a request takes;
some through the whole client. Each process has a limiter of its own and knows nothing of the
others.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from clocks import now, run_virtual
from proofs import times

from ci_live_audit import LiveAuditClient, LiveAuditError, LocalRateLimiter, Throttled
from ci_live_audit.testing import Emulator, Fault
from ci_live_audit.testing.service import Quota

RATE = 20
#: Seconds of work, and the callers of each process that do it.
SECONDS = 600
CALLERS = 30


class Service:
    """A quota of 20 requests a second, or a service that refuses a share of all requests."""

    def __init__(
        self, seed: int, *, round_trip: float = 0.0, refusing: float | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.arrivals: list[tuple[float, bool]] = []
        self._quota = Quota(RATE)
        self._way, self._refusing = round_trip / 2, refusing

    async def work(self, limiter: LocalRateLimiter, begin: float, end: float) -> None:
        """Send requests by many callers."""
        await asyncio.sleep(begin)
        await asyncio.gather(*(self._call(limiter, end) for _ in range(CALLERS)))

    async def _call(self, limiter: LocalRateLimiter, end: float) -> None:
        while now() < end:
            await limiter.acquire()
            await asyncio.sleep(self._way * self.rng.uniform(0.8, 1.2))
            if self._refusing is None:
                refused = self._quota.refusal(now()) is not None
            else:
                refused = self.rng.random() < self._refusing
            self.arrivals.append((now(), refused))
            await asyncio.sleep(self._way * self.rng.uniform(0.8, 1.2))
            if refused:
                limiter.refused(0)
                await asyncio.sleep(1)

    def accepted(self, since: float, until: float) -> float:
        """Return how many requests a second were accepted from then to then."""
        accepted = sum(not no and since < moment <= until for moment, no in self.arrivals)
        return accepted / (until - since)

    def refused(self) -> float:
        """Return the share of all requests that was refused."""
        return sum(no for _, no in self.arrivals) / len(self.arrivals)


async def share(service: Service, begins: list[float]) -> None:
    """Let a process begin at each of the moments, with a limiter of its own."""
    limiters = [LocalRateLimiter(RATE) for _ in begins]
    pairs = zip(limiters, begins, strict=True)
    await asyncio.gather(*(service.work(limiter, begin, SECONDS) for limiter, begin in pairs))
    assert min(limiter.pace for limiter in limiters) >= 0.0999 * RATE


@pytest.mark.parametrize("round_trip", [0, 0.06])
@pytest.mark.parametrize("apart", [0.1, 3, 20])
@pytest.mark.parametrize(("processes", "least", "most"), [(2, 18.5, 0.02), (3, 17.5, 0.04)])
def test_r16_processes_share_a_quota(
    processes: int, least: float, most: float, apart: float, round_trip: float
) -> None:
    """However far apart they begin, they always use the quota up, and few requests are refused.

    One in fifty times two of three take what they can for long, and up to 8 % are refused.
    """
    refused: list[float] = []
    for seed in range(times(20)):
        random.seed(seed)
        service = Service(seed, round_trip=round_trip)
        begins = [service.rng.uniform(0, apart) for _ in range(processes)]
        run_virtual(partial(share, service, begins))
        assert service.accepted(max(begins), SECONDS) >= least
        refused.append(service.refused())
    assert median(refused) <= most
    assert max(refused) <= max(most, 0.08 if processes > 2 else 0)


@pytest.mark.parametrize("seed", range(times(20)))
async def test_r16_refusals_at_random_leave_nine_a_second(seed: int) -> None:
    """Where 5 % are refused at whatever pace, it does not fall on and on."""
    service = Service(seed, refusing=0.05)
    await service.work(LocalRateLimiter(RATE), 0, SECONDS)
    assert service.refused() == pytest.approx(0.05, abs=0.015)
    assert service.accepted(0, SECONDS) >= 9


# Through the whole client


async def work(client: LiveAuditClient, job_id: str, until: float) -> None:
    """Query a job again and again, by many callers."""

    async def call() -> None:
        while now() < until:
            with contextlib.suppress(LiveAuditError):
                await client.query(job_id)

    await asyncio.gather(*(call() for _ in range(CALLERS)))


def accepted(emulator: Emulator, since: float, until: float) -> float:
    """Return how many requests a second were accepted from then to then."""
    found = [one for one in emulator.arrivals if since < one.time <= until and one.status == 200]
    return len(found) / (until - since)


@pytest.mark.parametrize("seed", range(times(5)))
@pytest.mark.parametrize(("processes", "least", "most"), [(2, 18.5, 0.02), (3, 17.5, 0.04)])
async def test_r16_clients_share_a_quota(
    processes: int, least: float, most: float, seed: int
) -> None:
    """Clients with limiters of their own fill the quota together, and few calls are refused."""
    random.seed(seed)
    emulator = Emulator(rate=RATE)
    job_id = emulator.add_job(duration=math.inf)
    begins = [random.uniform(0, 3) for _ in range(processes)]

    async def process(begin: float) -> None:
        await asyncio.sleep(begin)
        async with emulator.client() as client:
            await work(client, job_id, 300)

    await asyncio.gather(*(process(begin) for begin in begins))
    assert accepted(emulator, max(begins), 300) >= least
    refused = sum(one.status == 429 for one in emulator.arrivals)
    assert refused <= most * len(emulator.arrivals)


async def test_r16_without_adapting_a_third_is_lost() -> None:
    """With adaptive=False every refusal costs a second, and two clients get 13 of 20 a second."""
    emulator = Emulator(rate=RATE)
    job_id = emulator.add_job(duration=math.inf)

    async def process() -> None:
        limiter = LocalRateLimiter(RATE, adaptive=False)
        async with emulator.client(limiter=limiter) as client:
            await work(client, job_id, 100)
            assert limiter.pace == RATE

    await asyncio.gather(process(), process())
    assert accepted(emulator, 0, 100) == pytest.approx(13.3, abs=0.5)


async def test_r16_the_full_pace_is_back_after_20_seconds() -> None:
    """When the other process has ended, one is at the full rate 20 s after the last refusal."""
    emulator = Emulator(rate=RATE)
    job_id = emulator.add_job(duration=math.inf)
    limiter = LocalRateLimiter(RATE)
    assert limiter.pace == RATE
    async with emulator.client(limiter=limiter) as client, emulator.client() as other:
        await asyncio.gather(work(client, job_id, 100), work(other, job_id, 50))
        assert limiter.pace == RATE
    last = max(one.time for one in emulator.arrivals if one.status == 429)
    assert 40 < last < 60
    assert accepted(emulator, last + 20, 100) >= 0.98 * RATE


async def test_r16_a_refusal_does_not_cost_a_second() -> None:
    """At the full rate the others go on when the window has room: after a tenth of a second."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=math.inf)
    async with emulator.client(rate=RATE) as client:
        asyncio.get_running_loop().call_later(5, lambda: emulator.inject(Fault.throttle(), times=1))
        await work(client, job_id, 10)
    assert silences(emulator) == pytest.approx([0.1], abs=0.02)


# One response does not stop everything


def silences(emulator: Emulator) -> list[float]:
    """Return the seconds of silence after each refusal."""
    pairs = pairwise(emulator.arrivals)
    return [after.time - before.time for before, after in pairs if before.status == 429]


async def test_r16_one_long_retry_after_stops_the_others_for_10_seconds() -> None:
    """The refused call fails at once, and the others go on after 10 s."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=math.inf)
    errors: list[LiveAuditError] = []
    async with emulator.client(rate=RATE) as client:

        async def refuse() -> None:
            await asyncio.sleep(5)
            emulator.inject(Fault.throttle(retry_after=1e9), times=1, operation="cancel")
            try:
                await client.cancel(job_id)
            except LiveAuditError as error:
                errors.append(error)

        await asyncio.gather(work(client, job_id, 30), refuse())
    assert [(type(error), error.attempts) for error in errors] == [(Throttled, 1)]
    assert silences(emulator) == pytest.approx([10], abs=0.01)


async def test_r16_a_repeated_retry_after_is_believed() -> None:
    """Whenever the first request after the pause is refused again, the pause is twice as long."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=math.inf)
    async with emulator.client(rate=RATE) as client:
        loop = asyncio.get_running_loop()
        fault = Fault.throttle(retry_after=1e9)
        loop.call_later(5, lambda: emulator.inject(fault, times=5))
        loop.call_later(300, lambda: emulator.inject(fault, times=1))
        await work(client, job_id, 330)
    assert silences(emulator) == pytest.approx([10, 20, 40, 60, 60, 10], abs=0.01)


async def test_r16_requests_in_flight_are_refused_for_one_reason() -> None:
    """Ten requests in flight that are refused together lower the pace once, and pause for 10 s."""
    limiter = LocalRateLimiter(RATE)
    for _ in range(10):
        await limiter.acquire()
    for _ in range(10):
        limiter.refused(1e9)
    assert limiter.pace == pytest.approx(0.89 * RATE, abs=0.02)
    assert await limiter.acquire() == pytest.approx(10, abs=0.01)


class Foreign:
    """A limiter by somebody else, which knows no more than the two methods."""

    def __init__(self) -> None:
        self.held: list[float] = []

    async def acquire(self) -> float:
        """Let everybody pass."""
        return 0.0

    def hold(self, seconds: float) -> None:
        """Note the hold."""
        self.held.append(seconds)


@pytest.mark.parametrize(("options", "held"), [({}, 1), ({"retry_after": 7}, 7)])
async def test_r16_a_limiter_that_knows_only_holds_is_held(
    options: dict[str, Any], held: float
) -> None:
    """A limiter by somebody else without a method for refusals is held, by runs as well."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=1)
    limiter = Foreign()
    async with emulator.client(limiter=limiter) as client:
        emulator.inject(Fault.throttle(**options), times=1)
        await client.query(job_id)
        emulator.inject(Fault.throttle(**options), times=1)
        await client.wait(job_id, interval=1)
    assert limiter.held == [held, held]
