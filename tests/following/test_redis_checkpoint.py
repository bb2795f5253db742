"""`RedisCheckpoint` and its scripts, on a real redis-server."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from daemons import RedisServer, redis_server
from redis.asyncio import Redis
from redis.crc import key_slot
from sdk import Sdk

from ci_live_audit import AuditJob, ConfigurationError, Findings, JobState, Outcomes, Snapshot
from ci_live_audit.following import redis_checkpoint as module
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.redis_scripts import PARTS
from ci_live_audit.following.seen import Seen
from ci_live_audit.redis import RedisCheckpoint

pytestmark = pytest.mark.waits

#: Seconds that no busy machine takes for a test.
LONG = 60.0


@pytest.fixture
def name() -> str:
    """Return a name that no other test has."""
    return f"name {time.monotonic_ns()}"


@pytest.fixture
async def client(redis: RedisServer) -> AsyncIterator[Any]:
    """Return a client of the server."""
    client = Redis.from_url(redis.url)
    yield client
    await client.aclose()


@pytest.fixture
async def checkpoint(client: Any, name: str) -> RedisCheckpoint:
    """Return a checkpoint of a bucket."""
    checkpoint = RedisCheckpoint(client, name, ttl=LONG)
    checkpoint.bind("bucket", "region")
    return checkpoint


async def beat(
    checkpoint: RedisCheckpoint,
    process: str,
    held: int = 0,
    *,
    joins: bool = False,
    want: int = 1000,
) -> Any:
    """Give a sign of life."""
    return await checkpoint.beat(process, joins=joins, want=want, held=held)


def ids(jobs: Any) -> list[str]:
    """Return the ids of jobs that were taken."""
    return [job_id for job_id, _ in jobs]


async def expire(client: Any, name: str, *processes: str) -> None:
    """Let the leases of processes have run out."""
    for process in processes:
        await client.zadd(f"ci_live_audit:{{{name}}}:jobs:workers", {process: 1})


async def test_jobs_are_added_once_and_shared_evenly(checkpoint: RedisCheckpoint) -> None:
    """Whoever gives them; in the order in which they were given."""
    await checkpoint.add(["a", "b", "c"])
    await checkpoint.add(["c", "d", "a", "e"])
    assert ids((await beat(checkpoint, "one", joins=True, want=2)).new) == ["a", "b"]
    assert ids((await beat(checkpoint, "one", 2)).new) == ["c", "d", "e"]
    joined = await beat(checkpoint, "two", joins=True)
    assert (ids(joined.new), joined.surplus, joined.open) == ([], 0, 5)
    third = await beat(checkpoint, "one", 5)
    assert (third.surplus, third.own) == (2, None)
    released = [Commit(job_id=one, action="release") for one in "de"]
    noted = await checkpoint.commit("one", released)
    assert (noted.noted, noted.open, noted.lost) == ([True, True], 5, False)
    assert sorted(ids((await beat(checkpoint, "two")).back)) == ["d", "e"]
    await checkpoint.leave("two")
    assert sorted(ids((await beat(checkpoint, "one", 3)).back)) == ["d", "e"]


async def test_what_was_seen_comes_with_the_job(checkpoint: RedisCheckpoint) -> None:
    """All that was said, one after the other; nothing of a job that is over."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    for severity in (1, 2):
        seen = Seen(severity=severity).to_bytes()
        await checkpoint.commit("one", [Commit(job_id="a", action="keep", seen=seen)])
    ended = Commit(job_id="b", action="end", seen=b"x", verdict=1)
    assert (await checkpoint.commit("one", [ended])).open == 1
    await checkpoint.leave("one")
    await checkpoint.add(["b"])
    ((job_id, seen),) = (await beat(checkpoint, "two", joins=True)).back
    assert (job_id, seen) == ("a", Seen(severity=1).to_bytes() + Seen(severity=2).to_bytes())


