"""`LiveAuditClient`: the verbs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from ci_live_audit._environment import resolve
from ci_live_audit.calls import Caller
from ci_live_audit.clock import Clock
from ci_live_audit.credentials.cache import CredentialCache, CredentialsSource
from ci_live_audit.credentials.chain import default_chain
from ci_live_audit.errors import ConfigurationError, InvalidArgument, JobNotFound, LiveAuditError
from ci_live_audit.following.dispatcher import Polling, Query
from ci_live_audit.following.findings import Findings
from ci_live_audit.following.ids import AnyCheckpoint, Source
from ci_live_audit.following.outcomes import Outcomes
from ci_live_audit.following.plan import Plan, plan
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.models import AuditJob, CancelledJob, JobState, SubmittedJob, UserInfo
from ci_live_audit.retry import Attempt, RetryBudget, RetryPolicy
from ci_live_audit.transport.body import MAX_BODY
from ci_live_audit.transport.exchange import MAX_CONNECTIONS, Transport
from ci_live_audit.transport.foreign import HttpClient
from ci_live_audit.transport.memory import MAX_MEMORY
from ci_live_audit.wire import endpoint as endpoints
from ci_live_audit.wire import requests, results

__all__ = ["LiveAuditClient"]

DEFAULT_RETRY = RetryPolicy()


class LiveAuditClient:
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
        on_attempt: Called with every `Attempt`; exceptions it raises are logged and swallowed.
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
        on_attempt: Callable[[Attempt], object] | None = None,
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
        self._owner = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is in progress and close the connections; closing twice does no harm.

        Calls and runs in progress end with a `ConfigurationError`. On a sibling made by
        `with_options` this does nothing: the connections are not its own.
        """
        if self._owner:
            self._caller.transport.check_loop()
            self._caller.credentials.close()
            await self._caller.transport.aclose()

    def with_options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        on_attempt: Callable[[Attempt], object] | None = None,
    ) -> LiveAuditClient:
        """Return a sibling that differs in what is given and shares everything else."""
        given: dict[str, Any] = {"retry": retry, "timeout": timeout, "on_attempt": on_attempt}
        changes = {name: value for name, value in given.items() if value is not None}
        sibling = copy.copy(self)
        sibling._caller = attrs.evolve(self._caller, **changes)  # noqa: SLF001 - of its own class
        sibling._owner = False  # noqa: SLF001
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
        read = partial(results.cancelled, job_id=job_id)
        try:
            return await self._caller.call(requests.cancel(job_id), read)
        except (InvalidArgument, JobNotFound) as error:
            if isinstance(error, JobNotFound) and not error.may_have_happened:
                raise
            try:
                job = await self.query(job_id)
            except LiveAuditError:
                raise error from None
            if job.state != JobState.CANCELLED and not (job.ended and error.may_have_happened):
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

    # Many jobs

    async def wait(
        self, job_id: str, interval: float = 10.0, timeout: float | None = None
    ) -> AuditJob:
        """Query a job every ``interval`` seconds until it has ended.

        Raises:
            JobFailed: It ended in state Failed; ``.job`` is the job.
            WaitTimeout: It did not end in ``timeout`` seconds; ``.last`` is the job as last
                seen, without its lists.
            LiveAuditError: It cannot be queried. Transient errors are waited out.
        """
        polling = attrs.evolve(self._polling(interval, timeout), keep_last=True)
        async with Outcomes(polling, [job_id]) as outcomes:
            outcome = await anext(outcomes)
        return outcome.unwrap()

    def as_completed(
        self,
        job_ids: Source,
        interval: float = 10.0,
        timeout: float | None = None,
        *,
        checkpoint: AnyCheckpoint | None = None,
    ) -> Outcomes:
        """Follow many jobs and yield the `Outcome` of each as it ends.

        ::

            async with client.as_completed(job_ids) as outcomes:
                async for outcome in outcomes:
                    print(outcome.job_id, outcome.unwrap().label)

        Every id has exactly one outcome, even if it is given more than once, and the error of one
        job does not end the others. The most overdue job is polled first, so jobs take turns where
        the quota is too small for the interval. A slow consumer slows the polling down. Other calls
        take priority. An outage is waited out, with one probe at a time.

        The iteration itself raises what concerns all jobs: the client was closed, or five jobs in a
        row were refused for a reason of the account or the bucket. It raises the `OSError` of a
        checkpoint that cannot be written, too; called again, it goes on.

        Args:
            job_ids: A collection of ids, or an iterable, read as the quota allows. Of an endless
                one the last 50,000 finished ids are known. A sync one is read on the event loop.
            interval: Seconds from one query of a job to the next.
            timeout: Seconds for which a job is followed, counted from when its id was read (for a
                collection: from the start). The job is polled a last time just before the end, and
                its outcome is a `WaitTimeout`.
            checkpoint: A file from which a later run can continue. It answers an id once the job
                has ended, or the service has said that there is none; no other outcome does.

        Raises:
            ConfigurationError: An argument cannot be used, or it is another bucket's checkpoint.
            OSError: The checkpoint cannot be written.
        """
        return Outcomes(self._polling(interval, timeout, checkpoint), job_ids)

    def watch(
        self,
        job_ids: str | Source,
        interval: float = 10.0,
        timeout: float | None = None,
        *,
        checkpoint: AnyCheckpoint | None = None,
    ) -> Findings:
        """Follow one job or many and yield each `Finding` once, as it turns up.

        ::

            async with client.watch(job_id) as findings:
                async for finding in findings:
                    if finding.verdict == Verdict.SENSITIVE:
                        print(finding.label, finding.at, finding.job.ended)

        ``job_ids`` is an id, or what `as_completed` takes; the rest is as there. An error that ends
        a job early is raised if it is the only one, otherwise it comes as a `WatchFailed`. With a
        checkpoint, a later run hands out no finding anew but the one in hand.

        Raises: as `as_completed` does.
        """
        return Findings(self._polling(interval, timeout, checkpoint), job_ids)

    def plan(self, jobs: int, interval: float = 10.0) -> Plan:
        """Calculate how often this client's rate allows jobs to be polled, as `plan` does.

        Raises:
            ConfigurationError: A number cannot be used.
        """
        return plan(jobs, interval=interval, rate=self._rate)

    def _polling(
        self, interval: float, timeout: float | None, checkpoint: AnyCheckpoint | None = None
    ) -> Polling:
        """Return how a run polls: behind all other calls on this client."""
        if checkpoint is not None:
            checkpoint.bind(self._bucket, self._region)
        limiter = self._background.sibling()
        caller = attrs.evolve(self._caller, limiter=limiter)
        once = attrs.evolve(caller, retry=attrs.evolve(caller.retry, attempts=1))
        limits, scope = (interval, timeout, limiter, self._rate), caller.transport.open_call
        return Polling(_polls(caller), *limits, checkpoint, probe=_polls(once), scope=scope)


def _polls(caller: Caller) -> Query:
    return lambda job_id, reading: caller.query(job_id, reading.read)
