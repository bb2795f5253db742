"""The emulator's callbacks: when each is due, and what it says.

They come from one event loop: that of whoever made or serves the emulator, and not that of its
server, which has a thread of its own. Between two callbacks there is a timer and no task, so
nothing is left when that loop ends.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from ci_live_audit._loop import current_loop
from ci_live_audit.models import ENDED, JobState
from ci_live_audit.testing.bodies import callback_probe, encode
from ci_live_audit.testing.faults import Fault, Faults
from ci_live_audit.testing.posting import Delivery, Post
from ci_live_audit.testing.streams import Item, LiveJob, Summary

__all__ = ["Notifier"]

#: Seconds at least between two looks at the clock, which may not be the event loop's.
SHORTEST = 0.001
NO_FAULT = Fault(meets="callback")


@attrs.define
class _Course:
    """What was found in a job until now, and what is still to be found and when.

    ``ahead`` is seconds by which the clock here is ahead of the one by which the job began: the
    loop that serves has another.
    """

    job: LiveJob
    segments: deque[tuple[float, tuple[Item, ...]]]
    found: list[Item] = attrs.Factory(list[Item])
    summary: Summary = attrs.Factory(Summary)
    ahead: float = 0.0
    timer: asyncio.TimerHandle | None = None
    overtaken: list[Delivery] = attrs.Factory(list[Delivery])
    ended: bool = False


class Notifier:
    """Makes the callbacks of the jobs that ask for them.

    Args:
        post: Sends them.
        clock: Seconds, for streams.
        now: Unix seconds.
        bucket: The bucket of the jobs.
        region: Its region.
        faults: Picked from for each callback about a job.
    """

    def __init__(
        self,
        post: Post,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        bucket: str,
        region: str,
        faults: Faults[Fault],
    ) -> None:
        self._post = post
        self._clock = clock
        self._now = now
        self._place: dict[str, Any] = {"bucket_id": bucket, "region": region, "forbid_state": 0}
        self._storage = f"{bucket}.cos.{region}.myqcloud.com"
        self._faults = faults
        self._loop = current_loop()
        self._early: list[LiveJob] = []
        self._tested: set[str] = set()
        self._courses: dict[str, _Course] = {}
        self._stopped = False

    def settle(self) -> None:
        """Stay with the running event loop from now on, if there is one."""
        self._loop = current_loop() or self._loop

    def wake(self) -> None:
        """Take up the jobs that began before there was an event loop."""
        early, self._early = self._early, []
        for job in early:
            self.changed(job)

    def changed(self, job: LiveJob) -> None:
        """Take up a job that began or was cancelled; from any thread."""
        if job.callback is None:
            return
        if self._loop is None or not self._loop.is_running():
            self.settle()
        running = current_loop()
        if self._loop is None or not self._loop.is_running():
            self._early.append(job)
        elif self._loop is running:
            self._take_up(job)
        else:
            clock = None if running is None else self._clock()
            self._loop.call_soon_threadsafe(self._take_up, job, clock)

    def stop(self) -> None:
        """Send nothing more; from any thread."""
        self._stopped = True
        self._post.stop()

    def _take_up(self, job: LiveJob, clock: float | None = None) -> None:
        course = self._courses.get(job.job_id)
        if course is None or course.job is not job:
            if not self._may_send(job):
                return
            course = self._courses[job.job_id] = _Course(job, deque(job.segments()))
        if clock is not None:
            course.ahead = self._clock() - clock
        self._advance(course)

    def _may_send(self, job: LiveJob) -> bool:
        """Return whether there is a way to the job's URL, and test a new one."""
        test = self._delivery(job, callback_probe(job.callback_version), job_id=None)
        if not self._post.reaches(test):
            return False
        if test.url not in self._tested:
            self._tested.add(test.url)
            self._post.send([test])
        return True

    def _advance(self, course: _Course) -> None:
        """Send what is due, and set a timer for what comes next."""
        if self._stopped or course.ended:
            return
        if course.timer is not None:
            course.timer.cancel()
        job, segments, clock = course.job, course.segments, self._clock() - course.ahead
        elapsed = job.elapsed(clock)
        while segments and segments[0][0] <= elapsed:
            _, items = segments.popleft()
            course.found += items
            self._report(course, JobState.AUDITING, self._signed(job, items, course.summary))
        if (state := job.state(clock)) in ENDED:
            # As in a query: all that was found.
            self._report(course, state, self._signed(job, course.found, Summary()))
            self._post.send(course.overtaken[::-1])
            course.ended = True
        elif (due := segments[0][0] if segments else job.stream.duration) < math.inf:
            wait = max(due - elapsed, SHORTEST)
            course.timer = asyncio.get_running_loop().call_later(wait, self._advance, course)

    def _signed(self, job: LiveJob, items: Iterable[Item], summary: Summary) -> list[Item]:
        now = self._now()
        return [job.signed(item, summary.add(item), now, self._storage) for item in items]

    def _report(self, course: _Course, state: JobState, items: list[Item]) -> None:
        """Send a callback, with the fault that it meets."""
        job = course.job
        if job.callback_type == 2:
            items = [item for item in items if item.result]
            if not items:
                return
        result = attrs.evolve(job.result(state, items, course.summary), **self._place)
        result = attrs.evolve(result, snapshot_count=len(result.snapshots))
        delivery = self._delivery(job, encode(result, job.callback_version), job_id=job.job_id)
        meets = ("callback",) if state in ENDED else ("callback", "interim callback")
        fault = self._faults.pick(*meets) or NO_FAULT
        if fault.overtaken:
            course.overtaken.append(delivery)
            return
        if not fault.copies:
            self._post.lose(delivery, "not sent: lost")
        # Each that was overtaken comes after the one that followed it.
        deliveries = [attrs.evolve(delivery) for _ in range(fault.copies)] + course.overtaken[::-1]
        course.overtaken = []
        self._post.send(deliveries, delay=fault.delay)

    def _delivery(self, job: LiveJob, body: bytes, *, job_id: str | None) -> Delivery:
        return Delivery(
            time=self._clock(),
            url=job.callback or "",
            form=job.callback_version,
            job_id=job_id,
            body=body,
        )
