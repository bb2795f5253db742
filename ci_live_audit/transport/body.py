"""A response body whose size in memory is bounded, however it is sent or compressed."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncIterable, Iterator
from typing import Any

import attrs

from ci_live_audit.errors import DecodeError, strip_context
from ci_live_audit.transport.memory import Share
from ci_live_audit.wire.documents import LARGE_BODY
from ci_live_audit.wire.responses import Response

__all__ = ["MAX_BODY", "read_body"]

MAX_BODY = 64 * 2**20
# Maximum bytes to inflate per step.
INFLATE_STEP = 2**18
# Members of a gzip body: each may be empty, and takes its time all the same.
MAX_MEMBERS = 1000
MAX_DIGITS = 20
# Yield to the event loop after this many pieces: a flood of tiny ones would starve it.
PIECES = 64
# Bytes that a body of unknown size asks for at a time.
GROWTH = 2**18


async def read_body(
    head: Response, chunks: AsyncIterable[bytes], limit: int, share: Share
) -> Response:
    """Return the response with its body, of which at most ``limit`` bytes are ever in memory.

    Args:
        head: The response as far as it has arrived.
        chunks: The body as it is sent.
        limit: Bytes it may have, decoded.
        share: The memory that it may take, if it is large.

    Raises:
        DecodeError: The body is larger, or its compression is broken or was not asked for.
    """
    encoding = _encoding(head)
    inflate = None if encoding is None else _Inflate()
    whole = _size(head) if inflate is None else 0
    body = io.BytesIO()  # hands over its bytes without a copy
    size = count = 0
    try:
        async for chunk in chunks:
            for piece in _pieces(chunk, inflate):
                size += len(piece)
                if size > limit:
                    raise DecodeError(f"larger than {limit} bytes", path="Response")
                if size > LARGE_BODY and size > share.size:
                    await share.grow(min(max(whole, size + GROWTH), limit))
                body.write(piece)
                count += 1
                if count % PIECES == 0 or len(piece) == INFLATE_STEP:
                    await asyncio.sleep(0)
    except zlib.error as problem:
        raise DecodeError(f"not {encoding}: {problem}") from strip_context(problem)
    if inflate is not None and count and not inflate.eof:
        raise DecodeError(f"the {encoding} body is cut off")
    return attrs.evolve(head, body=body.getvalue())


def _encoding(head: Response) -> str | None:
    """Return the compression of a body, out of a list: https://www.rfc-editor.org/rfc/rfc9110#8.4."""
    listed = head.headers.get("content-encoding", "").lower().split(",")
    names = [name.strip() for name in listed if name.strip() not in {"", "identity"}]
    if not names:
        return None
    if len(names) > 1 or names[0] not in {"gzip", "x-gzip", "deflate"}:
        raise DecodeError(f"Content-Encoding {', '.join(names)} was not asked for", path="Response")
    return names[0]


def _size(head: Response) -> int:
    """Return the size of a body as sent; 0 if it is not known."""
    size = head.headers.get("content-length", "")
    return int(size) if size.isdecimal() and len(size) < MAX_DIGITS else 0


class _Inflate:
    """Decompresses a body, which may be of several members."""

    def __init__(self) -> None:
        self._members = 1
        self._member: Any = zlib.decompressobj(wbits=47)

    @property
    def eof(self) -> bool:
        """Whether the last member is complete."""
        return bool(self._member.eof)

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress a chunk in steps."""
        while chunk:
            if self._member.eof:
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise DecodeError(f"more than {MAX_MEMBERS} members", path="Response")
                self._member = zlib.decompressobj(wbits=31)  # only gzip has members
            yield self._member.decompress(chunk, INFLATE_STEP)
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail


def _pieces(chunk: bytes, inflate: _Inflate | None) -> Iterator[bytes]:
    return iter([chunk]) if inflate is None else inflate.pieces(chunk)
