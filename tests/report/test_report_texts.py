"""Texts of a page: nothing in them hides, turns, or is a link that it should not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import HOSTILE

from ci_live_audit.report import texts
from ci_live_audit.report.texts import Part


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("room 7\n\tline 2", "room 7\n\tline 2"),
        ("a\r\nb", "a\nb"),
        ("a\rb\x00", "a\u27e8U+000D\u27e9b\u27e8U+0000\u27e9"),
        ("abc\u202egnp.exe", "abc\u27e8U+202E\u27e9gnp.exe"),
        ("half\ud83d", "half\u27e8U+D83D\u27e9"),
        ("e" + "\u0301" * 1008 + "!", "e" + "\u0301" * 8 + "\u27e81,000 more marks\u27e9!"),
        ("\u2026" * 9 + "\u20dd", None),
        ("\ufffe\U000e0041", "\u27e8U+FFFE\u27e9\u27e8U+E0041\u27e9"),
        # A family, a word of Persian, Hebrew and Thai are as they were.
        ("\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e\u0648 \u05d0 \u0e01\u0e49", None),
    ],
)
def test_all_characters_can_be_seen(text: str, shown: str | None) -> None:
    """A character that hides, or turns what follows, is its number; others are themselves."""
    assert texts.visible(text) == (text if shown is None else shown)


@given(st.text(st.characters(codec=None)))
def test_any_text_is_utf_8(text: str) -> None:
    """What is shown can be encoded, and stays the same when it is shown again."""
    shown = texts.visible(text)
    shown.encode()
    assert texts.visible(shown) == shown


def test_a_long_text_says_how_long_it_was() -> None:
    """The rest is counted; a missing text is empty."""
    assert texts.clipped("x" * 5_200) == "x" * 200 + "\u2026 (5,000 more characters)"
    assert texts.clipped("x" * 200) == "x" * 200
    assert texts.clipped(None) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket-1.cos.ap-beijing.myqcloud.com/a/b.jpg?q-sign-time=1;2&x=%20",
        "http://127.0.0.1:8080/1.png",
        "HTTPS://example.com",
        "https://[::1]/x",
        "https://\u4f8b\u5b50.example/\u56fe.jpg",
    ],
)
def test_urls_of_the_web(url: str) -> None:
    """They stay as they are, signature included."""
    assert texts.web_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "rtmp://live.example.com/app/room7",
        "https:",
        "https:///x",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://[x]/",
        "http://exam\tple.com/",
        "https://example.com/a b",
        "https://example.com/" + "x" * 5_000,
        *(
            text
            for text in HOSTILE
            if not text.startswith(('https://example.com/"', "https://example.com/'"))
        ),
    ],
)
def test_other_urls_are_texts(url: str | None) -> None:
    """No other scheme, no character that a browser would drop, no host that is none."""
    assert texts.web_url(url) is None


@pytest.mark.parametrize(
    ("text", "keywords", "marked"),
    [
        ("Add WX8888 now", ["wx8888"], ["WX8888"]),
        ("\u52a0\u5fae\u4fe1\u9886\u53d6", ["\u5fae\u4fe1"], ["\u5fae\u4fe1"]),
        ("aXbaXb", ["ax", "xb"], ["aXbaXb"]),
        ("a.c abc", ["a.c"], ["a.c"]),
        ("nothing", ["x", ""], []),
        ("", ["x"], []),
    ],
)
def test_keywords_are_marked(text: str, keywords: list[str], marked: list[str]) -> None:
    """In any case, where they overlap as one, and never as a pattern."""
    parts = texts.marked(text, keywords)
    assert [part.text for part in parts if part.marked] == marked
    assert "".join(part.text for part in parts) == text


@given(st.text(), st.lists(st.text(max_size=3), max_size=5))
def test_marks_lose_nothing(text: str, keywords: list[str]) -> None:
    """The parts are the text, and no two of a kind are neighbours."""
    parts = texts.marked(text, keywords)
    assert "".join(part.text for part in parts) == text
    assert all(one.marked != other.marked for one, other in pairwise(parts))
    assert Part("", marked=False) not in parts


def test_times() -> None:
    """Times of day are in UTC, positions and durations in hours, minutes and seconds."""
    at = datetime(2026, 11, 28, 4, 31, 5, 120_000, timezone(timedelta(hours=8)))
    assert texts.iso(at) == "2026-11-27T20:31:05.120Z"
    assert (texts.clock(at), texts.day(at)) == ("20:31:05", "27 Nov 2026")
    assert texts.iso(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert [texts.offset(ms) for ms in (0, 3_723_999, -5_000)] == [
        "0:00:00",
        "1:02:03",
        "\u22120:00:05",
    ]
    spans = {0: "0 s", 119_999: "119 s", 120_000: "2 min", 3_723_999: "1 h 2 min"}
    assert {ms: texts.span(ms) for ms in spans} == spans


def test_extra_values_are_json() -> None:
    """Values that no class has are shown as JSON, clipped."""
    assert texts.values({"a": (1, "\u623f")}) == '{"a": [1, "\u623f"]}'
    assert len(texts.values({"a": "x" * 10_000})) < 2_100
