"""A body of the service → xmltodict (or json) → a frozen result, or the error that it stands for.

Pure: bytes in, a value or a `LiveAuditError` out. A plan for each result class is made once from
its annotations. The XML answers and the JSON callbacks share their names, so they share the plans.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints
from xml.parsers.expat import ExpatError

import attrs
import xmltodict

from ci_live_audit.errors import (
    AccessDenied,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    ServiceError,
    ServiceUnavailable,
    Throttled,
)
from ci_live_audit.models import (
    AuditJob,
    CancelledJob,
    ReadOnly,
    Result,
    Scene,
    SubmittedJob,
    Tag,
    wire_name,
)

__all__ = ["cancelled", "error", "http_date", "job", "submitted"]

# "Each URL is valid for two hours": https://www.tencentcloud.com/document/product/1045/49342
URL_LIFE = timedelta(hours=2)
# What the documents name ends at a depth of 7; the rest of an answer may not exhaust the stack.
MAX_DEPTH = 64
EXCERPT = 120
INT64 = 2**63
TEXT = "#text"  # xmltodict's name for the text of an element that has children too


# Answers


def job(body: bytes, *, received_at: datetime | None = None) -> AuditJob:
    """Decode the answer to a query, or the body of a Detail callback (JSON).

    Args:
        body: What the service sent.
        received_at: When it came; with it, snapshots and sections know when their URLs expire.

    Raises:
        DecodeError: The body is no such answer, or a value in it cannot be read.
        ServiceError: The body is an error document.

    Source: https://www.tencentcloud.com/document/product/1045/49342
    """
    return _answer(AuditJob, body, received_at)


def submitted(body: bytes) -> SubmittedJob:
    """Decode the answer to a submission; raises as `job` does.

    Source: https://www.tencentcloud.com/document/product/1045/49340
    """
    return _answer(SubmittedJob, body)


def cancelled(body: bytes, *, job_id: str | None = None) -> CancelledJob:
    """Decode the answer to a cancellation; raises as `job` does.

    With the ``job_id`` that was asked for, an empty body will do: the status has said it all.

    Source: https://www.tencentcloud.com/document/product/1045/49341
    """
    if job_id is not None and not body.strip():
        return CancelledJob(job_id=job_id)
    return _answer(CancelledJob, body)


A = TypeVar("A", AuditJob, SubmittedJob, CancelledJob)


def _answer(cls: type[A], body: bytes, received_at: datetime | None = None) -> A:
    document = _document(body)
    if "Error" in document:
        raise error(200, {}, body)
    response = document.get("Response", document)
    details = response.get("JobsDetail") if isinstance(response, dict) else None
    if not isinstance(details, dict):
        message = "expected a Response with one JobsDetail"
        raise DecodeError(message, excerpt=_excerpt(body))
    try:
        values = _values(cls, details, received_at and received_at + URL_LIFE)
        for name in ("job_id", "state") if cls is AuditJob else ("job_id",):
            if values.get(name) is None:
                raise _Unreadable("missing").within(wire_name(name))
    except _Unreadable as problem:
        raise problem.within("JobsDetail").error() from None
    if received_at is not None:
        values["received_at"] = received_at
    try:
        outer = _values(_Response, {tag: response[tag] for tag in response if tag != "JobsDetail"})
    except _Unreadable as problem:
        raise problem.error() from None
    values["request_id"] = outer.get("request_id", values.get("request_id"))
    if around := outer.get("extra"):
        inner = values.get("extra", {})
        apart = {tag if tag not in inner else f"Response.{tag}": around[tag] for tag in around}
        values["extra"] = ReadOnly({**inner, **apart})
    return cls(**values)


@attrs.frozen(kw_only=True)
class _Response(Result):
    """What stands around ``JobsDetail``."""

    request_id: str | None = None
    extra: Mapping[str, Any] = {}


def _document(body: bytes) -> dict[str, Any]:
    """The body as nested dicts: XML or JSON, told apart by the first byte."""
    try:
        if body.lstrip()[:1] == b"{":
            document = json.loads(body)
        else:
            document = xmltodict.parse(
                body, xml_attribs=False, strip_whitespace=False, disable_entities=True
            )
    # Entities and encodings that are refused come as ValueError and LookupError.
    except (ExpatError, ValueError, LookupError, RecursionError) as problem:
        what = f"not a document: {problem}" if body.strip() else "an empty body"
        raise DecodeError(what, excerpt=_excerpt(body)) from None
    return document if isinstance(document, dict) else {}


def _excerpt(body: bytes) -> str:
    return body[:EXCERPT].decode("utf-8", "replace")


# Nodes: a plan for each class says which child goes to which attribute, and how it is read.


class _Unreadable(Exception):  # noqa: N818
    """A value that cannot be read; the path to it grows on the way out."""

    def __init__(self, reason: str, value: object = None) -> None:
        super().__init__(reason)
        self.excerpt = "" if value is None else str(value)[:EXCERPT]
        self.path = ""

    def within(self, name: str) -> _Unreadable:
        self.path = f"{name}.{self.path}" if self.path[:1] not in {"", "["} else name + self.path
        return self

    def error(self) -> DecodeError:
        return DecodeError(self.args[0], path=self.path, excerpt=self.excerpt)


Reader = Callable[[Any, datetime | None], Any]


class _Field(NamedTuple):
    attribute: str
    read: Reader
    item: str | None = None


class _Plan(NamedTuple):
    fields: dict[str, _Field]
    has_scenes: bool
    has_keywords: bool
    has_url: bool


# Filled by hand below, not from a node of their own.
DERIVED = {"scenes", "extra", "keywords_raw", "url_expires_at", "received_at"}


@cache
def _plan(cls: type[Result]) -> _Plan:
    hints = get_type_hints(cls)
    tagged = get_type_hints(cls, include_extras=True)
    names = {field.name for field in attrs.fields(cls)}  # type: ignore[arg-type]
    fields: dict[str, _Field] = {}
    for name in names - DERIVED:
        marks = (mark for mark in get_args(tagged[name]) if isinstance(mark, Tag))
        tag = next(marks, Tag(wire_name(name)))
        field = _Field(name, _reader(hints[name]), tag.item)
        fields |= {spelling: field for spelling in (tag.name, tag.also) if spelling}
    return _Plan(fields, "scenes" in names, "keywords_raw" in names, "url_expires_at" in names)


def _reader(hint: Any) -> Reader:  # noqa: ANN401
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return _keywords if kind is str else partial(_objects, kind)
    if get_origin(hint) is Mapping:
        return _mapping
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    if kind in SCALARS:
        return SCALARS[kind]
    return partial(_member if issubclass(kind, Enum) else _object, kind)


def _values(
    cls: type[Result], node: dict[str, Any], expires_at: datetime | None = None
) -> dict[str, Any]:
    """The arguments for ``cls`` out of its node. An empty element is the service's null."""
    plan = _plan(cls)
    values: dict[str, Any] = {}
    scenes: dict[str, Scene] = {}
    extra: dict[str, Any] = {}
    for tag, sent in node.items():
        field = plan.fields.get(tag)
        value = None if isinstance(sent, str) and _is_blank(sent) else sent
        try:
            if tag == TEXT and value is None:  # the white space between elements
                continue
            if field is None:
                if not (plan.has_scenes and _is_scene(tag, value, expires_at, scenes)):
                    extra[tag] = _freeze(value)
            elif field.attribute in values:  # under both its spellings
                extra[tag] = _freeze(value)
            elif field.item is not None and isinstance(value, dict):
                inside = dict(value)
                values[field.attribute] = field.read(inside.pop(field.item, None), expires_at)
                if inside:
                    extra[tag] = _freeze(inside)
            elif value is not None:
                values[field.attribute] = field.read(value, expires_at)
                if field.read is _keywords and isinstance(value, str) and "," in value:
                    values["keywords_raw"] = value
        except _Unreadable as problem:
            raise problem.within(tag) from None
    if scenes:
        values["scenes"] = ReadOnly(scenes)
    if extra:
        values["extra"] = ReadOnly(extra)
    if plan.has_url and expires_at is not None:
        values["url_expires_at"] = expires_at
    return values


