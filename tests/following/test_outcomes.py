"""`as_completed` and `wait` of the client, against the emulator."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from runs import SLOT, now, outcomes_of, tasks
from servers import answering, serving

from ci_live_audit import (
    AccessDenied,
    Attempt,
    Checkpoint,
    ConfigurationError,
    Credentials,
    CredentialsError,
    InvalidArgument,
    InvalidInput,
    JobFailed,
    JobNotFound,
    JobState,
    LiveAuditClient,
    LiveAuditError,
    LocalRateLimiter,
    Outcome,
    Progress,
    WaitTimeout,
)
from ci_live_audit.following.ids import Source
from ci_live_audit.testing import Emulator, Fault, frame


@pytest.fixture
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client() as client:
        yield client


def add_jobs(emulator: Emulator, number: int, *, seed: int = 1, longest: float = 150) -> list[str]:
    """Add jobs that end at random."""
    rng = random.Random(seed)
    return [emulator.add_job(duration=rng.uniform(5, longest)) for _ in range(number)]


async def one_by_one(job_ids: list[str]) -> AsyncGenerator[str, None]:
    for job_id in job_ids:
        yield job_id
        await asyncio.sleep(0.01)


def source(kind: str, job_ids: list[str]) -> Source:
    sources: dict[str, Source] = {
        "list": job_ids,
        "set": set(job_ids),
        "generator": iter(job_ids),
        "async generator": one_by_one(job_ids),
    }
    return sources[kind]


# Many jobs


@pytest.mark.parametrize(
    ("kind", "number"), [("list", 1000), ("set", 100), ("generator", 100), ("async generator", 100)]
)
async def test_every_id_has_one_outcome(
    emulator: Emulator, client: LiveAuditClient, kind: str, number: int
) -> None:
    """1,000 jobs end in their own time, each has one outcome, and no request is throttled."""
    ids = add_jobs(emulator, number, longest=60)
    results = await outcomes_of(client.as_completed(source(kind, ids + ids[::3])))
    assert Counter(outcome.job_id for outcome in results) == Counter(ids)
    assert {outcome.unwrap().state for outcome in results} == {JobState.SUCCESS}
    assert all(outcome.unwrap().job_id == outcome.job_id for outcome in results)
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_outcomes_come_in_the_order_of_the_ends(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """The job that is seen to end first comes first, within an interval of its end."""
    ids = [emulator.add_job(duration=duration) for duration in (60, 20, 40, 5)]
    async with client.as_completed(ids, interval=5) as outcomes:
        got = [(outcome.job_id, now()) async for outcome in outcomes]
    assert [job_id for job_id, _ in got] == [ids[3], ids[1], ids[2], ids[0]]
    assert [time for _, time in got] == pytest.approx([5, 20, 40, 60], abs=5.3)


async def test_each_bad_id_is_an_outcome(emulator: Emulator, client: LiveAuditClient) -> None:
    """Impossible and unknown ids have outcomes, and the other jobs go on."""
    good = add_jobs(emulator, 3)
    bad: list[Any] = ["../bucket", "", "a b", 7, None, ["av1"], b"av1"]
    results = await outcomes_of(client.as_completed([*bad, "av0", "---", *good]))
    of = {repr(outcome.job_id): outcome.error for outcome in results}
    assert len(results) == len(of) == len(bad) + 5
    assert {type(of[repr(job_id)]) for job_id in bad} == {InvalidInput}
    assert isinstance(of["'av0'"], JobNotFound)
    assert isinstance(of["'---'"], InvalidArgument)
    assert [of[repr(job_id)] for job_id in good] == [None] * 3
    assert all(outcome.job is None for outcome in results if outcome.error is not None)
    assert "expected texts; got int" in str(of["7"])


async def test_a_failed_job_is_job_and_error(emulator: Emulator, client: LiveAuditClient) -> None:
    """The outcome has the job, and so has the error that unwrap raises."""
    job_id = emulator.add_job(duration=5, failure=("ResourceDownloadFailed", "no stream"))
    (outcome,) = await outcomes_of(client.as_completed([job_id]))
    assert outcome.job is not None
    assert outcome.job.state == JobState.FAILED
    with pytest.raises(JobFailed, match="ResourceDownloadFailed no stream") as caught:
        outcome.unwrap()
    assert caught.value is outcome.error
    assert caught.value.job == outcome.job
    assert (caught.value.operation, caught.value.job_id) == ("wait", job_id)


async def test_an_outcome_as_plain_values(emulator: Emulator, client: LiveAuditClient) -> None:
    """An outcome is ready for json.dumps, with its job or its error."""
    ids = [emulator.add_job(duration=5), "av0"]
    results = await outcomes_of(client.as_completed(ids))
    unknown, ended = (json.loads(json.dumps(outcome.to_dict())) for outcome in results)
    assert (ended["job_id"], ended["error"]) == (ids[0], None)
    assert (ended["job"]["state"], ended["job"]["job_id"]) == ("Success", ids[0])
    assert (unknown["job_id"], unknown["job"]) == ("av0", None)
    assert unknown["error"]["error"] == "JobNotFound"


async def test_cancelled_jobs_end_well(emulator: Emulator, client: LiveAuditClient) -> None:
    """A cancelled job has ended, and that is no error."""
    ids = [emulator.add_job(duration=math.inf) for _ in range(3)]
    async with client.as_completed(ids) as outcomes:
        await asyncio.sleep(5)
        for job_id in ids:
            await client.cancel(job_id)
        states = [outcome.unwrap().state async for outcome in outcomes]
        assert outcomes.progress == Progress(open=0, ended=3, failed=0, requests=6, eta=0.0)
    assert states == [JobState.CANCELLED] * 3


async def test_what_is_flagged_counts_when_it_is_seen(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """While the job goes on; not any more when it has ended, or has timed out."""
    bad = [frame(1, "Porn")]
    ids = [emulator.add_job(duration=seconds, script=bad) for seconds in (30, 60, math.inf)]
    ids.append(emulator.add_job(duration=math.inf))
    async with client.as_completed(ids, interval=10, timeout=100) as outcomes:
        assert outcomes.progress.flagged == 0
        await asyncio.sleep(25)
        assert outcomes.progress.flagged == 3
        seen = [outcomes.progress.flagged async for _ in outcomes]
    assert seen == [2, 1, 0, 0]


async def test_every_id_has_one_outcome_through_faults(emulator: Emulator) -> None:
    """With 30 % of the requests failing in five ways, 500 jobs have 500 outcomes."""
    ids = add_jobs(emulator, 500)
    faults = [
        (Fault.throttle(), 0.06),
        (Fault.error(500), 0.03),
        (Fault.error(503), 0.03),
        (Fault.reset(), 0.06),
        (Fault.truncated(), 0.06),
        (Fault.garbage(), 0.06),
    ]
    left = 1.0
    for fault, share in faults:
        emulator.inject(fault, share=share / left)
        left -= share
    async with emulator.client() as client:
        results = await outcomes_of(client.as_completed(ids))
    assert Counter(outcome.job_id for outcome in results) == Counter(ids)
    good = [outcome for outcome in results if outcome.error is None]
    assert len(good) >= 499
    bad = sum(arrival.status != 200 for arrival in emulator.arrivals)
    assert bad >= 0.1 * len(emulator.arrivals)


async def test_an_outage_is_survived(emulator: Emulator, client: LiveAuditClient) -> None:
    """When every request fails for five minutes, no job is given up."""
    ids = add_jobs(emulator, 100)
    emulator.inject(Fault.error(503))
    async with client.as_completed(ids) as outcomes:
        await asyncio.sleep(300)
        emulator.faults.clear()
        results = [outcome.unwrap().job_id async for outcome in outcomes]
    assert sorted(results) == sorted(ids)


async def test_an_outage_longer_than_the_timeout_times_out(emulator: Emulator) -> None:
    """When every request fails for ever, each job times out because of the last error."""
    ids = add_jobs(emulator, 20)
    emulator.inject(Fault.error(503))
    async with emulator.client() as client:
        results = await outcomes_of(client.as_completed(ids, timeout=3600))
    assert Counter(outcome.job_id for outcome in results) == Counter(ids)
    assert {type(outcome.error) for outcome in results} == {WaitTimeout}
    assert now() == pytest.approx(3600, abs=0.01)
    assert len(emulator.arrivals) < 500


async def test_without_credentials_every_id_is_an_error(emulator: Emulator) -> None:
    """Missing credentials are the outcome of every id at once."""

    def nothing() -> Credentials:
        raise LookupError("the vault is sealed")

    async with emulator.client(credentials=nothing) as client:
        results = await outcomes_of(client.as_completed(["av1", "av2", "av3"]))
    assert {type(outcome.error) for outcome in results} == {CredentialsError}
    assert len(results) == 3
    assert emulator.arrivals == []


@pytest.mark.parametrize("timeout", [0.4, 7.0, 40.0])
async def test_every_id_has_an_outcome_by_the_deadline(
    emulator: Emulator, client: LiveAuditClient, timeout: float
) -> None:
    """500 jobs, more or fewer than can be polled in time, have outcomes when time is up."""
    ids = add_jobs(emulator, 500, longest=90)
    results = await outcomes_of(client.as_completed(ids, timeout=timeout))
    assert now() == pytest.approx(timeout, abs=0.01)
    assert Counter(outcome.job_id for outcome in results) == Counter(ids)
    for outcome in results:
        assert outcome.error is None or isinstance(outcome.error, WaitTimeout)
        ended = outcome.job is not None and outcome.job.ended
        assert (outcome.error is None) == ended
    assert {arrival.status for arrival in emulator.arrivals} <= {0, 200}


async def test_runs_of_one_client_share_its_quota(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Five runs and a dozen waits at once all end, and no request is throttled."""
    ids = add_jobs(emulator, 300, longest=30)
    waits = [client.wait(job_id, interval=5) for job_id in ids[:12]]
    runs = [outcomes_of(client.as_completed(ids[n::5])) for n in range(5)]
    jobs, results = await asyncio.gather(asyncio.gather(*waits), asyncio.gather(*runs))
    assert [job.job_id for job in jobs] == ids[:12]
    assert Counter(outcome.job_id for one in results for outcome in one) == Counter(ids)
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_a_shared_limiter_sets_the_rate() -> None:
    """The requests in flight and the eta of a run follow the rate of the limiter."""
    emulator = Emulator(rate=100)
    ids = add_jobs(emulator, 300, longest=8)
    async with emulator.client(limiter=LocalRateLimiter(100)) as client:
        run = client.as_completed(ids, interval=5)
        assert run.progress.eta == pytest.approx(3)
        assert len(await outcomes_of(run)) == 300
    assert now() < 15
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_closing_the_client_ends_a_run(emulator: Emulator) -> None:
    """The run ends with one error after the outcomes that are ready, and nothing hangs."""
    ids = add_jobs(emulator, 200)
    client = emulator.client()
    got: list[Outcome] = []

    async def follow() -> None:
        async with client.as_completed(ids) as outcomes:
            async for outcome in outcomes:
                got.append(outcome)
                if len(got) == 20:
                    await client.aclose()

    with pytest.raises(ConfigurationError, match="closed") as caught:
        await follow()
    assert not isinstance(caught.value, CredentialsError)
    assert all(outcome.error is None for outcome in got)
    assert 20 <= len(got) < 30
    with pytest.raises(ConfigurationError, match="closed"):
        await client.wait(ids[0])
    assert tasks() == []


