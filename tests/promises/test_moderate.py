"""However a moderation is left, no job runs on unseen, and no finding is lost.

By the emulator's own count, on virtual time; what is killed is a real process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest
from children import children
from command_line import served
from proofs import IN_FULL, times
from runs import now, tasks

from ci_live_audit import (
    Checkpoint,
    ConfigurationError,
    Finding,
    LiveAuditClient,
    Moderation,
    SnapshotFinding,
    StateChange,
    WatchFailed,
)
from ci_live_audit.models import ENDED
from ci_live_audit.testing import Emulator, Fault, frame

STREAMS, AT_ONCE = times(200) * (1 if IN_FULL else 2), 10
# How often a run over all of them is left at the least.
LEAVES = times(30)
# Of the process that is killed.
SHORT, KILLS = times(100) * (1 if IN_FULL else 2), times(20)


def url(number: int) -> str:
    """Return the URL of a stream."""
    return f"rtmp://live.example.com/app/{number}"


class Left(Exception):
    """What is raised in a block to leave it."""


@attrs.define
class Account:
    """What was handed out of each stream, over all runs, and what was named."""

    shown: set[tuple[str, str | None]] = attrs.field(factory=set[tuple[str, "str | None"]])
    over: set[str] = attrs.field(factory=set[str])
    lost: set[str] = attrs.field(factory=set[str])
    keys: list[str] = attrs.field(factory=list[str])

    def add(self, finding: Finding) -> None:
        """Count a finding that was handed out."""
        assert finding.stream is not None
        address = finding.stream.url
        match finding:
            case SnapshotFinding():
                self.shown.add((address, finding.label))
            case StateChange(job=job) if job.ended:
                if job.state != "Cancelled":
                    self.over.add(address)
            case WatchFailed(error=error):
                assert error.may_have_happened, error
                self.lost.add(address)
                return  # named by each run
            case _:
                pass
        self.keys.append(finding.key)


def most_at_once(emulator: Emulator) -> int:
    """Return how many jobs ran at the same time, at most."""
    steps: list[tuple[float, int]] = []
    for job in emulator.jobs.values():
        assert job.started is not None
        end = job.started + job.stream.duration
        steps += [(job.started, 1), (min(end, job.cancelled or end), -1)]
    count = most = 0
    for _, step in sorted(steps):
        count += step
        most = max(most, count)
    return most


def running(emulator: Emulator, time: float) -> Counter[str | None]:
    """Return how many jobs of each stream run."""
    return Counter(job.url for job in emulator.jobs.values() if job.state(time) not in ENDED)


async def moderated(
    client: LiveAuditClient, moderation: Moderation, account: Account, seconds: float, way: str
) -> None:
    """Moderate for some seconds, then leave in one way."""

    async def consume() -> None:
        async with moderation as findings, asyncio.timeout(leave_after):
            async for finding in findings:
                account.add(finding)

    leave_after = seconds if way == "exception" else None
    task = asyncio.create_task(consume())
    if way == "exception":
        with contextlib.suppress(TimeoutError):
            await task
        return
    await asyncio.wait([task], timeout=seconds)
    if way == "cancellation":
        task.cancel()
    else:
        await client.aclose()
    with contextlib.suppress(asyncio.CancelledError, ConfigurationError):
        await task


@pytest.mark.parametrize("seed", range(times(10)))
async def test_nothing_runs_on_unseen(seed: int, tmp_path: Path) -> None:
    """200 streams, ten at once, while requests fail and the run is left at random instants."""
    rng = random.Random(seed)
    emulator = Emulator(seed=seed)
    labels = [f"Label{number}" for number in range(3)]
    for number in range(STREAMS):
        duration = rng.uniform(3, 20)
        script = [frame(rng.uniform(0, duration), label) for label in labels]
        emulator.add_stream(url(number), duration=duration, script=script)
    emulator.inject(Fault.throttle(), share=0.01)
    emulator.inject(Fault.error(500), share=0.01, operation="query")
    emulator.inject(Fault.error(500), share=0.05, operation="cancel")
    emulator.inject(Fault.reset(), share=0.015, operation="submit")
    emulator.inject(Fault.slow(1.5), share=0.1)
    account, ways = Account(), ["exception", "cancellation", "closing"]
    urls = [url(number) for number in range(STREAMS)]
    left = 0
    while len(account.over | account.lost) < STREAMS:
        left += 1
        account.keys.clear()
        # Too often for the streams to end meanwhile, then as seldom as they need.
        seconds = rng.expovariate(1 / 5 if left <= LEAVES else 1 / 60)
        with Checkpoint(tmp_path / "streams") as checkpoint:
            async with emulator.client() as client:
                run = client.moderate(urls, at_once=AT_ONCE, interval=2, checkpoint=checkpoint)
                began = now()
                await moderated(client, run, account, seconds, rng.choice(ways))
                assert now() - began < seconds + 21
        named = {one.stream.url for one in run.not_cancelled}
        for address, count in running(emulator, now()).items():
            assert count == 1
            assert address in named
        assert all(count == 1 for count in Counter(account.keys).values())
        assert tasks() == []
    assert left > LEAVES
    assert most_at_once(emulator) <= AT_ONCE
    # Whatever ended by itself was seen as a whole.
    assert {(address, label) for address in account.over for label in labels} <= account.shown
    assert len(account.lost) < STREAMS / 5


# What a child runs.
RUNS = f"""
import asyncio, json, os, signal, sys
from ci_live_audit import Checkpoint, LiveAuditClient, SnapshotFinding, StateChange, WatchFailed
from ci_live_audit.transport import connections

