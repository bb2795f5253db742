"""`LiveAuditClient`: the verbs."""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from ci_live_audit import decode, requests
from ci_live_audit.attempts import Caller
from ci_live_audit.clock import Clock
from ci_live_audit.credentials import CredentialCache, CredentialsSource
from ci_live_audit.default_chain import default_chain
from ci_live_audit.errors import (
    ConfigurationError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
)
from ci_live_audit.limiter import LocalRateLimiter, RateLimiter
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob, UserInfo
from ci_live_audit.retry import Attempt, RetryBudget, RetryPolicy
from ci_live_audit.transport import HttpClient, Transport

__all__ = ["LiveAuditClient"]

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
        clock = Clock(now)
        self._caller = Caller(
            host=urlsplit(base_url).netloc,
            clock=clock,
            credentials=CredentialCache(
                default_chain if credentials is None else credentials,
                lasting=credentials is None,
                now=clock.now,
            ),
            limiter=limiter if limiter is not None else LocalRateLimiter(rate),
            budget=RetryBudget(),
            transport=Transport(base_url, http_client),
            retry=retry,
            timeout=timeout,
            on_attempt=on_attempt,
        )
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
            self._caller.credentials.close()
            await self._caller.transport.aclose()

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
        given = {"retry": retry, "timeout": timeout, "on_attempt": on_attempt}
        changes: dict[str, Any] = {name: it for name, it in given.items() if it is not None}
        sibling = copy.copy(self)
        sibling._caller = attrs.evolve(self._caller, **changes)  # noqa: SLF001 - of its own class
        sibling._owner = False  # noqa: SLF001
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
            return decode.job(
                body, received_at=datetime.fromtimestamp(self._caller.clock.now(), UTC)
            )

        return await self._caller.call(requests.query(job_id), read)

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
            return await self._caller.call(requests.cancel(job_id), read)
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
        return await self._caller.call(request, decode.submitted)


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
