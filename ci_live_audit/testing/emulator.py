"""`Emulator`: the service as a plain ASGI app, for tests, demonstrations and measurements."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import httpx

from ci_live_audit._checks import above_zero
from ci_live_audit.client import LiveAuditClient
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.models import (
    ENDED,
    AudioSection,
    CancelledJob,
    JobState,
    ReadOnly,
    Snapshot,
    SubmittedJob,
    UserInfo,
    tags,
)
from ci_live_audit.testing.faults import Fault, Faults
from ci_live_audit.testing.render import error_document, render
from ci_live_audit.testing.streams import LiveJob, Stream
from ci_live_audit.testing.verify import Refusal, verify
from ci_live_audit.wire import endpoint

__all__ = ["Arrival", "Emulator"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

DEFAULT_CREDENTIALS = Credentials("AKIDEXAMPLE", "secretexample")
# How much closer than paced requests may arrive: networks and busy loops shift them a little.
JITTER = 0.025


@attrs.define
class Arrival:
    """A request that came in.

    ``time`` is seconds by the emulator's clock; ``status`` is what was answered, 0 for nothing.
    """

    time: float
    method: str
    path: str
    status: int = 0


class Emulator:
    """Behaves as the service does for one bucket.

    Jobs run by the clock: they are Submitted, then Auditing with findings appearing as their
    stream goes on, then Success, Failed or cancelled. Signatures are verified, the rate is
    enforced, errors have the service's codes, statuses and bodies.

    What nobody knows of the service is chosen here: a cancelled job has the state ``Cancelled``;
    cancelling a job that has ended is an ``InvalidArgument``.

    Args:
        bucket: The bucket it serves.
        region: The region it is in.
        credentials: The only credentials it accepts; the attribute can be set anew.
        rate: Requests a second above which it answers 429 ``SlowDown``.
        clock: Seconds, for streams and the rate; the event loop's clock by default.
        now: Unix seconds, for signatures and dates.
        seed: Makes what is left to chance the same every time.

    Raises:
        ConfigurationError: The bucket, the region or the rate is impossible.
    """

    def __init__(
        self,
        bucket: str = "examplebucket-1250000000",
        region: str = "ap-beijing",
        credentials: Credentials | None = None,
        *,
        rate: float = 20.0,
        clock: Callable[[], float] | None = None,
        now: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        self.bucket = bucket
        self.region = region
        self.host: str = endpoint.host(bucket, region)
        self.credentials: Credentials = credentials or DEFAULT_CREDENTIALS
        self.rate = rate
        self.arrivals: list[Arrival] = []
        self.jobs: dict[str, LiveJob] = {}
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.faults: Faults[Fault] = Faults(self._rng)
        self._streams: dict[str, Stream] = {}
        self._clock = clock
        self._now = now
        above_zero("rate", rate, "requests a second")
        quota = max(1, math.floor(rate)) if rate < math.inf else 1
        self._second = quota / rate - JITTER
        self._recent: deque[float] = deque([-math.inf] * quota, maxlen=quota)

    # What the streams are

    def add_job(
        self,
        job_id: str | None = None,
        *,
        duration: float = 60.0,
        script: Iterable[Snapshot | AudioSection] | None = None,
        failure: tuple[str, str] | None = None,
        data_id: str | None = None,
    ) -> str:
        """Let a job run as if it had been submitted now.

        Args:
            job_id: Its id; a new one by default.
            duration: Seconds for which the stream runs; ``math.inf`` for ever.
            script: What is found, from `frame` and `sound`; by default nothing bad.
            failure: Code and message with which it fails at the end.
            data_id: What the submission gave.

        Returns:
            The id.
        """
        stream = Stream.scripted(duration, script, failure)
        return self._add(stream, job_id=job_id, data_id=data_id).job_id

    def add_stream(
        self,
        url: str,
        *,
        duration: float = 60.0,
        script: Iterable[Snapshot | AudioSection] | None = None,
        failure: tuple[str, str] | None = None,
    ) -> None:
        """Say what happens on a stream that will be submitted; the arguments are `add_job`'s."""
        self._streams[url] = Stream.scripted(duration, script, failure)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = None,
        share: float = 1.0,
        operation: str | None = None,
    ) -> None:
        """Let something go wrong.

        Args:
            fault: What.
            times: How often; for ever by default.
            share: In which share of the requests, 0 to 1.
            operation: ``"query"``, ``"cancel"`` or ``"submit"``; any by default.
        """
        self.faults.add(fault, times=times, share=share, operation=operation)

    # How it is reached

    def client(self, **options: Any) -> LiveAuditClient:
        """A client in this process, without a socket; ``options`` are those of the client."""
        transport = httpx.ASGITransport(self)
        defaults: dict[str, Any] = {
            "credentials": self.credentials,
            "rate": self.rate,
            "now": self._now,
            "http_client": httpx.AsyncClient(transport=transport),
        }
        return LiveAuditClient(self.bucket, self.region, **(defaults | options))

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> AbstractAsyncContextManager[str]:
        """Serve on a real socket, from a thread of its own: ``async with emulator.serve() as url``.

        Args:
            port: 0 takes a free one.
            host: Address to listen at.

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
        """Answer one request: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        arrival = Arrival(self.clock(), scope["method"], scope["path"])
        self.arrivals.append(arrival)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        call = _Call(
            method=arrival.method,
            path=arrival.path,
            query=scope["query_string"].decode(),
            headers=headers,
            body=await _body(receive),
            request_id=self._new_id(),
            time=arrival.time,
        )
        fault = self.faults.pick(call.operation) or NO_FAULT
        # The rate is a matter of when a request arrives, not of when it is answered.
        refusal = self._throttle(arrival.time, fault)
        await asyncio.sleep(fault.seconds if fault.kind == "slow" else 0)
        now = self._now() + (fault.seconds if fault.kind == "skew" else 0)
        answer = refusal or self._answer(call, fault, now)
        if isinstance(answer, Refusal):
            status = answer.status
            body = error_document(answer.code, answer.message, call.request_id, **answer.more)
        else:
            status, body = 200, answer
        if fault.kind == "reset":
            _reset(scope)
        if fault.kind == "garbage":
            body = b"<html><head><title>Welcome to the hotel network</title><body><p>Sign in"
        arrival.status = status
        answer_headers = {
            "content-type": "text/html" if fault.kind == "garbage" else "application/xml",
            "content-length": str(len(body)),
            "date": format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True),
            "server": "tencent-ci",
            "x-ci-request-id": call.request_id,
        }
        if status >= 400:
            answer_headers["x-ci-trace-id"] = call.request_id[::-1]
        if status == fault.status and fault.retry_after is not None:
            answer_headers["retry-after"] = f"{fault.retry_after:g}"
        pairs = [(name.encode(), value.encode()) for name, value in answer_headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        sent = body[: len(body) // 2] if fault.kind == "truncated" else body
        # Ending before the announced length makes a server close the connection.
        await send({"type": "http.response.body", "body": sent})

    def clock(self) -> float:
        """Seconds by the emulator's clock."""
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()

    # What it does

    def _new_id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _answer(self, call: _Call, fault: Fault, now: float) -> bytes | Refusal:
        if fault.kind == "error":
            code = "ServiceUnavailable" if fault.status == 503 else "InternalError"
            return Refusal(fault.status, code, "Try again later.")
        refusal = self._check(call, now)
        if refusal is not None:
            return refusal
        if call.operation == "submit":
            return self._submit(call)
        if call.operation not in {"query", "cancel"}:
            return Refusal(404, "InvalidUrl", "The URL is not one of this service.")
        if not call.job_id.replace("-", "").replace("_", "").isalnum():
            return Refusal(400, "InvalidArgument", "auditing jobId is illegal.")
        job = self.jobs.get(call.job_id)
        if job is None:
            return Refusal(404, "AuditingJobNotFound", "The auditing job does not exist.")
        if call.operation == "cancel":
            return self._cancel(job, call)
        answer = job.answer(self.clock(), now, f"{self.bucket}.cos.{self.region}.myqcloud.com")
        return render(attrs.evolve(answer, request_id=call.request_id))

    def _throttle(self, time: float, fault: Fault) -> Refusal | None:
        if fault.kind == "throttle" or time - self._recent[0] < self._second:
            status = fault.status if fault.kind == "throttle" else 429
            return Refusal(status, "SlowDown", "Reduce your request rate.")
        self._recent.append(time)
        return None

    def _check(self, call: _Call, now: float) -> Refusal | None:
        host = call.headers.get("host", "")
        if host.endswith(".myqcloud.com") and host != self.host:
            return Refusal(404, "NoSuchBucket", "The bucket does not exist.", {"Resource": host})
        if call.method == "POST" and "content-length" not in call.headers:
            return Refusal(411, "MissingContentLength", "Content-Length is missing.")
        return verify(call.method, call.path, call.query, call.headers, self.credentials, now)

    def _cancel(self, job: LiveJob, call: _Call) -> bytes | Refusal:
        if job.state(self.clock()) in ENDED:
            return Refusal(400, "InvalidArgument", "The auditing job has already ended.")
        job.cancelled = self.clock()
        return render(
            CancelledJob(
                job_id=job.job_id,
                data_id=job.data_id,
                creation_time=job.creation_time(),
                state=JobState.CANCELLED,
                request_id=call.request_id,
            )
        )

    def _submit(self, call: _Call) -> bytes | Refusal:
        if not call.body:
            return Refusal(400, "MissingContent", "The request has no body.")
        try:
            request = ET.fromstring(call.body)  # noqa: S314 - from a test on this machine
        except (ET.ParseError, LookupError, ValueError):
            return Refusal(400, "InvalidContent", "The body is not well-formed XML.")
        url = request.findtext("Input/Url")
        if request.tag != "Request" or request.findtext("Type") != "live_video" or not url:
            return Refusal(400, "InvalidArgument", "Type must be live_video, with an Input.Url.")
        data_id = request.findtext("Input/DataId")
        if data_id is not None and len(data_id.encode()) > 512:
            return Refusal(400, "InvalidArgument", "DataId is longer than 512 bytes.")
        job = self._add(
            self._streams.get(url, Stream.scripted(60.0, None, None)),
            url=url,
            data_id=data_id,
            user_info=_user_info(request),
        )
        return render(
            SubmittedJob(
                job_id=job.job_id,
                data_id=data_id,
                creation_time=job.creation_time(),
                state=JobState.SUBMITTED,
                request_id=call.request_id,
            )
        )

    def _add(self, stream: Stream, *, job_id: str | None = None, **facts: Any) -> LiveJob:
        try:
            started = self.clock()
        except RuntimeError:  # no event loop yet: the stream begins with the first query
            started = None
        job_id = job_id or f"av{self._new_id()}"
        job = LiveJob(job_id=job_id, stream=stream, created=self._now(), started=started, **facts)
        self.jobs[job_id] = job
        return job


NO_FAULT = Fault(kind="none")


@attrs.frozen(kw_only=True)
class _Call:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    time: float

    @property
    def operation(self) -> str:
        folder, _, name = self.path.rpartition("/")
        return {
            ("POST", "/video", "auditing"): "submit",
            ("GET", "/video/auditing", self.job_id): "query",
            ("POST", "/video/cancel_auditing", self.job_id): "cancel",
        }.get((self.method, folder, name), "")

    @property
    def job_id(self) -> str:
        return self.path.rpartition("/")[2]


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _reset(scope: Scope) -> None:
    """On a socket, let the server reset it; in process, let the client meet the exception."""
    abort = scope.get("state", {}).get("abort")
    if abort is not None:
        abort()
    raise ConnectionResetError("reset by the emulator")


def _user_info(request: ET.Element) -> UserInfo | None:
    node = request.find("Input/UserInfo")
    if node is None:
        return None
    names = {tag.name: attribute for attribute, tag in tags(UserInfo).items()}
    texts: dict[str, Any] = {names[n.tag]: n.text for n in node if n.tag in names}
    return UserInfo(extra=ReadOnly({n.tag: n.text for n in node if n.tag not in names}), **texts)
