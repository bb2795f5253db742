"""What the emulator reads of a request, and how it sends a response.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, TypeAlias

from ci_live_audit.testing import browsers
from ci_live_audit.testing.faults import Fault
from ci_live_audit.testing.render import Refusal
from ci_live_audit.testing.service import Call

__all__ = ["Receive", "Scope", "Send", "abort", "body", "respond", "target"]

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


async def body(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    data = b""
    more = True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    return data


def target(scope: Scope) -> tuple[dict[str, str], str]:
    """Return the ``Host`` header that a target with one has in place of the sent, and its path.

    https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
    """
    whole = re.fullmatch(r"(?is)https?://([^/]*)(.*)", scope["path"])
    return ({"host": whole[1]}, whole[2] or "/") if whole else ({}, scope["path"])


async def respond(
    send: Send, call: Call, response: bytes | Refusal, fault: Fault, now: float
) -> None:
    """Send a response, with the parts of the fault that concern it."""
    headers = {
        "content-type": "application/xml",
        "date": format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True),
        "server": "tencent-ci",
        "x-ci-request-id": call.request_id,
        **browsers.permissions(call.method, call.headers),
    }
    if isinstance(response, Refusal):
        status, data = response.status, response.document(call.request_id)
        headers["x-ci-trace-id"] = call.request_id[::-1]
        if response.retry_after is not None:
            headers["retry-after"] = f"{response.retry_after:g}"
    else:
        status, data = 200, response
    if fault.page is not None:
        data = fault.page
        headers["content-type"] = "text/html"
    headers["content-length"] = str(len(data))
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    # A server closes the connection when a body ends before the announced length.
    await send({"type": "http.response.body", "body": data[: int(len(data) * fault.sent)]})


def abort(scope: Scope) -> None:
    """Reset the connection: on a socket by the server, in process by an exception."""
    reset = scope.get("state", {}).get("abort")
    if reset is not None:
        reset()
    raise ConnectionResetError("reset by the emulator")
