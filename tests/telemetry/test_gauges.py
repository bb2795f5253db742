"""What is read when metrics are collected is what lives then."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import run_virtual
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times
from sdk import Sdk

from ci_live_audit import ConfigurationError, LiveAuditClient, LocalRateLimiter
from ci_live_audit.testing import Emulator

RATE, DEGRADED = "ci_live_audit.limiter.rate", "ci_live_audit.limiter.degraded"
JOBS, LAG = "ci_live_audit.run.jobs", "ci_live_audit.run.lag"


async def test_limiters_count_once_and_as_long_as_a_client_is_open() -> None:
    """Clients that share one, and their siblings, count once; a closed client counts no more."""
    emulator = Emulator()
    sdk = Sdk()
    telemetry = sdk.telemetry()
    shared = LocalRateLimiter(5)
    assert sdk.points(RATE) == sdk.points(DEGRADED) == []
    async with emulator.client(on_attempt=telemetry, rate=7) as own:
        async with (
            emulator.client(on_attempt=telemetry, limiter=shared) as one,
            emulator.client(on_attempt=telemetry, limiter=shared),
            emulator.client(on_attempt=telemetry, rate=math.inf),
        ):
            own.with_options(timeout=5)
            one.with_options(on_attempt=sdk.telemetry())
            assert sdk.points(RATE) == [({}, 12)]
        assert sdk.points(RATE) == [({}, 7)]
        assert sdk.points(DEGRADED) == [({}, 0)]
    assert sdk.points(RATE) == sdk.points(DEGRADED) == []


async def test_a_forgotten_client_counts_no_more() -> None:
    """A client that was never closed leaves nothing."""
    sdk = Sdk()
    client = Emulator().client(on_attempt=sdk.telemetry())
    assert sdk.points(RATE) == [({}, 20)]
    del client
    gc.collect()
    assert sdk.points(RATE) == []


class Shared:
    """A limiter that others share, and that knows no rate."""

    degraded: bool

    async def acquire(self) -> float:
        return 0.0

    def hold(self, seconds: float) -> None: ...


async def test_a_shared_limiter_may_be_degraded() -> None:
    """One is enough; what knows no rate has none."""
    sdk = Sdk()
    limiter = Shared()
    async with (
        Emulator().client(on_attempt=sdk.telemetry(), limiter=limiter),
        Emulator().client(on_attempt=sdk.telemetry()),
    ):
        assert sdk.points(DEGRADED) == [({}, 0)]
        limiter.degraded = True
        assert sdk.points(DEGRADED) == [({}, 1)]
        assert sdk.points(RATE) == [({}, 20)]


async def test_the_rate_is_what_passes_now() -> None:
    """It is lower for some time after the service has refused requests."""
    emulator = Emulator()
    sdk = Sdk()
    limiter = LocalRateLimiter(20)
    async with emulator.client(on_attempt=sdk.telemetry(), limiter=limiter) as client:
        await asyncio.gather(*(client.query(emulator.add_job()) for _ in range(10)))
        limiter.refused(0)
        ((_, rate),) = sdk.points(RATE)
        assert 15 < rate < 20
        await asyncio.sleep(30)
        assert sdk.points(RATE) == [({}, 20)]


async def test_gauges_are_read_in_another_thread() -> None:
    """That is where an exporter lives."""
    emulator = Emulator()
    sdk = Sdk()
    async with emulator.client(on_attempt=sdk.telemetry()) as client:
        job_id = emulator.add_job()
        await client.query(job_id)
        async with client.watch([job_id]):
            read: dict[str, Any] = {}
            names = (RATE, DEGRADED, JOBS, LAG)
            thread = threading.Thread(
                target=lambda: read.update({name: sdk.points(name) for name in names})
            )
            thread.start()
            thread.join()
    watch = {"run": "watch"}
    assert read == {
        RATE: [({}, 20)],
        DEGRADED: [({}, 0)],
        JOBS: [(watch, 1)],
        LAG: [(watch, 0)],
    }


async def test_runs_of_several_clients_add_up() -> None:
    """The jobs of all runs of a kind are added; the lag is that of the oldest."""
    emulator = Emulator(rate=1e4)
    sdk = Sdk()
    jobs = [emulator.add_job() for _ in range(20)]
    async with (
        emulator.client(on_attempt=sdk.telemetry(), rate=2) as slow,
        emulator.client(on_attempt=sdk.telemetry(), rate=100) as fast,
    ):
        async with (
            slow.watch(jobs, interval=1),
            fast.watch(jobs[:3], interval=1),
            fast.as_completed(jobs[:2]),
        ):
            await asyncio.sleep(5)
            found = {point["run"]: value for point, value in sdk.points(JOBS)}
            assert found == {"watch": 23, "as_completed": 2}
            lags = {point["run"]: value for point, value in sdk.points(LAG)}
            assert lags["watch"] == pytest.approx(4, abs=0.5)
        assert [value for _, value in sdk.points(JOBS)] == [0, 0]
        assert [value for _, value in sdk.points(LAG)] == [0, 0]


@settings(max_examples=times(200))
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), min_size=1, max_size=4))
def test_no_job_stays_counted(leavings: list[tuple[float, bool]]) -> None:
    """Runs that are left at any instant, cancelled or closed with their client, leave no job."""
    emulator = Emulator()
    job_ids = [emulator.add_job(duration=20) for _ in range(3)]
    sdk = Sdk()

    async def consume(client: LiveAuditClient) -> None:
        async with client.as_completed(job_ids, interval=3) as outcomes:
            async for _ in outcomes:
                pass

    async def leave(after: float, closes: bool) -> None:
        async with emulator.client(on_attempt=sdk.telemetry()) as client:
            consumer = asyncio.create_task(consume(client))
            await asyncio.wait([consumer], timeout=after)
            if closes:
                await client.aclose()
            consumer.cancel()
            await asyncio.wait([consumer])
            if not consumer.cancelled():
                consumer.exception()

    async def main() -> None:
        await asyncio.gather(*(leave(*leaving) for leaving in leavings))

    run_virtual(main)
    assert [value for _, value in sdk.points(JOBS)] in ([], [0])
    assert sdk.points(RATE) == []


async def test_a_run_that_is_forgotten_counts_no_more() -> None:
    """What was entered and never left, as its loop is gone, is not counted for ever."""
    sdk = Sdk()
    telemetry = sdk.telemetry()
    run = type("Run", (), {"kind": "watch", "open": 5, "lag": 1.0})()
    telemetry.run_began(run)
    assert sdk.points(JOBS) == [({"run": "watch"}, 5)]
    del run
    gc.collect()
    assert sdk.points(JOBS) == [({"run": "watch"}, 0)]


def test_receivers_and_checkpoints_are_counted() -> None:
    """Several add up; each counts once however often it is given; unknown words are one."""
    sdk = Sdk()
    telemetry = sdk.telemetry()
    receiver = SimpleNamespace(counts={"taken": 1})
    checkpoint = SimpleNamespace(takeovers=0)
    for source in (receiver, receiver, checkpoint, SimpleNamespace(counts={"taken": 4, "odd": 2})):
        telemetry.observe(source)
    receiver.counts["busy"] = 7
    checkpoint.takeovers = 3
    assert {point["result"]: value for point, value in sdk.points("ci_live_audit.callbacks")} == {
        "taken": 5,
        "busy": 7,
        "_OTHER": 2,
    }
    assert sdk.points("ci_live_audit.ledger.takeovers") == [({}, 3)]
    with pytest.raises(ConfigurationError, match="a receiver of callbacks or a shared checkpoint"):
        telemetry.observe(object())
