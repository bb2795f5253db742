"""Checks of what callers pass: a bad argument is refused by name, where it is passed."""

from __future__ import annotations

import math
from typing import Any

from ci_live_audit.errors import ConfigurationError, InvalidInput

__all__ = ["MANY", "above_zero", "field_above_zero", "field_in_seconds", "seconds", "text"]

#: More than this is a mistake, whether it counts jobs or seconds.
MANY = 1e12


def text(name: str, value: object, error: type[ConfigurationError] = ConfigurationError) -> str:
    """Return a text argument as a plain ``str``.

    Raises:
        ConfigurationError: The argument is not a text; `InvalidInput` for that of a call.
    """
    if not isinstance(value, str):
        raise error(f"{name}: expected a text, got {type(value).__name__}")
    return str.__str__(value)  # the value of a str enum, not what it prints


def above_zero(
    name: str,
    value: float,
    unit: str,
    *,
    at_most: float = math.inf,
    whole: bool = False,
    error: type[ConfigurationError] = ConfigurationError,
) -> float:
    """Return a numeric argument that is above 0.

    Args:
        name: Name of the argument.
        value: Its value.
        unit: What it counts, for the message.
        at_most: Upper bound; infinity passes by default.
        whole: Whether it must be an integer.
        error: What to raise: `InvalidInput` for the argument of a call.

    Raises:
        ConfigurationError: The argument is not such a number.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= at_most:
        finite = " and finite" if at_most < math.inf else ""
        raise error(f"{name}: expected {unit}, above 0{finite}; got {value!r}")
    return value


def seconds(name: str, value: float) -> float:
    """Return an argument of a call in seconds, above 0 and finite.

    Raises:
        InvalidInput: The argument is not such a number.
    """
    return above_zero(name, value, "seconds", at_most=MANY, error=InvalidInput)


def field_above_zero(_: object, attribute: Any, value: float) -> None:
    """Validate a field of an attrs class: a number above 0."""
    above_zero(attribute.name, value, "a number")


def field_in_seconds(_: object, attribute: Any, value: float) -> None:
    """Validate a field of an attrs class: seconds, above 0 and finite."""
    above_zero(attribute.name, value, "seconds", at_most=MANY)
