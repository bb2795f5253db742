"""Job ids or URLs in bytes: one a line, or JSON Lines; blank lines and ``#`` comments."""

from __future__ import annotations

import codecs
import io
import json
import re
from typing import Any, cast

import attrs

from ci_live_audit.errors import ConfigurationError

__all__ = ["IDS", "URLS", "Kind", "Lines", "Piece"]


@attrs.frozen(kw_only=True)
class Kind:
    """What lines hold.

    Attributes:
        name: What several of them are called.
        expected: What a file of them looks like.
        field: Which field of JSON Lines they are.
        others: What is no such file, and how its first line begins.
    """

    name: str
    expected: str
    field: str
    others: dict[str, str]


NO_LINES = {
    "a JSON array": r"\[",
    "XML or HTML": r"<",
    "no text": r"\ufffd|.*[\x00-\x08\x0e-\x1f]",
}
QUOTED = {"quoted text, as in CSV": r"[\"']"}
IDS = Kind(
    name="job ids",
    expected="expected one job id a line, or JSON Lines with a job_id",
    field="job_id",
    others={
        **NO_LINES,
        "URLs of streams, which submit and moderate take": r"\w+://",
        "a table (CSV)": r"(?i).*[,;\s]|(job)?[_-]?id$",
        **QUOTED,
    },
)
URLS = Kind(
    name="URLs",
    expected="expected one URL a line, or JSON Lines with a url",
    field="url",
    others={**NO_LINES, **QUOTED, "a table (CSV)": r".*\s|.*[,;]\w*://", "no URL": r"(?!.*://)"},
)


@attrs.define
class Piece:
    """The ids of some lines, and the first error among them."""

    ids: list[str] = attrs.field(factory=list[str])
    error: Exception | None = None


class Lines:
    """Reads ids from bytes in UTF-8, UTF-16 or UTF-32, whichever the first of them show.

    Args:
        place: What error messages call the source of the bytes.
        kind: What the lines hold.
    """

    def __init__(self, place: str, kind: Kind = IDS) -> None:
        self._place = place
        self._kind = kind
        self._begin = b""
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._rest: list[str] = []
        self._number = 0
        #: Whether the first line has shown that these are ids; None before it.
        self._are_ids: bool | None = None
        self._piece = Piece()

    def feed(self, data: bytes, *, final: bool = False) -> None:
        """Read more bytes, the last ones if ``final``."""
        if self._decoder is None:
            data = self._begin = self._begin + data
            if len(data) < 4 and b"\n" not in data and not final:
                return
            encoding = json.detect_encoding(data)  # by its mark, or where the first bytes are zero
            decoder = codecs.getincrementaldecoder(encoding)("replace")
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        first, *others = self._decoder.decode(data, final).split("\n")
        self._rest.append(first)
        for other in [*others, ""] if final else others:
            self._read("".join(self._rest))
            self._rest = [other]

    @property
    def ended(self) -> bool:
        """Whether the last line that was begun has ended."""
        if self._decoder is None:
            return not self._begin
        return not any(self._rest) and not self._decoder.getstate()[0]

    def take(self) -> Piece:
        """Return what was found since this was called before."""
        piece, self._piece = self._piece, Piece()
        return piece

    def _read(self, line: str) -> None:
        self._number += 1
        text = line.removeprefix("\ufeff").strip()  # a mark begins each of several files in one
        if self._are_ids is False or not text or text.startswith("#"):
            return
        try:
            if self._are_ids is None:
                self._are_ids = False
                _check_first(text, self._kind)
                self._are_ids = True
            self._piece.ids.append(_from_json(text, self._kind) if text.startswith("{") else text)
        except ConfigurationError as problem:
            told = ConfigurationError(f"{self._place}, line {self._number}: {problem}")
            self._piece.error = self._piece.error or told


def _check_first(text: str, kind: Kind) -> None:
    """Raise if the first line shows that none is what it should be, before each is an error."""
    for name, beginning in kind.others.items():
        if not text.startswith("{") and re.match(beginning, text):
            raise ConfigurationError(f"this looks like {name}; {kind.expected}")


def _from_json(text: str, kind: Kind) -> str:
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        record = {}
    value = cast("dict[str, Any]", record).get(kind.field)
    if not isinstance(value, str):
        raise ConfigurationError(f"JSON without a {kind.field}")
    return value
