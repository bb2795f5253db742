"""S10 and R8: clocks that differ, and keys that change between the attempts of a call."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from clocks import now, run_virtual
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times

from ci_live_audit import (
    AccessDenied,
    Attempt,
    Credentials,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    RetryPolicy,
    Throttled,
)
from ci_live_audit.testing import Emulator, Fault

NOW = 1_700_000_000
# Seconds by which the service's clock may be ahead of a signature that is valid.
EARLY, LATE = -60, 600
DAY = 86400


# S10: clocks


def statuses_at(ahead: float) -> list[int]:
    """Return the statuses that two calls see from a service whose clock is so far ahead."""
    if EARLY <= ahead <= LATE:
        return [200, 200]
    refused = 403 if ahead < 0 else 401
    return [refused, 200, 200] if abs(ahead) <= DAY else [refused, refused]


async def two_calls(ahead: float, operation: str = "query") -> tuple[list[int], list[object]]:
    emulator = Emulator(now=lambda: NOW + ahead)
    job_id = emulator.add_job()
    results: list[object] = []
    async with emulator.client(now=lambda: NOW) as client:
        for _ in range(2):
            argument = "rtmp://live.example.com/app/a" if operation == "submit" else job_id
            try:
                results.append(await getattr(client, operation)(argument))
            except LiveAuditError as error:
                results.append(error)
    return [arrival.status for arrival in emulator.arrivals], results


SKEWS = [
    *(-90_000, -86_401, -86_400, -86_000, -3600, -601, -599, -61, -60, -59, -31, -25),
    *(0, 25, 31, 59, 61, 599, 600, 601, 3600, 86_000, 86_400, 86_401, 90_000, 1e9, -1e9),
]


@pytest.mark.parametrize("ahead", SKEWS)
@pytest.mark.parametrize("operation", ["query", "submit"])
async def test_s10_a_wrong_clock_costs_one_attempt_at_most(operation: str, ahead: float) -> None:
    """A wrong clock costs one attempt up to a day, and none within the signature's window."""
    statuses, results = await two_calls(ahead, operation)
    assert statuses == statuses_at(ahead)
    for it in results:
        assert isinstance(it, AccessDenied) == (statuses[-1] != 200)
        if isinstance(it, AccessDenied):
            assert it.attempts == 1
            assert not it.transient


@settings(max_examples=times(1000))
@given(ahead=st.integers(-100_000, 100_000) | st.integers(-700, 700))
def test_s10_any_clock_costs_one_attempt_at_most(ahead: int) -> None:
    """The same holds for any whole number of seconds."""
    statuses, _ = run_virtual(lambda: two_calls(ahead))
    assert statuses == statuses_at(ahead)


@settings(max_examples=times(500))
@given(
    aheads=st.lists(st.floats(-DAY / 2, DAY / 2), min_size=1, max_size=12),
    pauses=st.lists(st.floats(0, 1000), min_size=12, max_size=12),
)
def test_s10_a_clock_that_jumps_costs_one_attempt_a_jump(
    aheads: list[float], pauses: list[float]
) -> None:
    """After either clock is set, the next call succeeds, after one refusal at most."""
    clock = {"ahead": 0.0}

    async def main() -> list[list[int]]:
        emulator = Emulator(now=lambda: NOW + now() + clock["ahead"])
        job_id = emulator.add_job(duration=math.inf)
        found: list[list[int]] = []
        async with emulator.client(now=lambda: NOW + now()) as client:
            for ahead, pause in zip(aheads, pauses, strict=False):
                clock["ahead"] = ahead
                emulator.arrivals.clear()
                assert (await client.query(job_id)).job_id == job_id
                found.append([arrival.status for arrival in emulator.arrivals])
                await asyncio.sleep(pause)
        return found

    for statuses in run_virtual(main):
        assert statuses in ([200], [401, 200], [403, 200])


@pytest.mark.parametrize("jump", [-7200, -90, 700, 7200])
async def test_s10_a_clock_that_jumps_while_calls_wait(jump: int) -> None:
    """A clock set while 100 calls wait for their slots costs each one attempt at most."""
    emulator = Emulator(now=lambda: NOW + now() + (jump if now() > 2 else 0))
    job_id = emulator.add_job(duration=math.inf)
    seen: list[Attempt] = []
    async with emulator.client(now=lambda: NOW + now(), on_attempt=seen.append) as client:
        jobs = await asyncio.gather(*(client.query(job_id) for _ in range(100)))
    assert len(jobs) == 100
    assert max(attempt.number for attempt in seen) <= 2
    assert 1 <= sum(attempt.error is not None for attempt in seen) <= 5


