"""Our own connections over real sockets: reused, bounded, closed, and through proxies."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest
from exchanges import GET, get
from servers import answering, hanging_up, serving, silent

from ci_live_audit import ConfigurationError, RequestTimeout, TransportError
from ci_live_audit.transport import connections as connections_module
from ci_live_audit.transport.exchange import Transport

pytestmark = pytest.mark.waits  # for sockets


async def test_connections_are_reused() -> None:
    """Sequential calls share one connection, five concurrent ones open five."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        for _ in range(10):
            await get(transport)
        assert served.accepted == 1
        for _ in range(3):
            await asyncio.gather(*(get(transport) for _ in range(5)))
        assert served.accepted == 5
        await transport.aclose()
        assert await served.all_closed()


async def test_a_connection_the_server_closes_is_not_kept() -> None:
    """After a response with ``Connection: close``, the next request gets a new connection."""
    async with serving(answering(b"ok", headers="Connection: close\r\n")) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            assert (await get(transport)).body == b"ok"
            assert served.accepted == accepted
        await transport.aclose()
        assert await served.all_closed()


async def test_a_submission_gets_a_new_connection() -> None:
    """An idle connection may be closing, so a submission does not use one."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            await transport.send(GET, timeout=5, reuse=False)
            assert served.accepted == accepted
        await transport.aclose()


async def test_idle_connections_can_be_dropped() -> None:
    """After a response that was not its own, a client starts with new connections."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(3)))
        await transport.drop_idle()
        assert await served.all_closed()
        assert (await get(transport)).body == b"ok"
        await transport.aclose()


async def test_idle_connections_are_closed_while_others_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls made while idle connections are being closed do not disturb each other."""
    monkeypatch.setattr(connections_module, "KEEP_ALIVE", 0.01)
    rng = random.Random(3)

    async def later(transport: Transport) -> None:
        await asyncio.sleep(rng.random() * 0.006)
        assert (await get(transport)).body == b"ok"

    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        for _ in range(30):
            await asyncio.gather(*(later(transport) for _ in range(6)))
            await asyncio.sleep(0.011)
        await transport.aclose()


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was idle too long is closed by the next successful call."""
    monkeypatch.setattr(connections_module, "KEEP_ALIVE", 0.05)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(5)))
        await asyncio.sleep(0.06)
        await get(transport)
        assert await served.all_closed(but=1)
        await transport.aclose()


async def test_idle_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst no more connections are kept than allowed."""
    monkeypatch.setattr(connections_module, "MAX_IDLE", 2)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(6)))
        assert await served.all_closed(but=2)
        await transport.aclose()


async def test_a_refused_connection_was_not_sent() -> None:
    """If nobody listens, nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}")
    with pytest.raises(TransportError, match="ConnectError") as caught:
        await get(transport)
    await transport.aclose()
    assert not caught.value.sent


async def test_a_connection_that_takes_too_long_was_not_sent() -> None:
    """Half of the time may be spent on connecting; then the error says that nothing was sent."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fill = [socket.socket() for _ in range(4)]  # a full backlog drops further attempts
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        transport = Transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(RequestTimeout, match="no connection within") as caught:
            await get(transport, timeout=0.2)
        await transport.aclose()
        for sock in fill:
            sock.close()
    assert not caught.value.sent


async def test_a_failed_handshake_was_not_sent() -> None:
    """A server that does not speak TLS ends the handshake, and nothing was sent."""
    async with serving(hanging_up(b"not TLS at all")) as served:
        transport = Transport(served.url.replace("http://", "https://"))
        with pytest.raises(TransportError) as caught:
            await get(transport, timeout=1)
        await transport.aclose()
    assert not caught.value.sent


async def test_a_cancelled_handshake_leaves_no_socket() -> None:
    """A call cancelled during a TLS handshake closes its socket."""
    async with serving(silent()) as served:
        transport = Transport(served.url.replace("http://", "https://"))
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await get(transport)
        assert served.accepted == 20
        assert await served.all_closed()
        await transport.aclose()


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://[::1", "socks5://127.0.0.1:1"])
def test_an_unusable_proxy_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that cannot work is refused when the client is made."""
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="proxy of the environment"):
        Transport("http://far.example")


async def test_a_proxy_needs_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many environments name only host and port."""
    async with serving(answering(b"proxied")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        transport = Transport("http://far.example")
        assert (await get(transport)).body == b"proxied"
        await transport.aclose()


async def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment is used, except for hosts on this machine."""
    async with serving(answering(b"proxied")) as proxy, serving(answering(b"direct")) as direct:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        far = Transport("http://far.example")
        near = Transport(direct.url)
        assert (await get(far)).body == b"proxied"
        assert (await get(near)).body == b"direct"
        assert proxy.requests[0].startswith(b"GET http://far.example/path HTTP/1.1")
        monkeypatch.setenv("NO_PROXY", "far.example")
        without = Transport("http://far.example")
        with pytest.raises(TransportError):
            await get(without, timeout=0.5)
        assert len(proxy.requests) == 1
        for transport in (far, near, without):
            await transport.aclose()


async def test_a_reused_connection_may_be_stale() -> None:
    """If it fails before a response, the error says that it was reused; a new one's does not."""

    async def once(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.request()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.request()  # and hang up

    async with serving(once) as served:
        transport = Transport(served.url)
        assert (await get(transport)).body == b"ok"
        with pytest.raises(TransportError) as caught:
            await get(transport)
        assert caught.value.reused
        assert served.accepted == 1
        await transport.aclose()
    async with serving(hanging_up()) as served:
        transport = Transport(served.url)
        with pytest.raises(TransportError) as caught:
            await get(transport)
        assert not caught.value.reused
        await transport.aclose()
