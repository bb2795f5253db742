"""Streams from their URLs on: submitted while there is room, watched, and cancelled in the end."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
import httpx
import pytest
from proofs import no_file_above
from runs import now, tasks

from ci_live_audit import (
    AccessDenied,
    Attempt,
    CallbackReceiver,
    Checkpoint,
    ConfigurationError,
    Credentials,
    Finding,
    InvalidInput,
    JobNotFound,
    JobState,
    LiveAuditClient,
    Moderation,
    SnapshotFinding,
    StateChange,
    Stream,
    Verdict,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.following.shared import SharedCheckpoint
from ci_live_audit.models import ENDED
from ci_live_audit.redis import RedisCheckpoint
from ci_live_audit.testing import Emulator, Fault, callback_body, callback_headers, frame
from ci_live_audit.testing.render import Refusal

FOREVER = 1e9


def url(name: object) -> str:
    """Return the URL of a stream."""
    return f"rtmp://live.example.com/app/{name}"


@pytest.fixture
def emulator() -> Emulator:
    """Return a service whose streams run for ever, unless a test says otherwise."""
    emulator = Emulator()
    for number in range(20):
        emulator.add_stream(url(number), duration=FOREVER)
    return emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client() as client:
        yield client


def running(emulator: Emulator) -> int:
    """Return how many jobs run."""
    time = asyncio.get_running_loop().time()
    return sum(job.state(time) not in ENDED for job in emulator.jobs.values())


def submissions(emulator: Emulator) -> int:
    """Return how many submissions arrived."""
    return sum(arrival.path == "/video/auditing" for arrival in emulator.arrivals)


async def all_of(moderation: Moderation) -> list[Finding]:
    """Return all findings."""
    async with moderation as findings:
        return [finding async for finding in findings]


async def collect(
    moderation: Moderation, found: list[Finding], each: Callable[[], object] = lambda: None
) -> None:
    """Collect findings until something is raised."""
    async with moderation as findings:
        async for finding in findings:
            found.append(finding)
            each()


async def test_every_finding_has_its_stream(emulator: Emulator, client: LiveAuditClient) -> None:
    """URLs become streams, streams stay what they are, and both are moderated to their ends."""
    emulator.add_stream(url("a"), duration=30, script=[frame(5, "Porn")])
    emulator.add_stream(url("b"), duration=40, script=[frame(5)])
    stream = Stream(url("b"), data_id="room b")
    findings = await all_of(client.moderate([url("a"), stream]))
    assert {finding.stream for finding in findings} == {Stream(url("a")), stream}
    assert all(finding.stream is stream for finding in findings if finding.stream == stream)
    ended = [one for one in findings if isinstance(one, StateChange) and one.job.ended]
    assert [one.state for one in ended] == [JobState.SUCCESS] * 2
    shown = [one for one in findings if isinstance(one, SnapshotFinding)]
    assert [(one.stream, one.verdict) for one in shown] == [
        (Stream(url("a")), Verdict.SENSITIVE),
        (stream, Verdict.NORMAL),
    ]
    assert {job.data_id for job in emulator.jobs.values()} == {None, "room b"}
    assert submissions(emulator) == 2
    assert tasks() == []


async def test_options_are_those_of_the_stream_or_of_the_run(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stream leaves open is as in the call."""
    bodies: list[bytes] = []

    def respond(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(400, content=b"<Error><Code>InvalidArgument</Code></Error>")

    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    async with emulator.client(http_client=http) as client:
        streams: list[str | Stream] = [
            url("a"),
            Stream(url("b"), biz_type="own", extra={"Conf": {"Mask": "1"}}),
        ]
        await all_of(client.moderate(streams, biz_type="run", callback="https://example.com/"))
    assert b"<BizType>run</BizType>" in bodies[0]
    assert b"<BizType>own</BizType>" in bodies[1]
    assert b"<Mask>1</Mask>" in bodies[1]
    assert all(b"<Callback>https://example.com/</Callback>" in body for body in bodies)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"urls": url(1)}, "urls: expected a list of URLs, .* got str"),
        ({"urls": 5}, "urls: expected a list of URLs, .* got int"),
        ({"urls": b"rtmp"}, "urls: expected a list of URLs, .* got bytes"),
        ({"at_once": 0}, "at_once: expected streams, above 0"),
        ({"at_once": 2.5}, "at_once: expected streams, above 0"),
        ({"interval": 0}, "interval: expected seconds"),
        ({"timeout": -1}, "timeout: expected seconds"),
        ({"cancel_within": math.inf}, "cancel_within: expected seconds"),
        ({"callback": "nonsense"}, "callback: expected a URL"),
        ({"data_id": ""}, "data_id: empty"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    """It would be wrong for every stream."""
    client = Emulator().client()
    with pytest.raises(InvalidInput, match=message):
        client.moderate(**{"urls": [], **arguments})


async def test_what_is_no_stream_is_one_finding(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Bad elements of the source end no other."""
    emulator.add_stream(url("a"), duration=15)
    bad: list[Any] = [
        None,
        "nonsense",
        b"rtmp://x/y",
        Stream("nonsense"),
        Stream(url("b"), data_id=""),
    ]
    findings = await all_of(client.moderate([*bad, Stream(5, data_id="x"), url("a")]))  # type: ignore[arg-type]
    failed = [one for one in findings if isinstance(one, WatchFailed)]
    assert [one.stream for one in failed][:5] == [None, Stream("nonsense"), None, *bad[3:]]
    assert all(isinstance(one.error, InvalidInput) for one in failed)
    assert {one.job_id for one in failed} == {""}
    assert len({one.key for one in failed}) == 4  # both of each pair are alike
    assert submissions(emulator) == 1
    assert isinstance(findings[-1], StateChange)


async def test_an_endless_source_of_nonsense_starves_nobody(client: LiveAuditClient) -> None:
    """It is read as fast as its findings are taken, and others have their turns."""
    read = 0

    def nonsense() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "nonsense"

    async with client.moderate(nonsense()) as findings:
        async for _ in findings:
            break
        await asyncio.sleep(1)
        assert read < 100


@pytest.mark.parametrize("kind", ["list", "iterator", "async"])
async def test_the_next_url_is_read_when_there_is_room(
    emulator: Emulator, client: LiveAuditClient, kind: str
) -> None:
    """At most so many run at once, and no URL is taken before its time."""
    read = 0

    def urls() -> Iterator[str]:
        nonlocal read
        for number in range(8):
            read += 1
            emulator.add_stream(url(number), duration=12 + number, script=[])
            yield url(number)

    async def async_urls() -> AsyncGenerator[str, None]:
        for one in urls():
            yield one

    source: Any = {"list": lambda: list(urls()), "iterator": urls, "async": async_urls}[kind]()
    moderation = client.moderate(source, at_once=3, interval=5)
    ended = 0
    async with moderation as findings:
        async for finding in findings:
            assert running(emulator) <= 3
            ended += isinstance(finding, StateChange) and finding.job.ended
            over = len(emulator.jobs) - running(emulator)
            assert kind == "list" or read <= over + 3
    assert submissions(emulator) == ended == 8


async def test_a_stream_of_a_list_is_submitted_once(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """However often a list names it; with another data id or policy it is another one."""
    emulator.add_stream(url("a"), duration=15)
    again: list[Any] = [url("a"), Stream(url("a")), url("a")]
    others = [
        Stream(url("a"), data_id="1"),
        Stream(url("a"), data_id="2"),
        Stream(url("a"), biz_type="x"),
    ]
    findings = await all_of(client.moderate([*again, *others, *again], at_once=2))
    assert submissions(emulator) == 4
    assert len({finding.job_id for finding in findings}) == 4


async def test_a_stream_that_has_ended_may_come_again(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A queue brings a room whenever it is live; while it is moderated, once is enough."""
    emulator.add_stream(url("a"), duration=15)
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def urls() -> AsyncGenerator[str, None]:
        while True:
            yield await queue.get()

    async with client.moderate(urls(), interval=1) as findings:
        for _ in range(2):
            for _ in range(3):
                queue.put_nowait(url("a"))
            async for finding in findings:
                if isinstance(finding, StateChange) and finding.job.ended:
                    break
    assert submissions(emulator) == 2


class Boom(Exception):
    """What a test raises."""


async def test_the_exception_of_a_source_ends_the_run(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """It is raised by the iteration, and what runs is cancelled."""

    def urls() -> Iterator[str]:
        yield url(1)
        raise Boom

    with pytest.raises(Boom):
        await all_of(client.moderate(urls()))
    assert submissions(emulator) == 1
    assert running(emulator) == 0
    assert tasks() == []


async def test_a_source_that_is_cancelled_is_an_error(client: LiveAuditClient) -> None:
    """The consumer does not take it for its own cancellation."""

    async def urls() -> AsyncGenerator[str, None]:
        raise asyncio.CancelledError
        yield ""

    with pytest.raises(ConfigurationError, match="urls: the source was cancelled"):
        await all_of(client.moderate(urls()))


async def test_a_source_is_closed(client: LiveAuditClient) -> None:
    """An async generator runs its cleanup before the block has been left."""
    closed = False

    async def urls() -> AsyncGenerator[str, None]:
        nonlocal closed
        try:
            yield url(1)
            yield url(2)
        finally:
            await asyncio.sleep(1)
            closed = True

    async with client.moderate(urls(), at_once=1) as findings:
        async for _ in findings:
            break
    assert closed


# The service's own limit


async def test_one_stream_too_many_waits(emulator: Emulator, client: LiveAuditClient) -> None:
    """Until one of ours has ended, at once; the others of the list are not asked for meanwhile."""
    emulator = Emulator(at_once=2)
    for number in range(6):
        emulator.add_stream(url(number), duration=100, script=[])
    async with emulator.client() as client:
        findings = await all_of(client.moderate([url(number) for number in range(6)], at_once=6))
    assert not [one for one in findings if isinstance(one, WatchFailed)]
    assert len(emulator.jobs) == 6
    refused = sum(arrival.status == 403 for arrival in emulator.arrivals)
    assert refused < 30
    starts = sorted(job.started or 0 for job in emulator.jobs.values())
    assert starts[2] < 112
    assert starts[4] < 224


async def test_the_limit_may_be_taken_by_others(caplog: pytest.LogCaptureFixture) -> None:
    """Another process has all of it; nothing is asked more than once a minute in the end."""
    emulator = Emulator(at_once=1)
    other = emulator.add_job(duration=FOREVER)
    emulator.add_stream(url(1), duration=10)
    async with emulator.client() as client, client.moderate([url(1)]) as findings:
        waiting = asyncio.create_task(anext(findings))
        await asyncio.sleep(3600)
        assert not waiting.done()
        assert submissions(emulator) < 70
        emulator.jobs[other].cancelled = now()
        finding = await waiting
        assert isinstance(finding, StateChange)
    warnings = [record.getMessage() for record in caplog.records]
    assert len([one for one in warnings if "is not submitted yet" in one]) == 1


async def test_waiting_costs_no_retries(emulator: Emulator) -> None:
    """The budget of retries is for others."""
    emulator = Emulator(at_once=1)
    emulator.add_job(duration=FOREVER)
    async with emulator.client() as client, client.moderate([url(1), url(2), url(3)]):
        await asyncio.sleep(3600)
        emulator.inject(Fault.error(503), times=1)
        await client.query(next(iter(emulator.jobs)))


# Submissions that fail


async def test_a_submission_that_may_have_happened_is_told_and_not_repeated(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """It is a finding without a job, and is named again among what may run on."""
    emulator.inject(Fault.reset(), times=1, operation="submit")
    async with client.moderate([url(1)]) as findings:
        (finding,) = [finding async for finding in findings]
    assert isinstance(finding, WatchFailed)
    assert finding.error.may_have_happened
    assert (finding.job_id, finding.stream) == ("", Stream(url(1)))
    assert submissions(emulator) == 1
    (left,) = findings.not_cancelled
    assert (left.stream, left.job_id, left.error) == (Stream(url(1)), "", finding.error)


async def test_a_lost_job_keeps_its_place(emulator: Emulator, client: LiveAuditClient) -> None:
    """It may run, so for twelve hours it counts as if it did."""
    emulator.inject(Fault.reset(), times=1, operation="submit")
    urls = [url(number) for number in range(5)]
    async with client.moderate(urls, at_once=2, interval=600) as findings:
        lost = await anext(findings)
        assert isinstance(lost, WatchFailed)
        await asyncio.sleep(3600)
        assert running(emulator) == 2
        emulator.inject(Fault.reset(), times=1, operation="submit")
        assert await anext(findings)
        await asyncio.sleep(12 * 3600)
        assert await anext(findings)
        await asyncio.sleep(60)
        assert running(emulator) == 3
    assert running(emulator) == 2


async def test_the_last_place_is_not_lost(emulator: Emulator, client: LiveAuditClient) -> None:
    """Otherwise nothing would ever go on."""
    emulator.inject(Fault.error(503), times=2, operation="submit")
    for number in range(4):
        emulator.add_stream(url(number), duration=15)
    findings = await all_of(client.moderate([url(number) for number in range(4)], at_once=1))
    assert sum(isinstance(one, WatchFailed) for one in findings) == 2
    assert sum(isinstance(one, StateChange) and one.job.ended for one in findings) == 2


async def test_an_outage_costs_few_streams(emulator: Emulator, client: LiveAuditClient) -> None:
    """After an answer that was lost the next stream waits, longer each time."""
    emulator.inject(Fault.error(503), operation="submit")
    urls = [url(number) for number in range(1000)]
    async with client.moderate(urls, at_once=10) as findings:
        reading = asyncio.create_task(_count(findings))
        await asyncio.sleep(3600)
        reading.cancel()
    assert submissions(emulator) < 80


async def _count(findings: Moderation) -> None:
    async for _ in findings:
        pass


async def test_polls_that_see_an_outage_stop_submissions(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """While they wait for its end, no stream is risked."""
    ready = asyncio.Event()

    async def urls() -> AsyncGenerator[str, None]:
        yield url(1)
        await ready.wait()
        yield url(2)
        yield url(3)
        yield url(4)

    async with client.moderate(urls()) as findings:
        await anext(findings)
        emulator.inject(Fault.error(503))
        reading = asyncio.create_task(_count(findings))
        await asyncio.sleep(60)
        before = submissions(emulator)
        ready.set()
        await asyncio.sleep(600)
        assert submissions(emulator) <= before + 1
        emulator.faults.clear()
        await asyncio.sleep(600)
        assert submissions(emulator) >= 3
        reading.cancel()


async def test_a_service_that_is_not_reached_is_waited_for(emulator: Emulator) -> None:
    """Nothing was submitted, so nothing is lost."""
    down = True

    async def respond(request: httpx.Request) -> httpx.Response:
        if down:
            raise httpx.ConnectError("refused")
        return await real.handle_async_request(request)

    real = httpx.ASGITransport(emulator)
    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    async with (
        emulator.client(http_client=http) as client,
        client.moderate([url(1), url(2)]) as findings,
    ):
        first = asyncio.create_task(anext(findings))
        await asyncio.sleep(1800)
        assert not first.done()
        down = False
        assert isinstance(await first, StateChange)
        assert isinstance(await anext(findings), StateChange)
    assert submissions(emulator) == 2


async def test_a_fault_of_the_account_ends_the_run(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """After a few streams, not after ten thousand."""
    emulator.credentials = Credentials("AKIDEXAMPLE", "another")
    findings = client.moderate([url(number) for number in range(10_000)])
    failed: list[Finding] = []
    with pytest.raises(AccessDenied):
        await collect(findings, failed)
    assert 4 <= len(failed) <= 10
    assert all(isinstance(finding, WatchFailed) for finding in failed)
    assert findings.not_cancelled == ()


async def test_refusals_of_single_streams_do_not(emulator: Emulator) -> None:
    """Each is a finding, and the others go on."""
    emulator.inject(
        Fault(refusal=Refusal(400, "InvalidArgument", "no")), times=50, operation="submit"
    )
    emulator.add_stream(url("last"), duration=15)
    async with emulator.client() as client:
        urls = [*map(url, range(50)), url("last")]
        findings = await all_of(client.moderate(urls))
    assert sum(isinstance(one, WatchFailed) for one in findings) == 50
    assert isinstance(findings[-1], StateChange)


async def test_credentials_that_were_there_may_come_back(emulator: Emulator) -> None:
    """A provider that fails for a while loses no stream."""
    fails = False

    async def provide() -> Credentials:
        if fails:
            raise RuntimeError("the vault is away")
        return emulator.credentials

    ready = asyncio.Event()

    async def urls() -> AsyncGenerator[str, None]:
        yield url(1)
        await ready.wait()
        yield url(2)

    async with (
        emulator.client(credentials=provide) as client,
        client.moderate(urls(), interval=3600) as findings,
    ):
        assert isinstance(await anext(findings), StateChange)
        fails = True
        ready.set()
        second = asyncio.create_task(anext(findings))
        await asyncio.sleep(600)
        assert not second.done()
        fails = False
        assert (await second).stream == Stream(url(2))


def submitting() -> list[asyncio.Task[Any]]:
    """Return the tasks that submit streams."""
    return [task for task in tasks() if "_submit" in str(task.get_coro())]


async def test_a_submission_cancelled_from_outside_is_a_finding(emulator: Emulator) -> None:
    """Whether it had left or not; nobody waits for it in vain."""
    emulator.inject(Fault.slow(10), operation="submit")
    async with (
        emulator.client(rate=0.2) as client,
        client.moderate([url(1), url(2)]) as findings,
    ):
        await asyncio.sleep(1)  # one has left, and one waits for its slot
        for task in submitting():
            task.cancel()
        lost, never = sorted(
            [finding async for finding in findings], key=lambda one: str(one.stream)
        )
    assert isinstance(lost, WatchFailed)
    assert isinstance(never, WatchFailed)
    assert (lost.error.may_have_happened, never.error.may_have_happened) == (True, False)
    assert [left.stream for left in findings.not_cancelled] == [Stream(url(1))]


async def test_what_goes_wrong_beside_the_calls_ends_the_run(emulator: Emulator) -> None:
    """A limiter of the user's that fails is no reason to go on in silence."""

    class Limiter:
        async def acquire(self) -> float:
            raise Boom

        def hold(self, seconds: float) -> None:
            pass

    async with emulator.client(limiter=Limiter()) as client:
        with pytest.raises(Boom):
            await all_of(client.moderate([url(1)]))


# Callbacks

DETAIL = {"Conf": {"CallbackVersion": "Detail"}}


@pytest.mark.parametrize("extra", [None, DETAIL], ids=["Simple", "Detail"])
@pytest.mark.parametrize("trusted", [False, True])
async def test_callbacks_bring_what_is_new(
    emulator: Emulator, client: LiveAuditClient, extra: Any, trusted: bool
) -> None:
    """Findings and ends come long before their turns, each once and with its stream."""
    receiver = CallbackReceiver("a secret of more than 16 bytes")
    emulator.callbacks = receiver
    streams = [
        Stream(url(name), data_id=name, callback=receiver.url("https://bot.example.com", name))
        for name in ("a", "b")
    ]
    for stream in streams:
        script = [frame(20, "Porn"), frame(40)]
        emulator.add_stream(stream.url, duration=60, script=script)
    callbacks = receiver.trusted() if trusted else receiver
    async with client.moderate(streams, interval=600, callbacks=callbacks, extra=extra) as findings:
        found = [(now(), finding) async for finding in findings]
    frames = [(at, one) for at, one in found if isinstance(one, SnapshotFinding)]
    assert sorted((str(one.stream), one.time is not None) for _, one in frames) == [
        *(("a", True), ("a", True), ("b", True), ("b", True))
    ]
    assert len({one.key for _, one in found}) == len(found)
    assert all(at < 70 for at, _ in found)
    at_once = trusted and extra is not None
    assert {one.source for _, one in frames} == {"callback" if at_once else "poll"}


# Jobs that are given up


async def test_a_stream_that_is_given_up_is_cancelled(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Then its place is free, and not before."""
    emulator.inject(Fault.error(500), times=8, operation="cancel")
    seen: list[tuple[int, float]] = []
    async with client.moderate([url(1), url(2)], at_once=1, timeout=60, interval=20) as findings:
        async for finding in findings:
            if isinstance(finding, WatchFailed):
                assert isinstance(finding.error, WaitTimeout)
                assert finding.stream is not None
                seen.append((running(emulator), now()))
    assert [count for count, _ in seen] == [1, 1]
    assert submissions(emulator) == 2
    first, second = emulator.jobs.values()
    assert first.cancelled is not None
    assert second.started is not None
    assert first.cancelled <= second.started
    assert running(emulator) == 0


async def test_what_the_service_does_not_know_has_no_place(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """A job that has vanished cannot be cancelled, and need not be."""
    async with client.moderate([url(1), url(2)], at_once=1) as findings:
        await anext(findings)
        emulator.jobs.clear()
        vanished = await anext(findings)
        assert isinstance(vanished, WatchFailed)
        assert isinstance(vanished.error, JobNotFound)
        assert vanished.stream == Stream(url(1))
        assert (await anext(findings)).stream == Stream(url(2))


# Leaving


async def fail_after(
    findings: Moderation, number: int, then: Callable[[], object] = lambda: None
) -> None:
    """Take some findings, then do something, then fail."""
    async with findings:
        for _ in range(number):
            await anext(findings)
        then()
        raise Boom


async def leave_by_break(findings: Moderation, number: int = 2) -> None:
    async with findings:
        for _ in range(number):
            await anext(findings)


async def leave_by_exception(findings: Moderation) -> None:
    with pytest.raises(Boom):
        await fail_after(findings, 1)


async def leave_by_cancellation(findings: Moderation) -> None:
    task = asyncio.create_task(all_of(findings))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_timeout(findings: Moderation) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await all_of(findings)


async def leave_by_scope(findings: Moderation) -> None:
    with anyio.move_on_after(3) as scope:
        await all_of(findings)
    assert scope.cancelled_caught


async def leave_by_group(findings: Moderation) -> None:
    async def fail() -> None:
        await asyncio.sleep(3)
        raise Boom

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(all_of(findings))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert isinstance(caught.value.exceptions[0], Boom)


WAYS = [
    leave_by_break,
    leave_by_exception,
    leave_by_cancellation,
    leave_by_timeout,
    leave_by_scope,
    leave_by_group,
]


@pytest.mark.parametrize("leave", WAYS)
async def test_what_still_runs_is_cancelled(
    emulator: Emulator, client: LiveAuditClient, leave: Callable[[Moderation], Any]
) -> None:
    """Whatever way the block is left, at once, with no more requests than that takes."""
    findings = client.moderate([url(number) for number in range(5)])
    await leave(findings)
    assert running(emulator) == 0
    assert {one.job_id for one in findings.cancelled} == set(emulator.jobs)
    assert findings.not_cancelled == ()
    assert now() < 5
    first = next(at for at, one in enumerate(emulator.arrivals) if "cancel" in one.path)
    assert all("cancel" in one.path for one in emulator.arrivals[first:])
    assert tasks() == []


async def test_closing_the_client_cancels_first(emulator: Emulator) -> None:
    """The iteration says that it was closed, and nothing runs on."""
    client = emulator.client()
    other = client.with_options(timeout=5)
    findings, others = client.moderate([url(1)]), other.moderate([url(2)])
    async with findings, others:
        await anext(findings)
        reading = asyncio.create_task(_count(others))
        await client.aclose()
        assert running(emulator) == 0
        with pytest.raises(ConfigurationError, match="the client was closed during the run"):
            await anext(findings)
        with pytest.raises(ConfigurationError, match="the client was closed during the run"):
            await reading
    assert len(findings.cancelled) == len(others.cancelled) == 1
    with pytest.raises(ConfigurationError, match="this client is closed"):
        await all_of(client.moderate([url(3)]))


async def test_a_submission_under_way_is_waited_for(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Its answer names the job, which is cancelled then."""
    emulator.inject(Fault.slow(3), operation="submit")
    async with client.moderate([url(1), url(2)]):
        await asyncio.sleep(1)
        assert len(emulator.jobs) == 0
    assert len(emulator.jobs) == 2
    assert running(emulator) == 0


async def test_a_submission_that_has_not_left_never_leaves(emulator: Emulator) -> None:
    """Neither one that waits for its slot, nor one that waits to be repeated."""
    emulator.inject(Fault.throttle(retry_after=50), operation="submit")
    async with emulator.client() as client, client.moderate([url(1)]):
        await asyncio.sleep(5)
    assert now() < 6
    async with emulator.client(rate=0.1) as client, client.moderate([url(2), url(3)]):
        await asyncio.sleep(1)
    assert now() < 20
    assert len(emulator.jobs) == 0


async def test_an_answer_that_does_not_come_is_named(
    emulator: Emulator, client: LiveAuditClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The end has its own deadline, and what is not known then is told."""
    emulator.inject(Fault.slow(25), operation="submit")
    async with client.moderate([url(1)], cancel_within=10) as findings:
        await asyncio.sleep(1)
    assert 10.9 < now() < 12
    (left,) = findings.not_cancelled
    assert (left.stream, left.job_id) == (Stream(url(1)), "")
    assert left.error is not None
    assert left.error.may_have_happened
    assert "within 10 s" in str(left.error)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_cancellation_is_tried_again(emulator: Emulator, client: LiveAuditClient) -> None:
    """As often as there is time for."""
    emulator.inject(Fault.error(503), times=9, operation="cancel")
    async with client.moderate([url(1), url(2)]) as findings:
        await anext(findings)
        await anext(findings)
    assert running(emulator) == 0
    assert findings.not_cancelled == ()
    assert now() < 20


async def test_a_cancellation_that_hangs_is_tried_again(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """One answer that does not come does not use up the time."""
    emulator.inject(Fault.slow(60), times=1, operation="cancel")
    async with client.moderate([url(1)]) as findings:
        await anext(findings)
    assert running(emulator) == 0
    assert findings.not_cancelled == ()
    assert now() < 20


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault.error(503), 20.0),
        (Fault.throttle(retry_after=300), 20.0),
        (Fault(refusal=Refusal(403, "AccessDenied", "no")), 2.0),
        (Fault.slow(60), 20.0),
    ],
    ids=str,
)
async def test_what_cannot_be_cancelled_is_told(
    emulator: Emulator,
    client: LiveAuditClient,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    seconds: float,
) -> None:
    """One warning each, and an attribute; the exception of the block arrives bare."""
    findings = client.moderate([url(1), url(2)])
    began = 0.0

    def go_wrong() -> None:
        nonlocal began
        emulator.inject(fault)
        began = now()
        caplog.clear()

    with pytest.raises(Boom):
        await fail_after(findings, 2, go_wrong)
    assert now() - began < seconds + 0.5
    assert {left.job_id for left in findings.not_cancelled} == set(emulator.jobs)
    assert {left.stream for left in findings.not_cancelled} == {Stream(url(1)), Stream(url(2))}
    assert all(left.error is not None for left in findings.not_cancelled)
    told = [record for record in caplog.records if "was not cancelled" in record.getMessage()]
    assert len(told) == 2
    assert findings.cancelled == ()


async def test_no_more_are_cancelled_at_once_than_run(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Ten at a time, as many as there are places."""
    emulator.inject(Fault.slow(1), operation="cancel")
    async with client.moderate([url(number) for number in range(6)], at_once=6) as findings:
        for _ in range(6):
            await anext(findings)
    assert running(emulator) == 0


async def test_what_has_ended_meanwhile_counts_as_cancelled(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """The service refuses to cancel it, and a query says why."""
    emulator.add_stream(url(1), duration=10)
    async with client.moderate([url(1)]) as findings:
        await anext(findings)
        await asyncio.sleep(9)
        await asyncio.sleep(5)
    assert running(emulator) == 0
    assert findings.not_cancelled == ()


async def test_a_second_cancellation_loses_nothing(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """However often who leaves is cancelled, all is done first."""
    emulator.inject(Fault.slow(2), operation="cancel")
    findings = client.moderate([url(1), url(2)])
    task = asyncio.create_task(all_of(findings))
    await asyncio.sleep(3)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running(emulator) == 0
    assert len(findings.cancelled) == 2


@pytest.mark.parametrize("steps", range(12))
async def test_the_end_of_the_program_waits_for_the_end(
    emulator: Emulator, client: LiveAuditClient, steps: int
) -> None:
    """`asyncio.run` cancels all tasks, those that cancel jobs as well, and waits for them."""
    findings = client.moderate([url(1), url(2)])
    me = asyncio.current_task()
    task = asyncio.create_task(all_of(findings))
    await asyncio.sleep(3)
    task.cancel()
    for _ in range(steps):
        await asyncio.sleep(0)
    for one in asyncio.all_tasks() - {me}:
        if "pytest" not in repr(one) and one in tasks():
            one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running(emulator) == 0
    assert len(findings.cancelled) == 2


async def test_nothing_is_cancelled_that_should_not_be(
    emulator: Emulator, client: LiveAuditClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``cancel_on_exit=False`` all run on, those given up as well, and are named."""
    emulator.inject(Fault.slow(1), operation="submit")
    urls = [url(1), url(2)]
    async with client.moderate(urls, at_once=1, timeout=60, cancel_on_exit=False) as findings:
        async for finding in findings:
            if isinstance(finding, WatchFailed):
                break
        await asyncio.sleep(600)
    assert len(emulator.jobs) == running(emulator) == 1
    (left,) = findings.not_cancelled
    assert (left.stream, left.error) == (Stream(url(1)), None)
    assert left.job_id in emulator.jobs
    assert findings.cancelled == ()
    assert not caplog.records
    assert not [one for one in emulator.arrivals if "cancel" in one.path]


async def test_a_place_is_free_when_a_job_has_ended_by_itself(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """One that is given up, and not cancelled, is asked for now and then."""
    emulator.add_stream(url(1), duration=1000)
    emulator.add_stream(url(2), duration=50)
    urls = [url(1), url(2)]
    findings = await all_of(client.moderate(urls, at_once=1, timeout=60, cancel_on_exit=False))
    assert isinstance(findings[-1], StateChange)
    first, second = emulator.jobs.values()
    assert second.started is not None
    assert 1000 < second.started < 1070
    assert first.cancelled is second.cancelled is None


async def test_wrong_use_is_told(client: LiveAuditClient) -> None:
    """It is entered once, and entered before it is read."""
    findings = client.moderate([])
    with pytest.raises(ConfigurationError, match="enter the run first"):
        await anext(findings)
    async with findings:
        pass
    with pytest.raises(ConfigurationError, match="a run can be entered once"):
        await findings.__aenter__()
    assert (findings.cancelled, findings.not_cancelled) == ((), ())


def test_nothing_is_asked_of_a_loop_before_it_runs() -> None:
    """It can be made anywhere."""
    Emulator().client().moderate([url(1)])


async def test_a_source_that_fails_when_it_is_closed_is_told(client: LiveAuditClient) -> None:
    """After everything has been cancelled."""

    async def urls() -> AsyncGenerator[str, None]:
        try:
            yield url(1)
            yield url(2)
        finally:
            raise Boom

    findings = client.moderate(urls(), at_once=1)
    with pytest.raises(Boom):
        await leave_by_break(findings, 1)
    assert len(findings.cancelled) == 1
    assert tasks() == []


# With a checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the checkpoint is."""
    return tmp_path / "streams.checkpoint"


class Killed(BaseException):
    """Stands for the end of the process."""


class Dying(Checkpoint):
    """A checkpoint whose process dies before, or after, so many of its writes."""

    def __init__(self, path: Path, writes: int) -> None:
        super().__init__(path)
        self._writes = writes

    def _write(self, entry: dict[str, Any]) -> bool:
        self._writes -= 1
        if self._writes < 0:
            self.close()
            raise Killed
        return super()._write(entry)


async def test_what_was_noted_is_gone_on_with(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Jobs that run on are taken up, counted and cancelled; nothing is submitted twice."""
    urls: list[str | Stream] = [url(1), Stream(url(2) + "?secret=1", data_id="room 2")]
    emulator.add_stream(url(2) + "?secret=1", duration=FOREVER)
    with Checkpoint(path) as checkpoint:
        async with client.moderate(urls, cancel_on_exit=False, checkpoint=checkpoint) as findings:
            await anext(findings)
            await anext(findings)
    assert "secret" not in path.read_text()
    again: list[str | Stream] = [Stream(url(2) + "?secret=2", data_id="room 2"), url(1), url(3)]
    with Checkpoint(path) as checkpoint:
        async with client.moderate(again, at_once=2, checkpoint=checkpoint) as findings:
            seen = {(await anext(findings)).job_id for _ in range(2)}
            await asyncio.sleep(60)
            assert submissions(emulator) == 2
        assert seen == set(emulator.jobs) == {one.job_id for one in findings.cancelled}
    assert running(emulator) == 0


async def test_a_stream_of_an_earlier_run_is_told_as_far_as_it_is_known(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Without what is secret in its URL, until the source names it."""
    stream = Stream("rtmp://user:word@live.example.com/app/1?secret=1", data_id="room 1")
    emulator.add_stream(stream.url, duration=FOREVER, script=[frame(20), frame(200)])
    with Checkpoint(path) as checkpoint:
        async with client.moderate([stream], cancel_on_exit=False, checkpoint=checkpoint) as run:
            await anext(run)
    ready = asyncio.Event()

    async def urls() -> AsyncGenerator[Stream, None]:
        await ready.wait()
        yield stream

    with Checkpoint(path) as checkpoint:
        async with client.moderate(urls(), checkpoint=checkpoint) as run:
            assert (await anext(run)).stream == Stream(url(1), data_id="room 1")
            ready.set()
            await asyncio.sleep(300)
            async for finding in run:
                if finding.stream is stream:
                    break


async def test_what_is_over_is_not_submitted_again(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Once its end has been handed out and the next finding asked for, or the block left."""
    emulator.add_stream(url(1), duration=15, script=[frame(5, "Porn")])
    emulator.add_stream(url(2), duration=15, failure=("ResourceDownloadFailed", "gone"))
    urls = [url(1), url(2)]
    with Checkpoint(path) as checkpoint:
        await all_of(client.moderate(urls, checkpoint=checkpoint))
        assert (checkpoint.answered, checkpoint.sensitive, checkpoint.errors) == (2, 1, 1)
        assert await all_of(client.moderate(iter(urls), checkpoint=checkpoint)) == []
    with Checkpoint(path) as checkpoint:
        assert await all_of(client.moderate(urls, checkpoint=checkpoint)) == []
        assert checkpoint.open == ()
    assert submissions(emulator) == 2


async def test_a_job_that_has_vanished_is_over(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """The service has said that there is none."""
    with Checkpoint(path) as checkpoint:
        async with client.moderate([url(1)], cancel_on_exit=False, checkpoint=checkpoint) as run:
            await anext(run)
        emulator.jobs.clear()
        (finding,) = await all_of(client.moderate([], checkpoint=checkpoint))
        assert isinstance(finding, WatchFailed)
        assert await all_of(client.moderate([url(1)], checkpoint=checkpoint)) == []
        assert checkpoint.errors == 1


async def test_an_end_that_was_not_dealt_with_comes_again(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """The job has ended, but nobody knows that this has arrived; what came before has."""
    emulator.add_stream(url(1), duration=15, script=[frame(5, "Porn")])
    with Checkpoint(path) as checkpoint:
        first: list[Finding] = []

        def raise_at_the_end() -> None:
            if isinstance(first[-1], StateChange) and first[-1].job.ended:
                raise Boom

        with pytest.raises(Boom):
            await collect(client.moderate([url(1)], checkpoint=checkpoint), first, raise_at_the_end)
        again = await all_of(client.moderate([url(1)], checkpoint=checkpoint))
    assert [one.key for one in again] == [first[-1].key]
    assert submissions(emulator) == 1


async def test_what_was_cancelled_on_the_way_out_is_submitted_again(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """A bot that is deployed anew moderates its rooms again; their streams still run."""
    for number in (1, 2):
        with Checkpoint(path) as checkpoint:
            async with client.moderate([url(1)], checkpoint=checkpoint) as findings:
                await anext(findings)
            assert checkpoint.open == ()
        assert (submissions(emulator), running(emulator)) == (number, 0)


async def test_what_was_given_up_or_refused_may_come_again(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Neither is an answer for ever."""
    with Checkpoint(path) as checkpoint:
        await all_of(client.moderate([url(1)], timeout=30, checkpoint=checkpoint))
        fault = Fault(refusal=Refusal(400, "InvalidArgument", "no"))
        emulator.inject(fault, times=1, operation="submit")
        await all_of(client.moderate([url(2)], checkpoint=checkpoint))
        async with client.moderate([url(1), url(2)], checkpoint=checkpoint) as findings:
            await anext(findings)
            await anext(findings)
    assert submissions(emulator) == 4


async def test_a_submission_that_may_have_happened_is_named_by_the_next_run(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """And by each one after that; it is not submitted again by itself."""
    emulator.inject(Fault.reset(), times=1, operation="submit")
    with Checkpoint(path) as checkpoint:
        await all_of(client.moderate([url(1)], checkpoint=checkpoint))
    for urls in ([url(1)], []):
        with Checkpoint(path) as checkpoint:
            (finding,) = await all_of(client.moderate(urls, checkpoint=checkpoint))
        assert isinstance(finding, WatchFailed)
        assert (finding.stream, finding.job_id) == (Stream(url(1)), "")
        assert finding.error.may_have_happened
    assert submissions(emulator) == 1


@pytest.mark.parametrize("writes", [1, 2, 3])
async def test_a_process_may_die_at_every_write(
    emulator: Emulator, client: LiveAuditClient, path: Path, writes: int
) -> None:
    """Whatever ran is cancelled by the next run or named, and nothing is submitted twice."""
    emulator.add_stream(url(1), duration=15)
    with pytest.raises(Killed):
        await all_of(
            client.moderate([url(1)], checkpoint=Dying(path, writes), cancel_on_exit=False)
        )
    before = submissions(emulator)
    with Checkpoint(path) as checkpoint:
        async with client.moderate([url(1)], checkpoint=checkpoint) as findings:
            finding = await anext(findings, None)
    named = isinstance(finding, WatchFailed) and finding.error.may_have_happened
    assert submissions(emulator) == max(before, 1) or writes == 1
    assert running(emulator) == 0 or named


async def test_poll_reads_the_file(emulator: Emulator, client: LiveAuditClient, path: Path) -> None:
    """Jobs that still run are ids like others, and those that are over have been answered."""
    emulator.add_stream(url(1), duration=15)
    emulator.inject(Fault.reset(), times=1, operation="submit")
    with Checkpoint(path) as checkpoint:
        urls = [url(0), url(1), url(2), url(3)]
        async with client.moderate(urls, checkpoint=checkpoint, cancel_on_exit=False) as findings:
            async for finding in findings:
                if isinstance(finding, StateChange) and finding.job.ended:
                    break
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.answered, len(checkpoint.open)) == (1, 2)
        async with client.as_completed([], checkpoint=checkpoint, timeout=10) as outcomes:
            assert {outcome.job_id async for outcome in outcomes} == set(checkpoint.open)


async def test_a_full_disk_stands_still_until_it_is_known(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Nothing is submitted that is not noted; the iteration says so, and goes on when called."""
    emulator.add_stream(url(1), duration=15)
    with Checkpoint(path) as checkpoint:
        moderation = client.moderate([url(1)], checkpoint=checkpoint)
        async with contextlib.AsyncExitStack() as stack:
            with no_file_above(path.stat().st_size):
                findings = await stack.enter_async_context(moderation)
                for _ in range(3):
                    with pytest.raises(OSError):
                        await anext(findings)
                await asyncio.sleep(1)
                assert submissions(emulator) == 0
            with contextlib.suppress(OSError):
                await anext(findings)
            assert [one async for one in findings]
        assert checkpoint.answered == 1


async def test_a_disk_that_is_full_on_the_way_out_keeps_nothing_running(
    emulator: Emulator, client: LiveAuditClient, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be noted then is in the log."""
    with Checkpoint(path) as checkpoint:
        async with client.moderate([url(1)], checkpoint=checkpoint) as findings:
            await anext(findings)
            size = path.stat().st_size
            with no_file_above(size):
                await findings.close()
    assert running(emulator) == 0
    assert "the checkpoint cannot be written" in caplog.text


async def test_a_job_that_cannot_be_noted_is_cancelled_all_the_same(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Even if what was to note it was cancelled from outside."""
    emulator.inject(Fault.slow(1), operation="submit")
    with Checkpoint(path) as checkpoint:
        async with client.moderate([url(1)], checkpoint=checkpoint) as findings:
            await asyncio.sleep(0.5)
            with no_file_above(path.stat().st_size):
                await asyncio.sleep(2)
            for task in submitting():
                task.cancel()
            await asyncio.sleep(1)
            assert running(emulator) == 1
    assert running(emulator) == 0
    assert len(findings.cancelled) == 1


async def test_leaving_while_the_disk_is_full(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Who leaves in place of trying again is not held up."""
    with Checkpoint(path) as checkpoint:
        moderation = client.moderate([url(1)], checkpoint=checkpoint)
        with no_file_above(path.stat().st_size):
            async with moderation as findings:
                with pytest.raises(OSError):
                    await anext(findings)
    assert submissions(emulator) == 0
    assert tasks() == []


async def test_a_checkpoint_of_another_bucket_is_refused(
    client: LiveAuditClient, path: Path
) -> None:
    """As by all runs."""
    with Checkpoint(path) as checkpoint:
        checkpoint.bind("another-1250000000", "ap-beijing")
        with pytest.raises(ConfigurationError, match="use another file"):
            client.moderate([], checkpoint=checkpoint)


# What calls are made with


async def test_a_limiter_of_the_users_is_told_of_refusals(emulator: Emulator) -> None:
    """Submissions pass it as all calls do, and their attempts are reported."""
    held: list[float] = []
    attempts: list[Attempt] = []

    class Limiter:
        async def acquire(self) -> float:
            return 0.0

        def hold(self, seconds: float) -> None:
            held.append(seconds)

    emulator.inject(Fault.throttle(), times=1, operation="submit")
    async with (
        emulator.client(limiter=Limiter(), on_attempt=attempts.append) as client,
        client.moderate([url(1)]) as findings,
    ):
        await anext(findings)
    assert len(held) == 1
    assert [attempt.status for attempt in attempts if attempt.operation == "submit"] == [429, 200]


async def test_a_refusal_that_comes_on_the_way_out_leaves_nothing(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """What was refused does not run."""
    fault = Fault(refusal=Refusal(400, "InvalidArgument", "no"), delay=3)
    emulator.inject(fault, operation="submit")
    async with client.moderate([url(1)]) as findings:
        await asyncio.sleep(1)
    assert (findings.cancelled, findings.not_cancelled) == ((), ())


async def test_clients_may_be_closed_together(emulator: Emulator) -> None:
    """By several tasks, one of which is cancelled: all wait until nothing runs any more."""
    emulator.inject(Fault.slow(1), operation="cancel")
    client = emulator.client()
    async with client.moderate([url(1)]) as findings:
        await anext(findings)
        first, second = (asyncio.create_task(client.aclose()) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert running(emulator) == 0


async def test_any_async_iterator_is_a_source(emulator: Emulator, client: LiveAuditClient) -> None:
    """One that is no generator, and has nothing to close, as well."""

    class Rooms:
        def __init__(self) -> None:
            self._left = 2

        def __aiter__(self) -> Rooms:
            return self

        async def __anext__(self) -> str:
            self._left -= 1
            if self._left < 0:
                raise StopAsyncIteration
            return url(f"short{self._left}")

    for number in range(2):
        emulator.add_stream(url(f"short{number}"), duration=15, script=[])
    assert await all_of(client.moderate(Rooms()))
    assert submissions(emulator) == 2


# What runs and what is noted are the same


async def test_a_job_that_is_gone_takes_no_other_with_it(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """The service knows a job no more: its stream is over, and nothing else is."""
    with Checkpoint(path) as checkpoint:
        async with client.moderate(
            repeat(url(1)), at_once=1, interval=1, checkpoint=checkpoint
        ) as findings:
            await anext(findings)
            emulator.jobs.clear()
            assert isinstance(await anext(findings), WatchFailed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await anext(findings)
            assert running(emulator) == 0
            records = await checkpoint.streams()
            assert (records.open, records.over) == ({}, {Stream(url(1)).key})
            assert checkpoint.errors == 1


async def repeat(text: str) -> AsyncGenerator[str, None]:
    """Yield a text without end."""
    while True:
        yield text
        await asyncio.sleep(1)


async def test_a_stream_whose_release_could_not_be_noted_comes_again(
    emulator: Emulator, client: LiveAuditClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full on the way out; the job that was cancelled then is not the end of it."""
    with Checkpoint(path) as checkpoint:
        with monkeypatch.context() as patch:
            async with client.moderate([url(1)], interval=1, checkpoint=checkpoint) as findings:
                await anext(findings)
                patch.setattr(checkpoint, "release_stream", no_room)
            assert len(findings.cancelled) == 1
        (end,) = await all_of(client.moderate([url(1)], interval=1, checkpoint=checkpoint))
        assert isinstance(end, StateChange)
        assert end.job.ended
        async with client.moderate([url(1)], interval=1, checkpoint=checkpoint) as findings:
            await anext(findings)
            assert running(emulator) == 1
    assert submissions(emulator) == 2


async def no_room(*_: object) -> None:
    """Be a full disk."""
    raise OSError(28, "No space left on device")


async def test_nothing_is_submitted_once_the_block_is_left(emulator: Emulator, path: Path) -> None:
    """A submission that is refused after that is not repeated, and holds nobody up."""
    emulator = Emulator(at_once=1)
    emulator.add_stream(url(9), duration=FOREVER)
    async with emulator.client() as client:
        await client.submit(url(9))
        emulator.inject(Fault.slow(5), operation="submit", times=1)
        async with client.moderate([url(1)]) as findings:
            await asyncio.sleep(1)
            left = now()
        assert now() - left < 5
    assert submissions(emulator) == 2
    assert (findings.cancelled, findings.not_cancelled) == ((), ())


async def test_what_was_flagged_is_counted_when_a_stream_is_given_up(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """A later run exits as one run would have."""
    for name, script in (("a", frame(5, "Porn")), ("b", frame(5))):
        emulator.add_stream(url(name), duration=FOREVER, script=[script])
    with Checkpoint(path) as checkpoint:
        urls = [url("a"), url("b")]
        await all_of(client.moderate(urls, interval=5, timeout=30, checkpoint=checkpoint))
        assert (checkpoint.sensitive, checkpoint.suspected, checkpoint.open) == (1, 0, ())


async def test_a_stream_that_another_run_has_followed_to_its_end_is_over(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """``poll`` and ``watch`` read the same file."""
    emulator.add_stream(url("a"), duration=60, script=[frame(5, "Porn")])
    with Checkpoint(path) as checkpoint:
        async with client.moderate(
            [url("a")], checkpoint=checkpoint, cancel_on_exit=False
        ) as findings:
            await anext(findings)
        async with client.as_completed([], checkpoint=checkpoint) as outcomes:
            assert [one.unwrap().state async for one in outcomes] == [JobState.SUCCESS]
        assert await all_of(client.moderate([url("a")], checkpoint=checkpoint)) == []


@pytest.mark.parametrize("method", ["as_completed", "watch", "moderate"])
@pytest.mark.parametrize("other", [object(), "redis://x", b"", 0, False, RedisCheckpoint])
async def test_another_kind_of_checkpoint_is_refused(
    client: LiveAuditClient, method: str, other: Any
) -> None:
    """By name, where it is passed."""
    kinds = "a Checkpoint or a RedisCheckpoint"
    expected = f"checkpoint: {method} takes {kinds}, got {type(other).__name__}"
    with pytest.raises(InvalidInput, match=expected):
        getattr(client, method)(["rtmp://host/a"], checkpoint=other)


async def test_moderate_takes_no_store_that_knows_of_no_streams(client: LiveAuditClient) -> None:
    """One with the four methods for jobs serves `watch` alone."""
    store: Any = Mock(spec=SharedCheckpoint)
    with pytest.raises(InvalidInput, match="checkpoint: moderate takes a Checkpoint"):
        client.moderate([url(1)], checkpoint=store)


async def test_a_callback_to_the_url_of_another_stream_is_not_believed(
    emulator: Emulator, client: LiveAuditClient
) -> None:
    """Whoever knows one URL can have a job polled, and no more."""
    receiver = CallbackReceiver("a secret of more than 16 bytes")
    stream = Stream(url(1), data_id="room1")
    async with client.moderate([stream], interval=600, callbacks=receiver.trusted()) as findings:
        first = await anext(findings)
        path = receiver.url("https://bot.example.com", "room2")
        body = callback_body(first.job_id, [frame(5, "Porn")], form="Detail", data_id="room2")
        assert receiver.take(path, callback_headers("Detail"), body) == 200
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                found = await anext(findings)
                assert isinstance(found, StateChange)
                await anext(findings)
    assert sum(arrival.method == "GET" for arrival in emulator.arrivals) == 2
