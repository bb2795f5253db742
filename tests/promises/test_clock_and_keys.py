"""S10 and R8: clocks that differ, and keys that change, in the middle of calls that are retried."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times

from ci_live_audit import (
    AccessDenied,
    Attempt,
    Credentials,
    LiveAuditClient,
    LiveAuditError,
    RetryPolicy,
    Throttled,
)
from ci_live_audit.testing import Emulator, Fault, VirtualTimeLoop

NOW = 1_700_000_000
# A signature is valid from a minute before it was made until ten minutes after.
EARLY, LATE = -60, 600
DAY = 86400


def run(main: Callable[[], Any]) -> Any:
    """Run a coroutine function on virtual time, as a property needs it."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


# S10: clocks


def statuses_at(ahead: float) -> list[int]:
    """What a service answers whose clock is so far ahead: to a call, and to a second one."""
    if EARLY <= ahead <= LATE:
        return [200, 200]
    refused = 403 if ahead < 0 else 401
    return [refused, 200, 200] if abs(ahead) <= DAY else [refused, refused]


async def two_calls(ahead: float, operation: str = "query") -> tuple[list[int], list[object]]:
    emulator = Emulator(now=lambda: NOW + ahead)
    job_id = emulator.add_job()
    ended: list[object] = []
    async with emulator.client(now=lambda: NOW) as client:
        for _ in range(2):
            argument = "rtmp://live.example.com/app/a" if operation == "submit" else job_id
            try:
                ended.append(await getattr(client, operation)(argument))
            except LiveAuditError as error:
                ended.append(error)
    return [arrival.status for arrival in emulator.arrivals], ended


SKEWS = [
    *(-90_000, -86_401, -86_400, -86_000, -3600, -601, -599, -61, -60, -59, -31, -25),
    *(0, 25, 31, 59, 61, 599, 600, 601, 3600, 86_000, 86_400, 86_401, 90_000, 1e9, -1e9),
]


@pytest.mark.parametrize("ahead", SKEWS)
@pytest.mark.parametrize("operation", ["query", "submit"])
async def test_s10_a_wrong_clock_costs_one_attempt_at_most(operation: str, ahead: float) -> None:
    """None within the signature's window; one up to a day; beyond, the refusal is raised."""
    statuses, ended = await two_calls(ahead, operation)
    assert statuses == statuses_at(ahead)
    for it in ended:
        assert isinstance(it, AccessDenied) == (statuses[-1] != 200)
        if isinstance(it, AccessDenied):
            assert it.attempts == 1
            assert not it.transient


@settings(max_examples=times(1000))
@given(ahead=st.integers(-100_000, 100_000) | st.integers(-700, 700))
def test_s10_any_clock_costs_one_attempt_at_most(ahead: int) -> None:
    """As above, for any whole number of seconds."""
    statuses, _ = run(lambda: two_calls(ahead))
    assert statuses == statuses_at(ahead)


@settings(max_examples=times(500))
@given(
    aheads=st.lists(st.floats(-DAY / 2, DAY / 2), min_size=1, max_size=12),
    pauses=st.lists(st.floats(0, 1000), min_size=12, max_size=12),
)
def test_s10_a_clock_that_jumps_costs_one_attempt_a_jump(
    aheads: list[float], pauses: list[float]
) -> None:
    """Whenever either clock is set, the next call is answered, after one refusal at most."""
    now = {"ahead": 0.0}

    async def main() -> list[list[int]]:
        time_ = asyncio.get_running_loop().time
        emulator = Emulator(now=lambda: NOW + time_() + now["ahead"])
        job_id = emulator.add_job(duration=math.inf)
        found: list[list[int]] = []
        async with emulator.client(now=lambda: NOW + time_()) as client:
            for ahead, pause in zip(aheads, pauses, strict=False):
                now["ahead"] = ahead
                emulator.arrivals.clear()
                assert (await client.query(job_id)).job_id == job_id
                found.append([arrival.status for arrival in emulator.arrivals])
                await asyncio.sleep(pause)
        return found

    for statuses in run(main):
        assert statuses in ([200], [401, 200], [403, 200])


@pytest.mark.parametrize("jump", [-7200, -90, 700, 7200])
async def test_s10_a_clock_that_jumps_while_calls_wait(jump: int) -> None:
    """Set while a hundred calls wait for their slots, all succeed, with one refusal at most."""
    time_ = asyncio.get_running_loop().time
    emulator = Emulator(now=lambda: NOW + time_() + (jump if time_() > 2 else 0))
    job_id = emulator.add_job(duration=math.inf)
    seen: list[Attempt] = []
    async with emulator.client(now=lambda: NOW + time_(), on_attempt=seen.append) as client:
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
    """In front of an emulator: so many refusals with a Date of its own, then the truth."""

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


def lied_to(emulator: Emulator, date: str | None, lies: int = 1, **options: Any) -> LiveAuditClient:
    transport = httpx.ASGITransport(Liar(emulator, date, lies))
    http = httpx.AsyncClient(transport=transport)
    return emulator.client(http_client=http, now=lambda: NOW, **options)


