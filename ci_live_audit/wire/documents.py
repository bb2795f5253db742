"""A body → nested dicts, by xmltodict or json, within bounds that no honest response comes near.

A small document can still cost minutes in a parser that holds the interpreter meanwhile. So XML is
fed in slices, and the bounds are checked after each one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, TypeAlias, cast
from xml.parsers import expat

import xmltodict

from ci_live_audit.errors import DecodeError
from ci_live_audit.wire import repair
from ci_live_audit.wire.scalars import MAX_EXCERPT, Value

__all__ = ["LARGE_BODY", "MAX_DEPTH", "AfterSlice", "Opened", "beginning", "is_json", "read"]

#: Names of the open elements and the children of each that have closed, the root first.
Opened: TypeAlias = list[tuple[str, dict[str, Value]]]
AfterSlice: TypeAlias = Callable[[Opened], object]
Watch: TypeAlias = Callable[[], AfterSlice]

# Bodies above this are read in a worker thread.
LARGE_BODY = 64 * 1024
# About half a millisecond of parsing.
SLICE = 8192
# The service's documents are at most 7 deep.
MAX_DEPTH = 64
# Bytes of one tag with its attributes, or of one comment; text is not bounded.
MAX_TOKEN = 2**17
# An honest response of 64 MiB has some four million.
MAX_TAGS = 8_000_000
# JSON is parsed in one go; only callbacks are JSON, and they are small.
MAX_JSON = 4 * 2**20
AS_SENT: Any = {"xml_attribs": False, "strip_whitespace": False, "disable_entities": True}
# Bounds, entities and encodings are refused with ValueError and LookupError; some codecs warn, too.
UNPARSEABLE = (expat.ExpatError, ValueError, LookupError, RecursionError, Warning)
# A bracket, or a text, which may contain brackets too.
JSON_PART = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
JSON_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
JSON_OBJECT = re.compile(rb"[\xef\xbb\xbf \t\r\n]*\{")


def is_json(body: bytes) -> bool:
    """Return whether a body is a JSON object, by its first character."""
    return JSON_OBJECT.match(body, 0, SLICE) is not None


def beginning(body: bytes) -> str:
    """Return the first characters of a body, for a message."""
    return body[: 4 * MAX_EXCERPT].decode("utf-8", "replace")[:MAX_EXCERPT]


def read(body: bytes, watch: Watch | None = None) -> dict[str, Any]:
    """Parse XML or JSON; raise `DecodeError` if it is not a document, or exceeds a bound.

    ``watch`` is called each time that XML is read from its beginning, and what it returns after
    each slice; that may replace children that have closed.
    """
    try:
        return _read_json(body) if is_json(body) else _read_xml(body, watch)
    except UNPARSEABLE as problem:
        reason = f"not a document: {problem}" if body.strip() else "an empty body"
        raise DecodeError(reason, excerpt=beginning(body)) from problem


def _read_json(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_JSON:
        raise ValueError(f"JSON of more than {MAX_JSON} bytes")
    try:
        text = body.decode("utf-8-sig")  # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    except UnicodeDecodeError:
        text = repair.text(body).removeprefix("\ufeff")
    _check_depth(text)
    document: dict[str, Any] = _load(text)
    if JSON_SURROGATE.search(text):
        document = _load(repair.without_surrogates(json.dumps(document, ensure_ascii=False)))
    return document


def _check_depth(text: str) -> None:
    # Some versions of Python crash in json when deep nesting exhausts a small stack.
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for match in JSON_PART.finditer(text):
        first = match[0][0]
        depth += (first in "{[") - (first in "}]")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} values")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number


# Not strict: texts may contain control characters as they are.
_load = partial(json.loads, strict=False, parse_constant=_finite, parse_float=_finite)


class _OutOfBounds(ValueError):
    """A document that exceeds a bound, repaired or not."""


def _read_xml(body: bytes, watch: Watch | None) -> dict[str, Any]:
    if body.count(b"<") > MAX_TAGS:
        raise _OutOfBounds(f"more than {MAX_TAGS} tags")
    document = _read_as_it_is(body, watch)
    return document if document is not None else _read_repaired(body, watch)


def _read_as_it_is(body: bytes, watch: Watch | None) -> dict[str, Any] | None:
    """Return a document, or None if it has to be repaired, or to lose the prefix of its root."""
    pieces = (body[start : start + SLICE] for start in range(0, len(body), SLICE))
    try:
        document = _parse(pieces, watch)
    except _OutOfBounds:
        raise
    except UNPARSEABLE as problem:
        if not repair.is_worthwhile(body, problem):
            raise
        return None
    is_prefixed = any(":" in root for root in document)
    return None if is_prefixed and repair.is_worthwhile(body) else document


def _read_repaired(body: bytes, watch: Watch | None) -> dict[str, Any]:
    start = repair.start(body)
    pieces = repair.slices(body, start, SLICE)
    return _parse(pieces, watch, "utf-8", {start.prefix: ""} if start.prefix else None)


def _parse(
    pieces: Iterable[bytes],
    watch: Watch | None,
    encoding: str | None = None,
    prefixes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Parse XML; ``prefixes`` are those of names that others take the place of."""
    parsers = _Parsers()
    slices = parsers.slices(pieces, watch)
    return xmltodict.parse(slices, encoding, parsers, namespaces=prefixes, **AS_SENT)


class _Parsers:
    """Stands in for `xml.parsers.expat` in xmltodict, to check on the parser after each slice."""

    ExpatError = expat.ExpatError
    parser: expat.XMLParserType

    def ParserCreate(self, *arguments: Any) -> expat.XMLParserType:  # noqa: N802 - expat's name
        self.parser = expat.ParserCreate(*arguments)
        self.parser.StartDoctypeDeclHandler = _refuse_type
        return self.parser

    def slices(self, pieces: Iterable[bytes], watch: Watch | None) -> Generator[bytes, None, None]:
        after_slice = watch and watch()
        end = 0
        for piece in pieces:
            yield piece
            end += len(piece)
            if end - self.parser.CurrentByteIndex > MAX_TOKEN:
                raise _OutOfBounds(f"a tag or a comment of more than {MAX_TOKEN} bytes")
            # xmltodict's own bookkeeping: handlers of ours would make parsing a tenth slower.
            state: Any = cast("Any", self.parser.StartElementHandler).__self__
            if len(state.path) > MAX_DEPTH:
                raise _OutOfBounds(f"nested deeper than {MAX_DEPTH} elements")
            if after_slice is not None:
                _, *children = (*(item for item, _ in state.stack), state.item)
                opened = zip(state.path, children, strict=True)
                after_slice([(name, item or {}) for (name, _), item in opened])


def _refuse_type(*_: object) -> None:
    raise _OutOfBounds("document types are not accepted")
