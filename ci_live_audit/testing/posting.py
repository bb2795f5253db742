"""How the emulator sends callbacks: in process or over the network, within bounds, and again."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread
import attrs
import httpx

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.testing.bodies import Form, callback_headers
from ci_live_audit.wire.endpoint import is_this_machine

__all__ = ["App", "Delivery", "Post"]

logger: logging.Logger = logging.getLogger("ci_live_audit.testing.posting")

App: TypeAlias = Callable[..., Awaitable[Any]]

#: Seconds that a receiver has for its response, and how many callbacks are sent at once.
TIMEOUT, AT_ONCE = 10.0, 50
#: Seconds for which a callback is sent again: a day, as documented for the moderation of texts.
REPEATED = 86400.0
#: Beyond so many, deliveries are forgotten; and so many are kept then.
MOST_DELIVERIES, DELIVERIES = 10_000, 8_000
ELSEWHERE = "not sent: callbacks=True is for URLs of this machine, such as http://127.0.0.1:8000"


@attrs.define(kw_only=True)
class Delivery:
    """A callback that was sent.

    Attributes:
        time: When, in seconds by the emulator's clock.
        url: Where to.
        form: ``"Simple"`` or ``"Detail"``.
        job_id: The job; None for the test of a URL.
        body: What was sent; `callbacks.decode` reads it.
        attempt: 1; more for one sent again, since there was another response than 200 or none.
        status: That of the response, 0 for none.
        error: Why there is no response.
    """

    time: float
    url: str
    form: Form
    job_id: str | None
    body: bytes
    attempt: int = 1
    status: int = 0
    error: str | None = None


class Post:
    """Sends callbacks from the running event loop.

    Args:
        to: An ASGI app that gets all, whatever host their URLs have; or True to send them to URLs
            of this machine.
        pause: Seconds after which a callback is sent again; infinity for never.
        clock: Seconds.
        deliveries: What is sent is added here.

    Raises:
        ConfigurationError: ``to`` is neither an app nor True.
    """

    def __init__(
        self,
        to: App | bool,  # noqa: FBT001 - one of two destinations
        *,
        pause: float,
        clock: Callable[[], float],
        deliveries: list[Delivery],
    ) -> None:
        if not callable(to) and to is not True:
            raise ConfigurationError(
                f"callbacks: expected an ASGI app, True or None; got {type(to).__name__}"
            )
        self._app = httpx.ASGITransport(to) if callable(to) else None
        self._pause = pause
        self._clock = clock
        self._deliveries = deliveries
        self._tls: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def reaches(self, delivery: Delivery) -> bool:
        """Return whether there is a way to a URL; note it if there is none."""
        if self._app is not None or is_this_machine(urlsplit(delivery.url).hostname or ""):
            return True
        self.lose(delivery, ELSEWHERE)
        return False

    def lose(self, delivery: Delivery, why: str) -> None:
        """Note that a callback is not sent."""
        self._note(attrs.evolve(delivery, error=why))

    def send(self, deliveries: list[Delivery], *, delay: float = 0.0) -> None:
        """Send callbacks one after the other, the first after ``delay`` seconds."""
        loop = asyncio.get_running_loop()
        if self._stopped or not deliveries:
            return
        if delay > 0:
            loop.call_later(delay, self.send, deliveries)
            return
        if loop is not self._loop:
            self._loop, self._room = loop, asyncio.Semaphore(AT_ONCE)
        task = loop.create_task(self._send(deliveries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Send nothing more; from any thread."""
        self._stopped = True
        if self._loop is not None and not self._loop.is_closed():
            for task in list(self._tasks):
                self._loop.call_soon_threadsafe(task.cancel)

    def _note(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        if len(self._deliveries) > MOST_DELIVERIES:
            del self._deliveries[:-DELIVERIES]

    async def _send(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            async with self._room:
                await self._deliver(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        delivery.time = self._clock()
        self._note(delivery)
        try:
            async with asyncio.timeout(TIMEOUT):
                delivery.status = await self._status(delivery)
        except TimeoutError:
            delivery.error = f"no response within {TIMEOUT:g} s"
        except Exception as problem:
            delivery.error = f"{type(problem).__name__}: {problem}"
            logger.warning("a callback came to nothing: %s", delivery.error, exc_info=problem)
        again = delivery.attempt * self._pause <= REPEATED and delivery.job_id is not None
        if delivery.status != 200 and again:
            more = attrs.evolve(delivery, attempt=delivery.attempt + 1, status=0, error=None)
            self.send([more], delay=self._pause)

    async def _status(self, delivery: Delivery) -> int:
        headers = callback_headers(delivery.form)
        request = httpx.Request("POST", delivery.url, headers=headers, content=delivery.body)
        # One connection for each: cancelling a request can harm a pool, and none is left open.
        async with self._app or await self._network(request.url) as transport:
            response = await transport.handle_async_request(request)
            await response.aclose()
        return response.status_code

    async def _network(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        if url.scheme == "https" and self._tls is None:
            self._tls = await anyio.to_thread.run_sync(httpx.create_ssl_context)
        # Without TLS there is no certificate to look at, and none has to be loaded.
        return httpx.AsyncHTTPTransport(verify=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
