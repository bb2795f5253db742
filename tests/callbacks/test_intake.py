"""What becomes of a callback: statuses, duplicates, counts, warnings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from multidict import CIMultiDict
from posted import PROBE, SECRET, Taken, body, detail, path_for, post
from starlette.datastructures import Headers

from ci_live_audit import CallbackReceiver
from ci_live_audit.callbacks import Callback, intake
from ci_live_audit.callbacks.line import MOST


def counted(receiver: CallbackReceiver) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {name: count for name, count in receiver.counts.items() if count}


async def test_a_callback_is_taken_once() -> None:
    """The same body is a duplicate, another about the same job is not."""
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    receiver.subscribe(heard.append)
    bodies = [detail("av1", 1), detail("av1", 2), detail("av1", 1), detail("av1", 2)]
    assert [await post(receiver, one) for one in bodies] == 4 * [200]
    await receiver.join()
    assert taken == heard
    assert [len(callback.job.snapshots) for callback in taken if callback.job] == [1, 2]
    assert counted(receiver) == {"taken": 2, "duplicate": 2}


async def test_a_simple_callback_may_look_like_the_one_before() -> None:
    """It tells no state, so whoever follows the job hears of it again; ``on_callback`` does not."""
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    receiver.subscribe(heard.append)
    assert [await post(receiver, body()) for _ in range(3)] == 3 * [200]
    await receiver.join()
    await asyncio.sleep(0)
    assert len(taken) == 1
    assert heard == 3 * taken
    assert counted(receiver) == {"taken": 1, "duplicate": 2}


@pytest.mark.parametrize("data_id", ["room7", None])
async def test_a_probe_is_no_event(data_id: str | None) -> None:
    """The test of a URL is answered 200, although it knows no data_id, and nobody hears of it."""
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    receiver.subscribe(heard.append)
    by_id = body("test_trace_id", None)
    assert [await post(receiver, one, data_id) for one in (PROBE, PROBE, by_id)] == 3 * [200]
    await receiver.join()
    assert (taken, heard, counted(receiver)) == ([], [], {"probe": 3})


async def test_a_callback_about_another_stream_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The URL of a stream is good for its data_id alone, so not for callbacks with none."""
    taken = Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    for data_id in ("room8", "room", "ROOM7", "", None):
        assert await post(receiver, body(data_id=data_id), "room7") == 404
    assert await post(receiver, body(data_id=" room7 "), "room7") == 200
    await receiver.join()
    assert counted(receiver) == {"refused": 5, "taken": 1}
    assert caplog.messages == ["a callback came to the URL of another data_id"]


async def test_the_url_without_a_stream_is_good_for_all() -> None:
    """It takes callbacks with any data_id, and with none."""
    receiver = CallbackReceiver(SECRET)
    for data_id in ("room7", "room8", None):
        assert await post(receiver, body(data_id=data_id), None) == 200
    assert counted(receiver) == {"taken": 3}


async def test_what_names_no_job_is_taken() -> None:
    """An error that the service tells without naming a job is about no other stream."""
    taken = Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    path = path_for(receiver, "room7")
    data = json.dumps({"code": 1001, "message": "no"}).encode()
    assert receiver.take(path, {"X-Ci-Content-Version": "Simple"}, data) == 200
    await receiver.join()
    assert [(one.job_id, one.code) for one in taken] == [(None, "1001")]


async def test_what_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a good token it is 200, as to repeat it would not help; one warning a minute."""
    receiver = CallbackReceiver(SECRET)
    clock = 1e6
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for data in (b"", b"{}", b"null", b"<html>", b"{", b"[]", b"\xff", 100 * b"["):
        assert await post(receiver, data) == 200
    assert counted(receiver) == {"unreadable": 8}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("a callback cannot be read: ")
    clock += intake.QUIET
    await post(receiver, b"{}")
    assert len(caplog.messages) == 2


async def test_a_callback_that_finds_no_room_is_not_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is answered 503 and nobody hears of it; when it comes again there may be room."""
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    receiver.subscribe(heard.append)
    path = path_for(receiver)
    bodies = [body(f"av{number}") + (MOST // 4 - 200) * b" " for number in range(4)]
    assert [receiver.take(path, None, one) for one in bodies] == [200, 200, 200, 503]
    await receiver.join()
    assert receiver.take(path, None, bodies[3]) == 200
    await receiver.join()
    assert taken.ids == heard.ids == ["av0", "av1", "av2", "av3"]
    assert counted(receiver) == {"taken": 4, "busy": 1}
    assert caplog.messages == ["callbacks are sent away: on_callback is too slow"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and what comes again is young."""
    monkeypatch.setattr(intake, "REMEMBERED", 2)
    receiver = CallbackReceiver(SECRET)
    path = path_for(receiver)
    for number in (1, 2, 1, 3, 1, 2):
        assert receiver.take(path, None, body(f"av{number}")) == 200
    assert counted(receiver) == {"taken": 4, "duplicate": 2}


class Lower(dict[str, str]):
    """A mapping of a framework that is no `dict` to look into."""

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())


VERSION = "X-Ci-Content-Version"


@pytest.mark.parametrize(
    "headers",
    [
        {VERSION: "Simple"},
        {VERSION.upper(): "simple", "Host": "example.com"},
        Lower({VERSION.lower(): " Simple "}),
        CIMultiDict([("Accept", "a"), ("Accept", "b"), (VERSION, "Simple")]),
        Headers({VERSION: "Simple"}),
        {VERSION: "Simple", b"Accept": b"a", 7: None},
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_headers_are_any_mapping(headers: Any) -> None:
    """Whatever a framework has them in, the version of the callback is found."""
    receiver = CallbackReceiver(SECRET)
    data = json.dumps({"code": 1001, "message": "no"}).encode()
    receiver.take(path_for(receiver), headers, data)
    receiver.take(path_for(receiver), None, data)
    assert counted(receiver) == {"taken": 1, "unreadable": 1}


def test_many_threads_at_once() -> None:
    """Each callback is taken by one of them, however many come at once."""
    taken: list[Callback] = []
    receiver = CallbackReceiver(SECRET, on_callback=taken.append)
    path = path_for(receiver)
    bodies = [body(f"av{number}") for number in range(50)]
    gate = threading.Barrier(4)

    def take() -> None:
        gate.wait()
        assert {receiver.take(path, None, one) for one in bodies} == {200}

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert receiver.counts["taken"] == 50
    assert receiver.counts["duplicate"] == 150


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own() -> None:
    """A child takes callbacks even if its parent was in the middle of one."""
    receiver = CallbackReceiver(SECRET)
    path = path_for(receiver)
    receiver._intake.reading.add(object())
    with _held(receiver):
        child = os.fork()
        if not child:
            try:
                assert (receiver.take(path, None, body()), receiver._intake.reading) == (200, set())
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert receiver.counts["taken"] == 0
    assert len(receiver._intake.reading) == 1


def test_a_child_has_no_lock_and_no_listener_of_its_parent() -> None:
    """What a fork leaves is let go of, whoever held it; what was taken stays known."""
    taken: list[Callback] = []
    receiver = CallbackReceiver(SECRET, on_callback=taken.append)
    path = path_for(receiver)
    receiver.take(path, None, body())
    asyncio.run(receiver.join())
    with _held(receiver):
        intake._intakes.call()
        assert receiver.take(path, None, body()) == 200
    assert receiver.counts["duplicate"] == 1


@contextlib.contextmanager
def _held(receiver: CallbackReceiver) -> Iterator[None]:
    """Let another thread be in the middle of taking a callback."""
    lock = receiver._intake._lock
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()
