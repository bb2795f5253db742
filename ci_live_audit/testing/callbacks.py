"""The emulator's callbacks: when each is due, what it says, and how it is sent.

They are sent from one event loop: that of whoever made or serves the emulator, and not of its
server, which has a thread of its own.
Between two callbacks there is a timer and no task, so nothing is left when that loop ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread
import attrs
import httpx

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.models import ENDED, JobState
from ci_live_audit.testing.bodies import Form, callback_headers, callback_probe, encode
from ci_live_audit.testing.faults import Fault, Faults
from ci_live_audit.testing.streams import Item, LiveJob, Summary
from ci_live_audit.wire.endpoint import is_this_machine

__all__ = ["App", "Delivery", "Notifier"]

logger: logging.Logger = logging.getLogger("ci_live_audit.testing.callbacks")

App: TypeAlias = Callable[..., Awaitable[Any]]

#: Seconds that a receiver has for its response, and how many callbacks are sent at once.
TIMEOUT, AT_ONCE = 10.0, 50
#: Seconds for which a callback is sent again: a day, as documented for the moderation of texts.
REPEATED = 86400.0
#: Beyond so many, deliveries are forgotten; and so many are kept then.
MOST_DELIVERIES, DELIVERIES = 10_000, 8_000
#: Seconds by which a timer may be early, for clocks are not exact.
EARLY = 1e-6
#: Seconds at least between two looks at a clock that is not the event loop's.
SHORTEST = 0.001
NO_FAULT = Fault(meets="callback")
ELSEWHERE = "not sent: callbacks=True is for URLs of this machine, such as http://127.0.0.1:8000"


@attrs.define(kw_only=True)
class Delivery:
    """A callback that was sent.

    Attributes:
        time: When, in seconds by the emulator's clock.
        url: Where to.
        form: ``"Simple"`` or ``"Detail"``.
        job_id: The job; None for the test of a URL.
        body: What was sent; `callbacks.decode` reads it.
        attempt: 1; more for one sent again, since there was another response than 200 or none.
        status: That of the response, 0 for none.
        error: Why there is no response.
    """

    time: float
    url: str
    form: Form
    job_id: str | None
    body: bytes
    attempt: int = 1
    status: int = 0
    error: str | None = None


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


class Notifier:
    """Sends the callbacks of the jobs that ask for them.

    Args:
        to: An ASGI app that gets all, whatever host their URLs have; or True to send them to URLs
            of this machine.
        pause: Seconds after which a callback is sent again; infinity for never.
        clock: Seconds, for streams.
        now: Unix seconds.
        bucket: The bucket of the jobs.
        region: Its region.
        faults: Picked from for each callback about a job.
        deliveries: What is sent is added here.

    Raises:
        ConfigurationError: ``to`` is neither an app nor True.
    """

    def __init__(
        self,
        *,
        to: App | bool,
        pause: float,
        clock: Callable[[], float],
        now: Callable[[], float],
        bucket: str,
        region: str,
        faults: Faults[Fault],
        deliveries: list[Delivery],
    ) -> None:
        if not callable(to) and to is not True:
            raise ConfigurationError(
                f"callbacks: expected an ASGI app, True or None; got {type(to).__name__}"
            )
        self._app = httpx.ASGITransport(to) if callable(to) else None
        self._pause = pause
        self._clock = clock
        self._now = now
        self._place: dict[str, Any] = {"bucket_id": bucket, "region": region, "forbid_state": 0}
        self._storage = f"{bucket}.cos.{region}.myqcloud.com"
        self._faults = faults
        self._deliveries = deliveries
        self._tls: ssl.SSLContext | None = None
        self._loop = _running()
        self._early: list[LiveJob] = []
        self._tested: set[str] = set()
        self._courses: dict[str, _Course] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def settle(self) -> None:
        """Send from the running event loop from now on, if there is one."""
        running = _running()
        if running is not None and running is not self._loop:
            self._loop, self._room = running, asyncio.Semaphore(AT_ONCE)

    def wake(self) -> None:
        """Take up the jobs that began before there was an event loop."""
        early, self._early = self._early, []
        for job in early:
            self.changed(job)

    def changed(self, job: LiveJob) -> None:
        """Take up a job that began or was cancelled; from any thread."""
        if job.callback is None:
            return
        if self._loop is None or self._loop.is_closed():
            self.settle()
        running = _running()
        if self._loop is None or self._loop.is_closed():
            self._early.append(job)
        elif self._loop is running:
            self._take_up(job)
        else:
            clock = None if running is None else self._clock()
            self._loop.call_soon_threadsafe(self._take_up, job, clock)

    def stop(self) -> None:
        """Send nothing more; from any thread."""
        self._stopped = True
        if self._loop is not None and not self._loop.is_closed():
            for task in list(self._tasks):
                self._loop.call_soon_threadsafe(task.cancel)

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
        if self._app is None and not is_this_machine(urlsplit(test.url).hostname or ""):
            self._note(attrs.evolve(test, error=ELSEWHERE))
            return False
        if test.url not in self._tested:
            self._tested.add(test.url)
            self._start([test])
        return True

    def _advance(self, course: _Course) -> None:
        """Send what is due, and set a timer for what comes next."""
        if self._stopped:
            return
        if course.timer is not None:
            course.timer.cancel()
        job, segments, clock = course.job, course.segments, self._clock() - course.ahead
        elapsed = job.elapsed(clock)
        while segments and segments[0][0] <= elapsed + EARLY:
            _, items = segments.popleft()
            course.found += items
            self._report(course, JobState.AUDITING, self._signed(job, items, course.summary))
        state = job.state(clock + EARLY)
        if state in ENDED:
            # As in a query: all that was found.
            self._report(course, state, self._signed(job, course.found, Summary()))
            self._start(course.overtaken[::-1])
            if self._courses.get(job.job_id) is course:
                del self._courses[job.job_id]
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
            self._note(attrs.evolve(delivery, error="not sent: lost"))
        # Each that was overtaken comes after the one that followed it.
        deliveries = [attrs.evolve(delivery) for _ in range(fault.copies)] + course.overtaken[::-1]
        course.overtaken = []
        if fault.delay:
            asyncio.get_running_loop().call_later(fault.delay, self._start, deliveries)
        else:
            self._start(deliveries)

    def _delivery(self, job: LiveJob, body: bytes, *, job_id: str | None) -> Delivery:
        return Delivery(
            time=self._clock(),
            url=job.callback or "",
            form=job.callback_version,
            job_id=job_id,
            body=body,
        )

    def _note(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        if len(self._deliveries) > MOST_DELIVERIES:
            del self._deliveries[:-DELIVERIES]

    def _start(self, deliveries: list[Delivery]) -> None:
        """Send callbacks, one after the other."""
        if deliveries and not self._stopped:
            task = asyncio.get_running_loop().create_task(self._send(deliveries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            async with self._room:
                await self._post(delivery)

    async def _post(self, delivery: Delivery) -> None:
        delivery.time = self._clock()
        self._note(delivery)
        try:
            async with asyncio.timeout(TIMEOUT):
                delivery.status = await self._status(delivery)
        except TimeoutError:
            delivery.error = f"no response within {TIMEOUT:g} s"
        except Exception as problem:
            delivery.error = f"{type(problem).__name__}: {problem}"
            logger.warning("a callback came to nothing: %s", delivery.error, exc_info=problem)
        again = delivery.attempt * self._pause <= REPEATED and delivery.job_id is not None
        if delivery.status != 200 and again:
            more = attrs.evolve(delivery, attempt=delivery.attempt + 1, status=0, error=None)
            asyncio.get_running_loop().call_later(self._pause, self._start, [more])

    async def _status(self, delivery: Delivery) -> int:
        headers = callback_headers(delivery.form)
        request = httpx.Request("POST", delivery.url, headers=headers, content=delivery.body)
        # One connection for each: cancelling a request can harm a pool, and none is left open.
        async with self._app or await self._network(request.url) as transport:
            response = await transport.handle_async_request(request)
            await response.aclose()
        return response.status_code

    async def _network(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        if url.scheme == "https" and self._tls is None:
            self._tls = await anyio.to_thread.run_sync(httpx.create_ssl_context)
        # Without TLS there is no certificate to look at, and none has to be loaded.
        return httpx.AsyncHTTPTransport(verify=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
