"""`LiveAuditClient`: the verbs; those about many jobs are in `following.verbs`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from ci_live_audit._environment import resolve
from ci_live_audit.calls import Caller
from ci_live_audit.cancelling import cancel
from ci_live_audit.clock import Clock
from ci_live_audit.credentials.cache import CredentialCache, CredentialsSource
from ci_live_audit.credentials.chain import default_chain
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.moderation import close_all
from ci_live_audit.following.verbs import ManyJobs
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob, UserInfo
from ci_live_audit.observers import Hooks
from ci_live_audit.retry import RetryBudget, RetryPolicy
from ci_live_audit.transport.body import MAX_BODY
from ci_live_audit.transport.exchange import MAX_CONNECTIONS, Transport
from ci_live_audit.transport.foreign import HttpClient
from ci_live_audit.transport.memory import MAX_MEMORY
from ci_live_audit.wire import endpoint as endpoints
from ci_live_audit.wire import requests, results

__all__ = ["LiveAuditClient"]

DEFAULT_RETRY = RetryPolicy()


class LiveAuditClient(ManyJobs):
    """A client for the live stream moderation jobs of one bucket of Tencent Cloud CI.

    Use it as ``async with LiveAuditClient(...) as client``, or call `aclose` at the end. It belongs
    to the event loop on which it is first used. An argument is never mixed with the environment.

    Args:
        bucket: Bucket with its APPID; None reads ``CI_LIVE_AUDIT_BUCKET``.
        region: Region, such as ``ap-beijing``; None reads ``TENCENTCLOUD_REGION``.
        credentials: `Credentials`, a callable that returns them (sync or async), or a credential
            object of Tencent's SDKs; None searches where Tencent's tools do.
        rate: Requests a second.
        limiter: A limiter to share with other clients; plans use its ``rate``, if it has one.
        retry: When to try again.
        timeout: Total seconds that one exchange may take.
        endpoint: URL in place of ``https://<bucket>.ci.<region>.myqcloud.com``; None reads
            ``CI_LIVE_AUDIT_ENDPOINT``.
        http_client: A client of the httpx family in place of our own connections; not closed here.
        max_connections: Connections open at once; requests wait in order. Not of ``http_client``.
        on_attempt: A function, called with every `Attempt`, or several. An `Observer` among them
            is told more. Exceptions that they raise are logged and swallowed.
        max_body: Maximum bytes of a decoded response body.
        max_memory: Bytes that large bodies share until they are decoded; further ones wait.
        allow_http: Whether an ``endpoint`` without TLS may be on another machine.
        now: Returns Unix seconds; for tests.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        bucket: str | None = None,
        region: str | None = None,
        *,
        credentials: CredentialsSource | None = None,
        rate: float = 20.0,
        limiter: RateLimiter | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        timeout: float = 30.0,
        endpoint: str | None = None,
        http_client: HttpClient | None = None,
        max_connections: int = MAX_CONNECTIONS,
        on_attempt: Hooks | None = None,
        max_body: int = MAX_BODY,
        max_memory: int = MAX_MEMORY,
        allow_http: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        bucket, region, endpoint = resolve(bucket, region, endpoint)
        base_url = endpoints.base_url(bucket, region, endpoint, allow_http=allow_http)
        limiter = LocalRateLimiter(rate) if limiter is None else limiter
        if not isinstance(limiter, RateLimiter):
            raise ConfigurationError(
                f"limiter: expected a RateLimiter, got {type(limiter).__name__}"
            )
        if not callable(now):
            raise ConfigurationError("now: expected a function that returns Unix seconds")
        self._bucket, self._region = bucket, region
        self._rate: float = getattr(limiter, "rate", rate)
        self._background = BackgroundRateLimiter(limiter)
        clock = Clock(now)
        self._caller = Caller(
            host=urlsplit(base_url).netloc,
            clock=clock,
            credentials=CredentialCache(
                default_chain if credentials is None else credentials,
                lasting=credentials is None,
                now=clock.now,
            ),
            limiter=limiter,
            budget=RetryBudget(),
            transport=Transport(base_url, http_client, max_body, max_connections, max_memory),
            retry=retry,
            timeout=timeout,
            on_attempt=on_attempt,
        )
        self._moderations = set()
        self._owner = True
        self._caller.introduce()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is in progress and close the connections; closing twice does no harm.

        First the streams of `moderate` are cancelled; then calls and runs in progress end with a
        `ConfigurationError`. A sibling made by `with_options` closes nothing: it has nothing.
        """
        if self._owner:
            self._caller.transport.check_loop()
            try:
                await close_all(self._moderations)
            finally:
                self._caller.credentials.close()
                await self._caller.transport.aclose()

    def with_options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        on_attempt: Hooks | None = None,
    ) -> LiveAuditClient:
        """Return a sibling that differs in what is given and shares everything else."""
        given: dict[str, Any] = {"retry": retry, "timeout": timeout, "on_attempt": on_attempt}
        changes = {name: value for name, value in given.items() if value is not None}
        sibling = copy.copy(self)
        sibling._caller = attrs.evolve(self._caller, **changes)  # noqa: SLF001 - of its own class
        sibling._owner = False  # noqa: SLF001
        sibling._caller.introduce()  # noqa: SLF001
        return sibling

    # Verbs

    async def query(self, job_id: str) -> AuditJob:
        """Return a job and what it has found so far.

        A job in state Failed is a result like any other.

        Raises:
            LiveAuditError: See the tree in `ci_live_audit.errors`.

        Source: https://www.tencentcloud.com/document/product/1045/49342
        """
        return await self._caller.query(job_id)

    async def cancel(self, job_id: str) -> CancelledJob:
        """Stop a job; cancelling one that is already cancelled is no error.

        If the service refuses, a query shows the state of the job: cancelled counts as success, and
        so does any other end if the response to an earlier attempt was lost.

        Raises:
            LiveAuditError: See the tree in `ci_live_audit.errors`. What the service says about a
                job that has ended by itself is not documented; expect `InvalidArgument`.

        Source: https://www.tencentcloud.com/document/product/1045/49341
        """
        return await cancel(self._caller, job_id)

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

        A submission is repeated only if it certainly did not arrive: the service cannot be told
        that two of them are one. After an error, ``error.may_have_happened`` says whether a job may
        exist all the same.

        Args:
            url: Address of the stream: rtmp, hls, http or https.
            biz_type: Id of the moderation policy; by default the bucket's.
            data_id: Your own id, returned with all results; at most 512 bytes.
            user_info: Your own business fields, returned with all results; at most 128 bytes each.
            callback: http or https URL that the service calls.
            callback_type: 1 for a call about everything, 2 for calls about violations only.
            storage_path: Path in the bucket under which the stream is recorded.
            extra: Further nodes by wire name: ``{"Conf": {"CallbackVersion": "Detail"}}``.

        Raises:
            LiveAuditError: See the tree in `ci_live_audit.errors`.

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
        return await self._caller.call(request, results.submitted)
