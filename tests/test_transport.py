"""The transport over real sockets: one exchange, whatever the server and the caller do."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import traceback
import zlib
from typing import Any

import anyio
import httpcore
import httpx
import httpx2
import pytest
from servers import answering, hanging_up, serving, silent

from ci_live_audit import ConfigurationError, DecodeError, RequestTimeout, TransportError
from ci_live_audit import connections as connections_module
from ci_live_audit.answers import Answer
from ci_live_audit.credentials import Secret
from ci_live_audit.transport import Transport

pytestmark = pytest.mark.waits  # for sockets

HEADERS = {"host": "example.com", "authorization": Secret("canary-signature")}


async def get(transport: Transport, *, timeout: float = 5.0) -> Answer:
    async with transport.call():
        answer = await transport.send("GET", "/path", HEADERS, b"", timeout=timeout)
    if answer.error is not None:
        raise answer.error
    return answer


async def test_an_exchange() -> None:
    """Method, path, headers and body arrive as given; status, headers and body come back."""
    async with serving(
        answering(b"o", b"k", status="201 Created", headers="X-One: 1\r\n")
    ) as served:
        transport = Transport(served.url + "/")
        answer = await transport.send(
            "POST", "/path", {**HEADERS, "content-length": "3"}, b"abc", timeout=5
        )
        await transport.aclose()
    assert (answer.status, answer.body, answer.headers["x-one"]) == (201, b"ok", "1")
    head = served.requests[0].decode().lower()
    assert head.startswith("post /path http/1.1\r\n")
    assert head.count("content-length: 3") == head.count("host: example.com") == 1
    assert "accept-encoding: identity" in head


async def test_connections_are_used_again() -> None:
    """One call after the other takes one connection, five at a time take five."""
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


async def test_a_connection_that_the_server_closes_is_not_kept() -> None:
    """After an answer with ``Connection: close``, the next request gets a new one."""
    async with serving(answering(b"ok", headers="Connection: close\r\n")) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            assert (await get(transport)).body == b"ok"
            assert served.accepted == accepted
        await transport.aclose()
        assert await served.all_closed()


async def test_what_is_sent_once_gets_a_new_connection() -> None:
    """A connection that was idle may be closing, so a submission does not take it."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        for accepted in (1, 2, 3):
            await transport.send("POST", "/", HEADERS, b"", timeout=5, reuse=False)
            assert served.accepted == accepted
        await transport.aclose()


async def test_idle_connections_can_be_dropped() -> None:
    """After an answer that was not its own, a client starts with new connections."""
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
    """Calls that come while idle connections are being closed do not disturb each other."""
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
    """A connection that was idle too long is closed by the next call that goes well."""
    monkeypatch.setattr(connections_module, "KEEP_ALIVE", 0.05)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(5)))
        await asyncio.sleep(0.06)
        await get(transport)
        assert await served.all_closed(but=1)
        await transport.aclose()


async def test_no_more_idle_connections_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst only so many connections are kept."""
    monkeypatch.setattr(connections_module, "MAX_IDLE", 2)
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(6)))
        assert await served.all_closed(but=2)
        await transport.aclose()


@pytest.mark.parametrize(
    "handler",
    [silent(), hanging_up(b"HTTP/1.1 200 OK\r\n"), answering(*[b"x"] * 100, pause=0.02)],
    ids=["silent", "hangs up", "slow"],
)
async def test_no_answer_in_time(handler: Any) -> None:
    """A server that is silent, hangs up or sends too slowly ends in a typed error in time."""
    async with serving(handler) as served:
        transport = Transport(served.url)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TransportError) as caught:
            await get(transport, timeout=0.2)
        assert asyncio.get_running_loop().time() - began < 1
        assert caught.value.sent
        assert await served.all_closed()
        await transport.aclose()


async def test_a_timeout_is_a_request_timeout() -> None:
    """The deadline's error says how long it was."""
    async with serving(silent()) as served:
        transport = Transport(served.url)
        with pytest.raises(RequestTimeout, match=r"no answer within 0\.1 s"):
            await get(transport, timeout=0.1)
        await transport.aclose()


