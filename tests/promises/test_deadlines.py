"""R5: whatever a server does, a call ends by its deadline.

The servers run on the test's loop, behind real sockets. Loopback delivers at once, so time may jump
to the next timer whenever nothing is ready: a minute of dripping bytes takes milliseconds, and
lateness is exactly what the client adds. For the wall clock see ``benchmarks/deadlines.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio.to_thread
import pytest
from clocks import PatientLoop, now
from proofs import BACKENDS
from servers import Handler, Recorder, answering, client_for, client_over, serving

from ci_live_audit import (
    ConfigurationError,
    Credentials,
    LiveAuditClient,
    LiveAuditError,
    RequestTimeout,
    RetryPolicy,
    Throttled,
    TransportError,
    WaitTimeout,
)
from ci_live_audit.testing import Emulator, Fault, VirtualTimeLoop

LATE = 0.05
JOB_ID = "av0123456789abcdef0123456789abcdef"
STREAM = "rtmp://live.example.com/app/room7"
LARGE = {"Conf": {"Padding": "x" * 12_000_000}}
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = OK + b"Content-Length: 100000\r\n\r\n<Response>"


class StalledNames(VirtualTimeLoop):
    """Virtual time, and a name server that never responds."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        """Wait for ever."""
        await self.create_future()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Use virtual time, to measure the lateness of the client and not of the machine."""
    return "asyncio", {"loop_factory": StalledNames}


def dripping(first: bytes = b"", more: bytes = b"") -> Handler:
    """Read a request, write the first bytes, and then ``more`` again and again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        await reader.request()
        writer.write(first)
        while more:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.02)
        await reader.inner.read()  # until the client disconnects

    return handle


async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never read, so that the buffers between here and the client fill up."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().create_future()


async def half_closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the sending side only, and go on reading."""
    assert isinstance(reader, Recorder)
    writer.write_eof()
    await reader.inner.read()


def retry_after(seconds: str) -> Handler:
    """Refuse everything with a ``Retry-After``."""
    headers = f"Retry-After: {seconds}\r\n"
    return answering(b"", status="503 Service Unavailable", headers=headers)


HANDLERS: dict[str, Handler] = {
    "says nothing": dripping(),
    "TLS stalls": dripping(),
    "status line a byte at a time": dripping(b"HTTP/1.1 200 ", b"O"),
    "header a byte at a time": dripping(OK + b"X-Slow: ", b"x"),
    "endless headers": dripping(OK, b"X-More: more\r\n"),
    "endless 1xx": dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "stalls after the head": dripping(OK + b"Content-Length: 9\r\n\r\n"),
    "body a byte at a time": dripping(LONG, b"x"),
    "body without a length": dripping(OK + b"\r\n<Response>", b"x"),
    "endless chunks": dripping(CHUNKED, b"1\r\nx\r\n"),
    "endless trailers": dripping(CHUNKED + b"0\r\n", b"X-More: more\r\n"),
    "announces more than comes": dripping(LONG),
    "never reads": deaf,
    "closes its sending side": half_closing,
    "Retry-After: 1e9": retry_after("1e9"),
    "Retry-After: nan": retry_after("nan"),
    "Retry-After: inf": retry_after("inf"),
    "Retry-After: -1": retry_after("-1"),
    "Retry-After: 3": retry_after("3"),
}
BEHAVIOURS = ["accepts nothing", "name server stalls", *HANDLERS]
CALLS: dict[str, Callable[[LiveAuditClient, str], Awaitable[object]]] = {
    "query": lambda client, _: client.query(JOB_ID),
    "cancel": lambda client, _: client.cancel(JOB_ID),
    # A server that never reads keeps only a large request waiting.
    "submit": lambda client, behaviour: client.submit(
        STREAM, extra=LARGE if behaviour == "never reads" else None
    ),
}


