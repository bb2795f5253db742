"""One answer as it comes in: its head, and a body of which no more is in memory than may be."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from ci_live_audit.errors import DecodeError, LiveAuditError, alone

__all__ = ["MAX_BODY", "Answer"]

MAX_BODY = 64 * 2**20
# As much of a compressed body is inflated at once.
INFLATED = 2**18


@attrs.frozen(kw_only=True)
class Answer:
    """What came back. Header names are in lower case.

    ``error`` tells why there is no body: it is None if the answer is whole.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    error: LiveAuditError | None = None

    @classmethod
    def begun(cls, status: int, fields: Iterable[tuple[bytes, bytes]]) -> Answer:
        """An answer of which the head has come."""
        texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
        return cls(status=status, headers={name.lower(): value for name, value in texts})

    async def read(self, chunks: AsyncIterable[bytes], limit: int) -> Answer:
        """The answer with its body, of which no more than may be there is ever in memory.

        Args:
            chunks: The body as it is sent.
            limit: Bytes that it may have, decoded.

        Raises:
            DecodeError: It has more, or its compression is broken or was not asked for.
        """
        encoding = self.headers.get("content-encoding", "identity").lower()
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
                    # A server of tiny chunks, or of much in one, would have the loop for itself.
                    if count % 64 == 0 or len(piece) == INFLATED:
                        await asyncio.sleep(0)
                if inflate is not None and inflate.unused_data:
                    raise DecodeError(f"bytes after the end of the {encoding} body")
        except zlib.error as problem:
            raise DecodeError(f"not {encoding}: {problem}") from alone(problem)
        if inflate is not None and count and not inflate.eof:
            raise DecodeError(f"the {encoding} body is cut off")
        return attrs.evolve(self, body=bytes(body))


def _pieces(chunk: bytes, inflate: Any) -> Iterator[bytes]:
    if inflate is None:
        yield chunk
        return
    while chunk:
        yield inflate.decompress(chunk, INFLATED)
        chunk = inflate.unconsumed_tail
