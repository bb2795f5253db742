"""Repair: characters and encodings that XML forbids cost themselves, not the document."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
from typing import Any

import pytest

from ci_live_audit import decode
from ci_live_audit.errors import DecodeError
from ci_live_audit.wire import documents, repair

FACE = "\U0001f600"


def labelled(text: bytes, front: str = "") -> bytes:
    details = b"<JobId>j</JobId><State>Auditing</State><Label>%b</Label>" % text
    return front.encode() + b"<Response><JobsDetail>%b</JobsDetail></Response>" % details


def declared(encoding: str, text: str, *, sent_in: str) -> bytes:
    """Return a response that declares an encoding, in another or the same."""
    front = f'<?xml version="1.0" encoding="{encoding}"?>'
    return labelled(text.encode(), front).decode().encode(sent_in)


CHARACTERS = [
    (b"a\x1fb", "a\ufffdb"),
    (b"\0\x01\x08\x0b\x0c\x0e", "\ufffd" * 6),
    (b"\x1f\t\x7f\xc2\x85b", "\ufffd\t\x7f\x85b"),
    (b"\xef\xbf\xbe\xef\xbf\xbf\xef\xbf\xbd", "\ufffd\ufffd\ufffd"),
    (b"a&#x1f;b", "a\ufffdb"),
    (b"&#0;&#x0;&#31;&#xFFFE;&#65535;&#x110000;&#99999999;", "\ufffd" * 7),
    (b"&#0;&#65;&#x0041;&#9;&lt;&amp;#0;", "\ufffdAA\t<&#0;"),
    (b"&#xD83D;&#xDE00;", FACE),
    (b"&#55357;&#xde00;", FACE),
    (b"\xed\xa0\xbd\xed\xb8\x80", FACE),
    (b"\xed\xa0\xbd&#xDE00;", FACE),
    (b"&#xD83D;&#xD83D;&#xDE00;&#xDE00;", f"\ufffd{FACE}\ufffd"),
    (b"&#xDE00;&#xD83D;", "\ufffd\ufffd"),
    (b"a&#xD83D; &#xDE00;b", "a\ufffd \ufffdb"),
    (b"\xed\xa0\xbda\xed\xb8\x80", "\ufffda\ufffd"),
    (b"\xed\xa0\xbd\xed\xb8", "\ufffd\ufffd"),
    (b"a\xe9\xbbb", "a\ufffdb"),
    (b"\xf0\x9f\x98\xe9\xbb\x91\xe9", "\ufffd\u9ed1\ufffd"),
    (b"\x80\xbf\xfe\xff\xc0\x80", "\ufffd" * 6),
    (FACE.encode() + b"\0", FACE + "\ufffd"),
    (b"<![CDATA[\0<\xe9]]>", "\ufffd<\ufffd"),
    ("\u9ed1".encode("gbk"), "\ufffd\ufffd"),
]


@pytest.mark.parametrize(("sent", "text"), CHARACTERS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8192])
def test_what_xml_forbids_is_replaced(
    sent: bytes, text: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two surrogates become their character and all else U+FFFD, wherever the slices are cut."""
    monkeypatch.setattr(documents, "SLICE", size)
    assert decode.job(labelled(sent)).label == text


