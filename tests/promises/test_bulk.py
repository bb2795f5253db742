"""A bulk run loses no id, whatever fails, and goes on after any end of its process."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from proofs import times

from ci_live_audit import (
    Checkpoint,
    JobNotFound,
    LiveAuditError,
    Outcome,
    RetryPolicy,
    StateChange,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.following.ids import Source
from ci_live_audit.testing import Emulator, Fault

NUMBER = 200
FAULTS = [
    Fault.throttle(),
    Fault.throttle(status=503),
    Fault.error(500),
    Fault.error(503),
    Fault.reset(),
    Fault.truncated(),
    Fault.garbage(),
    Fault.slow(20),
]


class Bulk:
    """200 ids: jobs that end well, fail or go on, unknown ids, and impossible ones."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.emulator = Emulator(rate=1e6, seed=seed)
        kinds = rng.choices(
            ["good", "failing", "endless", "unknown", "bad"], [6, 1, 1, 1, 1], k=NUMBER
        )
        self.kinds = {self._add(kind, number): kind for number, kind in enumerate(kinds)}
        self.ids = list(self.kinds)
        for fault in rng.sample(FAULTS, rng.randint(0, 4)):
            self.emulator.inject(fault, share=rng.uniform(0, 0.15))
        self.given = self.ids + rng.choices(self.ids, k=rng.randrange(100))
        rng.shuffle(self.given)

    def _add(self, kind: str, number: int) -> str:
        job_id = f"av{number}"
        if kind in {"unknown", "bad"}:
            return job_id if kind == "unknown" else f"../{number}"
        duration = math.inf if kind == "endless" else self.rng.uniform(0, 30)
        failure = ("Code", "message") if kind == "failing" else None
        return self.emulator.add_job(job_id, duration=duration, script=[], failure=failure)

    def client(self) -> Any:
        return self.emulator.client(rate=20, timeout=15, retry=RetryPolicy(attempts=2))

    def source(self, kind: str, given: list[str], *, breaks: bool = False) -> Source:
        sources: dict[str, Source] = {
            "list": given,
            "iterable": self._one_by_one(given, breaks=breaks),
            "async iterable": self._arriving(given, breaks=breaks),
        }
        return sources[kind]

    def _one_by_one(self, given: list[str], *, breaks: bool) -> Iterator[str]:
        for number, job_id in enumerate(given):
            if breaks and number == len(given) // 2:
                raise ConnectionError("no more ids")
            yield job_id

    async def _arriving(self, given: list[str], *, breaks: bool) -> AsyncGenerator[str, None]:
        for job_id in self._one_by_one(given, breaks=breaks):
            yield job_id
            await asyncio.sleep(self.rng.choice([0, 0, 0.01, 0.2]))

    def assert_right(self, outcome: Outcome) -> None:
        """Assert that the job has ended or there is an error, and both are about this id."""
        kind = self.kinds[outcome.job_id]
        assert outcome.job is not None or outcome.error is not None
        if outcome.job is not None:
            assert outcome.job.job_id == outcome.job_id
            assert outcome.job.ended == (not isinstance(outcome.error, WaitTimeout))
            assert kind in ({"good", "failing"} if outcome.job.ended else {*self.kinds.values()})
        if outcome.error is not None:
            assert isinstance(outcome.error, LiveAuditError)
            assert outcome.error.job_id in {outcome.job_id, None}
        assert outcome.error is not None or kind == "good"


SOURCES = ["list", "iterable", "async iterable"]
#: Seconds; each job is polled two or three times.
INTERVAL = 40.0
TIMEOUT = 70.0


@pytest.mark.parametrize("seed", range(times(100)))
async def test_r11_results_and_errors_are_the_inputs(seed: int) -> None:
    """Of 200 ids that may fail in every way, each has one outcome, and the right one."""
    bulk = Bulk(seed)
    got: Counter[str] = Counter()
    source = bulk.source(SOURCES[seed % 3], bulk.given)
    async with bulk.client() as client, client.as_completed(source, INTERVAL, TIMEOUT) as outcomes:
        async for outcome in outcomes:
            got[outcome.job_id] += 1
            bulk.assert_right(outcome)
            if bulk.rng.random() < 0.02:
                await asyncio.sleep(bulk.rng.uniform(0, 5))
    assert got == Counter(bulk.ids)


