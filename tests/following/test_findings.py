"""Findings of watched streams: each item once, in order, whatever goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import Watched

from ci_live_audit import (
    AudioFinding,
    AudioSection,
    AuditJob,
    ConfigurationError,
    DecodeError,
    Finding,
    JobNotFound,
    JobState,
    LiveAuditError,
    RetryPolicy,
    ServiceUnavailable,
    Snapshot,
    SnapshotFinding,
    StateChange,
    Verdict,
    VerdictChange,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.following.findings import Findings
from ci_live_audit.following.polling import Polling
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.seen import News
from ci_live_audit.testing import Emulator, Fault, frame, sound

Item: TypeAlias = Snapshot | AudioSection

NORMAL, SENSITIVE, SUSPECTED = Verdict.NORMAL, Verdict.SENSITIVE, Verdict.SUSPECTED
AUDITING, SUCCESS = JobState.AUDITING, JobState.SUCCESS
SIGNATURES = itertools.count()
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def signed(item: Item) -> Item:
    """Return an item with a URL that it never had before."""
    number = next(SIGNATURES)
    url = f"https://examplebucket-1250000000.cos.example.com/1.jpg?q-signature={number}"
    return attrs.evolve(item, url=url, url_expires_at=EPOCH + timedelta(seconds=number))


def bare(item: Item) -> Item:
    """Return an item without its URL."""
    return attrs.evolve(item, url=None, url_expires_at=None)


def response(
    *items: Item,
    state: JobState = AUDITING,
    result: Verdict | None = None,
    label: str | None = None,
) -> AuditJob:
    """Return the job of a response; every URL is signed anew."""
    shown = [signed(item) for item in items]
    return AuditJob(
        job_id="j",
        state=state,
        result=result,
        label=label,
        snapshots=tuple(item for item in shown if isinstance(item, Snapshot)),
        audio_sections=tuple(item for item in shown if isinstance(item, AudioSection)),
    )


def found(findings: Iterable[Finding]) -> list[Item]:
    """Return the items among findings, in their order."""
    items: list[Item] = []
    for finding in findings:
        match finding:
            case SnapshotFinding(snapshot=item) | AudioFinding(audio_section=item):
                items.append(bare(item))
            case _:
                pass
    return items


def states(findings: Iterable[Finding]) -> list[JobState]:
    """Return the states among findings, in their order."""
    return [finding.state for finding in findings if isinstance(finding, StateChange)]


def overall(findings: Iterable[Finding]) -> list[Verdict]:
    """Return the verdicts of the job itself among findings, in their order."""
    return [finding.verdict for finding in findings if isinstance(finding, VerdictChange)]


def failures(findings: Iterable[Finding]) -> list[WatchFailed]:
    """Return the failures among findings, in their order."""
    return [finding for finding in findings if isinstance(finding, WatchFailed)]


def summary(finding: Finding) -> object:
    """Return a finding in short."""
    if isinstance(finding, StateChange):
        return finding.state.value
    return (finding.label, finding.time) if found([finding]) else finding.verdict


async def collect(watched: Findings, into: list[Finding]) -> None:
    """Collect the findings, even if the iteration then raises."""
    async for finding in watched:
        into.append(finding)  # noqa: PERF401 - kept when the next one raises


def running() -> Watched:
    """Return what has been seen of a running job that has shown nothing yet."""
    seen = Watched()
    assert [summary(finding) for finding in seen.update(response())] == ["Auditing"]
    return seen


# Items


@pytest.mark.parametrize("item", [frame(5, "Porn"), sound(5, "Porn"), Snapshot(), AudioSection()])
def test_an_item_is_found_once_though_its_url_changes(item: Item) -> None:
    """An item is found in the first response that shows it, with the URL of that response."""
    seen = running()
    first = response(item)
    (finding,) = seen.update(first)
    assert isinstance(finding, SnapshotFinding | AudioFinding)
    assert (finding.job, finding.job_id, finding.verdict) == (first, "j", item.result)
    (shown,) = first.snapshots + first.audio_sections
    assert (finding.url, finding._item) == (shown.url, shown)
    assert [seen.update(response(item)) for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize(
    ("item", "other"),
    [
        (frame(5), frame(5.001)),
        (sound(5, duration=3), sound(5.001, duration=3)),
        (sound(5, duration=3), sound(5, duration=4)),
        (frame(5), sound(5)),
        (frame(5), AudioSection(offset_time=5000)),
        (frame(0), frame(0.001)),
        (frame(-0.001), frame(-0.002)),
        (frame(0), Snapshot()),
        (sound(0, duration=0), AudioSection()),
        (Snapshot(), AudioSection()),
        (Snapshot(label="Porn"), Snapshot(label="Ads")),
        (Snapshot(text="a"), Snapshot(text="b")),
        (frame(0), frame(0, text="read later")),
        (sound(0, duration=0), sound(0, duration=0, text="understood later")),
        (AudioSection(duration=3), AudioSection(duration=4)),
    ],
)
def test_different_items(item: Item, other: Item) -> None:
    """Items differ by time, duration or kind; without a time, by their content."""
    seen = running()
    assert found(seen.update(response(item))) == [item]
    assert found(seen.update(response(other))) == [other]
    assert seen.update(response(item, other)) == []


@pytest.mark.parametrize(
    ("item", "later"),
    [
        (frame(5), frame(5, text="read later")),
        (sound(5, duration=3), sound(5, duration=3, text="understood later")),
        (AudioSection(offset_time=5000), AudioSection(offset_time=5000, text="late")),
    ],
)
def test_a_completed_item_is_not_new(item: Item, later: Item) -> None:
    """An item with a time is identified by it, whatever the service adds to it later."""
    seen = running()
    assert found(seen.update(response(item))) == [item]
    assert seen.update(response(later)) == []


@pytest.mark.parametrize("item", [frame(5), sound(5), Snapshot(), AudioSection(label="Porn")])
def test_several_items_that_look_the_same(item: Item) -> None:
    """Equal items are found as often as one response shows them at most."""
    seen = running()
    numbers = [1, 1, 3, 0, 2, 3, 4, 4, 1]
    updates = [len(seen.update(response(*[item] * number))) for number in numbers]
    assert updates == [1, 0, 2, 0, 0, 0, 1, 0, 0]


def test_items_of_one_time_are_told_apart() -> None:
    """Different items with one time are all found."""
    good = Snapshot(snapshot_time=0, label="Normal", result=NORMAL)
    bad = Snapshot(snapshot_time=0, label="Porn", result=SENSITIVE)
    seen = running()
    assert found(seen.update(response(good))) == [good]
    assert found(seen.update(response(bad, good))) == [bad]
    assert found(seen.update(response(bad))) == []


@pytest.mark.parametrize("before", [None, NORMAL, SUSPECTED])
def test_a_revised_verdict_is_new(before: Verdict | None) -> None:
    """An item whose verdict changes to a worse one is found again, once."""
    frames = Snapshot(snapshot_time=1, result=SENSITIVE), Snapshot(snapshot_time=5, result=before)
    revised = attrs.evolve(frames[1], result=SENSITIVE)
    seen = running()
    seen.update(response(*frames, result=SENSITIVE))
    assert found(seen.update(response(frames[0], revised, result=SENSITIVE))) == [revised]
    assert seen.update(response(frames[0], revised, result=SENSITIVE)) == []


def test_several_items_of_one_time() -> None:
    """Each item is found when it is added to those before."""
    items = [frame(5, "Ads"), frame(5, "Porn"), frame(5)]
    seen = running()
    assert [found(seen.update(response(*items[:number]))) for number in (1, 2, 3, 3)] == [
        *([item] for item in items),
        [],
    ]


SCRIPT: list[Item] = [frame(at, f"L{at}") for at in range(1, 41)]


@pytest.mark.parametrize(
    ("shows", "firsts"),
    [
        (lambda items: items, [10, 10, 10, 10]),
        (lambda items: items[::-1], [10, 10, 10, 10]),
        (lambda items: items[-10:], [10, 10, 10, 10]),
        (lambda items: items[-15:], [10, 10, 10, 10]),
        (lambda items: items[-4:], [4, 4, 4, 4]),
        (lambda items: items[:15], [10, 5, 0, 0]),
        (lambda items: items if len(items) == 40 else [], [0, 0, 0, 40]),
        (lambda items: items[: 5 if len(items) == 20 else 30], [10, 0, 20, 0]),
        (lambda items: items if len(items) in {10, 40} else [], [10, 0, 0, 30]),
        (lambda items: [], [0, 0, 0, 0]),
    ],
    ids=[
        "all",
        "newest first",
        "the last as many as are new",
        "the last and some more",
        "the last few",
        "the first",
        "nothing until the end",
        "shrinking and growing",
        "nothing in between",
        "nothing ever",
    ],
)
def test_lists_may_be_anything(
    shows: Callable[[Sequence[Item]], Sequence[Item]], firsts: list[int]
) -> None:
    """An item left out of a response is neither forgotten nor found again."""
    seen = running()
    updates = [seen.update(response(*shows(SCRIPT[:shot]))) for shot in (10, 20, 30, 40)]
    assert [len(found(one)) for one in updates] == firsts
    everything = [item for one in updates for item in found(one)]
    assert len(set(everything)) == len(everything)
    assert everything == sorted(everything, key=SCRIPT.index)
    assert [seen.update(response(*everything)) for _ in range(2)] == [[], []]


def test_findings_of_a_response_come_in_the_order_of_the_stream() -> None:
    """Snapshots and sections are sorted by time together, those without a time last."""
    items: list[Item] = [
        frame(7, "g"),
        Snapshot(label="x"),
        frame(-1, "a"),
        frame(2, "c"),
        sound(5, "f"),
        AudioSection(label="y"),
        sound(2, "d", duration=9),
        sound(2, "e", duration=1),
        sound(0, "b"),
    ]
    assert (
        "".join(str(item.label) for item in found(running().update(response(*items))))
        == "abcdefgxy"
    )


# States and verdicts of the job


def test_the_state_is_found_first_and_at_every_change() -> None:
    """A state comes before the items of its response, an end after them."""
    seen = Watched()
    first, second, third = frame(1), sound(2), frame(3, "Porn")
    updates = [
        seen.update(one)
        for one in (
            response(state=JobState.SUBMITTED),
            response(state=JobState.SUBMITTED),
            response(first, state=JobState.SNAPSHOTING),
            response(first, second, result=SUSPECTED),
            response(first, second, third, state=SUCCESS, result=SENSITIVE),
        )
    ]
    assert [[summary(finding) for finding in one] for one in updates] == [
        ["Submitted"],
        [],
        ["Snapshoting", ("Normal", 1000)],
        ["Auditing", ("Normal", 2000), SUSPECTED],
        [("Porn", 3000), "Success"],
    ]
    last = [one.job for one in updates[-1] if not isinstance(one, WatchFailed)]
    assert [job.ended for job in last] == [True, True]


@pytest.mark.parametrize("end", [SUCCESS, JobState.FAILED, JobState.CANCELLED, JobState("cancel")])
def test_a_job_that_has_ended_before_it_is_watched(end: JobState) -> None:
    """Everything comes in one response, the state last."""
    findings = Watched().update(response(frame(1), Snapshot(), state=end, result=SENSITIVE))
    assert [summary(finding) for finding in findings] == [
        ("Normal", 1000),
        (None, None),
        SENSITIVE,
        end.value,
    ]


def test_unknown_states() -> None:
    """Each unknown state is a change, and no end."""
    seen = running()
    updates = [
        seen.update(response(frame(at), state=JobState(word)))
        for at, word in enumerate(["Paused", "Paused", "paused", "Auditing", "Paused"])
    ]
    assert [summary(one[0]) for one in updates] == [
        "Paused",
        ("Normal", 1000),
        "paused",
        "Auditing",
        "Paused",
    ]
    assert [len(one) for one in updates] == [2, 1, 2, 2, 2]


@pytest.mark.parametrize("spelling", ["Canceled", "cancelled", "CANCEL"])
def test_spellings_of_a_state_are_no_change(spelling: str) -> None:
    """A state has one finding, however it is spelt."""
    seen = Watched()
    assert states(seen.update(response(state=JobState.CANCELLED))) == ["Cancelled"]
    assert seen.update(response(state=JobState(spelling))) == []


UNKNOWN = Verdict(7)


@pytest.mark.parametrize(
    ("items", "job", "expected"),
    [
        ([None, None], [None, None], [[], []]),
        ([NORMAL, NORMAL], [NORMAL, NORMAL], [[], []]),
        ([NORMAL, NORMAL], [SENSITIVE, SENSITIVE], [[SENSITIVE], []]),
        ([NORMAL, NORMAL], [SUSPECTED, SENSITIVE], [[SUSPECTED], [SENSITIVE]]),
        ([NORMAL, NORMAL], [SENSITIVE, SUSPECTED], [[SENSITIVE], []]),
        ([NORMAL, NORMAL], [SENSITIVE, NORMAL], [[SENSITIVE], []]),
        ([SENSITIVE, NORMAL], [SENSITIVE, SENSITIVE], [[], []]),
        ([SENSITIVE, SUSPECTED], [SUSPECTED, SENSITIVE], [[], []]),
        ([SUSPECTED, NORMAL], [SENSITIVE, SENSITIVE], [[SENSITIVE], []]),
        ([SUSPECTED, SENSITIVE], [SUSPECTED, SENSITIVE], [[], []]),
        ([SUSPECTED, SUSPECTED], [SUSPECTED, SENSITIVE], [[], [SENSITIVE]]),
        ([NORMAL, SENSITIVE], [SENSITIVE, SENSITIVE], [[SENSITIVE], []]),
        ([None, None], [SUSPECTED, None], [[SUSPECTED], []]),
        ([UNKNOWN, NORMAL], [SUSPECTED, SENSITIVE], [[SUSPECTED], [SENSITIVE]]),
        ([SUSPECTED, UNKNOWN], [UNKNOWN, UNKNOWN], [[], []]),
    ],
)
@pytest.mark.parametrize("make", [frame, sound])
def test_a_verdict_of_the_job_that_no_item_explains(
    items: list[Verdict | None],
    job: list[Verdict | None],
    expected: list[list[Verdict]],
    make: Callable[[float], Item],
) -> None:
    """It is a finding of its own if and only if it is worse than all before."""
    seen = running()
    shown: list[Item] = [attrs.evolve(make(at), result=verdict) for at, verdict in enumerate(items)]
    for number, verdict in enumerate(job, start=1):
        updates = seen.update(response(*shown[:number], result=verdict))
        assert found(updates) == [shown[number - 1]]
        assert overall(updates) == expected[number - 1]


def test_an_item_explains_a_verdict_for_ever() -> None:
    """The snapshot that made the job sensitive may have left the list long ago."""
    seen = running()
    assert overall(seen.update(response(frame(1, "Porn"), result=SENSITIVE))) == []
    assert overall(seen.update(response(frame(2), result=SENSITIVE))) == []
    assert overall(seen.update(response(state=SUCCESS, result=SENSITIVE))) == []


def test_an_item_that_comes_after_the_verdict_is_found_too() -> None:
    """A verdict of the job does not replace the items behind it."""
    seen = running()
    (finding,) = seen.update(response(result=SENSITIVE, label="Porn"))
    assert (finding.verdict, finding.label, finding.time) == (SENSITIVE, "Porn", None)
    late: list[Item] = [frame(1, "Porn"), sound(2, "Porn")]
    assert found(seen.update(response(*late, state=SUCCESS, result=SENSITIVE))) == late


# Any stream, any responses

LABELS = st.sampled_from(["Normal", "Porn"])
TIMES = st.integers(-1, 12).map(lambda number: number / 2)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(frame, TIMES, LABELS),
    st.builds(lambda at, label, long: sound(at, label, duration=long), TIMES, LABELS, TIMES),
    st.builds(Snapshot, label=LABELS),
    st.builds(AudioSection, label=LABELS, duration=st.none() | st.integers(0, 2)),
)


def identity(item: Item) -> object:
    """Return what identifies an item according to the documents."""
    if isinstance(item, Snapshot):
        return item if item.snapshot_time is None else item.snapshot_time
    return item if item.offset_time is None else (item.offset_time, item.duration)


@st.composite
def responses(draw: st.DrawFn, stream: Sequence[Item]) -> list[list[Item]]:
    """Draw responses of a stream: any items in any order, and all of them at the end."""
    bits = draw(st.lists(st.integers(0, 2 ** len(stream) - 1), max_size=5))
    rng = random.Random(draw(st.integers(0, 2**16)))
    shown = [[item for n, item in enumerate(stream) if subset >> n & 1] for subset in bits]
    shown.append(list(stream))
    for one in shown:
        rng.shuffle(one)
    return shown


def by_time(finding: Finding) -> tuple[bool, int]:
    return finding.time is None, finding.time or 0


@given(st.data())
def test_each_item_of_any_stream_is_found_once(data: st.DataObject) -> None:
    """Whatever responses leave out or reorder, the first one that shows an item counts."""
    stream = data.draw(st.lists(ITEMS, max_size=12, unique_by=identity))
    seen = running()
    everything: list[Item] = []
    for shown in data.draw(responses(stream)):
        updates = seen.update(response(*shown))
        assert set(found(updates)) == set(shown) - set(everything)
        assert updates == sorted(updates, key=by_time)
        everything += found(updates)
    assert Counter(everything) == Counter(stream)


@given(st.data())
def test_equal_items_are_counted(
    data: st.DataObject,
) -> None:
    """Copies cannot be told apart, but they are counted."""
    kinds = data.draw(st.lists(ITEMS, min_size=1, max_size=3, unique_by=identity))
    stream = data.draw(st.lists(st.sampled_from(kinds), max_size=12))
    seen = running()
    everything: list[Item] = []
    most: Counter[Item] = Counter()
    for shown in data.draw(responses(stream)):
        everything += found(seen.update(response(*shown)))
        most |= Counter(shown)
        assert Counter(everything) == most
    assert Counter(everything) == Counter(stream)


WORDS = ["Submitted", "Auditing", "auditing", "Paused", "Queued"]
VERDICTS = st.sampled_from([None, NORMAL, SENSITIVE, SUSPECTED, UNKNOWN])
WORSE = {SUSPECTED: 1, SENSITIVE: 2}


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), VERDICTS, st.lists(VERDICTS, max_size=2))),
    st.sampled_from(["Success", "Failed", "Canceled"]),
)
def test_states_and_verdicts_of_any_job(
    course: list[tuple[str, Verdict | None, list[Verdict | None]]], end: str
) -> None:
    """A state is found when it changes; a verdict, when it is worse than all before."""
    seen = Watched()
    at = itertools.count()
    before: JobState | None = None
    verdicts: list[Verdict | None] = []
    for word, result, results in [*course, (end, SENSITIVE, [])]:
        items = [attrs.evolve(frame(next(at)), result=one) for one in results]
        job = response(*items, state=JobState(word), result=result)
        expected: list[object] = [("Normal", item.snapshot_time) for item in items]
        verdicts += results
        worst = max((WORSE.get(one, 0) for one in verdicts if one), default=0)
        if result is not None and WORSE.get(result, 0) > worst:
            expected.append(result)
        verdicts.append(result)
        if job.state != before:
            expected.insert(len(expected) if job.ended else 0, job.state.value)
        before = job.state
        assert [summary(finding) for finding in seen.update(job)] == expected


# Watching one job


async def test_the_example_of_the_contract() -> None:
    """Something bad is found twice, the job is cancelled, and the iteration ends by itself."""
    emulator = Emulator()
    bad = [frame(93, "Porn"), frame(95, "Abuse"), frame(200, "Porn")]
    job_id = emulator.add_job(
        duration=3600, script=[frame(5), frame(65, "Ads", result=SUSPECTED), *bad]
    )
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(job_id, interval=10) as watched:
        async for finding in watched:
            findings.append(finding)
            if finding.verdict == SENSITIVE:
                await client.cancel(job_id)
    assert [finding.label for finding in findings if finding.verdict] == ["Ads", "Porn", "Abuse"]
    assert summary(findings[-1]) == JobState.CANCELLED
    assert asyncio.get_running_loop().time() < 112


async def test_a_script_is_found_once_each_in_order() -> None:
    """Frames and sounds come by their times between the states; the last job is kept."""
    emulator = Emulator(now=lambda: 1_700_000_000.0)
    script: list[Item] = [
        frame(1),
        frame(2.5, "Porn", score=98, sub_label="SexBehavior"),
        sound(2, "Abuse", duration=1),
        sound(4, duration=20),
        frame(12),
        frame(23),
        frame(29.999, "Ads", result=SUSPECTED),
        sound(25, duration=5),
        frame(31, "never found"),
    ]
    job_id = emulator.add_job(duration=30, script=script, data_id="room 7")
    async with emulator.client() as client, client.watch(job_id, interval=5) as watched:
        assert watched.job is None
        findings = [finding async for finding in watched]
        assert [
            (finding.label, finding.time - 1_700_000_000_000)
            if finding.time is not None
            else summary(finding)
            for finding in findings
        ] == [
            "Submitted",
            "Auditing",
            ("Normal", 1000),
            ("Abuse", 2000),
            ("Porn", 2500),
            ("Normal", 12000),
            ("Normal", 4000),
            ("Normal", 23000),
            ("Normal", 25000),
            ("Ads", 29999),
            "Success",
        ]
        assert {finding.job_id for finding in findings} == {job_id}
        assert watched.job is not None
        assert findings[-1] == StateChange(
            job_id=job_id, key=findings[-1].key, job=watched.job, state=SUCCESS
        )
        assert (watched.job.ended, watched.job.data_id) == (True, "room 7")
        assert len(watched.job.snapshots) + len(watched.job.audio_sections) == 8
        assert [finding async for finding in watched] == []
    assert len(emulator.arrivals) == emulator.jobs[job_id].queries == 7


async def test_a_failed_job_is_a_state() -> None:
    """A failed job is watched to its end like any other."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=5, failure=("ResourceDownloadFailed", "no stream"))
    async with emulator.client() as client, client.watch(job_id, interval=10) as watched:
        findings = [finding async for finding in watched]
    assert states(findings) == ["Submitted", "Failed"]
    assert isinstance(findings[-1], StateChange)
    assert findings[-1].job.code == "ResourceDownloadFailed"


