"""A node without children → a text, a number or a time, or the reason why it cannot be read.

In XML every value is a text; JSON callbacks have numbers and booleans too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

__all__ = ["MAX_EXCERPT", "SCALARS", "Unreadable", "Value", "as_integer", "as_text", "is_null"]

#: What xmltodict and json make of a node.
Value: TypeAlias = dict[str, Any] | list[Any] | str | int | float | None

#: Characters of what the service sent that a message quotes.
MAX_EXCERPT = 120
INT64 = 2**63


class Unreadable(Exception):
    """A value that its attribute cannot hold; its path is built from the inside out."""

    def __init__(self, reason: str, value: Value = None) -> None:
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
        self.path = f"{name}.{self.path}" if self.path[:1] not in {"", "["} else name + self.path
        return self


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


def as_integer(value: Value, _: object = None) -> int:
    """Return a 64-bit integer."""
    number: int | None = None
    if isinstance(value, str):
        try:  # int() itself would accept 1_000 and the digits of any script
            number = int(value) if value.isascii() and "_" not in value else None
        except ValueError:  # not a number, or one of thousands of digits
            number = None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise Unreadable("expected an integer", value)
    if not -INT64 <= number < INT64:
        raise Unreadable("expected an integer of 64 bits", value)
    return number


def as_number(value: Value, _: object = None) -> float:
    """Return a finite number."""
    number = math.nan
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value) if "_" not in str(value) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Unreadable("expected a number", value)
    return number


def as_time(value: Value, _: object = None) -> datetime:
    """Return an aware datetime."""
    try:
        time = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.utcoffset() is None:
        raise Unreadable("expected a time with its zone, as 2021-08-07T12:12:12+0800", value)
    return time


#: The reader of each scalar type; it ignores the context, which all readers get as second argument.
SCALARS: dict[Any, Callable[[Value, object], Any]] = {
    str: as_text,
    int: as_integer,
    float: as_number,
    datetime: as_time,
}
