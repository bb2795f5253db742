"""Runs over many jobs, with a dictionary in place of the service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import random
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import attrs
import pytest
from clocks import stand_still
from runs import SLOT, now, outcomes_of, tasks

from ci_live_audit import (
    AccessDenied,
    AuditJob,
    Checkpoint,
    ConfigurationError,
    CredentialsError,
    DecodeError,
    Findings,
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    JobState,
    LiveAuditError,
    LocalRateLimiter,
    Outcome,
    Outcomes,
    RequestTimeout,
    ServiceUnavailable,
    Snapshot,
    Throttled,
    TransportError,
    Verdict,
    WaitTimeout,
)
from ci_live_audit.following.ids import Source
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.seen import News
from ci_live_audit.limits.background import BackgroundRateLimiter


class Service:
    """Jobs that end at given times, errors to raise before that, and a record of all polls."""

    def __init__(
        self, ends: Mapping[str, float] | None = None, *, rate: float = 20.0, latency: float = 0.0
    ) -> None:
        self.ends = ends or {}
        self.latency = latency
        self.errors: dict[str, list[Exception]] = {}
        self.urgent = LocalRateLimiter(rate)
        self.limiter = BackgroundRateLimiter(self.urgent)
        self.polled: list[tuple[str, float]] = []
        self.in_flight: dict[asyncio.Task[Any] | None, str] = {}

    async def query(self, job_id: str, reading: Reading) -> AuditJob:
        await self.limiter.acquire()
        self.polled.append((job_id, now()))
        self.in_flight[asyncio.current_task()] = job_id
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
        finally:
            del self.in_flight[asyncio.current_task()]
        if self.errors.get(job_id):
            raise self.errors[job_id].pop(0)
        found = job(job_id, ended=now() >= self.ends.get(job_id, math.inf))
        if isinstance(reading, News):
            reading.compare(found)
        return found

    def follow(
        self,
        job_ids: Source,
        interval: float = 10.0,
        timeout: float | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Outcomes:
        rate = self.urgent.rate
        polling = Polling(self.query, interval, timeout, self.limiter, rate, checkpoint)
        return Outcomes(polling, job_ids)

    def times(self, job_id: str) -> list[float]:
        return [time for polled, time in self.polled if polled == job_id]


def job(job_id: str, *, ended: bool) -> AuditJob:
    return AuditJob(job_id=job_id, state=JobState.SUCCESS if ended else JobState.AUDITING)


def names(number: int) -> list[str]:
    return [f"av{n}" for n in range(number)]


async def consume(run: Outcomes, got: Counter[str]) -> None:
    """Count the outcomes one by one."""
    async for outcome in run:
        got[outcome.job_id] += 1


def is_closed(generator: Any) -> bool:
    return generator.ag_frame is None


async def arriving(*job_ids: str, pause: float = 0.0) -> AsyncGenerator[str, None]:
    for job_id in job_ids:
        yield job_id
        await asyncio.sleep(pause)


async def without_end(pause: float) -> AsyncGenerator[str, None]:
    for number in itertools.count():
        yield f"new{number}"
        await asyncio.sleep(pause)


def count_callbacks() -> list[None]:
    """Return a list that grows by one with every callback that the running loop is given."""
    loop: Any = asyncio.get_running_loop()
    callbacks: list[None] = []
    call_soon = loop.call_soon

    def counted(*args: Any, **options: Any) -> asyncio.Handle:
        callbacks.append(None)
        handle: asyncio.Handle = call_soon(*args, **options)
        return handle

    loop.call_soon = counted
    return callbacks


# The quota


async def test_a_small_quota_is_used_to_the_full() -> None:
    """With 100,000 jobs, 2,000 slots in a row carry a request, and no second more than 20."""
    service = Service()
    async with service.follow(names(100_000)):
        while len(service.polled) < 2000:
            await asyncio.sleep(1)
    times = [time for _, time in service.polled]
    assert (len(times) - 1) / (times[-1] - times[0]) >= 0.999 * 20
    assert all(later - time >= 1 for time, later in zip(times, times[20:], strict=False))


async def test_slow_responses_do_not_cost_the_quota() -> None:
    """With responses after eight seconds and jobs polled again and again, no slot is lost."""
    service = Service(latency=8.0)
    async with service.follow(names(300)):
        await asyncio.sleep(100)
    assert len(service.polled) >= 0.99 * 20 * 100


async def test_an_urgent_call_waits_for_two_slots_at_most() -> None:
    """At 200 random instants beside 100,000 jobs, an urgent call has at most one poll before it."""
    rng = random.Random(1)
    service = Service(latency=0.5)
    waits: list[float] = []
    async with service.follow(names(100_000)):
        await asyncio.sleep(10)
        for _ in range(200):
            await asyncio.sleep(rng.expovariate(2))
            before = len(service.polled)
            waits.append(await service.urgent.acquire())
            assert len(service.polled) <= before + 1
    assert max(waits) <= 2 * SLOT


async def test_two_runs_share_the_quota_and_let_urgent_calls_pass() -> None:
    """Runs on one limiter alternate, and together they delay an urgent call by one poll."""
    rng = random.Random(2)
    service = Service()
    others = service.limiter.sibling()
    polled: list[str] = []

    async def query(job_id: str, _: object = None) -> AuditJob:
        await others.acquire()
        polled.append(job_id)
        return job(job_id, ended=False)

    other = Outcomes(Polling(query, 10, None, others, 20), names(500))
    waits: list[float] = []
    async with service.follow(names(500)), other:
        await asyncio.sleep(10)
        for _ in range(100):
            await asyncio.sleep(rng.random())
            waits.append(await service.urgent.acquire())
        elapsed = now()
    assert max(waits) <= 2 * SLOT
    assert len(polled) == pytest.approx(len(service.polled), abs=3)
    assert len(polled) + len(service.polled) + 100 >= 0.99 * 20 * elapsed
    assert (service.limiter.requests, others.requests) == (len(service.polled), len(polled))


async def test_there_is_one_task_per_request_in_flight() -> None:
    """10,000 jobs take one task for each request in flight, and at most three more."""
    service = Service(latency=1.5)
    most: list[int] = []
    async with service.follow(names(10_000)):
        for _ in range(600):
            await asyncio.sleep(0.05)
            assert len(tasks()) <= len(service.in_flight) + 3
            most.append(len(service.in_flight))
    assert 25 <= max(most) <= 31


async def test_requests_that_hang_are_bounded() -> None:
    """Without any response, the requests of ten seconds are in flight and no more."""
    service = Service(latency=math.inf)
    async with service.follow(names(10_000)):
        await asyncio.sleep(1000)
        assert len(service.polled) == 200


# The order of polls


async def test_detection_delay_is_half_a_sweep() -> None:
    """Where the quota binds, an end is seen after half a sweep on average, one sweep at most."""
    rng = random.Random(3)
    jobs, rate, interval = 8000, 80.0, 10.0
    sweep = jobs / rate
    ids = names(jobs)
    ends = {job_id: sweep * rng.uniform(1.1, 2.1) for job_id in rng.sample(ids, jobs // 20)}
    service = Service(ends, rate=rate)
    delays: list[float] = []
    async with service.follow(ids, interval) as outcomes:
        while len(delays) < len(ends):
            outcome = await anext(outcomes)
            delays.append(now() - ends[outcome.job_id])
    assert sum(delays) / len(delays) == pytest.approx(sweep / 2, rel=0.05)
    assert min(delays) >= 0
    assert max(delays) <= 1.05 * sweep + interval


async def test_jobs_are_polled_at_the_interval_if_the_quota_allows() -> None:
    """Polls of a job are seven seconds apart, however long a response takes."""
    service = Service(latency=3)
    async with service.follow(["a", "b"], 7):
        await asyncio.sleep(100)
    assert service.times("a") == pytest.approx([7 * n for n in range(15)], abs=0.2)
    assert len(service.times("b")) == 15


async def test_responses_slower_than_the_interval_are_awaited() -> None:
    """A job is polled again once its response has come, never twice at a time."""
    service = Service({"a": 31, "b": 31}, latency=5)
    results = await outcomes_of(service.follow(["a", "b"], 1))
    assert {outcome.job_id for outcome in results} == {"a", "b"}
    assert service.times("a") == pytest.approx([0, 5, 10, 15, 20, 25, 30], abs=0.3)


@pytest.mark.parametrize("steps", range(8))
async def test_a_job_may_be_polled_again_in_the_step_of_its_response(steps: int) -> None:
    """Whatever happens in the step of a late response, no job is polled twice at a time."""
    ids: asyncio.Queue[str | None] = asyncio.Queue()
    late = asyncio.Event()
    polled: list[str] = []
    in_flight: list[str] = []

    async def source() -> AsyncGenerator[str, None]:
        while (job_id := await ids.get()) is not None:
            yield job_id

    async def query(job_id: str, _: object = None) -> AuditJob:
        assert job_id not in in_flight
        polled.append(job_id)
        in_flight.append(job_id)
        await late.wait()
        in_flight.remove(job_id)
        return job(job_id, ended=polled.count(job_id) == 3)

    ids.put_nowait("a")
    async with Outcomes(Polling(query, 1), source()) as outcomes:
        await asyncio.sleep(5)
        ids.put_nowait("b")
        for _ in range(steps):
            await asyncio.sleep(0)
        late.set()
        await asyncio.sleep(0)
        ids.put_nowait("c")
        ids.put_nowait(None)
        results = [outcome.unwrap().job_id async for outcome in outcomes]
    assert sorted(results) == ["a", "b", "c"]
    assert sorted(polled) == sorted("abc" * 3)


async def test_jobs_take_turns() -> None:
    """Beyond the quota, each job is polled once before any is polled again, in the same order."""
    service = Service()
    ids = names(300)
    async with service.follow(ids, 1):
        await asyncio.sleep(100)
    polled = [job_id for job_id, _ in service.polled]
    assert polled == (ids * 7)[: len(polled)]
    assert len(polled) > 1900


async def test_the_most_overdue_job_is_polled_first() -> None:
    """Whatever ends, fails or joins meanwhile, the job polled longest ago is polled next."""
    rng = random.Random(4)
    ids = names(200)
    ends = {job_id: rng.uniform(0, 200) for job_id in ids[:100]}
    service = Service(ends)
    async with service.follow(arriving(*ids, pause=0.2), 5):
        await asyncio.sleep(200)
    last: dict[str, float] = {}
    for job_id, time in service.polled:
        if job_id in last:
            # Jobs due less than a slot apart may change places.
            assert last[job_id] <= min(last.values()) + 0.06
            assert time >= last[job_id] + 5 - 0.06
        last[job_id] = time
        if time >= ends.get(job_id, math.inf):
            del last[job_id]


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_an_endless_source_does_not_starve_jobs(kind: str) -> None:
    """The first jobs are polled again while new ones keep coming."""
    first = names(10)
    service = Service(dict.fromkeys(first, 30.0))
    endless: dict[str, Source] = {
        "generator": itertools.chain(first, (f"new{n}" for n in itertools.count())),
        "async generator": _chain(first, without_end(0)),
    }
    async with service.follow(endless[kind]) as outcomes:
        answered = [(await anext(outcomes)).job_id for _ in first]
        assert now() < 120
    assert sorted(answered) == first
    times = [time for _, time in service.polled]
    assert len(times) >= 0.98 * 20 * times[-1]


async def _chain(first: list[str], rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    for job_id in first:
        yield job_id
    async for job_id in rest:
        yield job_id


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_source_is_read_no_faster_than_jobs_are_polled(kind: str) -> None:
    """Of a million generated ids, at most three more are read than were polled."""
    read: list[int] = []

    def ids() -> Iterator[str]:
        for number in range(1_000_000):
            read.append(number)
            yield f"av{number}"

    async def ids_too() -> AsyncGenerator[str, None]:
        for job_id in ids():
            yield job_id

    service = Service()
    async with service.follow(ids() if kind == "generator" else ids_too(), 1000):
        await asyncio.sleep(60)
    assert len(service.polled) <= len(read) <= len(service.polled) + 3


async def test_ids_that_arrive_over_time_are_polled_at_once() -> None:
    """An id from a slow source is polled in the instant in which it arrives."""
    came: dict[str, float] = {}

    async def slowly() -> AsyncGenerator[str, None]:
        rng = random.Random(6)
        for job_id in names(30):
            came[job_id] = now()
            yield job_id
            await asyncio.sleep(rng.uniform(1, 100))

    service = Service(dict.fromkeys(names(30), 0.0))
    results = await outcomes_of(service.follow(slowly()))
    assert [outcome.job_id for outcome in results] == names(30)
    assert dict(service.polled) == pytest.approx(came, abs=0.06)


async def test_known_ids_are_skipped_after_the_deadline_too() -> None:
    """An id behind 5,000 duplicates that is only reached after the deadline has its outcome."""
    service = Service()
    service.limiter.hold(100)
    results = await outcomes_of(service.follow(["a"] * 5000 + ["b"], 10, 20))
    assert [outcome.job_id for outcome in results] == ["a", "b"]
    assert all(isinstance(outcome.error, WaitTimeout) for outcome in results)
    assert now() == pytest.approx(20, abs=1e-3)
    assert service.polled == []


async def test_known_ids_are_skipped_in_portions() -> None:
    """Of 10,000 duplicates one is polled, and another id between them as well."""
    service = Service({"a": 0.0, "b": 0.0})
    run = service.follow((["a"] * 5000 + ["b"]) * 2)
    assert [outcome.job_id for outcome in await outcomes_of(run)] == ["a", "b"]
    assert run.progress.open == 0


async def test_a_slow_source_of_known_ids_lets_the_loop_run() -> None:
    """An iterator that takes half a second for each id holds up other tasks for a few of them."""
    steps: list[float] = []

    def slow() -> Iterator[str]:
        for _ in range(20):
            stand_still(0.5)
            yield "a"
        yield "b"

    async def beat() -> None:
        while True:
            steps.append(now())
            await asyncio.sleep(0.1)

    beating = asyncio.create_task(beat())
    results = await outcomes_of(Service({"a": 0.0, "b": 0.0}).follow(slow()))
    beating.cancel()
    assert [outcome.job_id for outcome in results] == ["a", "b"]
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) < 2


# Sources


def broken(kind: str, job_ids: list[str], problem: BaseException) -> Source:
    """Return a source of these ids that then raises an exception."""

    def generate() -> Iterator[str]:
        yield from job_ids
        raise problem

    async def arrive() -> AsyncGenerator[str, None]:
        for job_id in generate():
            yield job_id

    return generate() if kind == "generator" else arrive()


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_an_exception_of_a_source_is_raised_bare(kind: str) -> None:
    """It is raised after the outcomes that are ready, unwrapped, at each further step."""
    service = Service({"a": 0.0, "b": 0.0})
    got: Counter[str] = Counter()
    source = broken(kind, ["a", "b", "running"], ZeroDivisionError("the source"))
    async with service.follow(source) as outcomes:
        await asyncio.sleep(60)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="the source") as caught:
                await consume(outcomes, got)
            assert caught.value.__cause__ is None
    assert got == Counter(["a", "b"])


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_source_that_raises_cancelled_error_cancels_nobody(kind: str) -> None:
    """The consumer gets an error of its own after the outcomes that are ready, and no hang."""
    service = Service({"a": 0.0, "b": 0.0})
    got: Counter[str] = Counter()
    async with service.follow(broken(kind, ["a", "b"], asyncio.CancelledError())) as outcomes:
        with pytest.raises(ConfigurationError, match="the source was cancelled") as caught:
            await consume(outcomes, got)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert got == Counter(["a", "b"])
    assert tasks() == []


async def test_a_generator_that_breaks_at_once_is_no_empty_run() -> None:
    """An exception before the first id is raised as well."""

    def broken() -> Iterator[str]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        await outcomes_of(Service().follow(broken()))


@pytest.mark.parametrize(
    "source", [[], (), iter([]), arriving()], ids=["list", "tuple", "iterator", "async"]
)
async def test_an_empty_source_is_an_empty_run(source: Source) -> None:
    """A run without ids ends at once, without an error."""
    assert await outcomes_of(Service().follow(source)) == []


async def test_an_async_iterable_that_is_not_a_generator() -> None:
    """Any async iterable will do, for example one around a queue."""

    class Ids:
        def __init__(self) -> None:
            self.left = names(5)

        def __aiter__(self) -> Ids:
            return self

        async def __anext__(self) -> str:
            await asyncio.sleep(1)
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    service = Service(dict.fromkeys(names(5), 0.0))
    results = await outcomes_of(service.follow(Ids()))
    assert [outcome.job_id for outcome in results] == names(5)


async def test_a_list_may_change_afterwards() -> None:
    """A collection is copied at the start."""
    service = Service(dict.fromkeys(names(100), 0.0))
    ids = names(100)
    run = service.follow(ids)
    ids.clear()
    assert len(await outcomes_of(run)) == 100


@pytest.mark.parametrize("source", ["av1", b"av1", None, 7, object()])
def test_anything_but_a_source_is_refused(source: Any) -> None:
    """A single text in place of a list is refused at once, as is anything else."""
    with pytest.raises(ConfigurationError, match="job_ids"):
        Service().follow(source)


@pytest.mark.parametrize("leaving", ["at once", "reading", "full", "over"])
async def test_leaving_closes_async_generators(leaving: str) -> None:
    """However far reading has come, the generator has cleaned up when the block is left."""
    closed: list[str] = []

    async def source() -> AsyncGenerator[str, None]:
        try:
            for job_id in names(3):
                yield job_id
                await asyncio.sleep(10 if leaving == "reading" else 0)
        finally:
            await asyncio.sleep(1)
            closed.append(leaving)

    ids = source()
    service = Service(latency=math.inf if leaving == "full" else 0)
    async with service.follow(ids, 1):
        if leaving != "at once":
            await asyncio.sleep(5)
    assert is_closed(ids)
    assert closed == [leaving]
    assert tasks() == []


async def test_the_generator_of_an_iterable_class_is_closed() -> None:
    """A source whose ``__aiter__`` is a generator function is cleaned up as well."""
    closed: list[float] = []

    class Ids:
        async def __aiter__(self) -> AsyncIterator[str]:
            try:
                for job_id in names(1000):
                    yield job_id
            finally:
                await asyncio.sleep(0.5)
                closed.append(now())

    async with Service(latency=math.inf).follow(Ids()):
        await asyncio.sleep(30)
    assert closed == pytest.approx([30.5], abs=0.01)
    assert tasks() == []


# Failed queries

TRANSIENT: list[Callable[[], LiveAuditError]] = [
    lambda: TransportError("reset"),
    lambda: RequestTimeout("no answer"),
    lambda: Throttled(status=429),
    lambda: ServiceUnavailable(status=503),
    lambda: DecodeError("cut off"),
    # A refusal without a document is not the service's.
    lambda: JobNotFound(status=404),
]
FINAL: list[LiveAuditError] = [
    JobNotFound(status=404, code="AuditingJobNotFound"),
    InvalidArgument(status=400, code="InvalidArgument"),
    AccessDenied(status=403, code="AccessDenied"),
    DecodeError("no number", path="JobsDetail.Result"),
    InvalidInput("not an id"),
    CredentialsError("none"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error()).__name__)
async def test_a_transient_error_is_retried(error: Callable[[], LiveAuditError]) -> None:
    """The backoff doubles with each failure in a row while others succeed."""
    service = Service({"a": 0.0, "b": 200.0})
    service.errors["a"] = [error() for _ in range(4)]
    outcome, _ = await outcomes_of(service.follow(["a", "b"]))
    assert outcome.unwrap().job_id == "a"
    assert service.times("a") == pytest.approx([0, 10, 30, 70, 130], abs=0.1)


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error()).__name__)
async def test_a_transient_error_that_stays_is_given_up(
    error: Callable[[], LiveAuditError],
) -> None:
    """After 16 failures in a row, while others succeed, the last error is the outcome."""
    service = Service({"b": 1000.0})
    service.errors["a"] = [error() for _ in range(20)]
    outcome, _ = await outcomes_of(service.follow(["a", "b"]))
    assert (outcome.job_id, outcome.job, len(service.times("a"))) == ("a", None, 16)
    assert type(outcome.error) is type(error())
    assert service.times("a")[-1] > 600


async def test_the_error_of_the_last_failure_is_the_outcome() -> None:
    """Of different failures in a row the last one is the outcome."""
    service = Service({"b": 1000.0})
    errors: list[Exception] = [error() for _ in range(3) for error in TRANSIENT]
    service.errors["a"] = list(errors)
    outcome, _ = await outcomes_of(service.follow(["a", "b"]))
    assert outcome.error is errors[15]


async def test_failures_count_in_a_row() -> None:
    """A response in between resets the count and the backoff."""
    service = Service({"b": 2000.0})
    results = {10, 21, 40}

    async def query(job_id: str, _: object = None) -> AuditJob:
        found = await service.query(job_id, Reading())
        polled = len(service.times("a"))
        if job_id == "a" and polled not in results:
            raise TransportError("reset")
        return found if job_id == "b" else job(job_id, ended=polled == 40)

    outcome, _ = await outcomes_of(Outcomes(Polling(query, 10), ["a", "b"]))
    assert (outcome.job_id, type(outcome.error)) == ("a", TransportError)
    polls = service.times("a")
    assert len(polls) == 21 + 16
    assert polls[11] - polls[10] == pytest.approx(10, abs=0.1)


async def test_the_backoff_never_exceeds_a_long_interval() -> None:
    """With an interval of five minutes the backoff is five minutes from the start."""
    service = Service({"a": 0.0})
    service.errors["a"] = [TransportError("reset") for _ in range(3)]
    await outcomes_of(service.follow(["a"], 300))
    assert service.times("a") == pytest.approx([0, 300, 600, 900], abs=0.1)


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
async def test_a_final_error_is_the_outcome_at_once(error: LiveAuditError) -> None:
    """After one query the error is the outcome; other jobs go on."""
    service = Service({"a": 15.0, "b": 15.0})
    service.errors["a"] = [error]
    first, second = await outcomes_of(service.follow(["a", "b"]))
    assert (first.job_id, first.job, first.error) == ("a", None, error)
    assert (second.job_id, second.error) == ("b", None)
    assert len(service.times("a")) == 1


async def test_credentials_that_were_there_before_may_come_back() -> None:
    """After one success, missing credentials are retried."""
    service = Service({"a": 15.0, "b": 100.0})
    results: list[Outcome] = []
    async with service.follow(["a", "b"]) as outcomes:
        await asyncio.sleep(5)
        service.errors["a"] = [CredentialsError("none") for _ in range(3)]
        results.extend([outcome async for outcome in outcomes])
    assert [(outcome.job_id, outcome.error) for outcome in results] == [("a", None), ("b", None)]
    assert service.times("a") == pytest.approx([0, 10, 20, 40, 80], abs=0.2)


async def test_any_other_exception_is_raised_bare() -> None:
    """An unexpected exception of a query is raised after the outcomes that are ready."""
    service = Service({"a": 0.0})
    service.errors["b"] = [ZeroDivisionError("a mistake")]
    got: Counter[str] = Counter()
    async with service.follow(["a", "b", "c"]) as outcomes:
        await asyncio.sleep(5)
        with pytest.raises(ZeroDivisionError, match="a mistake"):
            await consume(outcomes, got)
    assert got == Counter(["a"])
    assert tasks() == []


async def test_a_query_cancelled_from_outside_is_repeated() -> None:
    """Cancelling the task of a query ends no job."""
    service = Service(dict.fromkeys(names(5), 40.0), latency=1)
    cancelled: list[str] = []
    async with service.follow(names(5)) as outcomes:
        for _ in range(3):
            await asyncio.sleep(3 + len(cancelled) * 4)
            while not service.in_flight:
                await asyncio.sleep(0.1)
            task, job_id = next(iter(service.in_flight.items()))
            assert task is not None
            task.cancel()
            cancelled.append(job_id)
        results = [outcome.unwrap().job_id async for outcome in outcomes]
    assert sorted(results) == names(5)
    assert len(cancelled) == 3


async def test_a_query_that_cancels_itself_is_repeated() -> None:
    """A CancelledError raised by a query ends no job either."""
    service = Service({"a": 0.0})
    polled = 0

    async def query(job_id: str, _: object = None) -> AuditJob:
        nonlocal polled
        polled += 1
        if polled < 3:
            raise asyncio.CancelledError
        return await service.query(job_id, Reading())

    (outcome,) = await outcomes_of(Outcomes(Polling(query, 10), ["a"]))
    assert outcome.unwrap().ended
    assert now() == pytest.approx(20, abs=0.1)


async def test_an_exception_in_the_body_is_raised_bare() -> None:
    """An exception of the caller comes out unwrapped, after everything has stopped."""
    service = Service({"a": 0.0}, latency=0.5)
    ids = arriving("a", "b", pause=100)

    async def use() -> None:
        async with service.follow(ids) as outcomes:
            async for _ in outcomes:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await use()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert is_closed(ids)
    assert tasks() == []


# Deadlines


async def test_a_deadline_is_exact_and_follows_a_last_look() -> None:
    """A job is polled half a second before its deadline, and times out at the deadline."""
    service = Service()
    (outcome,) = await outcomes_of(service.follow(["a"], 10, 25))
    assert now() == pytest.approx(25, abs=1e-6)
    assert service.times("a") == pytest.approx([0, 10, 20, 24.5], abs=0.06)
    assert isinstance(outcome.error, WaitTimeout)
    assert outcome.error.last == job("a", ended=False)
    assert str(outcome.error) == "wait of a: not ended within 25 s; it was Auditing"


async def test_an_end_that_the_last_look_sees_is_an_end() -> None:
    """A job that ends between its last regular poll and the deadline has ended."""
    service = Service({"a": 24.0})
    (outcome,) = await outcomes_of(service.follow(["a"], 10, 25))
    assert outcome.unwrap().ended
    assert now() == pytest.approx(24.5, abs=0.1)


@pytest.mark.parametrize(("interval", "timeout"), [(100, 10), (0.5, 0.1), (1e-3, 1e-2), (10, 1e-3)])
async def test_any_timeout_is_kept(interval: float, timeout: float) -> None:
    """However long the interval and short the timeout, a job is polled and times out exactly."""
    service = Service()
    (outcome,) = await outcomes_of(service.follow(["a"], interval, timeout))
    assert now() == pytest.approx(timeout, abs=1e-6)
    assert isinstance(outcome.error, WaitTimeout)
    assert service.polled


@pytest.mark.parametrize("keep_last", [False, True])
async def test_a_timed_out_job_is_there_as_it_was_last_seen(*, keep_last: bool) -> None:
    """If the last poll fails, the outcome has the response before it: in a large run its facts."""
    seen = AuditJob(
        job_id="a", state=JobState.AUDITING, result=Verdict.SENSITIVE, snapshots=(Snapshot(),)
    )

    async def query(job_id: str, _: object = None) -> AuditJob:
        if now() > 22:
            await asyncio.sleep(math.inf)
        return attrs.evolve(seen, job_id=job_id)

    run = Outcomes(Polling(query, 10, 25, keep_last=keep_last), ["a", "b"])
    outcome, _ = await outcomes_of(run)
    assert isinstance(outcome.error, WaitTimeout)
    assert outcome.job == (seen if keep_last else attrs.evolve(seen, snapshots=()))
    assert outcome.error.last == outcome.job
    assert str(outcome.error) == "wait of a: not ended within 25 s; it was Auditing"


async def test_a_query_that_hangs_is_cancelled_at_the_deadline() -> None:
    """The deadline holds for a query in flight as well."""
    service = Service(latency=math.inf)
    async with service.follow(["a"], 10, 25) as outcomes:
        outcome = await anext(outcomes)
        assert now() == pytest.approx(25, abs=1e-6)
        await asyncio.sleep(0)
        assert not service.in_flight
    assert isinstance(outcome.error, WaitTimeout)
    assert outcome.error.last is None
    assert str(outcome.error) == "wait of a: not ended within 25 s"


async def test_a_first_query_that_hangs_is_cancelled_at_the_deadline() -> None:
    """The deadline holds for a job that arrives when no other is open."""
    service = Service(latency=math.inf)
    async with service.follow(arriving("a", pause=1000), 10, 25) as outcomes:
        outcome = await anext(outcomes)
        assert now() == pytest.approx(25, abs=1e-6)
    assert isinstance(outcome.error, WaitTimeout)


async def test_a_response_after_the_deadline_does_not_count() -> None:
    """A query that cannot be cancelled ends after its deadline without a second outcome."""

    async def query(job_id: str, _: object = None) -> AuditJob:
        with anyio.CancelScope(shield=True):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(5)
        if job_id == "b":
            raise JobNotFound(status=404)
        return job(job_id, ended=True)

    async with Outcomes(Polling(query, 10, 20), ["a", "b"]) as outcomes:
        results = [await anext(outcomes) for _ in range(2)]
        await asyncio.sleep(60)
        results.extend([outcome async for outcome in outcomes])
    assert [outcome.job_id for outcome in results] == ["a", "b"]
    assert all(isinstance(outcome.error, WaitTimeout) for outcome in results)


async def test_with_more_jobs_than_slots_every_id_has_an_outcome_by_the_deadline() -> None:
    """Ids that were never read have outcomes too, and last responses are carried."""
    service = Service()
    ids = names(3000)
    results = await outcomes_of(service.follow(ids, 10, 60))
    assert sorted(outcome.job_id for outcome in results) == sorted(ids)
    assert now() == pytest.approx(60, abs=0.01)
    polled = {job_id for job_id, _ in service.polled}
    for outcome in results:
        assert isinstance(outcome.error, WaitTimeout)
        assert (outcome.error.last is not None) == (outcome.job_id in polled)
    assert len(service.polled) >= 0.98 * 20 * 59
    assert len(polled) < len(ids)


async def test_each_job_of_a_generator_has_a_deadline_of_its_own() -> None:
    """A timeout counts from when the id was read."""
    service = Service()
    done: dict[str, float] = {}
    async with service.follow(arriving(*names(5), pause=7), 10, 25) as outcomes:
        async for outcome in outcomes:
            done[outcome.job_id] = now()
    assert done == pytest.approx({f"av{n}": 7 * n + 25 for n in range(5)}, abs=0.1)


async def test_last_looks_do_not_exceed_the_quota() -> None:
    """100 jobs with one deadline get their last looks in the seconds before it."""
    service = Service()
    results = await outcomes_of(service.follow(names(100), 30, 100))
    assert all(isinstance(outcome.error, WaitTimeout) for outcome in results)
    looks = sorted(service.times(job_id)[-1] for job_id in names(100))
    assert looks[0] >= 99.5 - 2 * 100 / 20
    assert all(later - look >= 0.9 / 20 for look, later in itertools.pairwise(looks))


async def test_every_job_gets_its_last_look_if_the_quota_allows() -> None:
    """200 jobs are polled for the last time within ten seconds, so late ends are seen."""
    ids = names(200)
    service = Service(dict.fromkeys(ids[100:], 70.5))
    results = await outcomes_of(service.follow(ids, 30, 100))
    timed_out = {outcome.job_id for outcome in results if outcome.error is not None}
    assert timed_out == set(ids[:100])
    assert min(service.times(job_id)[-1] for job_id in timed_out) >= 99.5 - 200 / 20 - 0.1


async def test_a_later_deadline_takes_no_other_last_look() -> None:
    """A job that is due only after its deadline leaves the last look of another in place."""
    service = Service({"av0": 22.0})
    service.errors["av1"] = [TransportError("reset") for _ in range(9)]
    first, second = await outcomes_of(service.follow(arriving("av0", "av1", pause=1), 10, 25))
    assert service.times("av0") == pytest.approx([0, 10, 20, 24.5], abs=0.1)
    assert (first.job_id, first.error) == ("av0", None)
    assert isinstance(second.error, WaitTimeout)


async def test_a_slow_consumer_gets_the_deadlines_late_but_all() -> None:
    """Jobs whose deadlines passed long ago have outcomes once the consumer goes on."""
    service = Service({f"av{n}": 15.0 for n in range(40)})
    async with service.follow(names(100), 10, 60) as outcomes:
        await asyncio.sleep(3600)
        results = [outcome async for outcome in outcomes]
    assert now() == pytest.approx(3600, abs=0.01)
    assert sorted(outcome.job_id for outcome in results) == sorted(names(100))
    assert sum(outcome.error is None for outcome in results) == 40


async def test_nothing_is_polled_after_its_deadline() -> None:
    """Without a consumer, polling ends at the deadline and the loop is idle."""
    service = Service()
    async with service.follow(names(5000), 10, 60):
        await asyncio.sleep(61)
        polled = len(service.polled)
        callbacks = count_callbacks()
        await asyncio.sleep(3600)
        assert len(callbacks) < 10
    assert len(service.polled) == polled
    assert service.polled[-1][1] <= 60.1


# The consumer


@pytest.mark.parametrize("latency", [0, 4])
async def test_a_slow_consumer_slows_the_polling_down(latency: float) -> None:
    """Of 1,000 ended jobs, 50 are polled while the consumer sleeps, and none is lost.

    Those in flight by then come on top.
    """
    service = Service(dict.fromkeys(names(1000), 0.0), latency=latency)
    most = 55 + math.ceil(20 * latency)
    async with service.follow(names(1000)) as outcomes:
        got = [(await anext(outcomes)).job_id]
        await asyncio.sleep(3600)
        assert 50 <= len(service.polled) <= most
        callbacks = count_callbacks()
        await asyncio.sleep(3600)
        assert len(callbacks) < 10
        async for outcome in outcomes:
            got.append(outcome.job_id)
            await asyncio.sleep(0.2)
            assert len(service.polled) <= len(got) + most
    assert sorted(got) == sorted(names(1000))


async def test_waiting_is_not_busy() -> None:
    """In an hour of waiting for a job, the loop takes a few steps for each query."""
    service = Service({"a": 3600.0}, latency=1)
    callbacks = count_callbacks()
    await outcomes_of(service.follow(["a"], 10, 7200))
    assert len(service.polled) == 361
    assert len(callbacks) < 361 * 15


async def test_a_second_consumer_is_refused() -> None:
    """While one task waits for an outcome another is refused, and the first gets them all."""
    service = Service(dict.fromkeys(names(5), 15.0))
    got: Counter[str] = Counter()
    async with service.follow(names(5)) as outcomes:
        first = asyncio.create_task(consume(outcomes, got))
        await asyncio.sleep(1)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="another task is waiting"):
                await anext(outcomes)
        await first
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    assert got == Counter(names(5))


async def test_a_consumer_that_was_cancelled_may_be_replaced() -> None:
    """After the waiting task was cancelled another may go on."""
    async with Service({"a": 15.0}).follow(["a"]) as outcomes:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(outcomes), 1)
        assert (await anext(outcomes)).job_id == "a"


async def test_a_consumer_that_is_left_alone_ends() -> None:
    """A consumer that still waits when another leaves the run reaches the end."""
    service = Service()
    async with service.follow(["a"]) as outcomes:
        waiting = asyncio.create_task(anext(outcomes, None))
        await asyncio.sleep(5)
    assert await waiting is None


async def test_a_run_is_entered_once() -> None:
    """Entering a run twice, or iterating before, raises an error that says what to do."""
    run = Service({"a": 0.0}).follow(["a"])
    with pytest.raises(ConfigurationError, match="enter the run first"):
        await anext(run)
    async with run:
        with pytest.raises(ConfigurationError, match="entered once"):
            await run.__aenter__()
        assert [outcome.job_id async for outcome in run] == ["a"]
    with pytest.raises(ConfigurationError, match="entered once"):
        await run.__aenter__()


async def test_there_is_nothing_more_after_leaving() -> None:
    """Iterating over a run that was left ends at once, even with outcomes ready."""
    service = Service(dict.fromkeys(names(10), 0.0))
    async with service.follow(names(10)) as outcomes:
        await asyncio.sleep(5)
        await anext(outcomes)
    assert [outcome async for outcome in outcomes] == []
    polled = len(service.polled)
    await asyncio.sleep(100)
    assert len(service.polled) == polled


async def test_the_end_is_the_end_each_time() -> None:
    """A run that is over stays over."""
    async with Service({"a": 0.0}).follow(["a"]) as outcomes:
        assert [outcome.job_id async for outcome in outcomes] == ["a"]
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)


@pytest.mark.parametrize("options", [{"interval": 0}, {"timeout": 0}, {"interval": math.inf}])
def test_impossible_times_are_refused(options: dict[str, Any]) -> None:
    """An interval or a timeout that is not above 0 and finite is refused by name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Service().follow(["a"], **options)


