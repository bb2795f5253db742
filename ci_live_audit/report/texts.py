"""Texts that a page may show: those of viewers hide, turn and open nothing in it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from unicodedata import category
from urllib.parse import urlsplit

from ci_live_audit.models import plain

__all__ = [
    "Part",
    "clipped",
    "clock",
    "day",
    "iso",
    "marked",
    "offset",
    "span",
    "values",
    "visible",
    "web_url",
]

#: Characters of a text, and of a URL that becomes a link.
LONG, SHORT, URL = 2_000, 200, 4_096
#: Keywords that are looked for in a text.
KEYWORDS = 50
#: In English, whatever the locale of the process.
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# Controls but for tab and newline; what turns or hides text; halves of characters; no characters.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
#: Marks that a letter may have; some scripts pile four.
MARKS = 8
# What may be so many of them: neither letters nor spaces, and not ASCII.
PILED = re.compile(r"[^\w\s\x00-\x7f]{9,}")


class Part(NamedTuple):
    """A part of a text, and whether it is a keyword."""

    text: str
    marked: bool


def visible(text: str) -> str:
    """Return a text whose characters can all be seen: ``⟨U+202E⟩`` in place of one that cannot.

    Marks that are piled on a letter, and would cover what is around it, are counted.
    """
    shown = HIDDEN.sub(_named, text.replace("\r\n", "\n"))
    return PILED.sub(_without_piles, shown)


def _named(found: re.Match[str]) -> str:
    return f"\u27e8U+{ord(found[0]):04X}\u27e9"


def _without_piles(found: re.Match[str]) -> str:
    runs: list[str] = []
    for is_mark, run in groupby(found[0], key=lambda sign: category(sign) in {"Mn", "Me"}):
        signs = "".join(run)
        rest = len(signs) - MARKS if is_mark else 0
        runs.append(signs if rest <= 0 else f"{signs[:MARKS]}\u27e8{rest:,} more marks\u27e9")
    return "".join(runs)


def clipped(text: str | None, limit: int = SHORT) -> str:
    """Return a text without what is beyond a limit, and how much that was."""
    text = text or ""
    rest = len(text) - limit
    return text if rest <= 0 else f"{text[:limit]}\u2026 ({rest:,} more characters)"


def values(extra: Any) -> str:
    """Return plain values as a text, clipped."""
    return clipped(json.dumps(plain(extra), ensure_ascii=False, default=str), LONG)


def web_url(url: str | None) -> str | None:
    """Return a URL if it is one of the web, and None for any other that a page must not open."""
    if url is None or len(url) > URL or HIDDEN.search(url) or re.search(r"[\s\\]", url):
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # an impossible port or address
        return None
    return url if usable else None


def marked(text: str, keywords: Iterable[str]) -> tuple[Part, ...]:
    """Return the parts of a text, those that are keywords marked, whatever their case."""
    found = bytearray(len(text))
    for word in [word for word in keywords if word][:KEYWORDS]:
        for match in re.finditer(re.escape(word), text, re.IGNORECASE):
            begin, end = match.span()
            found[begin:end] = b"\x01" * (end - begin)
    runs = groupby(zip(text, found, strict=True), key=itemgetter(1))
    return tuple(Part("".join(sign for sign, _ in run), bool(hit)) for hit, run in runs)


def iso(at: datetime) -> str:
    """Return a time in UTC as HTML has it, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: datetime) -> str:
    """Return a time of day in UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def day(at: datetime) -> str:
    """Return a date in UTC: ``27 Nov 2026``."""
    moment = at.astimezone(UTC)
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}"


def offset(milliseconds: int) -> str:
    """Return a position in a stream as hours, minutes and seconds: ``1:02:03``."""
    seconds = abs(milliseconds) // 1000
    sign = "\u2212" if milliseconds < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def span(milliseconds: int) -> str:
    """Return a duration in words: ``1 h 2 min``, ``2 min``, ``3 s``."""
    seconds = milliseconds // 1000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds} s"
