"""Callbacks save the quota: what they are about is found at once, and nothing depends on them."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from proofs import IN_FULL, times
from runs import Callbacks, now, tasks

from ci_live_audit import (
    AuditJob,
    ConfigurationError,
    InvalidInput,
    JobState,
    RetryPolicy,
    SnapshotFinding,
    WaitTimeout,
)
from ci_live_audit.following.findings import Findings
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.seen import News
from ci_live_audit.limits.background import BackgroundRateLimiter
from ci_live_audit.limits.local import LocalRateLimiter
from ci_live_audit.testing import Emulator, Fault, frame

RATE = 20.0
#: With fewer jobs the quota is smaller, so that a sweep takes as long, but so does a slot.
JOBS, MEDIAN = (1000, 1.0) if IN_FULL else (200, 1.3)
HOUR = 3600.0


class Streams:
    """Streams with findings at random times, the callbacks about them, and a service of its own."""

    def __init__(self, jobs: int, *, lost: float = 0.0, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.rate = RATE * jobs / 1000
        self.limiter = BackgroundRateLimiter(LocalRateLimiter(self.rate))
        self.callbacks = Callbacks()
        self.found: dict[str, list[float]] = {
            f"av{number}": sorted(rng.uniform(120, HOUR - 120) for _ in range(2))
            for number in range(jobs)
        }
        self.sent = [
            (time + 0.05 + rng.expovariate(1), job_id)
            for job_id, times in self.found.items()
            for time in times
            if rng.random() >= lost
        ]
        self.polled: list[float] = []

    async def query(self, job_id: str, reading: Any) -> AuditJob:
        await self.limiter.acquire()
        self.polled.append(now())
        await asyncio.sleep(0.05)
        shown = tuple(frame(time, "Porn") for time in self.found[job_id] if time <= now())
        job = AuditJob(job_id=job_id, state=JobState.AUDITING, snapshots=shown)
        assert isinstance(reading, News)
        reading.compare(job)
        return job

    async def delays(self, interval: float, *, nudged: bool = True) -> list[float]:
        """Watch for an hour, and return the seconds from each finding to the consumer."""
        polling = Polling(
            self.query,
            interval,
            None,
            self.limiter,
            self.rate,
            callbacks=self.callbacks if nudged else None,
        )
        for time, job_id in self.sent:
            asyncio.get_running_loop().call_at(time, self.callbacks.send, job_id)
        delays: list[float] = []
        with suppress(TimeoutError):
            async with (
                Findings(polling, list(self.found)) as findings,
                asyncio.timeout_at(max(HOUR, HOUR + interval - 60)),
            ):
                async for finding in findings:
                    if isinstance(finding, SnapshotFinding):
                        delays += [now() - (finding.time or 0) / 1000]
        return sorted(delays)

    def per_second(self) -> float:
        """Return the requests a second, of 1,000 jobs."""
        return len(self.polled) / self.polled[-1] * RATE / self.rate


async def test_findings_come_at_once_for_a_fraction_of_the_requests() -> None:
    """Callbacks that are 1 s late on average, and an interval of 300 s."""
    streams = Streams(JOBS)
    delays = await streams.delays(300)
    assert len(delays) == 2 * JOBS
    assert statistics.median(delays) <= MEDIAN
    assert delays[round(0.95 * len(delays))] <= 4.0
    assert streams.per_second() <= 4.5


async def test_without_callbacks_the_quota_decides() -> None:
    """Polling as fast as the quota allows finds later, with five times the requests."""
    streams = Streams(JOBS)
    delays = await streams.delays(10, nudged=False)
    assert len(delays) == 2 * JOBS
    assert 23 <= statistics.median(delays) <= 26
    assert 19.8 <= streams.per_second() <= 20.01


async def test_a_lost_callback_loses_no_finding() -> None:
    """What every tenth callback was about is found by the next turn."""
    streams = Streams(JOBS, lost=0.1)
    delays = await streams.delays(300)
    assert len(delays) == 2 * JOBS
    assert statistics.median(delays) <= MEDIAN
    assert delays[-1] <= 300 + 50
    assert streams.per_second() <= 4.5


async def test_turns_keep_their_quota() -> None:
    """With an interval of 60 s the quota is used as without callbacks, and delays stay bounded."""
    streams = Streams(JOBS, lost=0.1)
    delays = await streams.delays(60)
    assert len(delays) == 2 * JOBS
    assert statistics.median(delays) <= MEDIAN
    assert delays[-1] <= 60 + 50
    assert streams.per_second() <= 18
    assert all(
        later - time >= 1
        for time, later in zip(streams.polled, streams.polled[round(streams.rate) :], strict=False)
    )


# The client


async def test_a_thousand_callbacks_a_second_are_one_query_a_second() -> None:
    """A job is not asked more than once a second, however many callbacks come."""
    emulator, callbacks = Emulator(), Callbacks()
    job_id = emulator.add_job(duration=HOUR, script=[])
    seconds = times(200)

    async def flood() -> None:
        for _ in range(seconds * 1000):
            callbacks.send(job_id)
            await asyncio.sleep(0.001)

    async with emulator.client() as client, client.watch(job_id, callbacks=callbacks):
        await flood()
    asked = [arrival.time for arrival in emulator.arrivals]
    assert seconds - 2 <= len(asked) <= seconds + 1
    assert all(later - time >= 0.99 for time, later in pairwise(asked))


async def test_a_wait_returns_soon_after_the_last_callback() -> None:
    """The interval may be long."""
    emulator, callbacks = Emulator(), Callbacks()
    job_id = emulator.add_job(duration=30)
    asyncio.get_running_loop().call_at(31, callbacks.send, job_id)
    async with emulator.client() as client:
        job = await client.wait(job_id, interval=300, callbacks=callbacks)
    assert job.state == JobState.SUCCESS
    assert 31 <= now() <= 31.2
    assert not callbacks.listeners


async def test_outcomes_come_soon_after_the_last_callbacks() -> None:
    """As with one job."""
    emulator, callbacks = Emulator(), Callbacks()
    ends = {emulator.add_job(duration=duration): duration for duration in (20, 40, 50)}
    for job_id, duration in ends.items():
        asyncio.get_running_loop().call_at(duration + 1, callbacks.send, job_id)
    async with (
        emulator.client() as client,
        client.as_completed(ends, interval=300, callbacks=callbacks) as outcomes,
    ):
        async for outcome in outcomes:
            assert ends[outcome.job_id] + 1 <= now() <= ends[outcome.job_id] + 1.2
    assert not callbacks.listeners


async def test_any_callbacks_do_no_harm() -> None:
    """About jobs that nobody follows, that are still to be read, that have ended, or about none."""
    emulator, callbacks = Emulator(), Callbacks()
    rng = random.Random(1)
    ids = [emulator.add_job(duration=rng.uniform(1, 30)) for _ in range(times(200))]

    async def storm() -> None:
        while True:
            callbacks.send(rng.choice([*ids, "unknown", "", None]))
            await asyncio.sleep(rng.expovariate(20))

    got: Counter[str] = Counter()
    async with (
        emulator.client() as client,
        client.as_completed(iter(ids), timeout=25, callbacks=callbacks) as outcomes,
    ):
        task = asyncio.create_task(storm())
        async for outcome in outcomes:
            got[outcome.job_id] += 1
            assert outcome.error is None or isinstance(outcome.error, WaitTimeout)
        task.cancel()
    assert got == Counter(ids)
    assert not any(arrival.status == 429 for arrival in emulator.arrivals)


async def test_an_outage_is_waited_out_with_one_probe_at_a_time() -> None:
    """Callbacks that come meanwhile send nothing, and the jobs are asked when it is over."""
    emulator, callbacks = Emulator(), Callbacks()
    loop = asyncio.get_running_loop()
    ids = [emulator.add_job(duration=HOUR, script=[frame(150, "Porn")]) for _ in range(50)]
    loop.call_at(140, emulator.inject, Fault.error(503))
    loop.call_at(400, emulator.faults.clear)
    for number, job_id in enumerate(ids):
        loop.call_at(151 + number, callbacks.send, job_id)
    found: set[str] = set()
    async with (
        emulator.client(retry=RetryPolicy(attempts=1)) as client,
        client.watch(ids, interval=300, callbacks=callbacks) as findings,
    ):
        while len(found) < len(ids):
            finding = await anext(findings)
            if isinstance(finding, SnapshotFinding):
                found.add(finding.job_id)
    assert 400 < now() <= 430
    out = [arrival.time for arrival in emulator.arrivals if 180 <= arrival.time < 400]
    assert all(9.9 <= later - time <= 11 for time, later in pairwise(out))


@pytest.mark.parametrize("callbacks", [Callbacks, object(), "receiver"])
async def test_what_is_no_receiver_is_refused(callbacks: Any) -> None:
    """By every verb, before anything is sent."""
    emulator = Emulator()
    async with emulator.client() as client:
        with pytest.raises(InvalidInput, match="callbacks"):
            client.watch("j", callbacks=callbacks)
        with pytest.raises(InvalidInput, match="callbacks"):
            client.as_completed(["j"], callbacks=callbacks)
        with pytest.raises(InvalidInput, match="callbacks"):
            await client.wait("j", callbacks=callbacks)
    assert not emulator.arrivals


# The end


@pytest.mark.parametrize("way", ["left", "raised", "cancelled", "ended", "closed"])
async def test_a_run_that_is_left_is_told_nothing_more(way: str) -> None:
    """However it ends, nobody calls it, and nothing refers to it."""
    emulator, callbacks = Emulator(), Callbacks()
    job_id = emulator.add_job(duration=20 if way == "ended" else HOUR, script=[])
    watched: list[weakref.ref[object]] = []

    async def watch() -> None:
        async with (
            emulator.client() as client,
            client.watch(job_id, callbacks=callbacks) as findings,
        ):
            watched.append(weakref.ref(findings._dispatcher))
            assert len(callbacks.listeners) == 1
            callbacks.send(job_id)
            if way == "closed":
                await client.aclose()
            async for _ in findings:
                if way == "left":
                    break
                if way == "raised":
                    raise ValueError
                if way == "cancelled":
                    current = asyncio.current_task()
                    assert current is not None
                    current.cancel()
            if way == "ended":
                await asyncio.sleep(1)
                assert not callbacks.listeners  # although the block is not left

    task = asyncio.create_task(watch())
    await asyncio.wait([task])
    expected: dict[str, type[BaseException]] = {"raised": ValueError, "closed": ConfigurationError}
    assert task.cancelled() == (way == "cancelled")
    if way != "cancelled":
        assert isinstance(task.exception(), expected.get(way, type(None)))
    assert not callbacks.listeners
    del task
    await asyncio.sleep(0)
    gc.collect()  # the errors of tasks refer to their frames
    assert watched[0]() is None
    assert not tasks()


async def test_a_source_that_refuses_starts_nothing() -> None:
    """Its error is raised when the run is entered, and nothing has begun."""

    class Broken(Callbacks):
        def subscribe(self, listener: Callable[..., object]) -> Callable[[], object]:
            del listener
            raise OSError("no room")

    emulator = Emulator()
    job_id = emulator.add_job()
    async with emulator.client() as client:
        with pytest.raises(OSError, match="no room"):
            await client.watch(job_id, callbacks=Broken()).__aenter__()
        await asyncio.sleep(1)
    assert not emulator.arrivals
    assert not tasks()
