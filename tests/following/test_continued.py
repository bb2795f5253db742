"""A watch that goes on where an earlier one stopped; on virtual time, against the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import stat
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proofs import no_file_above
from runs import outcomes_of

from ci_live_audit import (
    AuditJob,
    Checkpoint,
    ConfigurationError,
    Finding,
    JobNotFound,
    JobState,
    LiveAuditClient,
    Snapshot,
    StateChange,
    Verdict,
    WaitTimeout,
    WatchFailed,
)
from ci_live_audit.following import checkpoint as module
from ci_live_audit.following.digests import Digests
from ci_live_audit.following.findings import Watching
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.seen import Seen
from ci_live_audit.testing import Emulator, frame, sound


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(rate=1e6)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[LiveAuditClient]:
    async with emulator.client(rate=20) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watch.checkpoint"


def stream(emulator: Emulator, duration: float = 100) -> str:
    """Add a job with a finding every ten seconds."""
    script = [frame(second, "Porn") for second in range(5, 95, 20)]
    return emulator.add_job(duration=duration, script=[*script, sound(15, "Ads"), sound(55, "Ads")])


async def part(
    client: LiveAuditClient, ids: str | list[str], path: Path, number: float, *, fails: bool
) -> list[Finding]:
    """Take some findings of a watch and leave it, with an exception or without."""
    found: list[Finding] = []
    with Checkpoint(path) as checkpoint, contextlib.suppress(ZeroDivisionError):
        async with client.watch(ids, checkpoint=checkpoint) as findings:
            async for finding in findings:
                found.append(finding)
                if len(found) == number:
                    if fails:
                        raise ZeroDivisionError
                    break
    return found


def keys(findings: Iterable[Finding]) -> list[str]:
    """Return the keys of findings."""
    return [finding.key for finding in findings]


@pytest.mark.parametrize("number", [2, 3, 7])
async def test_a_failed_block_repeats_the_finding_in_hand(
    emulator: Emulator, client: LiveAuditClient, path: Path, number: int
) -> None:
    """Left by an exception again and again, a watch hands out only the last finding once more."""
    ids = [stream(emulator) for _ in range(3)]
    reference = asyncio.create_task(whole(client, ids))
    found: Counter[str] = Counter()
    left = 0
    while len(some := await part(client, ids, path, number, fails=True)) == number:
        found.update(keys(some))
        left += 1
    found.update(keys(some))
    assert found.total() - len(found) == left > 3
    assert sorted(found) == sorted(await reference)
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.open, checkpoint.answered, checkpoint.sensitive) == ((), 3, 3)


@pytest.mark.parametrize("number", [1, 2, 5])
async def test_a_clean_leave_repeats_nothing(
    emulator: Emulator, client: LiveAuditClient, path: Path, number: int
) -> None:
    """After a break the next watch begins with the finding behind it."""
    ids = [stream(emulator) for _ in range(3)]
    reference = asyncio.create_task(whole(client, ids))
    found: list[str] = []
    while some := await part(client, ids, path, number, fails=False):
        found += keys(some)
    assert sorted(found) == sorted(await reference)
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.open, checkpoint.answered) == ((), 3)


async def whole(client: LiveAuditClient, ids: list[str]) -> list[str]:
    """Return the keys of all findings of a watch that is not left."""
    async with client.watch(ids) as findings:
        return keys([finding async for finding in findings])


async def test_a_single_job_goes_on_beside_others(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Its own error is raised; that of another id which the file has open is a finding."""
    open_id, ended = "av1", stream(emulator, 3)
    with Checkpoint(path) as checkpoint:
        checkpoint.take(open_id)
    found = await part(client, ended, path, math.inf, fails=False)
    assert {type(one) for one in found if one.job_id == open_id} == {WatchFailed}
    assert any(isinstance(one, StateChange) for one in found if one.job_id == ended)
    with pytest.raises(JobNotFound):
        await part(client, "av2", path, math.inf, fails=False)
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.answered, checkpoint.errors, checkpoint.open) == (2, 1, ("av2",))


