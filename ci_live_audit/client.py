"""`LiveAuditClient`: the verbs, and the one loop in which every attempt is made."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

import anyio.to_thread
import attrs

from ci_live_audit import decode, requests, signature
from ci_live_audit.clock import Clock
from ci_live_audit.credentials import CredentialCache, Credentials, CredentialsSource
from ci_live_audit.default_chain import default_chain
from ci_live_audit.errors import (
    ConfigurationError,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    ServiceError,
    Throttled,
)
from ci_live_audit.limiter import LocalRateLimiter, RateLimiter
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob, UserInfo
from ci_live_audit.requests import Request
from ci_live_audit.retry import Attempt, RetryBudget, RetryPolicy
from ci_live_audit.transport import Answer, HttpClient, Transport

__all__ = ["LiveAuditClient"]

logger = logging.getLogger("ci_live_audit")

T = TypeVar("T", AuditJob, SubmittedJob, CancelledJob)

# Decoding this much takes about 5 ms; more of it would be felt by everything else on the loop.
INLINE_BODY = 64 * 1024
# The quota is counted by the second, so whoever is over it lets one pass.
HOLD = 1.0
STALE = {"ExpiredToken", "InvalidAccessKeyId", "SecretidNotExist", "InvalidToken"}
SKEWED = {"RequestTimeTooSkewed", "SignatureExpired"}

DEFAULT_RETRY = RetryPolicy()


class LiveAuditClient:
    """Live stream moderation jobs of one bucket of Tencent Cloud CI.

    Use it as ``async with LiveAuditClient(...) as client``, or call `aclose` at the end. It belongs
    to the event loop on which it is first used. Arguments are total: what is given is not looked
    for anywhere else.

    Args:
        bucket: Bucket with its APPID, as ``examplebucket-1250000000``.
        region: As ``ap-beijing``; None reads ``TENCENTCLOUD_REGION``.
        credentials: `Credentials`, a callable that returns them (sync or async), or a credential
            object of Tencent's SDKs; None looks where Tencent's tools look.
        rate: Requests a second.
        limiter: A limiter to share with other clients; ``rate`` has no effect then.
        retry: When to try again.
        timeout: Seconds that one exchange may take in all.
        endpoint: URL in place of ``https://<bucket>.ci.<region>.myqcloud.com``.
        http_client: A client of the httpx family in place of own connections; not closed here.
        on_attempt: Called with every `Attempt`; an exception of it is logged and goes no further.
        now: Unix seconds; for tests.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        bucket: str,
        region: str | None = None,
        *,
        credentials: CredentialsSource | None = None,
        rate: float = 20.0,
        limiter: RateLimiter | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        timeout: float = 30.0,
        endpoint: str | None = None,
        http_client: HttpClient | None = None,
        on_attempt: Callable[[Attempt], object] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        region = region or os.environ.get("TENCENTCLOUD_REGION")
        if not region:
            raise ConfigurationError("region: pass one (ap-beijing, …) or set TENCENTCLOUD_REGION")
        base_url = _base_url(endpoint or f"https://{requests.host(bucket, region)}")
        self._host = urlsplit(base_url).netloc
        self._clock = Clock(now)
        self._credentials = CredentialCache(
            default_chain if credentials is None else credentials,
            lasting=credentials is None,
            now=self._clock.now,
        )
        self._limiter = limiter if limiter is not None else LocalRateLimiter(rate)
        self._budget = RetryBudget()
        self._transport = Transport(base_url, http_client)
        self._retry = retry
        self._timeout = _seconds(timeout)
        self._on_attempt = _hook(on_attempt)
        self._owner = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way and close the connections; twice does no harm.

        Calls that wait for their slot, for an answer or for the next attempt end with a
        `ConfigurationError`. On a sibling made by `with_options` it does nothing: the connections
        are not its own.
        """
        if self._owner:
            self._credentials.close()
            await self._transport.aclose()

    def with_options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        on_attempt: Callable[[Attempt], object] | None = None,
    ) -> LiveAuditClient:
        """A sibling that differs in what is given and shares everything else.

        Connections, limiter, credentials, retry budget and clock are the same objects.
        """
        sibling = copy.copy(self)
        # ruff: noqa: SLF001 - of its own class
        sibling._owner = False
        sibling._retry = retry if retry is not None else self._retry
        sibling._timeout = _seconds(timeout) if timeout is not None else self._timeout
        sibling._on_attempt = _hook(on_attempt) if on_attempt is not None else self._on_attempt
        return sibling

    # Verbs

    async def query(self, job_id: str) -> AuditJob:
        """What a job has found so far.

        A job in state Failed is a result like any other.

        Raises:
            LiveAuditError: As in the tree of `ci_live_audit.errors`.

        Source: https://www.tencentcloud.com/document/product/1045/49342
        """

        def read(body: bytes) -> AuditJob:
            return decode.job(body, received_at=datetime.fromtimestamp(self._clock.now(), UTC))

        return await self._call(requests.query(job_id), read)

    async def cancel(self, job_id: str) -> CancelledJob:
        """Stop a job.

        If an attempt was lost on its way and its repetition is then refused, a query tells
        whether the job has ended; if so, that counts as the answer.

        Raises:
            LiveAuditError: As in the tree of `ci_live_audit.errors`. What the service answers for
                a job that has ended already is not documented; expect `InvalidArgument`.

        Source: https://www.tencentcloud.com/document/product/1045/49341
        """
        read = partial(decode.cancelled, job_id=job_id)
        try:
            return await self._call(requests.cancel(job_id), read)
        except (InvalidArgument, JobNotFound) as error:
            if not error.may_have_happened:
                raise
            try:
                job = await self.query(job_id)
            except LiveAuditError:
                raise error from None
            if not job.ended:
                raise
        return CancelledJob(
            job_id=job_id,
            data_id=job.data_id,
            creation_time=job.creation_time,
            state=job.state,
            request_id=job.request_id,
        )

    async def submit(
        self,
        url: str,
        *,
        biz_type: str | None = None,
        data_id: str | None = None,
        user_info: UserInfo | None = None,
        callback: str | None = None,
        callback_type: int | None = None,
        storage_path: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> SubmittedJob:
        """Start a job for a live stream. It costs money until it ends or is cancelled.

        A submission is repeated only when it surely did not arrive: there is no way to tell the
        service that two are one. After an error, ``error.may_have_happened`` tells whether there
        may be a job all the same.

        Args:
            url: Address of the stream: rtmp, hls, http or https.
            biz_type: Id of the moderation policy; the bucket's default if left out.
            data_id: Own id, returned with all results; at most 512 bytes.
            user_info: Own business fields, returned with all results; at most 128 bytes each.
            callback: http or https URL that the service calls.
            callback_type: 1 to be called for everything, 2 for what violates only.
            storage_path: Path in the bucket under which the stream is recorded.
            extra: Further nodes by wire names: ``{"Conf": {"CallbackVersion": "Detail"}}``.

        Raises:
            LiveAuditError: As in the tree of `ci_live_audit.errors`.

        Source: https://www.tencentcloud.com/document/product/1045/49340
        """
        request = requests.submit(
            url,
            biz_type=biz_type,
            data_id=data_id,
            user_info=user_info,
            callback=callback,
            callback_type=callback_type,
            storage_path=storage_path,
            extra=extra,
        )
        return await self._call(request, decode.submitted)

    # The loop

    async def _call(self, request: Request, read: Callable[[bytes], T]) -> T:
        """Attempts until one succeeds or there is no point in another.

        All that ages is inside the loop: a call may wait for its slot for minutes, and a retry may
        outlive the token and the signature of the attempt before.
        """
        first: float | None = None
        unsure = False
        corrected: set[str | None] = {None}
        async with self._transport.call():
            for number in count(1):
                attempt, result, mended = await self._attempt(request, read, number, first)
                first = asyncio.get_running_loop().time() - attempt.since_first
                error = attempt.error
                if error is None:
                    self._budget.give(attempt)
                    self._report(attempt)
                    return cast("T", result)
                unsure = unsure or error.may_have_happened
                error.operation, error.job_id = request.operation, request.job_id
                error.attempts, error.may_have_happened = number, unsure
                delay = self._delay(attempt, at_once=mended not in corrected)
                corrected.add(mended)
                self._report(attrs.evolve(attempt, delay=delay))
                if delay is None:
                    try:
                        raise error
                    finally:  # or the error and this frame would keep each other alive
                        del error, attempt
                del error, attempt
                await asyncio.sleep(delay)
        raise AssertionError  # pragma: no cover

    async def _attempt(
        self, request: Request, read: Callable[[bytes], T], number: int, first: float | None
    ) -> tuple[Attempt, T | None, str | None]:
        """What happened, what came of it, and which cause of an error is mended now."""
        time_ = asyncio.get_running_loop().time
        queued, began = 0.0, time_()
        answer = result = mended = None
        error: LiveAuditError | None = None
        try:
            # Before the slot: behind a slow provider slots would pass unused, and then many
            # requests leave together.
            credentials = await self._credentials.get()
            queued = await self._limiter.acquire()
            began = time_()
            if not self._credentials.is_valid(credentials):
                credentials = await self._credentials.get()
            ahead = self._clock.ahead
            headers = signature.sign(request, self._host, credentials, self._clock.now())
            answer = await self._transport.send(
                request.method,
                request.path,
                headers,
                request.body,
                timeout=self._timeout,
                # A connection that was idle may just be closing, and a submission is sent once.
                reuse=request.idempotent,
            )
            if 200 <= answer.status < 300:
                result = await self._read(request, answer, read)
            else:
                error = refusal = decode.error(answer.status, answer.headers, answer.body)
                mended = self._mend(refusal, answer, credentials, ahead)
        except LiveAuditError as problem:
            error = problem
        ended = time_()
        attempt = Attempt(
            operation=request.operation,
            job_id=request.job_id,
            number=number,
            idempotent=request.idempotent,
            queued=queued,
            elapsed=ended - began,
            since_first=ended - (began if first is None else first),
            status=answer.status if answer is not None else None,
            request_id=answer.headers.get("x-ci-request-id") if answer is not None else None,
            error=error,
        )
        try:
            return attempt, result, mended
        finally:  # or the error and this frame would keep each other alive
            del error, attempt

    async def _read(self, request: Request, answer: Answer, read: Callable[[bytes], T]) -> T:
        if len(answer.body) <= INLINE_BODY:
            result = read(answer.body)
        else:
            result = await anyio.to_thread.run_sync(read, answer.body, abandon_on_cancel=True)
        if request.job_id not in {None, result.job_id}:
            # An answer to another request came on this connection; more of them may be waiting.
            await self._transport.drop_idle()
            raise DecodeError(f"the answer is about another job, {result.job_id}")
        if result.request_id is None:
            result = attrs.evolve(result, request_id=answer.headers.get("x-ci-request-id"))
        return result

    def _mend(
        self, error: ServiceError, answer: Answer, credentials: Credentials, ahead: float
    ) -> str | None:
        """The cause of a refusal, if a new attempt would be made without it."""
        if error.code in STALE:
            return "credentials" if self._credentials.refused(credentials) else None
        if error.code in SKEWED or "Request has expired" in error.message:
            learnt = self._clock.learn(answer.headers.get("date", ""), used=ahead)
            return "clock" if learnt else None
        return None

    def _delay(self, attempt: Attempt, *, at_once: bool) -> float | None:
        """Seconds to the next attempt, if there is one: none at all where a cause is mended."""
        if at_once and attempt.number < self._retry.attempts:
            return 0.0
        delay = self._retry.delay(attempt)
        if isinstance(attempt.error, Throttled):
            asked = min(attempt.error.retry_after or 0.0, self._retry.max_retry_after)
            self._limiter.hold(max(HOLD, asked, delay or 0.0))
        return delay if delay is not None and self._budget.take(attempt.error) else None

    def _report(self, attempt: Attempt) -> None:
        level = logging.WARNING if isinstance(attempt.error, Throttled) else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "%s", attempt)
        if self._on_attempt is None:
            return
        try:
            self._on_attempt(attempt)
        except Exception:
            logger.exception("on_attempt failed")


def _hook(on_attempt: Callable[[Attempt], object] | None) -> Callable[[Attempt], object] | None:
    if inspect.iscoroutinefunction(on_attempt):
        raise ConfigurationError("on_attempt: expected a plain function; nobody would await it")
    return on_attempt


def _seconds(timeout: float) -> float:
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout: expected seconds, above 0 and finite; got {timeout!r}")
    return timeout


def _base_url(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"https?://[\w.:\[\]-]+/?", endpoint, re.ASCII):
        raise ConfigurationError(
            f"endpoint: expected http or https, a host and perhaps a port; got {endpoint[:140]!r}"
        )
    return endpoint.rstrip("/")
