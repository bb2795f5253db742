"""The behaviour of the emulated service: what it does with a request, and how it refuses one."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import md5
from typing import Any
from xml.etree import ElementTree as ET

import attrs

from ci_live_audit._checks import above_zero
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.limits.limiter import quota
from ci_live_audit.models import (
    ENDED,
    CancelledJob,
    JobState,
    ReadOnly,
    SubmittedJob,
    UserInfo,
    tags,
)
from ci_live_audit.testing import browsers
from ci_live_audit.testing.render import Refusal, render
from ci_live_audit.testing.streams import LiveJob, Stream
from ci_live_audit.testing.verify import verify
from ci_live_audit.wire import endpoint

__all__ = ["Call", "Quota", "Service"]

# Paced requests may arrive this much too early: networks and busy loops shift them a little.
JITTER = 0.025


@attrs.frozen(kw_only=True)
class Call:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    request_id: str

    @property
    def operation(self) -> str:
        """``"submit"``, ``"query"``, ``"cancel"``, or empty if it is none of them."""
        folder, _, name = self.path.rpartition("/")
        return {
            ("POST", "/video", "auditing"): "submit",
            ("GET", "/video/auditing", self.job_id): "query",
            ("POST", "/video/cancel_auditing", self.job_id): "cancel",
        }.get((self.method, folder, name), "")

    @property
    def job_id(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Quota:
    """Bounds the number of requests in every sliding window.

    Args:
        rate: Requests a second.

    Raises:
        ConfigurationError: The rate is not above 0.
    """

    def __init__(self, rate: float) -> None:
        above_zero("rate", rate, "requests a second")
        count, seconds = quota(rate)
        self._window = seconds - JITTER
        self._recent: deque[float] = deque([-math.inf] * count, maxlen=count)

    def refusal(self, time: float) -> Refusal | None:
        """Return the refusal of a request that arrives now, or count the request.

        Args:
            time: Seconds, by any clock.
        """
        if time - self._recent[0] < self._window:
            return Refusal.slow_down()
        self._recent.append(time)
        return None


class Service:
    """Keeps the jobs of one bucket and decides the response to each request.

    Args:
        bucket: The bucket it serves.
        region: The region it is in.
        clock: Seconds, for streams.
        now: Unix seconds at which jobs are submitted.
        new_id: Makes the part of a job id that is unique.
        changed: Called with a job that began or was cancelled.
        at_once: Streams that may run at the same time.

    Raises:
        ConfigurationError: The bucket or the region is malformed.
    """

    def __init__(
        self,
        bucket: str,
        region: str,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        new_id: Callable[[], str],
        changed: Callable[[LiveJob], None],
        at_once: float = math.inf,
    ) -> None:
        self.host: str = endpoint.host(bucket, region)
        self.jobs: dict[str, LiveJob] = {}
        self.streams: dict[str, Stream] = {}
        self._storage = f"{bucket}.cos.{region}.myqcloud.com"
        self._clock = clock
        self._now = now
        self._new_id = new_id
        self._changed = changed
        self._at_once = at_once

    def add(self, stream: Stream, *, job_id: str | None = None, **facts: Any) -> LiveJob:
        """Start a job for a stream; ``facts`` are further attributes of the `LiveJob`."""
        try:
            started = self._clock()
        except RuntimeError:  # no event loop yet: the stream begins with the first query
            started = None
        job_id = job_id or f"av{self._new_id()}"
        job = LiveJob(job_id=job_id, stream=stream, created=self._now(), started=started, **facts)
        self.jobs[job_id] = job
        self._changed(job)
        return job

    def respond(self, call: Call, credentials: Credentials, now: float) -> bytes | Refusal:
        """Carry out a request, or refuse it.

        Args:
            call: The request.
            credentials: The only credentials that are accepted.
            now: Unix seconds by the service's clock.

        Returns:
            The body of the response, or the refusal.
        """
        refusal = self._check(call, credentials, now)
        if refusal is not None:
            return refusal
        if call.operation == "submit":
            return self._submit(call)
        if call.operation not in {"query", "cancel"}:
            return Refusal(404, "InvalidUrl", "The URL is not one of this service.")
        if not re.fullmatch(r"[_-]*[A-Za-z0-9][A-Za-z0-9_-]*", call.job_id):
            return Refusal(400, "InvalidArgument", "auditing jobId is illegal.")
        job = self.jobs.get(call.job_id)
        if job is None:
            return Refusal(404, "AuditingJobNotFound", "The auditing job does not exist.")
        if call.operation == "cancel":
            return self._cancel(job, call)
        found = job.found(self._clock(), now, self._storage)
        return render(attrs.evolve(found, request_id=call.request_id))

    def preflight(self, call: Call) -> bytes | Refusal:
        """Allow or refuse what a browser asks for, which is not signed."""
        allowed = browsers.permissions(call.method, call.headers)
        return self._check_host(call) or (b"" if allowed else browsers.NOT_ALLOWED)

    def _check_host(self, call: Call) -> Refusal | None:
        host = call.headers.get("host", "")
        name = re.sub(r"\.?(:\d*)?$", "", host.lower())
        if name.endswith(".myqcloud.com") and name != self.host:
            return Refusal(404, "NoSuchBucket", "The bucket does not exist.", {"Resource": host})
        return None

    def _check(self, call: Call, credentials: Credentials, now: float) -> Refusal | None:
        refusal = self._check_host(call)
        if refusal is not None:
            return refusal
        if call.method == "POST" and "content-length" not in call.headers:
            return Refusal(411, "MissingContentLength", "Content-Length is missing.")
        refusal = verify(call.method, call.path, call.query, call.headers, credentials, now)
        if refusal is not None:
            return refusal
        digest = b64encode(md5(call.body, usedforsecurity=False).digest()).decode()
        if call.headers.get("content-md5", digest) != digest:
            return Refusal(400, "InvalidContent", "Content-MD5 is not that of the body.")
        return None

    def _cancel(self, job: LiveJob, call: Call) -> bytes | Refusal:
        if job.state(self._clock()) in ENDED:
            return Refusal(400, "InvalidArgument", "The auditing job has already ended.")
        job.cancelled = self._clock()
        self._changed(job)
        return render(
            CancelledJob(
                job_id=job.job_id,
                data_id=job.data_id,
                creation_time=job.creation_time(),
                state=JobState.CANCELLED,
                request_id=call.request_id,
            )
        )

    def _submit(self, call: Call) -> bytes | Refusal:
        if not call.body:
            return Refusal(400, "MissingContent", "The request has no body.")
        try:
            request = ET.fromstring(call.body)  # noqa: S314 - from a test on this machine
        except (ET.ParseError, LookupError, ValueError):
            return Refusal(400, "InvalidContent", "The body is not well-formed XML.")
        fault = _fault(request)
        if fault is not None:
            return Refusal(400, "InvalidArgument", fault)
        if self._at_once < math.inf and self._running() >= self._at_once:
            return Refusal(403, "QueueSaturated", "Too many streams are being audited.")
        url, data_id = request.findtext("Input/Url", ""), request.findtext("Input/DataId")
        stream = self.streams.get(url, Stream.scripted(60.0, None, None))
        job = self.add(
            stream,
            url=url,
            data_id=data_id,
            user_info=_user_info(request),
            callback=request.findtext("Conf/Callback"),
            callback_type=int(request.findtext("Conf/CallbackType", "1")),
            callback_version=request.findtext("Conf/CallbackVersion", "Simple"),
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

    def _running(self) -> int:
        now = self._clock()
        return sum(job.state(now) not in ENDED for job in self.jobs.values())


def _fault(request: ET.Element) -> str | None:
    """Return what is wrong with a submission; None if nothing is.

    https://www.tencentcloud.com/document/product/1045/49340
    """
    if request.tag != "Request" or request.findtext("Type") != "live_video":
        return "The body must be a Request whose Type is live_video."
    url, callback = request.findtext("Input/Url", ""), request.findtext("Conf/Callback")
    if fault := endpoint.url_fault(url, {"rtmp", "hls", "http", "https"}):
        return f"Input.Url is not the URL of a stream: {fault}."
    if callback is not None and (fault := endpoint.url_fault(callback, {"http", "https"})):
        return f"Conf.Callback is not a URL: {fault}."
    if request.findtext("Conf/CallbackType", "1") not in {"1", "2"}:
        return "CallbackType must be 1 or 2."
    if request.findtext("Conf/CallbackVersion", "Simple") not in {"Simple", "Detail"}:
        return "CallbackVersion must be Simple or Detail."
    for path, limit in {"Input/DataId": 512, "Input/UserInfo/*": 128}.items():
        for node in request.findall(path):
            if len((node.text or "").encode()) > limit:
                return f"{node.tag} is longer than {limit} bytes."
    return None


def _user_info(request: ET.Element) -> UserInfo | None:
    node = request.find("Input/UserInfo")
    if node is None:
        return None
    names = {tag.name: attribute for attribute, tag in tags(UserInfo).items()}
    texts: dict[str, Any] = {names[n.tag]: n.text for n in node if n.tag in names}
    return UserInfo(extra=ReadOnly({n.tag: n.text for n in node if n.tag not in names}), **texts)
