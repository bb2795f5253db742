"""The client and its loop of attempts, in process and on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import httpx2
import pytest

from ci_live_audit import (
    AccessDenied,
    Attempt,
    ConfigurationError,
    Credentials,
    CredentialsError,
    DecodeError,
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    RetryPolicy,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
    UserInfo,
    Verdict,
)
from ci_live_audit.testing import Emulator, Fault, frame
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.wire.responses import Response

URL = "rtmp://live.example.com/app/room7"


@pytest.fixture
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client() as client:
        yield client


def http_client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app))


def answering(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[httpx.AsyncClient, list[dict[str, str]]]:
    """Return an HTTP client that gets the same response to everything, and the headers it sent."""
    sent: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(dict(request.headers))
        return httpx.Response(status, content=body, headers=headers)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer)), sent


def for_tests(**options: Any) -> LiveAuditClient:
    return LiveAuditClient(
        "examplebucket-1250000000",
        "ap-beijing",
        **({"credentials": Credentials("AKIDEXAMPLE", "canary-key", "canary-token")} | options),
    )


# Verbs


async def test_a_job_from_submission_to_cancellation(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A submitted job can be queried while it runs, and cancelled."""
    emulator.add_stream(URL, duration=60, script=[frame(5, "Porn", score=98)])
    user = UserInfo(token_id="t", ip="10.0.0.1")
    submitted = await client.submit(
        URL, biz_type="b81d45f9", data_id="room 7 & more", user_info=user
    )
    assert submitted.state == JobState.SUBMITTED
    await asyncio.sleep(10)
    job = await client.query(submitted.job_id)
    assert (job.state, job.label, job.result) == (JobState.AUDITING, "Porn", Verdict.SENSITIVE)
    assert (job.data_id, job.user_info) == ("room 7 & more", user)
    assert job.porn is not None
    assert job.porn.count == 1
    cancelled = await client.cancel(job.job_id)
    assert cancelled.job_id == job.job_id
    assert (await client.query(job.job_id)).ended


async def test_results_say_when_they_came(emulator: Emulator) -> None:
    """received_at is the time of the response, and URLs expire two hours later."""
    now = 1_700_000_000.0
    emulator = Emulator(now=lambda: now)
    async with emulator.client(now=lambda: now) as client:
        job_id = emulator.add_job(duration=10, script=[frame(1)])
        await asyncio.sleep(5)
        job = await client.query(job_id)
    assert job.received_at == datetime.fromtimestamp(now, UTC)
    assert job.snapshots[0].url_expires_at == job.received_at + timedelta(hours=2)


async def test_a_failed_job_is_a_result(emulator: Emulator, client: LiveAuditClient) -> None:
    """A job in state Failed is not an error of the query."""
    job_id = emulator.add_job(duration=5, failure=("ResourceDownloadFailed", "no stream"))
    await asyncio.sleep(6)
    job = await client.query(job_id)
    assert (job.state, job.code, job.message) == (
        JobState.FAILED,
        "ResourceDownloadFailed",
        "no stream",
    )


async def test_the_request_id_is_taken_from_the_header_if_the_body_has_none() -> None:
    """Results have a request id, for Tencent's support, wherever the service sent it."""
    http, _ = answering(
        200,
        b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>",
        {"x-ci-request-id": "from the header"},
    )
    async with for_tests(http_client=http) as client:
        assert (await client.query("a")).request_id == "from the header"


async def test_a_cancel_needs_no_body() -> None:
    """A status of 200 is enough: the body may be empty."""
    http, sent = answering(200)
    async with for_tests(http_client=http) as client:
        assert (await client.cancel("av1")).job_id == "av1"
    assert sent[0]["content-length"] == "0"


@pytest.mark.parametrize(
    ("call", "kind", "code"),
    [
        (lambda c: c.query("unknown"), JobNotFound, "AuditingJobNotFound"),
        (lambda c: c.cancel("unknown"), JobNotFound, "AuditingJobNotFound"),
        (lambda c: c.query("---"), InvalidArgument, "InvalidArgument"),
    ],
)
async def test_refusals_are_raised_at_once(
    client: LiveAuditClient,
    emulator: Emulator,
    call: Callable[[LiveAuditClient], Any],
    kind: type[ServiceError],
    code: str,
) -> None:
    """A refusal that a repeat would not change is sent once, and the error has all the facts."""
    with pytest.raises(kind) as caught:
        await call(client)
    error = caught.value
    assert (error.code, error.attempts, len(emulator.arrivals)) == (code, 1, 1)
    assert str(error.operation) in str(error)
    assert str(error.request_id) in str(error)
    assert error.trace_id


