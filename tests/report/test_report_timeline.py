"""Timelines: where items are on the axis, and what its ticks say."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import BEGIN, picture, section, stream_job

from ci_live_audit import AuditJob, JobState, Snapshot
from ci_live_audit.report.items import Item, items
from ci_live_audit.report.timeline import BARS, Timeline, timeline


def found_in(job: AuditJob) -> list[Item]:
    return [item for item, _ in items(job)]


def of(job: AuditJob) -> Timeline | None:
    found = found_in(job)
    listed = [item for item in found if item.listed]
    return timeline(found, {item.key: number for number, item in enumerate(listed)})


def of_pictures(*snapshots: Snapshot) -> Timeline | None:
    return of(AuditJob(job_id="av1", state=JobState.SUCCESS, snapshots=snapshots))


def test_a_stream_has_lanes() -> None:
    """Pictures, sound, and each scene that was hit have one, which is told in words."""
    shown = of(stream_job())
    assert shown is not None
    assert [lane.told for lane in shown.lanes] == [
        "Pictures: 57 normal, 2 sensitive, 1 suspected",
        "Sound: 1 normal, 1 suspected",
        "Porn: 2 sensitive",
        "Ads: 2 suspected",
    ]
    assert (shown.begin, shown.length, shown.unplaced) == (BEGIN, 590_000, 0)
    # Each where its picture is, not in the middle of its part of the axis.
    places = [mark.x for mark in shown.lanes[2].marks]
    assert places == pytest.approx([20_000 / 590, 40_000 / 590])
    assert [tick.text for tick in shown.ticks] == ["20:32", "20:34", "20:36", "20:38", "20:40"]
    assert {tick.show for tick in shown.ticks} == {"minute"}


def test_the_worst_is_seen() -> None:
    """Among thousands of pictures a bad one has the colour of its part of the axis."""
    bad = picture(5000, "Porn")
    shown = of_pictures(*(picture(second) for second in range(10_000)), bad)
    assert shown is not None
    bars = shown.lanes[0].bars
    assert [bar.tone for bar in bars] == ["normal", "sensitive", "normal"]
    assert sum(bar.width for bar in bars) == pytest.approx(100)
    assert bars[1].x == pytest.approx(50, abs=0.5)


def test_positions_in_a_recording() -> None:
    """Without a time of day the axis counts from the beginning, and says which items it lacks."""
    snapshots = [picture(0, snapshot_time=1000 * second) for second in (0, 30, 90)]
    shown = of_pictures(*snapshots, picture(0, snapshot_time=None))
    assert shown is not None
    assert [tick.text for tick in shown.ticks] == [
        f"0:0{s // 60}:{s % 60:02}" for s in range(0, 91, 15)
    ]
    assert (shown.begin, shown.unplaced) == (None, 1)
    assert {tick.at for tick in shown.ticks} == {None}


def test_times_of_two_kinds() -> None:
    """Items with a position only have no place on an axis of times of day."""
    shown = of_pictures(picture(1), picture(2), picture(0, snapshot_time=7))
    assert shown is not None
    assert (shown.unplaced, shown.length) == (1, 1000)


def test_nothing_has_a_time() -> None:
    """Then there is no timeline."""
    assert of_pictures() is None
    assert of_pictures(picture(0, snapshot_time=None)) is None


def test_the_worst_scenes_have_lanes() -> None:
    """Six scenes have one, those of the worst items."""
    many = [picture(second, f"Scene{second}", score=50 + second) for second in range(9)]
    shown = of_pictures(*many)
    assert shown is not None
    assert len(shown.lanes) == 7


def test_one_moment() -> None:
    """A single picture is a stream of no length, and has one tick or none."""
    shown = of_pictures(picture(0))
    assert shown is not None
    assert (shown.length, shown.lanes[0].bars[0].x) == (0, 0)


@pytest.mark.parametrize(
    ("seconds", "show"),
    [(30, "time"), (7200, "minute"), (86_400 * 4, "day"), (86_400 * 900, "day")],
)
def test_ticks_are_few(seconds: float, show: str) -> None:
    """However long a stream is, its axis has from two to seven ticks, at round times."""
    shown = of_pictures(picture(0), picture(seconds))
    assert shown is not None
    assert 2 <= len(shown.ticks) <= 7
    assert {tick.show for tick in shown.ticks} == {show}
    assert shown.ticks[0].text in {"20:31:05", "21:00", "28 Nov 2026", "1 Feb 2027"}


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63), st.integers(-10, 2**63)), max_size=8))
def test_any_times_are_on_the_axis(times: list[tuple[int, int]]) -> None:
    """Bars, marks and ticks of any numbers are between 0 and 100 percent."""
    sections = [
        attrs.evolve(section(0, "Porn"), offset_time=time, duration=duration)
        for time, duration in times
    ]
    shown = of(AuditJob(job_id="av1", state=JobState.SUCCESS, audio_sections=tuple(sections)))
    if shown is None:
        return
    for lane in shown.lanes:
        assert all(0 <= bar.x < bar.x + bar.width <= 100.001 for bar in lane.bars)
        assert all(0 <= mark.x <= 100 for mark in lane.marks)
        assert len(lane.bars) <= BARS
    assert len(shown.ticks) <= 7
    assert all(0 <= tick.x <= 100 for tick in shown.ticks)