async def test_an_error_of_a_single_job_is_raised_bare() -> None:
    """An unknown id ends the iteration with JobNotFound itself, at each further step too."""
    async with Emulator().client() as client, client.watch("unknown") as watched:
        for _ in range(2):
            with pytest.raises(JobNotFound, match="query of unknown") as caught:
                await anext(watched)
        assert watched.job is None
    assert caught.value.job_id == "unknown"


async def test_an_error_comes_after_what_was_found_before() -> None:
    """A slow consumer gets every finding before the error."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600, script=[frame(at) for at in range(1, 100)])
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(job_id, interval=10) as watched:
        async for finding in watched:
            findings.append(finding)
            if len(found(findings)) == 20:
                break
        await asyncio.sleep(35)
        del emulator.jobs[job_id]
        await asyncio.sleep(35)
        with pytest.raises(JobNotFound):
            await collect(watched, findings)
    assert len(found(findings)) == len(set(found(findings))) > 40


async def test_a_job_that_does_not_end_in_time() -> None:
    """The error carries the last response, of a poll just before the deadline."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600, script=[frame(at) for at in range(100)])
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(job_id, timeout=35) as watched:
        with pytest.raises(WaitTimeout, match=r"35 s; it was Auditing") as caught:
            await collect(watched, findings)
    assert (caught.value.last, caught.value.job_id) == (watched.job, job_id)
    assert asyncio.get_running_loop().time() == pytest.approx(35, abs=0.1)
    assert len(found(findings)) == len(set(found(findings))) == 35


