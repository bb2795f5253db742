"""What the first request needs is there before its slot: a connection, opened ahead."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from exchanges import GET, get
from servers import answering, client_for, eventually, serving, silent, trusted

from ci_live_audit import ConfigurationError, LiveAuditError, RetryPolicy, TransportError
from ci_live_audit.transport import connections as connections_module
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.own import OwnConnections

pytestmark = pytest.mark.waits  # for sockets

JOB = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>"


class Gate:
    """A limiter that lets nobody pass before it is opened, and looks on as somebody comes."""

    rate = 20.0

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self.look = look
        self.seen: list[object] = []

    async def acquire(self) -> float:
        self.seen.append(await self.look())
        return 0.0

    def hold(self, seconds: float) -> None:
        raise AssertionError(seconds)


async def test_the_connection_is_there_before_the_slot() -> None:
    """Of 45 calls at once, none asks for a slot before there is a connection, the one all use."""
    async with serving(answering(JOB)) as served:

        async def look() -> int:
            await eventually(lambda: served.accepted > 0)
            return served.accepted

        gate = Gate(look)
        async with client_for(served.url, limiter=gate, max_connections=1) as client:
            await asyncio.gather(*(client.query("a") for _ in range(45)))
        assert gate.seen == [1] * 45
        assert served.accepted == 1


async def test_encryption_is_there_before_the_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS, the handshake is over too, and the request goes over that connection."""
    # A connection is accepted after the handshake.
    async with serving(answering(JOB), trusted(tmp_path, monkeypatch)) as served:

        async def look() -> int:
            await eventually(lambda: served.accepted > 0)
            return served.accepted

        gate = Gate(look)
        async with client_for(served.url, limiter=gate) as client:
            assert (await client.query("a")).job_id == "a"
            assert (await client.query("a")).job_id == "a"
    assert gate.seen == [1, 1]
    assert served.accepted == 1


FRESH = """
import asyncio, sys
from ci_live_audit import Credentials, LiveAuditClient
events = []

class Limiter:
    rate = 20.0
    async def acquire(self):
        events.append("slot")
        return 0.0
    def hold(self, seconds):
        pass

def hook(event, arguments):
    # Measuring coverage reads what is executed.
    source = event == "open" and str(arguments[0]).endswith(".py")
    if event in {"import", "open", "socket.connect", "socket.getaddrinfo"} and not source:
        events.append(event)

async def main():
    async with LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", endpoint=sys.argv[1], limiter=Limiter(),
        credentials=Credentials("AKIDEXAMPLE", "secretexample"),
    ) as client:
        sys.addaudithook(hook)
        await client.query("a")
        events.append("done")

asyncio.run(main())
print(events[events.index("slot"):][:2], "socket.connect" in events)
"""


async def test_a_fresh_process_has_all_it_needs_before_its_slot() -> None:
    """Between the first slot and the result nothing is imported, opened or connected."""
    async with serving(answering(JOB)) as served:
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", FRESH, served.url), stdout=subprocess.PIPE
        )
        output, _ = await client.communicate()
    assert output.decode().strip() == "['slot', 'done'] True"


LOADING = """
import asyncio, ssl, sys, threading
from ci_live_audit import Credentials, LiveAuditClient
loop_thread = threading.get_ident()
imported, contexts = [], []
load = ssl.SSLContext.load_verify_locations

def load_verify_locations(*arguments, **options):
    contexts.append(threading.get_ident() == loop_thread)
    return load(*arguments, **options)

def hook(event, arguments):
    if event == "import" and threading.get_ident() == loop_thread:
        imported.append(arguments[0])

async def query():
    async with LiveAuditClient(
        "examplebucket-1250000000", "ap-beijing", endpoint=sys.argv[1],
        credentials=Credentials("AKIDEXAMPLE", "secretexample"),
    ) as client:
        await client.query("a")

async def main():
    await asyncio.to_thread(int)  # resolving names needs threads, too
    sys.addaudithook(hook)
    await asyncio.gather(query(), query())

ssl.SSLContext.load_verify_locations = load_verify_locations
asyncio.run(main())
print([name for name in imported if name in sys.modules], contexts)
"""


async def test_the_loop_does_not_stand_while_the_first_call_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries and TLS context are loaded in a thread, once for two clients."""
    async with serving(answering(JOB), trusted(tmp_path, monkeypatch)) as served:
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", LOADING, served.url), stdout=subprocess.PIPE
        )
        output, _ = await client.communicate()
    assert output.decode().strip() == "[] [False]"


async def test_unreadable_certificates_are_an_error_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file holds is seen when it is loaded; once it is mended, calls go on."""
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with client_for("https://127.0.0.1:1", retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE: no certificates") as caught:
            await client.query("a")
        assert not caught.value.may_have_happened
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        with pytest.raises(TransportError, match="connection refused"):
            await client.query("a")


async def test_a_caller_that_leaves_while_libraries_are_loaded_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others wait for the same loading."""
    free, begun = threading.Event(), threading.Event()
    load = OwnConnections._load_in_thread

    def slowly(self: OwnConnections) -> None:
        begun.set()
        free.wait()
        load(self)

    monkeypatch.setattr(OwnConnections, "_load_in_thread", slowly)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        calls = [asyncio.create_task(get(transport)) for _ in range(3)]
        assert await eventually(begun.is_set)
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        free.set()
        assert [(await call).body for call in calls[1:]] == [b"ok", b"ok"]
        await transport.aclose()


async def test_a_connection_that_fails_is_told_by_the_exchange() -> None:
    """Preparing raises nothing; the next exchange has its error, and the one after tries itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}")
    await transport.prepare(1)
    async with serving(answering(b"ok"), port=port):
        with pytest.raises(LiveAuditError, match="connection refused") as caught:
            await get(transport)
        assert not caught.value.may_have_happened
        assert (await get(transport)).body == b"ok"
        await transport.aclose()


