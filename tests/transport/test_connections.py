"""Our own connections over real sockets: reused, bounded, closed, and through proxies."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from typing import Any

import attrs
import httpcore
import pytest
from exchanges import GET, get
from keys import printed
from servers import Recorder, answering, hanging_up, serving, silent

from ci_live_audit import ConfigurationError, RequestTimeout, TransportError
from ci_live_audit.transport import connections as connections_module
from ci_live_audit.transport import environment
from ci_live_audit.transport.connections import Connections
from ci_live_audit.transport.environment import Certificates, certificates
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.streams import Backend

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
    with pytest.raises(TransportError, match="connection refused") as caught:
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
    connections_module.tls_context(certificates())  # or the calls would end while it is loaded
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


@pytest.mark.parametrize(
    "proxy",
    [
        *("http://user:canary/1@proxy.example:1", "http://user:can ary@proxy.example:1"),
        *("'http://user:canary@proxy.example:1'", '"http://user:canary@proxy.example:1"'),
        *("http://user:canary#1@proxy.example:1", "http://user:canary?1@proxy.example:1"),
        *(" http://user:canary@proxy.example:1", "http://user:canary@proxy.example:1\n"),
        *("http://user:canary\x01@proxy.example:1", "user:canary/1@proxy.example:1"),
        *(
            "htp:/user:canary@proxy.example",
            "htp://user:canary@proxy.example",
            "htp:/proxy.example",
        ),
        *("http://proxy.example:99999", "http://☃.example:1"),
        *("http:/proxy.example:1", "https//proxy.example:1", "http://proxy.example:port"),
        *("http://user:canary@", "http://", "http://proxy.example:1/canary"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_malformed_proxy_is_named_by_its_variable(
    variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is in the message, its password is not, nor in what led to it."""
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ConfigurationError, match=rf"\({variable}\): expected http") as caught:
        Connections("https://far.example", 1000, 1)
    assert "canary" not in printed(caught.value)


@pytest.mark.parametrize(
    ("url", "exception"),
    [
        *(("https://far.example", f"far.example{port}") for port in ("", ":443")),
        *(("https://far.example:444", name) for name in ("far.example:444", ".example:444")),
        *(("http://far.example", name) for name in ("other, FAR.example:80", "*")),
        *(("https://[2001:db8::1]:444", name) for name in ("2001:db8::1", "[2001:db8::1]:444")),
    ],
)
def test_no_proxy_with_a_port_is_honoured(
    url: str, exception: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception counts for its host, with a port for that port only."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:1")
    assert not Connections(url, 1000, 1)._direct
    monkeypatch.setenv("NO_PROXY", "far.example:1,[2001:db8::1]:1")
    assert not Connections(url, 1000, 1)._direct
    monkeypatch.setenv("NO_PROXY", exception)
    assert Connections(url, 1000, 1)._direct


def test_a_socks_proxy_is_used_where_its_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections lead through it."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:canary@proxy.example")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(httpcore, "AsyncSOCKSProxy", httpcore.AsyncHTTPProxy)
    route = Connections("http://far.example", 1000, 1).route
    assert route.startswith("far.example:80 through the proxy proxy.example:")
    assert "canary" not in route


def test_without_a_variable_the_common_authorities_are_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty variable is none."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", "")
    assert certificates() == Certificates()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_named_by_their_variable(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that names nothing is refused when the client is made, if it uses TLS."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=rf"\A{variable}: .*none.*No such file"):
        Connections("https://far.example", 1000, 1)
    Connections("http://far.example", 1000, 1)
    monkeypatch.setenv(variable, str(tmp_path))
    if variable == "SSL_CERT_DIR":
        Connections("https://far.example", 1000, 1)


def test_a_file_without_certificates_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that holds something else is refused when the client is made."""
    (tmp_path / "ca.pem").write_text("something else")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match=r"\ASSL_CERT_FILE: no certificates"):
        Connections("https://far.example", 1000, 1)


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


# The bound


async def test_exchanges_wait_in_order() -> None:
    """With one connection, twenty requests arrive in the order in which they were made."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url, max_connections=1)
        requests = [attrs.evolve(GET, path=f"/{number}") for number in range(20)]
        await asyncio.gather(*(transport.send(request, timeout=5) for request in requests))
        paths = [head.split()[1].decode() for head in served.requests]
        assert paths == [request.path for request in requests]
        assert served.accepted == 1
        await transport.aclose()


async def test_waiting_for_a_connection_counts() -> None:
    """An exchange that gets no connection ends in time, and its request was not sent."""
    async with serving(silent()) as served:
        transport = Transport(served.url, max_connections=1)
        first = asyncio.create_task(get(transport))
        await asyncio.sleep(0.02)
        with pytest.raises(RequestTimeout, match=r"no connection within 0\.1 s") as caught:
            await get(transport, timeout=0.1)
        assert not caught.value.sent
        assert len(served.requests) == 1
        first.cancel()
        await transport.aclose()


async def test_a_cancelled_exchange_gives_its_place_back() -> None:
    """Whether it waits or is under way, the next in line moves up, and the bound stays."""
    rng = random.Random(5)
    most = 0

    async with serving(answering(b"o", b"k", pause=0.001)) as served:
        transport = Transport(served.url, max_connections=3)

        async def impatient() -> None:
            nonlocal most
            try:
                async with asyncio.timeout(rng.random() * 0.02):
                    await get(transport)
            except TimeoutError:
                pass
            most = max(most, len(transport._tasks))

        for _ in range(30):
            await asyncio.gather(*(impatient() for _ in range(10)))
        responses = await asyncio.gather(*(get(transport) for _ in range(20)))
        assert [response.body for response in responses] == [b"ok"] * 20
        assert most > 3
        assert await served.all_closed(but=3)
        await transport.aclose()
        assert await served.all_closed()


async def test_closing_ends_those_who_wait() -> None:
    """Exchanges that wait for a connection end with the client."""
    async with serving(silent()) as served:
        transport = Transport(served.url, max_connections=1)
        calls = [asyncio.create_task(get(transport)) for _ in range(5)]
        await asyncio.sleep(0.02)
        await transport.aclose()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, ConfigurationError)
        assert served.accepted == len(served.requests) == 1


