"""`LiveAuditClient`: the verbs, and the one loop in which every attempt is made."""

from __future__ import annotations

import asyncio
import copy
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
from ci_live_audit.credentials import CredentialCache, Credentials, CredentialsSource
from ci_live_audit.default_chain import default_chain
from ci_live_audit.errors import (
    ConfigurationError,
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
# A difference that matters to a signature, and one that is no longer a wrong clock but an attack.
MIN_SKEW = 30.0
MAX_SKEW = 86400.0

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
        limiter: A limiter to share with other clients; ``rate`` is not used then.
        retry: When to try again.
        timeout: Seconds that one exchange may take in all.
        endpoint: URL in place of ``https://<bucket>.ci.<region>.myqcloud.com``.
        http_client: A client of the httpx family in place of own connections; not closed here.
        on_attempt: Called with every `Attempt`; what it raises is logged and goes no further.
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
        self._clock = _Clock(now)
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
        self._on_attempt = on_attempt
        self._owner = True

    async def __aenter__(self) -> Self:
        self._transport.check_use()
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

        On a sibling made by `with_options` it does nothing: the connections are not its own.
        """
        if self._owner:
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
        sibling._on_attempt = on_attempt if on_attempt is not None else self._on_attempt
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
            job = await self.query(job_id)
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
        self._transport.check_use()
        time_ = asyncio.get_running_loop().time
        first = None
        unsure = False
        corrected: set[str] = set()
        for number in count(1):
            queued = await self._limiter.acquire()
            left = time_()
            first = left if first is None else first
            credentials = answer = error = result = None
            try:
                credentials = await self._credentials.get()
                answer = await self._send(request, credentials)
                result = await self._read(answer, read)
            except LiveAuditError as problem:
                error = problem
            attempt = Attempt(
                operation=request.operation,
                job_id=request.job_id,
                number=number,
                idempotent=request.idempotent,
                queued=queued,
                elapsed=time_() - left,
                since_first=time_() - first,
                status=answer.status if answer else None,
                request_id=_request_id(answer),
                error=error,
            )
            if error is None:
                self._budget.give(attempt)
                self._report(attempt)
                return cast("T", result)
            unsure = unsure or error.may_have_happened
            error.operation, error.job_id = request.operation, request.job_id
            error.attempts, error.may_have_happened = number, unsure
            delay = self._correct(attempt, answer, credentials, corrected)
            if delay is None:
                delay = self._backoff(attempt)
            self._report(attrs.evolve(attempt, delay=delay))
            if delay is None:
                try:
                    raise error
                finally:  # or the error and this frame would keep each other alive
                    del error, attempt
            await asyncio.sleep(delay)
        raise AssertionError  # pragma: no cover

    async def _send(self, request: Request, credentials: Credentials) -> Answer:
        headers = signature.sign(request, self._host, credentials, self._clock.now())
        return await self._transport.send(
            request.method, request.path, headers, request.body, self._timeout
        )

    async def _read(self, answer: Answer, read: Callable[[bytes], T]) -> T:
        if not 200 <= answer.status < 300:
            raise decode.error(answer.status, answer.headers, answer.body)
        if len(answer.body) <= INLINE_BODY:
            result = read(answer.body)
        else:
            result = await anyio.to_thread.run_sync(read, answer.body, abandon_on_cancel=True)
        if result.request_id is None:
            result = attrs.evolve(result, request_id=_request_id(answer))
        return result

    def _backoff(self, attempt: Attempt) -> float | None:
        """Seconds to the next attempt, if the policy wants one and the budget has one."""
        delay = self._retry.delay(attempt)
        if isinstance(attempt.error, Throttled):
            asked = min(attempt.error.retry_after or 0.0, self._retry.max_retry_after)
            self._limiter.hold(max(HOLD, asked, delay or 0.0))
        return delay if delay is not None and self._budget.take(attempt.error) else None

    def _correct(
        self,
        attempt: Attempt,
        answer: Answer | None,
        credentials: Credentials | None,
        corrected: set[str],
    ) -> float | None:
        """No delay at all if the refusal has a cause that is mended now; each cause once a call."""
        error = attempt.error
        if not isinstance(error, ServiceError) or answer is None or credentials is None:
            return None
        if error.code in STALE:
            cause, mended = "credentials", self._credentials.refused(credentials)
        elif error.code in SKEWED or "Request has expired" in error.message:
            cause, mended = "clock", self._clock.learn(answer.headers.get("date", ""))
        else:
            return None
        again = mended and cause not in corrected and attempt.number < self._retry.attempts
        corrected.add(cause)
        return 0.0 if again else None

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


class _Clock:
    """Unix seconds by the service's clock, as far as it has been learnt."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead = 0.0

    def now(self) -> float:
        return self._now() + self._ahead

    def learn(self, date: str) -> bool:
        """Take over the clock of an answer; whether that made a difference that matters."""
        moment = decode.http_date(date)
        if moment is None:
            return False
        ahead = moment.timestamp() - self._now()
        if abs(ahead) > MAX_SKEW or abs(ahead - self._ahead) < MIN_SKEW:
            return False
        logger.warning("the clock is off by %+.0f s; signing by the service's from now on", -ahead)
        self._ahead = ahead
        return True


def _request_id(answer: Answer | None) -> str | None:
    return answer.headers.get("x-ci-request-id") if answer is not None else None


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
