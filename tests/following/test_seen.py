"""What a response adds to what has been seen of a job."""

from __future__ import annotations

import sys

import attrs
import pytest
from runs import Watched, size

from ci_live_audit import AudioSection, Snapshot, Verdict, decode
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.seen import News, Seen

NORMAL, SENSITIVE = Verdict.NORMAL, Verdict.SENSITIVE


def item(number: int, time: int = 1, verdict: int = 1, signature: int = 0) -> str:
    """Return a snapshot with a signed URL."""
    url = f"<Url>https://example.com/{number}.jpg?q-signature={signature}</Url>"
    rest = f"<SnapshotTime>{time}</SnapshotTime><Label>Porn</Label><Result>{verdict}</Result>"
    return f"<Snapshot>{url}{rest}</Snapshot>"


def response(*shown: str, state: str = "Auditing") -> bytes:
    """Return the response to a query."""
    job = f"<JobId>j</JobId><State>{state}</State>{''.join(shown)}"
    return f"<Response><JobsDetail>{job}</JobsDetail></Response>".encode()


def paths(*shown: Snapshot | AudioSection) -> list[str]:
    """Return the names of the pictures."""
    return [(one.url or "").partition("?")[0].rpartition("/")[2] for one in shown]


@pytest.mark.parametrize("time", [0, 5], ids=["no time", "equal times"])
def test_items_of_one_time_in_a_capped_list(time: int) -> None:
    """Of 100 new frames, of which each response shows ten, all are found."""
    seen, found = Seen(), list[str]()
    for start in range(0, 100, 10):
        news = News(seen)
        news.read(response(*[item(number, time) for number in range(start, start + 10)]))
        seen = news.seen
        found += paths(*news.items)
    assert found == [f"{number}.jpg" for number in range(100)]


def test_items_that_come_to_share_a_time() -> None:
    """One of them was found when it was alone; from then on they are told apart."""
    seen, found = Seen(), list[list[str]]()
    for shown in ([1], [1, 2], [2, 1], [3], [1], [3, 4]):
        news = News(seen)
        news.read(response(*[item(number, 5) for number in shown]))
        seen = news.seen
        found.append(paths(*news.items))
    assert found == [["1.jpg"], ["2.jpg"], [], ["3.jpg"], [], ["4.jpg"]]


@pytest.mark.parametrize("times", [(0, 0, 0), (5, 5, 5), (5, 5, 0)])
def test_a_worse_verdict_is_never_missed(times: tuple[int, int, int]) -> None:
    """Whatever an item shares with others, it is found with each verdict."""
    watched = Watched()
    for verdicts in ((0, 0, 0), (0, 0, 1), (2, 0, 1), (2, 2, 1), (1, 2, 1), (1, 1, 1)):
        pairs = enumerate(zip(times, verdicts, strict=True))
        shown = [item(0, time, verdict) for _, (time, verdict) in pairs]
        findings = watched.update(decode.job(response(*shown)))
        assert any(finding.verdict == SENSITIVE for finding in findings) == (
            verdicts in {(0, 0, 1), (1, 2, 1), (1, 1, 1)}
        )


def test_only_what_is_new_is_parsed() -> None:
    """Of a second response, nothing is parsed that the first one showed."""
    shown = [item(number, number) for number in range(1, 1000)]
    first = News(Seen())
    assert len(first.read(response(*shown)).snapshots) == 999
    second = News(first.seen)
    again = [item(number, number, signature=1) for number in range(1, 1001)]
    job = second.read(response(*again))
    assert paths(*job.snapshots) == paths(*second.items) == ["1000.jpg"]
    assert first.size == len(response(*shown))
    assert second.size < 600


def test_what_was_seen_takes_little_memory() -> None:
    """Of a stream of 20,000 items, half a megabyte, whether they came at once or by and by."""
    for step in (1_000, 20_000):
        seen = Seen()
        for number in range(step, 20_001, step):
            news = News(seen)
            news.read(response(*[item(one, one) for one in range(1, number + 1)]))
            seen = news.seen
        assert len(seen.digests) == len(seen.last) == 20_000
        assert size(seen.digests) + sys.getsizeof(seen.last) < 500_000


def test_the_last_response_is_read_whole() -> None:
    """The job that has ended lists everything; its findings are what is new."""
    shown = [item(number, number) for number in range(1, 10)]
    first = News(Seen())
    first.read(response(*shown))
    last = News(first.seen)
    job = last.read(response(*shown, item(10, 10), state="Success"))
    assert len(job.snapshots) == 10
    assert paths(*last.items) == ["10.jpg"]


def test_what_finds_no_room_is_left_for_the_next_response() -> None:
    """A change of state is told; the lists are empty, and all of it stays new."""
    shown = [item(number, number) for number in range(1, 10)]
    news = News(Seen(), lambda size: size < 500)
    job = news.read(response(*shown))
    assert (job.snapshots, news.items, news.state) == ((), [], "Auditing")
    later = News(news.seen)
    assert len(later.read(response(*shown)).snapshots) == 9


def test_a_job_that_has_ended_is_read_without_room() -> None:
    """There is no next response, so the last one is read at any rate."""
    news = News(Seen(), lambda _: False)
    assert len(news.read(response(item(1), state="Success")).snapshots) == 1


def test_an_odd_value_is_reported_once() -> None:
    """The response that first shows it is read whole, with its path; later ones without it."""
    odd = item(1).replace("<Result>1", "<Result>odd")
    first = News(Seen())
    assert first.read(response(odd)).unreadable == ("JobsDetail.Snapshot[0].Result",)
    assert News(first.seen).read(response(odd, item(2, 2))).unreadable == ()


def test_what_is_read_of_a_job_that_goes_on() -> None:
    """A run without findings reads what stands outside the lists, and all of the last response."""
    shown = [item(number, number) for number in range(1, 1000)]
    reading = Reading()
    running = reading.read(response(*shown, "<Label>Porn</Label>"))
    assert (running.snapshots, running.label) == ((), "Porn")
    assert reading.size < 300
    ended = reading.read(response(*shown, state="Success"))
    assert len(ended.snapshots) == 999
    unusual = reading.read(response(*shown, "<!-- -->"))
    assert len(unusual.snapshots) == 999


def test_a_job_as_text_is_not_needed() -> None:
    """An item without a time is identified by its content, however its URL is signed."""
    one = Snapshot(url="https://example.com/1.jpg?a", text="a", result=NORMAL)
    watched = Watched()
    job = decode.job(response())
    assert len(watched.update(attrs.evolve(job, snapshots=(one,)))) == 2
    again = attrs.evolve(one, url="https://example.com/1.jpg?b")
    assert watched.update(attrs.evolve(job, snapshots=(again,))) == []
