"""Streams as values: what they are known by, what they show, and what a checkpoint says of them."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import InvalidInput, Stream, UserInfo
from ci_live_audit.following.streams import Records

URL = "rtmp://user:word@live.example.com/app/room7?txSecret=hidden#hidden"


def test_what_may_be_secret_is_not_shown() -> None:
    """Neither in the repr nor in the text, nor the token in the URL of a callback."""
    stream = Stream(URL, callback="https://example.com/hidden", extra={"a": "hidden"})
    for shown in (repr(stream), str(stream), f"{stream}"):
        assert "rtmp://live.example.com/app/room7" in shown
        assert "hidden" not in shown
        assert "word" not in shown
    assert str(Stream(URL, data_id="room 7")) == "room 7"
    assert repr(Stream(5)) == "Stream(url=<int>, data_id=None, biz_type=None)"  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    """It compares, hashes, is copied and pickled, and becomes plain values."""
    stream = Stream(URL, data_id="1", user_info=UserInfo(ip="10.0.0.1"), extra={"Conf": {}})
    for other in (copy.copy(stream), pickle.loads(pickle.dumps(stream))):
        assert other == stream
        assert hash(other) == hash(stream)
    assert json.loads(json.dumps(stream.to_dict())) == {"url": URL, "data_id": "1"}
    assert stream != Stream(URL, data_id="1")


def test_what_it_is_known_by() -> None:
    """URL, data id and policy; with a data id, not what signs the URL."""
    url = "http://live.example.com/play?room=1"
    keys = [
        Stream(one, data_id=data_id, biz_type=biz_type).key
        for one in (url, url + "&x", "http://live.example.com/other?room=1")
        for data_id in (None, "1", "2")
        for biz_type in (None, "b")
    ]
    assert len(set(keys)) == 18 - 4
    assert Stream(url, data_id="1").key == Stream(url + "&x", data_id="1").key
    assert Stream(url, callback="https://example.com").key == Stream(url).key
    assert Stream("\ud800").key
    assert "live" not in Stream(url).key


def test_its_own_options_come_first() -> None:
    """Those of the run are for what it leaves open."""
    stream = Stream(URL, biz_type="own")
    body = stream.request(biz_type="run", data_id="run").body
    assert b"<BizType>own</BizType>" in body
    assert b"<DataId>run</DataId>" in body
    with pytest.raises(InvalidInput, match="callback_type"):
        Stream(URL, callback_type=3).request()


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
NAMES = ["submitting", "url", "data_id", "stream", "taken", "answered", "released", "bucket"]


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), PLAIN)))
def test_any_entries_are_read(entries: list[dict[str, Any]]) -> None:
    """A file that somebody has changed is no reason to fail."""
    records = Records()
    for entry in entries:
        records.note(entry)
    for key, (stream, job_id) in records.open.items():
        assert isinstance(key, str)
        assert isinstance(stream.url, str)
        assert isinstance(job_id, str)
