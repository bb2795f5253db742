"""The examples of the manual on real servers: Starlette, FastAPI, aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from aiohttp import web
from posted import SECRET, Taken, body, detail
from servers import eventually
from starlette.applications import Starlette
from starlette.routing import Mount

from ci_live_audit import CallbackReceiver

pytestmark = pytest.mark.waits

README = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def example(word: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names of the example that contains a word."""
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    monkeypatch.setenv("OLD_CALLBACK_SECRET", SECRET[::-1])
    (block,) = (block for block in BLOCKS if word in block)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


@contextlib.asynccontextmanager
async def under_uvicorn(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI application until the context ends."""
    config = uvicorn.Config(app, port=0, log_config=None, **options)
    server = uvicorn.Server(config)
    with contextlib.closing(config.bind_socket()) as bound:
        task = asyncio.create_task(server._serve([bound]))
        try:
            assert await eventually(lambda: server.started)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def under_aiohttp(app: web.Application) -> AsyncIterator[str]:
    """Serve an application of aiohttp until the context ends."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def check(receiver: CallbackReceiver, base: str, heard: Taken) -> None:
    """Post what is good and what is not; `heard` listens."""
    url, other = receiver.url(base, "room7"), receiver.url(base, "room8")
    async with httpx.AsyncClient() as http:

        async def status(to: str, data: bytes) -> int:
            return (await http.post(to, content=data)).status_code

        assert await status(url, body("av1")) == 200
        assert await status(url, body("av1")) == 200
        assert await status(url, detail("av2", 1000)) == 200
        assert await status(url, b"{") == 200
        assert await status(other, body("av3")) == 404
        assert await status(url[:-1], body("av3")) == 404
        assert await status(url[:-64] + 64 * "0", body("av3")) == 404
        assert (await http.get(url)).status_code == 405
        assert await status(url, 5 * 2**20 * b"x") == 413
        assert await status(url, body("av4")) == 200
    assert await eventually(lambda: [*dict.fromkeys(heard.ids)] == ["av1", "av2", "av4"])


@pytest.mark.parametrize(
    ("word", "serve"),
    [
        ('Mount("/callbacks"', under_uvicorn),
        ("FastAPI()", under_uvicorn),
        ("web.Application(", under_aiohttp),
    ],
    ids=["starlette", "fastapi", "aiohttp"],
)
async def test_the_examples_receive(
    word: str,
    serve: Callable[[Any], contextlib.AbstractAsyncContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The applications of the manual take callbacks, and only those that are genuine."""
    names = example(word, monkeypatch)
    receiver, heard = names["receiver"], Taken()
    receiver.subscribe(heard.append)
    async with serve(names["app"]) as url:
        await check(receiver, f"{url}/callbacks", heard)


@pytest.mark.parametrize("path", ["", "/a/b"])
async def test_it_is_an_application_of_its_own(path: str) -> None:
    """It needs no framework: a server serves it, and tells it the end."""
    taken = Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    async with under_uvicorn(receiver, lifespan="on") as url:
        await check(receiver, url + path, taken)
    assert taken.ids == ["av1", "av2", "av4"]


async def test_it_is_mounted_anywhere() -> None:
    """Mounts in mounts, a prefix that a proxy removes, a slash at the end."""
    heard = Taken()
    receiver = CallbackReceiver(SECRET)
    receiver.subscribe(heard.append)
    inner = Starlette(routes=[Mount("/c d/", receiver), Mount("/", receiver)])
    app = Starlette(routes=[Mount("/a/{b}", inner)])
    async with under_uvicorn(app, root_path="/proxied") as url, httpx.AsyncClient() as http:
        for number, base in enumerate(("/a/1/c%20d", "/a/2")):
            to = receiver.url(url + base, "room7")
            for end in ("", "/"):
                answer = await http.post(to + end, content=body(f"av{number}{end}"))
                assert answer.status_code == 200
    assert heard.ids == ["av0", "av0/", "av1", "av1/"]


@contextlib.asynccontextmanager
async def connected(
    url: str, head: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Begin a request to a URL over a connection of its own."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"POST {parts.path} HTTP/1.1\r\nhost: a\r\n".encode() + head + b"\r\n")
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_nobody_is_asked_for_a_body_in_vain() -> None:
    """Who waits for 100 Continue sends its body only if it is wanted."""
    receiver = CallbackReceiver(SECRET)
    head = b"expect: 100-continue\r\ncontent-length: 100\r\n"
    async with under_uvicorn(receiver) as url:
        async with connected(f"{url}/{64 * '0'}", head) as (reader, _):
            assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        async with connected(receiver.url(url, "room7"), head) as (reader, writer):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(100 * b"x")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_leaves_in_the_middle() -> None:
    """Its place is free, and nothing is counted."""
    receiver = CallbackReceiver(SECRET, at_once=1)
    reading = receiver._intake.reading
    async with under_uvicorn(receiver) as url, httpx.AsyncClient() as http:
        to = receiver.url(url, "room7")
        async with connected(to, b"content-length: 100\r\n"):
            assert await eventually(lambda: len(reading) == 1)
        assert await eventually(lambda: not reading)
        assert not any(receiver.counts.values())
        assert (await http.post(to, content=body())).status_code == 200
