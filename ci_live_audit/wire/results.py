"""A body of the service → documents → nodes → a frozen result.

Pure: takes bytes, returns a value or raises a `LiveAuditError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar

from ci_live_audit.errors import DecodeError, LiveAuditError
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
from ci_live_audit.wire import documents, items, nodes, refusals
from ci_live_audit.wire.context import MAX_SHARED, Context
from ci_live_audit.wire.responses import Response
from ci_live_audit.wire.scalars import Unreadable, Value, as_word, is_nothing, is_null

__all__ = ["cancelled", "job", "job_without", "submitted"]

# "Each URL is valid for two hours": https://www.tencentcloud.com/document/product/1045/49342
URL_LIFE = timedelta(hours=2)
LISTS: dict[str, type[Any]] = dict(zip(items.LISTS, (Snapshot, AudioSection), strict=True))
# What may be in a response that says nothing about a job.
BARE = {"RequestId", "JobsDetail", nodes.TEXT}
# All that some gateways say of a success.
DONE = re.compile(rb'\s*"?(?:ok|success)?"?\s*', re.IGNORECASE)

Pause: TypeAlias = Callable[[], object]
R = TypeVar("R", AuditJob, SubmittedJob, CancelledJob)


def job(
    body: bytes, *, received_at: datetime | None = None, pause: Pause | None = None
) -> AuditJob:
    """Decode the response to a query, or the body of a Detail callback (JSON).

    Args:
        body: What the service sent.
        received_at: When it arrived; it decides ``url_expires_at`` of snapshots and sections.
        pause: Called after every 8 KB of a large XML body; in a thread, ``time.sleep(0)`` lets
            other threads run.

    Raises:
        DecodeError: The body is not such a document, or a value in it cannot be read.
        ServiceError: The body is an error document.

    Source: https://www.tencentcloud.com/document/product/1045/49342
    """
    return _decode(AuditJob, body, received_at, pause)


def job_without(
    rest: items.Rest, *, received_at: datetime | None = None, pause: Pause | None = None
) -> AuditJob | None:
    """Decode the response to a query without the items that were left out.

    Return None if the body has to be read whole: the job has ended, or something is unusual.
    """
    try:
        found = _decode(AuditJob, rest.body, received_at, pause, runs=rest.runs)
    except LiveAuditError:
        return None
    return None if found.ended or found.unreadable else found


def submitted(body: bytes) -> SubmittedJob:
    """Decode the response to a submission; raises as `job` does.

    Source: https://www.tencentcloud.com/document/product/1045/49340
    """
    return _decode(SubmittedJob, body)


def cancelled(body: bytes, *, job_id: str | None = None) -> CancelledJob:
    """Decode the response to a cancellation; raises as `job` does.

    With the ``job_id`` of the request, the body may be empty, or say no more than OK or a request
    id: the status says enough.

    Source: https://www.tencentcloud.com/document/product/1045/49341
    """
    if job_id is not None and DONE.fullmatch(body):
        return CancelledJob(job_id=job_id)
    return _decode(CancelledJob, body, job_id=job_id)


def _decode(
    cls: type[R],
    body: bytes,
    received_at: datetime | None = None,
    pause: Pause | None = None,
    *,
    runs: Mapping[str, int] = EMPTY,
    job_id: str | None = None,
) -> R:
    context = Context(
        expires_at=received_at and received_at + URL_LIFE,
        # In JSON 1 equals true, so nodes that look alike may differ.
        max_shared=0 if documents.is_json(body) else MAX_SHARED,
    )
    streamed = cls is AuditJob and len(body) > documents.LARGE_BODY
    document = documents.read(body, partial(_reader_of_lists, context, pause) if streamed else None)
    response: Value = document.get("Response", document)
    sent = response if isinstance(response, dict) else {}
    if "Error" in sent and sent.get("JobsDetail") is None:
        raise refusals.refusal(Response(status=200, body=body))
    if job_id is not None and _is_bare(response):
        sent = {**sent, "JobsDetail": {wire_name("job_id"): job_id}}
    details: Value = sent.get("JobsDetail")
    if not isinstance(details, dict):
        raise DecodeError(
            "expected a Response with one JobsDetail", excerpt=documents.beginning(body)
        )
    _remove_marks(details, runs)
    try:
        around = nodes.values(_whole(cls), sent, context)  # type: ignore[arg-type]
    except Unreadable as problem:
        raise DecodeError(str(problem), path=problem.path, excerpt=problem.excerpt) from None
    if context.unreadable:
        around["unreadable"] = tuple(context.unreadable)
    known: dict[str, Any] = around.pop("details")
    extra: dict[str, Any] = dict(known.get("extra", EMPTY))
    for tag, value in around.pop("extra", EMPTY).items():
        extra[f"Response.{tag}" if tag in extra else tag] = value
    if "request_id" in known and "request_id" in around:
        extra["RequestId"] = known["request_id"]
    known |= around | {"extra": ReadOnly(extra)}
    if received_at is not None:
        known["received_at"] = received_at
    return cls(**known)


def _remove_marks(details: dict[str, Any], runs: Mapping[str, int]) -> None:
    """Remove what stands in place of items that were left out, each of which is a child here."""
    for tag, number in runs.items():
        value: Value = details.get(tag)
        shown = value if isinstance(value, list) else [value]
        details[tag] = left = [one for one in shown if one != items.MARK]
        if len(left) != len(shown) - number:
            raise DecodeError("an item is not where it was expected", path=f"Response.{tag}")


def _is_bare(response: Value) -> bool:
    """Return whether a response says no more than its request id."""
    if not isinstance(response, dict):
        return is_null(response)
    rest = {
        tag: value for tag, value in response.items() if not (is_null(value) or is_nothing(value))
    }
    return response.keys() <= BARE and rest.keys() <= {"RequestId"}


def _details(cls: Any, node: Any, context: Context) -> dict[str, Any]:
    known = nodes.values(nodes.reader(cls), node, context)
    for name in ("job_id", "state") if cls is AuditJob else ("job_id",):
        tag = wire_name(name)
        # Of several ids, none is sure to be meant.
        if name not in known or (name == "job_id" and isinstance(node[tag], list)):
            reason = "missing" if is_null(node.get(tag)) else "cannot be read"
            raise Unreadable(reason, fatal=True).within(tag)
    return known


@cache
def _whole(cls: Any) -> nodes.Reader:
    details = nodes.Field("details", partial(_details, cls), plain=False)
    return nodes.Reader({"JobsDetail": details, "RequestId": nodes.Field("request_id", as_word)})


def _reader_of_lists(context: Context, pause: Pause | None) -> documents.AfterSlice:
    """Return what reads snapshots and sections after each slice, so that no large tree builds up.

    Unreadable ones are left for the end: until then, the body may not be a document at all. What
    was noted in a reading before, of the document as it came, is forgotten.
    """
    context.early.clear()
    context.noted = 0
    counts = dict.fromkeys(LISTS, 0)

    def read_lists(opened: documents.Opened) -> None:
        if [name for name, _ in opened[:2]] == ["Response", "JobsDetail"]:
            for tag, cls in LISTS.items():
                items = opened[1][1].get(tag)
                if isinstance(items, list):
                    for index in range(counts[tag], len(items)):
                        with suppress(Unreadable):
                            items[index] = nodes.read_early(cls, items[index], context)
                    counts[tag] = len(items)
        if pause is not None:
            pause()

    return read_lists
