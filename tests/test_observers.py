"""Functions and observers are told what a client does, and harm nothing whatever they do."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from clocks import run_virtual
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times

from ci_live_audit import (
    Attempt,
    ConfigurationError,
    Credentials,
    CredentialsError,
    Finding,
    JobNotFound,
    LiveAuditClient,
    LiveAuditError,
    Observer,
    RateLimiter,
    RetryPolicy,
    ServiceUnavailable,
    StateChange,
    WatchFailed,
    calls,
)
from ci_live_audit.observers import Followed
from ci_live_audit.testing import Emulator, Fault, frame

EVENTS = ["__call__", "call_ended", "client_made", "run_began", "run_ended", "found"]


class Notes(Observer):
    """Notes everything."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.calls: list[tuple[str, str | None, float, type | None]] = []
        self.limiters: list[tuple[RateLimiter, Callable[[], bool]]] = []
        self.running: list[Followed] = []
        self.runs: list[str] = []
        self.findings: list[Finding] = []

    def __call__(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def call_ended(
        self, operation: str, job_id: str | None, seconds: float, error: BaseException | None
    ) -> None:
        self.calls.append((operation, job_id, seconds, None if error is None else type(error)))

    def client_made(self, limiter: RateLimiter, is_open: Callable[[], bool]) -> None:
        self.limiters.append((limiter, is_open))

    def run_began(self, run: Followed) -> None:
        self.running.append(run)
        self.runs.append(run.kind)

    def run_ended(self, run: Followed) -> None:
        self.running.remove(run)

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)


@pytest.mark.parametrize(
    ("hooks", "level", "made"),
    [([], logging.INFO, 0), ([], logging.DEBUG, 1), ([lambda attempt: None], logging.INFO, 1)],
)
async def test_a_record_is_made_for_those_who_see_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hooks: list[Any],
    level: int,
    made: int,
) -> None:
    """A success that nobody is told of costs no record of it."""
    records: list[Attempt] = []

    def record(**known: Any) -> Attempt:
        records.append(Attempt(**known))
        return records[-1]

    monkeypatch.setattr(calls, "Attempt", record)
    emulator = Emulator()
    with caplog.at_level(level, "ci_live_audit"):
        async with emulator.client(on_attempt=hooks) as client:
            await client.query(emulator.add_job())
    assert len(records) == made


