"""Checks of arguments: a bad one is refused by name, a good one comes back as it is."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import attrs
import pytest

from ci_live_audit import ConfigurationError
from ci_live_audit._checks import (
    MANY,
    above_zero,
    field_above_zero,
    field_in_seconds,
    seconds,
    text,
)


class Named(str, Enum):  # noqa: UP042 - StrEnum would print its value
    """A text that prints as something else."""

    ONE = "one"


def test_a_text_is_plain() -> None:
    """A member of a str enum becomes its value."""
    assert text("name", "one") == "one"
    assert type(text("name", Named.ONE)) is str
    assert text("name", Named.ONE) == "one"


@pytest.mark.parametrize("value", [None, 1, b"one", ["one"]])
def test_other_types_are_no_text(value: object) -> None:
    """The error names the argument and the type, not the value."""
    kind = type(value).__name__
    with pytest.raises(ConfigurationError, match=rf"\Aname: expected a text, got {kind}\Z"):
        text("name", value)


@pytest.mark.parametrize("value", [1, 0.001, math.inf])
def test_numbers_above_zero_pass(value: float) -> None:
    """Integers, fractions and, without a bound, infinity pass."""
    assert above_zero("rate", value, "requests a second") == value


@pytest.mark.parametrize("value", [0, -1, math.nan, True, "1", None])
def test_anything_else_is_refused(value: Any) -> None:
    """The error names the argument, what it counts, and the value."""
    with pytest.raises(ConfigurationError, match=r"\Arate: expected requests a second, above 0; "):
        above_zero("rate", value, "requests a second")


@pytest.mark.parametrize("value", [0, math.inf, MANY * 2])
def test_seconds_are_finite(value: float) -> None:
    """Zero, infinite and absurdly many seconds are refused."""
    with pytest.raises(ConfigurationError, match="timeout: expected seconds, above 0 and finite"):
        seconds("timeout", value)
    assert seconds("timeout", 0.5) == 0.5


def test_a_whole_number_has_no_fraction() -> None:
    """Where an integer is required, 1.0 will not do."""
    assert above_zero("max_body", 1, "bytes", whole=True) == 1
    with pytest.raises(ConfigurationError, match="max_body"):
        above_zero("max_body", 1.0, "bytes", whole=True)


def test_a_field_is_checked_by_its_name() -> None:
    """The validator takes the name from the attribute."""
    fields = {
        "share": attrs.field(validator=field_above_zero),
        "wait": attrs.field(validator=field_in_seconds),
    }
    given = attrs.make_class("Given", fields)
    assert (given(1, 2).share, given(1, 2).wait) == (1, 2)
    with pytest.raises(ConfigurationError, match="share: expected a number, above 0; got 0"):
        given(0, 1)
    with pytest.raises(ConfigurationError, match="wait: expected seconds, above 0 and finite"):
        given(1, math.inf)
