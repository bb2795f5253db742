"""The chaos proxy: bytes go through as they are, faults happen when and as often as injected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import pytest
from servers import Served, answering, serving

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

    async def ask(self) -> bytes:
        self.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        return await self.reader.readexactly(len(HEAD) + len(BODY))

    async def ask_for_what_comes(self) -> bytes:
        self.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        return await self.reader.read()


async def all_closed(proxy: ChaosProxy) -> bool:
    for _ in range(100):
        if not proxy.open:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_without_faults_bytes_go_through(served: Served) -> None:
    """Exchange after exchange on one connection, and its end is passed on too."""
    async with ChaosProxy(served.url) as proxy:
        assert proxy.url.startswith("http://127.0.0.1:")
        async with Client(proxy) as client:
            for _ in range(3):
                assert await client.ask() == HEAD + BODY
            assert (proxy.accepted, proxy.open, served.accepted) == (1, 1, 1)
        assert await all_closed(proxy)
        assert await served.all_closed()


@pytest.mark.parametrize("fault", [WireFault.refuse(), WireFault.reset()])
async def test_a_reset_is_a_reset(served: Served, fault: WireFault) -> None:
    """With RST, at once or when the request has come; the server sees nothing of it."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(fault, times=1)
        async with Client(proxy) as client:
            with pytest.raises(ConnectionError):
                await client.ask_for_what_comes()
        assert served.requests == []
        async with Client(proxy) as client:
            assert await client.ask() == HEAD + BODY


@pytest.mark.parametrize("after", [0, 1, 20, len(HEAD), 100, len(HEAD + BODY)])
async def test_an_answer_is_cut_after_so_many_bytes(served: Served, after: int) -> None:
    """The bytes before are the server's, and nothing comes after."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.cut(after), times=1)
        async with Client(proxy) as client:
            assert await client.ask_for_what_comes() == (HEAD + BODY)[:after]
        proxy.inject(WireFault.reset(after), times=1)
        async with Client(proxy) as client:
            with pytest.raises(ConnectionError):
                await client.ask_for_what_comes()
        assert len(served.requests) == 2


@pytest.mark.parametrize("after", [None, 0, 100])
async def test_a_stalled_connection_carries_nothing_more(served: Served, after: int | None) -> None:
    """It stays open until the client goes, and nothing of it stays behind."""
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


async def test_a_request_is_cut_before_it_arrives(served: Served) -> None:
    """The client sees the end of the connection, the server no request."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.cut(), times=1)
        async with Client(proxy) as client:
            assert await client.ask_for_what_comes() == b""
        assert served.requests == []


async def test_a_request_in_pieces_is_one_request(served: Served) -> None:
    """All pieces are passed on, and the second one meets no fault of its own."""
    async with ChaosProxy(served.url) as proxy, Client(proxy) as client:
        proxy.inject(WireFault.slow(size=1000, seconds=0), times=1)
        client.writer.write(b"GET / HTTP/1.1\r\n")
        while proxy._faults._injected[0].left:  # until the first piece has come
            await asyncio.sleep(0.001)
        proxy.inject(WireFault.cut())
        client.writer.write(b"\r\n")
        assert await client.reader.readexactly(len(HEAD + BODY)) == HEAD + BODY
        assert len(served.requests) == 1


async def test_corrupt_bytes_are_others_and_the_rest_is_as_sent(served: Served) -> None:
    """Exactly those of the range differ, wherever the pieces begin and end."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.corrupt(len(HEAD) + 10, size=5), times=1)
        async with Client(proxy) as client:
            came = await client.ask()
            differ = [at for at, byte in enumerate(HEAD + BODY) if came[at] != byte]
            assert differ == list(range(len(HEAD) + 10, len(HEAD) + 15))
            assert await client.ask() == HEAD + BODY


async def test_a_slow_answer_is_whole(served: Served) -> None:
    """In pieces, each after its pause."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.slow(size=50, seconds=0.01), times=1)
        async with Client(proxy) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.reader.read(1000) == (HEAD + BODY)[:50]
            assert await client.reader.readexactly(len(HEAD + BODY) - 50) == (HEAD + BODY)[50:]


async def test_an_idle_connection_is_closed(served: Served) -> None:
    """After the answer, when nothing has come for so long."""
    async with ChaosProxy(served.url) as proxy:
        proxy.inject(WireFault.hang_up(0.02))
        async with Client(proxy) as client:
            assert await client.ask() == HEAD + BODY
            assert await client.ask() == HEAD + BODY
            assert await client.reader.read() == b""


async def test_while_it_is_down_nobody_listens(served: Served) -> None:
    """Connections are refused, those that are open go on, and afterwards all is as before."""
    async with ChaosProxy(served.url) as proxy, Client(proxy) as client:
        await client.ask()
        async with proxy.down():
            with pytest.raises(ConnectionRefusedError):
                await Client(proxy).__aenter__()
            assert await client.ask() == HEAD + BODY
        async with Client(proxy) as other:
            assert await other.ask() == HEAD + BODY


async def test_a_share_is_the_same_for_the_same_seed(served: Served) -> None:
    """What is left to chance can be repeated; cleared faults are over."""
    seen = []
    for _ in range(2):
        async with ChaosProxy(served.url, seed=7) as proxy:
            proxy.inject(WireFault.refuse(), share=0.5)
            results = []
            for _ in range(20):
                try:
                    async with Client(proxy) as client:
                        await client.ask()
                    results.append(True)
                except (ConnectionError, asyncio.IncompleteReadError):
                    results.append(False)
            seen.append(results)
            proxy.clear()
            async with Client(proxy) as client:
                await client.ask()
    assert seen[0] == seen[1]
    assert 3 < sum(seen[0]) < 17


async def test_a_server_that_is_not_there_ends_the_connection(served: Served) -> None:
    """The client sees it closed, as behind any proxy."""
    async with ChaosProxy("http://127.0.0.1:1") as proxy, Client(proxy) as client:
        assert await client.ask_for_what_comes() == b""


async def test_the_end_closes_what_is_open(served: Served) -> None:
    """Connections that are still open when the proxy ends are closed."""
    async with ChaosProxy(served.url) as proxy:
        client = await Client(proxy).__aenter__()
        await client.ask()
    assert await client.reader.read() == b""
    client.writer.close()
    assert await served.all_closed()
