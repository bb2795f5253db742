"""Sets of digests in little memory: 8 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain

import attrs

__all__ = ["Digests", "digest"]

#: Digests that are kept in a set beside the sorted ones, so that few are added at little cost.
RECENT = 500


def digest(*parts: object) -> int:
    """Return a digest of what has a `repr` that says all; the same in every process."""
    text = repr(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest())


@attrs.frozen
class Digests:
    """An immutable set of digests."""

    _sorted: array[int] = attrs.Factory(lambda: array("Q"))
    _recent: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __iter__(self) -> Iterator[int]:
        return chain(self._sorted, self._recent)

    def __contains__(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        index = bisect_left(self._sorted, digest)
        return index < len(self._sorted) and self._sorted[index] == digest

    def plus(self, added: Iterable[int]) -> Digests:
        """Return a set that has some digests more."""
        recent = self._recent.union(one for one in added if one not in self)
        if len(recent) <= RECENT:
            return Digests(self._sorted, recent)
        return Digests(array("Q", sorted([*self._sorted, *recent])))