async def test_a_timeout_leaves_a_watched_job_open(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """The next watch goes on with it, and hands out nothing that was dealt with."""
    job_id = stream(emulator)
    with Checkpoint(path) as checkpoint:
        async with client.watch([job_id], timeout=30, checkpoint=checkpoint) as findings:
            first = [finding async for finding in findings]
        last = first.pop()
        assert isinstance(last, WatchFailed)
        assert isinstance(last.error, WaitTimeout)
        assert (checkpoint.open, checkpoint.answered) == ((job_id,), 0)
        async with client.watch([job_id], checkpoint=checkpoint) as findings:
            rest = [finding async for finding in findings]
        assert (checkpoint.open, checkpoint.answered) == ((), 1)
    assert not {*keys(first)} & {*keys(rest)}
    assert len(first) + len(rest) == 3 + 7  # states and items


async def test_both_kinds_of_runs_share_what_is_done(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """A job that as_completed has followed to its end is not watched, and the other way round."""
    ids = [stream(emulator, 3), stream(emulator, 50)]
    with Checkpoint(path) as checkpoint:
        async with client.as_completed(ids, checkpoint=checkpoint) as outcomes:
            assert (await anext(outcomes)).job_id == ids[0]
        async with client.watch(ids, checkpoint=checkpoint) as findings:
            assert {finding.job_id async for finding in findings} == {ids[1]}
        assert await outcomes_of(client.as_completed(ids, checkpoint=checkpoint)) == []


async def test_what_was_seen_by_a_later_version_ends_the_watch(
    emulator: Emulator, client: LiveAuditClient, path: Path
) -> None:
    """Bytes that a store of another kind has spoilt are told with their job."""
    job_id = stream(emulator)
    with Checkpoint(path) as checkpoint:
        checkpoint.take(job_id)
        checkpoint._open[job_id] = b"\2"
        run = client.watch([job_id], checkpoint=checkpoint)
        with pytest.raises(ConfigurationError, match=f"{job_id}: .*: cut off"):
            await anext(await run.__aenter__())
        await run.__aexit__(None)


Shown: TypeAlias = tuple[int, str, int]
shown = st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 2))


@given(st.lists(shown, max_size=8), st.lists(st.integers(0, 3)), st.sets(st.integers(1, 30)))
def test_wherever_a_watch_stops_it_goes_on(
    items: list[Shown], growth: list[int], stops: set[int]
) -> None:
    """Each item of a list that grows is found, and again only if it was in hand at a stop."""
    watching, committed, found = Watching({}), b"", list[str]()
    known, taken, again = 0, 0, Counter[str]()
    for more in [*growth, len(items)]:
        known += more
        job = AuditJob(
            job_id="j",
            state=JobState.AUDITING,
            result=Verdict(1),
            snapshots=tuple(
                Snapshot(url=f"{place}", snapshot_time=time, label=label, result=Verdict(verdict))
                for place, (time, label, verdict) in enumerate(items[:known])
            ),
        )
        while True:
            reading = watching.reading("j", lambda _: True)
            reading.compare(job)
            for finding, commit in watching.items(Update("j", job), reading)[0]:
                name = finding.url or type(finding).__name__
                found.append(name)
                taken += 1
                if taken in stops:
                    again[name] += 1
                    watching = Watching({})
                    watching.begin("j", committed)
                    break
                committed += commit.seen
            else:
                break
    times = Counter(found)
    assert {*times} >= {str(place) for place in range(len(items))}
    assert times - again == Counter(dict.fromkeys(times, 1))


# The file


def line(seen: Seen, job_id: str = "a") -> bytes:
    """Return the line of what was seen."""
    new = b64encode(seen.to_bytes()).decode()
    return json.dumps({"seen": job_id, "new": new}).encode() + b"\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be rewritten early."""
    monkeypatch.setattr(module, "COMPACT", 4000)
    monkeypatch.setattr(module, "DIGESTS", 100)


def fill(checkpoint: Checkpoint, job_id: str, begin: int, end: int) -> None:
    """Note some findings."""
    for number in range(begin, end):
        checkpoint.keep(job_id, Seen(Digests().plus([number]), severity=number % 3).to_bytes())


