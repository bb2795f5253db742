"""Exchanges over clients of the httpx family, which are neither closed nor harmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import httpx2
import pytest
from exchanges import get
from keys import chain
from servers import answering, client_for, eventually, serving, silent

from ci_live_audit import (
    AccessDenied,
    ConfigurationError,
    LiveAuditError,
    RequestTimeout,
    RetryPolicy,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.transport.exchange import Transport

pytestmark = pytest.mark.waits  # for sockets

JOB = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>"


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_foreign_client_is_not_harmed(library: Any) -> None:
    """Cancelled callers leave the exchanges of a client of the family alone."""
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


async def test_a_foreign_client_times_out() -> None:
    """The library's own timeout becomes the typed one."""
    async with serving(silent()) as served, httpx.AsyncClient() as client:
        transport = Transport(served.url, client)
        with pytest.raises(RequestTimeout):
            await get(transport, timeout=0.1)
        await transport.aclose()


class Synchronous:
    def stream(self) -> None: ...
    def aclose(self) -> None: ...


@pytest.mark.parametrize("client", [object(), httpx.Client(), Synchronous()])
def test_anything_but_a_client_is_refused(client: Any) -> None:
    """Anything but an async client of the family is refused when it is passed."""
    with pytest.raises(ConfigurationError, match="http_client: expected"):
        Transport("http://127.0.0.1:1", client)


async def test_a_closed_client_is_refused() -> None:
    """A client that is already closed is refused when it is passed."""
    client = httpx.AsyncClient()
    await client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        Transport("http://127.0.0.1:1", client)


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_closing_lets_foreign_exchanges_end(library: Any) -> None:
    """They get a second, so that a pool which others use is not harmed by a cancellation."""
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


async def change(request: Any) -> None:
    """Change all that is signed."""
    request.method = "DELETE"
    request.url = request.url.copy_with(path="/elsewhere")
    request.headers["Authorization"] = "Bearer canary"
    request.headers["Host"] = "canary.example"


#: What a client can be made with that would change a request after it was signed.
CHANGES: dict[str, dict[str, Any]] = {
    "auth": {"auth": ("canary", "canary")},
    "a function as auth": {"auth": lambda request: request},
    "params": {"params": {"canary": "1"}},
    "headers": {"headers": {"Authorization": "canary", "Host": "canary.example"}},
    "a hook": {"event_hooks": {"request": [change]}},
    "base_url": {"base_url": "http://canary:canary@canary.example/canary?canary=1"},
    "redirects": {"follow_redirects": True},
    "cookies": {"cookies": {"kind": "sweet"}},
}


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("change", CHANGES)
async def test_requests_are_sent_as_they_were_signed(library: Any, change: str) -> None:
    """Whatever a client adds to its requests, what is signed of ours stays as it is."""
    async with (
        serving(answering(JOB)) as served,
        library.AsyncClient(**CHANGES[change]) as http,
        client_for(served.url, http_client=http) as client,
    ):
        await client.query("a")
        await client.submit("rtmp://live.example.com/app/a")
        assert http.event_hooks["request"] == CHANGES[change].get("event_hooks", {}).get(
            "request", []
        )
    host = b"\r\nhost: " + served.url.removeprefix("http://").encode() + b"\r\n"
    for head, line in zip(
        served.requests, (b"GET /video/auditing/a HTTP", b"POST /video/auditing HTTP"), strict=True
    ):
        assert head.startswith(line)
        assert head.lower().count(b"authorization: q-sign-algorithm=sha1&") == 1
        assert head.lower().count(b"\r\nhost: ") == head.lower().count(host) == 1
        assert b"canary" not in head


async def fails(message: Any) -> None:
    """Fail as a program does."""
    raise KeyError("mine")


async def has_no_network(message: Any) -> None:
    """Fail as the network does."""
    raise httpx.ConnectError("mine")


async def is_cancelled(message: Any) -> None:
    """Wait for something that is cancelled."""
    raise asyncio.CancelledError("mine")


