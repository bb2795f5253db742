"""R3 and R4: calls may be cancelled at any instant in any way, and leave nothing behind.

The server runs on the test's loop, behind real sockets, some of them with TLS. It responds in
pieces with pauses, refuses now and then, and some of its responses are large enough to be decoded
in a thread, so that every phase of a call can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
import trustme
from proofs import BACKENDS, left_open, nothing_more_open, times
from servers import client_over, eventually, shorten_holds

from ci_live_audit import (
    ConfigurationError,
    JobState,
    LiveAuditClient,
    LocalRateLimiter,
    RetryPolicy,
    ServiceError,
)
from ci_live_audit.models import AuditJob, Snapshot
from ci_live_audit.testing import Emulator, Fault, VirtualTimeLoop
from ci_live_audit.testing.render import render
from ci_live_audit.wire.documents import LARGE_BODY

JOB_ID = "av0123456789abcdef0123456789abcdef"
PATIENCE = 30.0
RETRY = RetryPolicy(attempts=5, base_delay=0.004, throttle_delay=0.004)
SNAPSHOTS = tuple(Snapshot(url=f"https://example.com/{number:0200}") for number in range(300))


@pytest.fixture
def anyio_backend() -> str:
    """Use real time, so that random instants fall into work as often as into waiting."""
    return "asyncio"


@pytest.fixture(autouse=True)
def quick_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a throttled request pause all callers for 2 ms."""
    shorten_holds(monkeypatch, 0.002)