# Scenes that some document or SDK of the service names. The set is open: any other container
# ``<Name>Info`` is a scene as well if it can be read as one.
SCENES = frozenset(
    f"{name}Info"
    for name in (
        *("Porn", "Ads", "Terrorism", "Terrorist", "Politics", "Teenager", "Illegal", "Abuse"),
        *("Meaningless", "Quality", "Value"),
    )
)


def _is_scene(
    tag: str, value: object, expires_at: datetime | None, scenes: dict[str, Scene]
) -> bool:
    """Whether a node is a scene; if so, it is in ``scenes`` now."""
    if not tag.endswith("Info") or tag == "Info":
        return False
    if not value:
        return tag in SCENES
    try:
        scenes[tag.removesuffix("Info")] = _object(Scene, value, expires_at)
    except _Unreadable:
        if tag in SCENES:
            raise
        return False
    return True


def _object(cls: type[Any], value: object, expires_at: datetime | None) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return cls(**_values(cls, value, expires_at)) if value else None
    raise _Unreadable(_expected("an element with children", value), value)


def _objects(cls: type[Any], value: object, expires_at: datetime | None) -> tuple[Any, ...]:
    """Repeated elements: none, one or several."""
    found: list[Any] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        if not item or (isinstance(item, str) and _is_blank(item)):
            continue
        try:
            found.append(_object(cls, item, expires_at))
        except _Unreadable as problem:
            raise problem.within(f"[{index}]") from None
    return tuple(found)


