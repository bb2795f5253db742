"""The transport over real sockets: one exchange, whatever the server and the caller do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import traceback
from typing import Any

import anyio
import attrs
import httpcore
import httpx
import httpx2
import pytest
from exchanges import GET, get
from servers import answering, hanging_up, serving, silent

from ci_live_audit import ConfigurationError, RequestTimeout, TransportError
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.memory import Memory
from ci_live_audit.transport.state import ExchangeState

pytestmark = pytest.mark.waits  # for sockets


async def test_an_exchange() -> None:
    """Method, path, headers and body arrive as given; status, headers and body come back."""
    async with serving(
        answering(b"o", b"k", status="201 Created", headers="X-One: 1\r\n")
    ) as served:
        transport = Transport(served.url + "/")
        request = attrs.evolve(
            GET, method="POST", headers={**GET.headers, "content-length": "3"}, body=b"abc"
        )
        response = await transport.send(request, timeout=5)
        await transport.aclose()
    assert (response.status, response.body, response.headers["x-one"]) == (201, b"ok", "1")
    head = served.requests[0].decode().lower()
    assert head.startswith("post /path http/1.1\r\n")
    assert head.count("content-length: 3") == head.count("host: example.com") == 1
    assert "accept-encoding: identity" in head


@pytest.mark.parametrize(
    "handler",
    [silent(), hanging_up(b"HTTP/1.1 200 OK\r\n"), answering(*[b"x"] * 100, pause=0.02)],
    ids=["silent", "hangs up", "slow"],
)
async def test_no_response_in_time(handler: Any) -> None:
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
    """The error of a deadline says how long it was."""
    async with serving(silent()) as served:
        transport = Transport(served.url)
        with pytest.raises(RequestTimeout, match=r"no response within 0\.1 s"):
            await get(transport, timeout=0.1)
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
        responses = await asyncio.gather(*(get(transport) for _ in range(20)))
        assert [response.body for response in responses] == [b"ok"] * 20
        await transport.aclose()
        assert await served.all_closed()


async def test_closing_ends_calls_in_progress() -> None:
    """A call in progress when the client is closed ends at once and says why."""
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
    """Connections are closed even if every await ends at once."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await asyncio.gather(*(get(transport) for _ in range(5)))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert await served.all_closed()


def test_closing_on_another_loop_is_refused() -> None:
    """Connections can only be closed on the loop they belong to."""

    async def use(transport: Transport) -> None:
        async with transport.open_call():
            pass

    transport = Transport("http://127.0.0.1:1")
    asyncio.run(use(transport))
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(transport.aclose())
    transport._closed = True  # its loop is gone, and nothing was open
    asyncio.run(Transport("http://127.0.0.1:1").aclose())


async def test_a_timeout_of_the_caller_stays_a_timeout() -> None:
    """A TimeoutError raised in the body of a call is not mistaken for closing."""
    transport = Transport("http://127.0.0.1:1")
    with pytest.raises(TimeoutError, match="mine"):
        async with transport.open_call():
            raise TimeoutError("mine")
    await transport.aclose()


@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_an_error_keeps_its_cause_but_no_request(library: Any) -> None:
    """The cause is kept; frames and requests with signed headers are not."""
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


async def test_a_truncated_response_keeps_its_head() -> None:
    """Status and headers are kept without the body, and the error says what is missing."""
    head = b"HTTP/1.1 503 Busy\r\nX-CI-Request-Id: r1\r\nContent-Length: 10\r\n\r\n"
    async with serving(hanging_up(head + b"part")) as served:
        transport = Transport(served.url)
        response = await transport.send(GET, timeout=5)
        assert (response.status, response.headers["x-ci-request-id"], response.body) == (
            503,
            "r1",
            b"",
        )
        assert isinstance(response.error, TransportError)
        assert isinstance(response.error.__cause__, httpcore.RemoteProtocolError)
        await transport.aclose()


@pytest.mark.parametrize("max_body", [0, -1, 1.5, None, "1"])
def test_a_bound_is_a_number_of_bytes(max_body: Any) -> None:
    """A bound that bounds nothing is refused."""
    with pytest.raises(ConfigurationError, match="max_body"):
        Transport("http://127.0.0.1:1", max_body=max_body)


async def test_a_forgotten_transport_warns() -> None:
    """If our own connections were used and not closed, a warning says what to do."""
    async with serving(answering(b"ok")) as served:
        transport = Transport(served.url)
        await get(transport)
        await transport.drop_idle()
        with pytest.warns(ResourceWarning, match=r'was not closed: use "async with" or aclose'):
            del transport
    Transport("http://127.0.0.1:1").__del__()  # never used: nothing to close


HOST = "examplebucket-1250000000.ci.{}.myqcloud.com:443"
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("cause", "route", "told"),
    [
        (UNKNOWN, "ci.invalid:443", "name not known"),
        (UNKNOWN, HOST.format("ap-bejing"), "not known. Did you mean the region ap-beijing? Try:"),
        (UNKNOWN, HOST.format("ap-beijing"), "not known. Is the region ap-beijing right? Try:"),
        (UNKNOWN, HOST.format("xx-nowhere"), "not known. Is the region xx-nowhere right? Try:"),
        (UNKNOWN, HOST.format("ap-bejing") + " through the proxy p:1", "p:1: name not known"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "a:1", "names cannot be looked up"),
        (OSError(errno.ECONNREFUSED, "no"), "a:1", "cannot reach a:1: connection refused"),
        (OSError(errno.EHOSTUNREACH, "no"), "a:1", "cannot reach a:1: no route to it"),
        (OSError(errno.ENETUNREACH, "no"), "a:1", "cannot reach a:1: no network leads there"),
        (OSError(errno.EINVAL, "no"), "a:1", "ConnectError: wrapped (a:1)"),
    ],
)
def test_what_cannot_be_reached_is_told_in_words(cause: OSError, route: str, told: str) -> None:
    """The message says which host, why, and what may be wrong."""
    problem = httpcore.ConnectError("wrapped")
    problem.__cause__ = cause
    error = ExchangeState(Memory(1).share(), route=route).explain(problem, 1.0)
    assert told in str(error)
    assert str(error).endswith(" Try: ci-live-audit doctor") == ("cannot reach" in str(error))
    assert not error.sent


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("grouped", [False, True], ids=["one address", "several addresses"])
def test_a_lack_of_descriptors_is_called_by_its_name(number: int, grouped: bool) -> None:
    """The message says what to do, wherever in the causes of an error the reason stands."""
    cause: Exception = OSError(number, "Too many open files")
    if grouped:
        cause = ExceptionGroup("", [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), cause])
    problem = httpcore.ConnectError("All connection attempts failed")
    problem.__cause__ = OSError("All connection attempts failed")
    problem.__cause__.__cause__ = cause
    error = ExchangeState(Memory(1).share()).explain(problem, 1.0)
    assert str(error) == (
        "too many open files: ConnectError: All connection attempts failed; "
        "lower max_connections or raise the limit"
    )
    assert error.transient
    assert not error.sent