@pytest.mark.usefixtures("small")
def test_the_file_of_a_watch_without_end_is_bounded(path: Path) -> None:
    """It is rewritten now and then: as long as what is known, and nothing else is lost."""
    with Checkpoint(path) as checkpoint:
        checkpoint.bind("bucket-1", "ap-one")
        checkpoint.take("a")
        sizes = []
        for number in range(100):
            checkpoint.take(str(number))
            fill(checkpoint, str(number), 0, 50)
            fill(checkpoint, "a", number * 10, number * 10 + 10)
            checkpoint.answer(str(number), verdict=2)
            sizes.append(path.stat().st_size)
            with pytest.raises(ConfigurationError, match="in use by"):
                Checkpoint(path)
        assert max(sizes) < 45_000  # 6,000 notes of some 60 bytes
        assert not [name for name in path.parent.iterdir() if name != path]
        with path.open("ab") as torn:
            torn.write(b'{"taken": "half')
    before = path.stat().st_size
    with Checkpoint(path) as again:
        assert path.stat().st_size < before
        assert (again.open, again.answered, again.suspected) == (("a",), 100, 100)
        known = Seen.from_bytes(again.seen("a"))
        assert (sorted(known.digests), known.severity) == ([*range(1000)], 2)
        assert again.seen("0") == b""
        again.bind("bucket-1", "ap-one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("left", ["rotated", "removed", "full", "folder"])
def test_a_file_that_cannot_be_rewritten_grows_on(path: Path, left: str) -> None:
    """Nothing of another file is touched, and what was noted stays."""
    link = path.with_name("link")
    link.symlink_to(path)
    with Checkpoint(link) as checkpoint:
        checkpoint.take("a")
        fill(checkpoint, "a", 0, 10)
        if left == "rotated":
            path.rename(path.with_name("old"))
            path.write_bytes(b"of somebody else")
        elif left == "removed":
            path.unlink()
        elif left == "folder":
            path.with_name(f".{path.name}.compacting").mkdir()
        with no_file_above(3900) if left == "full" else contextlib.nullcontext():
            for number in range(10, 100):
                with contextlib.suppress(OSError):
                    fill(checkpoint, "a", number, number + 1)
        fill(checkpoint, "a", 10, 200)
        assert sorted(Seen.from_bytes(checkpoint.seen("a")).digests) == [*range(200)]
    if left == "rotated":
        assert path.read_bytes() == b"of somebody else"
        path = path.with_name("old")
    if left != "removed":
        with Checkpoint(path) as again:
            assert sorted(Seen.from_bytes(again.seen("a")).digests) == [*range(200)]
    assert link.is_symlink()


@pytest.mark.usefixtures("small")
def test_a_rewriting_that_was_killed_is_forgotten(path: Path) -> None:
    """What it has left is removed, and a link in its place is not followed."""
    beside = path.with_name(f".{path.name}.compacting")
    other = path.with_name("other")
    other.write_bytes(b"of somebody else")
    beside.symlink_to(other)
    with Checkpoint(path) as checkpoint:
        checkpoint.take("a")
        fill(checkpoint, "a", 0, 100)
    assert not beside.exists()
    assert other.read_bytes() == b"of somebody else"
    assert path.stat().st_size < 4000


def test_a_file_that_was_replaced_while_it_was_opened_is_in_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened the old one, which nobody has locked any more, does not write to it."""
    Checkpoint(path).close()

    def replaced(_: object) -> bool:
        path.rename(path.with_name("old"))
        path.write_bytes(module.NEW)
        return True

    monkeypatch.setattr("ci_live_audit._files._lock", replaced)
    with pytest.raises(ConfigurationError, match="in use by another process"):
        Checkpoint(path)


@pytest.mark.parametrize(
    "new",
    [
        "",
        "AAAA",
        "AQ==",
        "é",
        "=",
        b64encode(struct.pack("<BBII", 1, 0, 0, 2**32 - 1)).decode(),
        b64encode(struct.pack("<BBII", 1, 0, 2**32 - 1, 0)).decode(),
        b64encode(struct.pack("<BBII", 2, 0, 0, 0)).decode(),
        b64encode(struct.pack("<BBII", 1, 0, 1, 0) + b"\xff").decode(),
        b64encode(Seen(Digests().plus([1])).to_bytes()[:-1]).decode(),
    ],
)
def test_a_line_of_what_was_seen_is_checked(path: Path, new: str) -> None:
    """Bytes that are cut off, or of another version, are refused with their line."""
    content = json.dumps({"seen": "a", "new": new or 5})
    path.write_bytes(module.NEW + content.encode() + b"\n")
    with pytest.raises(ConfigurationError, match="line 2 is not an entry"):
        Checkpoint(path)


def test_what_was_seen_of_no_open_id_is_not_noted(path: Path) -> None:
    """Neither in the file nor from it."""
    with Checkpoint(path) as checkpoint:
        checkpoint.keep("a", Seen().to_bytes())
        assert path.read_bytes() == module.NEW
    path.write_bytes(module.NEW + line(Seen(severity=1)) + b'{"taken": "a"}\n')
    with Checkpoint(path) as checkpoint:
        assert (checkpoint.open, checkpoint.seen("a")) == (("a",), b"")


# What was seen, as bytes

states = st.none() | st.sampled_from(list(JobState)) | st.text(min_size=1).map(JobState)
digests = st.lists(st.integers(0, 2**64 - 1))
pieces = st.lists(st.tuples(digests, states, st.integers(0, 2)), max_size=5)


@given(pieces)
def test_what_was_seen_comes_back(told: list[tuple[list[int], JobState | None, int]]) -> None:
    """Whatever was noted one after the other is known together; the last state counts."""
    notes = b"".join(Seen(Digests().plus(a), state=b, severity=c).to_bytes() for a, b, c in told)
    seen = Seen.from_bytes(notes)
    assert {*seen.digests} == {one for some, _, _ in told for one in some}
    assert seen.state == next((state for _, state, _ in reversed(told) if state), None)
    assert seen.severity == max((worst for _, _, worst in told), default=0)
    assert Seen.from_bytes(b"".join(part.to_bytes() for part in seen.parts(3))) == seen


@given(st.binary())
def test_any_bytes_are_what_was_seen_or_an_error(data: bytes) -> None:
    """Nothing else is raised, and no memory is taken for what is not there."""
    with contextlib.suppress(ValueError):
        assert len(Seen.from_bytes(data).digests) <= len(data) / 8