def test_only_what_is_not_well_formed_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy document is read once, as it is, whatever looks like a reference in it."""
    monkeypatch.setattr(repair, "start", None)
    text = b"<![CDATA[&#0;&#xD83D;]]>&#65; \xef\xbf\xbd"
    assert decode.job(labelled(text)).label == "&#0;&#xD83D;A \ufffd"


@pytest.mark.parametrize(
    "body",
    [
        labelled(b"a & b \0"),
        labelled(b"\0 ]]>"),
        labelled(b"\0<b>"),
        labelled(b"\0&nbsp;"),
        labelled(b"<\0/>"),
        labelled(b"<a\0b/>"),
        labelled(b"\0") + b"x",
        labelled(b"\0") * 2,
        labelled(b"&#0") + b";",
        labelled(b"&#" + b"9" * 50 + b";"),
        labelled(b"\0")[:-1],
        labelled(b"\0")[:-20],
        labelled(b"\xe9\xbb\x91")[:-35],
        b"\0",
        b"\0" + labelled(b"a"),
        b"\xe9",
        b"\xef\xbb\xbf",
        b'<?xml version="1.0" encoding="gbk"?>',
        b"<!DOCTYPE r>" + labelled(b"\0"),
        b'<!DOCTYPE r [<!ENTITY e "\0">]>' + labelled(b"&e;"),
        labelled(b"\0" + b"<a>" * 65 + b"</a>" * 65),
        labelled(b"\0<!--" + b"x" * 200_000 + b"-->"),
    ],
)
def test_what_is_otherwise_malformed_stays_refused(body: bytes) -> None:
    """Elements, entities, truncated ends and bounds are as in other documents."""
    with pytest.raises(DecodeError):
        decode.job(body)


def test_a_dear_document_is_not_read_twice() -> None:
    """A document of little but elements would cost twice as much as it does already."""
    with pytest.raises(DecodeError, match="invalid character number"):
        decode.job(labelled(b"&#0;" + b"<a/>" * 2000))
    job = decode.job(labelled(b"&#0;") + b"\n" * 10)
    assert job.label == "\ufffd"
    with pytest.raises(DecodeError, match="expected a Response"):
        decode.job(b"<a:Response>" + b"<a/>" * 2000 + b"</a:Response>")


def test_a_repaired_body_takes_no_more_memory() -> None:
    """A large body is repaired slice by slice."""
    snapshot = b"<Snapshot><Url>http://%b</Url><Text>%b</Text></Snapshot>"
    snapshot %= b"x" * 200, "\ufffd".encode()
    whole = labelled(b"a</Label>" + snapshot * 8000 + b"<Label>b")
    damaged = whole.replace("\ufffd".encode(), b"\0")
    decode.job(damaged)
    peaks = []
    for body in (whole, damaged):
        gc.collect()
        tracemalloc.start()
        try:
            assert len(decode.job(body).snapshots) == 8000
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("encoding", ["gbk", "GB2312", "GB18030", "cp936", "936"])
@pytest.mark.parametrize("size", [1, 8192])
def test_chinese_encodings_are_read(
    encoding: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is declared as one of them may have the characters of all, but for those it lacks."""
    monkeypatch.setattr(documents, "SLICE", size)
    body = declared(encoding, f"\u9ed1\u4ea7\u570b\u3402{FACE}", sent_in="gb18030")
    assert decode.job(body).label == f"\u9ed1\u4ea7\u570b\u3402{FACE}"


@pytest.mark.parametrize(
    ("encoding", "sent_in", "text"),
    [
        ("utf8", "utf-8", "\u9ed1\xe9"),
        ("UTF8", "utf-8", "\u9ed1\xe9"),
        ("utf_8", "utf-8", "\u9ed1\xe9"),
        ("u8", "utf-8", "\u9ed1\xe9"),
        ("utf8", "utf-8", "ascii"),
        ("", "utf-8", "\u9ed1\xe9"),
        (" UTF-8 ", "utf-8", "\u9ed1\xe9"),
        ("us-ascii", "utf-8", "\u9ed1\xe9"),
        ("utf-16", "utf-8", "\u9ed1\xe9"),
        ("utf-8", "utf-16", "\u9ed1\xe9"),
        ("gbk", "utf-16", "\u9ed1\xe9"),
        ("utf-16", "utf-16", "\u9ed1\0"),
        ("utf-16", "utf-16-le", "\u9ed1\0"),
        ("utf-16", "utf-16-be", "\u9ed1\0"),
        ("utf-8", "utf-8-sig", "\u9ed1\0"),
        ("big5", "big5", "\u9ed1\u570b"),
        ("latin1", "latin-1", "\xe9\0"),
        ("windows-1252", "cp1252", "\u20ac\0"),
    ],
)
def test_encodings_are_what_the_body_is_in(encoding: str, sent_in: str, text: str) -> None:
    """Every spelling of an encoding is known, and one that cannot be is UTF-8."""
    body = declared(encoding, text, sent_in=sent_in)
    assert decode.job(body).label == text.replace("\0", "\ufffd")


@pytest.mark.parametrize("text", ["\u9ed1\u4ea7", "\u9ed1", f"\xe9\u9ed1{FACE}"])
def test_what_is_declared_as_gbk_but_is_utf_8_is_read_as_utf_8(text: str) -> None:
    """Text in GBK is never UTF-8 with characters of three bytes throughout."""
    assert decode.job(declared("gbk", text, sent_in="utf-8")).label == text


@pytest.mark.parametrize("text", ["\u8305", "\u8305\u9ed1", "\u9ed1"])
def test_text_in_gbk_that_could_be_utf_8_stays_gbk(text: str) -> None:
    """One Chinese character has two bytes in GBK, and they may be one Latin letter in UTF-8."""
    assert decode.job(declared("gbk", text, sent_in="gbk")).label == text


def test_a_character_cut_in_half_in_gbk_costs_itself() -> None:
    """The brackets behind it are kept."""
    body = declared("gbk", "a\u9ed1", sent_in="gbk").replace("\u9ed1".encode("gbk"), b"\xba")
    assert decode.job(body).label == "a\ufffd"


