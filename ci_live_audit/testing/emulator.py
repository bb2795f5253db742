"""`Emulator`: the service as a plain ASGI app, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import attrs
import httpx

from ci_live_audit._checks import above_zero
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import ConfigurationError, InvalidInput
from ci_live_audit.testing import asgi
from ci_live_audit.testing.bodies import Form
from ci_live_audit.testing.callbacks import Notifier
from ci_live_audit.testing.faults import Fault, Faults
from ci_live_audit.testing.posting import App, Delivery, Post
from ci_live_audit.testing.render import Refusal
from ci_live_audit.testing.service import Call, Quota, Service
from ci_live_audit.testing.streams import Item, LiveJob, Stream
from ci_live_audit.wire.endpoint import url_fault

__all__ = ["Arrival", "Emulator"]

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
        callbacks: Who is called back about jobs that were submitted with a callback URL: an ASGI
            app, which gets every callback in process, whatever host its URL has (no lifespan is
            run); True for the URLs themselves, over the network but on this machine alone; by
            default nobody.
        callback_pause: Seconds after which a callback that was not answered with 200 is sent
            again, for a day; infinity for never.

    Attributes:
        arrivals: The requests that arrived, in order: all, or at least the last 80,000.
        deliveries: The callbacks that were sent, in order: all, or at least the last 8,000.
        jobs: The jobs by id.
        host: Host name of the bucket.
        faults: The injected faults; ``faults.clear()`` removes them.

    Raises:
        ConfigurationError: The bucket, the region or another argument is invalid.
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
        callbacks: App | bool | None = None,
        callback_pause: float = 1800.0,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._clock = clock
        self._now = now
        self._service = Service(
            bucket,
            region,
            clock=self.clock,
            now=now,
            new_id=self._new_id,
            changed=self._changed,
            at_once=at_once,
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
        self.deliveries: list[Delivery] = []
        self._callback_pause = above_zero("callback_pause", callback_pause, "seconds")
        self._notifier: Notifier | None = None
        self.callbacks = callbacks

    @property
    def callbacks(self) -> App | bool | None:
        """Who is called back; what is set is for jobs that begin afterwards, and None ends all."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, to: App | bool | None) -> None:
        if self._notifier is not None:
            self._notifier.stop()
        self._callbacks, self._notifier = to, None
        if to is None or to is False:
            return
        post = Post(to, pause=self._callback_pause, clock=self.clock, deliveries=self.deliveries)
        self._notifier = Notifier(
            post,
            clock=self.clock,
            now=self._now,
            bucket=self.bucket,
            region=self.region,
            faults=self.faults,
        )

    def add_job(
        self,
        job_id: str | None = None,
        *,
        duration: float = 60.0,
        script: Iterable[Item] | None = None,
        failure: tuple[str, str] | None = None,
        data_id: str | None = None,
        callback: str | None = None,
        callback_type: Literal[1, 2] = 1,
        callback_version: Form = "Simple",
    ) -> str:
        """Start a job as if it had been submitted now.

        Args:
            job_id: Its id; a new one by default.
            duration: Seconds for which the stream runs; ``math.inf`` for ever.
            script: Its findings, from `frame` and `sound`; by default all are normal.
            failure: Code and message with which the job fails at the end.
            data_id: The data id of the submission.
            callback: URL of whom ``callbacks`` calls back about it.
            callback_type: 1 for all that is found, 2 for violations only.
            callback_version: ``"Simple"`` or ``"Detail"``.

        Returns:
            The id.

        Raises:
            InvalidInput: The callback URL is none.
        """
        if callback is not None and (fault := url_fault(callback, {"http", "https"})):
            raise InvalidInput(f"callback: expected an http or https URL, but {fault}")
        job = self._service.add(
            Stream.scripted(duration, script, failure),
            job_id=job_id,
            data_id=data_id,
            callback=callback,
            callback_type=callback_type,
            callback_version=callback_version,
        )
        return job.job_id

    def add_stream(
        self,
        url: str,
        *,
        duration: float = 60.0,
        script: Iterable[Item] | None = None,
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
            share: Share of the requests, or of the callbacks, that it meets, 0 to 1.
            operation: ``"query"``, ``"cancel"`` or ``"submit"``; any by default.
        """
        operation = operation if fault.meets == "request" else fault.meets
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
        if self._notifier is not None:
            self._notifier.settle()
        return serve(self, host, port)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Handle one request: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        if self._notifier is not None:
            self._notifier.wake()
        host, path = asgi.target(scope)
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
            body=await asgi.body(receive),
            request_id=self._new_id(),
        )
        if call.method == "OPTIONS":  # browsers ask by themselves: it is no call of the service
            fault, now = NO_FAULT, self._now()
            response = self._service.preflight(call)
        else:
            fault = self.faults.pick(None, call.operation) or NO_FAULT
            # The rate applies when a request arrives, not when it is handled.
            refusal = self._quota.refusal(arrival.time) if fault.counted else None
            await asyncio.sleep(fault.delay)
            now = self._now() + fault.ahead
            response = (
                refusal or fault.refusal or self._service.respond(call, self.credentials, now)
            )
        if fault.aborts:
            asgi.abort(scope)
        arrival.status = response.status if isinstance(response, Refusal) else 200
        await asgi.respond(send, call, response, fault, now)

    def clock(self) -> float:
        """Return the seconds of the emulator's clock."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    def _changed(self, job: LiveJob) -> None:
        if self._notifier is not None:
            self._notifier.changed(job)

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"
