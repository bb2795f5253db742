"""R9 and R10: whatever fails on the wire or in the service, a call ends in a result or one error.

A chaos proxy stands between the client and the emulator, which a thread of its own serves on a real
socket. The emulator's jobs show what really happened, and what an error says about it must be true.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import BACKENDS, left_open, nothing_more_open, times
from servers import (
    Handler,
    Recorder,
    answering,
    client_over,
    hanging_up,
    serving,
    shorten_holds,
)

from ci_live_audit import (
    Attempt,
    AuditJob,
    CancelledJob,
    DecodeError,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    RequestTimeout,
    RetryPolicy,
    ServiceError,
    ServiceUnavailable,
    SubmittedJob,
    Throttled,
    TransportError,
)
from ci_live_audit.testing import ChaosProxy, Emulator, Fault, WireFault
from ci_live_audit.testing.render import render
from ci_live_audit.wire import requests, signature

pytestmark = pytest.mark.waits  # for sockets

STREAM = "rtmp://live.example.com/app/room7"
OPERATIONS = ("query", "cancel", "submit")
#: Where the operation makes no difference to a foreign client, one is enough of it.
CALLERS = [(operation, "own") for operation in OPERATIONS]
CALLERS += [("query", "httpx"), ("query", "httpx2")]
ONCE = RetryPolicy(attempts=1)
AGAIN = RetryPolicy(attempts=4, base_delay=0.001, throttle_delay=0.001, max_delay=0.002)
PATIENCE = 10.0
#: For a server that stalls.
IMPATIENCE = 0.3


@attrs.frozen
class Service:
    """The emulator, its URL, and numbers that tell calls apart."""

    emulator: Emulator
    url: str
    numbers: Iterator[int]

    def happened(self, job_id: str, data_id: str, operation: str) -> int:
        """Return how often a call was carried out."""
        jobs = self.emulator.jobs
        if operation == "submit":
            return [job.data_id for job in list(jobs.values())].count(data_id)
        return int(operation == "cancel" and jobs[job_id].cancelled is not None)

    def arrived(self, job_id: str) -> bool:
        return any(job_id in arrival.path for arrival in list(self.emulator.arrivals))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Serve one emulator for all tests, which tell their calls apart by the ids of the jobs."""
    emulator = Emulator(rate=math.inf)
    with (
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        shorten_holds(patch, 0.001)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)  # switch often between the threads of client and service
        running = emulator.serve()
        yield Service(emulator, runner.run(running.__aenter__()), iter(range(10**9)))
        runner.run(running.__aexit__(None, None, None))
        sys.setswitchinterval(interval)


def client_of(
    url: str, backend: str = "own", **options: Any
) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
    defaults: dict[str, Any] = {"timeout": PATIENCE, "retry": ONCE}
    return client_over(backend, url, **(defaults | options))


async def call(
    client: LiveAuditClient, operation: str, job_id: str, data_id: str
) -> object | LiveAuditError:
    """Make a call and return its result or its `LiveAuditError`."""
    calls: dict[str, Callable[[], Any]] = {
        "query": lambda: client.query(job_id),
        "cancel": lambda: client.cancel(job_id),
        "submit": lambda: client.submit(STREAM, data_id=data_id),
    }
    try:
        outcome: object = await calls[operation]()
        return outcome
    except LiveAuditError as error:
        return error


def check(error: LiveAuditError, operation: str, job_id: str, most: int = 1) -> None:
    """Assert that an error names its operation, job, attempts and cause."""
    assert isinstance(error, TransportError | DecodeError | ServiceError)
    assert error.operation == operation
    assert error.job_id == (None if operation == "submit" else job_id)
    assert 1 <= error.attempts <= most
    assert not isinstance(error, TransportError) or error.__cause__ is not None


# Where a response breaks


