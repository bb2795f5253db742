"""Calculates how often a quota allows jobs to be polled. Pure."""

from __future__ import annotations

import attrs

from ci_live_audit._checks import MANY, above_zero, seconds
from ci_live_audit.errors import InvalidInput

__all__ = ["Plan", "plan"]


@attrs.frozen(kw_only=True)
class Plan:
    """How often a quota allows the jobs of a run to be polled.

    Attributes:
        jobs: Number of jobs.
        rate: Requests a second.
        interval: Seconds between two polls of a job, as requested.
        period: Seconds between two polls of a job, as the quota allows.
        duration: Minimum seconds of the run: one poll of each job.
    """

    jobs: int
    rate: float
    interval: float
    period: float
    duration: float

    @property
    def detection_delay(self) -> float:
        """The average seconds from an event to the poll that reveals it."""
        return self.period / 2

    def __str__(self) -> str:
        jobs = "job" if self.jobs == 1 else "jobs"
        requests = "request" if self.rate == 1 else "requests"
        return (
            f"{self.jobs:,} {jobs} at {self.rate:g} {requests} a second: each is polled every "
            f"{_short(self.period)} s, and the run takes at least {_short(self.duration)} s"
        )


def plan(jobs: int, interval: float = 10.0, *, rate: float = 20.0) -> Plan:
    """Calculate how often a quota allows jobs to be polled; the arguments are those of a `Plan`.

    Raises:
        InvalidInput: A number is not above 0, or ``jobs`` is below 0.
    """
    if not isinstance(jobs, int) or not 0 <= jobs < MANY:
        raise InvalidInput(f"jobs: expected a number of jobs, 0 or more; got {jobs!r}")
    above_zero("rate", rate, "requests a second", error=InvalidInput)
    seconds("interval", interval)
    sweep = jobs / rate
    return Plan(
        jobs=jobs, rate=rate, interval=interval, period=max(interval, sweep), duration=sweep
    )


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"
