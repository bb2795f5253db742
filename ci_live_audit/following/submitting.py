"""Submits one stream, and knows at every instant whether a job may exist.

What an error of one means for the others is known to `Prospects`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import attrs

from ci_live_audit.calls import Caller
from ci_live_audit.errors import CredentialsError, LiveAuditError, ServiceError
from ci_live_audit.following.health import Health
from ci_live_audit.models import SubmittedJob
from ci_live_audit.observers import Audience
from ci_live_audit.retry import Attempt, RetryPolicy
from ci_live_audit.wire import results
from ci_live_audit.wire.requests import Request

__all__ = ["LONGEST_PAUSE", "PAUSE", "Prospects", "Submission", "is_saturated"]

#: Seconds before a stream is submitted again, doubled up to the longest; and from a submission
#: whose answer was lost to the next one.
PAUSE, LONGEST_PAUSE = 1.0, 60.0


def is_saturated(error: LiveAuditError | None) -> bool:
    """Return whether the service refuses a stream because too many run.

    Which code that has is not documented; this one is the queue's.
    """
    return isinstance(error, ServiceError) and error.code == "QueueSaturated"


class Submission:
    """The submission of a stream, and what stands before the limiter of its attempts.

    Args:
        caller: Makes the call.
        request: What to send.
        is_left: Whether nothing is to be tried again.
        begun: Called when an attempt is under way.

    Attributes:
        under_way: Whether an attempt has left, and its result is not known.
    """

    def __init__(
        self,
        caller: Caller,
        request: Request,
        is_left: Callable[[], bool],
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        self._begun = begun
        self._limiter = caller.limiter
        self._request = request
        told = Audience(self._end_attempt, *caller.on_attempt.hooks)
        self._caller = attrs.evolve(
            caller, limiter=self, on_attempt=told, retry=_patient(caller.retry, is_left)
        )
        #: As the limiter has it; None if it knows only ``hold``.
        self.refused: Callable[[float], object] | None = getattr(caller.limiter, "refused", None)
        self.under_way: bool = False

    async def send(self) -> SubmittedJob:
        """Submit the stream.

        Raises:
            LiveAuditError: It failed; `is_saturated` is not tried again.
        """
        return await self._caller.call(self._request, results.submitted)

    async def acquire(self) -> float:
        """Wait as the limiter does; then the attempt is under way."""
        waited = await self._limiter.acquire()
        self.under_way = True
        self._begun()
        return waited

    def hold(self, seconds: float) -> None:
        """Pause all callers of the limiter."""
        self._limiter.hold(seconds)

    def _end_attempt(self, _: Attempt) -> None:
        self.under_way = False


@attrs.frozen(kw_only=True)
class _Patient(RetryPolicy):
    """A policy that leaves it to others to wait until the service has room for a stream."""

    policy: RetryPolicy
    is_left: Callable[[], bool]

    def delay(self, attempt: Attempt, *, rng: Callable[[], float] = random.random) -> float | None:
        """Return the seconds to wait before the next attempt; None to give up."""
        if self.is_left() or is_saturated(attempt.error):
            return None
        return self.policy.delay(attempt, rng=rng)


def _patient(policy: RetryPolicy, is_left: Callable[[], bool]) -> RetryPolicy:
    same: dict[str, Any] = {
        field.name: getattr(policy, field.name) for field in attrs.fields(RetryPolicy)
    }
    return _Patient(policy=policy, is_left=is_left, **same)


class Prospects:
    """What is to be expected of the next submission.

    Attributes:
        resume: When it may be made.
    """

    def __init__(self) -> None:
        self._health = Health()
        self._lost = 0
        self.resume: float = -math.inf

    def may_pass(self, error: LiveAuditError) -> bool:
        """Return whether a stream was certainly not submitted, and may be later."""
        if isinstance(error, CredentialsError):
            return self._health.may_pass(error)
        return error.transient and not error.may_have_happened

    def record_success(self, now: float) -> None:
        """Record a submission."""
        self._lost = 0
        self._health.record_success(now)

    def is_bad_for_all(self, error: LiveAuditError, now: float) -> bool:
        """Record an error, and return whether none should be submitted any more."""
        if error.may_have_happened:
            # The next one may be lost as well.
            self._lost += 1
            pause = PAUSE * 2.0 ** min(self._lost - 2, 10) if self._lost > 1 else 0.0
            self.resume = now + min(pause, LONGEST_PAUSE)
        if not self._health.may_pass(error):
            self._health.record_error(error, now, 1)
        return self._health.is_fatal(error)
