"""The retry policy and its budget: a pure decision from what happened."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import (
    AccessDenied,
    Attempt,
    ConfigurationError,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    RequestTimeout,
    RetryPolicy,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    TransportError,
)
from ci_live_audit.retry import RetryBudget

THROTTLED = Throttled("slow down", status=429, code="SlowDown")
DOWN = ServiceUnavailable("down", status=503, code="ServiceUnavailable")


def after(
    error: LiveAuditError | None,
    *,
    number: int = 1,
    idempotent: bool = True,
    since_first: float = 0.0,
) -> Attempt:
    return Attempt(
        operation="query",
        number=number,
        idempotent=idempotent,
        since_first=since_first,
        error=error,
    )


def test_an_attempt_is_logged_in_words() -> None:
    """On one line, with what is known of it."""
    assert str(after(None)) == "query, attempt 1: no response in 0.000 s"
    whole = attrs.evolve(
        after(ServiceUnavailable("down\nup", status=503), number=2),
        job_id="av1",
        status=503,
        elapsed=0.0312,
        queued=1.5,
        request_id="r1",
        delay=0.25,
    )
    assert str(whole) == (
        "query of av1, attempt 2: 503 in 0.031 s, queued 1.500 s, request id r1, "
        "ServiceUnavailable('down\\nup'), again in 0.2 s"
    )


@pytest.mark.parametrize(
    ("error", "idempotent", "submission"),
    [
        (THROTTLED, True, True),
        (Throttled("COS", status=503, code="SlowDown"), True, True),
        (DOWN, True, False),
        (ServiceUnavailable("full", status=403, code="QueueSaturated"), True, True),
        (TransportError("lost"), True, False),
        (TransportError("no connection", sent=False), True, True),
        (RequestTimeout("late"), True, False),
        (DecodeError("cut off"), True, False),
        (DecodeError("expected an integer", path="JobsDetail.Result"), False, False),
        (AccessDenied("no", status=403), False, False),
        (InvalidArgument("no", status=400), False, False),
        (JobNotFound("no", status=404), False, False),
        (ServiceError("moved", status=301), False, False),
        (ConfigurationError("closed"), False, False),
        (None, False, False),
    ],
)
def test_which_errors_are_retried(
    error: LiveAuditError | None, idempotent: bool, submission: bool
) -> None:
    """Queries and cancels are repeated if that may help, submissions only if none arrived."""
    policy = RetryPolicy()
    assert (policy.delay(after(error)) is not None) is idempotent
    assert (policy.delay(after(error, idempotent=False)) is not None) is submission


def test_one_attempt_never_retries() -> None:
    """attempts=1 gives up at once, whatever happened."""
    assert RetryPolicy(attempts=1).delay(after(THROTTLED)) is None


def test_the_last_attempt_is_the_last() -> None:
    """No delay follows the attempt that uses up the number."""
    policy = RetryPolicy(attempts=3)
    given_delays = [policy.delay(after(DOWN, number=number)) is not None for number in (1, 2, 3)]
    assert given_delays == [True, True, False]


@pytest.mark.parametrize(
    ("error", "bounds", "least"),
    [(DOWN, [0.5, 1, 2, 4, 8, 16, 20, 20], 0), (THROTTLED, [1, 2, 4, 8, 16, 20, 20, 20], 1)],
)
def test_full_jitter_below_a_doubling_bound(
    error: LiveAuditError, bounds: list[float], least: float
) -> None:
    """The delay is anything up to a bound that doubles to max_delay; once throttled, from 1 s."""
    policy = RetryPolicy(attempts=99, deadline=1e9)
    for number, bound in enumerate(bounds, 1):
        attempt = after(error, number=number)
        assert policy.delay(attempt, rng=lambda: 0.0) == least
        assert policy.delay(attempt, rng=lambda: 0.5) == max(bound / 2, least)
        assert policy.delay(attempt, rng=lambda: 1.0) == bound


@pytest.mark.parametrize(
    ("asked", "delay"), [(None, 1.0), (0.0, 1.0), (7.5, 7.5), (60.0, 60.0), (60.1, None)]
)
def test_retry_after_is_obeyed_or_refused(asked: float | None, delay: float | None) -> None:
    """Retry-After is a lower bound of the delay; above the limit there is no retry."""
    error = Throttled("slow down", status=429, retry_after=asked)
    assert RetryPolicy().delay(after(error), rng=lambda: 0.0) == delay


def test_the_deadline_counts_the_delay() -> None:
    """An attempt that would start after the deadline is not planned."""
    policy = RetryPolicy(deadline=10)
    assert policy.delay(after(DOWN, since_first=9.75), rng=lambda: 0.5) == 0.25
    assert policy.delay(after(DOWN, since_first=9.76), rng=lambda: 0.5) is None


@pytest.mark.parametrize(
    "name",
    ["attempts", "base_delay", "throttle_delay", "max_delay", "max_retry_after", "deadline"],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_numbers_must_be_above_zero(name: str, value: float) -> None:
    """A policy that could not work is refused with the name of the number."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})  # type: ignore[arg-type]


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1e9) | st.none())
def test_no_delay_is_longer_than_what_bounds_it(
    number: int, chance: float, asked: float | None
) -> None:
    """For any attempt, chance and Retry-After the delay stays within the policy's limits."""
    policy = RetryPolicy(attempts=10_001, deadline=1e9)
    error = Throttled("slow down", status=429, retry_after=asked)
    delay = policy.delay(after(error, number=number), rng=lambda: chance)
    assert delay is None or 0 <= delay <= max(policy.max_delay, policy.max_retry_after)


def test_the_budget_bounds_an_outage() -> None:
    """Without successes the tokens pay for 35 retries after losses or 100 after throttling."""
    budget = RetryBudget()
    assert sum(budget.take(DOWN) for _ in range(1000)) == 35
    budget = RetryBudget()
    assert sum(budget.take(THROTTLED) for _ in range(1000)) == 100


def test_successes_fill_the_budget_again() -> None:
    """A success gives a token, one after a retry the whole retry, and never above the capacity."""
    budget = RetryBudget()
    while budget.take(DOWN):
        pass
    left = budget.tokens
    budget.give(1)
    assert budget.tokens == left + 1
    budget.give(2)
    assert budget.tokens == left + 15
    assert budget.take(DOWN)
    for _ in range(1000):
        budget.give(1)
    assert budget.tokens == RetryBudget.CAPACITY
