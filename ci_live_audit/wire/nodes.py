"""A node of a document → the frozen value that the annotations of its class describe.

A plan for each result class is made once. The XML answers and the JSON callbacks share their names,
so they share the plans; what differs (numbers as texts, one element in place of a list) is read
leniently, and what cannot be read says where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import attrs

from ci_live_audit.models import ReadOnly, Scene, tags
from ci_live_audit.wire.scalars import (
    QUICK,
    SCALARS,
    Reader,
    Unreadable,
    Value,
    as_integer,
    as_text,
    expected,
    is_blank,
    is_empty,
)

__all__ = ["Context", "values"]

# What the documents name ends at a depth of 7; the rest of an answer may not exhaust the stack.
MAX_DEPTH = 64
MAX_SHARED = 4096
TEXT = "#text"  # xmltodict's name for the text of an element that has children too

# Scenes that a document or an SDK of the service names. The set is open: any other container
# ``<Name>Info`` is a scene as well if it can be read as one.
SCENES = frozenset(
    {
        *("PornInfo", "AdsInfo", "TerrorismInfo", "TerroristInfo", "PoliticsInfo", "TeenagerInfo"),
        *("IllegalInfo", "AbuseInfo", "MeaninglessInfo", "QualityInfo", "ValueInfo"),
    }
)


# Plans


@attrs.define
class Context:
    """What holds for all the nodes of one document.

    Attributes:
        expires_at: When the URLs in it stop working.
        scenes: Scenes by what they are made of. Most of a night's snapshots look alike, and equal
            scenes are one object. None where equal values may differ (in JSON 1 equals true).
    """

    expires_at: datetime | None = None
    scenes: dict[tuple[Any, ...], Scene] | None = None


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


def values(cls: Any, node: dict[str, Any], document: Context) -> dict[str, Any]:
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
                elif not is_empty(sent):
                    extra[tag] = _freeze(sent)
            elif tag != TEXT or not is_blank(sent):  # not the white space between elements
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


def _fill(known: dict[str, Any], field: _Field, sent: Value, document: Context) -> Value:
    """Read a value into its attribute; what has no place there comes back."""
    if isinstance(sent, str) and (quick := field.quick(sent)) is not None:
        known[field.attribute] = quick
        return None
    if sent is None or is_blank(sent):
        return None
    if field.attribute in known:  # the same under another spelling
        return sent
    if field.item is not None and isinstance(sent, dict):
        rest = {name: one for name, one in sent.items() if name != TEXT or not is_blank(one)}
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


def _scene(tag: str, value: Value, document: Context) -> Scene | None:
    shared, key = document.scenes, None
    if shared is not None and isinstance(value, dict):
        key = (*value, *value.values())
        try:
            if key in shared:
                return shared[key]
        except TypeError:  # it holds more than texts
            key = None
    try:
        scene = None if is_empty(value) else _object(Scene, value, document)
    except Unreadable:
        if tag in SCENES:
            raise
        return None
    if shared is not None and key and scene is not None and len(shared) < MAX_SHARED:
        shared[key] = scene
    return scene


# Readers


def _object(cls: type[Any], value: Value, document: Context) -> Any:
    if isinstance(value, dict):
        return cls(**values(cls, value, document)) if value else None
    raise Unreadable(expected("an element with children", value), value)


def _objects(cls: type[Any], value: Value, document: Context) -> tuple[Any, ...]:
    """Repeated elements: none, one or several; a tuple has been read before."""
    if isinstance(value, tuple):
        return value
    found: list[Any] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        if is_empty(item):
            continue
        try:
            found.append(_object(cls, item, document))
        except Unreadable as problem:
            raise problem.within(f"[{index}]") from None
    return tuple(found)


def _keywords(value: Value, _: Context | None = None) -> tuple[str, ...]:
    """Repeated elements, or one text that joins them with commas: no document says which."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    words = [as_text(word) for word in (value if isinstance(value, list) else [value])]
    return tuple(word for word in words if word and not is_blank(word))


def _member(cls: type[Enum], value: Value, _: Context | None = None) -> Any:
    return cls(as_integer(value) if issubclass(cls, int) else str(as_text(value)).strip())


def _mapping(value: Value, _: Context | None = None) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return _freeze(value)  # type: ignore[no-any-return]
    raise Unreadable(expected("an element with children", value), value)


def _quick(read: Reader) -> Callable[[str], Any]:
    if read in QUICK:
        return QUICK[read]
    kind = read.args[0] if isinstance(read, partial) and read.func is _member else None
    return {str(one.value): one for one in kind}.get if kind is not None else _not_quick


def _not_quick(_: str) -> None:
    return None


def _freeze(value: Value, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} elements")
    if isinstance(value, dict):
        return ReadOnly(
            {
                tag: _freeze(item, depth + 1)
                for tag, item in value.items()
                if tag != TEXT or not is_blank(item)
            }
        )
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return None if is_blank(value) else value