@pytest.mark.parametrize("seed", range(times(40)))
async def test_r11_a_checkpoint_joins_the_parts(seed: int, tmp_path: Path) -> None:
    """Left by break, exception, cancellation or a broken source, all parts make up the inputs.

    Jobs that did not end in time and impossible ids come again in each part, and stay open.
    """
    bulk = Bulk(1000 + seed)
    rng = bulk.rng
    ended: Counter[str] = Counter()
    in_hand = 0
    file = tmp_path / "run"
    ends = [*rng.choices(["break", "raise", "cancel", "source"], k=3), ""]

    async def part(end: str) -> None:
        kind = rng.choice(SOURCES[1:] if end == "source" else SOURCES)
        source = bulk.source(kind, bulk.given, breaks=end == "source")
        left = rng.randint(1, NUMBER // 4)
        with Checkpoint(file) as checkpoint:
            run = client.as_completed(source, INTERVAL, TIMEOUT, checkpoint=checkpoint)
            async with run as outcomes:
                async for outcome in outcomes:
                    bulk.assert_right(outcome)
                    unknown = isinstance(outcome.error, JobNotFound)
                    if unknown or (outcome.job is not None and outcome.job.ended):
                        ended[outcome.job_id] += 1
                    left -= 1
                    if left <= 0 and end == "break":
                        break
                    if left <= 0 and end == "raise":
                        raise ZeroDivisionError

    async with bulk.client() as client:
        for end in ends:
            task = asyncio.create_task(part(end))
            if end == "cancel":
                asyncio.get_running_loop().call_later(rng.uniform(0, 30), task.cancel)
            await asyncio.wait([task])
            if task.cancelled():
                in_hand += 1
            elif task.exception() is not None:
                assert isinstance(task.exception(), ZeroDivisionError | ConnectionError)
                in_hand += 1
            else:
                assert end in {"break", "cancel", ""}
    # The outcome in hand at an exception may come again.
    assert ended.total() - len(ended) <= in_hand
    with Checkpoint(file) as checkpoint:
        assert set(checkpoint.open) == set(bulk.ids) - ended.keys()
        assert checkpoint.answered == len(ended)
    assert {bulk.kinds[job_id] for job_id in ended} == {"good", "failing", "unknown"}


@pytest.mark.parametrize("seed", range(times(40)))
async def test_r11_a_watch_ends_each_job_once(seed: int) -> None:
    """Each of 200 watched jobs ends with one final state or one error."""
    bulk = Bulk(2000 + seed)
    ends: Counter[str] = Counter()
    source = bulk.source(SOURCES[seed % 3], bulk.given)
    async with bulk.client() as client, client.watch(source, INTERVAL, TIMEOUT) as findings:
        async for finding in findings:
            ended = isinstance(finding, StateChange) and finding.job.ended
            ends[finding.job_id] += ended or isinstance(finding, WatchFailed)
    assert ends == Counter(bulk.ids)


# R12: any end of the process

JOBS = 600
#: A run in a process of its own, which says when it has started and notes its outcomes.
RUN = f"""
import asyncio, os, random, sys
from ci_live_audit import AuditJob, Checkpoint, JobNotFound, JobState, Outcomes
from ci_live_audit.following.polling import Polling

polled = {{}}

async def query(job_id, _=None):
    await asyncio.sleep(random.random() / 500)
    number = int(job_id[2:])
    polled[job_id] = polled.get(job_id, 0) + 1
    if number % 40 == 0:
        raise JobNotFound("no such job", status=404, code="AuditingJobNotFound")
    ended = polled[job_id] > number % 3
    return AuditJob(job_id=job_id, state=JobState.SUCCESS if ended else JobState.AUDITING)

async def main():
    ids = [f"av{{number}}" for number in range({JOBS})]
    notes = os.open("outcomes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Checkpoint("checkpoint") as checkpoint:
        async with Outcomes(Polling(query, 0.001, checkpoint=checkpoint), ids) as outcomes:
            print("under way", flush=True)
            async for outcome in outcomes:
                os.write(notes, outcome.job_id.encode() + b"\\n")
                await asyncio.sleep(0.002)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_r12_a_run_stopped_by_a_signal_resumes_later(tmp_path: Path, sign: signal.Signals) -> None:
    """Stopped at random times again and again, all parts together answer every id."""
    rng = random.Random(sign)
    stops = times(30)
    stopped = 0
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", RUN],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "under way\n"
            if stopped < stops:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(rng.uniform(0, 0.02))
                run.send_signal(sign)
            _, complaints = run.communicate(timeout=60)  # or it hangs
        assert complaints == ""
        if run.returncode == 0:
            break
        assert run.returncode == (130 if sign == signal.SIGINT else -signal.SIGTERM)
        stopped += 1
    assert stopped >= 1
    noted = Counter((tmp_path / "outcomes").read_text().split())
    assert noted.keys() == {f"av{number}" for number in range(JOBS)}
    assert noted.total() - JOBS <= stopped  # an outcome in hand may come again
    with Checkpoint(tmp_path / "checkpoint") as checkpoint:
        assert (checkpoint.open, checkpoint.answered) == ((), JOBS)