async def test_a_job_without_a_response_in_time() -> None:
    """Without any response the error carries no job."""
    emulator = Emulator()
    emulator.inject(Fault.slow(20))
    job_id = emulator.add_job()
    async with emulator.client() as client, client.watch(job_id, timeout=10) as watched:
        with pytest.raises(WaitTimeout, match="not ended within") as caught:
            await anext(watched)
    assert caught.value.last is watched.job is None


FAULTS = [
    Fault.error(500),
    Fault.error(503),
    Fault.reset(),
    Fault.garbage(),
    Fault.truncated(),
    Fault.throttle(),
    Fault.throttle(status=503, retry_after=3),
    Fault.slow(40),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(attempts=1)])
async def test_faults_that_pass_lose_nothing(fault: Fault, retry: RetryPolicy) -> None:
    """With half of the requests failing, everything is found once."""
    emulator = Emulator(now=lambda: 0.0)
    script = [frame(at, "Porn" if at % 4 else "Normal") for at in range(1, 120, 3)]
    job_id = emulator.add_job(duration=120, script=script)
    emulator.inject(fault, share=0.5)
    async with emulator.client(retry=retry) as client, client.watch(job_id, interval=5) as watched:
        findings = [finding async for finding in watched]
    assert [(finding.time, finding.label) for finding in findings if finding.time] == [
        (item.snapshot_time, item.label) for item in script
    ]
    assert states(findings)[-1] == SUCCESS
    assert failures(findings) == []


