"""A node of a document → the frozen value that the annotations of its class describe.

A plan for each result class is made once. The XML answers and the JSON callbacks share their names,
so they share the plans; what differs (numbers as texts, one element in place of a list) is read
leniently, and what cannot be read says where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import attrs

from ci_live_audit.errors import DecodeError
from ci_live_audit.models import ReadOnly, Scene, tags

__all__ = ["Document", "Unreadable", "Value", "as_text", "excerpt", "values"]

#: What xmltodict and json give for a node.
Value: TypeAlias = dict[str, Any] | list[Any] | str | int | float | None

# What the documents name ends at a depth of 7; the rest of an answer may not exhaust the stack.
MAX_DEPTH = 64
MAX_EXCERPT = 120
MAX_SHARED = 4096
INT64 = 2**63
TEXT = "#text"  # xmltodict's name for the text of an element that has children too

# Scenes that a document or an SDK of the service names. The set is open: any other container
# ``<Name>Info`` is a scene as well if it can be read as one.
SCENES = frozenset(
    {
        *("PornInfo", "AdsInfo", "TerrorismInfo", "TerroristInfo", "PoliticsInfo", "TeenagerInfo"),
        *("IllegalInfo", "AbuseInfo", "MeaninglessInfo", "QualityInfo", "ValueInfo"),
    }
)


class Unreadable(Exception):
    """A value that cannot be read; the path to it grows on the way out."""

    def __init__(self, reason: str, value: Value = None) -> None:
        super().__init__(reason)
        # A tree is not shown: it may be too deep for str().
        self.excerpt: str = excerpt(str(value)) if isinstance(value, str | int | float) else ""
        self.path: str = ""

    def within(self, name: str) -> Unreadable:
        """Put the name of what is around in front of the path."""
        self.path = f"{name}.{self.path}" if self.path[:1] not in {"", "["} else name + self.path
        return self

    def error(self) -> DecodeError:
        """The error with the path as it is now."""
        return DecodeError(self.args[0], path=self.path, excerpt=self.excerpt)


def excerpt(text: str) -> str:
    """So much of a text as fits into a message."""
    return text[:MAX_EXCERPT]


# Plans


@attrs.define
class Document:
    """What holds for all the nodes of one document.

    Attributes:
        expires_at: When the URLs in it stop working.
        scenes: Scenes by what they are made of. Most of a night's snapshots look alike, and equal
            scenes are one object. None where equal values may differ (in JSON 1 equals true).
    """

    expires_at: datetime | None = None
    scenes: dict[tuple[Any, ...], Scene] | None = None


Reader = Callable[[Any, Document], Any]


class _Field(NamedTuple):
    attribute: str
    read: Reader
    item: str | None
    #: What a text means, where that is plain; None where ``read`` must look at it.
    quick: Callable[[str], Any]


class _Plan(NamedTuple):
    fields: dict[str, _Field]
    has_scenes: bool
    has_url: bool


@cache
def _plan(cls: Any) -> _Plan:
    hints = get_type_hints(cls)
    fields: dict[str, _Field] = {}
    for name, tag in tags(cls).items():
        read = _reader(hints[name])
        quick = _not_quick if tag.also else _quick(read)
        field = _Field(name, read, tag.item, quick)
        fields |= {spelling: field for spelling in (tag.name, tag.also) if spelling}
    return _Plan(fields, "scenes" in hints, "url_expires_at" in hints)


def _reader(hint: Any) -> Reader:
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return _keywords if kind is str else partial(_objects, kind)
    if get_origin(hint) is Mapping:
        return _mapping
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    if kind in SCALARS:
        return SCALARS[kind]
    return partial(_member if issubclass(kind, Enum) else _object, kind)


def values(cls: Any, node: dict[str, Any], document: Document) -> dict[str, Any]:
    """The arguments for ``cls`` out of its node.

    An empty element is the service's null. A node that the class does not know is kept in
    ``extra``.

    Args:
        cls: A class of results.
        node: Its node.
        document: What the node is part of.

    Raises:
        Unreadable: A value is not what its attribute can hold.
    """
    fields, has_scenes, has_url = _plan(cls)
    known: dict[str, Any] = {}
    scenes: dict[str, Scene] = {}
    extra: dict[str, Any] = {}
    for tag, sent in node.items():
        field = fields.get(tag)
        try:
            if field is not None:
                rest = _fill(known, field, sent, document)
                if rest is not None:
                    extra[tag] = _freeze(rest)
            elif has_scenes and _is_scene(tag, sent):
                scene = _scene(tag, sent, document)
                if scene is not None:
                    scenes[tag.removesuffix("Info")] = scene
                elif not _is_empty(sent):
                    extra[tag] = _freeze(sent)
            elif tag != TEXT or not _is_blank(sent):  # not the white space between elements
                extra[tag] = _freeze(sent)
        except Unreadable as problem:
            raise problem.within(tag) from None
    if scenes:
        known["scenes"] = ReadOnly(scenes)
    if extra:
        known["extra"] = ReadOnly(extra)
    if has_url and document.expires_at is not None:
        known["url_expires_at"] = document.expires_at
    return known


def _fill(known: dict[str, Any], field: _Field, sent: Value, document: Document) -> Value:
    """Read a value into its attribute; what has no place there comes back."""
    if isinstance(sent, str) and (quick := field.quick(sent)) is not None:
        known[field.attribute] = quick
        return None
    if sent is None or _is_blank(sent):
        return None
    if field.attribute in known:  # the same under another spelling
        return sent
    if field.item is not None and isinstance(sent, dict):
        rest = {name: one for name, one in sent.items() if name != TEXT or not _is_blank(one)}
        try:
            known[field.attribute] = field.read(rest.pop(field.item, None), document)
        except Unreadable as problem:
            raise problem.within(field.item) from None
        return rest or None
    known[field.attribute] = field.read(sent, document)
    if field.read is _keywords and isinstance(sent, str) and "," in sent:
        known["keywords_raw"] = sent
    return None


def _is_scene(tag: str, value: Value) -> bool:
    return tag in SCENES or (tag.endswith("Info") and tag != "Info" and isinstance(value, dict))


def _scene(tag: str, value: Value, document: Document) -> Scene | None:
    shared, key = document.scenes, None
    if shared is not None and isinstance(value, dict):
        key = (*value, *value.values())
        try:
            if key in shared:
                return shared[key]
        except TypeError:  # it holds more than texts
            key = None
    try:
        scene = None if _is_empty(value) else _object(Scene, value, document)
    except Unreadable:
        if tag in SCENES:
            raise
        return None
    if shared is not None and key and scene is not None and len(shared) < MAX_SHARED:
        shared[key] = scene
    return scene


# Readers


def _object(cls: type[Any], value: Value, document: Document) -> Any:
    if isinstance(value, dict):
        return cls(**values(cls, value, document)) if value else None
    raise Unreadable(_expected("an element with children", value), value)


def _objects(cls: type[Any], value: Value, document: Document) -> tuple[Any, ...]:
    """Repeated elements: none, one or several; a tuple has been read before."""
    if isinstance(value, tuple):
        return value
    found: list[Any] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        if _is_empty(item):
            continue
        try:
            found.append(_object(cls, item, document))
        except Unreadable as problem:
            raise problem.within(f"[{index}]") from None
    return tuple(found)


def _keywords(value: Value, _: Document | None = None) -> tuple[str, ...]:
    """Repeated elements, or one text that joins them with commas: no document says which."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    words = [as_text(word) for word in (value if isinstance(value, list) else [value])]
    return tuple(word for word in words if word and not _is_blank(word))