async def record_response(service: Service, operation: str) -> bytes:
    """Return the bytes of a response as they are on the wire."""
    job_id = service.emulator.add_job(duration=1e6)
    request = {
        "query": lambda: requests.query(job_id),
        "cancel": lambda: requests.cancel(job_id),
        "submit": lambda: requests.submit(STREAM, data_id="0000000"),
    }[operation]()
    host = service.url.removeprefix("http://")
    emulator = service.emulator
    headers = signature.sign(request, host, emulator.credentials, emulator._now())
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{request.method} {request.path} HTTP/1.1\r\n{fields}\r\n"
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(head.encode() + request.body)
    response = await reader.readuntil(b"\r\n\r\n")
    length = response.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
    response += await reader.readexactly(int(length))
    writer.close()
    assert response.startswith(b"HTTP/1.1 200")
    return response


def places(response: bytes) -> dict[str, int]:
    head = response.index(b"\r\n\r\n") + 4
    return {
        "0": 0,
        "1": 1,
        "20": 20,
        "in the headers": response.index(b"x-ci-request-id") + 3,
        "end of the headers": head,
        "middle of the body": (head + len(response)) // 2,
        "last byte - 1": len(response) - 1,
    }


def corruptions(response: bytes) -> dict[str, int]:
    return {
        "version": 2,
        "status": 10,
        "header name": response.index(b"content-type") + 2,
        "header value": response.index(b"application/xml"),
        "content-length": response.lower().index(b"content-length: ") + len("content-length: "),
        "end of a line": response.index(b"\r\n"),
        "body": response.index(b"</JobId>"),
    }


RESULTS = (AuditJob, CancelledJob, SubmittedJob)


@attrs.frozen
class Broken:
    """A fault on the wire, and what is known about the outcome."""

    name: str
    fault: WireFault
    expected: tuple[type, ...]
    timeout: float = PATIENCE
    #: Whether the request id arrives; None if either may happen.
    has_id: bool | None = None


def broken(kind: str, response: bytes) -> list[Broken]:
    """Return the cases of one kind of fault."""
    if kind == "refuse":
        return [Broken("refuse", WireFault.refuse(), (TransportError,), has_id=False)]
    if kind == "corrupt":
        return [
            Broken(name, WireFault.corrupt(at), (DecodeError,) if name == "body" else (object,))
            for name, at in corruptions(response).items()
        ]
    if kind == "slow":
        return [Broken("slow", WireFault.slow(size=50, seconds=0.001), RESULTS)]
    if kind == "hang_up":
        return [Broken("hang_up", WireFault.hang_up(0.02), RESULTS)]
    make = {"reset": WireFault.reset, "cut": WireFault.cut, "stall": WireFault.stall}[kind]
    expected = (RequestTimeout,) if kind == "stall" else (TransportError,)
    timeout = IMPATIENCE if kind == "stall" else PATIENCE
    head = response.index(b"\r\n\r\n") + 4
    return [Broken("request", make(None), expected, timeout, has_id=False)] + [
        Broken(name, make(at), expected, timeout, has_id=at >= head)
        for name, at in places(response).items()
    ]


KINDS = ("refuse", "reset", "cut", "stall", "corrupt", "slow", "hang_up")
WIRE = [
    (kind, operation, backend)
    for kind in KINDS
    for operation in OPERATIONS
    for backend in BACKENDS
    if (operation, backend) in CALLERS
]


@pytest.mark.parametrize(("kind", "operation", "backend"), WIRE)
async def test_r10_a_fault_on_the_way_is_one_typed_error(
    kind: str, operation: str, backend: str, service: Service
) -> None:
    """The error has call, request id and cause, and is right about what may have happened."""
    response = await record_response(service, operation)

    async def run(case: Broken) -> None:
        job_id = service.emulator.add_job(duration=1e6)
        data_id = f"room {next(service.numbers)}"
        async with (
            ChaosProxy(service.url) as proxy,
            client_of(proxy.url, backend, timeout=case.timeout) as client,
        ):
            proxy.inject(case.fault, times=1)
            outcome = await call(client, operation, job_id, data_id)
            assert isinstance(outcome, case.expected), (case, outcome)
            happened = service.happened(job_id, data_id, operation)
            if isinstance(outcome, LiveAuditError):
                check(outcome, operation, job_id)
                assert outcome.may_have_happened or not happened, (case, outcome)
                if isinstance(outcome, TransportError) and not outcome.sent:
                    assert not service.arrived(job_id)
                assert case.has_id is None or (outcome.request_id is not None) == case.has_id, case
            else:
                assert happened == (operation != "query")
            await still_works(client, service)

    await asyncio.gather(*map(run, broken(kind, response)))


