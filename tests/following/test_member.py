"""One process of several: what it follows, gives away, loses and goes on without.

The store is a table in this process; on virtual time.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from runs import now, outcomes_of, tasks

from ci_live_audit import (
    AuditJob,
    ConfigurationError,
    Findings,
    InvalidInput,
    JobState,
    Outcomes,
    Snapshot,
    StateChange,
    Verdict,
    WaitTimeout,
)
from ci_live_audit.following import member as module
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.member import Member
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.shared import Beat, Committed, SharedCheckpoint


@attrs.define
class Table:
    """What a store knows."""

    deadlines: dict[str, float] = attrs.Factory(dict)
    owners: dict[str, str | None] = attrs.Factory(dict)
    seen: defaultdict[str, bytes] = attrs.Factory(lambda: defaultdict(bytes))
    followed: set[str] = attrs.Factory(set)
    over: set[str] = attrs.Factory(set)
    aside: set[str] = attrs.Factory(set)
    beats: int = 0

    def own(self, process: str) -> list[str]:
        """Return the jobs of a process."""
        return [job_id for job_id, owner in self.owners.items() if owner == process]

    def bury(self, process: str) -> None:
        """Free the jobs of a process."""
        self.deadlines.pop(process, None)
        for job_id in self.own(process):
            self.owners[job_id] = None
            self.followed.add(job_id)


class Store(SharedCheckpoint):
    """A process's way to a table, which may be away."""

    def __init__(self, table: Table, ttl: float = 3.0) -> None:
        super().__init__(ttl=ttl)
        self.table = table
        self.is_away = False
        #: Calls that take effect, but of which nothing is heard.
        self.unheard: Counter[str] = Counter()
        self.problem: Exception | None = None

    async def call(self, name: str, function: Callable[[], Any]) -> Any:
        """Call a function that takes effect as a whole."""
        await asyncio.sleep(0.001)
        if self.problem is not None:
            raise self.problem
        if self.is_away:
            raise ConnectionError("the table is away")
        result = function()
        if self.unheard[name] and (name != "beat" or result.back or result.new):
            self.unheard[name] -= 1
            raise TimeoutError("no response")
        return result

    async def add(self, job_ids: Sequence[str]) -> None:
        def add() -> None:
            for job_id in job_ids:
                if job_id not in self.table.over:
                    self.table.owners.setdefault(job_id, None)

        await self.call("add", add)

    async def beat(self, process: str, *, joins: bool, want: int, held: int) -> Beat:
        def beat() -> Beat:
            table = self.table
            if not joins and process not in table.deadlines:
                return Beat(lost=True, forgotten=not table.beats)
            table.beats += 1
            table.deadlines[process] = now() + self.ttl
            for one, until in list(table.deadlines.items()):
                if until <= now():
                    table.bury(one)
            own = table.own(process)
            rank = sorted(table.deadlines).index(process)
            share, more = divmod(len(table.owners) - len(table.aside), len(table.deadlines))
            share += rank < more
            free = [one for one in table.owners if table.owners[one] is None]
            free = [one for one in free if one not in table.aside]
            free.sort(key=lambda one: one not in table.followed)
            taken = free[: max(0, min(want, share - len(own)))]
            for job_id in taken:
                table.owners[job_id] = process
            jobs = [(job_id, table.seen[job_id]) for job_id in taken]
            return Beat(
                back=[job for job in jobs if job[0] in table.followed],
                new=[job for job in jobs if job[0] not in table.followed],
                surplus=max(0, len(own) - share),
                open=len(table.owners) - len(table.aside),
                own=None if len(own) == held else own,
            )

        answer: Beat = await self.call("beat", beat)
        return answer

    async def commit(self, process: str, commits: Sequence[Commit]) -> Committed:
        def commit() -> Committed:
            table = self.table
            if process not in table.deadlines:
                return Committed(lost=True)
            noted = []
            for one in commits:
                noted.append(table.owners.get(one.job_id) == process)
                if noted[-1]:
                    table.seen[one.job_id] += one.seen
                    if one.action == "end":
                        del table.owners[one.job_id]
                        table.over.add(one.job_id)
                    elif one.action != "keep":
                        table.owners[one.job_id] = None
                        (table.aside if one.action == "aside" else table.followed).add(one.job_id)
            return Committed(noted=noted, open=len(table.owners) - len(table.aside))

        answer: Committed = await self.call("commit", commit)
        return answer

    async def leave(self, process: str) -> None:
        await self.call("leave", lambda: self.table.bury(process))