HOSTILE = [
    *("", "nonsense", "0", "-1", "\0", "Mon", "32 Foo 2020", "1e400", ", , , , ,", "9" * 5000),
    *("Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"),
    *("Fri, 31 Dec 9999 23:59:59 -9999", "Mon, 01 Jan 0001 00:00:00 +9999"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Tue, 19 Jan 2038 03:14:08 GMT"),
    *("Tue, 99 Nov 2023 99:99:99 GMT", "Tue, 14 Nov 99999999999 22:13:20 GMT"),
    "Tue, 14 Nov 2023 22:13:20 +99999999999999",
]


class Liar:
    """Stands before an emulator and sends a number of refusals with a false ``Date``."""

    def __init__(self, emulator: Emulator, date: str | None, lies: int) -> None:
        self._emulator, self._date, self._lies = emulator, date, lies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._lies == 0:
            await self._emulator(scope, receive, send)
            return
        self._lies -= 1
        headers = [] if self._date is None else [(b"date", self._date.encode("latin-1"))]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>No.</Message></Error>"
        await send({"type": "http.response.body", "body": body})


def client_behind_liar(
    emulator: Emulator, date: str | None, lies: int = 1, **options: Any
) -> LiveAuditClient:
    transport = httpx.ASGITransport(Liar(emulator, date, lies))
    http = httpx.AsyncClient(transport=transport)
    return emulator.client(http_client=http, now=lambda: NOW, **options)


async def refused_then_accepted(date: str | None) -> list[int]:
    emulator = Emulator(now=lambda: NOW)
    job_id = emulator.add_job()
    async with client_behind_liar(emulator, date) as client:
        with pytest.raises(AccessDenied) as caught:
            await client.query(job_id)
        assert caught.value.attempts == 1
        await client.query(job_id)
    return [arrival.status for arrival in emulator.arrivals]


@pytest.mark.parametrize("date", [None, *HOSTILE], ids=ascii)
async def test_s10_a_hostile_date_is_ignored(date: str | None) -> None:
    """A refusal with an impossible ``Date``, or none, is raised, and the next call succeeds."""
    assert await refused_then_accepted(date) == [200]


@settings(max_examples=times(500))
@given(date=st.text(st.characters(codec="latin-1", exclude_characters="\r\n")))
def test_s10_no_date_breaks_a_call(date: str) -> None:
    """Whatever bytes a ``Date`` has, the refusal is raised and the next call succeeds."""
    assert run_virtual(lambda: refused_then_accepted(date)) == [200]


@settings(max_examples=times(500))
@given(
    date=st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)),  # noqa: DTZ001 - it wants naive
    lies=st.integers(1, 5),
)
def test_s10_a_false_date_costs_one_attempt_at_most(date: datetime, lies: int) -> None:
    """A false ``Date``, however credible, costs later calls one attempt at most."""

    async def main() -> list[int]:
        emulator = Emulator(now=lambda: NOW)
        job_id = emulator.add_job()
        text = format_datetime(date.replace(tzinfo=UTC), usegmt=True)
        async with client_behind_liar(
            emulator, text, lies, retry=RetryPolicy(attempts=1)
        ) as client:
            for _ in range(lies):
                with pytest.raises(AccessDenied):
                    await client.query(job_id)
            again = client.with_options(retry=RetryPolicy())
            await again.query(job_id)
            await again.query(job_id)
        return [arrival.status for arrival in emulator.arrivals]

    assert run_virtual(main) in ([200, 200], [401, 200, 200], [403, 200, 200])


# R8: keys

ROTATIONS = times(200)


