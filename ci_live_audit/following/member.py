"""One process of several that follow a set of jobs together: `Member`.

A single task talks to the store, so that nobody who is cancelled leaves a call half done. A process
not heard of for the ``ttl`` counts as dead, and it knows that by its own clock as well: from then
on it polls nothing and hands out nothing until the store has spoken.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from ci_live_audit._loop import running_loop, wait_for
from ci_live_audit.following.commit import Commit
from ci_live_audit.following.ids import Following, Ids, Nothing, Source

if TYPE_CHECKING:
    from ci_live_audit.following.shared import SharedCheckpoint

__all__ = ["Member"]

logger: logging.Logger = logging.getLogger("ci_live_audit.redis")

#: A call is about this many jobs at most.
PORTION = 1000
#: Jobs that are taken at once.
WANT = 10_000
#: Seconds between two attempts to reach the store.
RETRY = 0.2


class _Read(Ids):
    """The ids that the caller gives, which are to be added as soon as they are read."""

    def __init__(self, job_ids: Source, to_add: list[str]) -> None:
        super().__init__(job_ids)
        self._to_add = to_add

    def note(self, job_id: str) -> bytes:
        """Have an id added."""
        self._to_add.append(job_id)
        return b""


class Member(Ids):
    """The ids that this process is given, of those of all processes.

    A run is over when its own source is exhausted and no job of any process is open.
    """

    come_and_go = True

    def __init__(self, store: SharedCheckpoint, job_ids: Source) -> None:
        super().__init__([])
        self._store = store
        self._scope = store.scope
        self._to_add: list[str] = []
        self._given = _Read(job_ids, self._to_add)
        self.known: bool = False
        self.exhausted: bool = False
        # Those that were followed before are polled first.
        self._back: deque[str] = deque()
        self._new: deque[Any] = deque()
        self._seen: dict[str, bytes] = {}
        self._held: dict[str, None] = {}
        self._commits: list[Commit] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._open = math.inf
        self._name = secrets.token_hex(8)
        self._joins, self._want = True, WANT
        self._lease = self._beat_due = -math.inf
        self._away_since: float | None = None
        self._wake = asyncio.Event()
        self._leaving = False
        self._problem: Exception | None = None

    # What a run needs

    @property
    def unread(self) -> int:
        """The number of ids that are at hand."""
        return len(self._back) + len(self._new)

    @property
    def at_hand(self) -> bool:
        """Whether `take` would find an id, or an exception."""
        return self._problem is not None or bool(self._back or self._new)

    @property
    def go_first(self) -> bool:
        """Whether what is at hand was followed before, so that something may be missed."""
        return bool(self._back)

    @property
    def is_paused(self) -> bool:
        """Whether the jobs may be another's by now."""
        return running_loop().time() >= self._lease and self._problem is None

    def serve(self, run: Following) -> None:
        """Join the others, and begin to read."""
        self._run = run
        self._given.open(self._wake.set)
        self._begin_to_talk()

    def take(self) -> Any:
        """Return the next id, or ``Nothing.EMPTY``; whatever ended the reading is raised."""
        if self._problem is not None:
            raise self._problem
        for ids in (self._back, self._new):
            if ids:
                self._wake.set()
                return ids.popleft()
        return Nothing.EMPTY

    def note(self, job_id: str) -> bytes:
        """Return what was seen of an id before."""
        return self._seen.pop(job_id, b"")

    async def commit(self, commit: Commit) -> None:
        """Have noted what has been dealt with, and wait for that unless the store is away."""
        is_text = isinstance(commit.job_id, str)  # another value may not be hashable
        if not is_text or commit.job_id not in self._held or not self._talks():
            return
        self._commits.append(commit)
        self._wake.set()
        if self._away_since is None:
            waiter = running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def aclose(self) -> None:
        """Stop reading, note what was read and dealt with, and give back the jobs."""
        try:
            await self._given.aclose()
        finally:
            self._leaving = True
            self._wake.set()
            cancelled: asyncio.CancelledError | None = None
            while self._talks():  # each call has its own time limit
                try:
                    await asyncio.wait([self._task])
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                raise cancelled

    # What is said to the store

    def _begin_to_talk(self) -> None:
        self._task = asyncio.create_task(self._talk())
        self._task.add_done_callback(self._end)

    def _talks(self) -> bool:
        """Return whether anybody talks to the store."""
        if self._task.cancelled():  # as `asyncio.run` does with all tasks in the end
            self._begin_to_talk()
        return not self._task.done()

    async def _talk(self) -> None:
        while not self._leaving:
            pause = self._beat_due
            try:
                if running_loop().time() >= self._beat_due:
                    await self._beat()
                self._read_on()
                await self._tell()
                pause = self._beat_due
            except OSError as problem:
                self._go_on_without(problem)
                pause = running_loop().time() + RETRY
            self._release_waiters()
            if pause > running_loop().time():
                await wait_for(self._wake, pause)
        try:
            await self._tell()
            await self._store.leave(self._name)
        except OSError as problem:
            if self._to_add or self._commits:
                ids, findings = len(self._to_add), len(self._commits)
                text = "%d ids and %d findings could not be noted: %s"
                logger.warning(text, ids, findings, problem)

    def _end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not all(waiter.done() for waiter in self._awaited()):
                self._begin_to_talk()
            return
        if isinstance(error := task.exception(), Exception):
            self._problem = error
        self._release_waiters()
        self._run.look()

    def _awaited(self) -> Sequence[asyncio.Future[Any]]:
        return self._waiters

    async def _beat(self) -> None:
        now = running_loop().time()
        self._store.scope = self._scope  # another run may have been made since
        beat = await self._store.beat(
            self._name, joins=self._joins, want=self._want, held=len(self._held)
        )
        if beat.lost:
            self._lose(forgotten=beat.forgotten)
            return
        self._joins = False
        self._lease, self._beat_due = now + self._store.ttl, now + self._store.ttl / 3
        self._open = beat.open
        self._store.takeovers += beat.taken_over
        self._come_back(now)
        if beat.own is not None:
            self._settle({*beat.own})
        for ids, taken in ((self._back, beat.back), (self._new, beat.new)):
            for job_id, seen in taken:
                ids.append(job_id)
                self._held[job_id] = None
                if seen:
                    self._seen[job_id] = seen
        if beat.back or beat.new:
            self._beat_due = now  # there may be more
        self._give_away(beat.surplus)
        self._look()

    async def _tell(self) -> None:
        """Tell the store what was read and what was dealt with."""
        while self._to_add:
            some = self._to_add[:PORTION]
            await self._store.add(some)
            del self._to_add[: len(some)]
            self._open = math.inf
            self._beat_due = -math.inf
        while self._commits:
            commits = self._commits[:PORTION]
            committed = await self._store.commit(self._name, commits)
            if committed.lost:
                self._lose(forgotten=False)
                return
            del self._commits[: len(commits)]
            self._open = committed.open
            for commit, noted in zip(commits, committed.noted, strict=True):
                if not noted:
                    self._run.drop(commit.job_id)
                if not noted or commit.action != "keep":
                    self._held.pop(commit.job_id, None)
        self._look()

    def _read_on(self) -> None:
        """Read what the caller gives: a collection at once, the rest as it is followed."""
        while self._given.at_hand and len(self._to_add) < PORTION:
            if not self._given.known and (self._new or len(self._to_add) >= PORTION // 10):
                break
            try:
                job_id = self._given.take()
            except Exception as problem:  # noqa: BLE001 - the consumer's own
                self._problem = problem
                return
            if isinstance(job_id, str):
                self._given.note(job_id)
            elif job_id is not Nothing.EMPTY:
                self._new.append(job_id)

    # What follows

    def _look(self) -> None:
        """Let the run see what there is to do, and whether all is over."""
        if self._open < math.inf:
            self._store.remaining = int(self._open)
        read = self._given.exhausted and not self._to_add
        self.exhausted = read and not self._open and not self.at_hand
        self._run.look()

    def _release_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _lose(self, *, forgotten: bool) -> None:
        """Stop following all jobs, and come back under a new name, by which they are not found."""
        held, self._held = self._held, {}
        logger.warning(
            "%s: %d jobs are dropped",
            "the checkpoint has lost all it knew; they are added again"
            if forgotten
            else "this process was taken for dead",
            len(held),
        )
        for job_id in held:
            self._run.drop(job_id)
        self._back.clear()
        self._new = deque(one for one in self._new if not isinstance(one, str))
        self._seen.clear()
        self._commits.clear()
        # Another process may have joined an emptied store before. What it knows is not added again.
        self._to_add[:0] = held
        self._name, self._joins = secrets.token_hex(8), True
        self._lease = self._beat_due = -math.inf

    def _settle(self, own: set[str]) -> None:
        """Make up for an answer that was lost: the store knows which jobs are whose."""
        for job_id in own - self._held.keys():
            self._held[job_id] = None
            self._commits.append(Commit(job_id=job_id, action="release"))
        said = {commit.job_id for commit in self._commits}
        for job_id in self._held.keys() - own:
            if job_id not in said:  # the store may have forgotten it
                self._to_add.append(job_id)
            del self._held[job_id]
            self._forget(job_id)
            self._run.drop(job_id)

    def _give_away(self, surplus: int) -> None:
        """Give back jobs beyond the share: first those that have not been begun."""
        waiting = [one for one in (*self._back, *self._new) if isinstance(one, str)]
        spare = (job_id for job_id in reversed(self._held) if self._run.is_spare(job_id))
        given = waiting[len(waiting) - surplus :] if surplus < len(waiting) else waiting
        given = [job_id for job_id in given if job_id in self._held][: max(0, surplus)]
        given += islice(spare, max(0, surplus - len(given)))
        for job_id in given:
            self._forget(job_id)
            self._run.drop(job_id)
            self._commits.append(Commit(job_id=job_id, action="release"))

    def _forget(self, job_id: str) -> None:
        """Have a job no longer at hand."""
        self._seen.pop(job_id, None)
        for ids in (self._back, self._new):
            with suppress(ValueError):
                ids.remove(job_id)

    def _go_on_without(self, problem: OSError) -> None:
        now = running_loop().time()
        if self._away_since is None:
            self._away_since = now
            logger.warning(
                "the checkpoint is away; its jobs are followed for %.1f s more: %s",
                max(0.0, self._lease - now),
                problem,
            )

    def _come_back(self, now: float) -> None:
        if self._away_since is not None:
            logger.warning("the checkpoint is back after %.1f s", now - self._away_since)
            self._away_since = None