async def test_bad_arguments_are_not_sent(client: LiveAuditClient, emulator: Emulator) -> None:
    """An impossible argument is refused before it costs a slot."""
    for call in (client.query("../bucket"), client.cancel(""), client.submit("file:///etc")):
        with pytest.raises(ConfigurationError):
            await call
    assert emulator.arrivals == []


# Attempts


@pytest.mark.parametrize(
    "fault",
    [
        Fault.throttle(),
        Fault.throttle(status=503),
        Fault.error(500),
        Fault.error(503),
        Fault.reset(),
        Fault.truncated(),
        Fault.garbage(),
        Fault.slow(60),
    ],
    ids=str,
)
async def test_transient_failures_are_retried(
    emulator: Emulator, client: LiveAuditClient, fault: Fault
) -> None:
    """Two transient failures of any kind are retried, and only the hook sees them."""
    attempts: list[Attempt] = []
    job_id = emulator.add_job()
    emulator.inject(fault, times=2)
    job = await client.with_options(on_attempt=attempts.append).query(job_id)
    assert job.job_id == job_id
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert [attempt.error is None for attempt in attempts] == [False, False, True]
    assert [attempt.delay is None for attempt in attempts] == [False, False, True]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.throttle(), Throttled),
        (Fault.error(500), ServiceUnavailable),
        (Fault.reset(), TransportError),
        (Fault.garbage(), DecodeError),
    ],
)
async def test_a_lasting_failure_is_raised_after_the_last_attempt(
    emulator: Emulator, client: LiveAuditClient, fault: Fault, kind: type[LiveAuditError]
) -> None:
    """The error names the operation, the job and the number of attempts."""
    job_id = emulator.add_job()
    emulator.inject(fault)
    with pytest.raises(kind, match=rf"query of {job_id}: .* \(after 4 attempts\)") as caught:
        await client.query(job_id)
    assert (caught.value.operation, caught.value.job_id) == ("query", job_id)
    assert caught.value.attempts == len(emulator.arrivals) == 4


async def test_every_attempt_passes_the_limiter_and_is_freshly_signed(emulator: Emulator) -> None:
    """With one slot a second, three attempts leave a second apart, with three signatures."""
    seen: list[str] = []
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"authorization"].decode())
        await emulator(scope, receive, send)

    emulator.inject(Fault.error(), times=2)
    retry = RetryPolicy(base_delay=1e-9)
    async with emulator.client(
        http_client=http_client(app),
        rate=1,
        retry=retry,
        now=lambda: 1_700_000_000 + loop.time(),
    ) as client:
        emulator._now = lambda: 1_700_000_000 + loop.time()
        await client.query(emulator.add_job())
    first, second, third = (arrival.time for arrival in emulator.arrivals)
    assert second - first >= 1
    assert third - second >= 1
    assert len(set(seen)) == 3


async def test_throttling_holds_back_everybody_on_the_limiter(emulator: Emulator) -> None:
    """After a throttled attempt nobody who shares the limiter sends for a second."""
    limiter = LocalRateLimiter(20)
    job_id = emulator.add_job()
    async with emulator.client(limiter=limiter) as one, emulator.client(limiter=limiter) as other:
        await one.query(job_id)
        emulator.inject(Fault.throttle(), times=1)
        await asyncio.gather(one.query(job_id), *(other.query(job_id) for _ in range(10)))
    refused = next(arrival.time for arrival in emulator.arrivals if arrival.status == 429)
    later = [arrival.time for arrival in emulator.arrivals if arrival.time > refused]
    assert len(later) == 11
    assert min(later) >= refused + 1


async def test_retry_after_is_obeyed_by_everybody(emulator: Emulator) -> None:
    """If the service asks for seven seconds, everybody waits seven seconds."""
    job_id = emulator.add_job()
    emulator.inject(Fault.throttle(retry_after=7), times=1)
    async with emulator.client() as client:
        await asyncio.gather(client.query(job_id), client.query(job_id))
    times = [arrival.time for arrival in emulator.arrivals]
    assert len(times) == 3  # the other had left together with the one that was refused
    assert times[2] - times[0] >= 7


