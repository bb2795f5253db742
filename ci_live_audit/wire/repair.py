"""A document that is not well-formed → UTF-8 with U+FFFD in place of what XML forbids.

Texts that viewers wrote hold control characters, halves of characters, and emoji as two surrogates;
some systems declare what they do not send. Only encodings and characters are repaired: a document
whose elements do not match stays as it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator
from typing import NamedTuple
from xml.parsers import expat

__all__ = ["Start", "is_worthwhile", "slices", "start", "text", "without_surrogates"]

# What may be wrong with characters and declarations, by the numbers of expat's errors.
CODES = {
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_INVALID_TOKEN,
        expat.errors.XML_ERROR_BAD_CHAR_REF,
        expat.errors.XML_ERROR_MISPLACED_XML_PI,
        expat.errors.XML_ERROR_UNKNOWN_ENCODING,
        expat.errors.XML_ERROR_INCORRECT_ENCODING,
        expat.errors.XML_ERROR_XML_DECL,
    )
}
# Ends of elements, in UTF-16 too; an honest response has one in 35 bytes.
ENDS = (b"</", b"/>", b"<\0/", b"/\0>")
BYTES_PER_ELEMENT = 20
ANY_ELEMENTS = 1000
# Bytes in which a declaration and the first tag are looked for.
MAX_HEAD = 1024
WIDE = {
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
# A byte order mark, also one read as Latin-1, and white space may precede the declaration.
DECLARATION = re.compile(
    r"(?:\xef\xbb\xbf|[\ufeff \t\r\n])*(?:<\?xml[ \t\r\n](?P<attributes>[^<>]*)\?>)?"
)
ENCODING = re.compile(r"encoding\s*=\s*[\"']?\s*([\w.:-]+)", re.ASCII)
# Comments and instructions may precede the root.
ROOT = re.compile(r"(?:\s*(?:<!--.*?-->|<\?.*?\?>))*\s*<([^\s<>!?/:]+):", re.DOTALL)
# Read as the largest of them, as browsers do: https://encoding.spec.whatwg.org/#gbk-decoder
CHINESE = {"gb2312", "gbk", "gb18030"}
# Other encodings in which markup is ASCII.
OTHERS = re.compile(r"big5|big5hkscs|cp125\d|iso8859-\d+|koi8-\w")
THREE_BYTES = re.compile("[\u0800-\uffff]")
# Bytes that are not UTF-8, as "surrogateescape" decodes them: those of a surrogate, those of a
# character that is cut, one of anything else.
UNDECODED = re.compile(
    "[\udc80-\udcff](?:(?<=\udced)([\udca0-\udcbf])([\udc80-\udcbf])"
    "|(?<=[\udce0-\udcef])[\udc80-\udcbf]|(?<=[\udcf0-\udcf4])[\udc80-\udcbf]{1,2})?"
)
# https://www.w3.org/TR/xml/#charsets
FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
# Longer ones are left for the parser to refuse.
REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,32})|([0-9]{1,32}));")
# Half a pair of surrogates and the beginning of a reference, at the end of a slice.
UNFINISHED = re.compile(
    r"(?=[&\ud800-\udbff])[\ud800-\udbff]?(?:&(?:#(?:x[0-9A-Fa-f]{0,32}|[0-9]{0,32}))?)?\Z"
)
MAX_UNFINISHED = 36


class Start(NamedTuple):
    """What a document begins with: its encoding, its declaration's end, its root's prefix."""

    encoding: str
    offset: int
    prefix: str | None


def is_worthwhile(body: bytes, problem: Exception | None = None) -> bool:
    """Return whether to read a document again after a problem, or because its root has a prefix.

    It then costs twice as much, so it must be one that is not dear to read.
    """
    elements = sum(map(body.count, ENDS))
    if elements > ANY_ELEMENTS and elements * BYTES_PER_ELEMENT > len(body):
        return False
    # Exceptions of other classes are about encodings that expat does not know. xmltodict's own have
    # no code.
    return not isinstance(problem, expat.ExpatError) or getattr(problem, "code", None) in CODES


def start(body: bytes) -> Start:
    """Return what a document begins with; raise `LookupError` for an encoding that is unknown."""
    wide = WIDE.get(body[:2])
    head = body[:MAX_HEAD].decode(wide or "latin-1", "replace")
    declaration = DECLARATION.match(head)
    assert declaration is not None  # it matches nothing, too
    offset = declaration.end()
    root = ROOT.match(head, offset)
    declared = ENCODING.search(declaration["attributes"] or "")
    return Start(
        wide or _encoding(declared[1] if declared else "utf-8", body),
        offset * 2 if wide else offset,
        root[1] if root else None,
    )


def _encoding(declared: str, body: bytes) -> str:
    name = codecs.lookup(declared).name
    # A declaration that could be read as ASCII is not in UTF-16:
    # https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding
    if name in {"ascii", "utf-8", "utf-16", "utf-16-le", "utf-16-be"}:
        return "utf-8"
    if name not in CHINESE and not OTHERS.fullmatch(name):
        raise LookupError(f"unknown encoding: {declared}")
    if _is_utf8(body):
        return "utf-8"
    return "gb18030" if name in CHINESE else name


def _is_utf8(body: bytes) -> bool:
    """Return whether a body is UTF-8 with characters of three bytes, as text in GBK never is."""
    pieces = _decoded(body, "utf-8", "strict")
    try:  # to the end
        return sum(THREE_BYTES.search(piece) is not None for piece in pieces) > 0
    except UnicodeDecodeError:
        return False


def slices(body: bytes, beginning: Start, size: int) -> Generator[bytes, None, None]:
    """Yield a document in UTF-8 without its declaration, repaired, by about ``size`` bytes."""
    encoding, offset, _ = beginning
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    held = ""
    for piece in _decoded(body, encoding, errors, offset, size):
        # Surrogates become halves, which `without_surrogates` joins.
        whole = REFERENCE.sub(_character, held + UNDECODED.sub(_undecoded, piece))
        unfinished = UNFINISHED.search(whole, max(len(whole) - MAX_UNFINISHED, 0))
        end = unfinished.start() if unfinished else len(whole)
        held = whole[end:]
        yield _permitted(whole[:end]).encode()
    yield _permitted(held).encode()


def text(body: bytes) -> str:
    """Return a body as text, with U+FFFD in place of what is not UTF-8."""
    return without_surrogates(UNDECODED.sub(_undecoded, body.decode("utf-8", "surrogateescape")))


def without_surrogates(whole: str) -> str:
    """Return a text with pairs of surrogates as the characters they mean, and U+FFFD for others."""
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _permitted(whole: str) -> str:
    return FORBIDDEN.sub("\ufffd", without_surrogates(whole))


def _character(reference: re.Match[str]) -> str:
    """Return a reference as it is if it is permitted, or a surrogate, or U+FFFD."""
    digits, base = (reference[1], 16) if reference[1] else (reference[2], 10)
    number = int(digits, base)
    if 0xD800 <= number <= 0xDFFF:
        return chr(number)
    is_character = number <= 0x10FFFF and not FORBIDDEN.match(chr(number))
    return reference[0] if is_character else "\ufffd"


def _decoded(
    body: bytes, encoding: str, errors: str, offset: int = 0, size: int = 2**16
) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    while offset < len(body):
        end = offset + size
        # What is no UTF-8 is decoded at once, so it must not be cut.
        while body[end : end + 1] and body[end] & 0xC0 == 0x80 and end < offset + size + 3:
            end += 1
        yield decoder.decode(body[offset:end])
        offset = end
    yield decoder.decode(b"", final=True)


def _undecoded(found: re.Match[str]) -> str:
    if found[1] is None:
        return "\ufffd"
    return chr(0xD000 | (ord(found[1]) & 0x3F) << 6 | ord(found[2]) & 0x3F)
