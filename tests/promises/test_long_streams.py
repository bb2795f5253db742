"""Promises about long streams: what was seen before is not parsed again, and nothing is missed."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import IN_FULL

from ci_live_audit import AuditJob, SnapshotFinding
from ci_live_audit.following import backlog
from ci_live_audit.following.seen import Item, News, Seen
from ci_live_audit.testing import Emulator, frame

FORM = "<{tag}>{url}{time}{text}{verdict}</{tag}>"


@attrs.frozen
class Shown:
    """An item as a response shows it."""

    tag: str = "Snapshot"
    time: str = "1"
    verdict: str = "0"
    path: int = 0
    text: str = ""
    form: str = FORM

    def xml(self, signature: int) -> str:
        """Return the element, whose URL is signed anew."""
        name = "SnapshotTime" if self.tag == "Snapshot" else "OffsetTime"
        return self.form.format(
            tag=self.tag,
            url=f"<Url>https://example.com/{self.path}.jpg?a=1&amp;q-signature={signature}</Url>",
            time=f"<{name}>{self.time}</{name}>",
            text=f"<Text>{self.text}</Text>",
            verdict=f"<Result>{self.verdict}</Result><Label>Porn</Label>",
        )


TEXTS = st.sampled_from(
    [
        *("", "read", "text"),
        *(escape("<Snapshot>"), escape("</Snapshot>"), escape("<Url>")),
        *("<![CDATA[</Snapshot>]]>", "<![CDATA[<Snapshot>]]>", "<!-- </Snapshot> -->"),
        *("<![CDATA[</Snapshot><State>Success</State><Snapshot>]]>", "<?x </Snapshot> ?>", "!?"),
    ]
)
FORMS = st.sampled_from(
    [
        FORM,
        "<{tag}>{verdict}{text}{time}{url}</{tag}>",
        "<{tag}>\n  {url}\n  {time}{verdict}\n</{tag}>",
        "<{tag}>{time}{verdict}<Other><Url>{text}</Url></Other>{url}</{tag}>",
        "<{tag}>{url}{url}{time}</{tag}>",
        '<{tag} a="1">{url}{time}{verdict}</{tag}>',
        "<{tag} >{url}{time}{verdict}</{tag} >",
        "<{tag}>{url}{time}<Url/>{verdict}</{tag}>",
        "<{tag}>{time}<PornInfo><HitFlag>1</HitFlag>{text}</PornInfo></{tag}>",
        "<{tag}>{url}<Snapshot>{time}</Snapshot>{verdict}</{tag}>",
        "<{tag}/>",
        "<{tag}></{tag}>",
        "<x:{tag} xmlns:x='urn:x'>{url}{time}</x:{tag}>",
        "<Other><{tag}>{time}</{tag}></Other>",
    ]
)
SHOWN = st.builds(
    Shown,
    tag=st.sampled_from(["Snapshot", "Snapshot", "AudioSection"]),
    time=st.sampled_from([*"0123456789", "", "odd"]),
    verdict=st.sampled_from(["0", "1", "2", "", "odd"]),
    path=st.integers(0, 2),
    text=st.just("") | TEXTS,
    form=st.just(FORM) | FORMS,
)
PLAIN = st.builds(Shown, time=st.integers(1, 40).map(str), verdict=st.sampled_from("012"))


@st.composite
def responses(draw: st.DrawFn) -> list[list[Shown]]:
    """Return lists that grow, shrink, are capped, reordered, repeated and revised."""
    shown: list[Shown] = []
    answers: list[list[Shown]] = []
    for _ in range(draw(st.integers(2, 6))):
        shown = [*shown, *draw(st.lists(draw(st.sampled_from([PLAIN, SHOWN])), max_size=4))]
        match draw(st.integers(0, 7)):
            case 0:
                shown = draw(st.permutations(shown))
            case 1:
                shown = shown[-draw(st.integers(1, 5)) :]
            case 2:
                shown = [*shown, *shown[: draw(st.integers(0, 3))]]
            case 3 if shown:
                at = draw(st.integers(0, len(shown) - 1))
                item = shown[at]
                revised = [attrs.evolve(item, text="read late"), attrs.evolve(item, verdict="1")]
                revised.append(attrs.evolve(item, path=9))
                shown = [*shown[:at], draw(st.sampled_from(revised)), *shown[at + 1 :]]
            case _:
                pass
        answers.append(shown)
    return answers


HEADS = ["", '<?xml version="1.0" encoding="UTF-8"?>\n', "<?xml version='1.0'?>"]
AROUND = ["", "<Other>a</Other>", "<!-- a -->", "<SnapshotCount>3</SnapshotCount>"]


def body(shown: Sequence[Shown], number: int, head: str, around: str, state: str) -> bytes:
    """Return a response."""
    items = "".join(item.xml(number) for item in shown)
    job = f"<JobId>j</JobId><State>{state}</State>{around}{items}"
    return f"{head}<Response><JobsDetail>{job}</JobsDetail></Response>".encode()


def found(news: News) -> list[tuple[int, Item]]:
    """Return what a response showed for the first time, without the signatures."""
    return [
        (digest, attrs.evolve(item, url=item.url and item.url.partition("?")[0]))
        for digest, item in zip(news.digests, news.items, strict=True)
    ]


def outside(job: AuditJob) -> AuditJob:
    """Return a job without its lists."""
    return attrs.evolve(job, snapshots=(), audio_sections=(), unreadable=())


@pytest.mark.timeout(1800)
@settings(max_examples=10_000 if IN_FULL else 200)
@given(responses(), st.sampled_from(HEADS), st.sampled_from(AROUND), st.booleans())
def test_only_what_is_new_is_read(
    answers: list[list[Shown]], head: str, around: str, ends: bool
) -> None:
    """What was left out of a response changes nothing of what is found in it."""
    shortcut, whole = Seen(), Seen()
    for number, shown in enumerate(answers):
        state = "Success" if ends and number == len(answers) - 1 else "Auditing"
        response = body(shown, number, head, around, state)
        one, other = News(shortcut), News(attrs.evolve(whole, last=array("q")))
        job, expected = one.read(response), other.read(response)
        assert found(one) == found(other)
        assert outside(job) == outside(expected)
        assert (one.state, one.verdict, len(one)) == (other.state, other.verdict, len(other))
        shortcut, whole = one.seen, other.seen
        assert set(shortcut.digests) == set(whole.digests)


async def test_nothing_piles_up_before_a_slow_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits stays within the memory of a run, and every finding is handed out once."""
    monkeypatch.setattr(backlog, "MEMORY", MEMORY := 50_000)
    emulator = Emulator()
    script = [frame(at / 10) for at in range(1, 101)]  # 100 in the first ten seconds: some 40 KB
    names = [emulator.add_job(duration=10_000, script=script) for _ in range(20)]
    await asyncio.sleep(20)
    found: Counter[str] = Counter()
    async with emulator.client() as client, client.watch(names, interval=10) as findings:
        waiting = findings._dispatcher.backlog
        async for finding in findings:
            if isinstance(finding, SnapshotFinding):
                found[finding.key] += 1
                if len(found) % 200 == 1:
                    await asyncio.sleep(30)
                    assert waiting._size <= MEMORY
                    assert len(waiting) <= backlog.READY + 101
                if len(found) == 2000:
                    break
    assert set(found.values()) == {1}
