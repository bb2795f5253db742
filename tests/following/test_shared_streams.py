"""`moderate` of several processes over a real redis-server: each stream is one process's."""

from __future__ import annotations

import asyncio
import math
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, nullcontext
from itertools import permutations
from typing import Any, Self

import pytest
from daemons import RedisServer
from redis.asyncio import Redis

from ci_live_audit import (
    ConfigurationError,
    Finding,
    LiveAuditClient,
    Moderation,
    SnapshotFinding,
    StateChange,
    Stream,
    WatchFailed,
)
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.places import HELD, Place
from ci_live_audit.following.seen import Seen
from ci_live_audit.following.shared_supervisor import SharedSupervisor, _Wanted
from ci_live_audit.following.stream_notes import StreamNotes
from ci_live_audit.following.submitting import Submission
from ci_live_audit.models import ENDED
from ci_live_audit.redis import RedisCheckpoint
from ci_live_audit.testing import Emulator, Fault, frame
from ci_live_audit.testing.render import Refusal

pytestmark = pytest.mark.waits

#: Seconds: a stream that does not end, and a lease that does not run out.
FOREVER, LONG = 3600.0, 60.0
NO = Fault(refusal=Refusal(400, "InvalidArgument", "no"))
FULL = Fault(refusal=Refusal(403, "QueueSaturated", "full"))
#: The name of a process that comes before all others, and has the share if there is one stream.
FIRST = "!"
SCOPE = "examplebucket-1250000000 ap-beijing moderate"


def url(name: object) -> str:
    """Return the URL of a stream."""
    return f"rtmp://live.example.com/app/{name}"


@pytest.fixture
def emulator() -> Emulator:
    """Return a service whose streams do not end by themselves."""
    emulator = Emulator(rate=math.inf)
    for number in range(20):
        emulator.add_stream(url(number), duration=FOREVER)
    return emulator


class Processes:
    """Processes that share a name, each with a client and a connection of its own."""

    def __init__(self, emulator: Emulator, redis: RedisServer) -> None:
        self.emulator = emulator
        self.url = redis.url
        self.name = f"streams {time.monotonic_ns()}"
        self.checkpoints: list[RedisCheckpoint] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.__aenter__()
        self.redis: Any = await self._open.enter_async_context(Redis.from_url(self.url))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def moderate(self, urls: Any, *, ttl: float = 0.9, **options: Any) -> Moderation:
        """Return a run of one more process, which is to be entered."""
        client: LiveAuditClient = self.emulator.client(rate=1000)
        await self._open.enter_async_context(client)
        checkpoint = RedisCheckpoint(self.url, self.name, ttl=ttl)
        await self._open.enter_async_context(checkpoint)
        self.checkpoints.append(checkpoint)
        return client.moderate(urls, checkpoint=checkpoint, **{"interval": 0.05, **options})

    def key(self, part: str) -> str:
        """Return the name of a key."""
        return f"ci_live_audit:{{{self.name}}}:jobs:{part}"


@pytest.fixture
async def processes(emulator: Emulator, redis: RedisServer) -> AsyncIterator[Processes]:
    """Return processes that share a name that no other test has."""
    async with Processes(emulator, redis) as processes:
        yield processes


def running(emulator: Emulator) -> int:
    """Return how many jobs run."""
    now = emulator.clock()
    return sum(job.state(now) not in ENDED for job in emulator.jobs.values())


def submitted(emulator: Emulator) -> Counter[str]:
    """Return how often each stream was submitted."""
    return Counter(str(job.url) for job in emulator.jobs.values())


def is_end(finding: Finding) -> bool:
    """Return whether a finding is the end of a job."""
    return isinstance(finding, StateChange) and finding.job.ended


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not is_so():
        await asyncio.sleep(0.01)


async def collect(run: Moderation, found: list[Finding]) -> None:
    """Deal with all findings of a run."""
    async with run as findings:
        async for finding in findings:
            found.append(finding)  # noqa: PERF401 - seen at once


async def test_each_stream_is_submitted_by_one_process(
    emulator: Emulator, processes: Processes
) -> None:
    """Of a list that all are given; all of them see the end."""
    for number in range(12):
        emulator.add_stream(url(number), duration=0.3, script=[frame(0.1, "Porn")])
    urls = [url(number) for number in range(12)]
    found: list[list[Finding]] = [[], [], []]
    runs = [await processes.moderate(urls, at_once=4) for _ in found]
    await asyncio.gather(*map(collect, runs, found))
    assert submitted(emulator) == Counter(urls)
    all_found = [one for part in found for one in part]
    assert {one.stream.url for one in all_found if one.stream} == {*urls}
    assert sum(map(is_end, all_found)) == 12
    assert len({one.key for one in all_found}) == len(all_found)
    assert [run.cancelled + run.not_cancelled for run in runs] == [()] * 3


