"""The chaos proxy: bytes pass unchanged, and faults happen when and as often as injected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import pytest
from servers import Recorder, Served, answering, serving

from ci_live_audit.testing import ChaosProxy, WireFault

pytestmark = pytest.mark.waits  # for sockets

BODY = b"0123456789" * 20
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(answering(BODY)) as served:
        yield served


class Client:
    """A raw connection to the proxy."""

    def __init__(self, proxy: ChaosProxy) -> None:
        self.port = int(proxy.url.rpartition(":")[2])

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def exchange(self) -> bytes:
        self.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        return await self.reader.readexactly(len(HEAD) + len(BODY))

    async def read_all(self) -> bytes:
        self.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        return await self.reader.read()


async def all_closed(proxy: ChaosProxy) -> bool:
    for _ in range(100):
        if not proxy.open:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_without_faults_bytes_pass_unchanged(served: Served) -> None:
    """Exchanges on one connection pass unchanged, and closing it closes the other side."""
    async with ChaosProxy(served.url) as proxy:
        assert proxy.url.startswith("http://127.0.0.1:")
        async with Client(proxy) as client:
            for _ in range(3):
                assert await client.exchange() == HEAD + BODY
            assert (proxy.accepted, proxy.open, served.accepted) == (1, 1, 1)
        assert await all_closed(proxy)
        assert await served.all_closed()


@pytest.mark.parametrize("fault", [WireFault.refuse(), WireFault.reset()])
async def test_a_reset_before_the_request(served: Served, fault: WireFault) -> None:
    """A reset on connecting or before the request hides it from the server."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(fault, times=1)
        async with Client(proxy) as client:
            with pytest.raises(ConnectionError):
                await client.read_all()
        assert served.requests == []
        async with Client(proxy) as client:
            assert await client.exchange() == HEAD + BODY


@pytest.mark.parametrize("after", [0, 1, 20, len(HEAD), 100, len(HEAD + BODY)])
async def test_a_response_is_cut_at_any_byte(served: Served, after: int) -> None:
    """A response is cut or reset after exactly the given number of bytes."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.cut(after), times=1)
        async with Client(proxy) as client:
            assert await client.read_all() == (HEAD + BODY)[:after]
        proxy.inject(WireFault.reset(after), times=1)
        async with Client(proxy) as client:
            with pytest.raises(ConnectionError):
                await client.read_all()
        assert len(served.requests) == 2


@pytest.mark.parametrize("after", [None, 0, 100])
async def test_a_stalled_connection_stays_open(served: Served, after: int | None) -> None:
    """A stalled connection passes nothing more, and ends when the client leaves."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.stall(after), times=1)
        async with Client(proxy) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.reader.readexactly(after or 0) == (HEAD + BODY)[: after or 0]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.reader.read()
            assert proxy.open == 1
        assert await all_closed(proxy)


async def test_a_request_is_cut(served: Served) -> None:
    """A connection cut before the request ends without a request to the server."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.cut(), times=1)
        async with Client(proxy) as client:
            assert await client.read_all() == b""
        assert served.requests == []


async def test_a_request_in_pieces_is_one_request() -> None:
    """A request in pieces is passed whole and meets one fault only."""
    pieces: list[bytes] = []
    arrived = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        for _ in range(2):
            pieces.append(await reader.inner.read(1000))
            arrived.set()
        writer.write(BODY)

    async with (
        serving(handle) as served,
        ChaosProxy(served.url) as proxy,
        Client(proxy) as client,
    ):
        proxy.inject(WireFault.slow(size=1000, seconds=0), times=1)
        client.writer.write(b"GET / HTTP/1.1\r\n")
        await arrived.wait()
        proxy.inject(WireFault.cut())
        client.writer.write(b"\r\n")
        assert await client.reader.readexactly(len(BODY)) == BODY
        assert pieces == [b"GET / HTTP/1.1\r\n", b"\r\n"]


async def test_corrupt_changes_exactly_its_range(served: Served) -> None:
    """Exactly the bytes of the range are changed."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.corrupt(len(HEAD) + 10, size=5), times=1)
        async with Client(proxy) as client:
            came = await client.exchange()
            differ = [at for at, byte in enumerate(HEAD + BODY) if came[at] != byte]
            assert differ == list(range(len(HEAD) + 10, len(HEAD) + 15))
            assert await client.exchange() == HEAD + BODY


async def test_a_slow_response_is_complete(served: Served) -> None:
    """A slow response arrives in pieces and is complete."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.slow(size=50, seconds=0.01), times=1)
        async with Client(proxy) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.reader.read(1000) == (HEAD + BODY)[:50]
            assert await client.reader.readexactly(len(HEAD + BODY) - 50) == (HEAD + BODY)[50:]


async def test_an_idle_connection_is_closed(served: Served) -> None:
    """A connection is closed when it was idle after a response."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.hang_up(0.02))
        async with Client(proxy) as client:
            assert await client.exchange() == HEAD + BODY
            assert await client.exchange() == HEAD + BODY
            assert await client.reader.read() == b""


async def test_down_refuses_new_connections(served: Served) -> None:
    """While the proxy is down, new connections are refused and open ones go on."""
    async with ChaosProxy(served.url) as proxy, Client(proxy) as client:
        await client.exchange()
        async with proxy.down():
            with pytest.raises(ConnectionRefusedError):
                await Client(proxy).__aenter__()
            assert await client.exchange() == HEAD + BODY
        async with Client(proxy) as other:
            assert await other.exchange() == HEAD + BODY


async def test_a_share_is_repeatable(served: Served) -> None:
    """The same seed picks the same connections, and cleared faults are over."""
    seen = []
    for _ in range(2):
        async with ChaosProxy(served.url, seed=7) as proxy:
            proxy.inject(WireFault.refuse(), share=0.5)
            results = []
            for _ in range(20):
                try:
                    async with Client(proxy) as client:
                        await client.exchange()
                    results.append(True)
                except (ConnectionError, asyncio.IncompleteReadError):
                    results.append(False)
            seen.append(results)
            proxy.clear()
            async with Client(proxy) as client:
                await client.exchange()
    assert seen[0] == seen[1]
    assert 3 < sum(seen[0]) < 17


async def test_a_missing_server_closes_the_connection(served: Served) -> None:
    """If the server cannot be reached, the client's connection is closed."""
    async with ChaosProxy("http://127.0.0.1:1") as proxy, Client(proxy) as client:
        assert await client.reader.read() == b""


async def test_leaving_closes_open_connections(served: Served) -> None:
    """Leaving the context closes open connections."""
    async with ChaosProxy(served.url) as proxy:
        client = await Client(proxy).__aenter__()
        await client.exchange()
    assert await client.reader.read() == b""
    client.writer.close()
    assert await served.all_closed()