async def test_a_retry_after_that_is_too_long_is_raised(emulator: Emulator) -> None:
    """If the service asks for an hour, the call ends at once and says so."""
    emulator.inject(Fault.throttle(retry_after=3600))
    async with emulator.client() as client:
        with pytest.raises(Throttled) as caught:
            await client.query(emulator.add_job())
    assert (caught.value.attempts, caught.value.retry_after) == (1, 3600)


@pytest.mark.parametrize(
    ("fault", "most"), [(Fault.error(500), 1035), (Fault.reset(), 1035), (Fault.throttle(), 1100)]
)
async def test_an_outage_costs_at_most_1200_attempts(fault: Fault, most: int) -> None:
    """1,000 calls during a total outage cost little more than 1,000 attempts."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=1e9)
    emulator.inject(fault)
    async with emulator.client(rate=1000) as client:
        calls = (client.query(job_id) for _ in range(1000))
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, LiveAuditError) for result in results)
    assert len(emulator.arrivals) <= most


async def test_after_an_outage_retries_come_back() -> None:
    """Successes fill the budget again, so that the next fault is survived."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job(duration=1e9)
    emulator.inject(Fault.error(), times=200)
    async with emulator.client(retry=RetryPolicy(deadline=1e9)) as client:
        for _ in range(200):
            try:
                await client.query(job_id)
            except ServiceUnavailable as error:
                last = error
        assert last.attempts == 1  # the budget was used up
        emulator.inject(Fault.error(), times=1)
        assert (await client.query(job_id)).job_id == job_id


# Submissions and cancellations are not queries


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.garbage(), Fault.error(500)])
async def test_a_submission_that_may_have_arrived_is_not_repeated(
    emulator: Emulator, client: LiveAuditClient, fault: Fault
) -> None:
    """A job and its bill may exist already, and the error says so."""
    emulator.inject(fault)
    with pytest.raises(LiveAuditError) as caught:
        await client.submit(URL)
    assert len(emulator.arrivals) == caught.value.attempts == 1
    assert caught.value.may_have_happened
    assert "submit: " in str(caught.value)