async def test_the_dead_are_replaced(checkpoint: RedisCheckpoint, client: Any, name: str) -> None:
    """Their jobs go to the others, before new ones; what they say afterwards counts nothing."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    await beat(checkpoint, "two", joins=True)
    await checkpoint.add(["c", "d"])
    await expire(client, name, "one")
    taken = await beat(checkpoint, "two")
    assert (sorted(ids(taken.back)), ids(taken.new)) == (["a", "b"], ["c", "d"])
    assert (await beat(checkpoint, "one", 2)).lost
    late = Commit(job_id="a", action="end")
    assert (await checkpoint.commit("one", [late])).lost
    assert (await checkpoint.commit("two", [late])).noted == [True]
    assert (await checkpoint.commit("two", [late])).noted == [False]


async def test_only_jobs_of_the_dead_are_taken_over(
    checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """Not those that were given away, laid aside, or left by a process that ended; each once."""
    await checkpoint.add(["a", "b", "c", "d", "e"])
    await beat(checkpoint, "one", joins=True)
    told: list[Any] = [("a", "release"), ("b", "aside"), ("c", "keep")]
    await checkpoint.commit("one", [Commit(job_id=job, action=action) for job, action in told])
    assert (await beat(checkpoint, "one", 3)).taken_over == 0
    await checkpoint.leave("one")
    assert (await beat(checkpoint, "two", joins=True)).taken_over == 0
    await beat(checkpoint, "three", joins=True)
    await expire(client, name, "two")
    taken = await beat(checkpoint, "three")
    assert (taken.taken_over, len(taken.back)) == (5, 5)
    assert await client.keys(f"*{name}*orphans") == []
    await checkpoint.leave("three")
    assert (await beat(checkpoint, "four", joins=True)).taken_over == 0


async def test_takeovers_are_counted_and_observed(
    redis: RedisServer, checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """OpenTelemetry has the sum of all processes' as a metric."""
    sdk = Sdk()
    telemetry = sdk.telemetry()
    given = [f"job{number}" for number in range(10)]
    await checkpoint.add(given)
    await beat(checkpoint, "dead", joins=True)
    others = [RedisCheckpoint(redis.url, name, ttl=LONG) for _ in range(2)]
    for one in (checkpoint, *others):
        telemetry.observe(one)
    assert sdk.points("ci_live_audit.ledger.takeovers") == [({}, 0)]
    await beat(checkpoint, "alive", joins=True)
    await expire(client, name, "dead")

    async def follow(one: RedisCheckpoint) -> list[str]:
        one.bind("bucket", "region")
        async with Outcomes(Polling(query, 0.05, checkpoint=one), ["more"]) as outcomes:
            await checkpoint.leave("alive")
            return [outcome.job_id async for outcome in outcomes]

    found = await asyncio.gather(*map(follow, others))
    assert sorted(chain(*found)) == sorted([*given, "more"])
    assert sum(one.takeovers for one in others) == 10
    assert sdk.points("ci_live_audit.ledger.takeovers") == [({}, 10)]
    for one in others:
        await one.aclose()


