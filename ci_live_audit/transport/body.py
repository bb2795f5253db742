"""A response body whose size in memory is bounded, however it is sent or compressed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Iterator
from typing import Any

import attrs

from ci_live_audit.errors import DecodeError, strip_context
from ci_live_audit.wire.responses import Response

__all__ = ["MAX_BODY", "read_body"]

MAX_BODY = 64 * 2**20
# Maximum bytes to inflate per step.
INFLATE_STEP = 2**18
# Yield to the event loop after this many pieces: a flood of tiny ones would starve it.
PIECES = 64


async def read_body(head: Response, chunks: AsyncIterable[bytes], limit: int) -> Response:
    """Return the response with its body, of which at most ``limit`` bytes are ever in memory.

    Args:
        head: The response as far as it has arrived.
        chunks: The body as it is sent.
        limit: Bytes it may have, decoded.

    Raises:
        DecodeError: The body is larger, or its compression is broken or was not asked for.
    """
    encoding = head.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise DecodeError(f"Content-Encoding {encoding} was not asked for", path="Response")
    inflate = None if encoding == "identity" else zlib.decompressobj(wbits=47)
    body = bytearray()
    count = 0
    try:
        async for chunk in chunks:
            for piece in _pieces(chunk, inflate):
                body += piece
                if len(body) > limit:
                    raise DecodeError(f"larger than {limit} bytes", path="Response")
                count += 1
                if count % PIECES == 0 or len(piece) == INFLATE_STEP:
                    await asyncio.sleep(0)
            if inflate is not None and inflate.unused_data:
                raise DecodeError(f"bytes after the end of the {encoding} body")
    except zlib.error as problem:
        raise DecodeError(f"not {encoding}: {problem}") from strip_context(problem)
    if inflate is not None and count and not inflate.eof:
        raise DecodeError(f"the {encoding} body is cut off")
    return attrs.evolve(head, body=bytes(body))


def _pieces(chunk: bytes, inflate: Any) -> Iterator[bytes]:
    if inflate is None:
        yield chunk
        return
    while chunk:
        yield inflate.decompress(chunk, INFLATE_STEP)
        chunk = inflate.unconsumed_tail
