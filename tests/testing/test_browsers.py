"""The emulator for a page in a browser: what it may send, and what it may read."""

from __future__ import annotations

import httpx
import pytest
from command_line import Clock
from signed import (
    HOST,
    NOW,
    OTHER,
    QUERY,
    SUBMIT,
    authorized,
    code,
    send,
    signed,
    statuses,
    still,
    with_header,
)

from ci_live_audit.testing import Emulator, Fault


@pytest.fixture
def emulator() -> Emulator:
    return still(Clock())


ORIGIN = "https://admin.example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}


def preflight(path: str = SUBMIT, **changes: str) -> httpx.Request:
    headers = {**PREFLIGHT, **{name.replace("_", "-"): value for name, value in changes.items()}}
    present = {name: value for name, value in headers.items() if value}
    return httpx.Request("OPTIONS", f"https://{HOST}{path}", headers=present)


async def test_a_preflight_is_answered(emulator: Emulator) -> None:
    """A page of any origin may send the requests that the service knows, with any header."""
    response = await send(emulator, preflight())
    allowed = {k: v for k, v in response.headers.items() if k.startswith("access-control-")}
    assert (response.status_code, response.content) == (200, b"")
    assert allowed.pop("access-control-expose-headers")
    assert allowed == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "PUT, GET, POST, DELETE, HEAD",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-max-age": "600",
    }
    assert [(each.method, each.status) for each in emulator.arrivals] == [("OPTIONS", 200)]


async def test_a_preflight_may_ask_for_no_header(emulator: Emulator) -> None:
    """Then none is named in the answer."""
    response = await send(emulator, preflight(access_control_request_headers=""))
    assert (response.status_code, response.headers.get("access-control-allow-headers")) == (
        200,
        None,
    )


@pytest.mark.parametrize(
    "changes",
    [{"origin": ""}, {"access_control_request_method": ""}, {"access_control_request_method": "X"}],
)
async def test_a_preflight_that_no_rule_allows_is_refused(
    emulator: Emulator, changes: dict[str, str]
) -> None:
    """As with the service, the browser does not send the request itself."""
    response = await send(emulator, preflight(**changes))
    assert (response.status_code, code(response)) == (403, "AccessForbidden")
    assert "access-control-allow-origin" not in response.headers


async def test_a_preflight_to_another_bucket_is_refused(emulator: Emulator) -> None:
    """It has no rules, as it does not exist."""
    response = await send(emulator, with_header(preflight(), "host", OTHER))
    assert (response.status_code, code(response)) == (404, "NoSuchBucket")


async def test_a_preflight_neither_counts_nor_fails() -> None:
    """It is the browser's own: neither the rate nor a fault applies to it."""
    limited = Emulator(clock=Clock(), now=lambda: NOW, rate=1.0)
    limited.add_job("av1")
    limited.inject(Fault.error(), times=1)
    requests = [preflight(), preflight(), signed(), preflight(), signed()]
    assert await statuses(limited, *requests) == [200, 200, 500, 200, 429]


async def test_a_page_can_read_what_it_is_answered(emulator: Emulator) -> None:
    """Results and refusals are readable, with the headers that a browser would hide."""
    answers = [
        await send(emulator, with_header(request, "origin", ORIGIN))
        for request in (signed(), signed(path=f"{QUERY}0"), authorized(b"x"))
    ]
    assert [response.status_code for response in answers] == [200, 404, 401]
    for response in answers:
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-methods" not in response.headers
        exposed = set(response.headers["access-control-expose-headers"].lower().split(", "))
        ordinary = {"content-type", "content-length"}
        hidden = {k for k in response.headers if not k.startswith("access-control-")} - ordinary
        assert hidden <= exposed


async def test_nobody_but_browsers_sees_that(emulator: Emulator) -> None:
    """Without an origin, no answer speaks of one."""
    response = await send(emulator, signed())
    assert not [name for name in response.headers if name.startswith("access-control-")]
