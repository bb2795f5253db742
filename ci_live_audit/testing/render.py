"""The documents that the service sends: results and errors as XML, and results as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import attrs

from ci_live_audit.models import AuditJob, CancelledJob, ReadOnly, Result, SubmittedJob, tags

__all__ = ["Refusal", "error_document", "render", "tree"]


@attrs.frozen
class Refusal:
    """An error response of the service.

    ``more`` holds further nodes of its document; ``retry_after`` is seconds.
    """

    status: int
    code: str
    message: str
    more: Mapping[str, str] = ReadOnly()
    retry_after: float | None = None

    @classmethod
    def slow_down(cls, *, status: int = 429, retry_after: float | None = None) -> Refusal:
        """Return the refusal of a request above the rate."""
        message = "Reduce your request rate."
        return cls(status, "SlowDown", message, retry_after=retry_after)

    def document(self, request_id: str) -> bytes:
        """Return the body of the response."""
        return error_document(self.code, self.message, request_id, **self.more)


def render(result: AuditJob | SubmittedJob | CancelledJob) -> bytes:
    """Return the body of a response; attributes that are None or empty are left out."""
    job = _element("JobsDetail", result)
    beside = "" if result.request_id is None else _element("RequestId", result.request_id)
    return f"<Response>{job}{beside}</Response>".encode()


def error_document(code: str, message: str, request_id: str, **more: str) -> bytes:
    """Return an error document of CI, or with ``more`` nodes one of the COS gateway.

    https://www.tencentcloud.com/document/product/1045/43611
    """
    ids = {"RequestId": request_id, "TraceId": request_id[::-1]}
    nodes = {"Code": code, "Message": message, **ids, **more}
    return f"<Error>{''.join(map(_element, nodes, nodes.values()))}</Error>".encode()


Scalar: TypeAlias = Enum | datetime | str | float | None
Node: TypeAlias = Result | Mapping[str, Any] | tuple[Any, ...] | Scalar


def tree(value: Node) -> Any:
    """Return a result as the plain values of a JSON document, under the names of its nodes."""
    if isinstance(value, Result):
        return {tag: tree(inside) for tag, inside in _nodes(value)}
    if isinstance(value, tuple):
        return [tree(item) for item in value]
    if isinstance(value, Mapping):
        return {tag: tree(item) for tag, item in value.items()}
    return _plain(value)


def _nodes(result: Result) -> Iterator[tuple[str, Node]]:
    """Give the tag and the value of each node of a result; what is None or empty has none."""
    extra = dict(getattr(result, "extra", {}))
    cls: Any = type(result)
    for name, tag in tags(cls).items():
        value = getattr(result, name)
        if name == "keywords":
            value = getattr(result, "keywords_raw", None) or value
        if name == "request_id" or value is None or value in ({}, ()):
            continue  # the id of the request is beside the job, not in it
        if tag.item is not None:
            more = extra.pop(tag.name, {})
            value = {tag.item: value, **(more if isinstance(more, Mapping) else {"#text": more})}
        yield tag.name, value
    for name, scene in getattr(result, "scenes", {}).items():
        yield f"{name}Info", scene
    yield from extra.items()


def _element(tag: str, value: Node) -> str:
    if isinstance(value, tuple):
        return "".join(_element(tag, item) for item in value)
    content = _content(value)
    return content if tag == "#text" else f"<{tag}>{content}</{tag}>"


def _content(value: Node) -> str:
    if isinstance(value, Result):
        return "".join(_element(tag, inside) for tag, inside in _nodes(value))
    if isinstance(value, Mapping):
        return "".join(_element(tag, item) for tag, item in value.items())
    return "" if value is None else escape(str(_plain(value)), {"\r": "&#13;"})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        # The query document writes the zone as +0800.
        return re.sub(r"([+-]\d\d):(\d\d)$", r"\1\2", value.isoformat())
    return value.value if isinstance(value, Enum) else value