def _member(cls: type[Enum], value: Value, _: Document | None = None) -> Any:
    return cls(_integer(value) if issubclass(cls, int) else str(as_text(value)).strip())


def _mapping(value: Value, _: Document | None = None) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return _freeze(value)  # type: ignore[no-any-return]
    raise Unreadable(_expected("an element with children", value), value)


def as_text(value: Value, _: Document | None = None) -> str | None:
    """A text or a number as text; None if there is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return None
    raise Unreadable(_expected("a text", value), value)


def _integer(value: Value, _: Document | None = None) -> int:
    number: int | None = None
    if isinstance(value, str):
        try:  # int() itself would take 1_000 and the digits of any script
            number = int(value) if value.isascii() and "_" not in value else None
        except ValueError:  # no number, or one of thousands of digits
            number = None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise Unreadable(_expected("an integer", value), value)
    if not -INT64 <= number < INT64:
        raise Unreadable("expected an integer of 64 bits", value)
    return number


def _number(value: Value, _: Document | None = None) -> float:
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value) if "_" not in str(value) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise Unreadable(_expected("a number", value), value)
    return number


def _moment(value: Value, _: Document | None = None) -> datetime:
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is not None and moment.utcoffset() is not None:
        return moment
    raise Unreadable(_expected("a time with its zone, as 2021-08-07T12:12:12+0800", value), value)


def _quick(read: Reader) -> Callable[[str], Any]:
    if read is as_text:
        return _quick_text
    if read is _integer:
        return _quick_integer
    if read is _number:
        return _quick_number
    kind = read.args[0] if isinstance(read, partial) and read.func is _member else None
    return {str(one.value): one for one in kind}.get if kind is not None else _not_quick


def _quick_text(text: str) -> str | None:
    return text if text and not text.isspace() else None


def _quick_integer(text: str) -> int | None:
    return int(text) if len(text) < 19 and text.isdecimal() and text.isascii() else None


def _quick_number(text: str) -> float | None:
    digits = text.replace(".", "", 1)
    return float(text) if len(text) < 19 and digits.isdecimal() and digits.isascii() else None


def _not_quick(_: str) -> None:
    return None


SCALARS: dict[Any, Reader] = {str: as_text, int: _integer, float: _number, datetime: _moment}


def _expected(what: str, value: Value) -> str:
    if isinstance(value, list):
        return f"expected {what}, found {len(value)} elements"
    if isinstance(value, dict):
        return f"expected {what}, found an element with children"
    return f"expected {what}"


def _freeze(value: Value, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} elements")
    if isinstance(value, dict):
        return ReadOnly(
            {
                tag: _freeze(item, depth + 1)
                for tag, item in value.items()
                if tag != TEXT or not _is_blank(item)
            }
        )
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return None if _is_blank(value) else value


def _is_blank(value: Value) -> bool:
    return isinstance(value, str) and (not value or value.isspace())


def _is_empty(value: Value) -> bool:
    return value is None or value in ({}, []) or _is_blank(value)
