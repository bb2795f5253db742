"""A request, and how to exchange it over a transport."""

from __future__ import annotations

from ci_live_audit.credentials.values import Secret
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

GET = Request(
    operation="query",
    method="GET",
    path="/path",
    headers={"host": "example.com", "authorization": Secret("canary-signature")},
)


async def get(transport: Transport, *, timeout: float = 5.0) -> Response:
    """Exchange `GET`, and return the complete response or raise its error."""
    async with transport.open_call():
        response = await transport.send(GET, timeout=timeout)
    if response.error is not None:
        raise response.error
    return response