@contextlib.asynccontextmanager
async def hostile(behaviour: str) -> AsyncIterator[str]:
    """Run a server that behaves in a certain way; yield its URL."""
    if behaviour == "name server stalls":
        yield "http://stalled.example"
    elif behaviour == "accepts nothing":
        with contextlib.ExitStack() as stack:
            listener = socket.create_server(("127.0.0.1", 0), backlog=0)
            stack.enter_context(listener)
            for _ in range(4):  # a full backlog drops further attempts
                fill = stack.enter_context(socket.socket())
                fill.setblocking(False)
                fill.connect_ex(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    else:
        async with serving(HANDLERS[behaviour]) as served:
            yield served.url.replace("http:", "https:") if "TLS" in behaviour else served.url
            assert behaviour == "never reads" or await served.all_closed()


def client_of(
    url: str, backend: str = "own", *, rate: float = 20.0, **options: Any
) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
    return client_over(backend, url, rate=rate, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_r05_an_exchange_ends_within_its_timeout(
    behaviour: str, call: str, backend: str
) -> None:
    """A call of one attempt ends in a typed error within ``timeout`` seconds."""
    options: dict[str, Any] = {"timeout": 1.0, "retry": RetryPolicy(attempts=1)}
    async with hostile(behaviour) as url, client_of(url, backend, **options) as client:
        began = now()
        with pytest.raises(LiveAuditError) as caught:
            await CALLS[call](client, behaviour)
        assert now() - began <= 1.0 + LATE
    assert caught.value.attempts == 1
    if behaviour in {"accepts nothing", "name server stalls", "TLS stalls"}:
        assert isinstance(caught.value, TransportError)
        assert not caught.value.sent


@pytest.mark.parametrize("rate", [math.inf, 2.0], ids=["no limit", "2 a second"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_r05_a_call_with_retries_ends_within_its_deadline(
    behaviour: str, call: str, rate: float
) -> None:
    """A call with retries ends within ``deadline`` seconds, apart from waits for slots."""
    queued: list[float] = []
    retry = RetryPolicy(attempts=1000, base_delay=0.1, max_delay=1, deadline=5)
    options: dict[str, Any] = {"timeout": 1.7, "retry": retry, "rate": rate}
    options["on_attempt"] = lambda attempt: queued.append(attempt.queued)
    async with hostile(behaviour) as url, client_of(url, **options) as client:
        began = now()
        with pytest.raises(LiveAuditError) as caught:
            await CALLS[call](client, behaviour)
        assert now() - began - sum(queued) <= 5 + LATE
    if call == "query" and behaviour not in {"Retry-After: 1e9", "Retry-After: inf"}:
        assert caught.value.attempts > 1


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_r05_waiting_ends_within_its_timeout(behaviour: str) -> None:
    """``wait`` raises a `WaitTimeout` within its ``timeout``."""
    async with hostile(behaviour) as url, client_of(url, timeout=2.3) as client:
        began = now()
        with pytest.raises(WaitTimeout):
            await client.wait(JOB_ID, interval=1, timeout=7)
        assert now() - began <= 7 + LATE


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_r05_a_run_ends_within_its_timeout(behaviour: str) -> None:
    """``as_completed`` has an outcome for every job and ends within its ``timeout``."""
    job_ids = [f"av{number:032x}" for number in range(10)]
    async with hostile(behaviour) as url, client_of(url, timeout=2.3) as client:
        began = now()
        async with client.as_completed(job_ids, interval=1, timeout=7) as outcomes:
            errors = {outcome.job_id: outcome.error async for outcome in outcomes}
        assert now() - began <= 7 + LATE
    assert sorted(errors) == job_ids
    assert {type(error) for error in errors.values()} == {WaitTimeout}


@pytest.mark.parametrize(
    ("behaviour", "backend"),
    [
        (behaviour, backend)
        for behaviour in BEHAVIOURS
        for backend in BACKENDS
        # httpx and httpx2 leak the socket of a cancelled TLS handshake.
        if behaviour != "TLS stalls" or backend == "own"
    ],
)
async def test_r05_closing_does_not_wait_for_a_server(behaviour: str, backend: str) -> None:
    """``aclose`` returns at once, or with a foreign client within its second of grace."""
    async with hostile(behaviour) as url, client_of(url, backend) as client:
        calls = [asyncio.create_task(client.query(JOB_ID)) for _ in range(3)]
        await asyncio.sleep(0.1)
        began = now()
        await client.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert now() - began <= (0 if backend == "own" else 1.0) + LATE
    assert all(isinstance(result, LiveAuditError) for result in results)


# What a call waits for besides the server

KEYS = ("AKIDEXAMPLE", "secretexample")
PAIR = Credentials(*KEYS)
DETAIL = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State>%s</JobsDetail></Response>"
TEXT = b"<Snapshot><Text>text</Text></Snapshot>"


class Provider:
    """Provides credentials at once a few times, and then hangs."""

    def __init__(self, *results: Credentials) -> None:
        self.results = list(results)

    async def provide(self) -> Credentials:
        if not self.results:
            await asyncio.sleep(3600)
        return self.results.pop(0)


class Slots:
    """A limiter whose slots open after so many seconds."""

    rate = 1.0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def acquire(self) -> float:
        await asyncio.sleep(self.seconds)
        return self.seconds

    def hold(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.mark.parametrize("call", CALLS)
async def test_r05_a_provider_that_hangs_ends_a_call_at_its_deadline(call: str) -> None:
    """Before the first slot, waiting for credentials counts too; nothing was sent."""
    options: dict[str, Any] = {"credentials": Provider().provide}
    async with client_of("http://127.0.0.1:1", retry=RetryPolicy(deadline=3), **options) as client:
        with pytest.raises(RequestTimeout, match="no credentials within the deadline of 3 s") as e:
            await CALLS[call](client, "")
    assert now() == pytest.approx(3, abs=LATE)
    assert not e.value.may_have_happened
    assert e.value.attempts == 1


async def test_r05_whether_there_are_other_keys_is_found_out_within_the_deadline() -> None:
    """After a wrong signature, a provider that hangs ends the call at its deadline."""
    emulator = Emulator()
    wrong = Provider(Credentials(KEYS[0], "wrong")).provide
    async with emulator.client(credentials=wrong, retry=RetryPolicy(deadline=3)) as client:
        with pytest.raises(LiveAuditError, match=r"SignatureDoesNotMatch|AccessDenied"):
            await client.query("a")
    assert now() == pytest.approx(3, abs=LATE)


async def test_r05_a_provider_that_hangs_after_the_slot_ends_a_call_at_its_deadline() -> None:
    """Credentials that expire during the wait for a slot are renewed within the deadline."""
    loop = asyncio.get_running_loop()
    expiring = Credentials("AKIDEXAMPLE", "secretexample", expires_at=loop.time() + 400)
    options: dict[str, Any] = {"credentials": Provider(expiring).provide, "now": loop.time}
    retry = RetryPolicy(deadline=3)
    async with client_of(
        "http://127.0.0.1:1", retry=retry, limiter=Slots(500), **options
    ) as client:
        with pytest.raises(RequestTimeout, match="no credentials within the deadline of 3 s"):
            await client.query("a")
    assert now() == pytest.approx(503, abs=LATE)


async def test_r05_what_is_late_is_not_sent() -> None:
    """If the time is over when the slot opens, the request does not leave."""

    class Silent(Slots):
        async def acquire(self) -> float:
            await super().acquire()
            return 0.0

    options: dict[str, Any] = {"limiter": Silent(9), "retry": RetryPolicy(deadline=3)}
    async with serving(dripping()) as served, client_of(served.url, **options) as client:
        with pytest.raises(RequestTimeout, match="nothing sent within the deadline of 3 s") as e:
            await client.submit(STREAM)
        assert served.requests == []
    assert not e.value.may_have_happened


async def test_r05_a_provider_that_hangs_after_a_refusal_ends_a_call_at_its_deadline() -> None:
    """Whether there are other credentials by now is found out within the deadline."""
    emulator = Emulator(credentials=Credentials("AKIDother", "other"))
    retry = RetryPolicy(deadline=3)
    provide = Provider(PAIR).provide
    async with emulator.client(credentials=provide, retry=retry) as client:
        with pytest.raises(LiveAuditError):
            await client.query(emulator.add_job())
    assert now() == pytest.approx(3, abs=LATE)


async def test_r05_a_renewal_goes_on_for_the_others() -> None:
    """A call that ends by its deadline does not end the renewal that others wait for."""
    emulator = Emulator()
    calls = 0

    async def slow() -> Credentials:
        nonlocal calls
        calls += 1
        await asyncio.sleep(10)
        return Credentials(*KEYS, expires_at=4e9)

    async with emulator.client(credentials=slow) as client:
        job_id = emulator.add_job()
        hasty = client.with_options(retry=RetryPolicy(deadline=3))
        results = await asyncio.gather(
            hasty.query(job_id), client.query(job_id), return_exceptions=True
        )
    assert isinstance(results[0], RequestTimeout)
    assert not isinstance(results[1], BaseException)
    assert calls == 1


async def test_r05_a_delay_does_not_pass_the_deadline() -> None:
    """Where waiting for credentials has used up the time, there is no other attempt."""
    emulator = Emulator()
    emulator.inject(Fault.throttle(retry_after=1))

    async def slow() -> Credentials:
        await asyncio.sleep(2.9)
        return Credentials(*KEYS, expires_at=4e9)

    async with emulator.client(credentials=slow, retry=RetryPolicy(deadline=3)) as client:
        with pytest.raises(Throttled) as caught:
            await client.query(emulator.add_job())
    assert caught.value.attempts == 1
    assert now() == pytest.approx(2.9, abs=LATE)


async def test_r05_closing_while_a_provider_hangs_says_so() -> None:
    """A closed client is a plain ConfigurationError, whatever its calls were waiting for."""
    client = client_for("http://127.0.0.1:1", credentials=Provider().provide)
    calls = [asyncio.create_task(client.query("a")) for _ in range(3)]
    await asyncio.sleep(1)
    await client.aclose()
    for call in calls:
        with pytest.raises(ConfigurationError, match="the client was closed during the call") as e:
            await call
        assert type(e.value) is ConfigurationError


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": PatientLoop})])
async def test_r05_threads_of_the_application_do_not_delay_decoding() -> None:
    """With all of anyio's threads busy, large responses are decoded, and providers are called."""
    free = threading.Event()
    began = threading.Semaphore(0)

    def hog() -> None:
        began.release()
        free.wait()

    body = DETAIL % (TEXT * 3000)
    assert len(body) > 114_000
    most = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
    hogs = [asyncio.create_task(anyio.to_thread.run_sync(hog)) for _ in range(most)]
    try:
        while began._value < most:
            await asyncio.sleep(0.01)
        async with (
            serving(answering(body)) as served,
            client_of(served.url, credentials=lambda: PAIR) as client,
        ):
            assert len((await client.query("a")).snapshots) == 3000
    finally:
        free.set()
        await asyncio.gather(*hogs)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": PatientLoop})])
async def test_r05_decoding_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that takes longer to decode than the deadline allows is given up."""
    free = threading.Event()
    monkeypatch.setattr("ci_live_audit.client.results.job", lambda *_, **__: free.wait())
    retry = RetryPolicy(deadline=0.5)
    try:
        async with (
            serving(answering(b"x" * 70_000)) as served,
            client_of(served.url, retry=retry) as client,
        ):
            with pytest.raises(
                RequestTimeout,
                match=r"the response of 70,000 bytes was not decoded within the deadline of 0.5 s",
            ) as caught:
                await client.query("a")
            assert len(served.requests) == 1
        assert caught.value.may_have_happened
    finally:
        free.set()


STUCK = """
import asyncio, sys, threading
from ci_live_audit import LiveAuditClient, RequestTimeout, RetryPolicy

async def main():
    async with LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", credentials=threading.Event().wait,
        retry=RetryPolicy(deadline=0.2),
    ) as client:
        try:
            await client.query("a")
        except RequestTimeout:
            print("ended")

asyncio.run(main())
"""


def test_r05_a_provider_that_is_stuck_does_not_hold_the_process() -> None:
    """A process ends although the provider of its credentials never returns."""
    command = [sys.executable, "-W", "error", "-c", STUCK]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=20)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)
