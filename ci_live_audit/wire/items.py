"""Finds the items of the lists in a body by their tags, and leaves some of them out. Pure.

A running job is sent with all that was found before, most of which is known already. In XML, ``<``
stands in no text and no attribute, only in comments, CDATA sections and instructions
(https://www.w3.org/TR/xml/#syntax). Without any of these, ``<Snapshot>`` to the next
``</Snapshot>`` is exactly one item. With one, nothing is left out.
"""

from __future__ import annotations

import re
import secrets
from array import array
from collections import Counter
from collections.abc import Iterator

import attrs

__all__ = ["LISTS", "MARK", "Rest", "without", "without_known"]

#: The lists that make a body large.
LISTS = ("Snapshot", "AudioSection")
# In other encodings ``<`` may be part of a character.
DECLARATION = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<\?xml (?:(?!encoding)[^<?])*(?:encoding *= *.utf-8.[^<?]*)?\?>",
    re.IGNORECASE,
)
URL, URL_END = b"<Url>", b"</Url>"
#: Stands in a body where items were left out; no text that is sent can be known to be the same.
MARK = secrets.token_hex(8)
# Occurrences of "!" and of "?" that are looked at one by one, as a URL has one.
FEW = 100_000


@attrs.frozen
class Rest:
    """A body without some of its items.

    Attributes:
        body: What is left, with an element that holds `MARK` in place of each run of items.
        runs: How many runs were left out, by the tag of their items.
        digests: Of each item of the whole body, without the query of its URL, which is signed anew
            in each response. They can be compared within this process only.
    """

    body: bytes
    runs: Counter[str]
    digests: array[int]


def without(body: bytes) -> Rest | None:
    """Leave out all items; return None if the body has to be read whole."""
    start = _start(body)
    return None if _has_markup(body, start) else _leave_out(body, start, None)


def without_known(body: bytes, known: array[int]) -> Rest | None:
    """Leave out the items whose digests are ``known``; return None as `without` does.

    A digest that is there several times stands for as many items. It must be of a body that was
    accepted here: only what is left of this one is looked at.
    """
    start = _start(body)
    rest = _leave_out(body, start, Counter(known))
    return None if rest is None or _has_markup(rest.body, start) else rest


def _start(body: bytes) -> int:
    declaration = DECLARATION.match(body)
    return 0 if declaration is None else declaration.end()


def _has_markup(body: bytes, start: int) -> bool:
    """Return whether there are comments, CDATA sections, instructions or document types."""
    return any(_is_in(body, mark, start) for mark in (b"!", b"?"))


def _is_in(body: bytes, mark: bytes, at: int) -> bool:
    """Return whether ``<`` and a mark are there: the mark alone is found ten times as fast."""
    for _ in range(FEW):
        at = body.find(mark, at)
        if at < 0:
            return False
        if body.startswith(b"<", at - 1):
            return True
        at += 1
    return body.find(b"<" + mark, at) >= 0


def _leave_out(body: bytes, start: int, known: Counter[int] | None) -> Rest | None:
    digests = array("q")
    runs: list[tuple[int, int, str]] = []
    for tag in LISTS:
        begin_of_run = end_of_run = -1
        for begin, end in _items(body, tag, start):
            if known is not None:
                digest = _digest(body, begin, end)
                digests.append(digest)
                count = known.get(digest)
                if not count:
                    continue
                known[digest] = count - 1
            if begin != end_of_run and not body[end_of_run:begin].isspace():
                if end_of_run >= 0:
                    runs.append((begin_of_run, end_of_run, tag))
                begin_of_run = begin
            end_of_run = end
        if end_of_run >= 0:
            runs.append((begin_of_run, end_of_run, tag))
    return _without_runs(body, sorted(runs), digests)


def _items(body: bytes, tag: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield the borders of all items."""
    opening, closing = f"<{tag}>".encode(), f"</{tag}>".encode()
    begin = body.find(opening, start)
    while begin >= 0:
        end = body.find(closing, begin)
        if end < 0:
            return
        end += len(closing)
        yield begin, end
        begin = end if body.startswith(opening, end) else body.find(opening, end)


def _digest(body: bytes, begin: int, end: int) -> int:
    """Return a digest of an item without the signature in its URL."""
    url = body.find(URL, begin, end)
    # Where as many elements are closed as were opened before it, it is the item's own.
    if url >= 0 and (
        body.find(b"<", begin + 1) == url
        or body.count(b"<", begin + 1, url) == 2 * body.count(b"</", begin + 1, url)
    ):
        url_end = body.find(b"<", url + 1)
        query = body.find(b"?", url, url_end)
        if query >= 0 and body.startswith(URL_END, url_end):
            return hash((body[begin:query], body[url_end:end]))
    return hash(body[begin:end])


def _without_runs(
    body: bytes, runs: list[tuple[int, int, str]], digests: array[int]
) -> Rest | None:
    pieces: list[bytes] = []
    kept = 0
    for begin, end, tag in runs:
        if begin < kept:  # one within another
            return None
        pieces += body[kept:begin], f"<{tag}>{MARK}</{tag}>".encode()
        kept = end
    return Rest(b"".join([*pieces, body[kept:]]), Counter(tag for *_, tag in runs), digests)