def _keywords(value: object, _: datetime | None = None) -> tuple[str, ...]:
    """Repeated elements, or one text that joins them with commas: no document says which."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    words = [_text(word) for word in (value if isinstance(value, list) else [value])]
    return tuple(word for word in words if word)


def _member(cls: type[Enum], value: object, _: datetime | None = None) -> Any:  # noqa: ANN401
    return cls(_integer(value) if issubclass(cls, int) else str(_text(value)).strip())


def _mapping(value: object, _: datetime | None = None) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return _freeze(value)  # type: ignore[no-any-return]
    raise _Unreadable(_expected("an element with children", value), value)


def _text(value: object, _: datetime | None = None) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return None
    raise _Unreadable(_expected("a text", value), value)


def _integer(value: object, _: datetime | None = None) -> int:
    try:
        if isinstance(value, str) and value.isascii() and "_" not in value:
            number = int(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            number = int(value)
        else:
            raise ValueError
    except (ValueError, OverflowError):
        raise _Unreadable(_expected("an integer", value), value) from None
    if -INT64 <= number < INT64:
        return number
    raise _Unreadable("expected an integer of 64 bits", value)


def _number(value: object, _: datetime | None = None) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value) if "_" not in str(value) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise _Unreadable(_expected("a number", value), value)


def _moment(value: object, _: datetime | None = None) -> datetime:
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is not None and moment.utcoffset() is not None:
        return moment
    raise _Unreadable(_expected("a time with its zone, as 2021-08-07T12:12:12+0800", value), value)


SCALARS: dict[Any, Reader] = {str: _text, int: _integer, float: _number, datetime: _moment}


def _expected(what: str, value: object) -> str:
    if isinstance(value, list):
        return f"expected {what}, found {len(value)} elements"
    return (
        f"expected {what}, found an element with children"
        if isinstance(value, dict)
        else (f"expected {what}")
    )


def _freeze(value: object, depth: int = 0) -> Any:  # noqa: ANN401
    if depth > MAX_DEPTH:
        raise _Unreadable(f"nested deeper than {MAX_DEPTH} elements")
    if isinstance(value, dict):
        return ReadOnly(
            {
                tag: _freeze(item, depth + 1)
                for tag, item in value.items()
                if tag != TEXT or not _is_blank(item)
            }
        )
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return None if isinstance(value, str) and _is_blank(value) else value


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


# Refusals: https://www.tencentcloud.com/document/product/1045/43611 (CI) and
# https://www.tencentcloud.com/document/product/436/7730 (COS, whose gateway may answer first).


CODES: dict[str, type[ServiceError]] = {
    "SlowDown": Throttled,
    "RequestLimitExceeded": Throttled,
    "AuditingJobNotFound": JobNotFound,
    "InternalError": ServiceUnavailable,
    "ServiceUnavailable": ServiceUnavailable,
    "RequestTimeout": ServiceUnavailable,
    "QueueSaturated": ServiceUnavailable,
    "QueuePaused": ServiceError,
    "UnavailableForLegalReasons": ServiceError,
    "NotImplemented": ServiceError,
    "ExpiredToken": AccessDenied,
    "CIRoleNotExist": AccessDenied,
}


def error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error that a refusal means. Any body will do: XML of CI or COS, JSON, HTML, none.

    Args:
        status: HTTP status.
        headers: Response headers by lower-case name.
        body: The body, whatever it is.
    """
    said = _refusal(body)
    code = said.get("code", "")
    message = said.get("message", "")
    if 300 <= status < 400:
        message = f"redirected to {headers.get('location', 'nowhere')}; redirects are not followed"
    return _kind(status, code)(
        message or "no reason given",
        status=status,
        code=code,
        request_id=said.get("requestid") or _first(headers, "request-id"),
        trace_id=said.get("traceid") or _first(headers, "trace-id"),
        retry_after=_retry_after(headers),
    )


def _kind(status: int, code: str) -> type[ServiceError]:
    if status == 429:
        return Throttled
    if code in CODES:
        return CODES[code]
    if status in {401, 403}:
        return AccessDenied
    if status >= 500:
        return ServiceUnavailable
    return InvalidArgument if status >= 400 else ServiceError


def _refusal(body: bytes) -> dict[str, str]:
    """The texts of an error document by lower-case name (``Code`` and ``code`` are one)."""
    try:
        document = _document(body)
        inside = document.get("Response", document)
        inside = inside.get("Error", inside)
        texts = {str(tag): _text(value) for tag, value in inside.items() if _is_scalar(value)}
        found = {tag.lower().replace("_", ""): text for tag, text in texts.items() if text}
    except (DecodeError, AttributeError):
        found = {}
    if "code" in found or "message" in found:
        return found
    title = re.search(rb"(?is)<title[^>]*>(.*?)</title>", body)
    words = b" ".join((title.group(1) if title else body).split())
    return {"message": _excerpt(words)}


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _first(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(f"x-ci-{name}") or headers.get(f"x-cos-{name}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or from a date that is read against the answer's own ``Date``.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        until, now = http_date(value), http_date(headers.get("date", ""))
        if until is None or now is None:
            return None
        seconds = (until - now).total_seconds()
    return seconds if 0 <= seconds < math.inf else None


def http_date(value: str) -> datetime | None:
    """The moment that a ``Date`` header names; None if it names none."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
