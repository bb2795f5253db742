"""Whatever happens around a run, no id is lost, and none is answered before its end is known.

On virtual time, against the emulator.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from clocks import stand_still
from proofs import IN_FULL, times
from runs import now, outcomes_of, tasks

from ci_live_audit import (
    AuditJob,
    Checkpoint,
    ConfigurationError,
    JobState,
    LiveAuditClient,
    Outcome,
    Outcomes,
    ServiceError,
    WaitTimeout,
)
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.recent import REMEMBERED
from ci_live_audit.testing import Emulator, Fault
from ci_live_audit.testing.render import Refusal


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(rate=1e6)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client(rate=20) as client:
        yield client


def polled(emulator: Emulator, since: int = 0) -> set[str]:
    """Return the ids that were polled."""
    return {arrival.path.rpartition("/")[2] for arrival in emulator.arrivals[since:]}


# The client is closed


async def test_closing_the_client_answers_no_id(emulator: Emulator, tmp_path: Path) -> None:
    """Closed after 5 of 60 outcomes, the run ends with one error, and 55 ids are open."""
    ids = [emulator.add_job(duration=5) for _ in range(60)]
    client = emulator.client(rate=20)
    got: list[Outcome] = []

    async def follow() -> None:
        run = client.as_completed(ids, checkpoint=checkpoint)
        async with run as outcomes:
            async for outcome in outcomes:
                got.append(outcome)
                if len(got) == 5:
                    await client.aclose()

    with Checkpoint(tmp_path / "run") as checkpoint:
        with pytest.raises(ConfigurationError, match="closed"):
            await follow()
        assert all(outcome.error is None for outcome in got)
        assert (checkpoint.answered, len(checkpoint.open)) == (len(got), 60 - len(got))
        since = len(emulator.arrivals)
        async with emulator.client(rate=20) as another:
            rest = await outcomes_of(another.as_completed(ids, checkpoint=checkpoint))
        assert Counter(outcome.job_id for outcome in [*got, *rest]) == Counter(ids)
        assert polled(emulator, since) == {outcome.job_id for outcome in rest}
    assert tasks() == []


# Which errors answer an id

LASTING = [
    (404, "NoSuchBucket"),
    (400, "InvalidHost"),
    (403, "QueuePaused"),
    (501, "NotImplemented"),
    (301, "PermanentRedirect"),
    (451, "UnavailableForLegalReasons"),
    (411, "MissingContentLength"),
    (403, "AccessDenied"),
    (401, "InvalidAuthorization"),
    (400, "InvalidBucketName"),
    (405, "MethodNotAllowed"),
]


def refuse(emulator: Emulator, status: int, code: str) -> None:
    """Refuse every request."""
    emulator.inject(Fault(refusal=Refusal(status, code, "no")))


@pytest.mark.parametrize(("status", "code"), LASTING)
async def test_a_fault_of_the_account_ends_the_run(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path, status: int, code: str
) -> None:
    """Of 10,000 ids a few have outcomes, the error ends the run, and all stay open in the file."""
    ids = [emulator.add_job(duration=0) for _ in range(10)]
    ids += [f"av{number}" for number in range(9990)]
    refuse(emulator, status, code)
    got: list[Outcome] = []

    async def follow() -> None:
        async with client.as_completed(ids, checkpoint=checkpoint) as outcomes:
            got.extend([outcome async for outcome in outcomes])

    with Checkpoint(tmp_path / "run") as checkpoint:
        with pytest.raises(ServiceError, match=code) as caught:
            await follow()
        assert (caught.value.status, caught.value.code) == (status, code)
        assert len(got) < 5
        assert checkpoint.answered == 0
        emulator.faults.clear()
        results = await outcomes_of(client.as_completed(ids[:10], checkpoint=checkpoint))
        assert {outcome.job_id for outcome in results} >= set(ids[:10])
        assert now() < 60


@pytest.mark.parametrize(("status", "code"), LASTING)
async def test_a_fault_of_the_account_is_no_outcome_for_ever(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path, status: int, code: str
) -> None:
    """With fewer ids than it takes, each has the error as its outcome and stays open."""
    ids = [emulator.add_job(duration=0) for _ in range(3)]
    refuse(emulator, status, code)
    with Checkpoint(tmp_path / "run") as checkpoint:
        refused = await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))
        assert {getattr(outcome.error, "code", "") for outcome in refused} == {code}
        assert (checkpoint.answered, sorted(checkpoint.open)) == (0, sorted(ids))
        emulator.faults.clear()
        results = await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))
        assert [outcome.error for outcome in results] == [None] * 3
        assert (checkpoint.answered, checkpoint.open) == (3, ())


async def test_ten_thousand_unknown_ids_end_no_run(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """That there is no such job is an outcome, and answers the id."""
    ids = [f"av{number}" for number in range(times(10_000) or 1000)]
    with Checkpoint(tmp_path / "run") as checkpoint:
        assert len(await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))) == len(ids)
        assert (checkpoint.answered, checkpoint.open) == (len(ids), ())


async def test_a_timeout_answers_no_id(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """A later run with a longer timeout follows the jobs to their ends."""
    ids = [emulator.add_job(duration=100) for _ in range(20)]
    with Checkpoint(tmp_path / "run") as checkpoint:
        late = await outcomes_of(client.as_completed(ids, timeout=30, checkpoint=checkpoint))
        assert {type(outcome.error) for outcome in late} == {WaitTimeout}
        assert {outcome.job and outcome.job.state for outcome in late} == {JobState.AUDITING}
        results = await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))
    assert [outcome.error for outcome in results] == [None] * 20


# Outages

OUTAGES = {
    "503": Fault.error(503),
    "reset": Fault.reset(),
    "429": Fault.throttle(),
    "page": Fault.garbage(),
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_an_outage_is_waited_out(
    emulator: Emulator,
    client: LiveAuditClient,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Through 90 minutes without a response no job is given up; probes come one at a time.

    The log tells of it at once and each minute, the progress for how long it has lasted, and full
    pace is back within 20 s.
    """
    caplog.set_level(logging.WARNING, "ci_live_audit.following")
    caplog.set_level(logging.WARNING, "ci_live_audit")
    ids = [emulator.add_job(duration=5490 + number / 10) for number in range(400)]
    with Checkpoint(tmp_path / "run") as checkpoint:
        async with client.as_completed(ids, checkpoint=checkpoint) as outcomes:
            await asyncio.sleep(60)
            assert outcomes.progress.outage is None
            emulator.inject(OUTAGES[kind])
            await asyncio.sleep(300)  # calls in progress have ended
            since, began = len(emulator.arrivals), now()
            await asyncio.sleep(5100)
            assert outcomes.progress.outage == pytest.approx(5400, abs=120)
            probes = [arrival.time for arrival in emulator.arrivals[since:]]
            assert len(probes) <= 5100 / 9
            assert min(b - a for a, b in itertools.pairwise(probes)) > 5
            assert (outcomes.progress.failed, checkpoint.answered) == (0, 0)
            emulator.faults.clear()
            back, since = now(), len(emulator.arrivals)
            results = [outcome async for outcome in outcomes]
    assert began < back
    good = [arrival.time for arrival in emulator.arrivals[since:]]
    assert good[0] - back <= 11
    assert sum(20 <= time - back < 30 for time in good) >= 195
    assert Counter(outcome.unwrap().job_id for outcome in results) == Counter(ids)
    told = [record.getMessage() for record in caplog.records if "succe" in record.getMessage()]
    assert told[0].startswith("nothing succeeds any more")
    assert 85 <= len(told) <= 91
    assert any("responds again" in record.getMessage() for record in caplog.records)


