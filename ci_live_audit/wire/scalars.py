"""A node without children → a text, a number, a time; or why it is none.

In XML everything is a text; a JSON callback has numbers and truth values too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from ci_live_audit.errors import DecodeError

__all__ = [
    "QUICK",
    "SCALARS",
    "Reader",
    "Unreadable",
    "Value",
    "as_integer",
    "as_text",
    "excerpt",
    "expected",
    "is_blank",
    "is_empty",
]

#: What xmltodict and json give for a node.
Value: TypeAlias = dict[str, Any] | list[Any] | str | int | float | None
#: What reads a node as part of its document.
Reader: TypeAlias = Callable[[Any, Any], Any]

MAX_EXCERPT = 120
INT64 = 2**63


class Unreadable(Exception):
    """A value that cannot be read; the path to it grows on the way out."""

    def __init__(self, reason: str, value: Value = None) -> None:
        super().__init__(reason)
        # A tree is not shown: it may be too deep for str().
        self.excerpt: str = excerpt(str(value)) if isinstance(value, str | int | float) else ""
        self.path: str = ""

    def within(self, name: str) -> Unreadable:
        """Put the name of what is around in front of the path."""
        self.path = f"{name}.{self.path}" if self.path[:1] not in {"", "["} else name + self.path
        return self

    def error(self) -> DecodeError:
        """The error with the path as it is now."""
        return DecodeError(self.args[0], path=self.path, excerpt=self.excerpt)


def excerpt(text: str) -> str:
    """So much of a text as fits into a message."""
    return text[:MAX_EXCERPT]


def as_text(value: Value, _: object = None) -> str | None:
    """A text or a number as text; None if there is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return None
    raise Unreadable(expected("a text", value), value)


def as_integer(value: Value, _: object = None) -> int:
    """An integer of 64 bits."""
    number: int | None = None
    if isinstance(value, str):
        try:  # int() itself would take 1_000 and the digits of any script
            number = int(value) if value.isascii() and "_" not in value else None
        except ValueError:  # no number, or one of thousands of digits
            number = None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise Unreadable(expected("an integer", value), value)
    if not -INT64 <= number < INT64:
        raise Unreadable("expected an integer of 64 bits", value)
    return number


def as_number(value: Value, _: object = None) -> float:
    """A finite number."""
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value) if "_" not in str(value) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise Unreadable(expected("a number", value), value)
    return number


def as_moment(value: Value, _: object = None) -> datetime:
    """A time that knows its zone."""
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is not None and moment.utcoffset() is not None:
        return moment
    raise Unreadable(expected("a time with its zone, as 2021-08-07T12:12:12+0800", value), value)


def expected(what: str, value: Value) -> str:
    """Why a value is unreadable."""
    if isinstance(value, list):
        return f"expected {what}, found {len(value)} elements"
    if isinstance(value, dict):
        return f"expected {what}, found an element with children"
    return f"expected {what}"


def is_blank(value: Value) -> bool:
    """Whether it is a text without anything to see."""
    return isinstance(value, str) and (not value or value.isspace())


def is_empty(value: Value) -> bool:
    """Whether it stands for the service's null."""
    return value is None or value in ({}, []) or is_blank(value)


# Plain texts


def _quick_text(text: str) -> str | None:
    return text if text and not text.isspace() else None


def _quick_integer(text: str) -> int | None:
    return int(text) if len(text) < 19 and text.isdecimal() and text.isascii() else None


def _quick_number(text: str) -> float | None:
    digits = text.replace(".", "", 1)
    return float(text) if len(text) < 19 and digits.isdecimal() and digits.isascii() else None


#: The reader of each type.
SCALARS: dict[Any, Reader] = {
    str: as_text,
    int: as_integer,
    float: as_number,
    datetime: as_moment,
}
#: What a text means to a reader, where that is plain; None where the reader itself must look at it.
QUICK: dict[Any, Callable[[str], Any]] = {
    as_text: _quick_text,
    as_integer: _quick_integer,
    as_number: _quick_number,
}