@pytest.mark.parametrize(
    "encoding",
    ["x-none", "utf-7", "utf-32", "hex", "idna", "punycode", "undefined", "unicode_escape", "hz"],
)
def test_other_encodings_are_refused(encoding: str) -> None:
    """They are unknown, or not what documents are in; none of them warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DecodeError, match=f"unknown encoding: {encoding}"):
            decode.job(declared(encoding, "\u9ed1", sent_in="utf-8"))


DECLARATION = '<?xml version="1.0"?>'


@pytest.mark.parametrize(
    "front",
    [
        f"\n{DECLARATION}",
        f" \t\r\n{DECLARATION}\n",
        f"\ufeff\n{DECLARATION}",
        f"\n\ufeff{DECLARATION}",
        "\ufeff\ufeff",
        '<?xml version="1.0" standalone="true"?>',
        "<?xml version=1.0 encoding=utf-8?>",
        "<?xml encoding='utf-8'?>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_precedes_the_root_changes_nothing(front: str, encoding: str) -> None:
    """White space, marks and declarations that are not well-formed are left out."""
    body = labelled(b"\xe9\xbb\x91", front).decode().encode(encoding)
    assert decode.job(body).label == "\u9ed1"


@pytest.mark.parametrize("text", ["a", "a\0"])
@pytest.mark.parametrize("front", ["", "\n" + DECLARATION, "<!-- <a:b> --><?p?>\n"])
def test_the_prefix_of_the_root_is_left_out(front: str, text: str) -> None:
    """Names with the prefix of the root's are as without; other prefixes are kept."""
    inside = f"<P:JobId>j</P:JobId><State>x</State><P:Label>{text}</P:Label><b:C>1</b:C>"
    details = f"<P:JobsDetail>{inside}</P:JobsDetail>"
    body = f'{front}<P:Response xmlns:P="urn:x" xmlns:b="urn:b">{details}</P:Response>'
    job = decode.job(body.encode())
    assert (job.job_id, job.label) == ("j", text.replace("\0", "\ufffd"))
    assert job.extra == {"b:C": "1"}


def test_a_default_namespace_changes_nothing() -> None:
    """A namespace without a prefix is an attribute like any other."""
    body = labelled(b"a").replace(b"<Response", b"<Response xmlns='urn:x'")
    assert decode.job(body).label == "a"


@pytest.mark.parametrize("damage", [b"\0", b"&#0;", b"\xe9", b"&#xD83D;&#xDE00;"])
def test_a_large_body_forgets_the_reading_before(damage: bytes) -> None:
    """Snapshots are read once, and what cannot be read in them is noted once."""
    snapshot = b"<Snapshot><SnapshotTime>odd</SnapshotTime><Text>a</Text></Snapshot>"
    whole = labelled(b"a</Label>" + snapshot * 2000 + b"<Label>b")
    damaged = whole.replace(b"b</Label>", damage + b"</Label>")
    assert len(whole) > documents.LARGE_BODY
    found, expected = decode.job(damaged), decode.job(whole)
    assert found.snapshots == expected.snapshots
    assert len(found.snapshots) == 2000
    assert found.unreadable == expected.unreadable


# JSON

TEXTS: list[tuple[bytes, Any]] = [
    (rb'"\ud83d"', "\ufffd"),
    (rb'"\ud83d\ude00"', FACE),
    (rb'"\uDE00\uD83D"', "\ufffd\ufffd"),
    (rb'"a\ud83d\u0041"', "a\ufffdA"),
    (rb'"\\ud83d"', "\\ud83d"),
    (rb'"\\\ud83d"', "\\\ufffd"),
    (b'"\xed\xa0\xbd\xed\xb8\x80"', FACE),
    (b'"\xed\xa0\xbd"', "\ufffd"),
    (b'"a\xe9\xbbb"', "a\ufffdb"),
    (b'"\x01"', "\x01"),
    (rb'"\u0001"', "\x01"),
    (rb'{"\ud83d": "\ud83d", "a": [1, 0.1, -0.0, true, null]}', {"\ufffd": "\ufffd"}),
]


@pytest.mark.parametrize(("sent", "text"), TEXTS)
def test_texts_of_json_have_no_lone_surrogates(sent: bytes, text: Any) -> None:
    """Two surrogates become their character, and others U+FFFD, also in names."""
    found = documents.read(b'\xef\xbb\xbf{"a": %b}' % sent)["a"]
    if isinstance(text, dict):
        assert found.pop("a") == [1, 0.1, -0.0, True, None]
    assert found == text