async def test_closing_the_client_ends_a_run_that_waits(emulator: Emulator) -> None:
    """A run whose next poll is an hour away ends at once, and so does one made afterwards."""
    client = emulator.client()
    async with client.as_completed([emulator.add_job()], interval=3600) as outcomes:
        waiting = asyncio.create_task(anext(outcomes))
        await asyncio.sleep(100)
        await client.aclose()
        with pytest.raises(ConfigurationError, match="closed"):
            await waiting
        assert now() == pytest.approx(100, abs=0.01)
    with pytest.raises(ConfigurationError, match="closed"):
        await outcomes_of(client.as_completed(["av1"]))


async def test_leaving_early_stops_everything(emulator: Emulator, client: LiveAuditClient) -> None:
    """After the block nothing more is sent, and the client can still be used."""
    ids = add_jobs(emulator, 100)
    async with client.as_completed(ids) as outcomes:
        await anext(outcomes)
    arrived = len(emulator.arrivals)
    await asyncio.sleep(100)
    assert len(emulator.arrivals) == arrived
    assert (await client.query(ids[0])).job_id == ids[0]


# Progress


@pytest.mark.parametrize("kind", ["list", "generator"])
async def test_progress_counts_jobs_and_requests(
    emulator: Emulator, client: LiveAuditClient, kind: str
) -> None:
    """Every id is open until it has ended or failed, and every request is counted."""
    ids = [emulator.add_job(duration=30) for _ in range(60)]
    ids += [emulator.add_job(duration=30, failure=("Code", "message")) for _ in range(20)]
    unknown = [f"av{n}" for n in range(20)]
    given = unknown + ids
    run = client.as_completed(given if kind == "list" else iter(given))
    known = kind == "list"
    assert (run.progress.open, run.progress.eta) == ((100, 5.0) if known else (0, None))
    async with run as outcomes:
        await asyncio.sleep(2.52)
        progress = outcomes.progress
        assert (progress.ended, progress.failed) == (0, 20)
        assert progress.requests == len(emulator.arrivals) == pytest.approx(51, abs=1)
        if known:
            assert (progress.open, progress.eta) == (80, 4.0)
        else:
            assert progress.open == pytest.approx(31, abs=1)
            assert progress.eta is None
        await asyncio.sleep(10)
        assert (outcomes.progress.open, outcomes.progress.eta) == (80, 4.0)
        async for _ in outcomes:
            progress = outcomes.progress
            assert progress.open + progress.ended + progress.failed == 100
            assert progress.eta == progress.open / 20
            assert progress.requests == len(emulator.arrivals)
        assert outcomes.progress == Progress(
            open=0, ended=60, failed=40, requests=len(emulator.arrivals), eta=0.0
        )


