"""Arguments of a call → a checked `Request`, not yet signed.

Arguments that the service would certainly refuse are refused here, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import attrs

from ci_live_audit._checks import text
from ci_live_audit.errors import InvalidInput
from ci_live_audit.models import ReadOnly, UserInfo, tags
from ci_live_audit.wire.endpoint import url_fault

__all__ = ["Request", "cancel", "query", "submit"]


@attrs.frozen(kw_only=True)
class Request:
    """One call of the service, not yet signed.

    The names of its headers are lower-case. It is ``idempotent`` if sending it twice does no more
    than sending it once.
    """

    operation: str
    method: str
    path: str
    headers: Mapping[str, str] = ReadOnly()
    body: bytes = b""
    idempotent: bool = True
    job_id: str | None = None


def query(job_id: str) -> Request:
    """Return the request for a job: https://www.tencentcloud.com/document/product/1045/49342."""
    job_id = _job_id(job_id)
    return Request(operation="query", method="GET", path=f"/video/auditing/{job_id}", job_id=job_id)


def cancel(job_id: str) -> Request:
    """Return the request that stops a job: https://www.tencentcloud.com/document/product/1045/49341."""
    job_id = _job_id(job_id)
    return Request(
        operation="cancel",
        method="POST",
        path=f"/video/cancel_auditing/{job_id}",
        headers=ReadOnly({"content-length": "0"}),
        job_id=job_id,
    )


def submit(
    url: str,
    *,
    biz_type: str | None = None,
    data_id: str | None = None,
    user_info: UserInfo | None = None,
    callback: str | None = None,
    callback_type: int | None = None,
    storage_path: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Request:
    """Return the request that starts a job: https://www.tencentcloud.com/document/product/1045/49340.

    The arguments are those of `LiveAuditClient.submit`.
    """
    tree: dict[str, Any] = {
        "Input": {
            "Url": _url("url", url, {"rtmp", "hls", "http", "https"}),
            "DataId": _setting("data_id", data_id, at_most=512),
            "UserInfo": _user_info(user_info),
        },
        "Conf": {
            "BizType": _setting("biz_type", biz_type),
            "Callback": None if callback is None else _url("callback", callback, {"http", "https"}),
            "CallbackType": _callback_type(callback_type),
        },
        "StorageConf": {"Path": _setting("storage_path", storage_path)},
        "Type": "live_video",
    }
    body = _render("Request", "extra", _merged(tree, {} if extra is None else extra)).encode()
    return Request(
        operation="submit",
        method="POST",
        path="/video/auditing",
        headers=ReadOnly({"content-type": "application/xml", "content-length": str(len(body))}),
        body=body,
        idempotent=False,
    )


# Characters that XML 1.0 cannot carry: https://www.w3.org/TR/xml/#charsets
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _job_id(value: str) -> str:
    # It becomes a segment of the path, which it must not be able to leave.
    value = text("job_id", value, InvalidInput)
    if re.fullmatch(r"[A-Za-z0-9_-]{1,128}", value):
        return value
    raise InvalidInput(f"job_id: expected 1 to 128 of A-Z a-z 0-9 _ -; got {value[:140]!r}")


def _xml_text(name: str, value: str, *, at_most: float = math.inf) -> str:
    value = text(name, value, InvalidInput)
    bad = NOT_XML.search(value)
    if bad:
        raise InvalidInput(f"{name}: {bad.group()!r} at {bad.start()} cannot be sent in XML")
    size = len(value.encode())
    if size > at_most:
        raise InvalidInput(f"{name}: at most {at_most} bytes of UTF-8, got {size}")
    return value


def _setting(name: str, value: str | None, *, at_most: float = math.inf) -> str | None:
    if value == "":
        # Probably a setting that was never set; it would be left out silently.
        raise InvalidInput(f"{name}: empty; leave the argument out to use the default")
    return None if value is None else _xml_text(name, value, at_most=at_most)


def _url(name: str, value: str, schemes: set[str]) -> str:
    url = _xml_text(name, value)
    fault = url_fault(url, schemes)
    if fault is None:
        return url
    # The URL is not quoted: a stream's address may contain its key.
    raise InvalidInput(f"{name}: expected a URL of {', '.join(sorted(schemes))}, but {fault}")


def _callback_type(value: int | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value in {1, 2}:
        return str(int(value))
    raise InvalidInput(
        f"callback_type: expected 1 (everything) or 2 (violations only); got {value!r}"
    )


def _user_info(value: UserInfo | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, UserInfo):
        raise InvalidInput(f"user_info: expected UserInfo, got {type(value).__name__}")
    fields: dict[str, Any] = {}
    for name, tag in tags(UserInfo).items():
        if (field := getattr(value, name)) is not None:
            fields[tag.name] = _xml_text(f"user_info.{name}", field, at_most=128)
    return _merged(fields, value.extra, "user_info.extra")


Tree: TypeAlias = Mapping[str, Any] | list[Any] | tuple[Any, ...] | str | float | None


def _merged(tree: Mapping[str, Any], extra: Mapping[str, Any], at: str = "extra") -> dict[str, Any]:
    if not isinstance(extra, Mapping):
        raise InvalidInput(f"{at}: expected a mapping, got {type(extra).__name__}")
    merged = dict(tree)
    value: Tree
    for tag, value in extra.items():
        given: Tree = merged.get(tag)
        if isinstance(given, Mapping) and isinstance(value, Mapping):
            merged[tag] = _merged(given, value, f"{at}.{tag}")
        elif given is None or given == {}:
            merged[tag] = value
        else:
            raise InvalidInput(f"{at}.{tag}: already given by an argument of its own")
    return merged


def _render(tag: str, at: str, value: Tree) -> str:
    """Return an element with its content escaped; an empty text where there is no content."""
    if not isinstance(tag, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", tag):
        raise InvalidInput(f"{at}: not a name for an element")
    tag = str.__str__(tag)
    if isinstance(value, list | tuple):
        return "".join(_render(tag, at, item) for item in value)
    if isinstance(value, Mapping):
        inside = "".join(_render(name, f"{at}.{name}", item) for name, item in value.items())
    elif isinstance(value, str):
        inside = escape(_xml_text(at, value), {"\r": "&#13;"})
    elif value is None:
        inside = ""
    elif isinstance(value, int) and not isinstance(value, bool):
        inside = int.__repr__(value)
    elif isinstance(value, float) and math.isfinite(value):
        inside = float.__repr__(value)
    else:
        raise InvalidInput(f"{at}: expected text, numbers, mappings or lists of them")
    # The service requires Conf, but none of its children.
    return f"<{tag}>{inside}</{tag}>" if inside or at == "extra.Conf" else ""
