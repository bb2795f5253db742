"""What a file and Redis promise alike, to every kind of run."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Clock

from ci_live_audit import (
    Checkpoint,
    Finding,
    JobState,
    LiveAuditClient,
    SnapshotFinding,
    StateChange,
    Stream,
    WatchFailed,
)
from ci_live_audit.redis import RedisCheckpoint
from ci_live_audit.testing import Emulator, Fault, frame
from ci_live_audit.testing.render import Refusal

pytestmark = pytest.mark.waits


def url(name: object) -> str:
    """Return the URL of a stream."""
    return f"rtmp://live.example.com/app/{name}"


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Checkpoint:
        self._checkpoint = Checkpoint(self._path)
        return self._checkpoint

    async def __aexit__(self, *_: object) -> None:
        self._checkpoint.close()


@pytest.fixture(params=["file", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a function that opens the same checkpoint of either kind each time."""
    if request.param == "file":
        return lambda: _File(tmp_path / "checkpoint")
    server, name = request.getfixturevalue("redis"), f"both {time.monotonic_ns()}"
    return lambda: RedisCheckpoint(server.url, name, ttl=3.0)


@pytest.fixture
def clock() -> Clock:
    """Return the service's clock."""
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Emulator:
    """Return a service without a quota, whose time a test sets."""
    return Emulator(rate=math.inf, clock=clock)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client(rate=1000) as client:
        yield client


async def all_of(run: Any) -> list[Any]:
    """Return all that a run hands out."""
    async with run as items:
        return [one async for one in items]


async def test_what_is_answered_is_not_asked_again(
    emulator: Emulator, client: LiveAuditClient, clock: Clock, kept: Any
) -> None:
    """`as_completed` in a later run follows only what is open, given or not."""
    given = [emulator.add_job(duration=10) for _ in range(3)]
    runs = emulator.add_job(duration=3600)
    clock.seconds = 100
    async with (
        kept() as checkpoint,
        client.as_completed([*given, runs], 0.05, checkpoint=checkpoint) as outcomes,
    ):
        found = {(await anext(outcomes)).job_id for _ in given}
    assert found == {*given}
    async with kept() as checkpoint:
        later = await all_of(client.as_completed(given, 0.05, 0.3, checkpoint=checkpoint))
    assert [one.job_id for one in later] == [runs]
    polled = Counter(one.path for one in emulator.arrivals)
    assert {polled[f"/video/auditing/{job_id}"] for job_id in given} == {1}


async def test_a_watch_goes_on_where_it_was(
    emulator: Emulator, client: LiveAuditClient, clock: Clock, kept: Any
) -> None:
    """Left after each finding, nothing comes twice and nothing is missed."""
    job_id = emulator.add_job(duration=10, script=[frame(number, "Porn") for number in range(4)])
    clock.seconds = 100
    whole = [one.key for one in await all_of(client.watch([job_id], 0.05))]
    parts: list[str] = []
    for _ in whole:
        async with (
            kept() as checkpoint,
            client.watch([job_id], 0.05, checkpoint=checkpoint) as findings,
        ):
            parts.append((await anext(findings)).key)
    assert parts == whole
    async with kept() as checkpoint:
        assert await all_of(client.watch([job_id], 0.05, checkpoint=checkpoint)) == []


async def test_the_finding_in_hand_comes_again(
    emulator: Emulator, client: LiveAuditClient, kept: Any
) -> None:
    """With the same key, when the block was left by an exception."""
    job_id = emulator.add_job(duration=0, script=[frame(0, "Porn")])
    hands: list[Finding] = []

    async def fail() -> None:
        async with (
            kept() as checkpoint,
            client.watch([job_id], 0.05, checkpoint=checkpoint) as findings,
        ):
            hands.append(await anext(findings))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await fail()
    assert hands[0].key == hands[1].key


async def test_what_moderate_has_finished_is_not_submitted_again(
    emulator: Emulator, client: LiveAuditClient, clock: Clock, kept: Any
) -> None:
    """What it cancelled on the way out is, as the stream may still run."""
    emulator.add_stream(url(1), duration=10)
    emulator.add_stream(url(2), duration=3600)
    for number in (1, 2):
        async with kept() as checkpoint:
            run = client.moderate([url(1), url(2)], interval=0.05, checkpoint=checkpoint)
            is_over = number == 2
            async with run as findings:
                finding = await anext(findings)
                while not is_over:
                    clock.seconds += 20 * (len(emulator.jobs) == 2)
                    finding = await anext(findings)
                    is_over = isinstance(finding, StateChange) and finding.job.ended
            assert [one.stream for one in run.cancelled] == [Stream(url(2))]
    assert Counter(job.url for job in emulator.jobs.values()) == {url(1): 1, url(2): 2}