async def test_a_submission_that_did_not_arrive_is_repeated(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A throttled submission did not happen, so the next attempt starts the only job."""
    emulator.inject(Fault.throttle(), times=2)
    await client.submit(URL)
    assert (len(emulator.arrivals), len(emulator.jobs)) == (3, 1)


async def test_a_cancel_whose_response_was_lost_counts_as_done(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Carried out, lost, repeated and refused: a query shows that the job has ended."""
    job_id = emulator.add_job(data_id="mine")
    emulator.inject(Fault.reset(), times=1)
    cancelled = await client.cancel(job_id)
    assert (cancelled.job_id, cancelled.data_id) == (job_id, "mine")
    assert cancelled.state == JobState.CANCELLED
    assert [arrival.method for arrival in emulator.arrivals] == ["POST", "POST", "GET"]


async def test_a_cancel_that_is_refused_is_raised(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """If the first attempt is refused, no response was lost: the job ended by itself."""
    job_id = emulator.add_job(duration=1)
    await asyncio.sleep(2)
    with pytest.raises(InvalidArgument) as caught:
        await client.cancel(job_id)
    assert (caught.value.operation, caught.value.attempts) == ("cancel", 1)
    assert [arrival.status for arrival in emulator.arrivals] == [400, 200]


async def test_cancelling_a_cancelled_job_is_no_error(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Stopping a stream twice succeeds, whatever the service says to the second cancel."""
    job_id = emulator.add_job(data_id="mine")
    await client.cancel(job_id)
    again = await client.cancel(job_id)
    assert (again.job_id, again.data_id, again.state) == (job_id, "mine", JobState.CANCELLED)
    assert [arrival.status for arrival in emulator.arrivals] == [200, 400, 200]


async def test_a_cancel_whose_fate_stays_unknown_is_raised(emulator: Emulator) -> None:
    """If the query that should settle it fails too, the error of the cancel is raised."""
    job_id = emulator.add_job()
    emulator.inject(Fault.reset(), times=1, operation="cancel")
    emulator.inject(Fault.error(), operation="query")
    async with emulator.client() as client:
        with pytest.raises(InvalidArgument) as caught:
            await client.cancel(job_id)
    assert (caught.value.operation, caught.value.may_have_happened) == ("cancel", True)


async def test_a_cancel_that_is_refused_while_the_job_runs_on_is_raised(emulator: Emulator) -> None:
    """If the job still runs, a refusal after a lost attempt is a refusal."""
    job_id = emulator.add_job()
    refusals = iter([ConnectionResetError("lost"), b"<Error><Code>InvalidArgument</Code></Error>"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await emulator(scope, receive, send)
            return
        refusal = next(refusals)
        if isinstance(refusal, Exception):
            raise refusal
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": refusal})

    async with emulator.client(http_client=http_client(app)) as client:
        with pytest.raises(InvalidArgument) as caught:
            await client.cancel(job_id)
    assert caught.value.may_have_happened
    assert caught.value.attempts == 2


# Clock and credentials


@pytest.mark.parametrize("seconds", [-86000, -4000, -700, 61, 4000, 86000])
async def test_a_wrong_clock_is_corrected_once(
    emulator: Emulator, client: LiveAuditClient, seconds: float
) -> None:
    """The service's clock is learnt from one refusal; then every signature is in time."""
    job_id = emulator.add_job()
    emulator.inject(Fault.skew(seconds))
    await client.query(job_id)
    await client.query(job_id)
    refused = {-1: 403, 1: 401}[1 if seconds > 0 else -1]
    expected = [200, 200] if 0 < seconds < 600 else [refused, 200, 200]
    assert [arrival.status for arrival in emulator.arrivals] == expected


async def test_a_wrong_clock_is_corrected_for_all_calls_in_flight() -> None:
    """One call learns the clock; the others that were refused try again as well."""
    emulator = Emulator(rate=1e6)
    job_id = emulator.add_job()
    emulator.inject(Fault.skew(5000))
    async with emulator.client() as client:
        jobs = await asyncio.gather(*(client.query(job_id) for _ in range(50)))
    assert {job.job_id for job in jobs} == {job_id}


async def test_a_slow_provider_does_not_bunch_requests(emulator: Emulator) -> None:
    """While everybody waits for credentials no slot is used, so the quota is kept afterwards."""

    async def provider() -> Credentials:
        await asyncio.sleep(3)
        return emulator.credentials

    job_id = emulator.add_job(duration=1e6)
    async with emulator.client(credentials=provider) as client:
        await asyncio.gather(*(client.query(job_id) for _ in range(100)))
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_credentials_that_end_in_the_queue_are_replaced() -> None:
    """A call that waits long for its slot is signed with credentials valid when it leaves."""
    loop = asyncio.get_running_loop()
    given: list[float] = []

    async def provider() -> Credentials:
        given.append(loop.time())
        return Credentials("AKIDEXAMPLE", "secretexample", expires_at=loop.time() + 2)

    limiter = LocalRateLimiter(20)
    emulator = Emulator(now=loop.time)
    job_id = emulator.add_job()
    async with emulator.client(credentials=provider, limiter=limiter) as client:
        limiter.hold(10)
        assert (await client.query(job_id)).job_id == job_id
    assert given == pytest.approx([0, 10], abs=0.1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("SignatureExpired", ""),
        ("RequestTimeTooSkewed", ""),
        ("AccessDenied", "Request has expired"),
    ],
)
@pytest.mark.parametrize(
    ("date", "attempts"),
    [(3600, 2), (-3600, 2), (0, 1), (20, 1), (200_000, 1), (None, 1)],
)
async def test_only_a_clock_that_is_really_off_is_corrected(
    code: str, message: str, date: float | None, attempts: int
) -> None:
    """A Date that agrees, is missing or absurd corrects nothing; one that differs corrects once."""
    now = 1_700_000_000
    headers = {}
    if date is not None:
        moment = datetime.fromtimestamp(now + date, UTC)
        headers["date"] = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    http, sent = answering(403, body, headers)
    async with for_tests(http_client=http, now=lambda: now) as client:
        with pytest.raises(AccessDenied):
            await client.query("a")
    assert len(sent) == attempts


async def test_one_attempt_learns_the_clock_for_the_next_call(emulator: Emulator) -> None:
    """A client that never retries fails once and then signs in time."""
    emulator.inject(Fault.skew(4000))
    job_id = emulator.add_job()
    async with emulator.client(retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(AccessDenied):
            await client.query(job_id)
        assert (await client.query(job_id)).job_id == job_id


async def test_replaced_credentials_are_renewed(emulator: Emulator) -> None:
    """A key that the service no longer knows is dropped, and the provider is called once more."""
    rotated = [Credentials("AKIDOLD", "old", expires_at=2e9), emulator.credentials]

    async def provider() -> Credentials:
        return rotated.pop(0) if len(rotated) > 1 else rotated[0]

    job_id = emulator.add_job()
    async with emulator.client(credentials=provider) as client:
        await client.query(job_id)
    assert [arrival.status for arrival in emulator.arrivals] == [401, 200]


async def test_credentials_that_stay_wrong_are_refused(emulator: Emulator) -> None:
    """The provider is called once more; fixed credentials are not tried again at all."""
    wrong = Credentials("AKIDOTHER", "secretexample")

    async def provider() -> Credentials:
        return wrong

    for credentials, attempts in ((wrong, 1), (provider, 2)):
        emulator.arrivals.clear()
        async with emulator.client(credentials=credentials) as client:
            with pytest.raises(AccessDenied):
                await client.query("a")
        assert len(emulator.arrivals) == attempts


async def test_credentials_rotate_between_attempts(emulator: Emulator) -> None:
    """Every attempt of a call is signed with what the provider returns at that moment."""
    keys = [Credentials("AKID", f"key{number}", f"token{number}") for number in range(4)]
    given = iter(keys)

    async def provider() -> Credentials:
        emulator.credentials = next(given)
        return emulator.credentials

    emulator.inject(Fault.error(), times=3)
    job_id = emulator.add_job()
    async with emulator.client(credentials=provider) as client:
        await client.query(job_id)
    assert [arrival.status for arrival in emulator.arrivals] == [500, 500, 500, 200]


async def test_no_credentials_is_an_error_of_the_call(emulator: Emulator) -> None:
    """A provider that fails sends nothing, and the error names the call."""

    async def provider() -> Credentials:
        raise RuntimeError("vault is sealed")

    async with emulator.client(credentials=provider) as client:
        with pytest.raises(CredentialsError, match=r"query of a: .*vault is sealed"):
            await client.query("a")
    assert emulator.arrivals == []


# What others may do


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A signed request goes nowhere else; the error names the target of the redirect."""
    http, sent = answering(status, headers={"location": "https://elsewhere.example/"})
    async with for_tests(http_client=http) as client:
        with pytest.raises(ServiceError, match=r"redirected to https://elsewhere\.example/"):
            await client.query("a")
    assert [headers["host"] for headers in sent] == [
        "examplebucket-1250000000.ci.ap-beijing.myqcloud.com"
    ]


async def test_httpx2_works(emulator: Emulator) -> None:
    """The maintained fork of httpx works through http_client."""
    transport = httpx2.ASGITransport(emulator)
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        emulator.client(http_client=http) as client,
    ):
        job_id = emulator.add_job()
        assert (await client.query(job_id)).job_id == job_id


async def test_cancelled_calls_leave_nothing_behind(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A call cancelled in the limiter, the exchange or between attempts leaves nothing behind."""
    job_id = emulator.add_job(duration=1e6)
    emulator.inject(Fault.slow(3), share=0.3)
    emulator.inject(Fault.error(), share=0.3)
    before = asyncio.all_tasks()
    calls = [asyncio.create_task(client.query(job_id)) for _ in range(200)]
    for number, call in enumerate(calls):
        await asyncio.sleep(0.037)
        if number % 2:
            call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    emulator.faults.clear()
    assert (await client.query(job_id)).job_id == job_id
    await asyncio.sleep(3)
    assert asyncio.all_tasks() == before


async def test_a_stale_connection_costs_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query whose connection was just closed is repeated at once, on a new one, and only once."""
    seen: list[Attempt] = []
    stale = TransportError("closed", reused=True)
    client = for_tests(on_attempt=seen.append, retry=RetryPolicy(base_delay=1.0, attempts=3))
    reuses: list[bool] = []

    async def send(*_: Any, reuse: bool, **__: Any) -> Any:
        reuses.append(reuse)
        return Response(status=0, error=stale)

    monkeypatch.setattr(Transport, "send", send)
    async with client:
        with pytest.raises(TransportError):
            await client.query("a")
    assert reuses == [True, False, False]
    assert seen[0].delay == 0.0
    assert seen[1].delay


async def test_every_error_has_its_request_id() -> None:
    """The service's request id is known even if its response cannot be read."""
    http, _ = answering(200, b"<html>", {"x-ci-request-id": "r1"})
    async with for_tests(http_client=http, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(DecodeError, match=r"\[request id r1\]") as caught:
            await client.query("a")
    assert caught.value.request_id == "r1"


@pytest.mark.parametrize(("status", "kind"), [(503, ServiceUnavailable), (429, Throttled)])
async def test_a_status_that_says_all_needs_no_body(
    status: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a broken response, a status that says all is enough; otherwise the response is lost."""

    async def send(*_: Any, **__: Any) -> Response:
        return Response(status=status, headers={}, error=TransportError("cut"))

    client = for_tests(retry=RetryPolicy(attempts=1))
    monkeypatch.setattr(Transport, "send", send)
    async with client:
        with pytest.raises(kind) as caught:
            await client.query("a")
        assert isinstance(caught.value.__cause__, TransportError)
        status = 404
        with pytest.raises(TransportError, match="cut"):
            await client.query("a")


async def test_an_urgent_call_does_not_wait_for_retries(emulator: Emulator) -> None:
    """While one call waits for its next attempt, another goes through."""
    job_id = emulator.add_job()
    emulator.inject(Fault.error(), times=3)
    async with emulator.client(retry=RetryPolicy(base_delay=100, max_delay=100)) as client:
        slow = asyncio.create_task(client.query(job_id))
        await asyncio.sleep(0.01)
        emulator.faults.clear()
        began = asyncio.get_running_loop().time()
        await client.query(job_id)
        assert asyncio.get_running_loop().time() - began < 0.1
        await slow


async def test_a_response_about_another_job_is_refused() -> None:
    """A response to another request is not accepted, and the connection is dropped."""
    http, sent = answering(
        200, b"<Response><JobsDetail><JobId>b</JobId><State>Success</State></JobsDetail></Response>"
    )
    async with for_tests(http_client=http) as client:
        with pytest.raises(DecodeError, match=r"query of a: .* about another job, b"):
            await client.query("a")
    assert len(sent) == 4


# Construction and life


async def test_the_region_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region TENCENTCLOUD_REGION is used; without either there is an error."""
    with pytest.raises(ConfigurationError, match="TENCENTCLOUD_REGION"):
        LiveAuditClient("examplebucket-1250000000")
    monkeypatch.setenv("TENCENTCLOUD_REGION", "eu-frankfurt")
    http, sent = answering(200)
    credentials = Credentials("id", "key")
    async with LiveAuditClient(
        "examplebucket-1250000000", credentials=credentials, http_client=http
    ) as client:
        await client.cancel("a")
    assert sent[0]["host"] == "examplebucket-1250000000.ci.eu-frankfurt.myqcloud.com"


@pytest.mark.parametrize(
    "options",
    [
        {"on_attempt": asyncio.sleep},
        {"http_client": object()},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("inf")},
        {"rate": 0},
        {"credentials": 7},
        {"endpoint": "ftp://example.com"},
        {"endpoint": "https://"},
        {"endpoint": "https://example.com/path"},
        {"endpoint": "https://user:pass@example.com"},
        {"endpoint": "https://example.com?x=1"},
        {"endpoint": "https://example.com:99999"},
        {"endpoint": "https://[::1"},
        {"endpoint": "https://exa mple.com"},
        {"endpoint": "example.com"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """An argument that cannot work is refused when the client is made."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        for_tests(**options)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://[::1]:80/", "https://ci"])
async def test_requests_go_to_the_endpoint(endpoint: str) -> None:
    """A scheme, a host and perhaps a port make an endpoint, and requests go there."""
    http, sent = answering(200, b"")
    async with for_tests(endpoint=endpoint, http_client=http) as client:
        await client.cancel("a")
    assert sent[0]["host"] == endpoint.partition("://")[2].rstrip("/")


async def test_siblings_share_and_differ(emulator: Emulator) -> None:
    """with_options changes what is given, shares the rest, and does not close what is shared."""
    seen: list[Attempt] = []
    job_id = emulator.add_job()
    emulator.inject(Fault.slow(5), times=1)
    async with emulator.client() as client:
        sibling = client.with_options(
            timeout=1, retry=RetryPolicy(attempts=1), on_attempt=seen.append
        )
        async with sibling:
            with pytest.raises(TransportError, match="within 1 s"):
                await sibling.query(job_id)
        assert len(seen) == 1
        assert (await client.query(job_id)).job_id == job_id
        assert (await client.with_options().query(job_id)).job_id == job_id
        assert len(seen) == 1


async def test_a_closed_client_says_so(emulator: Emulator) -> None:
    """After closing, even twice, a call is a clear error and nothing is sent."""
    client = emulator.client()
    async with client:
        pass
    await client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await client.query("a")


@pytest.mark.parametrize("waits_for", ["slot", "response", "next attempt", "credentials"])
async def test_closing_ends_calls_wherever_they_wait(emulator: Emulator, waits_for: str) -> None:
    """A call ends when its client is closed, wherever it waits at that moment."""

    async def slow() -> Credentials:
        await asyncio.sleep(20)
        return emulator.credentials

    limiter = LocalRateLimiter(20)
    options: dict[str, Any] = {"credentials": slow} if waits_for == "credentials" else {}
    client = emulator.client(timeout=1000, limiter=limiter, **options)
    if waits_for == "slot":
        limiter.hold(1000)
    elif waits_for == "response":
        emulator.inject(Fault.slow(1000))
    elif waits_for == "next attempt":
        emulator.inject(Fault.throttle(retry_after=50))
    call = asyncio.create_task(client.query("a"))
    await asyncio.sleep(10)
    began = asyncio.get_running_loop().time()
    closing = asyncio.create_task(client.aclose())
    with pytest.raises(ConfigurationError, match="closed"):
        await call
    assert asyncio.get_running_loop().time() - began < 0.01
    await closing
    # An exchange over a client that is not ours is given a second to end by itself.
    assert asyncio.get_running_loop().time() - began < 1.01


def test_a_second_event_loop_is_refused(emulator: Emulator) -> None:
    """A client that is used on another loop says what to do."""
    client = emulator.client()
    job_id = emulator.add_job()
    asyncio.run(client.query(job_id))
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(client.query(job_id))


# What is told


async def test_attempts_are_reported_with_their_times(emulator: Emulator) -> None:
    """The hook sees operation, job, number, waiting, duration, status, request id and delay."""
    seen: list[Attempt] = []
    job_id = emulator.add_job()
    emulator.inject(Fault.error(503), times=1)
    emulator.inject(Fault.slow(2), times=1)
    async with emulator.client(on_attempt=seen.append, rate=1) as client:
        job = await client.query(job_id)
    first, second = seen
    assert (first.operation, first.job_id, first.number, first.status) == ("query", job_id, 1, 503)
    assert isinstance(first.error, ServiceUnavailable)
    assert first.request_id == first.error.request_id
    assert second.request_id == job.request_id
    assert second.elapsed == pytest.approx(2)
    assert first.delay is not None
    assert second.queued == pytest.approx(1 - first.delay, abs=0.01)
    assert second.since_first == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError()], ids=repr)
async def test_an_exception_in_a_hook_is_logged(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """An exception in a hook does not reach the caller, not even one that looks like cancelling."""

    def hook(_: Attempt) -> None:
        raise error

    async with emulator.client(on_attempt=hook) as client:
        await client.query(emulator.add_job())
    assert "on_attempt failed" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_a_hook_is_raised(
    emulator: Emulator, error: type[BaseException]
) -> None:
    """Who interrupts the program in a hook interrupts the program."""

    def hook(_: Attempt) -> None:
        raise error

    async with emulator.client(on_attempt=hook) as client:
        with pytest.raises(error):
            await client.query(emulator.add_job())


async def test_logging_is_silent_by_default(
    emulator: Emulator, client: LiveAuditClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Attempts are logged at DEBUG, throttled ones at WARNING, and nothing above that."""
    job_id = emulator.add_job()
    emulator.inject(Fault.throttle(), times=1)
    with caplog.at_level(logging.DEBUG, logger="ci_live_audit"):
        await client.query(job_id)
    levels = [record.levelname for record in caplog.records if record.name == "ci_live_audit"]
    assert levels == ["WARNING", "DEBUG"]
    assert any(
        isinstance(handler, logging.NullHandler)
        for handler in logging.getLogger("ci_live_audit").handlers
    )


async def test_no_secret_in_errors_logs_or_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    """Neither key, token nor signature shows in an error, its locals, the log or the hook."""
    seen: list[Attempt] = []
    http, sent = answering(500, b"<Error><Code>InternalError</Code></Error>")
    with caplog.at_level(1):
        async with for_tests(http_client=http, on_attempt=seen.append) as client:
            with pytest.raises(ServiceUnavailable) as caught:
                await client.query("a")
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    signature = sent[0]["authorization"].rpartition("q-signature=")[2]
    frames = [frame for frame in told.stack if frame.filename != __file__]
    assert len(frames) >= 2
    text = str([frame.locals for frame in frames]) + str(caught.value)
    text += caplog.text + repr(seen) + repr(vars(client))
    assert "canary" not in text
    assert signature not in text


class TestOnRealTime:
    """Tests that need worker threads, for which virtual time does not wait."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_without_credentials_the_default_chain_is_used(
        self,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Without credentials=, those of an existing environment are found."""
        monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "AKIDFROMENV")
        monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "key")
        http, sent = answering(200)
        async with for_tests(credentials=None, http_client=http) as client:
            await client.cancel("a")
        assert "q-ak=AKIDFROMENV&" in sent[0]["authorization"]

    async def test_failed_calls_leave_no_garbage(self) -> None:
        """Dropped errors are gone at once, with their frames and what these hold."""
        async with for_tests(
            endpoint="http://127.0.0.1:1", rate=math.inf, retry=RetryPolicy(attempts=1)
        ) as client:

            async def fail() -> None:
                with contextlib.suppress(TransportError):
                    await client.query("a")

            await fail()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(5):
                    await fail()
                gc.collect()
                assert not [item for item in gc.garbage if isinstance(item, LiveAuditError)]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    async def test_a_large_response_is_decoded_off_the_loop(self, emulator: Emulator) -> None:
        """While a long night's response is decoded, the loop keeps running."""
        emulator.add_job("big", duration=1e6, script=[frame(0) for _ in range(2000)])
        emulator.jobs["big"].started = time.monotonic() - 1000
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        beating = asyncio.create_task(heart())
        async with emulator.client() as client:
            job = await client.query("big")
        beating.cancel()
        assert len(job.snapshots) == 2000
        assert beats > 3


@pytest.mark.parametrize(
    "call",
    [
        *(lambda client, value=value: client.query(value) for value in (5, None, b"a", "", "a/b")),
        *(lambda client, value=value: client.cancel(value) for value in (5, ["a"])),
        lambda client: client.submit("gopher://a/b"),
        lambda client: client.submit(None),
        lambda client: client.submit("rtmp://a/b", biz_type=7),
        lambda client: client.submit("rtmp://a/b", callback_type=9),
        *(lambda client, value=value: client.wait("a", interval=value) for value in (0, "1", -1)),
        *(lambda client, value=value: client.wait("a", timeout=value) for value in (0, math.nan)),
        lambda client: client.as_completed("abc").__aenter__(),
        lambda client: client.watch(["a"], interval=0).__aenter__(),
    ],
)
async def test_what_a_call_was_passed_is_told_from_settings(call: Any) -> None:
    """It is an `InvalidInput`, which a web service blames on its user; nothing is sent."""
    emulator = Emulator()
    async with emulator.client() as client:
        with pytest.raises(InvalidInput):
            await call(client)
    assert emulator.arrivals == []


@pytest.mark.parametrize(
    "setting",
    [{"bucket": 5}, {"region": "a b"}, {"rate": 0}, {"timeout": -1}, {"endpoint": "x"}],
)
def test_a_setting_is_no_input(setting: dict[str, Any]) -> None:
    """The client's own settings are a `ConfigurationError`, and no `ValueError`."""
    with pytest.raises(ConfigurationError) as caught:
        LiveAuditClient(**{"bucket": "examplebucket-1250000000", "region": "ap-beijing", **setting})
    assert not isinstance(caught.value, InvalidInput)
