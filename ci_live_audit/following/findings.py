"""Reports each new finding of running streams exactly once: `Findings` (watch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.commit import Commit, last_commit
from ci_live_audit.following.digests import Digests, digest
from ci_live_audit.following.finding import (
    AudioFinding,
    Finding,
    SnapshotFinding,
    StateChange,
    VerdictChange,
    WatchFailed,
)
from ci_live_audit.following.ids import Source
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.polling import HasRoom, Polling
from ci_live_audit.following.run import Run
from ci_live_audit.following.seen import News, Seen
from ci_live_audit.models import AuditJob, Snapshot

__all__ = ["Findings", "Watching", "findings_of"]


class Findings(Run[Finding]):
    """The findings of watched jobs, while their streams run: an async iterator.

    Made by `LiveAuditClient.watch`. Use it as ``async with … as findings``; leaving the block stops
    everything. It ends when all jobs have ended.
    """

    def __init__(self, polling: Polling, job_ids: str | Source) -> None:
        self._single = job_ids if isinstance(job_ids, str) else None
        source = [job_ids] if isinstance(job_ids, str) else job_ids
        polling = attrs.evolve(polling, keep_last=self._single is not None, kind="watch")
        self._seen: dict[str, Seen] = {}
        noted = polling.checkpoint is not None
        super().__init__(polling, source, Watching(self._seen, noted=noted))

    @property
    def job(self) -> AuditJob | None:
        """The job that was polled last; of a single job that has ended, its final state."""
        return self._dispatcher.job

    async def __anext__(self) -> Finding:
        """Return the next finding; the one before counts as dealt with.

        The error of a single job is raised, now and from now on.
        """
        finding = await super().__anext__()
        self._polling.audience.tell("found", finding)
        is_single = self._single is not None and finding.job_id == self._single
        if isinstance(finding, WatchFailed) and is_single:
            self._dispatcher.error = finding.error
            raise finding.error
        return finding


class Watching:
    """Keeps what has been seen of each job, and makes findings of what is new.

    Args:
        seen: What has been seen.
        noted: Whether a checkpoint notes what has been dealt with.
    """

    def __init__(self, seen: dict[str, Seen], *, noted: bool = True) -> None:
        self._seen = seen
        self._noted = noted

    def begin(self, job_id: str, seen: bytes) -> None:
        """Go on where an earlier run, or another process, has stopped.

        Raises:
            ConfigurationError: What was seen cannot be read.
        """
        if not seen:
            return
        try:
            known = Seen.from_bytes(seen)
        except ValueError as problem:
            reason = f"checkpoint: what was seen of a job cannot be read: {problem}"
            raise ConfigurationError(reason).about("watch", job_id) from None
        self._seen[job_id] = known

    def drop(self, job_id: str) -> None:
        """Forget what has been seen of a job."""
        self._seen.pop(job_id, None)

    def reading(self, job_id: str, has_room: HasRoom) -> News:
        """Return what reads the next response about a job."""
        return News(self._seen.get(job_id) or Seen(), has_room)

    def items(
        self, update: Update, reading: News | None
    ) -> tuple[Iterator[tuple[Finding, Commit]], int]:
        """Return the findings of an update; forget a job that is followed no longer."""
        job_id, error = update.job_id, update.error
        news = None if update.job is None else reading
        if news is not None and update.job is not None:
            seen = self._seen.get(job_id, news.before)
            if seen is not news.before:  # callbacks have come since the poll began
                news.rebase(seen)
                job = update.job if update.job.ended else news.part(update.job)
                update = attrs.evolve(update, job=job)
            self._seen[job_id] = news.seen
        # An id that is no text may not be hashable.
        ended = error is not None or (update.job is not None and update.job.ended)
        if isinstance(job_id, str) and ended:
            self._seen.pop(job_id, None)
        number = (0 if news is None else len(news)) + (error is not None)
        return self._handed(update, news, number, "poll"), number

    def told(
        self, job_id: str, job: AuditJob
    ) -> tuple[Iterator[tuple[Finding, Commit]], int, bool]:
        """Return the findings of a callback; a state that is new, or the last, has to be asked."""
        before = self._seen.get(job_id) or Seen()
        news = News(before)
        news.compare(job, told=True)
        self._seen[job_id] = news.seen
        update = Update(job_id, news.part(job))
        is_all = not (job.ended or news.unsure) and before.state in {None, job.state}
        return self._handed(update, news, len(news), "callback"), len(news), is_all

    def _handed(
        self, update: Update, news: News | None, number: int, source: Literal["poll", "callback"]
    ) -> Iterator[tuple[Finding, Commit]]:
        if self._noted:
            return _with_commits(update, news, number, source)
        # Nobody notes it, so it says nothing.
        commit = Commit(job_id=update.job_id, action="keep")
        return ((finding, commit) for finding in findings_of(update, news, source))


def _with_commits(
    update: Update, news: News | None, number: int, source: Literal["poll", "callback"]
) -> Iterator[tuple[Finding, Commit]]:
    """Make the findings of an update, each with what will have been seen once it is dealt with."""
    job_id = update.job_id
    # What is known besides the findings changes none of them, and goes with the first.
    seen = [] if news is None else list(news.marks)
    digests = iter([] if news is None else news.digests)
    ended = update.job is not None and update.job.ended and source == "poll"
    is_last = ended or update.error is not None
    for place, finding in enumerate(findings_of(update, news, source), 1):
        commit = None
        if is_last and place == number:
            commit = last_commit(job_id, update.job, update.error)
        state, severity = None, 0
        if isinstance(finding, StateChange):
            state = finding.state
        else:
            severity = 0 if finding.verdict is None else finding.verdict.severity
        if isinstance(finding, SnapshotFinding | AudioFinding):
            seen.append(next(digests))
        new = Seen(Digests().plus(seen), state=state, severity=severity).to_bytes()
        yield finding, commit or Commit(job_id=job_id, action="keep", seen=new)
        seen = []


def findings_of(
    update: Update, news: News | None, source: Literal["poll", "callback"] = "poll"
) -> Iterator[Finding]:
    """Make the findings of an update one by one, as they are taken."""
    job_id, job = update.job_id, update.job
    if job is not None and news is not None:
        changes: list[Finding] = []
        if news.state is not None:
            key = _key(job_id, "state", news.state.value)
            changes = [StateChange(job_id=job_id, key=key, job=job, state=news.state)]
        if not job.ended:
            yield from changes
        for item, found in zip(news.items, news.digests, strict=True):
            key = _key(job_id, found)
            if isinstance(item, Snapshot):
                yield SnapshotFinding(job_id=job_id, key=key, source=source, job=job, snapshot=item)
            else:
                yield AudioFinding(
                    job_id=job_id, key=key, source=source, job=job, audio_section=item
                )
        if news.verdict is not None:
            key = _key(job_id, "verdict", news.verdict.value)
            yield VerdictChange(
                job_id=job_id, key=key, source=source, job=job, verdict=news.verdict
            )
        if job.ended:
            yield from changes
    if update.error is not None:
        key = _key(job_id, "error", type(update.error).__name__)
        yield WatchFailed(job_id=job_id, key=key, error=update.error)


def _key(job_id: str, *what: object) -> str:
    return f"{digest(job_id, *what):016x}"