async def refused_then_answered(date: str | None) -> list[int]:
    emulator = Emulator(now=lambda: NOW)
    job_id = emulator.add_job()
    async with lied_to(emulator, date) as client:
        with pytest.raises(AccessDenied) as caught:
            await client.query(job_id)
        assert caught.value.attempts == 1
        assert client._caller.clock.ahead == 0
        await client.query(job_id)
    return [arrival.status for arrival in emulator.arrivals]


@pytest.mark.parametrize("date", [None, *HOSTILE], ids=ascii)
async def test_s10_a_hostile_date_is_not_learnt(date: str | None) -> None:
    """Nonsense, ancient, far off or missing: the refusal is raised, the next call is unharmed."""
    assert await refused_then_answered(date) == [200]


@settings(max_examples=times(500))
@given(date=st.text(st.characters(codec="latin-1", exclude_characters="\r\n")))
def test_s10_no_text_for_a_date_breaks_a_call(date: str) -> None:
    """Whatever bytes a Date consists of, there is one typed error and no harm."""
    assert run(lambda: refused_then_answered(date)) == [200]


@settings(max_examples=times(500))
@given(
    date=st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)),  # noqa: DTZ001 - it wants naive
    lies=st.integers(1, 5),
)
def test_s10_a_lie_is_forgotten_at_the_next_refusal(date: datetime, lies: int) -> None:
    """A Date that is a lie, however credible, costs later calls one more attempt at most."""

    async def main() -> list[int]:
        emulator = Emulator(now=lambda: NOW)
        job_id = emulator.add_job()
        text = format_datetime(date.replace(tzinfo=UTC), usegmt=True)
        async with lied_to(emulator, text, lies, retry=RetryPolicy(attempts=1)) as client:
            for _ in range(lies):
                with pytest.raises(AccessDenied):
                    await client.query(job_id)
            again = client.with_options(retry=RetryPolicy())
            await again.query(job_id)
            await again.query(job_id)
        return [arrival.status for arrival in emulator.arrivals]

    assert run(main) in ([200, 200], [401, 200, 200], [403, 200, 200])


# R8: keys

ROTATIONS = times(200)


class Rotating:
    """An emulator whose keys change every so many seconds, and the provider that knows them."""

    def __init__(
        self, *, every: float, lasts: float | None, same_id: bool = False, **options: Any
    ) -> None:
        self._time = asyncio.get_running_loop().time
        self._every, self._lasts, self._same_id = every, lasts, same_id
        self.asked = 0
        self.emulator = Emulator(now=self.now, **options)
        self.job_id = self.emulator.add_job(duration=math.inf)

    def now(self) -> float:
        return NOW + self._time()

    def current(self) -> Credentials:
        number = int(self._time() / self._every)
        ends = None if self._lasts is None else NOW + number * self._every + self._lasts
        secret_id = "AKID" if self._same_id else f"AKID{number}"
        return Credentials(secret_id, f"key{number}", f"token{number}", expires_at=ends)

    async def provider(self) -> Credentials:
        self.asked += 1
        await asyncio.sleep(0)
        return self.current()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """What is current when a request arrives is what the service accepts."""
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


@pytest.mark.parametrize("fault", FAULTS)
async def test_r08_every_retry_is_signed_with_what_is_current(fault: str) -> None:
    """Keys change between the attempts of a call, and none comes with what was current before."""
    # Without a rate: who waits for a slot in between may see a rotation, which is another test's.
    rotating = Rotating(every=1.5, lasts=None, rate=math.inf)
    seen: list[Attempt] = []
    async with rotating.client(retry=PATIENT, on_attempt=seen.append) as client:
        client._caller.budget.CAPACITY = client._caller.budget.tokens = 10**9
        retries = 0
        while retries < ROTATIONS:
            rotating.emulator.inject(FAULTS[fault](), times=10)
            assert (await client.query(rotating.job_id)).job_id == rotating.job_id
            retries += 10
    statuses = Counter(arrival.status for arrival in rotating.emulator.arrivals)
    assert not {401, 403} & set(statuses)
    assert statuses.total() == len(seen) == rotating.asked == retries + retries // 10
    assert sum(attempt.error is not None for attempt in seen) == retries


def keeps_the_rate(emulator: Emulator, rate: float) -> None:
    """No second saw more requests than the rate allows: each passed the limiter."""
    came = sorted(arrival.time for arrival in emulator.arrivals)
    quota = math.floor(rate)
    assert all(later - first >= 1 for first, later in zip(came, came[quota:], strict=False))


