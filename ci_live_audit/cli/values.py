"""The values of options and arguments: what the library would refuse later is wrong usage at once.

Only click is imported here, so that help is fast.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

__all__ = ["COUNT", "JOB_ID", "PER_SECOND", "SECONDS", "STREAM", "setting"]

Value: TypeAlias = Callable[[Any], Any]
#: A stream for the check of everything else in a submission.
SOME_STREAM = "rtmp://live.example.com/app/room"


def _value(name: str, check: Value, hint: Callable[[str], str] = lambda _: "") -> Value:
    """Return what converts a value.

    Args:
        name: What the help calls the value.
        check: Returns the value, or raises a ConfigurationError that begins with its name.
        hint: Returns what may be meant by a value that cannot be used.
    """

    def convert(value: Any) -> Any:
        from ci_live_audit.errors import ConfigurationError

        try:
            return check(value)
        except ConfigurationError as problem:
            told = str(problem).partition(": ")[2]
            raise click.BadParameter("; ".join(filter(None, [told, hint(value)]))) from None

    convert.__name__ = name
    return convert


def _number(name: str, unit: str, *, whole: bool = False, at_most: float = math.inf) -> Value:
    """Return what converts a number above 0."""

    def check(value: Any) -> float:
        from ci_live_audit._checks import above_zero

        number = value
        with contextlib.suppress(ValueError):
            number = int(value) if whole else float(value)
        return above_zero("value", number, unit, at_most=at_most, whole=whole)

    return _value(name, check)


SECONDS = _number("seconds", "seconds", at_most=1e12)
PER_SECOND = _number("number", "requests a second")
COUNT = _number("number", "a whole number", whole=True)


def setting(name: str) -> Value:
    """Return what converts an argument of a submission."""

    def check(value: Any) -> Any:
        from ci_live_audit.wire import requests

        if name == "callback_type":
            with contextlib.suppress(ValueError):
                value = int(value)
        arguments: dict[str, Any] = {name: value}
        requests.submit(SOME_STREAM, **arguments)
        return value

    kinds = {"callback": "URL", "callback_type": "1|2"}
    return _value(kinds.get(name, "text"), check)


def _job_id(value: str) -> str | None:
    from ci_live_audit.errors import InvalidInput
    from ci_live_audit.wire import requests

    if value == "-" or "://" in value:  # a URL may hold a password, so it is not quoted
        raise InvalidInput("job_id: expected the id of a job")
    return requests.query(value.strip()).job_id


def _stream(value: str) -> str:
    from ci_live_audit.errors import InvalidInput
    from ci_live_audit.wire import requests

    url = value.strip()
    requests.submit(url)
    if re.match(r"[^?#]*[,;][a-z]+://", url):
        raise InvalidInput("url: expected one URL")
    return url


def _meant_by_id(value: str) -> str:
    """Return a hint for what is no job id."""
    if not value.strip():
        return "is a variable of the shell empty?"
    if "://" in value:
        return "this looks like the URL of a stream, which submit and moderate take"
    if value.lstrip().startswith(("{", "[")):
        return "pass JSON Lines with --file, or pipe them in"
    if re.search(r"[\s,;]", value.strip()):
        return "this looks like a list: pass each id as an argument of its own"
    return _meant_by_file(value)


def _meant_by_stream(value: str) -> str:
    """Return a hint for what is no URL of a stream."""
    if re.fullmatch(r"\s*av[0-9a-f]{30,}\s*", value):
        return "this looks like a job id, which query, watch and wait take"
    if value.count("://") > 1:
        return "this looks like a list: pass each URL as an argument of its own"
    return _meant_by_file(value)


def _meant_by_file(value: str) -> str:
    if value == "-":
        return "to read standard input, pass --file -"
    with contextlib.suppress(OSError, ValueError):
        if Path(value).is_file():
            return f"to read a file, pass --file {value!r}"
    return ""


JOB_ID = _value("job_id", _job_id, _meant_by_id)
STREAM = _value("url", _stream, _meant_by_stream)
