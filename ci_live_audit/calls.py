"""One call: the loop of attempts.

Everything that can go stale is created inside the loop: a call may wait minutes for its slot, and a
retry may outlive the token and the signature of the attempt before.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import attrs

from ci_live_audit._checks import field_in_seconds
from ci_live_audit._loop import deadline, running_loop
from ci_live_audit._threads import Threads
from ci_live_audit.clock import Clock
from ci_live_audit.credentials.cache import CredentialCache
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import (
    ConfigurationError,
    DecodeError,
    LiveAuditError,
    RequestTimeout,
    Throttled,
    TransportError,
)
from ci_live_audit.limits.limiter import RateLimiter, report_refusal
from ci_live_audit.models import AuditJob, CancelledJob, SubmittedJob
from ci_live_audit.observers import Audience, audience
from ci_live_audit.retry import Attempt, RetryBudget, RetryPolicy
from ci_live_audit.transport.exchange import Transport
from ci_live_audit.transport.memory import HUGE_BODY, Share
from ci_live_audit.wire import documents, refusals, requests, results, signature
from ci_live_audit.wire.refusals import Remedy
from ci_live_audit.wire.requests import Request
from ci_live_audit.wire.responses import Response

__all__ = ["Caller"]

logger: logging.Logger = logging.getLogger("ci_live_audit")

T = TypeVar("T", AuditJob, SubmittedJob, CancelledJob)

# Decoding holds the interpreter most of the time, so more threads would finish nothing sooner, and
# the event loop takes turns with all of them: two at once on huge bodies make it three times as
# late at p99. A thread of their own lets smaller bodies pass a huge one.
DECODING, DECODING_HUGE = Threads(1), Threads(1)
# Lets other threads run between the pieces of a large body, which is decoded in a thread.
HAND_OVER = partial(time.sleep, 0)
# Paths of unreadable values that one client logs.
MAX_WARNED = 1000
# Stands among them for a server that cannot be reached; no path is empty.
UNREACHED = ""


def _is_unreached(error: LiveAuditError) -> bool:
    """Return whether there was no connection, and may be one later."""
    return isinstance(error, TransportError) and not error.sent and error.transient


def _policy(_: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, RetryPolicy):
        raise ConfigurationError(
            f"{attribute.name}: expected a RetryPolicy, got {type(value).__name__}"
        )


@attrs.define
class _Call:
    """A call in progress, and its present attempt."""

    request: Request
    endpoint: str
    #: Loop time up to which the call may go on.
    until: float
    number: int = 0
    #: Loop time when the first attempt left the limiter.
    first: float | None = None
    may_have_happened: bool = False
    remedies: set[Remedy] = attrs.field(factory=set[Remedy])
    # Of the present attempt: how it passed the limiter, seconds waited for that, loop time when it
    # left, how it was signed, and what came back.
    lane: Literal["call", "poll"] | None = None
    queued: float = 0.0
    began: float = 0.0
    credentials: Credentials | None = None
    ahead: float = 0.0
    response: Response | None = None

    def attempt(self, error: LiveAuditError | None = None) -> Attempt:
        """Return the record of the present attempt, which ends now."""
        response, request = self.response, self.request
        ended = asyncio.get_running_loop().time()
        return Attempt(
            operation=request.operation,
            job_id=request.job_id,
            number=self.number,
            idempotent=request.idempotent,
            queued=self.queued,
            elapsed=ended - self.began,
            since_first=ended - (self.began if self.first is None else self.first),
            status=response.status or None if response is not None else None,
            request_id=response.request_id if response is not None else None,
            error=error,
            endpoint=self.endpoint,
            lane=self.lane,
        )


@attrs.frozen(kw_only=True)
class Caller:
    """Makes calls with what it is given; several callers may share most of it."""

    host: str
    clock: Clock
    credentials: CredentialCache
    limiter: RateLimiter
    budget: RetryBudget
    transport: Transport
    retry: RetryPolicy = attrs.field(validator=_policy)
    timeout: float = attrs.field(validator=field_in_seconds)
    on_attempt: Audience = attrs.field(converter=audience)
    #: How its calls pass the limiter.
    lane: Literal["call", "poll"] = "call"
    # What has been logged: paths of unreadable values without their indexes, `UNREACHED`.
    warned: set[str] = attrs.field(factory=set[str])

    def introduce(self) -> None:
        """Tell observers of the limiter and of the connections."""
        self.on_attempt.tell("client_made", self.limiter, self.transport.is_open)

    async def query(self, job_id: str, decode: Callable[..., AuditJob] | None = None) -> AuditJob:
        """Query a job; ``decode`` is called in place of `results.job`."""

        def read(body: bytes) -> AuditJob:
            return (decode or results.job)(body, received_at=self.clock.utc(), pause=HAND_OVER)

        return await self.call(requests.query(job_id), read)

    async def call(self, request: Request, read: Callable[[bytes], T]) -> T:
        """Make attempts until one succeeds or another one is pointless, and return the result.

        Args:
            request: What to request.
            read: Makes the result of a body.

        Raises:
            LiveAuditError: The error of the last attempt.
        """
        time = running_loop().time
        began, problem = time(), None
        try:
            async with self.transport.open_call():
                call = _Call(request, self.transport.base_url, until=began + self.retry.deadline)
                while True:
                    try:
                        result = await self._attempt(call, read)
                    except LiveAuditError as error:
                        delay = await self._judge(call, error)
                        if delay is None:
                            raise
                    else:
                        self._succeeded(call)
                        return result
                    await asyncio.sleep(delay)
        except BaseException as error:
            problem = error
            raise
        finally:
            if self.on_attempt.observers:
                about = request.operation, request.job_id
                self.on_attempt.tell("call_ended", *about, time() - began, problem)
            del problem  # or the error and this frame would keep each other alive

    async def _attempt(self, call: _Call, read: Callable[[bytes], T]) -> T:
        """Make one attempt, and return the result or raise the error."""
        request = call.request
        time = asyncio.get_running_loop().time
        call.number += 1
        call.lane, call.queued, call.began, call.response = None, 0.0, time(), None
        # Before the slot: behind what takes its time, slots would pass unused, and then many
        # requests would leave together.
        call.credentials = await self._credentials(call)
        began = time()
        timeout = min(self.timeout, max(call.until - began, 0.0))
        await self.transport.prepare(timeout / 2)
        prepared = min(time() - began, timeout / 2)
        call.queued = await self.limiter.acquire()
        call.lane = self.lane
        call.until += call.queued  # waiting for a slot is not the service's doing
        call.began = time()
        if not self.credentials.is_valid(call.credentials):
            call.credentials = await self._credentials(call)
        if call.first is None:
            call.first = call.began
        timeout = min(timeout, call.until - time() + prepared)
        if timeout <= prepared:
            raise self._late("nothing sent", sent=False)
        call.ahead = self.clock.ahead
        headers = signature.sign(request, self.host, call.credentials, self.clock.now())
        with self.transport.memory.share(call.until) as share:
            call.response = await self.transport.send(
                attrs.evolve(request, headers=headers),
                timeout=timeout,
                spent=prepared,
                # An idle connection may just be closing.
                reuse=request.idempotent and Remedy.NEW_CONNECTION not in call.remedies,
                share=share,
            )
            error = refusals.failure(call.response, self.host)
            if error is None:
                return await self._read(call, call.response, read, share)
        try:
            raise error
        finally:  # or the error and this frame would keep each other alive
            del error

    async def _credentials(self, call: _Call) -> Credentials:
        try:
            return await self.credentials.get(call.until)
        except TimeoutError:
            raise self._late("no credentials", sent=False) from None

    async def _read(
        self, call: _Call, response: Response, read: Callable[[bytes], T], share: Share
    ) -> T:
        request = call.request
        # More than some 3 ms would delay everything else on the loop.
        if len(response.body) <= documents.LARGE_BODY:
            result = read(response.body)
        else:
            threads = DECODING if len(response.body) <= HUGE_BODY else DECODING_HUGE
            try:
                async with deadline(call.until):
                    share.hold()  # also for as long as a thread goes on that nobody waits for
                    result = await threads.run(partial(read, response.body), share.release)
            except TimeoutError:
                size = f"{len(response.body):,} bytes"
                raise self._late(f"the response of {size} was not decoded", sent=True) from None
        if request.job_id not in {None, result.job_id}:
            # The response to another request came on this connection; more of them may follow.
            await self.transport.drop_idle()
            raise DecodeError(f"the response is about another job, {result.job_id}")
        if result.unreadable:
            self._warn(result)
        if result.request_id is None:
            result = attrs.evolve(result, request_id=response.request_id)
        return result

    def _warn(self, result: AuditJob | SubmittedJob | CancelledJob) -> None:
        for path in result.unreadable:
            pattern = re.sub(r"\[\d+\]", "[]", path)
            if pattern not in self.warned and len(self.warned) < MAX_WARNED:
                self.warned.add(pattern)
                logger.warning(
                    "job %s: %s cannot be read; it is kept in extra", result.job_id, path
                )

    def _late(self, what: str, *, sent: bool) -> RequestTimeout:
        text = f"{what} within the deadline of {self.retry.deadline:g} s"
        return RequestTimeout(text, sent=sent)

    async def _judge(self, call: _Call, error: LiveAuditError) -> float | None:
        """Complete the error of an attempt, and return the seconds until the next, if any."""
        attempt = call.attempt(error)
        call.may_have_happened = call.may_have_happened or error.may_have_happened
        error.about(call.request.operation, call.request.job_id)
        error.attempts, error.may_have_happened = call.number, call.may_have_happened
        error.request_id = error.request_id or attempt.request_id
        delay = self._delay(attempt, error, at_once=await self._remedy(call, error))
        if delay is not None and asyncio.get_running_loop().time() + delay >= call.until:
            delay = None
        call.response = None  # it may hold the error, whose frames hold the call
        self._failed(attrs.evolve(attempt, delay=delay), error)
        return delay

    async def _remedy(self, call: _Call, error: LiveAuditError) -> bool:
        """Remove the cause of an error if possible; each kind of cause counts once in a call."""
        remedy = refusals.remedy(error)
        match remedy:
            case Remedy.NEW_CREDENTIALS if call.credentials is not None:
                applied = (
                    self.credentials.invalidate(call.credentials)
                    if refusals.is_stale(error)
                    else await self.credentials.have_changed(call.credentials, call.until)
                )
            case Remedy.NEW_TIME if call.response is not None:
                applied = self.clock.learn(call.response.date, used=call.ahead)
            case _:
                applied = remedy is Remedy.NEW_CONNECTION
        if remedy is None or not applied or remedy in call.remedies:
            return False
        call.remedies.add(remedy)
        return True

    def _delay(self, attempt: Attempt, error: LiveAuditError, *, at_once: bool) -> float | None:
        """Return the seconds until the next attempt: none at all if the cause has been removed."""
        if at_once and attempt.number < self.retry.attempts and self.budget.take_at_once():
            return 0.0
        delay = self.retry.delay(attempt)
        if isinstance(error, Throttled):
            hold = max(self.retry.hold(error), delay or 0.0)
            report_refusal(self.limiter, error.retry_after or 0.0, hold)
        return delay if delay is not None and self.budget.take(error) else None

    def _succeeded(self, call: _Call) -> None:
        self.budget.give(call.number)
        self.warned.discard(UNREACHED)
        # A record that nobody sees would cost each call a microsecond.
        if self.on_attempt.hooks or logger.isEnabledFor(logging.DEBUG):
            self._report(call.attempt())

    def _failed(self, attempt: Attempt, error: LiveAuditError) -> None:
        if _is_unreached(error) and UNREACHED not in self.warned:
            self.warned.add(UNREACHED)
            logger.warning("%s; this is logged once until a call succeeds", error)
        self._report(attempt)

    def _report(self, attempt: Attempt) -> None:
        level = logging.WARNING if isinstance(attempt.error, Throttled) else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "%s", attempt)
        if self.on_attempt.hooks:
            self.on_attempt.attempted(attempt)