@pytest.mark.parametrize(("kind", "operation", "backend"), WIRE)
async def test_r10_a_fault_on_the_way_is_retried_if_that_is_safe(
    kind: str, operation: str, backend: str, service: Service
) -> None:
    """A query or cancel is retried and succeeds; a submission happens at most once."""
    response = await record_response(service, operation)

    async def run(case: Broken) -> None:
        job_id = service.emulator.add_job(duration=1e6)
        data_id = f"room {next(service.numbers)}"
        options: dict[str, Any] = {"timeout": case.timeout, "retry": AGAIN}
        async with (
            ChaosProxy(service.url) as proxy,
            client_of(proxy.url, backend, **options) as client,
        ):
            proxy.inject(case.fault, times=1)
            outcome = await call(client, operation, job_id, data_id)
        happened = service.happened(job_id, data_id, operation)
        if not isinstance(outcome, LiveAuditError):
            assert happened == (operation != "query")
            return
        # One corrupt byte may make a status that does not look transient.
        assert operation == "submit" or case.name == "status", (case, outcome)
        check(outcome, operation, job_id, most=4)
        assert happened <= outcome.may_have_happened

    await asyncio.gather(*map(run, broken(kind, response)))


async def still_works(client: LiveAuditClient, service: Service) -> None:
    """Make several calls at once, which succeed, with retries if a kept connection was closed."""
    job_id = service.emulator.add_job(duration=1e6)
    client = client.with_options(timeout=PATIENCE, retry=AGAIN)
    jobs = await asyncio.gather(*(client.query(job_id) for _ in range(6)))
    assert [job.job_id for job in jobs] == [job_id] * 6


# Faults of the service