class Service:
    """Streams with an item every ten seconds, for a while; notes who polls what, and when."""

    def __init__(self, ends: float = 100) -> None:
        self.ends = ends
        self.polls: list[tuple[float, int, str]] = []

    def polling(self, store: Store, process: int = 0, **options: Any) -> Polling:
        """Return how a process polls."""

        async def query(job_id: str, reading: Any) -> AuditJob:
            self.polls.append((now(), process, job_id))
            await asyncio.sleep(0.01)
            job = AuditJob(
                job_id=job_id,
                state=JobState.AUDITING if now() < self.ends else JobState.SUCCESS,
                snapshots=tuple(
                    Snapshot(url=f"{job_id}/{second}", snapshot_time=second, result=Verdict(1))
                    for second in range(10, int(min(now(), self.ends)), 10)
                ),
            )
            if hasattr(reading, "compare"):
                reading.compare(job)
            return job

        return Polling(query, options.pop("interval", 1.0), checkpoint=store, **options)


IDS = [f"job{number:02}" for number in range(12)]


@pytest.fixture
def table() -> Table:
    return Table()


async def follow(
    service: Service, store: Store, found: list[str], process: int = 0, ids: Any = ()
) -> None:
    """Watch, and note what is found."""
    async with Findings(service.polling(store, process), ids) as findings:
        async for finding in findings:
            state = finding.state if isinstance(finding, StateChange) else ""
            found.append(finding.url or f"{finding.job_id} {state}")


def every_finding() -> set[str]:
    """Return all that there is to find in 100 seconds."""
    items = {f"{job_id}/{second}" for job_id in IDS for second in range(10, 100, 10)}
    return items | {f"{job_id} {state}" for job_id in IDS for state in ("Auditing", "Success")}


async def test_processes_share_what_any_of_them_is_given(table: Table) -> None:
    """Each finding comes once, in one of them; all have even shares, and end together."""
    service, found = Service(), list[str]()
    parts = [follow(service, Store(table), found, number, IDS) for number in range(3)]
    running = [asyncio.create_task(part) for part in parts]
    await asyncio.sleep(20)
    assert [len(table.own(process)) for process in table.deadlines] == [4, 4, 4]
    await asyncio.gather(*running)
    assert sorted(found) == sorted(every_finding())
    assert (table.over, table.deadlines, table.owners) == ({*IDS}, {}, {})
    assert now() < 103
    assert tasks() == []


async def test_who_joins_and_who_leaves(table: Table) -> None:
    """A joining process gets its share within three beats, and one that leaves gives it back."""
    service, found = Service(), list[str]()
    first = asyncio.create_task(follow(service, Store(table), found, 0, IDS))
    await asyncio.sleep(15)
    second = asyncio.create_task(follow(service, Store(table), found, 1))
    await asyncio.sleep(3.1)
    assert sorted(len(table.own(process)) for process in table.deadlines) == [6, 6]
    await asyncio.sleep(10)
    second.cancel()
    await asyncio.wait([second])
    left = now()
    await asyncio.sleep(1.1)
    assert [len(table.own(process)) for process in table.deadlines] == [12]
    await first
    polled = {job_id for time, process, job_id in service.polls if process == 1}
    again = {job_id for time, process, job_id in service.polls if left < time < left + 1.5}
    assert polled <= again
    counted = Counter(found)
    assert counted.keys() == every_finding()
    assert counted.total() <= len(counted) + 1


