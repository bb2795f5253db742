"""Helpers for tests of runs over many jobs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Literal

from ci_live_audit import AuditJob, Finding, Outcome, Outcomes
from ci_live_audit.following.digests import Digests
from ci_live_audit.following.findings import findings_of
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.seen import News, Seen
from ci_live_audit.wire.callbacks import Callback

#: Seconds. The limiter's slots are even once it has seen that the loop is on time.
SLOT = 1 / 20 + 0.0005


def now() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


def tasks() -> list[asyncio.Task[Any]]:
    """Return all tasks except those in which the test itself runs."""
    of_anyio = "_call_in_runner_task", "_run_tests_and_fixtures"
    named = ((task, getattr(task.get_coro(), "__name__", "")) for task in asyncio.all_tasks())
    return [task for task, name in named if name not in of_anyio]


async def outcomes_of(run: Outcomes) -> list[Outcome]:
    """Return all outcomes of a run."""
    async with run:
        return [outcome async for outcome in run]


class Watched:
    """What has been seen of a job that is watched."""

    def __init__(self) -> None:
        self._seen = Seen()

    def update(self, job: AuditJob) -> list[Finding]:
        """Return the findings of a response."""
        news = News(self._seen)
        news.compare(job)
        self._seen = news.seen
        findings = list(findings_of(Update(job.job_id, job), news))
        assert len(findings) == len(news)
        return findings


def size(digests: Digests) -> int:
    """Return the bytes that a set of digests takes."""
    parts: list[Any] = [getattr(digests, name) for name in ("_sorted", "_recent")]
    return sum(map(sys.getsizeof, (*parts, *parts[1])))


class Callbacks:
    """A source of callbacks that a test sends itself."""

    def __init__(self, *, is_trusted: bool = False) -> None:
        self.is_trusted = is_trusted
        self.listeners: list[Callable[[Callback], object]] = []

    def subscribe(self, listener: Callable[[Callback], object]) -> Callable[[], object]:
        """Call a listener until the returned function is called."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def send(self, job_id: str | None, job: AuditJob | None = None) -> None:
        """Send a callback about a job: a Detail one if it is given, or a Simple one."""
        form: Literal["Simple", "Detail"] = "Simple" if job is None else "Detail"
        state = None if job is None else job.state
        for listener in list(self.listeners):
            listener(Callback(form=form, key="", job_id=job_id, state=state, job=job))