async def test_a_single_wait_survives_an_hour_of_outage(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A single job is followed like many, and seen again ten seconds after the outage."""
    job_id = emulator.add_job(duration=600)
    waiting = asyncio.create_task(client.wait(job_id))
    await asyncio.sleep(100)
    emulator.inject(Fault.error(503))
    await asyncio.sleep(3600)
    emulator.faults.clear()
    back = now()
    assert (await waiting).ended
    assert now() - back < 21


async def test_a_timeout_holds_in_an_outage(emulator: Emulator, client: LiveAuditClient) -> None:
    """Jobs with a timeout end at it, with the error of the outage as the cause."""
    ids = [emulator.add_job(duration=math.inf) for _ in range(50)]
    emulator.inject(Fault.error(503))
    results = await outcomes_of(client.as_completed(ids, timeout=900))
    assert len(results) == 50
    assert now() == pytest.approx(900, abs=0.1)
    for outcome in results:
        assert isinstance(outcome.error, WaitTimeout)
        assert isinstance(outcome.error.__cause__, ServiceError)


async def test_a_job_that_alone_fails_is_given_up(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """While other jobs succeed, one that cannot be read for ten minutes has an error."""
    ids = [emulator.add_job(duration=2000) for _ in range(3)]
    query = client.query

    async def poll(job_id: str, _: object = None) -> AuditJob:
        job = await query(job_id)
        if job_id == ids[0]:
            raise ServiceError(status=500, code="")
        return job

    results = await outcomes_of(Outcomes(Polling(poll, 10), ids))
    assert [type(outcome.error) for outcome in results] == [ServiceError, type(None), type(None)]
    assert results[0].job_id == ids[0]


# A process that was stopped, or a machine that was asleep


@pytest.mark.parametrize("asleep", [30.0, 3600.0])
@pytest.mark.parametrize("kind", ["list", "iterator"])
@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "busy"])
async def test_after_a_stop_jobs_are_polled_once_more(
    emulator: Emulator, client: LiveAuditClient, asleep: float, kind: str, *, busy: bool
) -> None:
    """Jobs that ended while the process stood still, past their deadline, have not timed out."""
    ids = [emulator.add_job(duration=25) for _ in range(20)]
    ids += [emulator.add_job(duration=math.inf) for _ in range(20)]
    run = client.as_completed(ids if kind == "list" else iter(ids), timeout=28)
    async with run as outcomes:
        if busy:
            await asyncio.sleep(22)
        else:
            asyncio.get_running_loop().call_later(22, stand_still, asleep)
        if busy:
            stand_still(asleep)
        results = [outcome async for outcome in outcomes]
    assert {outcome.job_id for outcome in results if outcome.error is None} == set(ids[:20])
    late = [outcome.error for outcome in results if outcome.error is not None]
    assert {type(error) for error in late} == {WaitTimeout}
    assert len(late) == 20
    assert now() <= 22 + asleep + 5.1


async def test_a_slow_consumer_is_no_stop(emulator: Emulator, client: LiveAuditClient) -> None:
    """A consumer that comes late gets its timeouts at once."""
    ids = [emulator.add_job(duration=math.inf) for _ in range(20)]
    async with client.as_completed(iter(ids), timeout=15) as outcomes:
        await asyncio.sleep(100)
        assert len([outcome async for outcome in outcomes]) == 20
    assert now() == pytest.approx(100, abs=0.01)


STOPPED = """
import asyncio, os, signal, sys
from ci_live_audit import LiveAuditClient, WaitTimeout
from ci_live_audit.testing import Emulator

async def main():
    emulator = Emulator()
    job_id = emulator.add_job(duration=float(sys.argv[1]))
    async with emulator.client() as client:
        waiting = asyncio.create_task(client.wait(job_id, 0.3, timeout=1.5))
        await asyncio.sleep(0.5)
        print("waiting", flush=True)
        print((await waiting).state.value)

try:
    asyncio.run(main())
except WaitTimeout:
    print("timed out")
"""


@pytest.mark.waits
@pytest.mark.parametrize(("duration", "said"), [(1.0, "Success"), (1e9, "timed out")])
def test_a_wait_that_was_stopped_sees_the_end(duration: float, said: str) -> None:
    """A process that SIGSTOP held past its timeout finds that its job has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(duration)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == f"{said}\n"


# Where ids come from


async def test_what_was_taken_off_a_queue_is_in_the_checkpoint(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """Whenever a run is left, what a queue has given is known to the checkpoint."""
    for instant in range(times(200) or 40):
        queue: asyncio.Queue[str] = asyncio.Queue()
        ids = [emulator.add_job(duration=math.inf) for _ in range(30)]
        for job_id in ids:
            queue.put_nowait(job_id)

        async def take(queue: asyncio.Queue[str] = queue) -> AsyncGenerator[str, None]:
            while True:
                yield await queue.get()

        with Checkpoint(tmp_path / f"run {instant}") as checkpoint:
            async with client.as_completed(take(), checkpoint=checkpoint):
                await asyncio.sleep(instant * 0.017)
                for _ in range(instant % 7):
                    await asyncio.sleep(0)
            taken = ids[: len(ids) - queue.qsize()]
            assert set(taken) <= set(checkpoint.open)
            # Reading ahead is bounded: one id in hand, and one that waits.
            assert len(checkpoint.open) == len(taken) <= instant * 0.017 * 20 + 4


async def test_a_source_that_was_read_is_in_the_checkpoint(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """What an iterator has given is noted before it is polled."""
    ids = [emulator.add_job(duration=math.inf) for _ in range(30)]
    given: list[str] = []

    def once() -> Iterator[str]:
        for job_id in ids:
            given.append(job_id)
            yield job_id

    with Checkpoint(tmp_path / "run") as checkpoint:
        async with client.as_completed(once(), checkpoint=checkpoint):
            await asyncio.sleep(0.6)
        assert polled(emulator) <= set(given) == set(checkpoint.open)
        assert len(given) < 20


# A checkpoint that cannot be written


class Full(Checkpoint):
    """A checkpoint on a disk that is full at times."""

    is_full = False

    def take(self, job_id: str) -> None:
        self.check()
        super().take(job_id)

    def answer(self, job_id: str, **kinds: Any) -> None:
        self.check()
        super().answer(job_id, **kinds)

    def check(self) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["list", "iterator", "async iterator"])
async def test_a_run_goes_on_when_there_is_space_again(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path, kind: str
) -> None:
    """Each write that fails is raised once, nothing is lost, and the run goes on."""
    ids = [emulator.add_job(duration=2 + number / 10) for number in range(100)]

    async def arriving() -> AsyncGenerator[str, None]:
        for job_id in ids:
            yield job_id

    sources: dict[str, Callable[[], Any]] = {
        "list": lambda: ids,
        "iterator": lambda: iter(ids),
        "async iterator": arriving,
    }
    got: Counter[str] = Counter()
    errors = 0
    with Full(tmp_path / "run") as checkpoint:
        run = client.as_completed(sources[kind](), interval=3, checkpoint=checkpoint)
        async with run as outcomes:
            while True:
                checkpoint.is_full = errors < 20 and (now() % 4 < 2)
                try:
                    got[(await anext(outcomes)).job_id] += 1
                except OSError:
                    errors += 1
                    await asyncio.sleep(0.3)
                except StopAsyncIteration:
                    break
        assert errors >= 10
        assert got == Counter(ids)
        assert (checkpoint.answered, checkpoint.open) == (100, ())


# Memory

LONGER = AuditJob(job_id="", state=JobState.AUDITING)


@pytest.mark.timeout(1800)
async def test_a_day_of_jobs_stays_within_20_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.7 million jobs one after the other, 20 a second, leave nothing that grows."""
    if not IN_FULL:
        monkeypatch.setattr("ci_live_audit.following.dispatcher.REMEMBERED", REMEMBERED // 20)
    part = 1 if IN_FULL else 20
    jobs, remembered = 1_728_000 // part, REMEMBERED // part
    grown = await _grown_by(jobs)
    assert grown < 20e6 / part + 1e6
    # After some hours as many finished ids were remembered as at the end of the day.
    assert grown - await _grown_by(2 * remembered + jobs % remembered) < 1e6


async def _grown_by(number: int) -> float:
    """Return the bytes by which memory grows from the 1,000th job of a run to this one."""

    async def query(job_id: str, _: object = None) -> AuditJob:
        return attrs.evolve(LONGER, job_id=job_id, state=JobState.SUCCESS)

    ids = (f"av{index:032}" for index in range(number))
    before = after = 0
    tracemalloc.start()
    try:
        async with Outcomes(Polling(query, 0.001), ids) as outcomes:
            count = 0
            async for _ in outcomes:
                count += 1
                if count == 1000:
                    before, _ = tracemalloc.get_traced_memory()
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


async def test_duplicates_of_an_endless_source_are_known_within_a_bound() -> None:
    """The last 50,000 finished ids of a source are not polled again."""
    polls: Counter[str] = Counter()

    async def query(job_id: str, _: object = None) -> AuditJob:
        polls[job_id] += 1
        return attrs.evolve(LONGER, job_id=job_id, state=JobState.SUCCESS)

    ids = [f"av{number}" for number in range(REMEMBERED)]
    results = await outcomes_of(Outcomes(Polling(query, 1), iter(ids + ids)))
    assert len(results) == REMEMBERED
    assert set(polls.values()) == {1}