class Rotating:
    """An emulator whose keys change every few seconds, and the provider that knows them."""

    def __init__(
        self, *, every: float = math.inf, lasts: float | None, same_id: bool = False, **options: Any
    ) -> None:
        self._every, self._lasts, self._same_id = every, lasts, same_id
        self.turns = 0
        self.requests = 0
        self.emulator = Emulator(now=self.now, **options)
        self.job_id = self.emulator.add_job(duration=math.inf)

    def now(self) -> float:
        return NOW + now()

    def current(self) -> Credentials:
        number = self.turns + int(now() / self._every)
        ends = None if self._lasts is None else NOW + number * self._every + self._lasts
        secret_id = "AKID" if self._same_id else f"AKID{number}"
        return Credentials(secret_id, f"key{number}", f"token{number}", expires_at=ends)

    async def provider(self) -> Credentials:
        self.requests += 1
        await asyncio.sleep(0)
        return self.current()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Accept the keys that are current when a request arrives."""
        self.emulator.credentials = self.current()
        await self.emulator(scope, receive, send)

    def client(self, **options: Any) -> LiveAuditClient:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app))
        provider: Any = self.provider
        return self.emulator.client(
            **({"http_client": http, "credentials": provider, "now": self.now} | options)
        )


FAULTS: dict[str, Callable[[], Fault]] = {
    "error": Fault.error,
    "unavailable": lambda: Fault.error(503),
    "throttle": Fault.throttle,
    "reset": Fault.reset,
    "truncated": Fault.truncated,
}
PATIENT = RetryPolicy(attempts=40, base_delay=3.0, max_delay=6.0, deadline=1e6)


@pytest.fixture
def unlimited_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the retry budget be larger than any test needs."""
    monkeypatch.setattr("ci_live_audit.retry.RetryBudget.CAPACITY", 10**9)


@pytest.mark.usefixtures("unlimited_retries")
@pytest.mark.parametrize("fault", FAULTS)
async def test_r08_every_retry_is_signed_with_what_is_current(fault: str) -> None:
    """Keys change between the attempts of a call, and each attempt is signed with current ones."""
    rotating = Rotating(lasts=None)
    seen: list[Attempt] = []

    def rotate(attempt: Attempt) -> None:
        seen.append(attempt)
        rotating.turns += 1

    async with rotating.client(retry=PATIENT, on_attempt=rotate) as client:
        retries = 0
        while retries < ROTATIONS:
            rotating.emulator.inject(FAULTS[fault](), times=10)
            assert (await client.query(rotating.job_id)).job_id == rotating.job_id
            retries += 10
    statuses = Counter(arrival.status for arrival in rotating.emulator.arrivals)
    assert not {401, 403} & set(statuses)
    assert statuses.total() == len(seen) == rotating.requests == retries + retries // 10
    assert sum(attempt.error is not None for attempt in seen) == retries


def assert_rate_kept(emulator: Emulator, rate: float) -> None:
    """Assert that no second saw more requests than the rate: each passed the limiter."""
    moments = sorted(arrival.time for arrival in emulator.arrivals)
    quota = math.floor(rate)
    assert all(later - first >= 1 for first, later in zip(moments, moments[quota:], strict=False))