async def test_a_refused_connection_was_not_sent() -> None:
    """Where nobody listens, nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}")
    with pytest.raises(TransportError, match="ConnectError") as caught:
        await get(transport)
    await transport.aclose()
    assert not caught.value.sent


async def test_a_connection_that_is_not_made_in_time_was_not_sent() -> None:
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


async def test_tls_that_fails_was_not_sent() -> None:
    """A server that does not speak TLS ends the handshake, and nothing was sent."""
    async with serving(hanging_up(b"not TLS at all")) as served:
        transport = Transport(served.url.replace("http://", "https://"))
        with pytest.raises(TransportError) as caught:
            await get(transport, timeout=1)
        await transport.aclose()
    assert not caught.value.sent


async def test_a_cancelled_tls_handshake_leaves_no_socket() -> None:
    """Cancelled while the server keeps silent in the handshake, a call closes its socket."""
    async with serving(silent()) as served:
        transport = Transport(served.url.replace("http://", "https://"))
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await get(transport)
        assert served.accepted == 20
        assert await served.all_closed()
        await transport.aclose()


GZIPPED = gzip.compress(b"ok" * 1000, mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(GZIPPED, "gzip"), (zlib.compress(b"ok" * 1000), "deflate"), (b"ok" * 1000, "identity")],
)
async def test_compressed_bodies_are_decoded(body: bytes, encoding: str) -> None:
    """A server that compresses though it was asked not to is understood."""
    async with serving(answering(body, headers=f"Content-Encoding: {encoding}\r\n")) as served:
        transport = Transport(served.url)
        assert (await get(transport)).body == b"ok" * 1000
        await transport.aclose()


async def test_an_empty_body_needs_no_compression() -> None:
    """A server that announces gzip and sends nothing has sent an empty body."""
    async with serving(answering(headers="Content-Encoding: gzip\r\n")) as served:
        transport = Transport(served.url)
        assert (await get(transport)).body == b""
        await transport.aclose()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "body", "least"),
    [
        (CHUNKED + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n", b"x" * 5000, 5000 / 64),
        (HINT * 5000 + b"HTTP/1.1 200 OK\r\n\r\nok", b"ok", len(HINT) * 5000 / 4096),
    ],
    ids=["chunks", "heads"],
)
async def test_tiny_pieces_leave_the_loop_to_others(sent: bytes, body: bytes, least: float) -> None:
    """Thousands of chunks or heads that arrive at once are read with pauses for everybody else."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with serving(hanging_up(sent)) as served:
        transport = Transport(served.url)
        turning = asyncio.create_task(turn())
        answer = await get(transport)
        turning.cancel()
        assert answer.body == body
        assert turns >= least
        await transport.aclose()


@pytest.mark.parametrize(
    ("body", "encoding", "path"),
    [
        (b"x" * 5001, "identity", "Response"),
        (gzip.compress(b"x" * 10_000_000, mtime=0), "gzip", "Response"),
        (GZIPPED[:-4], "gzip", ""),
        (b"not gzip", "gzip", ""),
        (GZIPPED + b"x", "gzip", ""),
        (b"x", "br", "Response"),
    ],
    ids=["too large", "bomb", "cut off", "not gzip", "more", "unknown"],
)
async def test_bodies_that_cannot_be_taken(body: bytes, encoding: str, path: str) -> None:
    """Too large, broken or strangely compressed bodies are errors, bounded in memory."""
    async with serving(answering(body, headers=f"Content-Encoding: {encoding}\r\n")) as served:
        transport = Transport(served.url, max_body=5000)
        with pytest.raises(DecodeError) as caught:
            await get(transport)
        assert caught.value.path == path
        await transport.aclose()


async def test_cancelled_callers_do_no_harm() -> None:
    """After 300 calls cancelled at random instants 20 succeed, and no connection is left."""
    async with serving(answering(b"o", b"k", pause=0.001)) as served:
        transport = Transport(served.url)
        rng = random.Random(1)

        async def impatient() -> None:
            async with asyncio.timeout(rng.random() * 0.02):
                await get(transport)

        for _ in range(30):
            results = await asyncio.gather(
                *(impatient() for _ in range(10)), return_exceptions=True
            )
            assert {type(result) for result in results} <= {TimeoutError, type(None)}
        answers = await asyncio.gather(*(get(transport) for _ in range(20)))
        assert [answer.body for answer in answers] == [b"ok"] * 20
        await transport.aclose()
        assert await served.all_closed()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_given_client_is_used_and_not_hurt(library: Any) -> None:
    """A client of the family is used as it is; cancelled callers leave its exchanges alone."""
    async with serving(answering(b"o", b"k", pause=0.05)) as served:
        async with library.AsyncClient(limits=library.Limits(max_connections=2)) as client:
            transport = Transport(served.url, client)
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await get(transport)
            assert (await get(transport)).body == b"ok"
            await transport.aclose()
            assert not client.is_closed
        assert len(served.requests) == 6


async def test_a_given_client_times_out() -> None:
    """The library's own timeout becomes the typed one."""
    async with serving(silent()) as served, httpx.AsyncClient() as client:
        transport = Transport(served.url, client)
        with pytest.raises(RequestTimeout):
            await get(transport, timeout=0.1)
        await transport.aclose()