# Cancellation


async def test_impatient_consumers_lose_no_outcome() -> None:
    """wait_for around anext, with random patience, gets every outcome once."""
    rng = random.Random(8)
    ids = names(200)
    service = Service({job_id: rng.uniform(0, 60) for job_id in ids}, latency=0.2)
    got: Counter[str] = Counter()
    gave_up = 0
    async with service.follow(ids, 5, 50) as outcomes:
        while sum(got.values()) < len(ids):
            # Sometimes none at all, and sometimes enough for the next outcome.
            patience = rng.choice([0.0, rng.random() * 0.1, rng.random()])
            try:
                got[(await asyncio.wait_for(anext(outcomes), patience)).job_id] += 1
            except TimeoutError:
                gave_up += 1
    assert got == Counter(ids)
    assert gave_up > 100


async def test_a_timeout_around_the_iteration_loses_no_outcome() -> None:
    """After asyncio.timeout or anyio.move_on_after the iteration can be continued."""
    rng = random.Random(9)
    ids = names(100)
    service = Service({job_id: rng.uniform(0, 60) for job_id in ids})
    got: Counter[str] = Counter()
    async with service.follow(ids, 5) as outcomes:
        while len(got) < len(ids):
            with anyio.move_on_after(rng.random()):
                await consume(outcomes, got)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.random()):
                    await consume(outcomes, got)
    assert got == Counter(ids)


