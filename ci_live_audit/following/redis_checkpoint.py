"""A checkpoint in Redis, which several processes share: `RedisCheckpoint`.

A process has one lease for all its jobs, and each beat is one script. Time is that of the server.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from ci_live_audit._checks import text
from ci_live_audit._redis import RedisRefused, RedisUnavailable, Script, Server
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.redis_scripts import (
    ADD,
    BEAT,
    CLAIM,
    COMMIT,
    LEAVE,
    PARTS,
    REPORT,
    RESIGN,
)
from ci_live_audit.following.shared import (
    Beat,
    Claimed,
    Committed,
    Resigned,
    SharedStreams,
)

__all__ = ["RedisCheckpoint"]

#: Seconds that a script may take, and the part of the time to live that it may take at most.
TIMEOUT, PART = 1.0, 1 / 3

#: Seconds: what is shorter than a round trip has every process taken for dead.
SHORTEST = 0.01

#: Bytes of ids and of what was seen that one beat gives, or a little more.
ROOM = 2**20
#: Seconds for which an id that is over is known.
REMEMBERED = 30 * 86400


class RedisCheckpoint(SharedStreams):
    """The state of a run that several processes share, in Redis: each follows a part of the jobs.

    Start the same program several times, with the same ``name`` and as many ids as each may have:
    an id that several give is followed once. What a process follows when it dies goes to the others
    within the ``ttl`` and a third of it, what it follows when it leaves at once, and all have even
    shares. For `LiveAuditClient.moderate`, what is shared are streams. Let Redis keep what it is
    told (``appendonly yes``).

    Args:
        redis: A client of ``redis.asyncio`` (also of a sentinel or a cluster), or a URL.
        name: What the processes share; one for each run, and for each kind of it.
        ttl: Seconds after its last sign of life at which a process counts as dead.

    Raises:
        ConfigurationError: An argument cannot be used, or redis-py is missing.
    """

    def __init__(self, redis: Any, name: str, ttl: float = 3.0) -> None:
        given, redis = [redis], ""  # it may hold a password, and a traceback may show it
        super().__init__(ttl=ttl)
        if ttl < SHORTEST:
            raise ConfigurationError(f"ttl: expected at least {SHORTEST} seconds, got {ttl!r}")
        if not text("name", name).strip():
            raise ConfigurationError("name: expected a name for what the processes share")
        self._server = Server(given.pop(), min(TIMEOUT, ttl * PART))
        self._keys = [_key(name, part) for part in PARTS]
        self._has_spoken = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that were opened for a URL; a client that was given stays open."""
        await self._server.aclose()

    async def add(self, job_ids: Sequence[str]) -> None:
        """Add jobs to be followed, unless they are there or over already."""
        await self._run(ADD, *map(_ascii, job_ids))

    async def beat(self, process: str, *, joins: bool, want: int, held: int) -> Beat:
        """Renew the lease of a process, and give it its share of the jobs."""
        scope = self.scope  # by the time of the answer, another run may have asked
        ttl = round(self.ttl * 1000)
        known = (process, ttl, int(joins), want, held, scope, ROOM)
        word, *reply = await self._run(BEAT, *known)
        if word == "scope":
            raise ConfigurationError(
                f"checkpoint: it is about {_about(reply[0])}, not {_about(scope)}; use another name"
            )
        if word != "ok":
            return Beat(lost=True, forgotten=word == "lost" and reply[0] == 1)
        surplus, open_, followed, number, taken_over = (int(one) for one in reply[:5])
        rest = reply[5:]
        own = None
        if number >= 0:
            own, rest = [_text(one) for one in rest[:number]], rest[number:]
        jobs = _jobs(rest)
        return Beat(
            back=jobs[:followed],
            new=jobs[followed:],
            surplus=surplus,
            open=open_,
            own=own,
            taken_over=taken_over,
        )

    async def commit(self, process: str, commits: Sequence[Commit]) -> Committed:
        """Note what a process has dealt with, of jobs that are its own."""
        said = (part for commit in commits for part in _said(commit))
        word, *reply = await self._run(COMMIT, process, REMEMBERED * 1000, *said)
        if word != "ok":
            return Committed(lost=True)
        return Committed(open=int(reply[0]), noted=[one == 1 for one in reply[1:]])

    async def leave(self, process: str) -> None:
        """Give all jobs of a process to the others, at once."""
        await self._run(LEAVE, process)

    # What `moderate` needs besides

    async def claim(
        self, process: str, claims: Mapping[str, bytes], *, at_once: int, once: bool, doubt: float
    ) -> Claimed:
        """Give streams to a process that is about to submit them."""
        given = (part for id_, note in claims.items() for part in (_ascii(id_), _note(note)))
        known = process, at_once, int(once), round(doubt * 1000)
        word, *reply = await self._run(CLAIM, *known, *given)
        return Claimed(lost=True) if word != "ok" else Claimed(open=int(reply[0]), words=reply[1:])

    async def report(self, stream: str, claim: bytes, job: bytes) -> None:
        """Note what became of a claim that may be another process's by now."""
        await self._run(REPORT, "", _ascii(stream), _note(claim), _note(job))

    async def resign(self, process: str, *, takes: bool) -> Resigned:
        """Give all streams of a process to the others; without others, give it all there are."""
        reply = await self._run(RESIGN, process, round(self.ttl * 1000), int(takes))
        others, waiting = int(reply[0]), int(reply[1])
        return Resigned(others=others, waiting=waiting, streams=_jobs(reply[2:]))

    async def _run(self, script: Script, *arguments: float | str) -> list[Any]:
        """Run a script.

        Raises:
            ConnectionError: Redis is away.
            ConfigurationError: It has refused this from the beginning.
        """
        try:
            reply = await self._server.call(script, self._keys, *arguments)
        except RedisRefused as problem:
            if not self._has_spoken:
                raise ConfigurationError(f"checkpoint: {self._server.place}: {problem}") from None
            raise ConnectionError(f"{self._server.place}: {problem}") from None
        except RedisUnavailable as problem:
            raise ConnectionError(f"{self._server.place}: {problem}") from None
        self._has_spoken = True
        return [one.decode() if isinstance(one, bytes) else one for one in reply]


def _key(name: str, part: str) -> str:
    """Return a key; what is in braces, and has none itself, decides on the slot of a cluster."""
    tag = _ascii(name).replace("{", r"\u007b").replace("}", r"\u007d")
    return f"ci_live_audit:{{{tag}}}:jobs:{part}"


def _ascii(job_id: str) -> str:
    """Return an id in ASCII, since the encoding of a client is its own, and may be a strict one."""
    return json.dumps(job_id)[1:-1]


def _text(job_id: str) -> str:
    return str(json.loads(f'"{job_id}"'))


def _said(commit: Commit) -> Iterator[str]:
    yield _ascii(commit.job_id)
    yield commit.action
    yield _note(commit.seen)


def _note(seen: bytes) -> str:
    return b64encode(seen).decode() + "." if seen else ""


def _jobs(reply: Sequence[str]) -> list[tuple[str, bytes]]:
    return [(_text(reply[i]), _seen(reply[i + 1])) for i in range(0, len(reply), 2)]


def _about(scope: str) -> str:
    """Return a scope in words."""
    bucket, region, *kind = scope.split(" ")
    what = f"runs of {kind[0]} on" if kind else "jobs of"
    return f"{what} bucket {bucket} in {region}"


def _seen(notes: str) -> bytes:
    return b"".join(b64decode(note) for note in notes.split("."))
