"""The receiver as an ASGI application: https://asgi.readthedocs.io/en/stable/specs/www.html."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from ci_live_audit._loop import deadline
from ci_live_audit._threads import Threads
from ci_live_audit.callbacks.intake import Intake, read
from ci_live_audit.errors import DecodeError
from ci_live_audit.wire.documents import LARGE_BODY

__all__ = ["App", "Receive", "Scope", "Send"]

logger: logging.Logger = logging.getLogger("ci_live_audit.callbacks")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Digits of a length that is a number at all.
MAX_DIGITS = 20


class _Left(Exception):
    """The client has gone before its request was complete."""


class _TooLarge(Exception):
    """A body has more bytes than it may have."""


class App:
    """Reads requests within bounds, and answers them with a status and no body.

    Args:
        intake: What decides.
        max_body: Bytes that a body may have.
        at_once: Bodies that may be read at the same time.
        timeout: Seconds in which a body has to arrive.
    """

    def __init__(self, intake: Intake, *, max_body: int, at_once: int, timeout: float) -> None:
        self._intake = intake
        self._max_body = max_body
        self._at_once = at_once
        self._timeout = timeout
        self._threads = Threads(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        kind = scope["type"]
        if kind == "http":
            with suppress(_Left):
                status = await self._status(scope, receive)
                allow = [(b"allow", b"POST")] if status == 405 else []
                headers = [(b"content-length", b"0"), *allow]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # a 403 to the handshake
        else:
            raise ValueError(f"expected a scope of http, websocket or lifespan, got {kind!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        if self._intake.consumer is not None:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._intake.consumer.join()
            except TimeoutError:
                logger.warning("on_callback is too slow to end within %g s", self._timeout)
        await send({"type": "lifespan.shutdown.complete"})

    async def _status(self, scope: Scope, receive: Receive) -> int:
        intake = self._intake
        if scope["method"] != "POST":
            return intake.count("refused", 405)
        grant = intake.tokens.grant(scope["path"])
        if grant is None:
            return intake.count("refused", 404)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope.get("headers", ())
        }
        if headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
            return intake.count("refused", 415)
        if self._is_too_large(headers.get("content-length", "")):
            return intake.count("refused", 413)
        if len(intake.reading) >= self._at_once:
            return intake.count("busy", 503)
        mark = object()
        intake.reading.add(mark)
        try:
            body = await self._body(receive)
            decoding = partial(read, body, headers)
            is_large = len(body) > LARGE_BODY
            callback = await self._threads.run(decoding) if is_large else decoding()
        except TimeoutError:
            return intake.count("refused", 408)
        except _TooLarge:
            return intake.count("refused", 413)
        except DecodeError as problem:
            return intake.cannot_read(problem)
        except RuntimeError:  # the system has no more threads
            return intake.count("busy", 503)
        finally:
            intake.reading.discard(mark)
        return intake.decide(grant, callback, len(body))

    def _is_too_large(self, length: str) -> bool:
        return length.isdecimal() and (len(length) > MAX_DIGITS or int(length) > self._max_body)

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        async with deadline(asyncio.get_running_loop().time() + self._timeout):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Left
                body += message.get("body", b"")
                if len(body) > self._max_body:
                    raise _TooLarge
                if not message.get("more_body", False):
                    return bytes(body)
                await asyncio.sleep(0)  # a flood of tiny pieces would starve the loop