@pytest.mark.usefixtures("unlimited_retries")
async def test_r08_many_calls_at_once_across_rotations() -> None:
    """All calls succeed, at the rate; a key that changed in the queue costs one attempt."""
    rotating = Rotating(every=100.0, lasts=None)
    for name in FAULTS.keys() - {"truncated"}:  # in process it would truncate refusals too
        rotating.emulator.inject(FAULTS[name](), share=0.1)
    seen: list[Attempt] = []
    async with rotating.client(retry=PATIENT, on_attempt=seen.append) as client:
        for rotation in range(1, max(ROTATIONS // 10, 5)):
            await asyncio.sleep(rotation * 100 - 0.5 - now())
            jobs = await asyncio.gather(*(client.query(rotating.job_id) for _ in range(30)))
            assert {job.job_id for job in jobs} == {rotating.job_id}
    assert len(seen) == len(rotating.emulator.arrivals)
    refused = [attempt for attempt in seen if attempt.status in {401, 403}]
    assert refused
    for attempt in refused:  # the provider was called before it queued
        assert attempt.queued > 0.1
        assert attempt.delay == 0
    assert_rate_kept(rotating.emulator, 20.0)


async def test_r08_keys_with_an_end_are_renewed_before_it() -> None:
    """Credentials that last an hour are renewed about once an hour, and never used after it."""
    rotating = Rotating(every=3600.0, lasts=3600.0)
    rotating.emulator.inject(Fault.error(), share=0.3)
    async with rotating.client(retry=PATIENT) as client:
        for _ in range(ROTATIONS):
            await client.query(rotating.job_id)
            await asyncio.sleep(997)
    hours = now() / 3600
    statuses = Counter(arrival.status for arrival in rotating.emulator.arrivals)
    assert not {401, 403} & set(statuses)
    # At the start, and in the last five minutes, when there are no new ones yet.
    assert rotating.requests <= 3 * hours + 2


@pytest.mark.parametrize("waits", ["limiter", "backoff", "throttled", "provider"])
@pytest.mark.parametrize("lasts", [None, 5.0])
async def test_r08_keys_that_end_while_a_call_waits(waits: str, lasts: float | None) -> None:
    """A call that waits for minutes, for whatever reason, is signed when it leaves."""
    rotating = Rotating(every=5.0, lasts=lasts)
    retry = RetryPolicy(base_delay=200, throttle_delay=0.1, max_delay=200, deadline=1e4)

    async def slow() -> Credentials:
        await asyncio.sleep(20)
        return rotating.current()

    limiter = LocalRateLimiter(20)
    async with rotating.client(
        retry=retry,
        limiter=limiter,
        credentials=slow if waits == "provider" else rotating.provider,
    ) as client:
        await client.query(rotating.job_id)
        before = rotating.current()
        if waits == "limiter":
            limiter.hold(333)
        elif waits == "backoff":
            rotating.emulator.inject(Fault.error(), times=2)
        elif waits == "throttled":
            rotating.emulator.inject(Fault.throttle(retry_after=47), times=2)
        await client.query(rotating.job_id)
        assert rotating.current() != before
    refused = [it for it in rotating.emulator.arrivals if it.status in {401, 403}]
    if lasts is None and waits == "limiter":
        # They have no expiry, so only a refusal shows that they have changed.
        assert len(refused) <= 1
    else:
        assert refused == []


async def test_r08_a_rotation_in_flight_costs_one_attempt() -> None:
    """Keys that the service drops without notice are renewed at once, at one attempt a call."""
    rotating = Rotating(every=10.0, lasts=1e9)
    seen: list[Attempt] = []
    async with rotating.client(on_attempt=seen.append) as client:
        for _ in range(ROTATIONS):
            await client.query(rotating.job_id)
            await asyncio.sleep(20)
    assert max(attempt.number for attempt in seen) == 2
    assert Counter(arrival.status for arrival in rotating.emulator.arrivals)[200] == ROTATIONS
    assert all(attempt.delay == 0 for attempt in seen if attempt.error)


async def test_r08_a_token_that_changes_under_the_same_id() -> None:
    """A call that queues while only key and token change is signed again with the new ones."""
    rotating = Rotating(every=10.0, lasts=None, same_id=True)
    limiter = LocalRateLimiter(20)
    async with rotating.client(limiter=limiter) as client:
        for _ in range(10):
            limiter.hold(10)
            assert (await client.query(rotating.job_id)).job_id == rotating.job_id
    statuses = [arrival.status for arrival in rotating.emulator.arrivals]
    assert statuses == [403, 200] * 10


@pytest.mark.usefixtures("unlimited_retries")
async def test_r08_a_retry_after_throttling_passes_the_limiter() -> None:
    """The retry of a throttled attempt waits for a slot again."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=math.inf)
    emulator.inject(Fault.throttle(), share=0.3)
    async with emulator.client(retry=PATIENT) as client:
        results = await asyncio.gather(
            *(client.query(job_id) for _ in range(ROTATIONS)), return_exceptions=True
        )
    assert not [it for it in results if isinstance(it, BaseException | Throttled)]
    assert_rate_kept(emulator, 20.0)


@pytest.mark.usefixtures("unlimited_retries")
async def test_r08_no_retry_has_a_stale_signature() -> None:
    """Retries at random instants across 200 rotations are signed with current keys.

    Only while a retry waits for its slot may they change, and then it is signed anew at once.
    """
    rng = random.Random(8)
    rotating = Rotating(every=0.7, lasts=None, rate=math.inf)
    seen: list[Attempt] = []
    async with rotating.client(retry=PATIENT, on_attempt=seen.append) as client:
        for _ in range(ROTATIONS):
            rotating.emulator.inject(rng.choice(list(FAULTS.values()))(), times=1)
            await client.query(rotating.job_id)
            await asyncio.sleep(rng.random() * 2)
    refused = [attempt for attempt in seen if attempt.status in {401, 403}]
    assert all(attempt.queued > 0 and attempt.delay == 0 for attempt in refused)
