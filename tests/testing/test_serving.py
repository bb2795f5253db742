"""The emulator on a real socket, in real time, and as the fixture that pytest finds by itself."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import logging
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import httpx
import pytest
from command_line import Clock
from signed import HOST, OTHER, QUERY, answer, presigned, signed, still

from ci_live_audit import (
    ConfigurationError,
    Credentials,
    JobState,
    LiveAuditClient,
    RetryPolicy,
    TransportError,
)
from ci_live_audit.testing import Emulator, Fault, pytest_plugin
from ci_live_audit.testing.serving import serve

BUCKET = "examplebucket-1250000000"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")


@pytest.fixture
def anyio_backend() -> str:
    """Real time, by which callers and server agree though each has a loop of its own."""
    return "asyncio"


def connect(url: str) -> LiveAuditClient:
    return LiveAuditClient(
        BUCKET, "ap-beijing", credentials=CREDENTIALS, endpoint=url, retry=RetryPolicy(attempts=1)
    )


class Wire:
    """A connection on which requests are written and responses read byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> Wire:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    def write(self, path: str = "/video/auditing/av1") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: emulator\r\n\r\n".encode())

    async def answer(self) -> tuple[str, int]:
        """Return the status line and the number of body bytes the header announces."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        return head.partition("\r\n")[0], int(
            head.lower().partition("content-length: ")[2].split()[0]
        )

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "emulator" in thread.name]


def assert_gone(url: str) -> None:
    parts = urlsplit(url)
    with socket.socket() as probe:
        assert probe.connect_ex((parts.hostname, parts.port)) == errno.ECONNREFUSED
    assert threads() == []


# As in process


def over_socket(request: httpx.Request, target: str) -> bytes:
    """Return a signed request as it is written, to a target that no URL library touches."""
    head = [f"{request.method} {target} HTTP/1.1".encode(), b"connection: close"]
    head += [name + b": " + value for name, value in request.headers.raw]
    return b"\r\n".join([*head, b"", request.content])


ODD_REQUESTS = {
    "a whole URL": (signed(), f"http://{HOST}{QUERY}", 200),
    "a whole URL with a query": (signed(params={"a": "1"}), f"http://{HOST}{QUERY}?a=1", 200),
    "a whole URL of another bucket": (signed(), f"http://{OTHER}:80{QUERY}", 404),
    "a plus in the query": (signed(params={"a": "x+y"}), f"{QUERY}?a=x+y", 200),
    "a signature in the query": (presigned(), f"{QUERY}?{presigned().url.query.decode()}", 200),
    "an escaped id": (signed(path="/video/auditing/avé"), "/video/auditing/av%C3%A9", 400),
    "half a letter": (signed(path="/video/auditing/av\ufffd"), "/video/auditing/av%C3", 400),
    "an escaped slash": (signed(path="/video/auditing/a/b"), "/video/auditing/a%2Fb", 404),
    "a preflight": (
        httpx.Request(
            "OPTIONS",
            f"https://{HOST}{QUERY}",
            headers={"origin": "https://example.com", "access-control-request-method": "GET"},
        ),
        QUERY,
        200,
    ),
    "a preflight of everything": (httpx.Request("OPTIONS", f"https://{HOST}"), "*", 403),
}


@pytest.mark.parametrize(
    ("request_", "target", "status"), ODD_REQUESTS.values(), ids=list(ODD_REQUESTS)
)
async def test_an_odd_request_is_answered_as_in_process(
    request_: httpx.Request, target: str, status: int
) -> None:
    """What a server hands on and what an in-process client does are read alike."""
    emulator = still(Clock())
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": request_.method,
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": request_.headers.raw,
    }
    start, _ = await answer(emulator, scope)
    async with emulator.serve() as url:
        wire = await Wire.open(url)
        wire.writer.write(over_socket(request_, target))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        await wire.close()
    assert (start["status"], head.split()[1]) == (status, str(status).encode())
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]}
    assert names - {b"connection"} == {name for name, _ in start["headers"]}


# From beginning to end


async def test_it_listens_on_a_free_port_and_is_gone_afterwards() -> None:
    """Within the context it is a service; after it there is neither a port nor a thread."""
    emulator = Emulator(clock=lambda: 0.0)
    job_id = emulator.add_job()
    async with emulator.serve() as url, connect(url) as client:
        assert (await client.query(job_id)).state == JobState.SUBMITTED
        assert len(threads()) == 1
    assert url.startswith("http://127.0.0.1:")
    assert [arrival.status for arrival in emulator.arrivals] == [200]
    assert_gone(url)


async def test_it_can_be_served_again_on_the_same_port() -> None:
    """Port and emulator are free for another round as soon as the first one is over."""
    emulator = Emulator()
    async with emulator.serve() as first:
        pass
    port = urlsplit(first).port
    assert port is not None
    async with emulator.serve(port=port) as second, connect(second) as client:
        await client.query(emulator.add_job())
    assert second == first


async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    """The operating system's own error comes, and nothing is left running."""
    emulator = Emulator()
    async with emulator.serve() as url:
        port = urlsplit(url).port
        assert port is not None
        with pytest.raises(OSError, match="in use"):
            async with emulator.serve(port=port):
                pytest.fail("served on a port that is taken")
        assert len(threads()) == 1