async def test_r08_many_calls_at_once_across_rotations() -> None:
    """All are answered, at the rate; a key that changed in the queue costs one attempt."""
    rotating = Rotating(every=100.0, lasts=None)
    for name in FAULTS.keys() - {"truncated"}:  # of which in process a refusal is unreadable
        rotating.emulator.inject(FAULTS[name](), share=0.1)
    seen: list[Attempt] = []
    async with rotating.client(retry=PATIENT, on_attempt=seen.append) as client:
        client._caller.budget.CAPACITY = client._caller.budget.tokens = 10**9
        for rotation in range(1, max(ROTATIONS // 10, 5)):
            await asyncio.sleep(rotation * 100 - 0.5 - asyncio.get_running_loop().time())
            jobs = await asyncio.gather(*(client.query(rotating.job_id) for _ in range(30)))
            assert {job.job_id for job in jobs} == {rotating.job_id}
    assert len(seen) == len(rotating.emulator.arrivals)
    refused = [attempt for attempt in seen if attempt.status in {401, 403}]
    assert refused
    for attempt in refused:  # the provider was asked before it stood in the queue
        assert attempt.queued > 0.1
        assert attempt.delay == 0
    keeps_the_rate(rotating.emulator, 20.0)


async def test_r08_keys_with_an_end_are_renewed_before_it() -> None:
    """Credentials that last an hour are asked for once in the hour, and never used after it."""
    rotating = Rotating(every=3600.0, lasts=3600.0)
    rotating.emulator.inject(Fault.error(), share=0.3)
    async with rotating.client(retry=PATIENT) as client:
        for _ in range(ROTATIONS):
            await client.query(rotating.job_id)
            await asyncio.sleep(997)
    hours = asyncio.get_running_loop().time() / 3600
    statuses = Counter(arrival.status for arrival in rotating.emulator.arrivals)
    assert not {401, 403} & set(statuses)
    # At their beginning, and in the last five minutes, in which there are no others yet.
    assert rotating.asked <= 3 * hours + 2


@pytest.mark.parametrize("waits", ["limiter", "backoff", "throttled", "provider"])
@pytest.mark.parametrize("lasts", [None, 5.0])
async def test_r08_keys_that_end_while_a_call_waits(waits: str, lasts: float | None) -> None:
    """Held for minutes by the limiter, a backoff or a throttling, a call is signed when it goes."""
    rotating = Rotating(every=5.0, lasts=lasts)
    retry = RetryPolicy(base_delay=200, throttle_delay=0.1, max_delay=200, deadline=1e4)

    async def slow() -> Credentials:
        await asyncio.sleep(20)
        return rotating.current()

    async with rotating.client(
        retry=retry, credentials=slow if waits == "provider" else rotating.provider
    ) as client:
        await client.query(rotating.job_id)
        before = rotating.current()
        if waits == "limiter":
            client._caller.limiter.hold(333)
        elif waits == "backoff":
            rotating.emulator.inject(Fault.error(), times=2)
        elif waits == "throttled":
            rotating.emulator.inject(Fault.throttle(retry_after=47), times=2)
        await client.query(rotating.job_id)
        assert rotating.current() != before
    refused = [it for it in rotating.emulator.arrivals if it.status in {401, 403}]
    if lasts is None and waits == "limiter":
        # Nothing said that they would end, so it takes a refusal to learn it.
        assert len(refused) <= 1
    else:
        assert refused == []


async def test_r08_a_rotation_in_flight_costs_one_attempt() -> None:
    """Keys that the service drops without notice are asked for again at once, once a call."""
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
    """Held in the queue while only key and token change, a call is signed again with the new."""
    rotating = Rotating(every=10.0, lasts=None, same_id=True)
    async with rotating.client() as client:
        for _ in range(10):
            client._caller.limiter.hold(10)
            assert (await client.query(rotating.job_id)).job_id == rotating.job_id
    statuses = [arrival.status for arrival in rotating.emulator.arrivals]
    assert statuses == [403, 200] * 10


async def test_r08_a_retry_after_throttling_passes_the_limiter() -> None:
    """A throttled attempt waits for its slot again, behind those who came before."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=math.inf)
    emulator.inject(Fault.throttle(), share=0.3)
    async with emulator.client(retry=PATIENT) as client:
        client._caller.budget.CAPACITY = client._caller.budget.tokens = 10**9
        ended = await asyncio.gather(
            *(client.query(job_id) for _ in range(ROTATIONS)), return_exceptions=True
        )
    assert not [it for it in ended if isinstance(it, BaseException | Throttled)]
    keeps_the_rate(emulator, 20.0)


async def test_r08_jitter_of_retries_and_rotations_never_meet_a_stale_signature() -> None:
    """Retries at random instants across two hundred rotations: each signature is of its second."""
    rng = random.Random(8)
    rotating = Rotating(every=0.7, lasts=None, rate=math.inf)
    async with rotating.client(retry=PATIENT) as client:
        client._caller.budget.CAPACITY = client._caller.budget.tokens = 10**9
        for _ in range(ROTATIONS):
            rotating.emulator.inject(rng.choice(list(FAULTS.values()))(), times=1)
            await client.query(rotating.job_id)
            await asyncio.sleep(rng.random() * 2)
    statuses = {arrival.status for arrival in rotating.emulator.arrivals}
    assert not {401, 403} & statuses