EMULATED: dict[str, tuple[Fault, type[LiveAuditError]]] = {
    "429": (Fault.throttle(), Throttled),
    "429, wait": (Fault.throttle(retry_after=0.001), Throttled),
    "SlowDown with 503": (Fault.throttle(status=503), Throttled),
    "500": (Fault.error(500), ServiceUnavailable),
    "503": (Fault.error(503), ServiceUnavailable),
    "garbage": (Fault.garbage(), DecodeError),
    "truncated": (Fault.truncated(), TransportError),
    "reset": (Fault.reset(), TransportError),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", EMULATED)
async def test_r10_a_fault_of_the_service_is_one_typed_error(
    name: str, operation: str, backend: str, service: Service
) -> None:
    """With one attempt, the error tells the truth; with more, whatever may be retried succeeds."""
    fault, expected = EMULATED[name]
    emulator = service.emulator
    async with client_of(service.url, backend) as client:
        for retry in (ONCE, AGAIN):
            job_id = emulator.add_job(duration=1e6)
            data_id = f"room {next(service.numbers)}"
            emulator.inject(fault, times=1, operation=operation)
            outcome = await call(client.with_options(retry=retry), operation, job_id, data_id)
            emulator.faults.clear()
            happened = service.happened(job_id, data_id, operation)
            if retry is ONCE or isinstance(outcome, LiveAuditError):
                assert isinstance(outcome, expected)
                assert retry is ONCE or operation == "submit"
                check(outcome, operation, job_id)
                assert (outcome.request_id is None) == (name == "reset")
                assert happened <= outcome.may_have_happened <= (expected is not Throttled)
            else:
                assert happened == (operation != "query")
        await still_works(client, service)


# Responses that no server should send


def reply(head: str, body: bytes = b"") -> bytes:
    """Return a response with a request id, complete except for what is wrong with it."""
    return f"{head}\r\nx-ci-request-id: rid-1\r\n\r\n".encode("latin-1") + body


JOB = AuditJob(job_id="av00000000000000000000000000000000", state=JobState.AUDITING)
OTHER_JOB = render(attrs.evolve(JOB, job_id="av11111111111111111111111111111111"))
HTTP = "HTTP/1.1 200 OK\r\n"
CHUNKED = HTTP + "Transfer-Encoding: chunked"
HEAD = (TransportError, False)
BODY = (TransportError, True)
READ = (DecodeError, True)
IMPOSSIBLE: dict[str, tuple[bytes, tuple[type[LiveAuditError], bool]]] = {
    "nothing": (b"", HEAD),
    "HTTP/0.9": (render(JOB), HEAD),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HEAD),
    "HTTP/x": (reply("HTTP/x 200 OK"), HEAD),
    "a banner": (b"SSH-2.0-OpenSSH_9.9\r\n", HEAD),
    "a TLS alert": (bytes.fromhex("15030300020228"), HEAD),
    "zeros": (bytes(1000), HEAD),
    "no status": (reply("HTTP/1.1  OK"), HEAD),
    "status 99": (reply("HTTP/1.1 99 Low\r\nContent-Length: 0"), HEAD),
    "status 1000": (reply("HTTP/1.1 1000 High\r\nContent-Length: 0"), HEAD),
    "only 1xx": (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, HEAD),
    "101": (reply("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c"), HEAD),
    "NUL in a header": (reply(HTTP + "X-Nul: a\0b"), HEAD),
    "no colon": (reply(HTTP + "no colon here"), HEAD),
    "a blank before the colon": (reply(HTTP + "X-Blank : 1"), HEAD),
    "a head too long": (reply(HTTP + "X-Long: " + "x" * 200_000), HEAD),
    "two Content-Lengths": (reply(HTTP + "Content-Length: 5\r\nContent-Length: 6", b"x" * 6), HEAD),
    "Content-Length: five": (reply(HTTP + "Content-Length: five"), HEAD),
    "Content-Length: -5": (reply(HTTP + "Content-Length: -5"), HEAD),
    "Content-Length too large": (reply(HTTP + "Content-Length: 1000", render(JOB)), BODY),
    "Transfer-Encoding: other": (reply(HTTP + "Transfer-Encoding: rot13", render(JOB)), HEAD),
    "chunk size xyz": (reply(CHUNKED, b"xyz\r\nabc\r\n0\r\n\r\n"), BODY),
    "chunk size -1": (reply(CHUNKED, b"-1\r\nabc\r\n0\r\n\r\n"), BODY),
    "chunk size too long": (reply(CHUNKED, b"f" * 40 + b"\r\nabc"), BODY),
    "chunk size too small": (reply(CHUNKED, b"1\r\nabc\r\n0\r\n\r\n"), BODY),
    "chunks without end": (reply(CHUNKED, b"3\r\nabc\r\n"), BODY),
    "broken gzip": (reply(HTTP + "Content-Encoding: gzip\r\nContent-Length: 3", b"abc"), READ),
    "a body of zeros": (reply(HTTP + "Content-Length: 9", bytes(9)), READ),
    "UTF-16": (reply(HTTP, "<Html/>".encode("utf-16")).replace(b"\r\n\r\nx", b"\r\nx"), READ),
    "500 and cut off": (
        reply("HTTP/1.1 500 Oh\r\nContent-Length: 9", b"x"),
        (ServiceUnavailable, True),
    ),
    "302": (
        reply("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0"),
        (ServiceError, True),
    ),
}


