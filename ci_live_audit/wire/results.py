"""A body of the service → xmltodict (or json) → a frozen result, or the error that it stands for.

Pure: bytes in, a value or a `LiveAuditError` out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from ci_live_audit.errors import DecodeError
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
from ci_live_audit.wire import documents, refusals
from ci_live_audit.wire.nodes import Context, values
from ci_live_audit.wire.responses import Response
from ci_live_audit.wire.scalars import Unreadable, Value

__all__ = ["cancelled", "job", "submitted"]

# "Each URL is valid for two hours": https://www.tencentcloud.com/document/product/1045/49342
URL_LIFE = timedelta(hours=2)
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
    context = Context(received_at and received_at + URL_LIFE, shared)
    document = _streamed(body, context, pause) if len(body) > documents.LARGE_BODY else None
    document = document or documents.read(body)
    response: Value = document.get("Response", document)
    around = dict(response) if isinstance(response, dict) else {}
    details: Value = around.pop("JobsDetail", None)
    if details is None and "Error" in around:
        raise refusals.refusal(Response(status=200, body=body))
    if not isinstance(details, dict):
        raise DecodeError(
            "expected a Response with one JobsDetail", excerpt=documents.beginning(body)
        )
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


def _streamed(
    body: bytes, context: Context, pause: Callable[[], object] | None
) -> dict[str, Any] | None:
    """As `documents.read`, with snapshots and sections made as their tags close, in little memory.

    xmltodict hands out the elements of one depth and forgets what stands above them. So it gets
    ``JobsDetail`` as a document of its own, and what is around it separately. None if that does not
    work out: then the body is not what it looks like, and is read whole.
    """
    opened, closed = body.find(DETAILS), body.rfind(DETAILS_END)
    if not 0 <= opened < closed or OTHER_ENCODING.search(body, 0, min(opened, documents.MAX_PAGE)):
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
        around = documents.read(body[:opened] + DETAILS + body[closed:])
        documents.elements(body, opened, closed + len(DETAILS_END), take, pause)
    except (DecodeError, Unreadable, *documents.REFUSED):
        return None
    if around.get("Response", {}).get("JobsDetail", ...) is not None:
        return None
    if not details or details.keys() & lists:
        return None
    around["Response"]["JobsDetail"] = details | {tag: tuple(found) for tag, found in lists.items()}
    return around
