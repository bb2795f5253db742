"""`CallbackReceiver`: its arguments, its URLs, its trusted view."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posted import SECRET, Taken, body, detail, path_for, post

from ci_live_audit import CallbackReceiver, ConfigurationError, InvalidInput
from ci_live_audit import callbacks as face
from ci_live_audit.wire import requests

BASE = "https://example.com/hooks"


BAD: dict[str, list[Any]] = {
    "secret": ["", b"", [], None, 7, [SECRET, ""]],
    "max_body": [0, -1, 1.5, True, "1", None],
    "at_once": [0, -1, 1.5, None],
    "timeout": [0, -1, float("nan"), float("inf"), "1", None],
    "on_callback": [7, "print", []],
}


@pytest.mark.parametrize(("name", "value"), [(name, bad) for name in BAD for bad in BAD[name]])
def test_bad_arguments_are_refused_by_name(name: str, value: Any) -> None:
    """The error names the argument."""
    arguments: dict[str, Any] = {"secret": SECRET, name: value}
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        CallbackReceiver(**arguments)


def test_a_url_is_the_same_in_every_process() -> None:
    """It depends on the secret and the stream alone."""
    url = CallbackReceiver(SECRET).url(BASE, "room7")
    assert CallbackReceiver([SECRET.encode(), "another secret of mine"]).url(BASE, "room7") == url
    assert CallbackReceiver(SECRET).url(BASE + "//", "room7") == url
    assert url.startswith(BASE + "/")
    requests.submit("rtmp://live.example.com/app/room7", callback=url, data_id="room7")


@pytest.mark.parametrize(
    "base",
    ["http://example.com", "https://example.com:8443/a/b/", "http://[::1]:80", "http://a/\u623f"],
)
def test_a_base_is_any_url(base: str) -> None:
    """The token comes after a slash."""
    receiver = CallbackReceiver(SECRET)
    url = receiver.url(base, "room7")
    assert url.startswith(base.rstrip("/") + "/")
    assert receiver.take(urlsplit(url).path, None, body()) == 200


@pytest.mark.parametrize(
    "base",
    [
        *("", "example.com", "/hooks", "ftp://example.com", "https://", "https://example.com/a b"),
        *("https://example.com?", "https://example.com/?a=b", "https://example.com/#a"),
        *("https://a:0", "https://[", "https://example.com/\x00", "https://example.com/\ud800"),
        *(7, None, b"https://a"),
    ],
)
def test_a_bad_base_is_refused(base: Any) -> None:
    """What no service could call is told at once."""
    with pytest.raises(InvalidInput, match=r"^(base|callback): "):
        CallbackReceiver(SECRET).url(base, "room7")


@pytest.mark.parametrize("data_id", ["", 513 * "x", 171 * "\u623f", "\ud800", "a\0", 7, b"a"])
def test_a_bad_data_id_is_refused(data_id: Any) -> None:
    """What cannot be submitted has no URL."""
    with pytest.raises(InvalidInput, match=r"^data_id: "):
        CallbackReceiver(SECRET).url(BASE, data_id)


def is_sent(data_id: str) -> bool:
    """Whether a text can be submitted as a data_id."""
    try:
        requests.submit("rtmp://live.example.com/app/room7", data_id=data_id)
    except InvalidInput:
        return False
    return True


@given(st.text(min_size=1, max_size=512).filter(is_sent), st.booleans())
def test_any_stream_has_its_url(data_id: str, is_ascii: bool) -> None:
    """Whatever data_id is submitted, its callbacks are taken, in both forms."""
    receiver = CallbackReceiver(SECRET)
    path = path_for(receiver, data_id)
    simple = {"code": 0, "message": "success", "data": {"trace_id": "av1", "data_id": data_id}}
    details = {"JobsDetail": {"JobId": "av1", "State": "Auditing", "DataId": data_id}}
    for document in (simple, details):
        data = json.dumps(document, ensure_ascii=is_ascii).encode()
        assert receiver.take(path, None, data) == 200
    assert receiver.counts["taken"] == 2


def test_a_wrong_token_is_404() -> None:
    """Whatever the body is, it is not looked at."""
    receiver = CallbackReceiver(SECRET)
    for data in (body(), b"", b"{", (1 << 23) * b"x"):
        assert receiver.take("/hooks/" + 64 * "0", None, data) == 404
    assert receiver.counts["refused"] == 4


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_is_any_bytes(kind: Any) -> None:
    """Frameworks have bodies of several types."""
    receiver = CallbackReceiver(SECRET)
    assert receiver.take(path_for(receiver), None, kind(body())) == 200
    assert receiver.counts["taken"] == 1


def test_what_is_no_request_is_a_mistake() -> None:
    """A path that is no text, and a body that is no bytes, are told to the programmer."""
    receiver: Any = CallbackReceiver(SECRET)
    for path, data, name in (
        (path_for(receiver), body().decode(), "body"),
        (path_for(receiver), None, "body"),
        (path_for(receiver), 7, "body"),
        (b"/hooks", body(), "path"),
        (None, body(), "path"),
    ):
        with pytest.raises(InvalidInput, match=f"^{name}: expected"):
            receiver.take(path, None, data)


def test_a_secret_that_could_be_guessed_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """It is used all the same, and not shown."""
    CallbackReceiver(SECRET)
    assert not caplog.records
    receiver = CallbackReceiver("hunter2")
    assert receiver.take(path_for(receiver), None, body()) == 200
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "hunter2" not in caplog.text


async def test_a_trusted_view_is_the_same_receiver() -> None:
    """It tells that callbacks are believed; whatever comes to one of them comes to both."""
    taken, heard = Taken(), Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)
    view = receiver.trusted()
    assert (receiver.is_trusted, view.is_trusted, view.trusted().is_trusted) == (False, True, True)
    assert view.url(BASE, "room7") == receiver.url(BASE, "room7")
    end = view.subscribe(heard.append)
    assert await post(receiver, body("av1")) == 200
    assert await post(view, body("av2")) == 200
    assert await post(view, body("av1")) == 200
    await view.join()
    assert taken.ids == heard.ids == ["av1", "av2"]
    assert receiver.counts == view.counts
    end()
    await post(receiver, body("av3"))
    await receiver.join()
    assert heard.ids == ["av1", "av2"]


async def test_it_waits_for_no_consumer() -> None:
    """Without one there is nothing to wait for."""
    receiver = CallbackReceiver(SECRET)
    await post(receiver, body())
    await receiver.join()


def test_two_loops_share_a_receiver() -> None:
    """What one loop has taken is a duplicate on the other; each may be closed."""
    taken = Taken()
    receiver = CallbackReceiver(SECRET, on_callback=taken.add)

    async def serve(job_id: str) -> None:
        heard = Taken()
        receiver.subscribe(heard.append)
        assert await post(receiver, body("av0")) == 200
        assert await post(receiver, body(job_id)) == 200
        assert await post(receiver, detail(job_id, 1000)) == 200
        await receiver.join()
        assert heard.ids[-1] == job_id

    for job_id in ("av1", "av2"):
        asyncio.run(serve(job_id))
    assert taken.ids == ["av0", "av1", "av1", "av2", "av2"]


def test_it_is_not_pickled_or_copied() -> None:
    """A pickle would hold the secret."""
    receiver = CallbackReceiver(SECRET)
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="with the same secret"):
            work(receiver)


def test_its_names_are_public() -> None:
    """It is where a user looks for it."""
    assert face.CallbackReceiver is CallbackReceiver
    assert set(face.__all__) == {"Callback", "CallbackReceiver", "decode"}
