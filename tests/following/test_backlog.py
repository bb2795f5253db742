"""What waits for the consumer of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ci_live_audit.following.backlog import MEMORY, READY, Backlog


def test_items_are_made_when_they_are_taken() -> None:
    """Items come in the order of the responses, and none is made ahead."""
    made: list[int] = []

    def make(*numbers: int) -> Iterator[int]:
        for number in numbers:
            made.append(number)
            yield number

    backlog: Backlog[int] = Backlog()
    backlog.add(make(1, 2), 2, 0)
    backlog.add(make(), 0, 0)
    backlog.add(make(3), 1, 0)
    assert (len(backlog), made) == (3, [])
    assert (backlog.take(), len(backlog), made) == (1, 2, [1])
    assert [backlog.take(), backlog.take(), len(backlog)] == [2, 3, 0]
    with pytest.raises(IndexError):
        backlog.take()


def test_nothing_is_polled_while_much_waits() -> None:
    """The number of items that wait is bounded, but for what was in flight."""
    backlog: Backlog[int] = Backlog()
    backlog.add(iter(range(READY)), READY, 0)
    assert backlog.is_full
    backlog.take()
    assert not backlog.is_full


def test_a_response_has_room_if_little_waits() -> None:
    """Any response has room alone; several have it within the memory of a run."""
    backlog: Backlog[int] = Backlog()
    assert backlog.has_room(2 * MEMORY)
    backlog.add(iter([1, 2]), 2, MEMORY - 1)
    assert backlog.has_room(1)
    assert not backlog.has_room(2)
    backlog.take()
    assert not backlog.has_room(2)
    backlog.take()
    assert backlog.has_room(2 * MEMORY)


def test_the_items_of_a_job_are_dropped() -> None:
    """Those of the others stay, in their order; what was taken is gone already."""
    backlog: Backlog[int] = Backlog()
    backlog.add(iter([1, 2]), 2, 10, "a")
    backlog.add(iter([3]), 1, 20, "b")
    backlog.add(iter([4]), 1, MEMORY, "a")
    assert backlog.take() == 1
    assert "a" in backlog
    assert not backlog.has_room(1)
    backlog.drop("a")
    assert "a" not in backlog
    assert backlog.has_room(1)
    assert len(backlog) == 1
    assert backlog.take() == 3
