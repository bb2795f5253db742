"""Requests signed in every way, and what an emulator in process answers to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import httpx
from command_line import Clock

from ci_live_audit import Credentials
from ci_live_audit.testing import Emulator
from ci_live_audit.wire import signature

NOW = 1_700_000_000
HOST = "examplebucket-1250000000.ci.ap-beijing.myqcloud.com"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
QUERY = "/video/auditing/av1"
CANCEL = "/video/cancel_auditing/av1"
SUBMIT = "/video/auditing"
LIVE = "rtmp://live.example.com/app/room7"
OTHER = HOST.replace("example", "other")


def still(clock: Clock) -> Emulator:
    """Return an emulator whose time stands still, without a rate limit, with the job ``av1``."""
    emulator = Emulator(clock=clock, now=lambda: NOW, rate=math.inf)
    emulator.add_job("av1")
    return emulator


def signed(
    method: str = "GET",
    path: str = QUERY,
    body: str = "",
    *,
    credentials: Credentials = CREDENTIALS,
    at: float = NOW,
    host: str = HOST,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Request:
    """Return a request with every header and parameter signed, valid for a minute around ``at``."""
    sent = {"host": host, **(headers or {})}
    if credentials.token is not None:
        sent["x-ci-security-token"] = credentials.token
    key_time = f"{int(at) - 60};{int(at) + 60}"
    sent["authorization"] = signature.authorization(
        method, path, params or {}, sent, credentials, key_time
    )
    url = f"https://{host}{path}" + (f"?{urlencode(params)}" if params else "")
    return httpx.Request(method, url, headers=sent, content=body)


def authorized(authorization: bytes) -> httpx.Request:
    return httpx.Request("GET", f"https://{HOST}{QUERY}", headers={b"authorization": authorization})


async def send(emulator: Emulator, request: httpx.Request) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(emulator)) as client:
        return await client.send(request)


async def statuses(emulator: Emulator, *requests: httpx.Request) -> list[int]:
    return [(await send(emulator, request)).status_code for request in requests]


def presigned(
    method: str = "GET",
    path: str = QUERY,
    *,
    form: str = "fields",
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> httpx.Request:
    """Return a request whose signature is in its URL, in the way of one of the vendor's SDKs."""
    request = signed(method, path, params=params, headers=headers, **options)
    text = request.headers.pop("authorization")
    if form == "sign":
        sign = urlencode({"sign": text})
    elif form == "raw":
        sign = text
    else:
        sign = urlencode(dict(field.split("=", 1) for field in text.split("&")))
    parts = [request.url.query.decode(), sign]
    request.url = request.url.copy_with(query="&".join(filter(None, parts)).encode())
    return request


def with_header(request: httpx.Request, name: str, value: str) -> httpx.Request:
    request.headers[name] = value
    return request


def submission(body: str) -> httpx.Request:
    return signed("POST", SUBMIT, body)


def stream(
    tag: str = "Request", kind: str = "live_video", url: str = LIVE, more: str = "", conf: str = ""
) -> str:
    body = f"<Input><Url>{url}</Url>{more}</Input><Conf>{conf}</Conf><Type>{kind}</Type>"
    return f"<{tag}>{body}</{tag}>"


async def answer(emulator: Emulator, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the emulator sends to a server for a request without a body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def record(message: dict[str, Any]) -> None:
        sent.append(message)

    await emulator(scope, receive, record)
    return sent


def code(response: httpx.Response) -> str | None:
    return ET.fromstring(response.content).findtext("Code")
