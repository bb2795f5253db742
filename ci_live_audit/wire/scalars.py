"""A node without children → a text, a number or a time, or the reason why it cannot be read.

In XML every value is a text; JSON callbacks have numbers and booleans too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

from ci_live_audit.models import MILLISECONDS, HitFlag

__all__ = [
    "MAX_EXCERPT",
    "SCALARS",
    "Unreadable",
    "Value",
    "as_keywords",
    "as_text",
    "as_word",
    "is_nothing",
    "is_null",
    "join",
    "member",
]

#: What xmltodict and json make of a node.
Value: TypeAlias = dict[str, Any] | list[Any] | str | int | float | None

#: Characters of what the service sent that a message quotes.
MAX_EXCERPT = 120
INT64 = 2**63
# Where the text is in a keyword that is an object.
KEYWORD = ("Keyword", "Keywords", "Word", "Text", "Name")
# What stands for no number or no time.
NOTHING = {"-", "--", "null", "none", "n/a"}
FLAGS = (True, False, "true", "false")
# Seconds since 1970 that are a time from 1973 to 2286.
SECONDS = (10**8, 10**10)
#: The zone of the service, for times that are sent without one.
CHINA = timezone(timedelta(hours=8))


class Unreadable(Exception):
    """A value that its attribute cannot hold, at least not all of it.

    Attributes:
        found: What could be read of it; None if nothing.
        rest: What could not.
        paths: Where that is, within the value.
        fatal: Whether the whole document cannot be read for it; then ``path`` is built from the
            inside out.
        several: Whether there may be several values.
    """

    def __init__(self, reason: str, value: Value = None, *, fatal: bool = False) -> None:
        self.fatal = fatal
        self.several: bool = False
        self.found: Any = None
        self.rest: Any = value
        self.paths: list[str] = [""]
        if isinstance(value, list):
            reason += f", found {len(value)} elements"
        elif isinstance(value, dict):
            reason += ", found an element with children"
        super().__init__(reason)
        # A tree is not shown: it may be too deep for str().
        shown = str(value) if isinstance(value, str | int | float) else ""
        self.excerpt: str = shown[:MAX_EXCERPT]
        self.path: str = ""

    def within(self, name: str) -> Unreadable:
        """Prepend the name of the enclosing node to the path."""
        self.path = join(name, self.path)
        return self

    @classmethod
    def partly(cls, found: Any, rest: list[Any], paths: list[str]) -> Unreadable:
        """Return the problem of a value of which some could be read."""
        problem = cls("only partly readable")
        problem.several = True
        problem.found, problem.paths = found, paths
        problem.rest = rest[0] if len(rest) == 1 else rest
        return problem


def join(name: str, path: str) -> str:
    """Return a path with the name of the enclosing node before it."""
    return f"{name}.{path}" if path[:1] not in {"", "["} else name + path


def is_null(value: Value) -> bool:
    """Return whether a value is the service's null: none, or a text of white space only."""
    return value is None or (isinstance(value, str) and (not value or value.isspace()))


def as_text(value: Value, _: object = None) -> str:
    """Return a text, a number or a boolean as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise Unreadable("expected a text", value)


def as_word(value: Value, _: object = None) -> str:
    """Return a text that is no prose, such as an id or a label: without white space around it."""
    return value.strip() if isinstance(value, str) else as_text(value)


def as_integer(value: Value, _: object = None, *, rounded: bool = False) -> int:
    """Return a 64-bit integer, written as 97 or 97.0; if ``rounded``, also 98 for 97.5."""
    number: int | None = None
    if isinstance(value, str):
        try:  # int() itself would accept 1_000 and the digits of any script
            number = int(value) if value.isascii() and "_" not in value else None
        except ValueError:  # a fraction, not a number, or one of thousands of digits
            number = _whole(_float(value), rounded=rounded)
    elif isinstance(value, float):
        number = _whole(value, rounded=rounded)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise Unreadable("expected an integer", value)
    if not -INT64 <= number < INT64:
        raise Unreadable("expected an integer of 64 bits", value)
    return number


def _whole(number: float, *, rounded: bool) -> int | None:
    if not math.isfinite(number) or not (rounded or number.is_integer()):
        return None
    return math.floor(number + 0.5)


def _float(value: Value) -> float:
    """Return a finite number, or NaN."""
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value) if "_" not in str(value) else math.nan
    except (ValueError, OverflowError):
        pass
    return math.nan


def as_flag(value: Value, _: object = None) -> int:
    """Return an integer, or 1 and 0 for true and false."""
    word = value.strip().lower() if isinstance(value, str) else value
    return int(word in (True, "true")) if word in FLAGS else as_integer(value)


def as_number(value: Value, _: object = None) -> float:
    """Return a finite number."""
    number = _float(value)
    if not math.isfinite(number):
        raise Unreadable("expected a number", value)
    return number


def as_time(value: Value, _: object = None) -> datetime:
    """Return an aware datetime, of ISO 8601 or of seconds or milliseconds since 1970."""
    try:
        time = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is not None:
        return time if time.utcoffset() is not None else time.replace(tzinfo=CHINA)
    number = _float(value)
    for (least, most), unit in ((SECONDS, 1), (MILLISECONDS, 1000)):
        if least <= number < most:
            return datetime.fromtimestamp(number / unit, UTC)
    raise Unreadable("expected a time, as 2021-08-07T12:12:12+0800", value)


def is_nothing(value: Value) -> bool:
    """Return whether a value that is no number and no time stands for none."""
    if isinstance(value, str):
        return value.strip().lower() in NOTHING
    return value in ({}, [])


def as_keywords(value: Value, _: object = None) -> tuple[str, ...]:
    """Return repeated elements, or those of one text joined by commas: no document says which."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    found: list[str] = []
    rest: list[Any] = []
    paths: list[str] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        words, is_whole = _words(item)
        found += words
        if not is_whole:
            rest.append(item)
            paths.append(f"[{index}]" if isinstance(value, list) else "")
    if rest:
        raise Unreadable.partly(tuple(found), rest, paths)
    return tuple(found)


def _words(value: Value) -> tuple[list[str], bool]:
    """Return the keywords in one element, and whether that is all there is in it."""
    if isinstance(value, dict):
        inside = {tag: item for tag, item in value.items() if not is_null(item)}
        tag = next((tag for tag in (*KEYWORD, *inside) if tag in inside), None)
        if tag is None:
            return [], True
        item = inside[tag]
        words: list[Any] = [*item] if isinstance(item, list) else [item]
        found = [word for word in words if isinstance(word, str) and not is_null(word)]
        return found, len(inside) == 1 and len(found) == len(words)
    if isinstance(value, list):
        return [], False
    # Zero and false are no keywords.
    return ([as_text(value)] if value and not is_null(value) else []), True


def member(cls: type[Enum]) -> Callable[[Value, object], Any]:
    """Return the reader of an enum."""
    listed = {str(one.value): one for one in cls}
    integer = as_flag if cls is HitFlag else as_integer

    def read(value: Value, _: object) -> Any:
        found = listed.get(value) if isinstance(value, str) else None
        if found is not None:
            return found
        return cls(integer(value) if issubclass(cls, int) else as_text(value).strip())

    return read


#: The reader of each scalar type; it ignores the context, which all readers get as second argument.
SCALARS: dict[Any, Callable[[Value, object], Any]] = {
    str: as_word,
    int: partial(as_integer, rounded=True),
    float: as_number,
    datetime: as_time,
}