@pytest.mark.parametrize(("operation", "backend"), CALLERS)
@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_r10_an_impossible_response_is_one_typed_error(
    name: str, operation: str, backend: str
) -> None:
    """The error has the request id if the head could be read, and the client stays usable."""
    raw, (expected, has_id) = IMPOSSIBLE[name]
    async with (
        serving(hanging_up(raw)) as served,
        client_of(served.url, backend) as client,
    ):
        for _ in range(6):  # more often than a foreign client may have connections
            outcome = await call(client, operation, JOB.job_id, "room 7")
            assert isinstance(outcome, expected), outcome
            check(outcome, operation, JOB.job_id)
            assert outcome.may_have_happened == (name != "302")
            assert (outcome.request_id == "rid-1") == has_id
        assert await served.all_closed()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_r10_strange_headers_do_no_harm(operation: str, backend: str) -> None:
    """Headers that are not ASCII are ignored, and such a request id is kept."""
    headers = "x-ci-request-id: r\xe9q\r\nX-Odd: \xff\xfe\r\n"
    body = render(SubmittedJob(job_id=JOB.job_id, state=JobState.AUDITING))
    raw = f"{HTTP}Content-Length: {len(body)}\r\n{headers}\r\n".encode("latin-1") + body
    async with serving(hanging_up(raw)) as served, client_of(served.url, backend) as client:
        outcome: Any = await call(client, operation, JOB.job_id, "room 7")
        assert (outcome.job_id, outcome.request_id) == (JOB.job_id, "r\xe9q")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", ["query", "cancel"])
async def test_r10_a_response_to_another_call_is_an_error(operation: str, backend: str) -> None:
    """The call ends in a `DecodeError`, and the connection is not used again."""
    headers = "x-ci-request-id: rid-1\r\n"
    async with (
        serving(answering(OTHER_JOB, headers=headers)) as served,
        client_of(served.url, backend) as client,
    ):
        outcome = await call(client, operation, JOB.job_id, "room 7")
        assert isinstance(outcome, DecodeError)
        check(outcome, operation, JOB.job_id)
        assert outcome.request_id == "rid-1"
        if backend == "own":
            assert await served.all_closed()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["", "HTTP"])
async def test_r10_tls_that_fails_is_one_typed_error(
    raw: bytes, operation: str, backend: str
) -> None:
    """A server without TLS gets no request, and the error says so."""

    async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.inner.read(100)
        writer.write(raw)

    async with (
        serving(greeted) as served,
        client_of(served.url.replace("http:", "https:"), backend) as client,
    ):
        outcome = await call(client, operation, JOB.job_id, "room 7")
    assert isinstance(outcome, TransportError)
    check(outcome, operation, JOB.job_id)
    assert not outcome.sent
    assert not outcome.may_have_happened


# Any faults in any order

WIRE_FAULTS = st.one_of(
    st.just(WireFault.refuse()),
    st.builds(WireFault.reset, st.none() | st.integers(0, 900)),
    st.builds(WireFault.cut, st.none() | st.integers(0, 900)),
    st.builds(WireFault.corrupt, st.integers(0, 900), st.integers(1, 20)),
    st.builds(WireFault.slow, st.integers(100, 400), st.just(0.001)),
    st.just(WireFault.stall(100)),
    st.just(WireFault.hang_up(0.001)),
)
SERVICE_FAULTS = st.sampled_from([fault for fault, _ in EMULATED.values()])
STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.lists(WIRE_FAULTS | SERVICE_FAULTS, max_size=3)),
    min_size=1,
    max_size=4,
)


@pytest.mark.timeout(600)  # a minute of work, on a machine that may be busy
@given(STEPS)
@settings(max_examples=times(100))
def test_r10_whatever_happens_a_call_ends_in_a_result_or_one_error(
    service: Service, steps: list[tuple[str, list[WireFault | Fault]]]
) -> None:
    """After any faults in any order, errors tell the truth and the client works as if new."""
    emulator = service.emulator

    async def run() -> None:
        before = left_open()
        async with (
            ChaosProxy(service.url) as proxy,
            client_of(proxy.url, timeout=0.05, retry=AGAIN) as client,
        ):
            for operation, faults in steps:
                job_id = emulator.add_job(duration=1e6)
                data_id = f"room {next(service.numbers)}"
                for fault in faults:
                    (proxy if isinstance(fault, WireFault) else emulator).inject(fault, times=1)  # type: ignore[arg-type]
                outcome = await call(client, operation, job_id, data_id)
                happened = service.happened(job_id, data_id, operation)
                if isinstance(outcome, LiveAuditError):
                    check(outcome, operation, job_id, most=4)
                    assert happened <= outcome.may_have_happened
                else:
                    assert happened == (operation != "query")
            proxy.clear()
            emulator.faults.clear()
            await still_works(client, service)
        assert await nothing_more_open(before)

    asyncio.run(run())


