"""The XML documents that the service sends: results and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import attrs

from ci_live_audit.models import AuditJob, CancelledJob, ReadOnly, Result, SubmittedJob, tags

__all__ = ["Refusal", "error_document", "render"]


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
    request_id = _element("RequestId", result.request_id)
    return f"<Response>{_element('JobsDetail', result)}{request_id}</Response>".encode()


def error_document(code: str, message: str, request_id: str, **more: str) -> bytes:
    """Return an error document of CI, or with ``more`` nodes one of the COS gateway.

    https://www.tencentcloud.com/document/product/1045/43611
    """
    ids = {"RequestId": request_id, "TraceId": request_id[::-1]}
    nodes = {"Code": code, "Message": message, **ids, **more}
    return f"<Error>{''.join(map(_element, nodes, nodes.values()))}</Error>".encode()


Scalar: TypeAlias = Enum | datetime | str | float | None
Node: TypeAlias = Result | Mapping[str, Any] | tuple[Any, ...] | Scalar


def _element(tag: str, value: Node) -> str:
    if isinstance(value, tuple):
        return "".join(_element(tag, item) or f"<{tag}/>" for item in value)
    if tag == "#text":
        return _content(value) or ""
    inside = _children(value) if isinstance(value, Result) else _content(value)
    return "" if inside is None else f"<{tag}>{inside}</{tag}>"


def _children(result: Result) -> str:
    nodes = ""
    extra = dict(getattr(result, "extra", {}))
    cls: Any = type(result)
    for name, tag in tags(cls).items():
        value = getattr(result, name)
        if name == "keywords":
            value = getattr(result, "keywords_raw", None) or value
        if name == "request_id":  # it is beside the job, not in it
            continue
        if tag.item is None or not value:
            nodes += _element(tag.name, value)
        else:
            inside = _element(tag.item, value) + (_content(extra.pop(tag.name, None)) or "")
            nodes += f"<{tag.name}>{inside}</{tag.name}>"
    for name, scene in getattr(result, "scenes", {}).items():
        nodes += _element(f"{name}Info", scene)
    for tag_name, value in extra.items():
        nodes += _element(tag_name, value) or f"<{tag_name}/>"
    return nodes


def _content(value: Node) -> str | None:
    if value is None or value == {}:
        return None
    if isinstance(value, Mapping):
        return "".join(_element(tag, item) or f"<{tag}/>" for tag, item in value.items())
    if isinstance(value, datetime):
        text = value.isoformat()
        # The query document writes the zone as +0800.
        return re.sub(r"([+-]\d\d):(\d\d)$", r"\1\2", text)
    return escape(str(value.value if isinstance(value, Enum) else value), {"\r": "&#13;"})
