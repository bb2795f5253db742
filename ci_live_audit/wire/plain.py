"""The plain values of a result → the result: the inverse of ``to_dict()``. Pure."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache, partial
from math import isfinite
from types import NoneType
from typing import Any, TypeAlias, cast, get_args, get_origin, get_type_hints

import attrs

from ci_live_audit.errors import DecodeError
from ci_live_audit.models import AudioSection, AuditJob, ReadOnly, Snapshot
from ci_live_audit.wire.documents import MAX_DEPTH

__all__ = ["audio_section", "job", "snapshot"]

Read: TypeAlias = Callable[[Any], Any]


class _Wrong(Exception):
    """A value that its attribute cannot hold."""

    def __init__(self, reason: str, value: object, *path: str) -> None:
        super().__init__(reason)
        self.value = value
        self.path = path


def job(value: Mapping[str, Any]) -> AuditJob:
    """Return the job of which ``to_dict()`` returned a value, also after a way through JSON.

    Attributes that are missing have their defaults, and keys that no attribute has are passed over:
    another version may have written the value.

    Raises:
        DecodeError: It is no such value; ``path`` names the attribute.
    """
    return cast("AuditJob", _result(AuditJob, value))


def snapshot(value: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot of which ``to_dict()`` returned a value, as `job` does.

    Raises:
        DecodeError: It is no such value.
    """
    return cast("Snapshot", _result(Snapshot, value))


def audio_section(value: Mapping[str, Any]) -> AudioSection:
    """Return the audio section of which ``to_dict()`` returned a value, as `job` does.

    Raises:
        DecodeError: It is no such value.
    """
    return cast("AudioSection", _result(AudioSection, value))


def _result(cls: Any, value: Any) -> Any:
    try:
        return _object(cls, value)
    except _Wrong as wrong:
        path = ".".join(wrong.path).replace(".[", "[")
        raise DecodeError(str(wrong), path=path, excerpt=_excerpt(wrong.value)) from None


def _excerpt(value: object) -> str:
    try:
        return reprlib.repr(value)  # bounded in depth and length
    except ValueError:  # pragma: no cover - not from Python 3.14 on
        return "a number of very many digits"


def _object(cls: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _Wrong(f"expected the attributes of a {cls.__name__}", value)
    named = cast("Mapping[str, Any]", value)
    known: dict[str, Any] = {}
    for name, (read, default) in _readers(cls).items():
        found = named.get(name)
        if found is None:
            if default is attrs.NOTHING:
                raise _Wrong("it is missing", found, name)
            continue
        known[name] = _within(name, read, found)
    return cls(**known)


def _within(name: str, read: Read, value: Any) -> Any:
    try:
        return read(value)
    except _Wrong as wrong:
        wrong.path = (name, *wrong.path)
        raise


@cache
def _readers(cls: Any) -> Mapping[str, tuple[Read, Any]]:
    """Return how each attribute of a result class is read, and its default."""
    hints = get_type_hints(cls)
    return {field.name: (_reader(hints[field.name]), field.default) for field in attrs.fields(cls)}


def _reader(hint: Any) -> Read:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) is tuple:
        return partial(_items, _reader(kinds[0]))
    if get_origin(hint) is Mapping:
        return _frozen if kinds[-1] is Any else partial(_mapping, _reader(kinds[-1]))
    kind = kinds[0] if kinds else hint
    if kind is datetime:
        return _moment
    if kind in {str, int, float}:
        return partial(_scalar, kind)
    return partial(_member, kind) if issubclass(kind, Enum) else partial(_object, kind)


def _items(read: Read, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _Wrong("expected a list", value)
    items = cast("list[Any]", value)
    return tuple(_within(f"[{index}]", read, item) for index, item in enumerate(items))


def _mapping(read: Read, value: Any) -> ReadOnly[Any]:
    if not isinstance(value, Mapping):
        raise _Wrong("expected a mapping", value)
    named = cast("Mapping[str, Any]", value)
    return ReadOnly({name: _within(name, read, item) for name, item in named.items()})


def _scalar(kind: type[Any], value: Any) -> Any:
    kinds = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise _Wrong(f"expected {kind.__name__}", value)
    try:
        if kind is float and not isfinite(value):
            raise _Wrong("expected a finite number", value)
        return kind(value)
    except OverflowError:
        raise _Wrong("the number is too large", value) from None


def _member(kind: type[Enum], value: Any) -> Any:
    return kind(_scalar(str if issubclass(kind, str) else int, value))


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _Wrong("expected a time in ISO 8601", value) from None
    if moment.utcoffset() is None:
        raise _Wrong("expected a time with its zone", value)
    return moment


def _frozen(value: Any, depth: int = 0) -> Any:
    """Return any plain value as results have it in ``extra``."""
    if depth > MAX_DEPTH:
        raise _Wrong(f"nested deeper than {MAX_DEPTH} values", None)
    if isinstance(value, Mapping):
        named = cast("Mapping[str, Any]", value)
        return ReadOnly({name: _frozen(item, depth + 1) for name, item in named.items()})
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return tuple(_frozen(item, depth + 1) for item in items)
    if depth == 0:
        raise _Wrong("expected a mapping", value)
    return value