async def test_at_once_is_of_all_processes(emulator: Emulator, processes: Processes) -> None:
    """However many there are; the shares of what runs are even."""
    urls = [url(number) for number in range(20)]
    found: list[list[Finding]] = [[], [], []]
    runs = [await processes.moderate(urls, at_once=6) for _ in found]
    tasks = [asyncio.create_task(collect(*one)) for one in zip(runs, found, strict=True)]
    await until(lambda: running(emulator) == 6)
    await until(lambda: [run._dispatcher.schedule.open for run in runs] == [2, 2, 2])
    assert running(emulator) == 6
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert running(emulator) == 0
    assert sum(len(run.cancelled) for run in runs) == 6
    assert await processes.redis.scard(processes.key("open")) == 0


# What a process that died has left. What it did until then is said to Redis here.


class Dead:
    """A process that died: it does nothing but what a test has it do."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.checkpoint = RedisCheckpoint(processes.redis, processes.name, ttl=LONG)
        self.checkpoint.scope = SCOPE

    async def claim(self, *streams: Stream) -> list[bytes]:
        """Join, claim streams, and return their claims."""
        await self.checkpoint.beat("dead", joins=True, want=0, held=0)
        claims = {stream.key: StreamNotes.new(stream) for stream in streams}
        for key, claim in claims.items():
            claimed = await self.checkpoint.claim(
                "dead", {key: claim}, at_once=10, once=True, doubt=HELD
            )
            assert [*claimed.words] == ["mine"]
        return [*claims.values()]

    async def note(self, stream: Stream, seen: bytes) -> None:
        """Note something of a stream."""
        commit = Commit(job_id=stream.key, action="keep", seen=seen)
        assert (await self.checkpoint.commit("dead", [commit])).noted == [True]

    async def die(self) -> None:
        """Let the lease have run out."""
        await self._processes.redis.zadd(self._processes.key("workers"), {"dead": 1})


def named(found: list[Finding]) -> list[Stream | None]:
    """Return the streams that may have been submitted."""
    return [
        one.stream
        for one in found
        if isinstance(one, WatchFailed) and one.error.may_have_happened and not one.job_id
    ]


async def test_a_stream_in_doubt_is_named_and_not_submitted(
    emulator: Emulator, processes: Processes
) -> None:
    """A process was killed between the note and the answer: once by this run, and by each later."""
    stream = Stream(url(1) + "?secret=1", data_id="room")
    dead = Dead(processes)
    await dead.claim(stream)
    await dead.die()
    emulator.add_stream(url(2), duration=0.3)
    for number in range(2):
        found: list[list[Finding]] = [[], []]
        runs = [await processes.moderate([stream, url(2)]) for _ in found]
        await asyncio.gather(*map(collect, runs, found))
        assert named(found[0] + found[1]) == [stream]
        assert submitted(emulator) == {url(2): 1}
        assert sum(one.takeovers for one in processes.checkpoints) == 1, number
    (value,) = [
        await processes.redis.get(key)
        for key in await processes.redis.keys("*seen*")
        if processes.name.encode() in key
    ]
    assert b"secret" not in b64decode(value.rstrip(b"."))


def silence(run: Moderation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process say nothing more to Redis."""
    member = supervisor(run)._shared.member
    member._task.cancel()
    monkeypatch.setattr(member, "_talks", lambda: False)