async def test_a_timeout_ends_an_outage() -> None:
    """Watching a single job through an outage ends at its timeout, with the last error as cause."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600, script=[frame(2, "Porn")])
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(job_id, timeout=1800) as watched:
        async for finding in watched:
            if finding.verdict == SENSITIVE:
                break
        emulator.inject(Fault.error(503))
        with pytest.raises(WaitTimeout) as caught:
            await collect(watched, findings)
    assert findings == []
    assert isinstance(caught.value.__cause__, ServiceUnavailable)
    assert asyncio.get_running_loop().time() == pytest.approx(1800, abs=0.01)


async def test_a_response_about_another_job() -> None:
    """Items of another job are no findings of this one."""
    emulator = Emulator()
    emulator.jobs["mine"] = emulator.jobs[emulator.add_job("other")]
    async with emulator.client() as client, client.watch("mine", timeout=60) as watched:
        with pytest.raises(WaitTimeout) as caught:
            [finding async for finding in watched]
    assert isinstance(caught.value.__cause__, DecodeError)
    assert "another job" in str(caught.value.__cause__)


@pytest.mark.parametrize("bad", [1.0, 3.3, 9.999, 10.0, 10.001, 57.0, 60.0, 599.9])
async def test_something_bad_is_found_within_an_interval(bad: float) -> None:
    """A bad frame is found an interval and a slot after it appears at the latest."""
    emulator = Emulator()
    time = asyncio.get_running_loop().time
    job_id = emulator.add_job(duration=3600, script=[frame(bad, "Porn")])
    began = time()
    async with emulator.client() as client, client.watch(job_id, interval=10) as watched:
        async for finding in watched:
            if finding.verdict == SENSITIVE:
                break
    assert bad <= time() - began <= bad + 10 + 0.051


# Watching many


async def ids_of(emulator: Emulator, number: int) -> AsyncGenerator[str, None]:
    """Add jobs now and then, and yield an unknown id among theirs."""
    for place in range(number):
        yield "unknown" if place == 3 else emulator.add_job(f"job{place}", duration=60)
        await asyncio.sleep(7)


@pytest.mark.parametrize("lazy", [False, True])
async def test_many_jobs_one_of_them_unknown(*, lazy: bool) -> None:
    """The unknown job is a finding with an error; the others are watched to their ends."""
    emulator = Emulator()
    names = ["unknown" if place == 3 else f"job{place}" for place in range(8)]
    for name in names:
        if not lazy and name != "unknown":
            emulator.add_job(name, duration=60)
    source = ids_of(emulator, 8) if lazy else [*names, *names]
    async with emulator.client() as client, client.watch(source, interval=10) as watched:
        findings = [finding async for finding in watched]
    of = {name: [one for one in findings if one.job_id == name] for name in names}
    assert sum(len(its) for its in of.values()) == len(findings)
    (unknown,) = of.pop("unknown")
    assert isinstance(unknown, WatchFailed)
    assert isinstance(unknown.error, JobNotFound)
    for its in of.values():
        assert len(found(its)) == len(set(found(its))) == 10
        assert states(its) == ["Submitted", "Auditing", "Success"]
        assert summary(its[-1]) == SUCCESS
        assert failures(its) == []


async def test_an_empty_list_and_an_empty_source() -> None:
    """Watching no job finds nothing and ends at once."""
    emulator = Emulator()
    async with emulator.client() as client:
        sources: list[Any] = [[], iter(()), ids_of(emulator, 0)]
        for source in sources:
            async with client.watch(source) as watched:
                assert [finding async for finding in watched] == []
    assert emulator.arrivals == []


async def test_ids_that_are_no_texts() -> None:
    """Each is a finding with an error, and the other jobs are watched."""
    emulator = Emulator()
    ids: list[Any] = [7, emulator.add_job(duration=5), b"av1", "no/id"]
    async with emulator.client() as client, client.watch(ids) as watched:
        findings = [finding async for finding in watched]
    errors = {failed.job_id: type(failed.error) for failed in failures(findings)}
    assert set(errors) == {7, b"av1", "no/id"}
    assert all(issubclass(error, LiveAuditError) for error in errors.values())
    assert states(findings) == ["Submitted", "Success"]
    with pytest.raises(ConfigurationError, match="job_ids"):
        client.watch(7)  # type: ignore[arg-type]


async def test_many_jobs_that_do_not_end_in_time() -> None:
    """Each job has its own timeout, found with its last response."""
    emulator = Emulator()
    names = [emulator.add_job(f"job{n}", duration=20 * n) for n in range(1, 6)]
    async with emulator.client() as client, client.watch(names, timeout=50) as watched:
        findings = [finding async for finding in watched]
    late = {failed.job_id: failed.error for failed in failures(findings)}
    assert list(late) == ["job3", "job4", "job5"]
    for name, error in late.items():
        assert isinstance(error, WaitTimeout)
        assert error.last is not None
        assert (error.last.job_id, error.last.state) == (name, AUDITING)
    assert isinstance(findings[-1], WatchFailed)
    assert [one.job_id for one in findings if summary(one) == SUCCESS] == ["job1", "job2"]


async def test_something_bad_in_one_of_many_is_found_within_an_interval() -> None:
    """190 streams, all that a quota of 20 a second allows, are polled in time."""
    emulator = Emulator(now=lambda: 0.0)
    time = asyncio.get_running_loop().time
    rng = random.Random(3)
    bad = {f"job{n}": rng.uniform(1, 25) for n in range(190)}
    for name, at in bad.items():
        emulator.add_job(name, duration=31, script=[frame(at, "Porn")])
    async with emulator.client() as client, client.watch(list(bad), interval=10) as watched:
        delays = [
            time() - bad[finding.job_id]
            async for finding in watched
            if finding.verdict == SENSITIVE
        ]
    assert len(delays) == 190
    assert max(delays) <= 10 + 0.051
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_bulk_work_of_the_same_client_delays_nothing() -> None:
    """Beside a run over 3,000 jobs, ten streams are watched in time."""
    emulator = Emulator(now=lambda: 0.0)
    time = asyncio.get_running_loop().time
    names = [emulator.add_job(f"bulk{n}", duration=3600, script=[]) for n in range(3000)]
    rng = random.Random(9)
    bad = {f"job{n}": rng.uniform(1, 25) for n in range(10)}
    async with emulator.client() as client, client.as_completed(names) as outcomes:
        bulk = asyncio.ensure_future(anext(outcomes))
        await asyncio.sleep(3)
        for name, at in bad.items():
            emulator.add_job(name, duration=31, script=[frame(at, "Porn")])
        async with client.watch(list(bad), interval=10) as watched:
            delays = [
                time() - 3 - bad[finding.job_id]
                async for finding in watched
                if finding.verdict == SENSITIVE
            ]
        bulk.cancel()
    assert len(delays) == 10
    assert max(delays) <= 10 + 4 * 0.051
    assert {arrival.status for arrival in emulator.arrivals} == {200}


async def test_nothing_is_kept_of_ended_jobs() -> None:
    """However following a job ends, what was seen of it is forgotten."""
    emulator = Emulator()
    names = [emulator.add_job(f"job{n}", duration=9 * n) for n in range(1, 5)]
    async with emulator.client() as client, client.watch(names, timeout=30) as watched:
        async for finding in watched:
            if finding.job_id == "job2" and summary(finding) == AUDITING:
                del emulator.jobs["job2"]
        assert watched._seen == {}


async def test_closing_the_client_ends_the_watching() -> None:
    """The error is raised, with a single job and with many; nothing hangs."""
    emulator = Emulator()
    names = [emulator.add_job(f"job{n}", duration=3600) for n in range(3)]
    client = emulator.client()
    async with client.watch(names[0]) as one, client.watch(names) as many:
        await asyncio.sleep(15)
        await client.aclose()
        with pytest.raises(ConfigurationError, match="closed"):
            await collect(one, [])
        findings: list[Finding] = []
        with pytest.raises(ConfigurationError, match="closed"):
            await collect(many, findings)
    assert findings
    assert failures(findings) == []


async def test_faults_among_many_jobs_lose_nothing() -> None:
    """With many jobs and errors of all kinds, everything is found once."""
    emulator = Emulator(now=lambda: 0.0)
    script = [frame(at) for at in range(1, 40, 2)]
    names = [emulator.add_job(f"job{n}", duration=40, script=script) for n in range(30)]
    for fault in FAULTS:
        emulator.inject(fault, share=0.05)
    async with emulator.client() as client, client.watch(names, interval=7) as watched:
        findings = [finding async for finding in watched]
    times = [finding.time for finding in findings if finding.time is not None]
    assert Counter(times) == Counter({item.snapshot_time: 30 for item in script})
    assert failures(findings) == []
    assert states(findings).count(SUCCESS) == 30


# The consumer


async def test_an_exception_in_the_body_is_raised_bare() -> None:
    """It is neither wrapped nor grouped, and nothing goes on behind it."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600)

    async def consume() -> None:
        async with client.watch(job_id) as watched:
            async for finding in watched:
                raise ZeroDivisionError(finding)

    async with emulator.client() as client:
        with pytest.raises(ZeroDivisionError):
            await consume()
        polled = len(emulator.arrivals)
        await asyncio.sleep(100)
    assert len(emulator.arrivals) == polled


