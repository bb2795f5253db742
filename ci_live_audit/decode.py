"""A body of the service → xmltodict (or json) → a frozen result, or the error that it stands for.

Pure: bytes in, a value or a `LiveAuditError` out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import attrs

from ci_live_audit import documents
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
    EMPTY,
    AudioSection,
    AuditJob,
    CancelledJob,
    ReadOnly,
    Snapshot,
    SubmittedJob,
    wire_name,
)
from ci_live_audit.nodes import Document, values
from ci_live_audit.scalars import Unreadable, Value, as_text, excerpt

__all__ = ["cancelled", "error", "http_date", "job", "request_id", "submitted"]

# "Each URL is valid for two hours": https://www.tencentcloud.com/document/product/1045/49342
URL_LIFE = timedelta(hours=2)
MAX_PAGE = 4096
# Larger bodies are read with their parts made as their tags close.
LARGE_BODY = 64 * 1024
DETAILS, DETAILS_END = b"<JobsDetail>", b"</JobsDetail>"
LISTS: dict[str, type[Snapshot | AudioSection]] = {
    "Snapshot": Snapshot,
    "AudioSection": AudioSection,
}
OTHER_ENCODING = re.compile(rb"(?i)encoding\s*=\s*[\"'](?!utf-8[\"'])")


# Answers


def job(
    body: bytes,
    *,
    received_at: datetime | None = None,
    pause: Callable[[], object] | None = None,
) -> AuditJob:
    """Decode the answer to a query, or the body of a Detail callback (JSON).

    Args:
        body: What the service sent.
        received_at: When it came; with it, snapshots and sections know when their URLs expire.
        pause: Called after every few KB of a large body: in a thread, ``time.sleep(0)`` lets the
            others go on.

    Raises:
        DecodeError: The body is no such answer, or a value in it cannot be read.
        ServiceError: The body is an error document.

    Source: https://www.tencentcloud.com/document/product/1045/49342
    """
    return _answer(AuditJob, body, received_at, pause)


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


def _answer(
    cls: type[A],
    body: bytes,
    received_at: datetime | None = None,
    pause: Callable[[], object] | None = None,
) -> A:
    shared: dict[Any, Any] | None = None if documents.is_json(body) else {}
    context = Document(received_at and received_at + URL_LIFE, shared)
    document = _streamed(body, context, pause) if len(body) > LARGE_BODY else None
    document = document or _document(body)
    response: Value = document.get("Response", document)
    around = dict(response) if isinstance(response, dict) else {}
    details: Value = around.pop("JobsDetail", None)
    if details is None and "Error" in around:
        raise error(200, {}, body)
    if not isinstance(details, dict):
        raise DecodeError("expected a Response with one JobsDetail", excerpt=_beginning(body))
    try:
        known = values(cls, details, context)
        for name in ("job_id", "state") if cls is AuditJob else ("job_id",):
            if known.get(name) is None:
                raise Unreadable("missing").within(wire_name(name))
    except Unreadable as problem:
        raise problem.within("JobsDetail").error() from None
    try:
        outer = values(_Around, around, context)
    except Unreadable as problem:
        raise problem.error() from None
    extra: dict[str, Any] = dict(known.get("extra", EMPTY))
    for tag, value in outer.pop("extra", EMPTY).items():
        extra[f"Response.{tag}" if tag in extra else tag] = value
    if "request_id" in known and "request_id" in outer:
        extra["RequestId"] = known["request_id"]
    known |= outer | {"extra": ReadOnly(extra)}
    if received_at is not None:
        known["received_at"] = received_at
    return cls(**known)


@attrs.frozen(kw_only=True)
class _Around:
    """What stands beside ``JobsDetail``."""

    request_id: str | None = None
    extra: Mapping[str, Any] = EMPTY


def _document(body: bytes) -> dict[str, Any]:
    try:
        return documents.tree(body)
    except documents.REFUSED as problem:
        what = f"not a document: {problem}" if body.strip() else "an empty body"
        raise DecodeError(what, excerpt=_beginning(body)) from problem


def _streamed(
    body: bytes, context: Document, pause: Callable[[], object] | None
) -> dict[str, Any] | None:
    """As `_document`, with snapshots and sections made as their tags close, in little memory.

    xmltodict hands out the elements of one depth and forgets what stands above them. So it gets
    ``JobsDetail`` as a document of its own, and what is around it separately. None if that does not
    work out: then the body is not what it looks like, and is read whole.
    """
    opened, closed = body.find(DETAILS), body.rfind(DETAILS_END)
    if not 0 <= opened < closed or OTHER_ENCODING.search(body, 0, min(opened, MAX_PAGE)):
        return None
    details: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {tag: [] for tag in LISTS}

    def take(path: list[tuple[str, Any]], item: Value) -> bool:
        tag = path[-1][0]
        if tag in LISTS and isinstance(item, dict):
            lists[tag].append(LISTS[tag](**values(LISTS[tag], item, context)))
        elif tag not in details:
            details[tag] = item
        elif isinstance(details[tag], list):
            details[tag].append(item)
        else:
            details[tag] = [details[tag], item]
        return True

    try:
        around = _document(body[:opened] + DETAILS + body[closed:])
        documents.elements(body, opened, closed + len(DETAILS_END), take, pause)
    except (DecodeError, Unreadable, *documents.REFUSED):
        return None
    if around.get("Response", {}).get("JobsDetail", ...) is not None:
        return None
    if not details or details.keys() & lists:
        return None
    around["Response"]["JobsDetail"] = details | {tag: tuple(found) for tag, found in lists.items()}
    return around


def _beginning(body: bytes) -> str:
    return excerpt(body[:500].decode("utf-8", "replace"))


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
        request_id=said.get("requestid") or request_id(headers),
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
        # An error document is never large, and what reads it stands on the loop.
        document = _document(body) if len(body) <= LARGE_BODY else {}
        inside: Any = document.get("Response", document)
        inside = inside.get("Error", inside)
        texts = {tag: as_text(value) for tag, value in inside.items() if _is_scalar(value)}
        found = {tag.lower().replace("_", ""): text.strip() for tag, text in texts.items() if text}
    except (DecodeError, AttributeError):
        found = {}
    if "code" in found or "message" in found:
        return found
    body = body[:MAX_PAGE]
    title = re.search(rb"(?is)<title[^>]*>(.*?)</title>", body)
    words = b" ".join((title.group(1) if title else body).split())
    return {"message": _beginning(words)}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id that CI or the COS gateway gave a request, from its response headers."""
    return _first(headers, "request-id")


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
    return seconds if seconds >= 0 else None


def http_date(value: str) -> datetime | None:
    """The moment that a ``Date`` header names; None if it names none."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
