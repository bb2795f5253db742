"""Decides whether and when to try again, from what happened in an attempt.

Pure but for the counter of the budget: no clock, no sleeping, no sending.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import attrs

from ci_live_audit._checks import field_above_zero
from ci_live_audit.errors import LiveAuditError, Throttled
from ci_live_audit.limits.limiter import HOLD

__all__ = ["Attempt", "RetryBudget", "RetryPolicy"]


# One is made for each attempt, and slots would take twice the time.
@attrs.frozen(kw_only=True, slots=False)
class Attempt:
    """One request and its result: what the policy judges and ``on_attempt`` receives.

    Attributes:
        operation: ``"query"``, ``"cancel"`` or ``"submit"``.
        job_id: The job, if the call has one.
        number: 1 for the first attempt of a call.
        idempotent: Whether sending the request twice has the same effect as sending it once.
        queued: Seconds spent waiting for the rate limiter.
        elapsed: Seconds from leaving the limiter to the end of the attempt.
        since_first: Seconds from when the first attempt left the limiter to the end of this one.
        status: HTTP status; None if no response arrived.
        request_id: The service's id for the request, if it sent one.
        error: What went wrong; None after a success.
        delay: Seconds until the next attempt; None if this was the last.
        endpoint: URL of the server.
        lane: ``"poll"`` if a run waited for the rate limiter, behind all other calls, ``"call"``
            if it was one of these; None if the attempt ended before, and sent nothing.
    """

    operation: str
    number: int
    job_id: str | None = None
    idempotent: bool = True
    queued: float = 0.0
    elapsed: float = 0.0
    since_first: float = 0.0
    status: int | None = None
    request_id: str | None = None
    error: LiveAuditError | None = None
    delay: float | None = None
    endpoint: str = ""
    lane: Literal["call", "poll"] | None = "call"

    def __str__(self) -> str:
        """Return what a log says of it."""
        call = self.operation if self.job_id is None else f"{self.operation} of {self.job_id}"
        result = "no response" if self.status is None else f"{self.status}"
        parts = [f"{call}, attempt {self.number}: {result} in {self.elapsed:.3f} s"]
        if self.queued >= 0.001:
            parts.append(f"queued {self.queued:.3f} s")
        if self.request_id is not None:
            parts.append(f"request id {self.request_id}")
        if self.error is not None:
            parts.append(f"{self.error!r}")  # on one line, whatever the service says
        if self.delay is not None:
            parts.append(f"again in {self.delay:.1f} s")
        return ", ".join(parts)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When to try again: exponential backoff with full jitter, and Retry-After within limits.

    A request is repeated if it may succeed and repeating it does no harm: always if it was
    throttled; after a failed exchange or a 5xx if the call is idempotent (``query``, ``cancel``)
    or, for a ``submit``, if the request certainly did not arrive.

    Args:
        attempts: Requests a call may send in all; 1 never retries.
        base_delay: Seconds; upper bound of the delay before the second attempt, doubled for each
            one after.
        throttle_delay: The same after a throttled attempt.
        max_delay: Seconds; the bound grows no further than this.
        max_retry_after: Seconds; if the service asks for more, there is no retry.
        deadline: Seconds for all that a call waits for: credentials, attempts, the delays between
            them, decoding. Waits for slots come on top.

    Raises:
        ConfigurationError: A number is not above 0.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    attempts: int = attrs.field(default=4, validator=field_above_zero)
    base_delay: float = attrs.field(default=0.5, validator=field_above_zero)
    throttle_delay: float = attrs.field(default=1.0, validator=field_above_zero)
    max_delay: float = attrs.field(default=20.0, validator=field_above_zero)
    max_retry_after: float = attrs.field(default=60.0, validator=field_above_zero)
    deadline: float = attrs.field(default=120.0, validator=field_above_zero)

    def delay(self, attempt: Attempt, *, rng: Callable[[], float] = random.random) -> float | None:
        """Return the seconds to wait before the next attempt; None to give up.

        Args:
            attempt: What happened.
            rng: Returns random numbers from 0 to 1; for tests.
        """
        error = attempt.error
        if error is None or attempt.number >= self.attempts or not _may_repeat(attempt, error):
            return None
        asked = error.retry_after or 0.0
        if asked > self.max_retry_after:
            return None
        throttled = isinstance(error, Throttled)
        base = self.throttle_delay if throttled else self.base_delay
        delay = rng() * min(self.max_delay, base * 2.0 ** min(attempt.number - 1, 60))
        delay = max(delay, asked, HOLD if throttled else 0.0)
        return delay if attempt.since_first + delay <= self.deadline else None

    def hold(self, error: Throttled) -> float:
        """Return the seconds for which all callers of the limiter pause after an error."""
        return max(HOLD, min(error.retry_after or 0.0, self.max_retry_after))


def _may_repeat(attempt: Attempt, error: LiveAuditError) -> bool:
    if isinstance(error, Throttled):
        return True
    return error.transient and (attempt.idempotent or not error.may_have_happened)


class RetryBudget:
    """Bounds what retries add to the load of a service that is down.

    Every retry takes tokens and every success gives some back; without tokens there is no retry.
    1,000 calls during an outage cost 35 retries, not 3,000.
    """

    CAPACITY = 500
    COST = 14
    THROTTLE_COST = 5
    AT_ONCE_COST = 5

    def __init__(self) -> None:
        self.tokens: int = self.CAPACITY

    def take(self, error: LiveAuditError | None) -> bool:
        """Take the tokens for one retry; False if there are not enough."""
        return self._take(self.THROTTLE_COST if isinstance(error, Throttled) else self.COST)

    def take_at_once(self) -> bool:
        """Take the tokens for a retry whose cause of failure is gone; see `take`."""
        return self._take(self.AT_ONCE_COST)

    def _take(self, cost: int) -> bool:
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True

    def give(self, number: int) -> None:
        """Give back tokens for a success in an attempt: one, or those of a retry after others."""
        self.tokens = min(self.CAPACITY, self.tokens + (self.COST if number > 1 else 1))