@pytest.fixture(autouse=True)
async def no_complaints(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fail if asyncio logs anything or calls the loop's exception handler."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []
    records = caplog.records
    assert [it.getMessage() for it in records if it.levelno > logging.WARNING] == []
    assert [it.getMessage() for it in records if it.name == "asyncio"] == []


# A server that takes time in every phase


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def job(state: JobState = JobState.AUDITING, job_id: str = JOB_ID, **fields: Any) -> bytes:
    return whole(render(AuditJob(job_id=job_id, state=state, **fields)))


SMALL, LARGE = job(), job(snapshots=SNAPSHOTS)
assert len(LARGE) > LARGE_BODY
REFUSALS = (whole(b"", "500 Internal Server Error"), whole(b"", "429 Too Many Requests"))


class Server:
    """Responds in pieces with random pauses; without ``rng``, whole and after ``delay`` seconds.

    ``respond`` makes the response for a job's id.
    """

    def __init__(self, respond: Callable[[str], bytes] = lambda _: SMALL) -> None:
        self.url = ""
        self.open = self.accepted = 0
        self.rng: random.Random | None = None
        self.delay = 0.0
        self.respond = respond

    def pieces(self, job_id: str) -> list[tuple[float, bytes]]:
        """Return the pieces of a response, each with the pause before it."""
        if self.rng is None:
            return [(self.delay, self.respond(job_id))]
        chance = self.rng.random()
        if chance < 0.06:
            return [(0.001, REFUSALS[chance < 0.02])]
        response = LARGE if chance > 0.96 else self.respond(job_id)
        head = response.index(b"\r\n\r\n") + 4
        pause = self.rng.choice((0, 0.001, 0.003))
        return [
            (pause, response[:10]),
            (pause, response[10:head]),
            (pause, response[head : head + 50]),
            (pause, response[head + 50 :]),
        ]


class ServerConnection(asyncio.Protocol):
    """A connection of the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.open += 1
        self._server.accepted += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._server.open -= 1

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            job_id = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
            self._write(self._server.pieces(job_id))

    def _write(self, pieces: list[tuple[float, bytes]]) -> None:
        while pieces and not self._transport.is_closing():
            pause, piece = pieces[0]
            if pause:
                pieces[0] = (0, piece)
                asyncio.get_running_loop().call_later(pause, self._write, pieces)
                return
            self._transport.write(piece)
            del pieces[0]


@contextlib.asynccontextmanager
async def running(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()
    make = partial(ServerConnection, server)
    listener = await loop.create_server(make, "127.0.0.1", 0, ssl=tls, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()


@attrs.frozen
class Tls:
    """The server's context, and the clients' that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return Tls(server, ssl.create_default_context(cafile=file))


def client_of(
    server: Server, backend: str = "own", tls: Tls | None = None, **options: Any
) -> contextlib.AbstractAsyncContextManager[LiveAuditClient]:
    verify = None if tls is None else tls.client
    return client_over(backend, server.url, verify=verify, **({"retry": RETRY} | options))


async def no_connection_is_lost(client: LiveAuditClient, server: Server) -> bool:
    """Return whether as many queries at once as there are connections need no new one."""
    server.delay = 0.1
    for _ in range(5):  # the server may yet learn that some are closed
        count, accepted = server.open, server.accepted
        await asyncio.gather(*(client.query(JOB_ID) for _ in range(count)))
        if (server.open, server.accepted) == (count, accepted):
            return True
    return False


def tasks_of_the_package() -> list[asyncio.Task[Any]]:
    """Return the unfinished tasks that the package has started, and calls that are tasks."""
    coroutines: list[tuple[asyncio.Task[Any], Any]]
    coroutines = [(task, task.get_coro()) for task in asyncio.all_tasks()]
    name = "ci_live_audit."
    return [task for task, it in coroutines if it.cr_frame.f_globals["__name__"].startswith(name)]


# The ways in which programs cancel


async def by_task(client: LiveAuditClient, after: float) -> None:
    task = asyncio.create_task(client.query(JOB_ID))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_timeout(client: LiveAuditClient, after: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(after):
            await client.query(JOB_ID)


async def by_move_on(client: LiveAuditClient, after: float) -> None:
    with anyio.move_on_after(after):
        await client.query(JOB_ID)


async def by_scope(client: LiveAuditClient, after: float) -> None:
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_later(after, scope.cancel)
        await client.query(JOB_ID)


async def by_failing_group(client: LiveAuditClient, after: float) -> None:
    async def fail() -> None:
        await asyncio.sleep(after)
        raise ZeroDivisionError

    with contextlib.suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(client.query(JOB_ID))
            group.create_task(client.cancel(JOB_ID))
            group.create_task(fail())


async def by_group(client: LiveAuditClient, after: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(client.query, JOB_ID)
        await anyio.sleep(after)
        group.cancel_scope.cancel()


async def by_generator(client: LiveAuditClient, after: float) -> None:
    async def polled() -> AsyncIterator[None]:
        async with client.as_completed([JOB_ID], interval=0.002):
            yield

    async with contextlib.aclosing(polled()) as generator:  # type: ignore[type-var]
        await anext(generator)
        await asyncio.sleep(after)


async def by_wait(client: LiveAuditClient, after: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.wait(JOB_ID, interval=0.002), after)


WAYS = (
    *(by_task, by_timeout, by_move_on, by_scope),
    *(by_failing_group, by_group, by_generator, by_wait),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "share"), [("http", 0.9), ("https", 0.1)])
async def test_r03_cancelled_calls_do_no_harm(
    name: str, share: float, backend: str, tls: Tls
) -> None:
    """After thousands of cancellations at random instants, the client works as if new."""
    rng = random.Random(f"{name} {backend}")
    before = left_open()
    limiter = LocalRateLimiter(3000)
    server = Server()
    encrypted = tls.server if name == "https" else None
    async with (
        running(server, encrypted),
        client_of(server, backend, tls, limiter=limiter) as client,
    ):
        count = round(times(10_000) * share)
        server.rng = rng
        left = iter(range(count))
        refused: list[int] = []

        async def work() -> None:
            for number in left:
                # Over a foreign client exchanges go on after their callers were cancelled.
                while len(tasks_of_the_package()) > 40:
                    await asyncio.sleep(0.001)
                try:
                    await WAYS[number % len(WAYS)](client, rng.random() ** 2 * 0.04)
                except* ServiceError:  # the budget for retries may be used up
                    refused.append(number)

        await asyncio.gather(*(work() for _ in range(12)))
        assert len(refused) < count / 10
        assert await eventually(lambda: not tasks_of_the_package())

        server.rng = None
        async with asyncio.timeout(PATIENCE):  # a call that is stuck would be stuck for ever
            jobs = await asyncio.gather(*(client.query(JOB_ID) for _ in range(20)))
        assert [job.job_id for job in jobs] == [JOB_ID] * 20
        gc.collect()
        scopes = [it for it in gc.get_objects() if type(it) is asyncio.Timeout]
        # Scopes of calls never expire; the timeouts of this test have, and logged errors hold them.
        assert all(it.expired() for it in scopes)
        if backend == "own":
            assert await no_connection_is_lost(client, server)
        else:
            assert server.open <= 5
    assert await eventually(lambda: server.open == 0)
    assert await nothing_more_open(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["new", "kept", "TLS", "large"])
async def test_r03_a_call_may_be_cancelled_in_any_step(kind: str, backend: str, tls: Tls) -> None:
    """A call cancelled after 0, 1, 2, … steps of the loop leaves nothing; the next one succeeds."""
    before = left_open()
    response = LARGE if kind == "large" else SMALL
    if kind != "kept" and backend == "own":
        response = response.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    server = Server(lambda _: response)
    encrypted = tls.server if kind == "TLS" else None
    async with running(server, encrypted), client_of(server, backend, tls) as client:
        for steps in range(10_000):
            if kind == "kept":
                await client.query(JOB_ID)
            task = asyncio.create_task(client.query(JOB_ID))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert (await client.query(JOB_ID)).job_id == JOB_ID
            if not task.cancelled():
                break
        assert task.result().job_id == JOB_ID
        assert steps > 5
        if backend == "own":
            expected = 1 if kind == "kept" else 0
            assert await eventually(lambda: server.open == expected)
        assert await eventually(lambda: not tasks_of_the_package())
    assert await eventually(lambda: server.open == 0)
    assert await nothing_more_open(before)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": VirtualTimeLoop})])
async def test_r03_cancelled_calls_cost_no_slot() -> None:
    """After thousands of cancelled calls, the whole rate is left for those that follow."""
    emulator = Emulator(rate=1000)
    emulator.inject(Fault.slow(0.01), share=0.3)
    emulator.inject(Fault.error(), share=0.2)
    job_id = emulator.add_job(duration=1e6)
    rng = random.Random(4)
    async with emulator.client(rate=20, retry=RETRY) as client:

        async def impatient() -> None:
            with anyio.move_on_after(rng.random() * 3), contextlib.suppress(ServiceError):
                await client.query(job_id)

        for _ in range(times(3_000) // 100):
            await asyncio.gather(*(impatient() for _ in range(100)))
        emulator.faults.clear()
        await asyncio.sleep(2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(client.query(job_id) for _ in range(200)))
        assert loop.time() - began <= 200 / 20 * 1.01


# Leaks and closing


@pytest.mark.parametrize("backend", BACKENDS)
async def test_r04_following_many_jobs_leaves_nothing(backend: str) -> None:
    """After thousands of jobs were polled to their ends, no file and no task is left."""
    polled: set[str] = set()

    def respond(job_id: str) -> bytes:
        """Let one in four still run when it is polled for the first time."""
        first = job_id not in polled
        polled.add(job_id)
        auditing = first and job_id.endswith(("0", "4", "8", "c"))
        return job(JobState.AUDITING if auditing else JobState.SUCCESS, job_id)

    count = times(10_000) // (1 if backend == "own" else 10)
    job_ids = [f"av{number:032x}" for number in range(count)]
    before = left_open()
    async with running(Server(respond)) as server, client_of(server, backend) as client:
        async with client.as_completed(job_ids, interval=0.05) as outcomes:
            ended = [outcome.unwrap().job_id async for outcome in outcomes]
        assert sorted(ended) == job_ids
        assert server.open <= 100
    assert await eventually(lambda: server.open == 0)
    assert await nothing_more_open(before)


def staggered_queries(client: LiveAuditClient) -> Iterator[Awaitable[object]]:
    """Return queries of which each starts one step of the loop after the one before."""

    async def late(steps: int) -> object:
        for _ in range(steps):
            await asyncio.sleep(0)
        return await client.query(JOB_ID)

    return map(late, range(60))


async def close_three_times(client: LiveAuditClient) -> None:
    await asyncio.gather(client.aclose(), client.aclose(), client.aclose())


async def close_cancelled(client: LiveAuditClient) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()


async def close_in_cancelled_task(client: LiveAuditClient) -> None:
    task = asyncio.create_task(client.aclose())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await client.aclose()


CLOSINGS = [LiveAuditClient.aclose, close_three_times, close_cancelled, close_in_cancelled_task]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("close", CLOSINGS)
async def test_r04_closing_at_any_moment_leaves_nothing(
    close: Callable[[LiveAuditClient], Awaitable[None]], backend: str
) -> None:
    """Closed while calls begin, run and end, a client ends them all and leaves nothing open."""
    before = left_open()
    server = Server()
    async with running(server):
        for moment in range(0, 60, 7):
            server.rng = random.Random(moment)
            async with client_of(server, backend) as client:
                calls = [asyncio.ensure_future(it) for it in staggered_queries(client)]
                for _ in range(moment):
                    await asyncio.sleep(0)
                await close(client)
                assert not tasks_of_the_package()
                assert backend != "own" or await eventually(lambda: server.open == 0)
                results = await asyncio.gather(*calls, return_exceptions=True)
            for result in results:
                assert isinstance(result, AuditJob | ConfigurationError)
            assert any(isinstance(result, ConfigurationError) for result in results)
    assert await eventually(lambda: server.open == 0)
    assert await nothing_more_open(before)
