"""A body → nested dicts, by xmltodict or json, within bounds that no honest answer comes near.

A document can be small and still cost minutes, in a parser that holds the interpreter meanwhile.
So XML is fed in slices, and after each one it is checked what has become of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator
from typing import Any, cast
from xml.parsers import expat

import xmltodict

from ci_live_audit.errors import DecodeError
from ci_live_audit.wire.scalars import excerpt

__all__ = ["LARGE_BODY", "MAX_PAGE", "REFUSED", "beginning", "elements", "is_json", "read", "tree"]

# Above this, a body is read in a worker thread, its items made as their tags close.
LARGE_BODY = 64 * 1024
# Bytes in which a page shows what it is.
MAX_PAGE = 4096

# Half a millisecond or so of parsing.
SLICE = 8192
# What the documents of the service name ends at a depth of 7.
MAX_DEPTH = 64
# A tag with its attributes, a comment or the like; text is not counted.
MAX_TOKEN = 2**17
# An answer of 64 MiB has some four millions.
MAX_TAGS = 8_000_000
# JSON is parsed in one go. It comes in callbacks, which are small.
MAX_JSON = 4 * 2**20
AS_SENT: dict[str, Any] = {
    "xml_attribs": False,
    "strip_whitespace": False,
    "disable_entities": True,
}
#: How a document is refused: bounds, entities and encodings come as ValueError and LookupError.
REFUSED = (expat.ExpatError, ValueError, LookupError, RecursionError)
# What opens, what closes, and texts, which may hold the same signs.
JSON_PART = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
JSON_OBJECT = re.compile(rb"[\xef\xbb\xbf \t\r\n]*\{")


def is_json(body: bytes) -> bool:
    """Whether a body is JSON, by its first byte."""
    return JSON_OBJECT.match(body, 0, SLICE) is not None


def read(body: bytes) -> dict[str, Any]:
    """Parse a whole body.

    Raises:
        DecodeError: It is not a document, or out of bounds.
    """
    try:
        return tree(body)
    except REFUSED as problem:
        what = f"not a document: {problem}" if body.strip() else "an empty body"
        raise DecodeError(what, excerpt=beginning(body)) from problem


def beginning(body: bytes) -> str:
    """Return the first characters of a body, for a message."""
    return excerpt(body[:500].decode("utf-8", "replace"))


def tree(body: bytes) -> dict[str, Any]:
    """The whole document.

    Raises:
        Exception: One of `REFUSED`.
    """
    if is_json(body):
        if len(body) > MAX_JSON:
            raise ValueError(f"JSON of more than {MAX_JSON} bytes")
        text = body.decode("utf-8-sig")  # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        _check_depth(text)
        found = json.loads(text, parse_constant=_finite, parse_float=_finite)
        return cast("dict[str, Any]", found)
    return cast("dict[str, Any]", _parse(body, 0, len(body)))


def elements(
    body: bytes,
    start: int,
    end: int,
    take: Callable[[list[tuple[str, Any]], Any], bool],
    pause: Callable[[], object] | None,
) -> None:
    """Hand out the children of the root as they close, and keep none of them.

    Args:
        body: What the document is part of.
        start: Where it begins.
        end: Where it ends.
        take: Called with the path and the child; gives True.
        pause: Called after every slice.

    Raises:
        Exception: One of `REFUSED`, or what ``take`` raises.
    """
    _parse(body, start, end, pause, item_depth=2, item_callback=take)


def _parse(
    body: bytes, start: int, end: int, pause: Callable[[], object] | None = None, **options: Any
) -> Any:
    if body.count(b"<", start, end) > MAX_TAGS:
        raise ValueError(f"more than {MAX_TAGS} tags")
    parsers = _Parsers()
    return xmltodict.parse(
        parsers.feed(body, start, end, pause), expat=parsers, **AS_SENT, **options
    )


class _Parsers:
    """What xmltodict takes in place of `xml.parsers.expat`, to see what becomes of each slice."""

    ExpatError = expat.ExpatError
    parser: expat.XMLParserType

    def ParserCreate(self, *arguments: Any) -> expat.XMLParserType:  # noqa: N802 - expat's name
        self.parser = expat.ParserCreate(*arguments)
        self.parser.StartDoctypeDeclHandler = _refuse_type
        return self.parser

    def feed(
        self, body: bytes, start: int, end: int, pause: Callable[[], object] | None
    ) -> Generator[bytes, None, None]:
        for at in range(start, end, SLICE):
            piece = body[at : min(at + SLICE, end)]
            yield piece
            if at + len(piece) - start - self.parser.CurrentByteIndex > MAX_TOKEN:
                raise ValueError(f"a tag or a comment of more than {MAX_TOKEN} bytes")
            # The path is that of xmltodict's own handler: counting here would cost a tenth more.
            handler: Any = self.parser.StartElementHandler
            if len(handler.__self__.path) > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} elements")
            if pause is not None:
                pause()


def _check_depth(text: str) -> None:
    """Refuse what would exhaust a small stack: in some versions of Python json crashes on it."""
    depth = 0
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    for found in JSON_PART.finditer(text):
        part = found[0][0]
        depth += (part in "{[") - (part in "}]")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} values")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def _refuse_type(*_: object) -> None:
    raise ValueError("document types are not accepted")