async def test_progress_counts_retries(emulator: Emulator, client: LiveAuditClient) -> None:
    """Each attempt counts, and requests of other calls do not."""
    ids = add_jobs(emulator, 20)
    emulator.inject(Fault.error(), times=5, operation="query")
    async with client.as_completed(ids) as outcomes:
        await client.cancel(ids[0])
        async for _ in outcomes:
            pass
        assert outcomes.progress.requests == len(emulator.arrivals) - 1


# One job


async def test_wait_returns_the_job_when_it_has_ended(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """The final job, with everything that was found, comes within an interval of the end."""
    job_id = emulator.add_job(duration=25, script=[frame(5, "Porn", score=98)])
    job = await client.wait(job_id)
    assert (job.job_id, job.state, job.label) == (job_id, JobState.SUCCESS, "Porn")
    assert now() == pytest.approx(30, abs=0.2)
    assert len(emulator.arrivals) == 4
    assert tasks() == []


async def test_wait_raises_when_the_job_failed(emulator: Emulator, client: LiveAuditClient) -> None:
    """JobFailed carries the job and says why it failed."""
    job_id = emulator.add_job(duration=5, failure=("ResourceDownloadFailed", "no stream"))
    with pytest.raises(JobFailed) as caught:
        await client.wait(job_id, interval=2)
    error = caught.value
    assert error.job is not None
    assert (error.job.code, error.job.message) == ("ResourceDownloadFailed", "no stream")
    assert (error.operation, error.job_id) == ("wait", job_id)
    assert str(error) == f"wait of {job_id}: the job failed: ResourceDownloadFailed no stream"


async def test_a_failure_without_a_reason_says_so(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A failed job need not have a code or a message."""
    job_id = emulator.add_job(duration=5, failure=("", ""))
    with pytest.raises(JobFailed, match="no reason was given"):
        await client.wait(job_id)


async def test_wait_gives_up_at_its_timeout(emulator: Emulator, client: LiveAuditClient) -> None:
    """WaitTimeout comes exactly then, with the job as it was half a second before."""
    job_id = emulator.add_job(duration=100)
    await asyncio.sleep(3)
    with pytest.raises(WaitTimeout) as caught:
        await client.wait(job_id, timeout=25)
    error = caught.value
    assert now() == pytest.approx(28, abs=1e-6)
    assert error.last is not None
    assert error.last.state == JobState.AUDITING
    assert (error.operation, error.job_id) == ("wait", job_id)
    assert str(error) == f"wait of {job_id}: not ended within 25 s; it was Auditing"
    assert emulator.arrivals[-1].time == pytest.approx(27.5, abs=0.1)


@pytest.mark.parametrize("fault", [Fault.slow(1000), Fault.error(503), Fault.garbage()])
async def test_a_wait_that_saw_nothing_has_no_last(
    emulator: Emulator, client: LiveAuditClient, fault: Fault
) -> None:
    """If no query ever succeeds, the timeout carries no job."""
    job_id = emulator.add_job()
    emulator.inject(fault)
    with pytest.raises(WaitTimeout, match=r"not ended within 100 s$") as caught:
        await client.wait(job_id, timeout=100)
    assert caught.value.last is None
    assert now() == pytest.approx(100, abs=0.6)


async def test_a_wait_that_saw_the_job_keeps_it(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """The timeout carries the last response, even if later queries hang."""
    job_id = emulator.add_job(duration=1000)
    waiting = asyncio.create_task(client.wait(job_id, timeout=60))
    await asyncio.sleep(15)
    emulator.inject(Fault.slow(1000))
    with pytest.raises(WaitTimeout, match="it was Auditing") as caught:
        await waiting
    assert caught.value.last is not None
    assert caught.value.last.state == JobState.AUDITING


async def test_wait_raises_a_final_error_at_once(
    client: LiveAuditClient, emulator: Emulator
) -> None:
    """An unknown or impossible id is not waited for."""
    with pytest.raises(JobNotFound):
        await client.wait("av0", timeout=100)
    with pytest.raises(ConfigurationError):
        await client.wait("../bucket")
    with pytest.raises(ConfigurationError, match="expected texts"):
        await client.wait(None)  # type: ignore[arg-type]
    assert len(emulator.arrivals) == 1


async def test_wait_survives_an_outage(emulator: Emulator, client: LiveAuditClient) -> None:
    """Retries and later queries carry it through an outage of two minutes."""
    job_id = emulator.add_job(duration=50)
    waiting = asyncio.create_task(client.wait(job_id))
    await asyncio.sleep(5)
    emulator.inject(Fault.reset())
    await asyncio.sleep(120)
    emulator.faults.clear()
    assert (await waiting).ended


async def test_a_cancelled_job_has_ended(emulator: Emulator, client: LiveAuditClient) -> None:
    """Cancelling a job ends a wait for it."""
    job_id = emulator.add_job(duration=math.inf)
    waiting = asyncio.create_task(client.wait(job_id))
    await asyncio.sleep(25)
    await client.cancel(job_id)
    assert (await waiting).state == JobState.CANCELLED
    assert now() == pytest.approx(30, abs=0.2)


@pytest.mark.parametrize("options", [{"interval": 0}, {"timeout": -1}, {"interval": math.nan}])
async def test_impossible_times_are_refused(
    client: LiveAuditClient, emulator: Emulator, options: dict[str, Any]
) -> None:
    """An interval or a timeout not above 0 and finite is refused before anything is sent."""
    name = next(iter(options))
    with pytest.raises(ConfigurationError, match=name):
        await client.wait("av1", **options)
    with pytest.raises(ConfigurationError, match=name):
        client.as_completed(["av1"], **options)
    assert emulator.arrivals == []


async def test_errors_can_be_pickled(emulator: Emulator, client: LiveAuditClient) -> None:
    """The errors of waiting keep all their attributes."""
    failing = emulator.add_job(duration=5, failure=("Code", "message"))
    endless = emulator.add_job(duration=math.inf, script=[frame(1, "Porn")])
    results = await asyncio.gather(
        client.wait(failing), client.wait(endless, timeout=20), return_exceptions=True
    )
    for error in results:
        assert isinstance(error, JobFailed | WaitTimeout)
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert vars(back) == vars(error)
        assert str(back) == str(error)
    (outcome,) = await outcomes_of(client.as_completed([failing]))
    back = pickle.loads(pickle.dumps(outcome))
    assert (back.job_id, back.job) == (failing, outcome.job)


async def test_cancelling_a_wait_leaves_nothing(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """After task.cancel, asyncio.timeout or anyio no task stays, and the client goes on."""
    rng = random.Random(3)
    job_id = emulator.add_job(duration=math.inf)
    for _ in range(50):
        waiting = asyncio.create_task(client.wait(job_id, interval=1))
        await asyncio.sleep(rng.random() * 3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert tasks() == []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(15):
            await client.wait(job_id)
    with anyio.move_on_after(15) as scope:
        await client.wait(job_id)
    assert scope.cancelled_caught
    assert tasks() == []
    assert not (await client.query(job_id)).ended


async def test_urgent_calls_pass_two_thousand_waits(emulator: Emulator) -> None:
    """Beside 2,000 waits an urgent call waits for two slots at most."""
    rng = random.Random(4)
    ids = [emulator.add_job(duration=rng.uniform(0, 80)) for _ in range(2000)]
    own = [emulator.add_job(duration=math.inf) for _ in range(40)]
    attempts: list[Attempt] = []
    async with emulator.client() as client:
        urgent = client.with_options(on_attempt=attempts.append)
        waits = asyncio.gather(*(client.wait(job_id) for job_id in ids))
        await asyncio.sleep(10)
        for job_id in own:
            await asyncio.sleep(rng.expovariate(1))
            await urgent.query(job_id)
            await asyncio.sleep(rng.expovariate(1))
            await urgent.cancel(job_id)
        jobs = await waits
    assert [job.job_id for job in jobs] == ids
    assert len(attempts) == 80
    assert max(attempt.queued for attempt in attempts) <= 2 * SLOT
    assert {arrival.status for arrival in emulator.arrivals} == {200}
    assert len(emulator.arrivals) >= 0.98 * 20 * emulator.arrivals[-1].time


async def test_urgent_calls_pass_a_run(emulator: Emulator) -> None:
    """Beside a run over 2,000 jobs an urgent call waits for two slots at most."""
    rng = random.Random(5)
    ids = [emulator.add_job(duration=math.inf) for _ in range(2000)]
    attempts: list[Attempt] = []
    async with emulator.client() as client, client.as_completed(ids):
        urgent = client.with_options(on_attempt=attempts.append)
        await asyncio.sleep(10)
        for job_id in rng.sample(ids, 60):
            await asyncio.sleep(rng.expovariate(1))
            await urgent.cancel(job_id)
    assert max(attempt.queued for attempt in attempts) <= 2 * SLOT


# Checkpoints


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_a_run_is_continued(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path, kind: str
) -> None:
    """Left three times, a run gives each outcome once and polls no answered id again."""
    ids = add_jobs(emulator, 120, longest=40)
    got: list[str] = []
    for stop in (10, 40, 41, 1000):
        answered = set(got)
        polled = len(emulator.arrivals)
        with Checkpoint(tmp_path / "run") as checkpoint:
            assert checkpoint.answered == len(got)
            async with client.as_completed(source(kind, ids), checkpoint=checkpoint) as outcomes:
                async for outcome in outcomes:
                    got.append(outcome.unwrap().job_id)
                    if len(got) == stop:
                        break
        again = {arrival.path.rpartition("/")[2] for arrival in emulator.arrivals[polled:]}
        assert not answered & again
    assert Counter(got) == Counter(ids)


async def test_open_ids_of_a_checkpoint_are_followed_without_being_given(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """Open ids of a source that is gone are followed again."""
    ids = [emulator.add_job(duration=60) for _ in range(20)]
    with Checkpoint(tmp_path / "run") as checkpoint:
        async with client.as_completed(iter(ids), checkpoint=checkpoint):
            await asyncio.sleep(10)
        assert sorted(checkpoint.open) == sorted(ids)
        results = await outcomes_of(client.as_completed([], checkpoint=checkpoint))
    assert sorted(outcome.job_id for outcome in results) == sorted(ids)


async def test_an_outcome_in_hand_is_answered_with_the_next(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """After an exception in the body its outcome comes again; after a break it does not."""
    ids = [emulator.add_job(duration=5) for _ in range(3)]
    await asyncio.sleep(6)

    async def fail() -> None:
        async with client.as_completed(ids, checkpoint=checkpoint) as outcomes:
            await anext(outcomes)
            await anext(outcomes)
            raise ZeroDivisionError

    with Checkpoint(tmp_path / "run") as checkpoint:
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert checkpoint.answered == 1
        async with client.as_completed(ids, checkpoint=checkpoint) as outcomes:
            assert (await anext(outcomes)).job_id == ids[1]
        assert checkpoint.answered == 2
        (last,) = await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))
        assert last.job_id == ids[2]
        assert (checkpoint.answered, checkpoint.open) == (3, ())


async def test_only_the_last_word_of_the_service_answers_an_id(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """A job that ended, that failed or does not exist is answered; anything else stays open."""
    ended = emulator.add_job(duration=1)
    failed = emulator.add_job(duration=1, failure=("Code", "message"))
    endless = emulator.add_job(duration=math.inf)
    ids: list[Any] = [ended, failed, "av0", "../bucket", 7, endless]
    with Checkpoint(tmp_path / "run") as checkpoint:
        run = client.as_completed(ids, timeout=15, checkpoint=checkpoint)
        assert len(await outcomes_of(run)) == 6
        assert checkpoint.answered == 3
        assert set(checkpoint.open) == {"../bucket", endless}
        polled = len(emulator.arrivals)
        again = await outcomes_of(client.as_completed(ids, timeout=15, checkpoint=checkpoint))
    assert {repr(outcome.job_id) for outcome in again} == {"7", "'../bucket'", repr(endless)}
    assert {arrival.path.rpartition("/")[2] for arrival in emulator.arrivals[polled:]} == {endless}


async def test_refused_credentials_answer_no_id(emulator: Emulator, tmp_path: Path) -> None:
    """After a run with the wrong key, one with the right key polls every id."""
    ids = add_jobs(emulator, 3)
    with Checkpoint(tmp_path / "run") as checkpoint:
        async with emulator.client(credentials=Credentials("AKIDEXAMPLE", "wrong")) as stranger:
            refused = await outcomes_of(stranger.as_completed(ids, checkpoint=checkpoint))
        assert {type(outcome.error) for outcome in refused} == {AccessDenied}
        assert (len(refused), checkpoint.answered) == (3, 0)
        async with emulator.client() as client:
            results = await outcomes_of(client.as_completed(ids, checkpoint=checkpoint))
        assert [outcome.error for outcome in results] == [None] * 3
        assert checkpoint.answered == 3


async def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    emulator: Emulator, client: LiveAuditClient, tmp_path: Path
) -> None:
    """The error of the file is raised unwrapped."""
    checkpoint = Checkpoint(tmp_path / "run")
    checkpoint.close()
    with pytest.raises(ValueError, match="closed"):
        await outcomes_of(client.as_completed([emulator.add_job()], checkpoint=checkpoint))


# Over a socket


class TestOverASocket:
    """Real connections, in real time."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_cancelled_consumers_leave_no_connection(self) -> None:
        """100 cancelled runs and waits leave no task, and after closing no connection."""
        rng = random.Random(6)
        pieces = (
            b"<Response><JobsDetail><JobId>av1</JobId>",
            b"<State>Auditing</State></JobsDetail></Response>",
        )
        async with serving(answering(*pieces, pause=0.002)) as served:
            client = LiveAuditClient(
                "examplebucket-1250000000",
                "ap-beijing",
                credentials=Credentials("AKIDEXAMPLE", "secretexample"),
                endpoint=served.url,
                rate=math.inf,
            )
            ids = [f"av{number}" for number in range(30)]
            for _ in range(100):
                kinds = [
                    outcomes_of(client.as_completed(ids, interval=0.01)),
                    outcomes_of(client.as_completed(one_by_one(ids), interval=0.01, timeout=9)),
                    client.wait("av1", interval=0.001),
                ]
                chosen = kinds.pop(rng.randrange(3))
                for other in kinds:
                    other.close()
                task: asyncio.Task[Any] = asyncio.create_task(chosen)
                await asyncio.sleep(rng.random() * 0.03)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert served.requests
            await client.aclose()
            assert await served.all_closed()
            # The tasks that serve are the server's.
            assert not [task for task in tasks() if "connected" not in repr(task)]

    async def test_jobs_are_followed_over_a_socket(self) -> None:
        """The jobs of the emulator end one after the other, and no request is throttled."""
        emulator = Emulator(rate=200)
        ids = [emulator.add_job(duration=0.01 * number) for number in range(1, 50)]
        async with (
            emulator.serve() as url,
            LiveAuditClient(
                emulator.bucket,
                emulator.region,
                credentials=emulator.credentials,
                endpoint=url,
                rate=200,
            ) as client,
        ):
            results = await outcomes_of(client.as_completed(ids, interval=0.1, timeout=20))
        assert Counter(outcome.job_id for outcome in results) == Counter(ids)
        assert not [outcome for outcome in results if isinstance(outcome.error, LiveAuditError)]
