"""What applies to all nodes of one document while it is read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from ci_live_audit.models import ReadOnly, Scene
from ci_live_audit.wire.scalars import join

__all__ = ["MAX_SHARED", "Context"]

MAX_SHARED = 4096
# Paths of unreadable values that are kept of one document.
MAX_UNREADABLE = 10_000


@attrs.define
class Context:
    """What applies to all nodes of one document: among others, when the URLs in it expire.

    Most snapshots of a stream look alike, so equal scenes are one object, and so are mappings of
    the same scenes: up to ``max_shared`` of each are remembered, scenes by the content of their
    nodes.

    ``unreadable`` holds the paths of values that cannot be read, within the node that is being
    read. ``early`` holds those of results that are read as soon as their node closes, by their
    identity.
    """

    expires_at: datetime | None = None
    max_shared: int = 0
    scenes: dict[tuple[Any, ...], Scene] = attrs.Factory(dict[tuple[Any, ...], Scene])
    mappings: dict[tuple[Any, ...], ReadOnly[Scene]] = attrs.Factory(
        dict[tuple[Any, ...], ReadOnly[Scene]]
    )
    unreadable: list[str] = attrs.Factory(list[str])
    early: dict[int, tuple[object, list[str]]] = attrs.Factory(dict[int, tuple[object, list[str]]])
    noted: int = 0

    def note(self, tag: str, paths: list[str]) -> None:
        """Note what cannot be read of a node."""
        paths = paths[: MAX_UNREADABLE - self.noted]
        self.unreadable += [join(tag, path) for path in paths]
        self.noted += len(paths)

    def forget(self, since: int) -> None:
        """Forget what was noted ``since`` then."""
        self.noted -= len(self.unreadable) - since
        del self.unreadable[since:]

    def within(self, tag: str, since: int) -> None:
        """Prepend the name of the enclosing node to the paths noted ``since`` then."""
        if len(self.unreadable) > since:
            self.unreadable[since:] = [join(tag, path) for path in self.unreadable[since:]]

    def mapping(self, scenes: dict[str, Scene]) -> ReadOnly[Scene]:
        """Return a mapping of scenes, which keeps them alive and so their identities as well."""
        key = (*scenes, *map(id, scenes.values()))
        found = self.mappings.get(key)
        if found is None:
            found = ReadOnly(scenes)
            if len(self.mappings) < self.max_shared:
                self.mappings[key] = found
        return found
