"""Bodies over real sockets: bounded in memory, decompressed, read in small steps."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import pytest
from exchanges import get
from servers import answering, hanging_up, serving

from ci_live_audit import DecodeError
from ci_live_audit.transport.body import read_body
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.memory import Memory
from ci_live_audit.wire.responses import Response

pytestmark = pytest.mark.waits  # for sockets


GZIPPED = gzip.compress(b"ok" * 1000, mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIPPED, "gzip"),
        (GZIPPED, "X-GZIP"),
        (GZIPPED, "identity, gzip"),
        (gzip.compress(b"ok" * 400, mtime=0) + gzip.compress(b"ok" * 600, mtime=0), "gzip"),
        (zlib.compress(b"ok" * 1000), "deflate"),
        (b"ok" * 1000, "identity"),
        (b"ok" * 1000, "identity, identity"),
        (b"ok" * 1000, ""),
    ],
)
async def test_compressed_bodies_are_decoded(body: bytes, encoding: str) -> None:
    """A server that compresses although it was asked not to is understood."""
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
async def test_tiny_pieces_do_not_starve_the_loop(sent: bytes, body: bytes, least: float) -> None:
    """Thousands of chunks or heads that arrive at once are read with pauses for other tasks."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with serving(hanging_up(sent)) as served:
        transport = Transport(served.url)
        turning = asyncio.create_task(turn())
        response = await get(transport)
        turning.cancel()
        assert response.body == body
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
        (GZIPPED, "gzip, gzip", "Response"),
        (GZIPPED + GZIPPED[:-4], "gzip", ""),
        (GZIPPED * 3, "gzip", "Response"),
        (gzip.compress(b"", mtime=0) * 1001, "gzip", "Response"),
    ],
    ids=[
        *("too large", "bomb", "cut off", "not gzip", "more", "unknown", "twice", "second cut off"),
        *("too large together", "members"),
    ],
)
async def test_bodies_that_cannot_be_read(body: bytes, encoding: str, path: str) -> None:
    """Too large, broken or unknown compressed bodies are errors, bounded in memory."""
    async with serving(answering(body, headers=f"Content-Encoding: {encoding}\r\n")) as served:
        transport = Transport(served.url, max_body=5000)
        with pytest.raises(DecodeError) as caught:
            await get(transport)
        assert caught.value.path == path
        await transport.aclose()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_body_is_in_memory_once(encoding: str) -> None:
    """There is no second copy of a body at any moment, not even at the end."""
    size, piece = 8 * 2**20, 2**14
    sent = gzip.compress(bytes(size)) if encoding == "gzip" else bytes(size)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(sent), piece):
            yield sent[at : at + piece]

    head = Response(status=200, headers={"content-encoding": encoding})
    with Memory(size).share() as share:
        tracemalloc.start()
        try:
            response = await read_body(head, pieces(), size, share)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(response.body) == size
    assert peak < 1.25 * size