@pytest.mark.parametrize("by", ["asyncio", "anyio"])
async def test_a_timeout_around_the_run_leaves_nothing(by: str) -> None:
    """A run cancelled by a timeout outside still waits until its source is closed."""
    closed: list[float] = []

    async def source() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield f"av{now()}"
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0.5)
            closed.append(now())

    service = Service(latency=2)
    if by == "anyio":
        with anyio.move_on_after(10) as scope:
            await outcomes_of(service.follow(source()))
        assert scope.cancelled_caught
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await outcomes_of(service.follow(source()))
    assert closed == pytest.approx([10.5], abs=0.01)
    assert tasks() == []


async def test_cancelled_twice_everything_stops() -> None:
    """A second cancellation during the first one leaves no task and no query."""
    rng = random.Random(10)

    async def query(job_id: str, _: object = None) -> AuditJob:
        try:
            return await service.query(job_id, Reading())
        finally:
            await asyncio.sleep(0.5)

    for _ in range(100):
        service = Service(latency=1)
        run = Outcomes(Polling(query, 1), names(30))
        task = asyncio.create_task(outcomes_of(run))
        await asyncio.sleep(rng.random() * 5)
        task.cancel()
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(rng.choice([0, 0.1]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tasks() == []
        assert not service.in_flight


async def test_cancelled_twice_a_source_still_cleans_up() -> None:
    """A second cancellation while a generator cleans up waits for the cleanup too."""
    closed: list[float] = []

    async def source() -> AsyncGenerator[str, None]:
        try:
            for job_id in names(1000):
                yield job_id
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(5)
            closed.append(now())

    task = asyncio.create_task(outcomes_of(Service().follow(source(), 1)))
    await asyncio.sleep(10.5)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == pytest.approx([15.5], abs=0.01)
    assert tasks() == []


async def test_cancelling_the_consumer_leaves_nothing() -> None:
    """After 1,000 random cancellations: no task, no open generator, no unseen exception."""
    rng = random.Random(11)
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))

    async def use(run: Outcomes | Findings) -> None:
        async with run:
            async for _ in run:
                await asyncio.sleep(rng.choice([0, 0, 1]))

    for number in range(1000):
        ids = names(rng.choice([1, 5, 60]))
        ends = {job_id: rng.uniform(0, 60) for job_id in ids}
        service = Service(ends, rate=rng.choice([5.0, 20.0, math.inf]), latency=rng.choice([0, 3]))
        if number % 10 == 0:
            service.errors[ids[0]] = [ZeroDivisionError()]
        generator = arriving(*ids, pause=rng.choice([0, 0.5]))
        sources: list[Source] = [ids, iter(ids), generator, generator]
        source = rng.choice(sources)
        timeout = rng.choice([None, 12])
        polling = Polling(service.query, 5, timeout, service.limiter, service.urgent.rate)
        kind: Any = rng.choice([Outcomes, Outcomes, Findings])
        task = asyncio.create_task(use(kind(polling, source)))
        await asyncio.sleep(rng.random() * 15)
        for _ in range(rng.randrange(10)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError | None)
        assert tasks() == []
        assert not service.in_flight
        assert source is not generator or is_closed(generator)
        await generator.aclose()
    del task
    gc.collect()
    assert unseen == []