# Idle connections


def closing(idle: Callable[[], float | None]) -> Handler:
    """Respond to queries, and close a connection that is then idle for so many seconds.

    With None, close it when the next request arrives, without a response.
    """
    body = render(JOB)
    response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        seconds: float | None = PATIENCE
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds) as patience:
                while seconds is not None:
                    await reader.request()
                    writer.write(response)
                    seconds = idle()
                    now = asyncio.get_running_loop().time()
                    patience.reschedule(now + (seconds or PATIENCE))
                await reader.request()

    return handle


async def pairs(handler: Handler, count: int, pause: Callable[[int], float]) -> list[Attempt]:
    """Query, pause, query, ``count`` times by 20 clients at once; return all attempts."""
    seen: list[Attempt] = []
    left = iter(range(count))

    async def work(url: str) -> None:
        retry = RetryPolicy(attempts=3, base_delay=100)
        async with client_of(url, on_attempt=seen.append, retry=retry) as client:
            for number in left:
                await client.query(JOB.job_id)
                await asyncio.sleep(pause(number))
                await client.query(JOB.job_id)

    async with serving(handler) as served:
        await asyncio.gather(*(work(served.url) for _ in range(20)))
    return seen


async def test_r09_an_idle_connection_that_closes_is_no_error() -> None:
    """Idle connections that close 2 ms before to 2 ms after the next query cost it no wait."""
    count = times(2_000)
    seen = await pairs(
        closing(lambda: 0.004), count, lambda number: 0.002 + 0.004 * (number % 101) / 100
    )
    assert sum(attempt.error is None for attempt in seen) == 2 * count
    lost = [attempt for attempt in seen if attempt.error is not None]
    assert all(isinstance(one.error, TransportError) and one.error.reused for one in lost)
    assert all(attempt.delay == 0 for attempt in lost)


async def test_r09_a_connection_that_closes_on_a_request_is_no_error() -> None:
    """A connection that closes just when the next request has arrived is no error."""
    count = times(2_000)
    idle = iter([PATIENCE, None] * count * 2)
    seen = await pairs(closing(lambda: next(idle)), count, lambda _: 0)
    lost = [attempt for attempt in seen if attempt.error is not None]
    assert sum(attempt.error is None for attempt in seen) == 2 * count
    assert len(lost) > count / 4
    assert all(isinstance(one.error, TransportError) and one.error.reused for one in lost)
    assert all(attempt.delay == 0 for attempt in lost)


async def test_r09_a_submission_never_meets_a_closing_connection() -> None:
    """Each submission has a connection of its own, so no closing server leaves it in doubt."""
    body = render(SubmittedJob(job_id=JOB.job_id, state=JobState.SUBMITTED))
    count = times(500)
    async with serving(answering(body)) as served, client_of(served.url) as client:
        for _ in range(count):
            await client.submit(STREAM)
        assert served.accepted == len(served.requests) == count


async def test_r09_a_restart_of_the_server_is_not_noticed(service: Service) -> None:
    """50 queries at once succeed although the server has closed the 50 idle connections."""
    job_id = service.emulator.add_job(duration=1e6)
    client, port = None, 0
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            async with ChaosProxy(service.url, port=port) as proxy:
                port = int(proxy.url.rpartition(":")[2])
                if client is None:
                    client = await stack.enter_async_context(client_of(proxy.url, retry=AGAIN))
                service.emulator.inject(Fault.slow(0.5))  # so that all 50 are in flight at once
                jobs = await asyncio.gather(*(client.query(job_id) for _ in range(50)))
                service.emulator.faults.clear()
                assert {job.job_id for job in jobs} == {job_id}
                assert proxy.accepted == proxy.open == 50
                async with proxy.down():  # open connections go on
                    await asyncio.gather(*(client.query(job_id) for _ in range(50)))