async def test_closing_ends_what_is_under_way() -> None:
    """A call that is under way when the client is closed ends at once and says why."""
    async with serving(silent()) as served:
        transport = Transport(served.url)
        call = asyncio.create_task(get(transport))
        await asyncio.sleep(0.02)
        await asyncio.gather(*(transport.aclose() for _ in range(3)))
        with pytest.raises(ConfigurationError, match="closed during the call") as caught:
            await call
        assert caught.value.may_have_happened
        with pytest.raises(ConfigurationError, match="is closed"):
            await get(transport)
        await transport.aclose()


async def test_closing_works_in_a_cancelled_scope() -> None:
    """Where every await ends at once, connections are closed all the same."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(5)))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert await served.all_closed()


def test_closing_on_another_loop_is_told_so() -> None:
    """Connections can only be closed where they live."""

    async def use(transport: Transport) -> None:
        async with transport.call():
            pass

    transport = Transport("http://127.0.0.1:1")
    asyncio.run(use(transport))
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(transport.aclose())
    transport._closed = True  # its loop is gone, and nothing was open
    asyncio.run(Transport("http://127.0.0.1:1").aclose())


async def test_a_timeout_of_the_caller_stays_a_timeout() -> None:
    """A TimeoutError that comes from the body of a call is not taken for a closing."""
    transport = Transport("http://127.0.0.1:1")
    with pytest.raises(TimeoutError, match="mine"):
        async with transport.call():
            raise TimeoutError("mine")
    await transport.aclose()


class Synchronous:
    def stream(self) -> None: ...
    def aclose(self) -> None: ...


@pytest.mark.parametrize("client", [object(), httpx.Client(), Synchronous()])
def test_what_is_no_client_is_refused(client: Any) -> None:
    """Something else than an async client of the family is refused when it is given."""
    with pytest.raises(ConfigurationError, match="http_client: expected"):
        Transport("http://127.0.0.1:1", client)


async def test_a_closed_client_is_refused() -> None:
    """A client that is closed already is refused when it is given."""
    client = httpx.AsyncClient()
    await client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        Transport("http://127.0.0.1:1", client)


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://[::1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_refused(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting of the environment that cannot work is told when the client is made."""
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


@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_an_error_keeps_its_cause_but_no_request(library: Any) -> None:
    """The cause is there for who looks for it; frames and requests with signed headers are not."""
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(hanging_up()))
        client = library and await stack.enter_async_context(library.AsyncClient())
        transport = Transport(served.url, client)
        with pytest.raises(TransportError) as caught:
            await get(transport)
        await transport.aclose()
    text = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert isinstance(caught.value.__cause__, (library or httpcore).RemoteProtocolError)
    assert "canary" not in text
    if library:
        with pytest.raises(RuntimeError):
            _ = caught.value.__cause__.request


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


async def test_an_answer_that_breaks_off_keeps_its_head() -> None:
    """Status and headers are worth something without the body, and the error says what is lost."""
    head = b"HTTP/1.1 503 Busy\r\nX-CI-Request-Id: r1\r\nContent-Length: 10\r\n\r\n"
    async with serving(hanging_up(head + b"part")) as served:
        transport = Transport(served.url)
        answer = await transport.send("GET", "/", HEADERS, b"", timeout=5)
        assert (answer.status, answer.headers["x-ci-request-id"], answer.body) == (503, "r1", b"")
        assert isinstance(answer.error, TransportError)
        assert isinstance(answer.error.__cause__, httpcore.RemoteProtocolError)
        await transport.aclose()


async def test_a_connection_that_was_used_before_may_be_stale() -> None:
    """If it fails before an answer, the error says that it was used; a new one's does not."""

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


@pytest.mark.parametrize("max_body", [0, -1, 1.5, None, "1"])
def test_a_bound_is_a_number_of_bytes(max_body: Any) -> None:
    """A bound that bounds nothing is refused."""
    with pytest.raises(ConfigurationError, match="max_body"):
        Transport("http://127.0.0.1:1", max_body=max_body)


async def test_a_forgotten_transport_warns() -> None:
    """Whoever used own connections and did not close them is told, with what to do."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await get(transport)
        await transport.drop_idle()
        with pytest.warns(ResourceWarning, match=r'was not closed: use "async with" or aclose'):
            del transport
    Transport("http://127.0.0.1:1").__del__()  # never used: nothing to close


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_closing_lets_exchanges_over_a_given_client_end(library: Any) -> None:
    """For a second, so that a pool which others use too is not hurt by a cancellation."""
    async with serving(answering(b"o", b"k", pause=0.05)) as served:
        async with library.AsyncClient(limits=library.Limits(max_connections=1)) as client:
            transport = Transport(served.url, client)
            call = asyncio.create_task(get(transport))
            await asyncio.sleep(0.02)
            await transport.aclose()
            with pytest.raises(ConfigurationError, match="closed during the call"):
                await call
            assert (await client.get(served.url)).content == b"ok"
        assert served.accepted == 1