async def test_two_can_be_served_at_once() -> None:
    """Each has a port and jobs of its own."""
    one, other = Emulator(), Emulator()
    async with (
        one.serve() as first,
        other.serve() as second,
        connect(first) as client,
        connect(second) as other_client,
    ):
        await client.query(one.add_job("av1"))
        await other_client.query(other.add_job("av2"))
    assert [emulator.arrivals[0].path for emulator in (one, other)] == [
        "/video/auditing/av1",
        "/video/auditing/av2",
    ]
    assert first != second


async def test_an_exception_in_the_body_stops_it() -> None:
    """The exception comes out bare, and the server is gone."""
    with pytest.raises(ZeroDivisionError):
        async with Emulator().serve() as url:
            raise ZeroDivisionError
    assert_gone(url)


async def test_a_body_that_does_nothing_leaves_nothing() -> None:
    """A server that is told to stop before it has started stops all the same."""
    async with Emulator().serve() as url:
        pass
    assert_gone(url)


async def test_a_cancelled_task_leaves_nothing() -> None:
    """Cancelling the task that serves stops the server before the cancellation is over."""
    served: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with Emulator().serve() as url:
            served.set_result(url)
            await asyncio.sleep(3600)

    task = asyncio.create_task(serve())
    url = await served
    task.cancel()
    await asyncio.wait([task])
    assert_gone(url)


async def test_a_cancelled_scope_leaves_nothing() -> None:
    """The same with a cancel scope of anyio, which cancels whatever is awaited in it."""
    with anyio.move_on_after(0.05):
        async with Emulator().serve() as url:
            await anyio.sleep_forever()
    assert_gone(url)


async def test_it_does_not_wait_for_those_who_are_still_connected() -> None:
    """An idle connection and one that awaits a slow response are closed when it stops."""
    emulator = Emulator()
    emulator.inject(Fault.slow(3600), times=1)
    async with emulator.serve() as url:
        waiting, idle = await Wire.open(url), await Wire.open(url)
        waiting.write()
        while not emulator.arrivals:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert await idle.reader.read() == b""
        await waiting.reader.read()
    await idle.close()
    await waiting.close()
    assert_gone(url)


