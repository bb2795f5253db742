"""Trusted callbacks: what they tell is handed out at once, and once, whatever came first."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from runs import Callbacks, now

from ci_live_audit import (
    AudioFinding,
    AudioSection,
    AuditJob,
    CallbackReceiver,
    Checkpoint,
    Finding,
    JobState,
    RetryPolicy,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Verdict,
    VerdictChange,
    decode,
)
from ci_live_audit.following.backlog import READY
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.findings import Findings, Watching
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.polling import Polling
from ci_live_audit.testing import Emulator, Fault, frame, sound
from ci_live_audit.testing.render import render

Item: TypeAlias = Snapshot | AudioSection
URL = "rtmp://live.example.com/app/room7"
AUDITING, SUCCESS = JobState.AUDITING, JobState.SUCCESS


def segment(
    job_id: str,
    *items: Item,
    state: JobState = AUDITING,
    result: Verdict | None = None,
) -> AuditJob:
    """Return the job of a Detail callback."""
    return AuditJob(
        job_id=job_id,
        state=state,
        result=result,
        snapshots=tuple(item for item in items if isinstance(item, Snapshot)),
        audio_sections=tuple(item for item in items if isinstance(item, AudioSection)),
    )


def summary(finding: Finding) -> tuple[object, str]:
    """Return a finding in short."""
    match finding:
        case SnapshotFinding(snapshot=item) | AudioFinding(audio_section=item):
            return item.text, finding.source
        case StateChange(state=state):
            return state.value, finding.source
        case _:
            return finding.verdict, finding.source


class Run:
    """One job that is watched with callbacks, over the emulator."""

    def __init__(self, *script: Item, interval: float = 300, duration: float = 100) -> None:
        self.emulator = Emulator()
        self.callbacks = Callbacks(is_trusted=True)
        self.interval = interval
        self.job_id = self.emulator.add_job(duration=duration, script=script)
        self.findings: list[Finding] = []
        self.seen: list[tuple[float, Any]] = []

    def tell(self, at: float, *texts: str, **options: Any) -> None:
        """Send a callback about items, by their texts, at a time."""

        def send() -> None:
            shown = self.emulator.jobs[self.job_id].found(now(), time.time(), self.emulator.host)
            items: list[Item] = [*shown.snapshots, *shown.audio_sections]
            chosen = [item for item in items if item.text in texts]
            assert len(chosen) == len(texts)
            self.callbacks.send(self.job_id, segment(self.job_id, *chosen, **options))

        asyncio.get_running_loop().call_at(at, send)

    async def watch(self, until: float) -> None:
        """Watch until the end, or a time."""
        async with (
            self.emulator.client(retry=RetryPolicy(attempts=1)) as client,
            client.watch(self.job_id, interval=self.interval, callbacks=self.callbacks) as findings,
        ):
            try:
                async with asyncio.timeout_at(until):
                    async for finding in findings:
                        self.findings.append(finding)
                        self.seen.append((round(now(), 1), summary(finding)))
            except TimeoutError:
                pass

    @property
    def asked(self) -> list[float]:
        """When the job was queried."""
        return [round(arrival.time, 1) for arrival in self.emulator.arrivals]


async def test_findings_of_a_callback_come_at_once_and_once() -> None:
    """Without a query; and neither a later query nor another callback brings them again."""
    items = frame(5, "Porn", text="a"), sound(6, "Ads", duration=0, text="b")
    run = Run(*items, frame(8.5, "Porn", text="c"), interval=20)
    run.tell(8, "a", "b")
    run.tell(9, "b", "c", result=Verdict.SENSITIVE)
    run.tell(10, "a")
    await run.watch(until=200)
    assert run.seen[:3] == [
        (0.0, ("Submitted", "poll")),
        (8.0, ("a", "callback")),
        (8.0, ("b", "callback")),
    ]
    assert sorted(one for _, one in run.seen) == [
        *(("Auditing", "poll"), ("Submitted", "poll"), ("Success", "poll")),
        *(("a", "callback"), ("b", "callback"), ("c", "callback")),
    ]
    assert len({finding.key for finding in run.findings}) == len(run.findings)
    first = next(one for one in run.findings if isinstance(one, SnapshotFinding))
    assert [item.text for item in first.job.snapshots] == ["a"]
    assert [item.text for item in first.job.audio_sections] == ["b"]


async def test_what_a_query_found_is_not_told_again() -> None:
    """An item that a poll was first to show has no finding by the callback."""
    run = Run(frame(5, "Porn", text="a"), frame(25, "Porn", text="b"), interval=10)
    run.tell(50, "a", "b")
    await run.watch(until=200)
    found = [one.source for one in run.findings if isinstance(one, SnapshotFinding)]
    assert found == ["poll", "poll"]


async def test_what_is_believed_is_not_asked() -> None:
    """A callback that tells no new state costs no request."""
    run = Run(*(frame(at, "Porn", text=f"{at}") for at in range(5, 50)))
    run.tell(4)
    for at in range(5, 50):
        run.tell(at + 1, f"{at}")
    await run.watch(until=60)
    assert run.asked == [0.0, 4.0]  # it was Submitted before
    assert sum(isinstance(one, SnapshotFinding) for one in run.findings) == 45


async def test_the_end_is_asked_for() -> None:
    """A callback that tells the end has only its segment, so the whole job is queried."""
    run = Run(frame(5, "Porn", text="a"), frame(95, "Porn", text="b"))
    run.tell(101, "b", state=SUCCESS)
    await run.watch(until=400)
    assert [one for _, one in run.seen[1:]] == [
        *(("b", "callback"), ("a", "poll"), ("Success", "poll")),
    ]
    assert 101 <= now() <= 102


async def test_a_worse_verdict_is_told_once() -> None:
    """A verdict that no item explains comes of the callback, and no query repeats it."""
    run = Run(interval=20)
    run.tell(5, result=Verdict.SENSITIVE)
    run.tell(6, result=Verdict.SENSITIVE)
    run.tell(7, result=Verdict.SUSPECTED)
    await run.watch(until=60)
    verdicts = [one for one in run.findings if isinstance(one, VerdictChange)]
    assert [(one.verdict, one.source) for one in verdicts] == [(Verdict.SENSITIVE, "callback")]


async def test_a_simple_callback_has_the_job_asked() -> None:
    """It does not say what was found."""
    run = Run(frame(5, "Porn", text="a"))
    asyncio.get_running_loop().call_at(8, run.callbacks.send, run.job_id)
    await run.watch(until=20)
    assert (8.0, ("a", "poll")) in run.seen


async def test_who_is_not_followed_is_not_believed() -> None:
    """Callbacks about unknown jobs, jobs that have ended, or about none bring nothing."""
    run = Run(duration=10.0)
    items = [frame(1, "Porn")]
    loop = asyncio.get_running_loop()
    for at in (5, 50):
        loop.call_at(at, run.callbacks.send, "another", segment("another", *items))
        loop.call_at(at, run.callbacks.send, None, segment("", *items))
    loop.call_at(11, run.callbacks.send, run.job_id)
    await run.watch(until=100)
    assert not any(isinstance(one, SnapshotFinding) for one in run.findings)
    assert not run.callbacks.listeners


async def test_nothing_piles_up_before_a_slow_consumer() -> None:
    """What does not fit in is left to a poll, which finds it once."""
    texts = [f"{number}" for number in range(90)]
    run = Run(*(frame(30 + number / 10, "Porn", text=texts[number]) for number in range(90)))
    run.tell(20)
    for number, text in enumerate(texts):
        run.tell(30.1 + number / 10, text)
    found: Counter[str | None] = Counter()
    sources: Counter[str] = Counter()
    async with (
        run.emulator.client() as client,
        client.watch(run.job_id, interval=300, callbacks=run.callbacks) as findings,
    ):
        assert [isinstance(await anext(findings), StateChange) for _ in range(2)] == [True, True]
        await asyncio.sleep(30)
        assert len(findings._dispatcher.backlog) == READY
        while found.total() < len(texts):
            finding = await anext(findings)
            assert isinstance(finding, SnapshotFinding)
            found[finding.snapshot.text] += 1
            sources[finding.source] += 1
        assert now() <= 51
    assert found == Counter(texts)
    assert sources == {"callback": READY, "poll": len(texts) - READY}


async def test_an_outage_does_not_hold_findings_up() -> None:
    """Callbacks are handed out while no poll succeeds."""
    run = Run(frame(5, "Porn", text="a"), interval=2)
    asyncio.get_running_loop().call_at(1, run.emulator.inject, Fault.error(503))
    run.tell(20, "a")
    await run.watch(until=30)
    assert run.seen[-1] == (20.0, ("a", "callback"))


async def test_a_later_run_hands_out_nothing_that_a_callback_told(tmp_path: Path) -> None:
    """What came by callbacks is in the checkpoint, as what came by polls is."""
    receiver = CallbackReceiver("a secret of more than 16 bytes")
    emulator = Emulator(callbacks=receiver)
    emulator.add_stream(URL, duration=60, script=[frame(20, "Porn"), frame(20.5), frame(40)])
    url = receiver.url("https://bot.example.com")
    found: list[Finding] = []
    async with emulator.client() as client:
        detail = {"Conf": {"CallbackVersion": "Detail"}}
        job_id = (await client.submit(URL, callback=url, extra=detail)).job_id
        for until in (30.0, 1e6):
            with Checkpoint(tmp_path / "checkpoint") as checkpoint:
                async with client.watch(
                    job_id, 300, checkpoint=checkpoint, callbacks=receiver.trusted()
                ) as findings:
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(until):
                            while finding := await anext(findings, None):
                                found.append(finding)
    assert len({one.key for one in found}) == len(found)
    assert [one.source for one in found if one.at is not None] == 3 * ["callback"]


async def test_outcomes_are_asked_for_when_a_callback_tells_the_end() -> None:
    """The answer is read whole, and callbacks before the end cost nothing."""
    emulator, callbacks = Emulator(), Callbacks(is_trusted=True)
    script = [frame(5, "Porn"), frame(15, "Ads")]
    ids = [emulator.add_job(duration=20, script=script) for _ in range(3)]
    loop = asyncio.get_running_loop()
    for job_id in ids:
        for at in range(3, 20):
            loop.call_at(at, callbacks.send, job_id, segment(job_id, script[0]))
        loop.call_at(21, callbacks.send, job_id, segment(job_id, script[1], state=SUCCESS))
    async with (
        emulator.client() as client,
        client.as_completed(ids, interval=300, callbacks=callbacks) as outcomes,
    ):
        async for outcome in outcomes:
            assert len(outcome.unwrap().snapshots) == 2
            assert 21 <= now() <= 21.3
    assert len(emulator.arrivals) == 6


# A callback while a poll is under way


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("ended", [True, False])
async def test_a_callback_during_the_reading_of_a_response(*, whole: bool, ended: bool) -> None:
    """What both show is handed out once, whether the response was read before or after it came."""
    callbacks = Callbacks(is_trusted=True)
    items = [frame(at) for at in (1, 2, 3)]
    states = (SUCCESS if ended else AUDITING), SUCCESS
    whole_jobs = [segment("j", *items, state=one, result=Verdict.SENSITIVE) for one in states]
    answers = [segment("j"), *whole_jobs]
    read, go_on = asyncio.Event(), asyncio.Event()

    async def query(_: str, reading: Any) -> AuditJob:
        answer = answers.pop(0)
        if whole:
            reading.compare(answer)
        if answer.snapshots:
            read.set()
            await go_on.wait()
        if not whole:
            reading.compare(answer)
        return answer if answer.ended else reading.part(answer)

    found: list[Finding] = []
    async with Findings(Polling(query, 10, callbacks=callbacks), "j") as findings:
        found.append(await anext(findings))
        await read.wait()
        callbacks.send("j", segment("j", items[1], result=Verdict.SENSITIVE))
        found.append(await anext(findings))
        go_on.set()
        found += [finding async for finding in findings]
    assert sum(isinstance(one, VerdictChange) for one in found) == 1
    snapshots = [one for one in found if isinstance(one, SnapshotFinding)]
    assert [(one.time, one.source) for one in snapshots] == [
        (2000, "callback"),
        (1000, "poll"),
        (3000, "poll"),
    ]
    assert len({one.key for one in found}) == len(found)
    assert len(snapshots[1].job.snapshots) == (3 if ended else 2)


class Watched:
    """What a run makes of the responses and callbacks about one job."""

    def __init__(self) -> None:
        self.watching = Watching({})
        self.shown: list[Snapshot] = []
        self.under_way: list[tuple[Any, AuditJob]] = []
        self.found: Counter[str | None] = Counter()
        self.keys: Counter[str] = Counter()

    def answer(self, items: list[Snapshot]) -> bytes:
        """Return a body in which every URL is signed anew."""
        signature = random.getrandbits(60)
        signed = [attrs.evolve(one, url=f"{one.url}?q-signature={signature}") for one in items]
        return render(segment("j", *signed))

    def take(self, findings: Iterable[tuple[Finding, Commit]]) -> None:
        for finding, _ in findings:
            self.keys[finding.key] += 1
            if isinstance(finding, SnapshotFinding):
                self.found[finding.snapshot.text] += 1

    def begin(self) -> None:
        reading = self.watching.reading("j", lambda _: True)
        self.under_way = [(reading, reading.read(self.answer(self.shown)))]

    def end(self) -> None:
        for reading, job in self.under_way:
            self.take(self.watching.items(Update("j", job), reading)[0])
        self.under_way = []

    def tell(self, items: list[Snapshot]) -> None:
        job = decode.job(self.answer(items))
        self.take(self.watching.told("j", job)[0])


actions = st.tuples(
    st.sampled_from(["grow", "grow", "tell", "tell", "begin", "end"]),
    st.integers(1, 3),
    st.integers(0, 100),
    st.integers(0, 2),
)


def twins(*course: tuple[str, int, int]) -> list[tuple[str, int, int, int]]:
    """Return a course with items of one time."""
    return [(action, 1, at, length) for action, at, length in course]


GROW, BEGIN, END = ("grow", 0, 0), ("begin", 0, 0), ("end", 0, 0)


@given(st.lists(actions, max_size=30))
# What was told alone is not another item of its time: told together, shown alone or together,
# while the poll was under way or not.
@example(twins(GROW, GROW, GROW, ("tell", 2, 0), ("tell", 0, 1)))
@example(twins(GROW, GROW, ("tell", 1, 0), BEGIN, END))
@example(twins(GROW, BEGIN, GROW, ("tell", 1, 0), END))
@example(twins(GROW, BEGIN, GROW, GROW, ("tell", 1, 1), END))
@example(twins(GROW, GROW, BEGIN, ("tell", 0, 1), END))
@example(twins(GROW, GROW, BEGIN, ("tell", 0, 0), END))
@example(twins(GROW, BEGIN, ("tell", 0, 0), END))
# What was told since the last poll is known to the next, which reads only what is new to it.
@example(twins(GROW, BEGIN, END, GROW, GROW, ("tell", 1, 1)))
@example([*twins(GROW, BEGIN, END), ("grow", 2, 0, 0), ("tell", 1, 1, 0)])
def test_any_order_of_polls_and_callbacks(course: list[tuple[str, int, int, int]]) -> None:
    """Every item is found once, also those of one time, and no key comes twice."""
    watched = Watched()
    for action, second, at, length in course:
        match action:
            case "grow":
                text = f"item {len(watched.shown)}"
                url = f"https://example.com/{len(watched.shown)}.jpg"
                item = attrs.evolve(frame(second, "Porn", text=text), url=url)
                watched.shown.append(item)
            case "tell" if watched.shown:
                first = at % len(watched.shown)
                watched.tell(watched.shown[first : first + 1 + length])
            case "begin" if not watched.under_way:
                watched.begin()
            case _:
                watched.end()
    watched.end()
    for _ in range(2):
        watched.begin()
        watched.end()
    assert watched.found == Counter(item.text for item in watched.shown)
    assert set(watched.keys.values()) <= {1}