async def test_a_job_of_a_dead_process_is_gone_on_with(
    emulator: Emulator, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not submitted again, and only what was in hand comes again."""
    stream = Stream(url("x") + "?secret=1", data_id="room")
    script = [frame(0.1, "Porn"), frame(0.2, "Ads"), frame(3, "Porn")]
    emulator.add_stream(stream.url, duration=3.5, script=script)
    first, second = [await processes.moderate(one) for one in ([stream], [])]
    found: list[Finding] = []
    again: list[Finding] = []
    async with first as findings:
        while len(found) < 4:
            found.append(await anext(findings))
        silence(first, monkeypatch)
        await collect(second, again)
    ((left,),) = [first.not_cancelled]
    assert (left.stream, left.job_id) == (stream, found[0].job_id)
    keys = [{one.key for one in part} for part in (found, again)]
    assert keys[0] & keys[1] == {found[-1].key}
    snapshots = {one.key for one in found + again if isinstance(one, SnapshotFinding)}
    assert len(snapshots) == 3
    assert {str(one.stream) for one in again} == {"room"}
    assert len(emulator.jobs) == 1
    assert processes.checkpoints[1].takeovers == 1


async def test_one_of_several_that_leaves_gives_its_streams_to_the_others(
    emulator: Emulator, processes: Processes
) -> None:
    """They are not cancelled, nor submitted again; the last to leave cancels them."""
    urls = [url(number) for number in range(6)]
    found: list[list[Finding]] = [[], []]
    runs = [await processes.moderate(urls) for _ in found]
    tasks = [asyncio.create_task(collect(*one)) for one in zip(runs, found, strict=True)]
    await until(lambda: [run._dispatcher.schedule.open for run in runs] == [3, 3])
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert (runs[0].cancelled, runs[0].not_cancelled) == ((), ())
    await until(lambda: runs[1]._dispatcher.schedule.open == 6)
    assert running(emulator) == 6
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert (len(runs[1].cancelled), running(emulator)) == (6, 0)
    assert submitted(emulator) == Counter(urls)


async def test_what_has_not_left_is_submitted_by_another(
    emulator: Emulator, processes: Processes
) -> None:
    """A stream for which there was no room at the service, when its process leaves."""
    emulator.inject(FULL, operation="submit")
    first, second = [await processes.moderate([url(1)]) for _ in range(2)]
    task = asyncio.create_task(collect(first, []))
    await until(lambda: len(first._supervisor._places.of_key(Stream(url(1)).key)) == 1)
    async with second as findings:
        await until(lambda: any(one.is_elsewhere for one in supervisor(second)._wanted.values()))
        task.cancel()
        await asyncio.wait([task])
        emulator.faults.clear()
        assert (await anext(findings)).stream == Stream(url(1))
    assert submitted(emulator) == {url(1): 1}


async def test_the_last_to_leave_cancels_what_the_dead_have_left(
    emulator: Emulator, processes: Processes
) -> None:
    """And names the streams of which a job may run."""
    dead, known, doubt = Dead(processes), Stream(url(1)), Stream(url(2))
    await dead.claim(known, doubt)
    async with emulator.client() as client:
        job_id = (await client.submit(known.url)).job_id
    await dead.note(known, StreamNotes.taken(job_id))
    run = await processes.moderate([url(3)])
    async with run as findings:
        await anext(findings)
        await dead.die()
        await processes.redis.zadd(processes.key("workers"), {"dead": 1})
    assert {one.stream.url for one in run.cancelled} == {url(1), url(3)}
    assert [(one.stream, one.job_id) for one in run.not_cancelled] == [(doubt, "")]
    assert running(emulator) == 0


async def test_what_is_to_run_on_runs_on(emulator: Emulator, processes: Processes) -> None:
    """With ``cancel_on_exit=False`` the next run goes on with it."""
    run = await processes.moderate([url(1)], cancel_on_exit=False)
    async with run as findings:
        (first,) = [await anext(findings)]
    assert [one.job_id for one in run.not_cancelled] == [first.job_id]
    again = await processes.moderate([], at_once=2)
    task = asyncio.create_task(collect(again, []))
    await until(lambda: again._dispatcher.schedule.open == 1)
    task.cancel()
    await asyncio.wait([task])
    assert [one.job_id for one in again.cancelled] == [first.job_id]
    assert submitted(emulator) == {url(1): 1}


async def test_what_is_refused_is_tried_once(emulator: Emulator, processes: Processes) -> None:
    """By one process of all, for a list; a later run tries it again, but not what is over."""
    emulator.add_stream(url(1), duration=0.2)
    urls = [url(2), url(1)]
    for number in (1, 2):
        emulator.inject(NO, times=1, operation="submit")
        found: list[list[Finding]] = [[], []]
        runs = [await processes.moderate(urls) for _ in found]
        await asyncio.gather(*map(collect, runs, found))
        refused = [one for one in found[0] + found[1] if isinstance(one, WatchFailed)]
        assert [one.stream for one in refused] == [Stream(url(2))], number
        assert submitted(emulator) == {url(1): 1}


async def test_a_refusal_that_nobody_was_told_of_is_for_another(
    emulator: Emulator, processes: Processes
) -> None:
    """A stream is tried again by another process if the one that tried it leaves before."""
    emulator.inject(NO, times=1, operation="submit")
    first, second = [await processes.moderate([url(1)]) for _ in range(2)]
    async with first:
        await until(lambda: supervisor(first)._places.freed == 1)
        task = asyncio.create_task(collect(second, []))
        await until(lambda: not supervisor(second)._shared.member._joins)
    await until(lambda: running(emulator) == 1 or task.done())
    task.cancel()
    await asyncio.wait([task])
    assert submitted(emulator) == {url(1): 1}
    assert len(second.cancelled) == 1


async def test_what_a_source_without_end_gives_may_come_again(
    emulator: Emulator, processes: Processes
) -> None:
    """Unless it runs, here or elsewhere, or is over."""
    emulator.add_stream(url(1), duration=0.2)
    given: asyncio.Queue[str] = asyncio.Queue()

    async def urls() -> AsyncGenerator[str, None]:
        while one := await given.get():
            yield one

    found: list[Finding] = []
    task = asyncio.create_task(collect(await processes.moderate(urls()), found))
    for _ in range(2):
        given.put_nowait("nonsense")
        given.put_nowait(url(1))
    await until(lambda: sum(isinstance(one, WatchFailed) for one in found) == 2)
    await until(lambda: any(map(is_end, found)))
    given.put_nowait(url(1))
    given.put_nowait("")
    await task
    for one in (url(1), url(2), ""):
        given.put_nowait(one)
    emulator.add_stream(url(2), duration=0.2)
    await collect(await processes.moderate(urls()), found)
    assert submitted(emulator) == {url(1): 1, url(2): 1}


# A process that is taken for dead, and lives


def supervisor(run: Moderation) -> SharedSupervisor:
    """Return what submits the streams of a run."""
    assert isinstance(run._supervisor, SharedSupervisor)
    return run._supervisor


async def lose(processes: Processes, run: Moderation) -> None:
    """Let a process be taken for dead by the others, and hear of it."""
    member = supervisor(run)._shared.member
    name = member._name
    while member._name == name:
        await processes.redis.zadd(processes.key("workers"), {name: 1}, xx=True)
        await asyncio.sleep(0.005)


async def test_a_process_taken_for_dead_submits_nothing_twice(
    emulator: Emulator, processes: Processes
) -> None:
    """A submission is under way then: it is named by others, and its job followed when known."""
    emulator.add_stream(url(1), duration=1)
    emulator.inject(Fault.slow(1.5), times=1, operation="submit")
    found: list[list[Finding]] = [[], []]
    first, second = [await processes.moderate([url(1)]) for _ in found]
    tasks = [asyncio.create_task(collect(first, found[0]))]
    await until(lambda: bool(emulator.arrivals))
    tasks.append(asyncio.create_task(collect(second, found[1])))
    await until(lambda: not supervisor(second)._shared.member._joins)
    await lose(processes, first)
    await asyncio.gather(*tasks)
    assert submitted(emulator) == {url(1): 1}
    assert sum(is_end(one) for one in found[0] + found[1]) == 1
    assert len(named(found[0] + found[1])) <= 1


async def test_what_has_not_left_when_its_process_is_taken_for_dead(
    emulator: Emulator, processes: Processes
) -> None:
    """Is submitted all the same, once there is room, although others have named it."""
    emulator.add_stream(url(1), duration=0.5)
    emulator.inject(FULL, operation="submit")
    found: list[list[Finding]] = [[], []]
    first, second = [await processes.moderate([url(1)]) for _ in found]
    tasks = [asyncio.create_task(collect(first, found[0]))]
    await until(lambda: len(emulator.arrivals) > 0)
    tasks.append(asyncio.create_task(collect(second, found[1])))
    await until(lambda: not supervisor(second)._shared.member._joins)
    await lose(processes, first)
    emulator.faults.clear()
    await asyncio.gather(*tasks)
    assert submitted(emulator) == {url(1): 1}


async def test_a_running_stream_of_a_process_taken_for_dead_is_another_s(
    emulator: Emulator, processes: Processes
) -> None:
    """The process drops it without cancelling it, and takes its share again."""
    urls = [url(number) for number in range(4)]
    runs = [await processes.moderate(urls) for _ in range(2)]
    tasks = [asyncio.create_task(collect(run, [])) for run in runs]
    await until(lambda: [run._dispatcher.schedule.open for run in runs] == [2, 2])
    await lose(processes, runs[0])
    await until(lambda: runs[0]._dispatcher.schedule.open == 0)
    await until(lambda: [run._dispatcher.schedule.open for run in runs] == [2, 2])
    assert (running(emulator), len(emulator.jobs)) == (4, 4)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert running(emulator) == 0
    assert sum(one.takeovers for one in processes.checkpoints) == 2


# Redis is away


async def test_while_redis_is_away_nothing_is_submitted(
    emulator: Emulator, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs is followed for the time of the lease, and gone on with afterwards."""
    emulator.add_stream(url(1), duration=0.2)
    emulator.add_stream(url(2), duration=0.2)
    emulator.add_stream(url(0), duration=3, script=[frame(second / 10) for second in range(1, 30)])
    found: list[Finding] = []
    async with Processes(emulator, own_redis) as processes:
        run = await processes.moderate([url(0), url(1), url(2)], at_once=2)
        task = asyncio.create_task(collect(run, found))
        await until(lambda: len(emulator.jobs) == 2)
        own_redis.pause()
        await until(lambda: "is away" in caplog.text)
        await asyncio.sleep(0.5)
        assert len(emulator.jobs) == 2
        own_redis.resume()
        await task
    assert submitted(emulator) == Counter([url(0), url(1), url(2)])
    assert sum(map(is_end, found)) == 3
    assert max(Counter(one.key for one in found).values()) <= 2


async def test_leaving_while_redis_is_away_cancels_nothing(
    emulator: Emulator, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may go on with it; it is told, and the next process with the name goes on with it."""
    async with Processes(emulator, own_redis) as processes:
        emulator.inject(Fault.reset(), times=1, operation="submit")
        run = await processes.moderate([url(2), url(1), url(3)], at_once=2)
        async with run as findings:
            assert named([await anext(findings)]) == [Stream(url(2))]
            await anext(findings)
            own_redis.pause()
            await until(lambda: "is away" in caplog.text)
        assert run.cancelled == ()
        lost, left = run.not_cancelled
        assert (lost.job_id, lost.stream) == ("", Stream(url(2)))
        assert "could not be given to another process" in str(left.error)
        own_redis.resume()
        again = await processes.moderate([])
        async with again as findings:
            while (await anext(findings)).job_id != left.job_id:
                pass
        assert [one.job_id for one in again.cancelled] == [left.job_id]


async def test_a_redis_that_has_lost_all_is_told_of_streams(
    emulator: Emulator, processes: Processes
) -> None:
    """Nothing is submitted a second time, and all is followed to its end."""
    urls = [url(number) for number in range(4)]
    for one in urls:
        emulator.add_stream(one, duration=3)
    found: list[list[Finding]] = [[], []]
    runs = [await processes.moderate(urls) for _ in found]
    tasks = [asyncio.create_task(collect(*one)) for one in zip(runs, found, strict=True)]
    await until(lambda: [run._dispatcher.schedule.open for run in runs] == [2, 2])
    await processes.redis.delete(*await processes.redis.keys(f"*{processes.name}*"))
    await asyncio.gather(*tasks)
    assert submitted(emulator) == Counter(urls)
    ends = [one.stream.url for part in found for one in part if is_end(one) and one.stream]
    assert {*ends} == {*urls}


# On the way out


@pytest.mark.parametrize("alone", [True, False])
async def test_a_submission_under_way_on_the_way_out(
    emulator: Emulator, processes: Processes, alone: bool
) -> None:
    """Is waited for; its job is cancelled if there is no other process, which would watch it."""
    emulator.inject(Fault.slow(0.5), times=1, operation="submit")
    first, second = await processes.moderate([url(1)]), await processes.moderate([])
    task = asyncio.create_task(collect(first, []))
    await until(lambda: bool(emulator.arrivals))
    if alone:
        task.cancel()
        await asyncio.wait([task])
        assert [one.stream for one in first.cancelled] == [Stream(url(1))]
        assert running(emulator) == 0
        return
    async with second as findings:
        await until(lambda: not supervisor(second)._shared.member._joins)
        task.cancel()
        await asyncio.wait([task])
        assert first.cancelled + first.not_cancelled == ()
        assert (await anext(findings)).stream == Stream(url(1))
        assert running(emulator) == 1
    assert running(emulator) == 0


@pytest.mark.parametrize("alone", [True, False])
async def test_an_answer_that_does_not_come_on_the_way_out(
    emulator: Emulator, processes: Processes, alone: bool
) -> None:
    """The stream is named; what the answer says later is noted if the process still lives."""
    emulator.inject(Fault.slow(3), times=1, operation="submit")
    first = await processes.moderate([url(1)], ttl=0.6, cancel_within=1.0)
    second, found = await processes.moderate([], ttl=0.6), list[Finding]()
    tasks = [asyncio.create_task(collect(first, []))]
    await until(lambda: bool(emulator.arrivals))
    if not alone:
        tasks.append(asyncio.create_task(collect(second, found)))
        await until(lambda: not supervisor(second)._shared.member._joins)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert [(one.stream, one.job_id) for one in first.not_cancelled] == [(Stream(url(1)), "")]
    assert named(found) == ([] if alone else [Stream(url(1))])


async def test_leaving_is_begun_again_if_it_is_cancelled(
    emulator: Emulator, processes: Processes
) -> None:
    """As happens to all tasks when a program ends."""
    run = await processes.moderate([url(1)])
    handed: list[asyncio.Task[Any]] = []

    async def cancel() -> None:
        while not handed:
            await asyncio.sleep(0)
            names = {one: getattr(one.get_coro(), "__name__", "") for one in asyncio.all_tasks()}
            handed.extend(one for one, name in names.items() if name == "_hand_over")
        handed[0].cancel()

    async with run as findings:
        await anext(findings)
        task = asyncio.create_task(cancel())
    await task
    assert handed[0].cancelled()
    assert (len(run.cancelled), running(emulator)) == (1, 0)


@pytest.mark.parametrize("others", [0, 1])
async def test_the_end_of_the_program_waits_for_the_last_word(
    emulator: Emulator, processes: Processes, others: int
) -> None:
    """`asyncio.run` cancels all tasks; the streams go to another, or are cancelled."""
    before = asyncio.all_tasks()
    run = await processes.moderate([url(1), url(2)])
    leaving = asyncio.create_task(collect(run, []))
    await until(lambda: running(emulator) == 2)
    member = supervisor(run)._shared.member
    await until(lambda: len(member._held) == 2 and not member._asks)
    mine = asyncio.all_tasks() - before
    staying = [await processes.moderate([]) for _ in range(others)]
    tasks = [asyncio.create_task(collect(one, [])) for one in staying]
    await until(lambda: not any(supervisor(one)._shared.member._joins for one in staying))
    for task in mine:
        task.cancel()
    await asyncio.wait([leaving])
    assert running(emulator) == 2 * others
    assert (len(run.cancelled), run.not_cancelled) == (2 - 2 * others, ())
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])
    assert running(emulator) == 0
    assert await processes.redis.zcard(processes.key("workers")) == 0


async def test_others_that_take_nothing_are_not_waited_for_without_end(
    emulator: Emulator, processes: Processes
) -> None:
    """What was given back is theirs, although one of them is silent."""
    run = await processes.moderate([url(1)], ttl=0.6)
    async with run as findings:
        await anext(findings)
        await processes.redis.zadd(processes.key("workers"), {"silent": time.time() * 1000 + 1e6})
    assert run.cancelled + run.not_cancelled == ()
    assert running(emulator) == 1


# Races


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return what lets the answer to the first submission come."""
    event, send, held = asyncio.Event(), Submission.send, list[Submission]()

    async def wait(submission: Submission) -> Any:
        try:
            return await send(submission)
        finally:
            held.append(submission)
            if len(held) == 1:
                submission.under_way = True
                await event.wait()
                submission.under_way = False

    monkeypatch.setattr(Submission, "send", wait)
    return event


async def test_a_submission_that_is_refused_after_its_process_was_taken_for_dead(
    emulator: Emulator, processes: Processes, answered: asyncio.Event
) -> None:
    """Nothing is told of it: the stream is claimed again, by any process."""
    emulator.add_stream(url(1), duration=0.3)
    emulator.inject(FULL, times=1, operation="submit")
    found: list[list[Finding]] = [[], []]
    first, second = await processes.moderate([url(1)]), await processes.moderate([])
    tasks = [asyncio.create_task(collect(first, found[0]))]
    await until(lambda: bool(emulator.arrivals))
    supervisor(first)._shared.member._want = 0
    tasks.append(asyncio.create_task(collect(second, found[1])))
    await until(lambda: not supervisor(second)._shared.member._joins)
    await lose(processes, first)
    answered.set()
    await asyncio.gather(*tasks)
    assert [one for one in found[0] if isinstance(one, WatchFailed)] == []
    assert submitted(emulator) == {url(1): 1}


async def test_a_job_that_is_known_late_is_followed_by_whoever_named_its_stream(
    emulator: Emulator, processes: Processes, answered: asyncio.Event
) -> None:
    """The process that submitted it was taken for dead, and tells it."""
    emulator.add_stream(url(1), duration=0.5)
    found: list[list[Finding]] = [[], []]
    over = asyncio.Event()

    async def urls() -> AsyncGenerator[str, None]:
        await over.wait()
        yield url(1)

    first, second = await processes.moderate([url(1)]), await processes.moderate(urls())
    tasks = [asyncio.create_task(collect(first, found[0]))]
    await until(lambda: bool(emulator.arrivals))
    supervisor(second)._shared.member._name = FIRST
    tasks.append(asyncio.create_task(collect(second, found[1])))
    await until(lambda: not supervisor(second)._shared.member._joins)
    await lose(processes, first)
    await until(lambda: named(found[1]) == [Stream(url(1))])
    answered.set()
    await until(lambda: any(map(is_end, found[1])))
    over.set()
    await asyncio.gather(*tasks)
    assert found[0] == []
    assert sum(map(is_end, found[1])) == 1
    assert submitted(emulator) == {url(1): 1}


async def test_a_claim_of_a_process_that_was_forgotten_is_made_again(
    emulator: Emulator, processes: Processes
) -> None:
    """Under another name, once the others had time to say what they have."""
    emulator.add_stream(url(1), duration=0.2)
    ready = asyncio.Event()

    async def urls() -> AsyncGenerator[str, None]:
        await ready.wait()
        yield url(1)

    run = await processes.moderate(urls())
    task = asyncio.create_task(collect(run, []))
    member = supervisor(run)._shared.member
    await until(lambda: not member._joins)
    name = member._name
    await processes.redis.zrem(processes.key("workers"), name)
    member._beat_due = math.inf
    ready.set()
    await task
    assert member._name != name
    assert submitted(emulator) == {url(1): 1}


async def test_what_was_taken_over_may_be_lost_again(
    emulator: Emulator, processes: Processes
) -> None:
    """A process that never was given the URL drops it, and another goes on."""
    runs = [await processes.moderate(urls) for urls in ([url(1)], [], [])]
    tasks = [asyncio.create_task(collect(runs[0], []))]
    await until(lambda: runs[0]._dispatcher.schedule.open == 1)
    tasks.append(asyncio.create_task(collect(runs[1], [])))
    await until(lambda: not supervisor(runs[1])._shared.member._joins)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    await until(lambda: runs[1]._dispatcher.schedule.open == 1)
    supervisor(runs[2])._shared.member._name = FIRST
    tasks.append(asyncio.create_task(collect(runs[2], [])))
    await until(lambda: not supervisor(runs[2])._shared.member._joins)
    await lose(processes, runs[1])
    await until(lambda: runs[2]._dispatcher.schedule.open == 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (len(emulator.jobs), running(emulator)) == (1, 0)


async def test_a_stream_that_is_given_up_is_not_tried_again(
    emulator: Emulator, processes: Processes
) -> None:
    """After a timeout: it is cancelled, by this run; the next one submits it again."""
    urls = [url(1)]
    for number in (1, 2):
        found: list[list[Finding]] = [[], []]
        runs = [await processes.moderate(urls, timeout=0.3) for _ in found]
        await asyncio.gather(*map(collect, runs, found))
        failed = [one for one in found[0] + found[1] if isinstance(one, WatchFailed)]
        assert len(failed) == 1
        assert submitted(emulator) == {url(1): number}
        assert running(emulator) == 0


async def test_what_cannot_be_stopped_holds_nobody(
    emulator: Emulator, processes: Processes
) -> None:
    """Of several processes that each have such a stream; the last one to leave tells of both."""
    emulator.inject(Fault(refusal=Refusal(403, "AccessDenied", "no")), operation="cancel")
    runs = [
        await processes.moderate([url(1), url(2)], timeout=0.5, cancel_within=2.0) for _ in range(2)
    ]
    await asyncio.gather(*(collect(run, []) for run in runs))
    left = {one.stream for run in runs for one in run.not_cancelled}
    assert left == {Stream(url(1)), Stream(url(2))}
    assert submitted(emulator) == {url(1): 1, url(2): 1}


async def test_what_is_stopped_late_comes_again(emulator: Emulator, processes: Processes) -> None:
    """A stream that was given up is a stream like any other when its job does not run any more."""
    given: asyncio.Queue[str] = asyncio.Queue()

    async def urls() -> AsyncGenerator[str, None]:
        while True:
            yield await given.get()

    no = Fault(refusal=Refusal(403, "AccessDenied", "no"))
    emulator.inject(no, times=1, operation="cancel")
    given.put_nowait(url(1))
    run = await processes.moderate(urls(), timeout=0.3)
    async with run as findings:
        async for finding in findings:
            if isinstance(finding, WatchFailed):
                break
        await until(lambda: not [*supervisor(run)._places])
        assert running(emulator) == 0
        given.put_nowait(url(1))
        await anext(findings)
    assert len(run.cancelled) == 1
    assert run.not_cancelled == ()
    assert submitted(emulator) == {url(1): 2}
    assert await processes.redis.scard(processes.key("open")) == 0
    assert await processes.redis.zcard(processes.key("aside")) == 0


async def test_one_stream_is_claimed_at_a_time(processes: Processes) -> None:
    """What is claimed and not submitted yet would be in doubt after a kill; the rest comes next."""
    dead = Dead(processes)
    await dead.claim()
    claims = {url(number): url(number).encode() for number in range(3)}
    claimed = await dead.checkpoint.claim("dead", claims, at_once=9, once=True, doubt=HELD)
    assert ([*claimed.words], claimed.open) == (["mine", "full", "full"], 1)
    run = await processes.moderate([], at_once=9)
    stream = Stream(url(1))
    wanted = _Wanted(stream, stream.request(), b"claim", due=math.inf)
    supervisor(run)._wanted[stream.key] = wanted
    supervisor(run)._take_word(stream.key, "full", at_once=False)
    assert wanted.due == math.inf
    supervisor(run)._take_word(stream.key, "full", at_once=True)
    assert wanted.due == -math.inf


async def test_a_claim_that_is_answered_on_the_way_out_is_given_back(
    emulator: Emulator, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process can submit the stream; nobody takes it for one that may run."""
    run = await processes.moderate([url(1)])
    checkpoint, asked, answered = processes.checkpoints[0], asyncio.Event(), asyncio.Event()
    claim = checkpoint.claim

    async def slow(*arguments: Any, **options: Any) -> Any:
        claimed = await claim(*arguments, **options)
        asked.set()
        await answered.wait()
        return claimed

    monkeypatch.setattr(checkpoint, "claim", slow)
    task = asyncio.create_task(collect(run, []))
    await asked.wait()
    task.cancel()
    claimer = supervisor(run)._claimer
    await asyncio.wait([claimer])
    answered.set()
    await asyncio.wait([task])
    assert run.not_cancelled == ()
    assert await processes.redis.keys(f"*{processes.name}*seen*") == []
    async with await processes.moderate([url(1)]) as findings:
        assert (await anext(findings)).stream == Stream(url(1))
    assert submitted(emulator) == {url(1): 1}


async def test_nothing_is_noted_of_what_is_not_this_process_s(processes: Processes) -> None:
    """Of a stream that was dropped while it was seen to."""
    run = await processes.moderate([])
    async with run:
        notes, stream = supervisor(run)._shared, Stream(url(1))
        place = Place(stream, stream.key)
        await notes.free(place)
        await notes.release(place)
        await supervisor(run)._stopped(place)
        await supervisor(run)._lay_aside(place)
        noted = StreamNotes.new(stream) + StreamNotes.taken("job")
        notes.taken(stream.key, StreamNotes.from_bytes(noted))
        await notes.commit(Commit(job_id="job", action="end"))
        await notes.commit(Commit(job_id="", action="release"))
        assert notes.knows("job")


def test_notes_that_were_made_twice_count_once() -> None:
    """As an answer was lost; and those that are lost say nothing."""
    stream, seen = Stream(url(1) + "?x", data_id="room"), Seen(severity=2).to_bytes()
    claim, job = StreamNotes.new(stream), StreamNotes.taken("job")
    told = StreamNotes.from_bytes(claim + job + job + seen)
    known = Stream(url(1), data_id="room")
    assert told == StreamNotes(claim, job, known, "job", seen)
    assert StreamNotes.from_bytes(b"") == StreamNotes(b"", b"", Stream(""), "", b"")
    assert StreamNotes.new(stream) != claim


# What cannot be read, and another use of the name


KINDS = ("watch", "as_completed", "moderate")


@pytest.mark.parametrize(("first", "second"), [*permutations(KINDS, 2)])
async def test_a_name_is_for_one_kind_of_run(
    emulator: Emulator, processes: Processes, first: str, second: str
) -> None:
    """What one has seen or dealt with says nothing to another; the error names both."""
    place = "on bucket examplebucket-1250000000 in ap-beijing"
    both = f"it is about runs of {first} {place}, not runs of {second} {place}; use another name"
    async with emulator.client() as client:
        for kind in (first, second, first):
            checkpoint = RedisCheckpoint(processes.redis, processes.name)
            run = getattr(client, kind)([], checkpoint=checkpoint)
            told = (
                pytest.raises(ConfigurationError, match=both) if kind == second else nullcontext()
            )
            with told:
                async with run as items:
                    assert [one async for one in items] == []


async def test_one_checkpoint_for_runs_of_several_kinds(
    emulator: Emulator, processes: Processes
) -> None:
    """Each run is of the kind and the bucket that it was made for, whatever was made since."""
    checkpoint = RedisCheckpoint(processes.redis, processes.name)
    async with (
        emulator.client() as client,
        Emulator(bucket="other-1250000000").client() as other,
    ):
        run = client.watch([], checkpoint=checkpoint)
        client.moderate([], checkpoint=checkpoint)
        other.watch([], checkpoint=checkpoint)
        async with run as findings:
            assert [one async for one in findings] == []
    scope = await processes.redis.get(processes.key("scope"))
    assert scope == b"examplebucket-1250000000 ap-beijing watch"


async def test_another_bucket_is_refused(emulator: Emulator, processes: Processes) -> None:
    """Also if a stream waits to be claimed."""
    await collect(await processes.moderate([]), [])
    run = await processes.moderate([url(1)])
    supervisor(run)._shared.member._scope = "other ap-beijing moderate"
    with pytest.raises(ConfigurationError, match="about runs of moderate on bucket examplebucket"):
        await collect(run, [])
    assert emulator.jobs == {}


async def test_notes_that_cannot_be_read_end_the_run(processes: Processes) -> None:
    """As those of a later version would."""
    dead, stream = Dead(processes), Stream(url(1))
    await dead.claim(stream)
    await dead.note(stream, b'{"taken": 1\n')
    await dead.die()
    with pytest.raises(ConfigurationError, match="checkpoint: cannot be read"):
        await collect(await processes.moderate([]), [])