async def test_it_stops_without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server starts, responds and stops without waiting for any timer."""
    fired: list[str] = []
    call_at = asyncio.BaseEventLoop.call_at

    def watched(
        loop: asyncio.BaseEventLoop, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        def fire(*args: Any) -> None:
            fired.append(threading.current_thread().name)
            callback(*args)

        return call_at(loop, when, fire, *args, context=context)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_at", watched)
    await asyncio.sleep(0.001)
    emulator = Emulator()
    async with emulator.serve() as url, connect(url) as client:
        idle = await Wire.open(url)
        (server,) = threads()
        await client.query(emulator.add_job())
    assert fired
    assert server.name not in fired
    await idle.close()


async def test_a_response_in_flight_is_sent_before_it_stops() -> None:
    """A request that arrived before the end gets its response before the connection is closed."""
    emulator = Emulator()
    emulator.inject(Fault.slow(0.1), times=1)
    async with emulator.serve() as url:
        wire = await Wire.open(url)
        wire.write()
        while not emulator.arrivals:
            await asyncio.sleep(0.001)
    status, length = await wire.answer()
    assert status == "HTTP/1.1 401 Unauthorized"
    assert len(await wire.reader.read()) == length
    await wire.close()
    assert_gone(url)


async def test_it_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """A response that the peer leaves unread is cut off when the server stops."""
    body = b"x" * 50_000_000

    async def app(scope: object, receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    async with serve(app, "127.0.0.1", 0) as url:
        wire = await Wire.open(url)
        wire.write()
        await wire.reader.readexactly(1)
    assert len(await wire.reader.read()) < len(body)
    await wire.close()
    assert_gone(url)


# On the wire


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Two requests get their responses over one connection."""
    async with Emulator().serve() as url:
        wire = await Wire.open(url)
        for _ in range(2):
            wire.write()
            status, length = await wire.answer()
            assert status == "HTTP/1.1 401 Unauthorized"
            assert (await wire.reader.readexactly(length)).endswith(b"</Error>")
        await wire.close()


async def test_only_the_emulator_says_who_and_when_it_is() -> None:
    """The web server underneath adds no Date and no Server of its own."""
    emulator = Emulator(now=lambda: 1_700_000_000)
    async with emulator.serve() as url, httpx.AsyncClient() as client:
        headers = (await client.get(url)).headers
    assert headers.get_list("server") == ["tencent-ci"]
    assert headers.get_list("date") == ["Tue, 14 Nov 2023 22:13:20 GMT"]


async def test_a_reset_is_a_reset() -> None:
    """The peer gets RST, not a polite end."""
    emulator = Emulator()
    emulator.inject(Fault.reset())
    async with emulator.serve() as url:
        wire = await Wire.open(url)
        wire.write()
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()
        with pytest.raises(ConnectionResetError):
            await wire.close()
    assert [arrival.status for arrival in emulator.arrivals] == [0]


async def test_a_truncated_response_ends_in_the_middle_of_its_body() -> None:
    """The header announces the whole body; half of it comes, and then the end."""
    emulator = Emulator()
    emulator.inject(Fault.truncated())
    async with emulator.serve() as url:
        wire = await Wire.open(url)
        wire.write()
        _, length = await wire.answer()
        assert len(await wire.reader.read()) == length // 2
        await wire.close()


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.truncated()], ids=str)
async def test_a_client_sees_a_transport_error_and_goes_on(fault: Fault) -> None:
    """A broken connection is not used again: the next call goes well."""
    emulator = Emulator()
    job_id = emulator.add_job()
    emulator.inject(fault, times=1)
    async with emulator.serve() as url, connect(url) as client:
        with pytest.raises(TransportError) as caught:
            await client.cancel(job_id)
        assert caught.value.may_have_happened
        assert (await client.query(job_id)).state == JobState.CANCELLED


async def test_faults_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    """What is injected on purpose fills nobody's log."""
    emulator = Emulator()
    emulator.inject(Fault.reset(), times=1)
    emulator.inject(Fault.truncated(), times=1)
    async with emulator.serve() as url, connect(url) as client:
        for _ in range(2):
            with pytest.raises(TransportError):
                await client.query("av1")
    assert caplog.records == []


