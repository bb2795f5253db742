"""Documents: nested dicts of any body that is one, and bounds that hostile ones run into early."""

from __future__ import annotations

from typing import Any

import pytest

from ci_live_audit.wire import documents


def opened(depth: int) -> bytes:
    return b"<a>" * depth + b"</a>" * depth


def test_xml_and_json_are_told_apart() -> None:
    """By the first byte that is no blank, a byte order mark or none."""
    assert documents.tree(b"\n <a><b>1</b></a>") == {"a": {"b": "1"}}
    assert documents.tree(b'\xef\xbb\xbf {"a": 1.5}') == {"a": 1.5}
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
        (b'{"a": 1e999}', "is no number"),
        (b'{"a": NaN}', "is no number"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper"),
        (b'{"a":' + b"[" * 100_000, "nested deeper"),
        (b'{"a": "\\"[", "b":' + b"[" * 64, "nested deeper"),
        (b'{"a":' * 64 + b"1" + b"}" * 63, "delimiter"),
        ('{"a": "\u5b57"}'.encode("utf-16-le"), "property name"),
        (b"<!DOCTYPE a><a/>", "document types|entities"),
        (b"<a></b>", "mismatched tag"),
        (b"", "no element found"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_what_is_refused(body: bytes, why: str) -> None:
    """With a reason, by one of the exceptions that stand for it."""
    with pytest.raises(documents.REFUSED, match=why):
        documents.tree(body)


def test_signs_in_texts_are_no_depth() -> None:
    """JSON may be broad, and its texts may hold whatever they like."""
    found = documents.tree(b'{"a": [' + b'{"b": "[[{\\"["}, ' * 100 + b'"["], "c": [[[]]]}')
    assert len(found["a"]) == 101


def test_a_long_text_is_no_long_token() -> None:
    """Bounds are for what a parser has to hold as a whole."""
    assert documents.tree(b"<a>" + b"x" * 10**6 + b"</a>") == {"a": "x" * 10**6}


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_slices_do_not_show(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a document is cut, what comes out is the same."""
    body = "<a><b>\u5b57\u5b57</b><b/><c d='1'>x<e/>y</c></a>".encode()
    whole = documents.tree(body)
    monkeypatch.setattr(documents, "SLICE", size)
    assert (
        documents.tree(body)
        == whole
        == {"a": {"b": ["\u5b57\u5b57", None], "c": {"e": None, "#text": "xy"}}}
    )


def test_elements_are_handed_out_as_they_close() -> None:
    """The children of the root, each with its path, with a pause after every slice."""
    taken: list[Any] = []
    pauses: list[int] = []

    def take(path: list[tuple[str, Any]], item: Any) -> bool:
        taken.append((path[-1][0], item))
        return True

    body = b"<a><b>1</b><c><d/></c>" + b"<e/>" * 5000 + b"</a>"
    documents.elements(body, 0, len(body), take, lambda: pauses.append(len(taken)))
    assert taken[:3] == [("b", "1"), ("c", {"d": None}), ("e", None)]
    assert len(taken) == 5002
    assert pauses[0] < pauses[-1] == 5002
    with pytest.raises(ValueError, match="nested deeper"):
        documents.elements(b"<a>" + opened(5000), 0, 30_000, take, None)
