"""`Emulator`: the service as a plain ASGI app, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import attrs
import httpx

from ci_live_audit.client import LiveAuditClient
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.models import AudioSection, Snapshot
from ci_live_audit.testing import browsers
from ci_live_audit.testing.faults import Fault, Faults
from ci_live_audit.testing.render import Refusal
from ci_live_audit.testing.service import Call, Quota, Service
from ci_live_audit.testing.streams import LiveJob, Stream

__all__ = ["Arrival", "Emulator"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

DEFAULT_CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
NO_FAULT = Fault()
#: Beyond so many, arrivals are forgotten; and so many are kept then.
MOST_ARRIVALS, ARRIVALS = 100_000, 80_000


@attrs.define
class Arrival:
    """A request that arrived.

    ``time`` is seconds by the emulator's clock; ``status`` is that of the response, 0 for none.
    """

    time: float
    method: str
    path: str
    status: int = 0


class Emulator:
    """Emulates the service for one bucket.

    Jobs run by the clock: they are Submitted, then Auditing with findings appearing as their
    stream goes on, then Success, Failed or Cancelled. Signatures are verified, the rate is
    enforced, errors have the service's codes, statuses and bodies.

    Where the service's behaviour is undocumented, a choice was made: a cancelled job has the state
    ``Cancelled``; cancelling a job that has ended is an ``InvalidArgument``, and so is a stream
    whose URL is none; one stream too many is a ``QueueSaturated``.

    Args:
        bucket: The bucket it serves.
        region: The region it is in.
        credentials: The only credentials it accepts; the attribute can be changed.
        rate: Requests a second above which it responds 429 ``SlowDown``.
        at_once: Streams that may run at the same time; a further one is refused.
        clock: Seconds, for streams and the rate; the event loop's clock by default.
        now: Unix seconds, for signatures and dates.
        seed: Makes random choices repeatable.

    Attributes:
        arrivals: The requests that arrived, in order: all, or at least the last 80,000.
        jobs: The jobs by id.
        host: Host name of the bucket.
        faults: The injected faults; ``faults.clear()`` removes them.

    Raises:
        ConfigurationError: The bucket, the region or the rate is invalid.
    """

    def __init__(
        self,
        bucket: str = "examplebucket-1250000000",
        region: str = "ap-beijing",
        credentials: Credentials | None = None,
        *,
        rate: float = 20.0,
        at_once: float = math.inf,
        clock: Callable[[], float] | None = None,
        now: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._clock = clock
        self._now = now
        self._service = Service(
            bucket, region, clock=self.clock, now=now, new_id=self._new_id, at_once=at_once
        )
        self._quota = Quota(rate)
        self.bucket = bucket
        self.region = region
        self.host: str = self._service.host
        self.credentials: Credentials = credentials or DEFAULT_CREDENTIALS
        self.rate = rate
        self.arrivals: list[Arrival] = []
        self.jobs: dict[str, LiveJob] = self._service.jobs
        self.faults: Faults[Fault] = Faults(self._rng)

    def add_job(
        self,
        job_id: str | None = None,
        *,
        duration: float = 60.0,
        script: Iterable[Snapshot | AudioSection] | None = None,
        failure: tuple[str, str] | None = None,
        data_id: str | None = None,
    ) -> str:
        """Start a job as if it had been submitted now.

        Args:
            job_id: Its id; a new one by default.
            duration: Seconds for which the stream runs; ``math.inf`` for ever.
            script: Its findings, from `frame` and `sound`; by default all are normal.
            failure: Code and message with which the job fails at the end.
            data_id: The data id of the submission.

        Returns:
            The id.
        """
        stream = Stream.scripted(duration, script, failure)
        return self._service.add(stream, job_id=job_id, data_id=data_id).job_id

    def add_stream(
        self,
        url: str,
        *,
        duration: float = 60.0,
        script: Iterable[Snapshot | AudioSection] | None = None,
        failure: tuple[str, str] | None = None,
    ) -> None:
        """Script a stream that will be submitted; the arguments are those of `add_job`."""
        self._service.streams[url] = Stream.scripted(duration, script, failure)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = None,
        share: float = 1.0,
        operation: str | None = None,
    ) -> None:
        """Inject a fault.

        Args:
            fault: The fault.
            times: How often it happens; without limit by default.
            share: Share of the requests that it meets, 0 to 1.
            operation: ``"query"``, ``"cancel"`` or ``"submit"``; any by default.
        """
        self.faults.add(fault, times=times, share=share, operation=operation)

    def client(self, **options: Any) -> LiveAuditClient:
        """Return a client that needs no socket; ``options`` are those of `LiveAuditClient`."""
        transport = httpx.ASGITransport(self)
        defaults: dict[str, Any] = {
            "endpoint": f"https://{self.host}",
            "credentials": self.credentials,
            "rate": self.rate,
            "now": self._now,
            "http_client": httpx.AsyncClient(transport=transport),
        }
        return LiveAuditClient(self.bucket, self.region, **(defaults | options))

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> AbstractAsyncContextManager[str]:
        """Serve on a real socket, in its own thread: ``async with emulator.serve() as url``.

        Args:
            port: Port to listen on; 0 takes a free one.
            host: Address to listen on; ``0.0.0.0`` and ``::`` are all addresses of this machine.

        Raises:
            ConfigurationError: uvicorn is missing: ``pip install "ci-live-audit[emulator]"``.
        """
        try:
            from ci_live_audit.testing.serving import serve  # noqa: PLC0415 - needs the extra
        except ImportError:
            raise ConfigurationError(
                'serving the emulator needs uvicorn: pip install "ci-live-audit[emulator]"'
            ) from None
        return serve(self, host, port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        host, path = _target(scope)
        arrival = Arrival(self.clock(), scope["method"], path)
        self.arrivals.append(arrival)
        if len(self.arrivals) > MOST_ARRIVALS:
            del self.arrivals[:-ARRIVALS]
        call = Call(
            method=arrival.method,
            path=arrival.path,
            query=scope["query_string"].decode(errors="replace"),
            headers={
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in scope["headers"]
            }
            | host,
            body=await _body(receive),
            request_id=self._new_id(),
        )
        if call.method == "OPTIONS":  # browsers ask by themselves: it is no call of the service
            fault, now = NO_FAULT, self._now()
            response = self._service.preflight(call)
        else:
            fault = self.faults.pick(call.operation) or NO_FAULT
            # The rate applies when a request arrives, not when it is handled.
            refusal = self._quota.refusal(arrival.time) if fault.counted else None
            await asyncio.sleep(fault.delay)
            now = self._now() + fault.ahead
            response = (
                refusal or fault.refusal or self._service.respond(call, self.credentials, now)
            )
        if fault.aborts:
            _abort(scope)
        arrival.status = response.status if isinstance(response, Refusal) else 200
        await _respond(send, call, response, fault, now)

    def clock(self) -> float:
        """Return the seconds of the emulator's clock."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _target(scope: Scope) -> tuple[dict[str, str], str]:
    """Return the ``Host`` header that a target with one has in place of the sent, and its path.

    https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
    """
    whole = re.fullmatch(r"(?is)https?://([^/]*)(.*)", scope["path"])
    return ({"host": whole[1]}, whole[2] or "/") if whole else ({}, scope["path"])


async def _respond(
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
        status, body = response.status, response.document(call.request_id)
        headers["x-ci-trace-id"] = call.request_id[::-1]
        if response.retry_after is not None:
            headers["retry-after"] = f"{response.retry_after:g}"
    else:
        status, body = 200, response
    if fault.page is not None:
        body = fault.page
        headers["content-type"] = "text/html"
    headers["content-length"] = str(len(body))
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    # A server closes the connection when a body ends before the announced length.
    await send({"type": "http.response.body", "body": body[: int(len(body) * fault.sent)]})


def _abort(scope: Scope) -> None:
    """Reset the connection: on a socket by the server, in process by an exception."""
    abort = scope.get("state", {}).get("abort")
    if abort is not None:
        abort()
    raise ConnectionResetError("reset by the emulator")
