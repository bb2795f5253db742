"""The course of a stream as lanes over one axis of time; places are in percent of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import attrs

from ci_live_audit.models import EPOCH
from ci_live_audit.report import texts
from ci_live_audit.report.items import Item
from ci_live_audit.report.verdicts import Rank

__all__ = ["Timeline", "timeline"]

#: Parts of the axis that have a colour of their own, and those that have a mark of their own.
BARS, MARKS = 400, 100
#: Scenes that have a lane, and the most ticks of the axis.
LANES, TICKS = 6, 6
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
STEPS = (
    *(SECOND * one for one in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * one for one in (1, 2, 5, 10, 15, 30)),
    *(HOUR * one for one in (1, 2, 3, 6, 12)),
)


@attrs.frozen
class Bar:
    """A stretch of one rank."""

    rank: Rank
    x: float
    width: float

    @property
    def tone(self) -> str:
        """The name of the rank for style sheets."""
        return self.rank.name.lower()


@attrs.frozen
class Mark:
    """The worst item in a part of the axis, at its own time."""

    item: Item
    number: int
    x: float


@attrs.frozen
class Lane:
    """A kind of items, or the items of a scene; ``told`` is what is in it, in words."""

    name: str
    told: str
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()


@attrs.frozen
class Tick:
    """A time on the axis: an offset, or a time of day, which ``show`` says how to show."""

    x: float
    text: str
    at: datetime | None
    show: str


@attrs.frozen
class Timeline:
    """Lanes and their axis.

    Attributes:
        length: Milliseconds from the first item to the last.
        begin: When the first was taken, if that is known.
        unplaced: How many items have no time on this axis.
    """

    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    length: int
    begin: datetime | None
    unplaced: int


def timeline(items: Sequence[Item], numbers: dict[str, int]) -> Timeline | None:
    """Return the timeline of a stream; None if no item has a time.

    Args:
        items: All items.
        numbers: Those that are listed, by their keys.
    """
    of_day = any(item.at is not None for item in items)
    placed = [item for item in items if item.time is not None and (item.at is None) != of_day]
    if not placed:
        return None
    axis = _Axis(placed)
    pictures = [item for item in placed if item.kind == "picture"]
    sounds = [item for item in placed if item.kind == "sound"]
    lanes = [
        Lane(name, _told(name, found), axis.bars(found))
        for name, found in (("Pictures", pictures), ("Sound", sounds))
        if found
    ]
    scenes: dict[str, list[Item]] = {}
    for item in placed:
        if item.key in numbers:
            for hit in item.hits:
                scenes.setdefault(hit.name, []).append(item)
    worst = sorted(scenes.items(), key=lambda one: min(numbers[item.key] for item in one[1]))
    lanes += [
        Lane(name, _told(name, found), marks=axis.marks(found, numbers))
        for name, found in worst[:LANES]
    ]
    return Timeline(
        lanes=tuple(lanes),
        ticks=axis.ticks(of_day=of_day),
        length=axis.last - axis.first,
        begin=EPOCH + timedelta(milliseconds=axis.first) if of_day else None,
        unplaced=len(items) - len(placed),
    )


def _told(name: str, items: Iterable[Item]) -> str:
    counted = Counter(item.judgement.word.lower() for item in items)
    return f"{name}: " + ", ".join(f"{number:,} {word}" for word, number in counted.most_common(6))


_SHOWN: dict[str, Callable[[datetime], str]] = {
    "day": texts.day,
    "minute": lambda at: texts.clock(at)[:5],
    "time": texts.clock,
}


class _Axis:
    """The time from the first item to the end of the last, in milliseconds."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.first: int = min(item.time or 0 for item in items)
        self.last: int = max(item.until or 0 for item in items)
        self._length = max(self.last - self.first, SECOND)

    def _part(self, time: int, parts: int) -> int:
        return min((time - self.first) * parts // self._length, parts - 1)

    def _place(self, time: int) -> float:
        return (time - self.first) * 100 / self._length

    def bars(self, items: Iterable[Item]) -> tuple[Bar, ...]:
        """Return the worst of some items in each part of the axis, equal neighbours as one."""
        parts: list[Rank | None] = [None] * BARS
        for item in items:
            rank = item.judgement.rank
            begin, end = (self._part(time or 0, BARS) for time in (item.time, item.until))
            for part in range(begin, end + 1):
                before = parts[part]
                parts[part] = rank if before is None else max(before, rank)
        bars: list[Bar] = []
        at = 0
        for found, run in groupby(parts):
            number = len(list(run))
            if found is not None:
                bars.append(Bar(found, at * 100 / BARS, number * 100 / BARS))
            at += number
        return tuple(bars)

    def marks(self, items: Iterable[Item], numbers: dict[str, int]) -> tuple[Mark, ...]:
        """Return the worst of some items in each part of the axis that has any."""
        worst: dict[int, Item] = {}
        for item in sorted(items, key=lambda one: numbers[one.key]):
            worst.setdefault(self._part(item.time or 0, MARKS), item)
        return tuple(
            Mark(item, numbers[item.key], self._place(item.time or 0))
            for _, item in sorted(worst.items())
        )

    def ticks(self, *, of_day: bool) -> tuple[Tick, ...]:
        """Return round times on the axis."""
        step = next((one for one in STEPS if self._length <= one * TICKS), DAY)
        if self._length > step * TICKS:
            step = DAY * -(-self._length // (DAY * TICKS))
        time = -(-self.first // step) * step
        show = "day" if step >= DAY else "minute" if step >= MINUTE else "time"
        ticks: list[Tick] = []
        while time <= self.first + self._length:
            at = EPOCH + timedelta(milliseconds=time) if of_day else None
            ticks.append(
                Tick(
                    self._place(time),
                    texts.offset(time) if at is None else _SHOWN[show](at),
                    at,
                    show,
                )
            )
            time += step
        return tuple(ticks)
