"""A node of a document → the frozen value that the annotations of its class describe.

A reader is made once for each result class. XML responses and JSON callbacks use the same names, so
they share the readers; what differs (numbers as texts, one element in place of a list) is read
leniently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

from ci_live_audit.models import ReadOnly, Scene, UserInfo, tags
from ci_live_audit.wire.context import Context
from ci_live_audit.wire.documents import MAX_DEPTH
from ci_live_audit.wire.scalars import (
    SCALARS,
    Unreadable,
    Value,
    as_keywords,
    as_text,
    as_word,
    is_nothing,
    is_null,
    member,
)

__all__ = ["Field", "Reader", "read", "read_early", "reader", "values"]

TEXT = "#text"  # xmltodict's name for the text of an element that has children too

# What people wrote; so are all fields of `UserInfo`. White space around it is kept.
FREE_TEXTS = {"text", "message"}

# Scenes that a document or an SDK of the service names. The set is open: any other container
# ``<Name>Info`` that can be read as a scene is one too.
SCENES = {
    *("PornInfo", "AdsInfo", "TerrorismInfo", "TerroristInfo", "PoliticsInfo", "TeenagerInfo"),
    *("IllegalInfo", "AbuseInfo", "MeaninglessInfo", "QualityInfo", "ValueInfo"),
}


Read: TypeAlias = Callable[[Any, Context], Any]


class Field(NamedTuple):
    """How one attribute is read.

    ``plain`` is False for what takes more than the value: another spelling, keywords that may be
    joined, values inside, and a list in a ``container`` of its own.
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
        if read_value is as_word and (cls is UserInfo or name in FREE_TEXTS):
            read_value = as_text
        field = Field(name, read_value, plain=not tag.also and not _is_nested(read_value))
        if tag.item is not None:
            field = Field(name, read_value, plain=False, container=Reader({tag.item: field}))
        fields |= {spelling: field for spelling in (tag.name, tag.also) if spelling}
    return Reader(fields, "scenes" in hints, "url_expires_at" in hints)


def _read_as(hint: Any) -> Read:
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return as_keywords if kind is str else partial(_objects, kind)
    if get_origin(hint) is Mapping:
        return _mapping
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    if kind in SCALARS:
        return SCALARS[kind]
    return member(kind) if issubclass(kind, Enum) else partial(read, kind)


def _is_nested(read_value: Any) -> bool:
    return read_value is as_keywords or getattr(read_value, "func", None) in {read, _objects}


def values(how: Reader, node: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Return the arguments for a class out of its node.

    An empty element is the service's null. A node that the class does not know, and a value that
    cannot be read, is kept in ``extra``.

    Raises:
        Unreadable: The document cannot be read at all.
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
            elif (rest := _fill(known, field, tag, sent, context)) is not None:
                extra[tag] = _freeze(rest)
        except Unreadable as problem:
            found = _salvage(extra, field, tag, sent, context=context, problem=problem)
            (scenes if field is None else known).update(found)
    if scenes:
        known["scenes"] = context.mapping(scenes)
    if extra:
        known["extra"] = ReadOnly(extra)
    if has_url and context.expires_at is not None:
        known["url_expires_at"] = context.expires_at
    return known


def _fill(known: dict[str, Any], field: Field, tag: str, sent: Value, context: Context) -> Value:
    """Read a value that is not plain, and return what has no place in its attribute."""
    if field.attribute in known:  # under its other spelling
        return sent
    since = len(context.unreadable)
    try:
        if field.container is not None and isinstance(sent, dict):
            inside = values(field.container, sent, context)
            rest: Value = inside.pop("extra", None)
            known |= inside
            return rest
        known[field.attribute] = field.read(sent, context)
    finally:
        context.within(tag, since)
    if field.read is as_keywords and isinstance(sent, str) and "," in sent:
        known["keywords_raw"] = sent
    return None


def _salvage(
    extra: dict[str, Any],
    field: Field | None,
    tag: str,
    sent: Value,
    *,
    context: Context,
    problem: Unreadable,
) -> dict[str, Any]:
    """Return what can be read of a value, by its attribute; note the rest and keep it in ``extra``.

    Of several elements in the place of one, the first is taken that can be read.
    """
    try:
        if problem.fatal:
            raise problem
        if is_nothing(sent):
            return {}
        if isinstance(sent, list) and not problem.several:
            read_one = partial(read, Scene) if field is None else field.read
            problem = _first(read_one, tag, sent, context)
        context.note(tag, problem.paths)
        if problem.rest != []:
            extra[tag] = _freeze(problem.rest)
    except Unreadable as fatal:
        raise fatal.within(tag) from None
    if problem.found is None:
        return {}
    return {tag.removesuffix("Info") if field is None else field.attribute: problem.found}


def _first(read_one: Read, tag: str, items: list[Any], context: Context) -> Unreadable:
    """Read the first of several elements that can be read."""
    found: Any = None
    rest: list[Any] = []
    paths: list[str] = []
    for index, item in enumerate(items):
        if is_null(item) or is_nothing(item):
            continue
        since = len(context.unreadable)
        if found is None:
            try:
                found = read_one(item, context)
                context.within(f"{tag}[{index}]", since)
                continue
            except Unreadable as problem:
                if problem.fatal:
                    raise
        rest.append(item)
        paths.append(f"[{index}]")
    if rest and found is None:
        return Unreadable("none of them can be read", items)
    return Unreadable.partly(found, rest, paths)


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
        since = len(context.unreadable)
        try:
            scene = read(Scene, value, context)
        except Unreadable:
            if named:
                raise
            context.forget(since)
            return False
        if len(context.unreadable) > since:
            key = ()  # the paths are its own
            if not named and scene.hit_flag is None:
                context.forget(since)
                return False
            context.within(tag, since)
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


def read_early(cls: Any, value: Value, context: Context) -> Any:
    """Read a result before the nodes around it are complete."""
    found = read(cls, value, context)
    if context.unreadable:
        context.early[id(found)] = found, context.unreadable
        context.unreadable = []
    return found


def _objects(cls: type[Any], value: Value, context: Context) -> tuple[Any, ...]:
    """Return repeated elements, of which there are none, one or several."""
    found: list[Any] = []
    rest: list[Any] = []
    paths: list[str] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        since = len(context.unreadable)
        try:
            if isinstance(item, cls):
                found.append(item)
                if context.early and id(item) in context.early:
                    context.unreadable += context.early[id(item)][1]
            elif not _is_empty(item):
                found.append(read(cls, item, context))
        except Unreadable as problem:
            if problem.fatal:
                raise problem.within(f"[{index}]") from None
            if not is_nothing(item):
                rest.append(item)
                paths.append(f"[{index}]")
        if len(context.unreadable) > since:
            context.within(f"[{index}]", since)
    if rest:
        raise Unreadable.partly(tuple(found), rest, paths)
    return tuple(found)


def _mapping(value: Value, _: Context) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return _freeze(value)  # type: ignore[no-any-return]
    raise Unreadable("expected an element with children", value)


def _freeze(value: Value, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} elements", fatal=True)
    if isinstance(value, dict):
        kept = {tag: item for tag, item in value.items() if tag != TEXT or not is_null(item)}
        return ReadOnly({tag: _freeze(item, depth + 1) for tag, item in kept.items()})
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return None if is_null(value) else value