async def test_a_lease_that_ran_out_is_renewed_if_nobody_noticed(
    checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """A process that comes late to a Redis that nobody has asked since keeps its jobs."""
    await checkpoint.add(["a"])
    await beat(checkpoint, "one", joins=True)
    await expire(client, name, "one")
    again = await beat(checkpoint, "one", 1)
    assert (again.lost, again.own, again.open) == (False, None, 1)


@pytest.mark.parametrize("moved", [-3_600_000, 3_600_000])
async def test_nobody_is_dead_after_an_outage_or_a_clock_that_was_set(
    checkpoint: RedisCheckpoint, client: Any, name: str, moved: int
) -> None:
    """If nobody was heard of for long, all have as much time again as a lease."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    await beat(checkpoint, "two", joins=True)
    await expire(client, name, "one", "two")
    key = f"ci_live_audit:{{{name}}}:jobs:beaten"
    await client.set(key, int(await client.get(key)) + moved)
    assert ids((await beat(checkpoint, "two")).back) == []
    assert not (await beat(checkpoint, "one", 2)).lost


@pytest.mark.parametrize("moved", [-3_600_000, -5000, 3_600_000])
async def test_a_process_with_a_shorter_ttl_shortens_no_lease(
    redis: RedisServer, checkpoint: RedisCheckpoint, client: Any, name: str, moved: int
) -> None:
    """Whenever it joins: each lease is as long as its own process has said."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "long", joins=True)
    prefix = f"ci_live_audit:{{{name}}}:jobs:"
    at = int(await client.get(f"{prefix}beaten"))
    await client.set(f"{prefix}beaten", at + moved)
    async with RedisCheckpoint(redis.url, name, ttl=1.0) as short:
        short.bind("bucket", "region")
        await beat(short, "short", joins=True)
        workers = client.zrange(f"{prefix}workers", 0, -1, withscores=True)
        ends = {one.decode(): end for one, end in await workers}
        assert ends["long"] >= at + LONG * 1000 > ends["short"]
        await short.resign("short", takes=False)
        assert await client.hkeys(f"{prefix}ttls") == [b"long"]


async def test_a_lost_answer_is_made_up_for(checkpoint: RedisCheckpoint) -> None:
    """Whoever has not heard what it was given is told which jobs are its own."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    await checkpoint.add(["c"])
    told = await beat(checkpoint, "one", 0)
    assert (sorted(told.own), ids(told.new)) == (["a", "b"], ["c"])


async def test_a_call_that_comes_late_has_no_effect(
    checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """What was given up may be executed after what followed it."""
    await checkpoint.add(["a"])
    await beat(checkpoint, "one", joins=True)
    numbers = f"ci_live_audit:{{{name}}}:jobs:numbers"
    await client.hset(numbers, "one", 1000)
    assert (await beat(checkpoint, "one", 1)).lost
    assert (await checkpoint.commit("one", [Commit(job_id="a", action="end")])).lost
    await checkpoint.leave("one")
    await client.hset(numbers, "one", 0)
    assert (await beat(checkpoint, "one", 1)).own is None


async def test_what_was_laid_aside_is_for_the_next_run(checkpoint: RedisCheckpoint) -> None:
    """It is taken up when the first process joins, or when it is given again."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    aside = [Commit(job_id=one, action="aside") for one in "ab"]
    assert (await checkpoint.commit("one", aside)).open == 0
    assert (await beat(checkpoint, "two", joins=True)).open == 0
    await checkpoint.add(["a"])
    beats = [await beat(checkpoint, "one"), await beat(checkpoint, "two")]
    assert [job_id for one in beats for job_id in ids(one.back)] == ["a"]
    await checkpoint.leave("one")
    await checkpoint.leave("two")
    assert sorted(ids((await beat(checkpoint, "three", joins=True)).back)) == ["a", "b"]


async def test_what_is_over_is_known_for_a_month(
    checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """So the store does not grow for ever."""
    await checkpoint.add(["a", "b"])
    await beat(checkpoint, "one", joins=True)
    await checkpoint.commit("one", [Commit(job_id="a", action="end")])
    over = f"ci_live_audit:{{{name}}}:jobs:over"
    await client.zadd(over, {"a": time.time() * 1000 - module.REMEMBERED * 1000 - 1000})
    await checkpoint.commit("one", [Commit(job_id="b", action="end")])
    assert await client.zrange(over, 0, -1) == [b"b"]


async def test_a_beat_gives_no_more_than_fits(
    checkpoint: RedisCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of which much was seen come in several beats."""
    monkeypatch.setattr(module, "ROOM", 100)
    await checkpoint.add([f"job{number}" for number in range(100)])
    first = await beat(checkpoint, "one", joins=True)
    assert 10 < len(first.new) < 30


async def test_another_bucket_is_refused(
    checkpoint: RedisCheckpoint, client: Any, name: str
) -> None:
    """The error names both."""
    await beat(checkpoint, "one", joins=True)
    other = RedisCheckpoint(client, name)
    other.bind("other", "region")
    expected = "about jobs of bucket bucket in region, not jobs of bucket other in region; use"
    with pytest.raises(ConfigurationError, match=expected):
        await beat(other, "two", joins=True)


ODD = ["", " ", "\n", '"', "\\", "\0", "新しい", "\U0001f3a5", "\ud800", "{}", "x" * 1000]


@pytest.mark.parametrize(
    "options",
    [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}],
)
async def test_any_client_and_any_id(redis: RedisServer, name: str, options: Any) -> None:
    """Whatever the client decodes, ids and what was seen come back unchanged."""
    client = Redis.from_url(redis.url, **options)
    checkpoint = RedisCheckpoint(client, f"}}{name}{{", ttl=LONG)
    checkpoint.bind("bucket", "region")
    seen = bytes(range(256))
    await checkpoint.add(ODD)
    assert ids((await beat(checkpoint, "one", joins=True)).new) == ODD
    told = [Commit(job_id=job_id, action="keep", seen=seen) for job_id in ODD]
    assert all((await checkpoint.commit("one", told * 2)).noted)
    await checkpoint.leave("one")
    back = (await beat(checkpoint, "two", joins=True)).back
    assert sorted(back) == sorted((job_id, seen * 2) for job_id in ODD)
    await client.aclose()


@pytest.mark.parametrize("name", ["", "  ", 7, None])
def test_a_name_is_a_text(name: Any, redis: RedisServer) -> None:
    """Another value is refused."""
    with pytest.raises(ConfigurationError, match="name: expected a"):
        RedisCheckpoint(redis.url, name)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 0.001, 1e300, True, "3", None])
def test_a_ttl_is_a_time_that_can_be_kept(ttl: Any, redis: RedisServer) -> None:
    """Another value is refused where it is passed, before Redis is asked."""
    with pytest.raises(ConfigurationError, match="ttl: expected "):
        RedisCheckpoint(redis.url, "name", ttl=ttl)


def test_the_keys_of_any_name_are_in_one_slot() -> None:
    """Of a cluster; and no two names have a key in common."""
    names = [one for one in ODD if one.strip()] + [
        "{",
        "}",
        "}x",
        "{}x",
        "a}b",
        r"\u007b",
        r"\ud800",
    ]
    keys = [[module._key(name, part) for part in PARTS] for name in names]
    assert [len({key_slot(key.encode()) for key in one}) for one in keys] == [1] * len(names)
    assert len({*chain(*keys)}) == len(names) * len(PARTS)


@pytest.mark.parametrize("odd", ODD)
async def test_any_name(redis: RedisServer, name: str, odd: str) -> None:
    """What cannot be encoded, or ends a tag of a cluster, is a name like others."""
    for end in "ab":
        async with RedisCheckpoint(redis.url, f"{odd} {name} {end}", ttl=LONG) as checkpoint:
            checkpoint.bind("bucket", "region")
            await checkpoint.add([end])
            assert ids((await beat(checkpoint, "one", joins=True)).new) == [end]


# Runs


async def query(job_id: str, reading: Any) -> AuditJob:
    """Return a job that has ended."""
    job = AuditJob(job_id=job_id, state=JobState.SUCCESS, snapshots=(Snapshot(snapshot_time=1),))
    if hasattr(reading, "compare"):
        reading.compare(job)
    return job


async def test_a_redis_that_is_empty_again(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed and started without what it knew, it is told again of the jobs."""
    going = asyncio.Event()

    async def until(job_id: str, reading: Any) -> AuditJob:
        job = await query(job_id, reading)
        return job if going.is_set() else AuditJob(job_id=job_id, state=JobState.AUDITING)

    checkpoint = RedisCheckpoint(own_redis.url, "run", ttl=1.0)
    checkpoint.bind("bucket", "region")
    given = [f"job{number}" for number in range(20)]
    async with Outcomes(Polling(until, 0.05, checkpoint=checkpoint), given) as outcomes:
        while outcomes.progress.open < 20:
            await asyncio.sleep(0.01)
        own_redis.stop()
        while "is away" not in caplog.text:
            await asyncio.sleep(0.01)
        own_redis.start()
        while "lost all it knew" not in caplog.text:
            await asyncio.sleep(0.01)
        going.set()
        assert Counter([one.job_id async for one in outcomes]) == Counter(given)
    await checkpoint.aclose()


class Slow:
    """Jobs that run until they may end, at once or one by one."""

    def __init__(self) -> None:
        self.over: set[str] = set()

    async def query(self, job_id: str, reading: Any) -> AuditJob:
        job = await query(job_id, reading)
        return job if job_id in self.over else AuditJob(job_id=job_id, state=JobState.AUDITING)


async def test_a_redis_that_is_empty_again_for_several(redis: RedisServer, name: str) -> None:
    """Each adds its own again, whoever comes first."""
    jobs = Slow()
    given = [f"job{number}" for number in range(20)]
    outcomes: list[str] = []
    open_: dict[int, int] = {}

    async def follow(number: int) -> None:
        async with RedisCheckpoint(redis.url, name, ttl=0.9) as checkpoint:
            checkpoint.bind("bucket", "region")
            polling = Polling(jobs.query, 0.05, checkpoint=checkpoint)
            async with Outcomes(polling, given) as run:
                watching[number] = run
                outcomes.extend([one.job_id async for one in run])

    watching: dict[int, Outcomes] = {}
    processes = [asyncio.create_task(follow(number)) for number in range(2)]

    async def until(is_so: Callable[[dict[int, int]], bool]) -> None:
        while not is_so(open_):
            await asyncio.sleep(0.01)
            open_.update({number: run.progress.open for number, run in watching.items()})

    await until(lambda known: sorted(known.values()) == [10, 10])
    async with Redis.from_url(redis.url) as client:
        await client.flushall()
    open_.clear()
    await until(lambda known: sum(known.values()) < 20)
    await until(lambda known: sorted(known.values()) == [10, 10])
    jobs.over |= {*given}
    await asyncio.gather(*processes)
    assert {*outcomes} == {*given}  # one may come again


async def test_a_redis_that_is_empty_when_an_end_is_noted(redis: RedisServer, name: str) -> None:
    """What is noted first finds nothing there; the other jobs are added again."""
    jobs = Slow()
    given = [f"job{number}" for number in range(20)]
    async with RedisCheckpoint(redis.url, name, ttl=LONG) as checkpoint:
        checkpoint.bind("bucket", "region")
        polling = Polling(jobs.query, 0.05, checkpoint=checkpoint)
        async with Outcomes(polling, given) as outcomes:
            while outcomes.progress.open < 20:
                await asyncio.sleep(0.01)
            async with Redis.from_url(redis.url) as client:
                await client.flushall()
            jobs.over.add("job0")
            first = await anext(outcomes)
            jobs.over |= {*given}
            others = [one.job_id async for one in outcomes]
    assert first.job_id == "job0"
    assert {*others, "job0"} == {*given}


async def test_a_job_that_redis_has_lost_is_added_again(client: Any, name: str) -> None:
    """A replica that took over may lack the newest."""
    jobs = Slow()
    checkpoint = RedisCheckpoint(client, name, ttl=0.9)
    checkpoint.bind("bucket", "region")
    async with Outcomes(Polling(jobs.query, 0.05, checkpoint=checkpoint), ["a", "b"]) as outcomes:
        while outcomes.progress.open < 2:
            await asyncio.sleep(0.01)
        prefix = f"ci_live_audit:{{{name}}}:jobs:"
        await client.srem(f"{prefix}open", "b")
        async for key in client.scan_iter(f"{prefix}own:*"):
            assert await client.srem(key, "b")
        while not await client.sismember(f"{prefix}open", "b"):
            await asyncio.sleep(0.01)
        jobs.over |= {"a", "b"}
        assert {one.job_id async for one in outcomes} == {"a", "b"}


async def test_an_id_that_is_no_text_ends_no_run(checkpoint: RedisCheckpoint) -> None:
    """Not even one that cannot be hashed."""
    given: Any = ["a", ["x"], {}, "b"]
    async with Outcomes(Polling(query, 0.05, checkpoint=checkpoint), given) as outcomes:
        found = [one async for one in outcomes]
    assert {one.job_id for one in found if one.error is None} == {"a", "b"}
    assert [one.job_id for one in found if one.error is not None] == [["x"], {}]


async def test_a_redis_that_refuses_from_the_beginning() -> None:
    """The run ends with what is wrong; later the same is an outage."""
    rules = "default", "on", "nopass", "~other:*", "+@all"
    with (
        TemporaryDirectory() as folder,
        redis_server(Path(folder), "--user", *rules).running() as server,
    ):
        checkpoint = RedisCheckpoint(server.url, "run", ttl=LONG)
        checkpoint.bind("bucket", "region")
        with pytest.raises(ConfigurationError, match=r"checkpoint: .*redis: .*ermission"):
            async with Outcomes(Polling(query, 1, checkpoint=checkpoint), ["a"]) as outcomes:
                await anext(outcomes)
        checkpoint._has_spoken = True
        with pytest.raises(ConnectionError, match="ermission"):
            await checkpoint.add(["a"])
        await checkpoint.aclose()


async def test_no_redis_is_imported_unless_it_is_used() -> None:
    """Neither with the package nor with a file."""
    program = (
        "import sys, ci_live_audit; ci_live_audit.Checkpoint; ci_live_audit.LiveAuditClient;"
        "print([name for name in sys.modules if name.split('.')[0] == 'redis'])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(told.stdout) == []


async def test_both_kinds_of_runs(redis: RedisServer, name: str) -> None:
    """Several processes of either kind share all that each of them is given."""
    given = [f"job{number}" for number in range(60)]
    for kind in (Outcomes, Findings):
        checkpoints = [RedisCheckpoint(redis.url, f"{name} {kind.__name__}") for _ in "abc"]

        async def part(checkpoint: RedisCheckpoint, kind: Any = kind) -> list[str]:
            checkpoint.bind("bucket", "region")
            async with kind(Polling(query, 1, checkpoint=checkpoint), given) as items:
                return [item.job_id async for item in items]

        parts = await asyncio.gather(*map(part, checkpoints))
        times = 1 if kind is Outcomes else 2
        assert sum(map(Counter, parts), Counter[str]()) == Counter(given * times)
        for checkpoint in checkpoints:
            await checkpoint.aclose()