async def test_a_submission_in_doubt_is_named_by_each_later_run(
    emulator: Emulator, client: LiveAuditClient, kept: Any
) -> None:
    """It is not submitted again, and its URL is kept without what may be secret."""
    emulator.inject(Fault.reset(), times=1, operation="submit")
    streams = [Stream(url(1) + "?secret=1")]
    for given in (streams, streams, []):
        async with kept() as checkpoint:
            (finding,) = await all_of(client.moderate(given, checkpoint=checkpoint))
        assert isinstance(finding, WatchFailed)
        assert finding.error.may_have_happened
        assert str(finding.stream) == url(1)
    assert len(emulator.jobs) == 1


async def test_a_stream_that_was_refused_may_come_again(
    emulator: Emulator, client: LiveAuditClient, kept: Any
) -> None:
    """In a later run."""
    emulator.add_stream(url(1), duration=3600)
    emulator.inject(Fault(refusal=Refusal(400, "InvalidArgument", "no")), times=1)
    for number in (0, 1):
        async with (
            kept() as checkpoint,
            client.moderate([url(1)], checkpoint=checkpoint) as findings,
        ):
            finding = await anext(findings)
        assert isinstance(finding, WatchFailed) == (not number)
        assert len(emulator.jobs) == number


@pytest.mark.parametrize("cancels", [True, False])
async def test_what_cannot_be_stopped_does_not_hold_the_end(
    emulator: Emulator, client: LiveAuditClient, kept: Any, cancels: bool
) -> None:
    """A stream that is given up and runs on, as cancelling is refused, or is not wanted."""
    urls = [url(1), url(2)]
    for one in urls:
        emulator.add_stream(one, duration=3600)
    emulator.inject(Fault(refusal=Refusal(403, "AccessDenied", "no")), operation="cancel")
    async with kept() as checkpoint:
        run = client.moderate(
            urls, interval=0.05, timeout=0.3, checkpoint=checkpoint, cancel_on_exit=cancels
        )
        failed = [one.stream for one in await all_of(run) if isinstance(one, WatchFailed)]
    assert {*failed} == {Stream(one) for one in urls}
    assert {one.stream: one.error is not None for one in run.not_cancelled} == dict.fromkeys(
        failed, cancels
    )
    assert run.cancelled == ()


async def test_what_cannot_be_stopped_until_the_end_is_cancelled_then(
    emulator: Emulator, client: LiveAuditClient, kept: Any
) -> None:
    """And a later run submits it again."""
    emulator.add_stream(url(1), duration=3600)
    for number in (1, 2):
        emulator.inject(
            Fault(refusal=Refusal(403, "AccessDenied", "no")), times=1, operation="cancel"
        )
        async with kept() as checkpoint:
            run = client.moderate([url(1)], interval=0.05, timeout=0.3, checkpoint=checkpoint)
            await all_of(run)
        assert len(run.cancelled) == 1
        assert len(emulator.jobs) == number


@pytest.mark.parametrize("sees", [True, False])
async def test_an_end_that_was_not_handed_out_is_for_the_next_run(
    emulator: Emulator, client: LiveAuditClient, clock: Clock, kept: Any, sees: bool
) -> None:
    """Whether the run has seen that the stream has ended before it was left, or not."""
    script = [frame(second, "Porn") for second in (1, 2, 3)]
    emulator.add_stream(url(1), duration=10, script=script)
    async with kept() as checkpoint:
        interval = 0.05 if sees else 3600.0
        run = client.moderate([url(1)], interval=interval, checkpoint=checkpoint)
        async with run as findings:
            await anext(findings)
            clock.seconds = 100
            while sees and run._supervisor._places.freed == 0:
                await asyncio.sleep(0.01)
    async with kept() as checkpoint:
        later = await all_of(client.moderate([url(1)], interval=0.05, checkpoint=checkpoint))
    assert sum(isinstance(one, SnapshotFinding) for one in later) == 3
    assert later[-1].job.state == JobState.SUCCESS
    assert len(emulator.jobs) == 1