# Everything at once


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_every_id_has_one_outcome(seed: int) -> None:
    """Random sources, rates, deadlines, delays, failures, cancellations and consumers."""
    rng = random.Random(seed)
    ids = names(rng.choice([1, 7, 150]))
    given = ids + rng.choices(ids, k=len(ids) // 5)
    rng.shuffle(given)
    ends = {job_id: rng.uniform(0, 60) for job_id in ids}
    service = Service(ends, rate=rng.choice([3.0, 20.0, math.inf]), latency=rng.choice([0, 0.1, 4]))
    for job_id in rng.sample(ids, len(ids) // 3):
        service.errors[job_id] = [rng.choice(TRANSIENT)() for _ in range(rng.randrange(20))]
    for job_id in rng.sample(ids, len(ids) // 10):
        service.errors[job_id] = [rng.choice(FINAL[:4])]
    sources: list[Callable[[], Source]] = [
        lambda: given,
        lambda: iter(given),
        lambda: arriving(*given),
        lambda: arriving(*given, pause=rng.random()),
    ]
    timeout = rng.choice([None, 0.2, 5, 40])
    run = service.follow(rng.choice(sources)(), rng.choice([0.5, 5, 30]), timeout)
    got: Counter[str] = Counter()

    async def cancel_some() -> None:
        while True:
            await asyncio.sleep(rng.expovariate(0.2))
            for task in list(service.in_flight)[:1]:
                assert task is not None
                task.cancel()

    async def consume() -> None:
        while True:
            try:
                got[(await take()).job_id] += 1
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 10)

    def take() -> Awaitable[Outcome]:
        patient = rng.random() < 0.5
        return anext(run) if patient else asyncio.wait_for(anext(run), rng.random() * 3)

    cancelling = asyncio.create_task(cancel_some())
    async with run:
        await consume()
    cancelling.cancel()
    await asyncio.wait([cancelling])
    assert got == Counter(ids)
    assert tasks() == []


async def test_cancelled_twice_a_run_still_stops_reading() -> None:
    """A second cancellation while a run is left does not leave its reader behind."""
    closed = False

    async def generate() -> AsyncGenerator[str, None]:
        nonlocal closed
        try:
            while True:
                yield "a"
                await asyncio.sleep(1)
        finally:
            closed = True

    async def query(job_id: str, _: object = None) -> AuditJob:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.shield(asyncio.sleep(5))
        return AuditJob(job_id=job_id, state=JobState.SUCCESS)

    async def follow() -> None:
        async with Outcomes(Polling(query, 1), generate()) as outcomes:
            await anext(outcomes)

    task = asyncio.create_task(follow())
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(10)
    gc.collect()
    assert closed


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_an_exception_of_an_async_source_is_not_lost(before: int) -> None:
    """A source that breaks is never taken for a finished one, with or without open jobs."""
    service = Service(dict.fromkeys(names(5), 0.0))

    async def broken() -> AsyncGenerator[str, None]:
        for job_id in names(before):
            yield job_id
        await asyncio.sleep(30)
        raise ZeroDivisionError("the source")

    with pytest.raises(ZeroDivisionError, match="the source"):
        await outcomes_of(service.follow(broken()))


async def test_a_deadline_is_exact_if_the_last_look_fails() -> None:
    """After a failed last poll the job times out at the deadline, not before."""

    async def query(job_id: str, _: object = None) -> AuditJob:
        if now() > 22:
            raise ServiceUnavailable(status=503)
        return job(job_id, ended=False)

    await outcomes_of(Outcomes(Polling(query, 10, 25), ["a"]))
    assert now() == pytest.approx(25, abs=1e-3)


@pytest.mark.parametrize("kind", [Outcomes, Findings])
async def test_a_run_is_freed_as_soon_as_it_is_left(kind: Any) -> None:
    """The jobs of a run do not wait for the garbage collector, whether it has ended or not."""
    service = Service({"a": 0.0})
    gc.collect()
    gc.disable()
    try:
        for job_ids in (["a"], ["a", "b"]):
            run = kind(Polling(service.query, 10, 60, service.limiter, 20), job_ids)
            async with run:
                await anext(run)
            left = [weakref.ref(run), weakref.ref(run._dispatcher.schedule)]
            del run
            await asyncio.sleep(1)
            assert [it() for it in left] == [None, None]
    finally:
        gc.enable()


async def test_progress_after_leaving_counts_no_failure() -> None:
    """A query that is cancelled by leaving near the deadline is no failure."""
    async with Service(latency=3).follow(["a"], 10, 25) as outcomes:
        await asyncio.sleep(24.8)
        before = outcomes.progress
    assert outcomes.progress == before


async def test_many_deadlines_at_once_let_the_loop_run() -> None:
    """The loop takes steps between the outcomes of one deadline."""
    ran: list[int] = []
    loop = asyncio.get_running_loop()
    got = 0
    service = Service()
    service.limiter.hold(100)
    async with service.follow(names(2000), 10, 5) as outcomes:
        await anext(outcomes)
        loop.call_soon(lambda: ran.append(got))
        async for _ in outcomes:
            got += 1
        assert ran