async def test_a_process_that_was_taken_for_dead_drops_its_jobs(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """It polls and hands out nothing more of them, and comes back under another name."""
    service, found = Service(), [list[str](), list[str]()]
    stores = [Store(table), Store(table)]
    running = [
        asyncio.create_task(follow(service, store, found[number], number, IDS))
        for number, store in enumerate(stores)
    ]
    await asyncio.sleep(19.5)
    stores[0].is_away = True
    before = len(found[0])
    await asyncio.sleep(3.1)
    silent = now()
    await asyncio.sleep(3)
    assert len(found[0]) > before  # the items of the second 20
    assert not [time for time, process, _ in service.polls if process == 0 and time > silent]
    assert len(table.deadlines) == 1
    old = len(found[0])
    await asyncio.sleep(10)  # another item of each
    assert len(found[0]) == old
    stores[0].is_away = False
    await asyncio.gather(*running)
    counted = Counter(found[0] + found[1])
    assert counted.keys() == every_finding()
    assert counted.total() <= len(counted) + 6  # what was handed out while the table was away
    told = [record.getMessage() for record in caplog.records]
    assert any("is away; its jobs are followed for" in text for text in told)
    assert any("taken for dead: 6 jobs are dropped" in text for text in told)


async def test_a_short_outage_delays_nothing(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """Findings are handed out meanwhile, and noted afterwards."""
    service, found = Service(), list[str]()
    store = Store(table)
    running = asyncio.create_task(follow(service, store, found, 0, IDS))
    await asyncio.sleep(19.5)
    store.is_away = True
    assert sum(name.endswith("/20") for name in found) == 0
    await asyncio.sleep(2)
    assert sum(name.endswith("/20") for name in found) == 12
    store.is_away = False
    await running
    assert sorted(found) == sorted(every_finding())
    assert any("is back after" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["beat", "commit", "add", "leave"])
async def test_a_response_that_is_lost_costs_nothing(table: Table, kind: str) -> None:
    """What has taken effect unheard is made up for."""
    service, found = Service(40), list[str]()
    stores = [Store(table), Store(table)]
    for store in stores:
        store.unheard[kind] = 2
    running = [
        asyncio.create_task(follow(service, store, found, number, IDS))
        for number, store in enumerate(stores)
    ]
    await asyncio.gather(*running)
    items = {f"{job_id}/{second}" for job_id in IDS for second in (10, 20, 30)}
    assert items <= {*found}
    assert table.over == {*IDS}


async def test_what_the_store_has_lost_is_added_again(table: Table) -> None:
    """Unless its end is about to be noted, of which the response may have been lost."""

    class Run:
        def drop(self, job_id: str) -> None:
            dropped.append(job_id)

    dropped: list[str] = []
    member: Any = Member(Store(table), [])
    member._run = Run()
    member._held = {"a": None, "b": None, "c": None}
    member._commits = [Commit(job_id="a", action="end")]
    member._settle({"c"})
    assert sorted(dropped) == ["a", "b"]
    assert (member._to_add, [*member._held]) == (["b"], ["c"])


async def test_a_job_that_is_another_s_is_dropped(table: Table) -> None:
    """Whatever the store says of a single job holds."""
    service, found = Service(40), list[str]()
    running = asyncio.create_task(follow(service, Store(table), found, 0, IDS))
    await asyncio.sleep(5)
    table.deadlines["other"] = math.inf
    (process, _) = table.deadlines
    for job_id in IDS[:3]:
        table.owners[job_id] = "other"
    await asyncio.sleep(2)
    # The number of its jobs is the same, so this is found out when something is noted of one.
    table.owners |= {IDS[3]: "another", "more": process}
    await asyncio.sleep(20)
    polled = {job_id for time, _, job_id in service.polls if time > 15}
    assert not polled & {*IDS[:4]}
    del table.owners["more"]
    table.bury("other")
    table.bury("another")
    await running
    assert table.over == {*IDS}


async def test_what_was_dealt_with_too_late_is_not_noted(table: Table) -> None:
    """A process learns by what it wants to have noted, too, that it was taken for dead."""
    service, found = Service(40), list[str]()
    running = asyncio.create_task(follow(service, Store(table), found, 0, IDS))
    await asyncio.sleep(9.5)
    (process,) = table.deadlines
    while len(found) < 12:
        await asyncio.sleep(0.001)
    while len(found) < 14:
        await asyncio.sleep(0.0001)
    table.bury(process)
    await running
    items = {f"{job_id}/{second}" for job_id in IDS for second in (10, 20, 30)}
    assert items <= {*found}
    assert len(found) <= len({*found}) + 1


async def test_a_store_that_has_lost_all_is_told_again(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs are added again, and their findings come again."""
    service, found = Service(), list[str]()
    running = asyncio.create_task(follow(service, Store(table), found, 0, IDS))
    await asyncio.sleep(15)
    table.__init__()  # type: ignore[misc]
    await running
    assert {*found} == every_finding()
    assert table.over == {*IDS}
    assert any("lost all it knew" in record.getMessage() for record in caplog.records)


async def test_an_error_of_the_store_ends_the_run(table: Table) -> None:
    """Unless it says that it cannot be reached; then the run cannot be waited for for ever."""
    store = Store(table)
    running = asyncio.create_task(follow(Service(), store, [], 0, IDS))
    await asyncio.sleep(15)
    store.problem = ConfigurationError("the table is about something else")
    with pytest.raises(ConfigurationError, match="something else"):
        await running
    assert tasks() == []


# Where ids come from


def once() -> Iterator[str]:
    """Give the ids one by one."""
    yield from IDS


async def arriving() -> AsyncGenerator[str, None]:
    """Give the ids one by one, now and then."""
    for job_id in IDS:
        await asyncio.sleep(0.5)
        yield job_id


@pytest.mark.parametrize("source", [once, arriving, lambda: iter(IDS * 100)])
async def test_ids_are_read_as_they_are_followed(
    table: Table, source: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An iterable of either kind is shared as a list is."""
    monkeypatch.setattr(module, "PORTION", 30)
    service = Service(30)
    runs = [Outcomes(service.polling(Store(table), number), source()) for number in range(2)]
    results = await asyncio.gather(*map(outcomes_of, runs))
    assert Counter(one.job_id for part in results for one in part) == Counter(IDS)
    assert table.over == {*IDS}


async def test_a_source_without_end_does_not_fill_the_store(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read as its ids are followed."""
    monkeypatch.setattr(module, "PORTION", 30)
    given: list[str] = []

    def endless() -> Iterator[str]:
        while True:
            given.append(f"job{len(given)}")
            yield given[-1]

    service = Service(0)
    async with Outcomes(service.polling(Store(table), rate=5.0), endless()) as outcomes:
        for _ in range(50):
            await anext(outcomes)
        assert len(given) < 50 + 50 + 50 + 10  # in hand, before the consumer, in flight
    assert {*given} == table.over | table.owners.keys()


async def test_what_was_taken_off_a_queue_is_added(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever the run is left; if the store is away then, it is told how much is lost."""
    for instant in range(30):
        table.__init__()  # type: ignore[misc]
        queue: asyncio.Queue[str] = asyncio.Queue()
        for job_id in IDS:
            queue.put_nowait(job_id)

        async def take(queue: asyncio.Queue[str] = queue) -> AsyncGenerator[str, None]:
            while True:
                yield await queue.get()

        async with Outcomes(Service().polling(Store(table)), take()):
            await asyncio.sleep(instant * 0.0005)
        assert {*IDS[: len(IDS) - queue.qsize()]} == table.owners.keys()
    queue.put_nowait("last")
    store = Store(table)
    store.is_away = True
    async with Outcomes(Service().polling(store), take()):
        await asyncio.sleep(0.1)
    assert "ids and 0 findings could not be noted: the table is away" in caplog.text


async def test_a_source_that_fails_and_ids_that_are_none(table: Table) -> None:
    """The exception is raised by the iteration; an id that is no text has an outcome."""

    def failing() -> Iterator[Any]:
        yield 7
        yield "job"
        raise ZeroDivisionError

    async with Outcomes(Service(3).polling(Store(table)), failing()) as outcomes:
        assert isinstance((await anext(outcomes)).error, InvalidInput)
        with pytest.raises(ZeroDivisionError):
            await anext(outcomes)
    assert table.owners.keys() == {"job"}


# What a consumer does


async def test_a_consumer_that_is_cancelled_while_something_is_noted(table: Table) -> None:
    """Nothing is lost, and what was handed out is noted."""
    store = Store(table)
    found: list[str] = []
    async with Findings(Service(13).polling(store), IDS) as findings:
        while True:
            await asyncio.sleep(0.0003)
            try:
                async with asyncio.timeout(0.0005 if len(found) % 3 else 1):
                    found.append((await anext(findings)).key)
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
    assert len({*found}) == len(found)


async def test_a_timeout_is_for_the_next_run(table: Table) -> None:
    """What is not over is laid aside; the processes of this run do not wait for it."""
    service = Service(math.inf)
    runs = [Outcomes(service.polling(Store(table), n, timeout=5), IDS) for n in range(2)]
    parts = await asyncio.gather(*map(outcomes_of, runs))
    errors = [one.error for part in parts for one in part]
    assert len(errors) == 12
    assert {type(error) for error in errors} == {WaitTimeout}
    assert now() < 7
    assert table.aside == {*IDS}


async def test_leaving_by_force_waits_for_the_store(table: Table) -> None:
    """Cancelled while it leaves, a process has given back its jobs all the same."""
    store = Store(table)
    run = Outcomes(Service().polling(store), IDS)
    await run.__aenter__()
    await asyncio.sleep(5)
    leaving = asyncio.create_task(run.__aexit__(None))
    await asyncio.sleep(0)
    while not leaving.done():
        leaving.cancel()
        await asyncio.sleep(0.0003)
    assert leaving.cancelled()
    assert table.deadlines == {}
    assert set(table.owners.values()) == {None}


@pytest.mark.parametrize("ttl", [0, -1, "3"])
def test_a_time_to_live_is_a_number(ttl: Any) -> None:
    """Another value is refused by name."""
    with pytest.raises(ConfigurationError, match="ttl: expected seconds, above 0"):
        Store(Table(), ttl)
