"""Exchanges over clients of the httpx family, which are neither closed nor harmed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest
from exchanges import get
from servers import answering, serving, silent

from ci_live_audit import ConfigurationError, RequestTimeout
from ci_live_audit.transport.exchange import Transport

pytestmark = pytest.mark.waits  # for sockets


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
