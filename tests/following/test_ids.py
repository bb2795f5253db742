"""Ids are read when they are needed, hardly ahead, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any

import pytest

from ci_live_audit import ConfigurationError
from ci_live_audit.following.ids import Ids, Nothing


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Assert after the test that no task is left and no exception went unhandled."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    handler, tasks = loop.get_exception_handler(), len(asyncio.all_tasks())
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(handler)
    assert len(asyncio.all_tasks()) == tasks
    assert complaints == []


def ignore() -> None:
    """Ignore that something has arrived."""


async def generated(*ids: str) -> AsyncIterator[str]:
    for job_id in ids:
        await asyncio.sleep(1)
        yield job_id


class Stream:
    """An async iterator that is not a generator."""

    def __init__(self, *ids: str) -> None:
        self._left = iter(ids)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(1)
        for job_id in self._left:
            return job_id
        raise StopAsyncIteration


class Table:
    """An async iterable that returns a new iterator each time."""

    def __aiter__(self) -> AsyncIterator[str]:
        return generated("a", "b", "c")


async def all_of(ids: Ids) -> list[str]:
    """Return all ids, from opening to closing."""
    arrived = asyncio.Event()
    ids.open(arrived.set)
    taken: list[str] = []
    while not ids.exhausted:
        while not ids.at_hand:
            await arrived.wait()
            arrived.clear()
        job_id = ids.take()
        if job_id is not Nothing.EMPTY:
            taken.append(job_id)
    assert not ids.at_hand
    assert ids.take() is Nothing.EMPTY
    await ids.aclose()
    return taken


# Collections and iterables


@pytest.mark.parametrize(
    "job_ids",
    [
        ["a", "b", "c"],
        ("a", "b", "c"),
        {"a", "b", "c"},
        frozenset({"a", "b", "c"}),
        {"a": 1, "b": 2, "c": 3},
        {"a": 1, "b": 2, "c": 3}.keys(),
        deque(["a", "b", "c"]),
    ],
    ids=lambda job_ids: type(job_ids).__name__,
)
def test_a_collection_is_known(job_ids: Collection[str]) -> None:
    """The number of ids left in a collection is known; they come in its order."""
    ids = Ids(job_ids)
    assert ids.known
    taken: list[str | Nothing] = []
    for left in (3, 2, 1):
        assert (ids.unread, ids.exhausted, ids.at_hand) == (left, False, True)
        taken.append(ids.take())
    assert taken == list(job_ids)
    assert (ids.unread, ids.exhausted, ids.at_hand) == (0, True, False)
    assert ids.take() is Nothing.EMPTY


def test_a_collection_is_copied() -> None:
    """Changing a list afterwards changes nothing."""
    job_ids = ["a", "b"]
    ids = Ids(job_ids)
    job_ids.clear()
    assert [ids.take(), ids.take()] == ["a", "b"]


def test_an_iterable_is_read_as_it_is_taken() -> None:
    """A generator is read no further than its ids are taken, and its end is found there."""
    read: list[str] = []

    def generate() -> Iterator[str]:
        for job_id in "ab":
            read.append(job_id)
            yield job_id

    ids = Ids(generate())
    ids.open(ignore)
    assert (ids.known, ids.unread, ids.exhausted, ids.at_hand) == (False, 0, False, True)
    assert read == []
    assert ids.take() == "a"
    assert read == ["a"]
    assert ids.take() == "b"
    assert not ids.exhausted
    assert ids.take() is Nothing.EMPTY
    assert (ids.exhausted, ids.at_hand, ids.unread) == (True, False, 0)
    assert ids.take() is Nothing.EMPTY


@pytest.mark.parametrize("job_ids", [[], (), set(), {}], ids=lambda job_ids: type(job_ids).__name__)
def test_an_empty_collection_is_exhausted(job_ids: Collection[str]) -> None:
    """An empty collection is exhausted from the start."""
    ids = Ids(job_ids)
    assert (ids.known, ids.exhausted, ids.at_hand, ids.take()) == (
        True,
        True,
        False,
        Nothing.EMPTY,
    )


def test_an_empty_iterable_is_exhausted_when_read() -> None:
    """An empty generator is exhausted once it has been read."""
    ids = Ids(iter(()))
    assert (ids.known, ids.exhausted, ids.at_hand) == (False, False, True)
    assert ids.take() is Nothing.EMPTY
    assert (ids.exhausted, ids.at_hand) == (True, False)


@pytest.mark.parametrize("job_ids", ["job", b"job", 5, None, 1.5, object(), ignore])
def test_anything_else_is_refused(job_ids: Any) -> None:
    """A single id, or no iterable, is refused by the name of the argument and its type."""
    with pytest.raises(ConfigurationError, match=rf"^job_ids: .* got {type(job_ids).__name__}$"):
        Ids(job_ids)


def test_an_exception_of_an_iterable_is_raised() -> None:
    """It is raised by `take`, after the ids before."""

    def generate() -> Iterator[str]:
        yield "a"
        raise OSError("the disk is gone")

    ids = Ids(generate())
    assert ids.take() == "a"
    with pytest.raises(OSError, match="the disk is gone"):
        ids.take()


def test_an_exception_of_a_collection_is_raised_at_once() -> None:
    """It is raised by the constructor, which copies."""

    class Broken(list[str]):
        def __iter__(self) -> Iterator[str]:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Ids(Broken())


# Async iterables


@pytest.mark.parametrize(
    "source",
    [lambda: generated("a", "b", "c"), lambda: Stream("a", "b", "c"), Table],
    ids=["generator", "iterator", "iterable"],
)
async def test_an_async_source_is_read(source: Callable[[], Any], nothing_left: None) -> None:
    """Ids of an async source come as they arrive; their number is unknown."""
    ids = Ids(source())
    assert (ids.known, ids.unread, ids.exhausted) == (False, 0, False)
    assert await all_of(ids) == ["a", "b", "c"]


async def test_an_empty_async_source_ends(nothing_left: None) -> None:
    """An async source without ids is exhausted once its end has been taken."""
    assert await all_of(Ids(generated())) == []


async def test_an_id_is_at_hand_once_it_has_arrived(nothing_left: None) -> None:
    """Between two ids nothing is at hand; each arrival, and the end, is announced."""
    time = asyncio.get_running_loop().time
    came: list[float] = []
    ids = Ids(generated("a", "b"))
    ids.open(lambda: came.append(time() - began))
    began = time()
    assert not ids.at_hand
    assert ids.take() is Nothing.EMPTY
    assert not ids.exhausted
    await asyncio.sleep(1.5)
    assert ids.at_hand
    assert ids.take() == "a"
    assert not ids.at_hand
    await asyncio.sleep(1)
    assert ids.take() == "b"
    await asyncio.sleep(1)
    assert ids.at_hand
    assert not ids.exhausted
    assert ids.take() is Nothing.EMPTY
    assert ids.exhausted
    assert came == pytest.approx([1, 2, 2])
    await ids.aclose()


@pytest.mark.parametrize("taken", [0, 1, 5])
async def test_reading_ahead_is_bounded(taken: int, nothing_left: None) -> None:
    """At most two ids are read before they are taken."""
    read = 0

    async def generate() -> AsyncIterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"job {read}"

    ids = Ids(generate())
    ids.open(ignore)
    for number in range(taken):
        await asyncio.sleep(1)
        assert read <= number + 2
        assert ids.take() == f"job {number + 1}"
    await asyncio.sleep(1)
    assert read == taken + 2
    await ids.aclose()
    assert read == taken + 2


async def test_an_exception_of_an_async_source_is_raised(nothing_left: None) -> None:
    """It is raised by `take`, after the ids before."""

    async def generate() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        raise OSError("the network is gone")

    ids = Ids(generate())
    ids.open(ignore)
    taken: list[str | Nothing] = []
    for _ in range(2):
        await asyncio.sleep(1)
        taken.append(ids.take())
    assert taken == ["a", "b"]
    await asyncio.sleep(1)
    assert ids.at_hand
    with pytest.raises(OSError, match="the network is gone"):
        ids.take()
    assert not ids.exhausted
    await ids.aclose()


# First ids


@pytest.mark.parametrize("known", [True, False])
def test_first_ids_come_first(known: bool) -> None:
    """Ids given as ``first`` come before those of the source."""
    ids = Ids(["c", "d"] if known else iter(["c", "d"]), first=("a", "b"))
    assert (ids.known, ids.unread) == (known, 4 if known else 0)
    assert [ids.take() for _ in range(5)] == ["a", "b", "c", "d", Nothing.EMPTY]
    assert ids.exhausted


def test_first_ids_come_before_an_empty_collection() -> None:
    """Ids given as ``first`` come even if the collection is empty."""
    ids = Ids([], first=("a",))
    assert (ids.exhausted, ids.unread, ids.at_hand) == (False, 1, True)
    assert ids.take() == "a"
    assert ids.exhausted


async def test_first_ids_of_an_async_source_are_at_hand(nothing_left: None) -> None:
    """Ids given as ``first`` need not be waited for."""
    ids = Ids(generated("c"), first=("a", "b"))
    ids.open(ignore)
    assert ids.at_hand
    assert [ids.take(), ids.take(), ids.take()] == ["a", "b", Nothing.EMPTY]
    assert not ids.at_hand
    await asyncio.sleep(1.5)
    assert [ids.take(), ids.take()] == ["c", Nothing.EMPTY]
    assert ids.exhausted
    await ids.aclose()


# Closing


@pytest.mark.parametrize("seconds", [0, 0.5, 1.5, 10], ids=lambda seconds: f"after {seconds} s")
async def test_closing_ends_an_async_generator(seconds: float, nothing_left: None) -> None:
    """Wherever a generator is when reading stops, it has cleaned up by then."""
    events: list[str] = []

    async def generate() -> AsyncIterator[str]:
        events.append("began")
        try:
            for number in range(100):
                await asyncio.sleep(1)
                yield f"job {number}"
        finally:
            await asyncio.sleep(1)
            events.append("ended")

    generator = generate()
    ids = Ids(generator)
    ids.open(ignore)
    await asyncio.sleep(seconds)
    await ids.aclose()
    assert events == ["began", "ended"]
    assert [job_id async for job_id in generator] == []


async def test_closing_at_once_reads_nothing(nothing_left: None) -> None:
    """A source that is closed before the reader starts is never begun; an eager one starts."""
    read: list[str] = []

    async def generate() -> AsyncIterator[str]:
        read.append("a")
        yield "a"

    ids = Ids(generate())
    ids.open(ignore)
    await ids.aclose()
    await asyncio.sleep(1)
    eager = asyncio.get_running_loop().get_task_factory() is not None
    assert read == ["a"] * eager


def test_none_is_handed_on() -> None:
    """A None in a source is handed on like any id, not taken for its end."""
    job_ids: Any = [None, "a"]
    assert [Ids(job_ids).take(), Ids(iter(job_ids)).take()] == [None, None]


async def test_closing_cancels_the_reader(nothing_left: None) -> None:
    """An iterator that waits for its next id is cancelled."""
    ids = Ids(Stream("a", "b"))
    ids.open(ignore)
    await asyncio.sleep(1.5)
    await ids.aclose()
    assert ids.take() == "a"
    with pytest.raises(ConfigurationError, match="the source was cancelled"):
        ids.take()


async def test_closing_waits_for_the_cleanup(nothing_left: None) -> None:
    """A source that takes time to stop is awaited."""
    cleaned = False

    class Slow(Stream):
        async def __anext__(self) -> str:
            nonlocal cleaned
            try:
                return await super().__anext__()
            finally:
                await asyncio.sleep(5)
                cleaned = True

    ids = Ids(Slow("a"))
    ids.open(ignore)
    await asyncio.sleep(0.5)
    await ids.aclose()
    assert cleaned


async def test_a_failure_that_was_not_taken_is_silent(nothing_left: None) -> None:
    """A source that failed, or fails when cancelled, is closed without a complaint."""

    async def failing(when: float) -> AsyncIterator[str]:
        try:
            await asyncio.sleep(when)
        finally:
            raise OSError("the network is gone")
        yield "never"

    for when in (0.5, 60):
        ids = Ids(failing(when))
        ids.open(ignore)
        await asyncio.sleep(1)
        await ids.aclose()


async def test_closing_twice_or_unopened_is_harmless(nothing_left: None) -> None:
    """A collection, an unopened source and a closed one can all be closed."""
    for ids in (Ids(["a"]), Ids(iter("a")), Ids(Stream("a"))):
        await ids.aclose()
        ids.open(ignore)
        await ids.aclose()
        await ids.aclose()


async def test_closing_ends_the_generator_of_an_iterable(nothing_left: None) -> None:
    """A source whose ``__aiter__`` is a generator has cleaned up as well."""
    events: list[str] = []

    class Table:
        async def __aiter__(self) -> AsyncIterator[str]:
            try:
                while True:
                    yield "a"
            finally:
                await asyncio.sleep(1)
                events.append("ended")

    ids = Ids(Table())
    ids.open(ignore)
    await asyncio.sleep(1)
    await ids.aclose()
    assert events == ["ended"]


async def test_a_source_that_is_both_is_read_once() -> None:
    """A source that is iterable in both ways is read in one of them."""

    class Both:
        def __iter__(self) -> Any:
            return iter("ab")

        async def __aiter__(self) -> AsyncIterator[str]:
            for job_id in "ab":
                yield job_id

    ids = Ids(Both())
    ids.open(ignore)
    taken = []
    while not ids.exhausted:
        taken.append(ids.take())
        await asyncio.sleep(0)
    assert [job_id for job_id in taken if isinstance(job_id, str)] == ["a", "b"]


async def test_what_is_no_text_is_not_noted() -> None:
    """An async iterable hands it on to whoever refuses it."""
    noted: list[str] = []

    class Noting(Ids):
        def note(self, job_id: str) -> bytes:
            noted.append(job_id)
            return b""

    async def mixed() -> AsyncIterator[Any]:
        yield 7
        yield "a"

    ids = Noting(mixed())
    arrived = asyncio.Event()
    ids.open(arrived.set)
    taken: list[Any] = []
    while not ids.exhausted:
        if (one := ids.take()) is not Nothing.EMPTY:
            taken.append(one)
        await asyncio.sleep(0)
    await ids.aclose()
    assert (taken, noted) == ([7, "a"], ["a"])