@pytest.mark.parametrize("gather", [list, tuple, iter, lambda hooks: (one for one in hooks)])
async def test_all_functions_are_told_of_every_attempt(
    gather: Callable[[Any], Iterable[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails is logged each time, and harms no other."""
    emulator = Emulator()
    first: list[Attempt] = []
    notes = Notes()

    def fail(_: Attempt) -> None:
        raise ValueError("mine")

    hooks = gather([first.append, fail, notes])
    async with emulator.client(on_attempt=hooks) as client:
        for _ in range(3):
            await client.query(emulator.add_job())
    assert len(first) == 3
    assert notes.attempts == first
    assert caplog.text.count("on_attempt failed") == 3


@pytest.mark.parametrize("hooks", [5, [print, 5], [asyncio.sleep], [[print]], [None], b"ab"])
def test_what_is_no_function_is_refused(hooks: Any) -> None:
    """Each of several is checked when the client is made."""
    with pytest.raises(ConfigurationError, match="on_attempt"):
        Emulator().client(on_attempt=hooks)


async def test_a_sibling_has_its_own_hooks() -> None:
    """They take the place of the client's; none at all are possible, too."""
    emulator = Emulator()
    first, second = Notes(), Notes()
    async with emulator.client(on_attempt=first) as client:
        job_id = emulator.add_job()
        await client.with_options(on_attempt=second).query(job_id)
        assert not first.attempts
        assert second.calls[0][:2] == ("query", job_id)
        await client.with_options(on_attempt=[]).query(job_id)
        assert (first.calls, len(second.calls)) == ([], 1)
        ((limiter, is_open),) = first.limiters
        assert second.limiters == [(limiter, is_open)]
        assert is_open()
    assert not is_open()


async def test_an_observer_is_told_of_every_end_of_a_call() -> None:
    """Success, error, cancellation, a closed client: the seconds include waits and retries."""
    emulator = Emulator()
    notes = Notes()
    job_id = emulator.add_job()
    policy = RetryPolicy(attempts=2)
    async with emulator.client(on_attempt=notes, retry=policy, rate=1) as client:
        await client.query(job_id)
        emulator.inject(Fault.error(503), times=2)
        with pytest.raises(ServiceUnavailable):
            await client.cancel(job_id)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.1):
                await client.submit("rtmp://live.example.com/app/room7")
    with pytest.raises(ConfigurationError):
        await client.query(job_id)
    assert notes.calls == [
        ("query", job_id, pytest.approx(0, abs=0.01), None),
        ("cancel", job_id, pytest.approx(2, abs=0.1), ServiceUnavailable),
        ("submit", None, pytest.approx(0.1, abs=0.01), asyncio.CancelledError),
        ("query", job_id, 0, ConfigurationError),
    ]


async def test_an_attempt_says_where_it_went_and_how_it_passed_the_limiter() -> None:
    """Single calls and polls have their lanes; what never passed has none."""
    emulator = Emulator()
    notes = Notes()
    job_id = emulator.add_job(duration=1)
    async with emulator.client(on_attempt=notes) as client:
        await client.query(job_id)
        await client.wait(job_id, interval=2)
    async with emulator.client(on_attempt=notes, credentials=no_credentials) as client:
        with pytest.raises(CredentialsError):
            await client.query(job_id)
    assert {attempt.endpoint for attempt in notes.attempts} == {f"https://{emulator.host}"}
    assert [attempt.lane for attempt in notes.attempts] == ["call", "poll", "poll", None]


def no_credentials() -> Credentials:
    raise OSError("the vault is sealed")


async def test_runs_are_seen_from_their_beginning_to_their_end() -> None:
    """Each says what made it, and how many jobs are open."""
    emulator = Emulator()
    notes = Notes()
    jobs = [emulator.add_job(duration=5), emulator.add_job(duration=15)]
    async with emulator.client(on_attempt=notes) as client:
        assert (await client.wait(jobs[0])).ended
        assert notes.running == []
        async with client.as_completed(jobs) as outcomes, client.watch(jobs) as findings:
            assert [run.open for run in notes.running] == [2, 2]
            async for _ in outcomes:
                break
            assert notes.running[0].open == 1
            found = [finding async for finding in findings]
            assert notes.running[1].open == 0
        assert notes.running == []
    assert notes.runs == ["wait", "as_completed", "watch"]
    assert notes.findings == found


async def test_an_error_that_ends_a_run_leaves_no_job_open() -> None:
    """What is followed no longer is not open, even before the run is left."""
    emulator = Emulator()
    notes = Notes()
    async with emulator.client(on_attempt=notes) as client, client.watch(["a", "b"]):
        await client.aclose()
        await asyncio.sleep(0.01)
        assert [run.open for run in notes.running] == [0]
        assert notes.running[0].lag == 0


async def test_the_lag_is_how_overdue_the_oldest_job_is() -> None:
    """It grows while the quota is used by others, or nobody takes what was found."""
    emulator = Emulator(rate=1e4)
    notes = Notes()
    job_ids = [emulator.add_job() for _ in range(60)]
    async with emulator.client(on_attempt=notes, rate=10) as client:
        async with client.watch(job_ids, interval=1):
            (run,) = notes.running
            assert run.lag == 0
            await asyncio.sleep(4.5)  # 45 of 60, whose first states nobody takes
            assert run.lag == pytest.approx(3.5, abs=0.2)
            await asyncio.sleep(100)
            assert run.lag == pytest.approx(103.5, abs=0.2)
        async with client.watch(job_ids[:5], interval=10) as findings:
            (run,) = notes.running
            for _ in range(5):
                await anext(findings)
            await asyncio.sleep(9)
            assert run.lag == 0


@settings(max_examples=times(500))
@given(st.floats(0, 30), st.sampled_from(["watch", "as_completed", "wait"]))
def test_a_run_that_is_left_at_any_instant_has_ended(seconds: float, way: str) -> None:
    """Whatever cancels the consumer, its run is told to end, once."""
    emulator = Emulator()
    job_ids = [emulator.add_job(duration=20) for _ in range(3)]
    notes = Notes()

    async def consume(client: LiveAuditClient) -> None:
        if way == "wait":
            await client.wait(job_ids[0], interval=3)
            return
        async with getattr(client, way)(job_ids, interval=3) as run:
            async for _ in run:
                pass

    async def main() -> None:
        async with emulator.client(on_attempt=notes) as client:
            consumer = asyncio.create_task(consume(client))
            await asyncio.wait([consumer], timeout=seconds)
            consumer.cancel()
            await asyncio.wait([consumer])
            assert notes.running == []
            assert len(notes.runs) <= 1

    run_virtual(main)


async def test_an_error_of_a_single_job_is_a_finding_as_well() -> None:
    """It is raised, and told before."""
    emulator = Emulator()
    notes = Notes()
    async with emulator.client(on_attempt=notes) as client, client.watch("nobody") as findings:
        with pytest.raises(JobNotFound):
            await anext(findings)
    (finding,) = notes.findings
    assert isinstance(finding, WatchFailed)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError()], ids=repr)
async def test_what_an_observer_raises_harms_nothing(
    event: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and observers after it are told all the same."""
    emulator = Emulator()

    def fail(*_: object) -> None:
        raise error

    bad = type("Bad", (Observer,), {event: fail})()
    notes = Notes()
    job_id = emulator.add_job(duration=10, script=[frame(5, "Porn")])
    async with (
        emulator.client(on_attempt=[bad, notes]) as client,
        client.watch(job_id, interval=2) as findings,
    ):
        states = [one.state async for one in findings if isinstance(one, StateChange)]
    assert states[-1] == "Success"
    assert "on_attempt failed" in caplog.text
    assert len(notes.limiters) == len(notes.runs) == 1
    assert len(notes.attempts) == len(notes.calls) >= 5
    assert len(notes.findings) == len(states) + 1
    assert notes.running == []


async def test_an_observer_that_overrides_nothing_costs_nothing() -> None:
    """Every method of the base has something to do for nobody."""
    emulator = Emulator()
    async with (
        emulator.client(on_attempt=Observer()) as client,
        client.watch(emulator.add_job(duration=1), interval=2) as findings,
    ):
        assert [finding async for finding in findings]


async def test_errors_are_freed_at_once() -> None:
    """An error that an observer was told of is kept alive by nothing."""
    emulator = Emulator()
    gc.disable()
    try:
        async with emulator.client(on_attempt=Observer()) as client:
            try:
                await client.query("nobody")
            except LiveAuditError as error:
                kept = weakref.ref(error)
            assert kept() is None
    finally:
        gc.enable()