@pytest.mark.parametrize("many", [False, True])
async def test_leaving_early_leaves_no_task(*, many: bool) -> None:
    """After the block no task is left and nothing is polled."""
    emulator = Emulator()
    before = asyncio.all_tasks()
    async with emulator.client() as client:
        source = ids_of(emulator, 10**6) if many else emulator.add_job(duration=200)
        async with client.watch(source, interval=1) as watched:
            async for _ in watched:
                if asyncio.get_running_loop().time() > 30:
                    break
        assert asyncio.all_tasks() == before
        polled = len(emulator.arrivals)
        await asyncio.sleep(100)
        assert [finding async for finding in watched] == []
    assert len(emulator.arrivals) == polled


async def test_a_cancelled_consumer_leaves_no_task() -> None:
    """Cancelled at any point, it ends together with everything it started."""
    emulator = Emulator()
    names = [emulator.add_job(f"job{n}", duration=3600) for n in range(5)]
    before = asyncio.all_tasks()

    async def consume() -> None:
        async with client.watch(names, interval=1) as watched:
            async for _ in watched:
                await asyncio.sleep(0.01)

    async with emulator.client() as client:
        for step in range(60):
            task = asyncio.create_task(consume())
            await asyncio.sleep(step * 0.0171)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == before


async def test_an_impatient_consumer_loses_nothing() -> None:
    """Waiting for the next finding can be cancelled and repeated."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=20, script=[frame(at) for at in range(1, 20)])
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(job_id, interval=2) as watched:
        while not findings or summary(findings[-1]) != SUCCESS:
            try:
                findings.append(await asyncio.wait_for(anext(watched), 0.25))
            except TimeoutError:
                continue
    assert len(found(findings)) == len(set(found(findings))) == 19


@pytest.mark.parametrize("seconds", [0.1, 3, 1000])
async def test_a_slow_consumer_loses_nothing(seconds: float) -> None:
    """Findings wait for it, and jobs that were not polled meanwhile are polled later."""
    emulator = Emulator(now=lambda: 0.0)
    script = [frame(at) for at in range(1, 60)]
    names = [emulator.add_job(f"job{n}", duration=60, script=script) for n in range(4)]
    findings: list[Finding] = []
    async with emulator.client() as client, client.watch(names, interval=5) as watched:
        async for finding in watched:
            findings.append(finding)
            await asyncio.sleep(seconds)
    for name in names:
        times = [one.time for one in findings if one.job_id == name and one.time is not None]
        assert times == [item.snapshot_time for item in script]
    assert states(findings).count(SUCCESS) == 4


async def test_cancelling_the_job_is_found() -> None:
    """The iteration ends with the job, whoever cancels it."""
    emulator = Emulator()
    job_id = emulator.add_job(duration=3600)
    async with emulator.client() as client, client.watch(job_id, interval=10) as watched:
        async for finding in watched:
            if summary(finding) == AUDITING:
                await client.cancel(job_id)
        assert watched.job is not None
        assert watched.job.state == JobState.CANCELLED


async def test_findings_are_used_in_a_with_statement_once() -> None:
    """Iterating outside of the block and entering it twice raise an error."""
    emulator = Emulator()
    async with emulator.client() as client:
        watched = client.watch(emulator.add_job(duration=5))
        with pytest.raises(ConfigurationError, match="async with"):
            await anext(watched)
        async with watched:
            assert len(states([finding async for finding in watched])) == 2
        with pytest.raises(ConfigurationError, match="once"):
            await watched.__aenter__()


# A service that shows some of its items


class Service:
    """A stream with one item a second; ``shows`` picks the items of a response."""

    def __init__(
        self,
        shows: Callable[[Sequence[Item], bool], Sequence[Item]],
        *,
        duration: int = 100,
        bad: int | None = None,
        overall: bool = True,
    ) -> None:
        self.items: list[Item] = [
            (sound if at % 5 == 0 else frame)(at, "Porn" if at == bad else "Normal")
            for at in range(1, duration + 1)
        ]
        self._shows = shows
        self._overall = overall
        self._began = asyncio.get_running_loop().time()

    async def query(self, job_id: str, reading: Reading) -> AuditJob:
        """Return the job as it is now."""
        await asyncio.sleep(0.05)
        seconds = int(asyncio.get_running_loop().time() - self._began)
        until_now = self.items[:seconds]
        ended = seconds >= len(self.items)
        bad = any(item.result == SENSITIVE for item in until_now)
        job = response(
            *self._shows(until_now, ended),
            state=SUCCESS if ended else AUDITING,
            result=SENSITIVE if bad and (ended or self._overall) else NORMAL,
        )
        assert isinstance(reading, News)
        reading.compare(job)
        return job

    async def findings(self, interval: float = 10) -> list[tuple[float, Finding]]:
        """Return all findings and when they came."""
        async with Findings(Polling(self.query, interval), "j") as watched:
            return [
                (asyncio.get_running_loop().time() - self._began, finding)
                async for finding in watched
            ]


async def test_findings_that_are_shown_at_the_end_only() -> None:
    """The verdict of the job is found at once, and the items when they are shown."""
    service = Service(lambda items, ended: items if ended else [], bad=42)
    findings = await service.findings()
    assert found(one for _, one in findings) == service.items
    assert [(round(at), one.verdict) for at, one in findings if one.verdict == SENSITIVE] == [
        (50, SENSITIVE),
        (100, SENSITIVE),
    ]
    assert states(one for _, one in findings) == ["Auditing", "Success"]


async def test_findings_of_which_only_the_first_are_shown() -> None:
    """Beyond the cap only the verdict of the job is found."""
    service = Service(lambda items, ended: items[:30], bad=42)
    findings = await service.findings()
    assert found(one for _, one in findings) == service.items[:30]
    assert [(round(at), summary(one)) for at, one in findings[-2:]] == [
        (50, SENSITIVE),
        (100, "Success"),
    ]


async def test_findings_that_are_capped_until_the_end() -> None:
    """A whole response at the end adds the rest, and no verdict of the job."""
    service = Service(lambda items, ended: items if ended else items[:30], bad=42, overall=False)
    findings = await service.findings()
    assert found(one for _, one in findings) == service.items
    assert overall(one for _, one in findings) == []


@pytest.mark.parametrize("width", [10, 11, 30])
async def test_a_sliding_window_wide_enough_misses_nothing(width: int) -> None:
    """If the window covers an interval, all items are found in order."""
    service = Service(lambda items, ended: items[-width:], bad=42)
    findings = await service.findings(9.9)
    assert found(one for _, one in findings) == service.items
    assert overall(one for _, one in findings) == []


async def test_a_sliding_window_that_is_too_narrow() -> None:
    """Items that were never shown are not found, but a bad verdict is."""
    service = Service(lambda items, ended: items[-4:], bad=42)
    findings = await service.findings()
    items = found(one for _, one in findings)
    assert len(items) == len(set(items)) == 4 * 10
    assert overall(one for _, one in findings) == [SENSITIVE]


async def test_responses_that_show_anything() -> None:
    """Responses show random halves in any order; at the end all items were found once."""
    rng = random.Random(4)
    service = Service(
        lambda items, ended: rng.sample(items, len(items) if ended else len(items) // 2), bad=42
    )
    findings = await service.findings()
    assert Counter(found(one for _, one in findings)) == Counter(service.items)
    assert len(findings) == 102 + len(overall(one for _, one in findings))
