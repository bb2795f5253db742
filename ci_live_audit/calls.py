"""The one loop in which every attempt of every call is made.

All that ages is inside the loop: a call may wait for its slot for minutes, and a retry may outlive
the token and the signature of the attempt before.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import anyio.to_thread
import attrs

from ci_live_audit._checks import seconds
from ci_live_audit.clock import Clock
from ci_live_audit.credentials.cache import CredentialCache
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import (
    AccessDenied,
    ConfigurationError,
    DecodeError,
    LiveAuditError,
    ServiceError,
    Throttled,
    TransportError,
)
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob
from ci_live_audit.retry import HOLD, Attempt, RetryBudget, RetryPolicy
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.wire import documents, refusals, signature
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["Caller"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

T = TypeVar("T", AuditJob, SubmittedJob, CancelledJob)

MIN_TIMEOUT = 0.001
STALE = {"ExpiredToken", "InvalidAccessKeyId", "SecretidNotExist", "InvalidToken"}
SKEWED = {"RequestTimeTooSkewed", "SignatureExpired"}


def _seconds(_: object, attribute: Any, value: float) -> None:
    seconds(attribute.name, value)


def _plain_function(_: object, attribute: Any, value: Any) -> None:
    if value is None:
        return
    if not callable(value):
        raise ConfigurationError(f"{attribute.name}: expected a function")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ConfigurationError(
            f"{attribute.name}: expected a plain function; nobody would await it"
        )


def _policy(_: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, RetryPolicy):
        raise ConfigurationError(
            f"{attribute.name}: expected a RetryPolicy, got {type(value).__name__}"
        )


@attrs.define
class _Call:
    """A call under way."""

    request: Request
    number: int = 0
    #: The loop's time when the first attempt left the limiter, and to which attempts may go on.
    first: float | None = None
    until: float | None = None
    unsure: bool = False
    mended: set[str | None] = attrs.field(factory=lambda: {None})


@attrs.frozen(kw_only=True)
class Caller:
    """Makes calls with what it is given; several may share most of it."""

    host: str
    clock: Clock
    credentials: CredentialCache
    limiter: RateLimiter
    budget: RetryBudget
    transport: Transport
    retry: RetryPolicy = attrs.field(validator=_policy)
    timeout: float = attrs.field(validator=_seconds)
    on_attempt: Callable[[Attempt], object] | None = attrs.field(validator=_plain_function)

    async def call(self, request: Request, read: Callable[[bytes], T]) -> T:
        """Make attempts until one succeeds or there is no point in another.

        Args:
            request: What is asked.
            read: Makes the result of a body.

        Raises:
            LiveAuditError: What came of the last attempt.
        """
        call = _Call(request)
        async with self.transport.open_call():
            while True:
                attempt, result, cure = await self._attempt(call, read)
                error = attempt.error
                if error is None:
                    self.budget.give(attempt)
                    self._report(attempt)
                    return cast("T", result)
                call.unsure = call.unsure or error.may_have_happened
                error.operation, error.job_id = request.operation, request.job_id
                error.attempts, error.may_have_happened = attempt.number, call.unsure
                error.request_id = error.request_id or attempt.request_id
                delay = self._delay(attempt, at_once=cure not in call.mended)
                call.mended.add(cure)
                self._report(attrs.evolve(attempt, delay=delay))
                if delay is None:
                    try:
                        raise error
                    finally:  # or the error and this frame would keep each other alive
                        del error, attempt
                del error, attempt
                await asyncio.sleep(delay)

    async def _attempt(
        self, call: _Call, read: Callable[[bytes], T]
    ) -> tuple[Attempt, T | None, str | None]:
        """What happened, what came of it, and which cause of an error is mended now."""
        request = call.request
        time_ = asyncio.get_running_loop().time
        queued, began = 0.0, time_()
        answer = result = cure = None
        error: LiveAuditError | None = None
        try:
            # Before the slot: behind a slow provider slots would pass unused, and then many
            # requests leave together.
            credentials = await self.credentials.get()
            queued = await self.limiter.acquire()
            began = time_()
            if not self.credentials.is_valid(credentials):
                credentials = await self.credentials.get()
            if call.until is None:
                call.first, call.until = began, began + self.retry.deadline
            else:  # waiting for a slot is not the service's doing
                call.until += queued
            ahead = self.clock.ahead
            headers = signature.sign(request, self.host, credentials, self.clock.now())
            answer = await self.transport.send(
                request.method,
                request.path,
                headers,
                request.body,
                timeout=min(self.timeout, max(call.until - began, MIN_TIMEOUT)),
                # A connection that was idle may just be closing.
                reuse=request.idempotent and "connection" not in call.mended,
            )
            if answer.error is not None and answer.status < 500 and answer.status != 429:
                error = answer.error
            elif 200 <= answer.status < 300:
                result = await self._read(request, answer, read)
            else:  # of a refusal to answer now the status is enough
                error = refusal = refusals.refusal(answer)
                error.__cause__ = answer.error
                cure = await self._cure(refusal, answer, credentials, ahead)
        except LiveAuditError as problem:
            error = problem
            cure = "connection" if isinstance(error, TransportError) and error.reused else None
        ended = time_()
        call.number += 1
        attempt = Attempt(
            operation=request.operation,
            job_id=request.job_id,
            number=call.number,
            idempotent=request.idempotent,
            queued=queued,
            elapsed=ended - began,
            since_first=ended - (began if call.first is None else call.first),
            status=answer.status if answer is not None else None,
            request_id=answer.request_id if answer is not None else None,
            error=error,
        )
        try:
            return attempt, result, cure
        finally:  # or the error and this frame would keep each other alive
            del error, attempt

    async def _read(self, request: Request, answer: Response, read: Callable[[bytes], T]) -> T:
        # What takes more than some 3 ms would be felt by everything else on the loop.
        if len(answer.body) <= documents.LARGE_BODY:
            result = read(answer.body)
        else:
            result = await anyio.to_thread.run_sync(read, answer.body, abandon_on_cancel=True)
        if request.job_id not in {None, result.job_id}:
            # An answer to another request came on this connection; more of them may be waiting.
            await self.transport.drop_idle()
            raise DecodeError(f"the answer is about another job, {result.job_id}")
        if result.request_id is None:
            result = attrs.evolve(result, request_id=answer.request_id)
        return result

    async def _cure(
        self, error: ServiceError, answer: Response, credentials: Credentials, ahead: float
    ) -> str | None:
        """What was wrong with a refused attempt, if another one would be made without it."""
        if error.code in STALE:
            return "credentials" if self.credentials.invalidate(credentials) else None
        if error.code in SKEWED or "Request has expired" in error.message:
            learnt = self.clock.learn(answer.headers.get("date", ""), used=ahead)
            return "clock" if learnt else None
        if isinstance(error, AccessDenied) and await self.credentials.have_changed(credentials):
            return "credentials"
        return None

    def _delay(self, attempt: Attempt, *, at_once: bool) -> float | None:
        """Seconds to the next attempt, if there is one: none at all where a cause is mended."""
        if at_once and attempt.number < self.retry.attempts and self.budget.take_at_once():
            return 0.0
        delay = self.retry.delay(attempt)
        if isinstance(attempt.error, Throttled):
            asked = min(attempt.error.retry_after or 0.0, self.retry.max_retry_after)
            self.limiter.hold(max(HOLD, asked, delay or 0.0))
        return delay if delay is not None and self.budget.take(attempt.error) else None

    def _report(self, attempt: Attempt) -> None:
        level = logging.WARNING if isinstance(attempt.error, Throttled) else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "%s", attempt)
        if self.on_attempt is None:
            return
        try:
            self.on_attempt(attempt)
        except Exception:
            logger.exception("on_attempt failed")
