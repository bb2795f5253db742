"""Documents: bodies become nested dicts, and hostile ones run into a bound early."""

from __future__ import annotations

from typing import Any

import pytest

from ci_live_audit.errors import DecodeError
from ci_live_audit.wire import documents


def test_xml_and_json_are_told_apart_by_the_first_character() -> None:
    """White space and a byte order mark may precede the first character of a document."""
    assert documents.read(b"\n <a><b>1</b></a>") == {"a": {"b": "1"}}
    assert documents.read(b'\xef\xbb\xbf {"a": 1.5}') == {"a": 1.5}
    assert documents.is_json(b" " * 100 + b"{")
    assert not documents.is_json(b"[1]")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<a>" * 5000, "nested deeper"),
        (b"<a>" + b"<b/>" * 8_000_000, "tags"),
        (b"<a b='" + b"x" * 200_000 + b"'/>", "a tag or a comment"),
        (b"<a><!--" + b"x" * 200_000 + b"--></a>", "a tag or a comment"),
        (b'{"a": "' + b"x" * 5_000_000 + b'"}', "JSON of more than"),
        (b'{"a": 1e999}', "is not a number"),
        (b'{"a": NaN}', "is not a number"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper"),
        (b'{"a":' + b"[" * 100_000, "nested deeper"),
        (b'{"a": "\\"[", "b":' + b"[" * 64, "nested deeper"),
        (b'{"a":' * 64 + b"1" + b"}" * 63, "delimiter"),
        ('{"a": "\u5b57"}'.encode("utf-16-le"), "property name"),
        (b"<!DOCTYPE a><a/>", "document types|entities"),
        (b"<a></b>", "mismatched tag"),
        (b"", "empty body"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_a_body_that_is_not_a_document_is_refused(body: bytes, why: str) -> None:
    """The error gives the reason and quotes the beginning of the body."""
    with pytest.raises(DecodeError, match=why) as caught:
        documents.read(body)
    assert caught.value.excerpt == documents.beginning(body)


def test_brackets_in_json_texts_do_not_count_as_depth() -> None:
    """JSON may be broad, and its texts may contain any brackets."""
    document = documents.read(b'{"a": [' + b'{"b": "[[{\\"["}, ' * 100 + b'"["], "c": [[[]]]}')
    assert len(document["a"]) == 101


def test_a_long_text_is_not_a_long_token() -> None:
    """The length of a text is not bounded."""
    assert documents.read(b"<a>" + b"x" * 10**6 + b"</a>") == {"a": "x" * 10**6}


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_slices_do_not_change_the_document(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is the same wherever it is cut."""
    monkeypatch.setattr(documents, "SLICE", size)
    assert documents.read("<a><b>\u5b57\u5b57</b><b/><c d='1'>x<e/>y</c></a>".encode()) == {
        "a": {"b": ["\u5b57\u5b57", None], "c": {"e": None, "#text": "xy"}}
    }


def test_the_open_elements_are_shown_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every open element has its children so far, and a child that is replaced stays replaced."""
    monkeypatch.setattr(documents, "SLICE", 8)
    shown: list[list[tuple[str, dict[str, Any]]]] = []

    def after_slice(opened: documents.Opened) -> None:
        shown.append([(name, dict(children)) for name, children in opened])
        for name, children in opened:
            if name == "b" and "c" in children:
                children["c"] = "new"

    body = b"<a><x/><b><c>1</c>     <d/></b></a>"
    document = documents.read(body, lambda: after_slice)
    assert document == {"a": {"x": None, "b": {"c": "new", "d": None, "#text": "     "}}}
    assert shown == [
        [("a", {"x": None})],
        [("a", {"x": None}), ("b", {}), ("c", {})],
        [("a", {"x": None}), ("b", {"c": "1"})],
        [("a", {"x": None, "b": {"c": "new", "d": None, "#text": "     "}})],
        [],
    ]