urls = [f"rtmp://live.example.com/app/{{number}}" for number in range({SHORT})]
found = os.open("found", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(*line):
    os.write(found, json.dumps(line).encode() + b"\\n")

async def run(generation):
    async with LiveAuditClient(rate=500) as client:
        with Checkpoint("streams") as checkpoint:
            async with client.moderate(
                urls, at_once={AT_ONCE}, interval=0.05, checkpoint=checkpoint
            ) as findings:
                async for one in findings:
                    over = isinstance(one, StateChange) and one.job.ended
                    lost = isinstance(one, WatchFailed) and one.error.may_have_happened
                    kind = "over" if over else "lost" if lost else type(one).__name__
                    note(generation, one.stream.url, one.job_id, kind, one.label, one.key)
        if generation < {KILLS}:
            open("done", "w").close()
            await asyncio.sleep(3600)
"""


def test_a_killed_process_leaves_nothing_unseen(tmp_path: Path) -> None:
    """Each job is watched by the next run or named, no stream has two, and no finding is lost."""
    rng = random.Random(1)
    emulator = Emulator(rate=math.inf)
    labels = [f"Label{number}" for number in range(3)]
    for number in range(SHORT):
        duration = rng.uniform(0.1, 0.4)
        script = [frame(rng.uniform(0, duration), label) for label in labels]
        emulator.add_stream(url(number), duration=duration, script=script)
    found = tmp_path / "found"
    found.touch()
    with served(emulator) as environ, children(RUNS, tmp_path, environ) as runs:
        for generation in range(KILLS):
            runs.start(generation)
            enough = len(emulator.arrivals) + rng.randint(1, 30)
            while len(emulator.arrivals) < enough and not (tmp_path / "done").exists():
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.003)
            runs.kill()
        runs.start(KILLS)
        assert runs.wait() == 0

    lines = [json.loads(line) for line in found.read_text().splitlines()]
    seen = {job_id for _, _, job_id, *_ in lines}
    lost = {address for _, address, _, kind, *_ in lines if kind == "lost"}
    over = {address for _, address, _, kind, *_ in lines if kind == "over"}
    shown = {(address, label) for _, address, _, _, label, _ in lines}
    assert over | lost == {url(number) for number in range(SHORT)}
    assert max(Counter(job.url for job in emulator.jobs.values()).values()) == 1
    assert all(job.job_id in seen or job.url in lost for job in emulator.jobs.values())
    assert {(address, label) for address in over for label in labels} <= shown
    assert max(Counter((line[0], line[-1]) for line in lines).values()) == 1
    assert most_at_once(emulator) <= AT_ONCE