async def test_idle_connections_are_within_the_bound() -> None:
    """A submission closes an idle connection if there are as many as allowed."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url, max_connections=2)
        await asyncio.gather(get(transport), get(transport))
        for accepted in (3, 4):
            await transport.send(GET, timeout=5, reuse=False)
            assert served.accepted == accepted
            assert await served.all_closed(but=2)
        await transport.aclose()


# What nobody asked for


def adding(extra: bytes, *, after: float = 0.0) -> Any:
    """Answer every request with ``ok``, and send more, at once or some seconds later."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Recorder)
        while True:
            await reader.request()
            ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            writer.write(ok if after else ok + extra)
            await asyncio.sleep(after)
            writer.write(extra if after else b"")

    return handle


FOREIGN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nforeign"


@pytest.mark.parametrize(
    ("extra", "after"),
    [
        (FOREIGN, 0.0),
        (FOREIGN + b"x" * 100_000, 0.0),
        (b"\r\n", 0.0),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.0),
        (FOREIGN, 0.005),
    ],
    ids=["in the parser", "beyond the parser", "an empty line", "1xx", "while it is idle"],
)
async def test_a_connection_with_more_than_its_response_is_closed(
    extra: bytes, after: float
) -> None:
    """After bytes that nobody asked for, the next request gets a new connection."""
    async with serving(adding(extra, after=after)) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            assert (await get(transport)).body == b"ok"
            assert served.accepted == accepted
            await asyncio.sleep(after * 2)
        await transport.aclose()
        assert await served.all_closed()


async def test_what_arrives_after_a_connection_was_taken_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes that arrive just before a request is written send it to another connection."""
    writers: list[asyncio.StreamWriter] = []
    take = connections_module.Connections._take

    async def handle(reader: Any, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answering(b"ok")(reader, writer)

    async def take_and_send(self: Any) -> Any:
        taken = await take(self)
        if taken is not None:
            writers[0].write(FOREIGN)
        return taken

    monkeypatch.setattr(connections_module.Connections, "_take", take_and_send)
    async with serving(handle) as served:
        transport = Transport(served.url)
        assert (await get(transport)).body == b"ok"
        assert (await get(transport)).body == b"ok"
        assert served.accepted == len(served.requests) == 2
        await transport.aclose()


async def test_a_server_that_speaks_first_gets_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there before the first request on a new connection is no response to it."""
    connect = Backend.connect_tcp

    async def slowly(*args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        stream = await connect(*args, **options)
        await asyncio.sleep(0.02)
        return stream

    async def handle(reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(FOREIGN)
        await reader.request()

    monkeypatch.setattr(Backend, "connect_tcp", slowly)
    async with serving(handle) as served:
        transport = Transport(served.url)
        with pytest.raises(TransportError, match="before the request was sent") as caught:
            await get(transport)
        assert not caught.value.sent
        assert await served.all_closed()
        assert served.requests == []
        await transport.aclose()


class Opaque(httpcore.AsyncNetworkStream):
    """A stream that keeps what it has read where nobody knows."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self.read = stream.read  # type: ignore[method-assign]
        self.write = stream.write  # type: ignore[method-assign]
        self.aclose = stream.aclose  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]


class OpaqueBackend(httpcore.AnyIOBackend):
    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return Opaque(await super().connect_tcp(*args, **options))


async def test_a_connection_that_cannot_be_looked_into_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a library keeps what it has read elsewhere, each request gets a new connection."""
    monkeypatch.setattr(httpcore, "AnyIOBackend", OpaqueBackend)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            assert (await get(transport)).body == b"ok"
            assert served.accepted == accepted
        await transport.aclose()
    assert connections_module._parser_holds_bytes(object()) is None


def test_a_proxy_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is shown of it nor its address has the password."""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy.example:3128")
    found = environment.proxy("https://far.example")
    assert found is not None
    assert (repr(found), found.address) == (
        *("Proxy(named_by='HTTPS_PROXY')", "http://proxy.example:3128"),
    )
