"""A node of a document → the frozen value that the annotations of its class describe.

A reader is made once for each result class. XML responses and JSON callbacks use the same names, so
they share the readers; what differs (numbers as texts, one element in place of a list) is read
leniently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import attrs

from ci_live_audit.models import ReadOnly, Scene, tags
from ci_live_audit.wire.documents import MAX_DEPTH
from ci_live_audit.wire.scalars import SCALARS, Unreadable, Value, as_integer, as_text, is_null

__all__ = ["MAX_SHARED", "Context", "Field", "Reader", "read", "reader", "values"]

MAX_SHARED = 4096
TEXT = "#text"  # xmltodict's name for the text of an element that has children too

# Scenes that a document or an SDK of the service names. The set is open: any other container
# ``<Name>Info`` that can be read as a scene is one too.
SCENES = {
    *("PornInfo", "AdsInfo", "TerrorismInfo", "TerroristInfo", "PoliticsInfo", "TeenagerInfo"),
    *("IllegalInfo", "AbuseInfo", "MeaninglessInfo", "QualityInfo", "ValueInfo"),
}


@attrs.define
class Context:
    """What applies to all nodes of one document: among others, when the URLs in it expire.

    Most snapshots of a stream look alike, so equal scenes are one object: up to ``max_shared`` of
    them are remembered by the content of their nodes.
    """

    expires_at: datetime | None = None
    max_shared: int = 0
    scenes: dict[tuple[Any, ...], Scene] = attrs.Factory(dict[tuple[Any, ...], Scene])


Read: TypeAlias = Callable[[Any, Context], Any]


class Field(NamedTuple):
    """How one attribute is read.

    ``plain`` is False for what takes more than the value: another spelling, keywords that may be
    joined, and a list in a ``container`` of its own.
    """

    attribute: str
    read: Read
    plain: bool = True
    container: Reader | None = None


class Reader(NamedTuple):
    """How a class of results is read: its fields by tag, and what else it has."""

    fields: Mapping[str, Field]
    has_scenes: bool = False
    has_url: bool = False


@cache
def reader(cls: Any) -> Reader:
    """Return the reader of a result class."""
    hints = get_type_hints(cls)
    fields: dict[str, Field] = {}
    for name, tag in tags(cls).items():
        read_value = _read_as(hints[name])
        field = Field(name, read_value, plain=not tag.also and read_value is not _keywords)
        if tag.item is not None:
            field = Field(name, read_value, plain=False, container=Reader({tag.item: field}))
        fields |= {spelling: field for spelling in (tag.name, tag.also) if spelling}
    return Reader(fields, "scenes" in hints, "url_expires_at" in hints)


def _read_as(hint: Any) -> Read:
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return _keywords if kind is str else partial(_objects, kind)
    if get_origin(hint) is Mapping:
        return _mapping
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    if kind in SCALARS:
        return SCALARS[kind]
    return _member(kind) if issubclass(kind, Enum) else partial(read, kind)


def values(how: Reader, node: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Return the arguments for a class out of its node; raise `Unreadable` if one cannot be read.

    An empty element is the service's null. A node that the class does not know is kept in
    ``extra``.
    """
    fields, has_scenes, has_url = how
    known: dict[str, Any] = {}
    scenes: dict[str, Scene] = {}
    extra: dict[str, Any] = {}
    for tag, sent in node.items():
        field = fields.get(tag)
        try:
            if field is None:
                if has_scenes and _add_scene(scenes, tag, sent, context):
                    continue
                if tag != TEXT or not is_null(sent):
                    extra[tag] = _freeze(sent)
            # `is_null` written out: a call for each value would make decoding 2 % slower.
            elif sent is None or (isinstance(sent, str) and (not sent or sent.isspace())):
                continue
            elif field.plain:
                known[field.attribute] = field.read(sent, context)
            elif (rest := _fill(known, field, sent, context)) is not None:
                extra[tag] = _freeze(rest)
        except Unreadable as problem:
            raise problem.within(tag) from None
    if scenes:
        known["scenes"] = ReadOnly(scenes)
    if extra:
        known["extra"] = ReadOnly(extra)
    if has_url and context.expires_at is not None:
        known["url_expires_at"] = context.expires_at
    return known


def _fill(known: dict[str, Any], field: Field, sent: Value, context: Context) -> Value:
    """Read a value that is not plain, and return what has no place in its attribute."""
    if field.attribute in known:  # under its other spelling
        return sent
    if field.container is not None and isinstance(sent, dict):
        inside = values(field.container, sent, context)
        rest: Value = inside.pop("extra", None)
        known |= inside
        return rest
    known[field.attribute] = field.read(sent, context)
    if field.read is _keywords and isinstance(sent, str) and "," in sent:
        known["keywords_raw"] = sent
    return None


def _add_scene(scenes: dict[str, Scene], tag: str, value: Value, context: Context) -> bool:
    """Add a scene unless it is empty; return False if the node is none."""
    named = tag in SCENES
    if not named and (not tag.endswith("Info") or tag == "Info" or not isinstance(value, dict)):
        return False
    key = (*value, *value.values()) if isinstance(value, dict) else ()
    try:
        scene = context.scenes.get(key)
    except TypeError:  # it holds more than texts
        key, scene = (), None
    if scene is None and not _is_empty(value):
        try:
            scene = read(Scene, value, context)
        except Unreadable:
            if named:
                raise
            return False
        if key and len(context.scenes) < context.max_shared:
            context.scenes[key] = scene
    if scene is not None:
        scenes[tag.removesuffix("Info")] = scene
    return True


def _is_empty(value: Value) -> bool:
    return is_null(value) or value in ({}, [])


def read(cls: Any, value: Value, context: Context) -> Any:
    """Return a result of a class out of its node; None out of an empty node."""
    if isinstance(value, dict):
        return cls(**values(reader(cls), value, context)) if value else None
    raise Unreadable("expected an element with children", value)


def _objects(cls: type[Any], value: Value, context: Context) -> tuple[Any, ...]:
    """Return repeated elements, of which there are none, one or several."""
    found: list[Any] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        try:
            if isinstance(item, cls):  # it was read as soon as it closed
                found.append(item)
            elif not _is_empty(item):
                found.append(read(cls, item, context))
        except Unreadable as problem:
            raise problem.within(f"[{index}]") from None
    return tuple(found)


def _keywords(value: Value, _: Context) -> tuple[str, ...]:
    """Return repeated elements, or those of one text joined by commas: no document says which."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    words = value if isinstance(value, list) else [value]
    return tuple(as_text(word) for word in words if not is_null(word))


def _member(cls: type[Enum]) -> Read:
    listed = {str(one.value): one for one in cls}

    def member(value: Value, _: Context) -> Any:
        found = listed.get(value) if isinstance(value, str) else None
        if found is not None:
            return found
        return cls(as_integer(value) if issubclass(cls, int) else as_text(value).strip())

    return member


def _mapping(value: Value, _: Context) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return _freeze(value)  # type: ignore[no-any-return]
    raise Unreadable("expected an element with children", value)


def _freeze(value: Value, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} elements")
    if isinstance(value, dict):
        kept = {tag: item for tag, item in value.items() if tag != TEXT or not is_null(item)}
        return ReadOnly({tag: _freeze(item, depth + 1) for tag, item in kept.items()})
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return None if is_null(value) else value