async def test_an_old_failure_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed a while ago may work by now."""
    monkeypatch.setattr(connections_module, "KEEP_ALIVE", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}")
    await transport.prepare(1)
    async with serving(answering(b"ok"), port=port):
        await asyncio.sleep(0.05)
        assert (await get(transport)).body == b"ok"
        await transport.aclose()


async def test_preparing_takes_no_longer_than_it_may() -> None:
    """A handshake that hangs is given up; the stream is closed, and the call ends in its time."""
    async with serving(silent()) as served:
        url = served.url.replace("http:", "https:")
        async with client_for(url, timeout=0.4, retry=RetryPolicy(attempts=1)) as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(LiveAuditError):
                await client.query("a")
            assert asyncio.get_running_loop().time() - began < 0.6
        assert await served.all_closed()


async def test_what_the_server_closed_meanwhile_gets_no_request() -> None:
    """If the server has hung up, or said something, the request is not sent."""
    async with serving(hanging_up_at_once) as served:
        transport = Transport(served.url)
        await transport.prepare(1)
        assert await served.all_closed()
        await asyncio.sleep(0.02)
        with pytest.raises(TransportError, match="before the request was sent") as caught:
            await get(transport)
        assert not caught.value.sent
        await transport.aclose()


async def hanging_up_at_once(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Close without a word."""


async def test_who_comes_late_does_not_overtake() -> None:
    """Callers go on in the order of their coming, in whatever step of preparing they come."""
    for steps in range(40):
        async with serving(answering(JOB)) as served:
            transport = Transport(served.url)
            passed: list[int] = []

            async def pass_through(number: int, transport: Transport = transport) -> None:
                await transport.prepare(1)
                passed.append(number)  # noqa: B023 - it ends in this round

            first = asyncio.create_task(pass_through(1))
            for _ in range(steps):
                await asyncio.sleep(0)
            await asyncio.gather(first, pass_through(2))
            assert passed == [1, 2]
            await transport.aclose()


async def test_a_hasty_caller_does_not_wait_for_anothers_time() -> None:
    """Each waits for as long as it may itself."""
    async with serving(silent()) as served:
        transport = Transport(served.url.replace("http:", "https:"))
        patient = asyncio.create_task(transport.prepare(60))
        await asyncio.sleep(0.02)
        await transport.prepare(0.02)
        assert not patient.done()
        await transport.aclose()
        await patient


@pytest.mark.parametrize(("reuse", "name"), [(True, "KEEP_ALIVE"), (False, "NEW")])
async def test_what_was_opened_long_ago_is_not_used(
    reuse: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission wants a new connection, and nobody one that the server may be closing."""
    monkeypatch.setattr(connections_module, name, 0.02)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await transport.prepare(1)
        await asyncio.sleep(0.05)
        await transport.send(GET, timeout=5, reuse=reuse)
        assert served.accepted == 2
        assert await served.all_closed(but=1)
        await transport.aclose()


async def test_nothing_is_prepared_where_there_is_a_connection() -> None:
    """Neither while one is idle or in use, nor while one is open ahead."""
    async with serving(answering(b"ok", pause=0.02)) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(transport.prepare(1) for _ in range(5)))
        await transport.prepare(1)
        call = asyncio.create_task(get(transport))
        await eventually(lambda: bool(served.requests))
        await transport.prepare(1)
        await call
        await transport.prepare(1)
        assert served.accepted == 1
        await transport.aclose()
        assert await served.all_closed()


async def test_a_caller_that_leaves_does_not_end_the_preparation() -> None:
    """Others wait for the same connection."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        callers = [asyncio.create_task(transport.prepare(1)) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await get(transport)
        assert served.accepted == 1
        await transport.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("steps", range(12))
async def test_closing_leaves_no_socket(scheme: str, steps: int) -> None:
    """Whenever a client is closed, what is being opened ahead, or has been, is closed too."""
    async with serving(silent()) as served:
        client = client_for(served.url.replace("http", scheme, 1))
        call = asyncio.create_task(client.query("a"))
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ConfigurationError):
            await call
        assert await served.all_closed()


async def test_no_proxy_is_asked_before_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy nothing is opened ahead."""
    async with serving(answering(JOB)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        seen: list[Any] = []

        async def look() -> None:
            await anyio.sleep(0.02)
            seen.append(proxy.accepted)

        async with client_for("http://far.example", limiter=Gate(look)) as client:
            assert (await client.query("a")).job_id == "a"
        assert seen == [0]