async def refuses(response: Any) -> None:
    """Raise an error for a refusal, after having read it."""
    await response.aread()
    response.raise_for_status()


async def refuses_unread(response: Any) -> None:
    """Raise an error for a refusal."""
    response.raise_for_status()


async def spoils(response: Any) -> None:
    """Read a part of the body."""
    async for _ in response.aiter_raw(1):
        raise KeyError("mine")


def client_with(
    library: Any, kind: str, hook: Callable[[Any], Awaitable[object]], url: str
) -> tuple[Any, Any]:
    """Return a client over one with a hook, and the latter."""
    http = library.AsyncClient(event_hooks={kind: [hook]})
    return client_for(url, http_client=http, retry=RetryPolicy(attempts=1)), http


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("hook", [fails, has_no_network, is_cancelled])
async def test_a_request_hook_that_fails_sends_nothing(library: Any, hook: Any) -> None:
    """The error is the hook's, nothing has happened, and it is repeated if the network failed."""
    async with serving(answering(JOB)) as served:
        client, http = client_with(library, "request", hook, served.url)
        async with http, client:
            with pytest.raises(TransportError, match=r"a request hook of http_client .*mine") as it:
                await client.submit("rtmp://live.example.com/app/a")
    assert not it.value.sent
    assert not it.value.may_have_happened
    assert it.value.transient == (hook is has_no_network)
    assert served.requests == []


ERROR = b"<Error><Code>%s</Code><Message>m</Message><RequestId>r</RequestId></Error>"
REFUSALS: dict[str, tuple[bytes, type[LiveAuditError], bool]] = {
    "403 Forbidden": (ERROR % b"AccessDenied", AccessDenied, False),
    "429 Too Many": (ERROR % b"SlowDown", Throttled, False),
    "500 Internal": (ERROR % b"InternalError", ServiceUnavailable, True),
}


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("hook", [refuses, refuses_unread, fails])
@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_behind_a_failing_hook_is_read(
    library: Any, hook: Any, status: str
) -> None:
    """The error is the service's, whole and true; what the hook raised is its cause."""
    body, kind, may_have_happened = REFUSALS[status]
    async with serving(answering(body, status=status)) as served:
        client, http = client_with(library, "response", hook, served.url)
        async with http, client:
            with pytest.raises(kind) as caught:
                await client.submit("rtmp://live.example.com/app/a")
    error: Any = caught.value
    assert error.code.encode() in body
    assert error.request_id == "r"
    assert error.may_have_happened == may_have_happened
    cause = next(link for link in chain(error) if not isinstance(link, LiveAuditError))
    assert type(cause).__name__ == ("KeyError" if hook is fails else "HTTPStatusError")
    assert getattr(cause, "response", None) is None  # it holds the signed request


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("hook", [fails, spoils, has_no_network, is_cancelled])
async def test_a_success_behind_a_failing_hook_may_have_happened(library: Any, hook: Any) -> None:
    """The error is the hook's, and has the request id of the response."""
    headers = "x-ci-request-id: r\r\n"
    async with serving(answering(JOB, headers=headers)) as served:
        client, http = client_with(library, "response", hook, served.url)
        async with http, client:
            with pytest.raises(TransportError, match=r"a response hook of http_client .*") as it:
                await client.submit("rtmp://live.example.com/app/a")
    assert it.value.may_have_happened
    assert it.value.request_id == "r"
    assert it.value.transient == (hook is has_no_network)


@pytest.mark.parametrize("kind", ["request", "response"])
async def test_a_hook_that_hangs_ends_with_the_exchange(kind: str) -> None:
    """A hook is cancelled when the time of the exchange is over."""

    async def hang(message: Any) -> None:
        await asyncio.sleep(60)

    async with serving(answering(JOB)) as served:
        http = httpx.AsyncClient(event_hooks={kind: [hang]})
        async with http, client_for(served.url, http_client=http, timeout=0.1) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.submit("rtmp://live.example.com/app/a")
        assert await eventually(lambda: len(served.requests) == (kind == "response"))
    assert caught.value.may_have_happened == (kind == "response")