async def test_the_loggers_of_other_servers_stay_as_they_are() -> None:
    """An application that runs uvicorn in the same process keeps its logs."""

    def loggers() -> list[tuple[int, bool]]:
        names = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
        return [(logging.getLogger(n).level, logging.getLogger(n).propagate) for n in names]

    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True
    before = loggers()
    async with Emulator().serve():
        pass
    assert loggers() == before


async def test_a_stalled_loop_of_the_caller_delays_nothing() -> None:
    """While the caller's loop stands still, a request from elsewhere gets its response."""
    async with Emulator().serve() as url:
        with ThreadPoolExecutor(1) as pool:
            # Not awaited: this blocks the loop until the answer is there.
            answer = pool.submit(httpx.get, url, timeout=10).result()
    assert answer.status_code == 401


async def test_a_job_added_on_the_loop_of_the_caller_runs_in_the_server() -> None:
    """Both go by the same clock, and a stream's end comes in real time."""
    emulator = Emulator()
    async with emulator.serve() as url, connect(url) as client:
        job_id = emulator.add_job(duration=1)
        before = await client.query(job_id)
        await asyncio.sleep(1)
        after = await client.query(job_id)
    assert not before.ended
    assert after.state == JobState.SUCCESS


# The fixture


async def test_pytest_finds_the_fixture(live_audit_emulator: Emulator) -> None:
    """Nothing is imported or configured for it: the entry point is enough."""
    async with live_audit_emulator.client() as client:
        job = await client.query(live_audit_emulator.add_job())
    assert job.state == JobState.SUBMITTED


async def test_the_client_of_the_fixture_reaches_the_emulator_of_the_fixture(
    live_audit_emulator: Emulator, live_audit_client: LiveAuditClient
) -> None:
    """The two belong together, in process; the client need not be closed."""
    job_id = live_audit_emulator.add_job()
    assert (await live_audit_client.query(job_id)).job_id == job_id
    assert len(live_audit_emulator.arrivals) == 1


def test_each_test_gets_an_emulator_of_its_own(
    live_audit_emulator: Emulator, request: pytest.FixtureRequest
) -> None:
    """What another test added or injected is not there."""
    assert isinstance(live_audit_emulator, Emulator)
    assert (live_audit_emulator.jobs, live_audit_emulator.arrivals) == ({}, [])


def test_the_plugin_imports_nothing_but_pytest_at_its_top() -> None:
    """It is loaded in every test run wherever the package is installed."""
    tree = ast.parse(inspect.getsource(pytest_plugin))
    names = {
        name
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names <= {"__future__", "typing", "pytest"}


def test_without_uvicorn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is missing, serving is a clear error and all else works."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ci_live_audit.testing.serving", raising=False)
    with pytest.raises(ConfigurationError, match=r"ci-live-audit\[emulator\]"):
        Emulator().serve()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        *(("::1", "[::1]"), ("[::1]", "[::1]"), ("::", "[::1]")),
        *(("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")),
        ("localhost", "localhost"),
    ],
)
async def test_the_url_of_any_address_is_one_that_a_client_takes(host: str, shown: str) -> None:
    """IPv6 addresses and all addresses of the machine are served, and the URL leads there."""
    emulator = Emulator(credentials=CREDENTIALS)
    job_id = emulator.add_job()
    async with emulator.serve(host=host) as url, connect(url) as client:
        assert url.startswith(f"http://{shown}:")
        assert (await client.query(job_id)).job_id == job_id


async def test_all_addresses_are_those_of_both_families() -> None:
    """A listener on ``::`` is reached by IPv4, too, where the machine permits it."""
    emulator = Emulator(credentials=CREDENTIALS)
    job_id = emulator.add_job()
    async with (
        emulator.serve(host="::") as url,
        connect(url.replace("[::1]", "127.0.0.1")) as client,
    ):
        assert (await client.query(job_id)).job_id == job_id
