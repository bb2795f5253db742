"""Reports each new finding of running streams exactly once: `Findings` (watch).

A snapshot is identified by its time and an audio section by its offset and duration, because their
URLs are signed anew in every response; with another label or verdict an item counts as new again.
Nothing is concluded from what a response leaves out: no document says whether a query shows
findings while a stream runs, and how many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import attrs

from ci_live_audit.following.dispatcher import Polling
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
from ci_live_audit.following.run import Run
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot

__all__ = ["Findings", "Seen"]

Item = TypeVar("Item", Snapshot, AudioSection)


def key(job_id: str, *identity: Hashable) -> str:
    """Return a text that is the same for the same finding in every process."""
    return blake2b(repr((job_id, *identity)).encode(), digest_size=8).hexdigest()


@attrs.define
class Seen:
    """What has been seen of one job."""

    # How many items have been seen under each identity.
    _items: dict[Hashable, int] = attrs.field(factory=dict[Hashable, int])
    _state: JobState | None = None
    _severity: int = 0

    def update(self, job: AuditJob) -> list[Finding]:
        """Return what a job shows for the first time, in the order of the stream."""
        job_id = job.job_id
        found: list[Finding] = [
            SnapshotFinding(job_id=job_id, key=key(job_id, *which), job=job, snapshot=item)
            for item, *which in self._unseen(job.snapshots)
        ]
        found += [
            AudioFinding(job_id=job_id, key=key(job_id, *which), job=job, audio_section=item)
            for item, *which in self._unseen(job.audio_sections)
        ]
        found.sort(key=lambda finding: (finding.time is None, finding.time or 0))
        verdicts = [one.verdict for one in found if one.verdict is not None]
        self._severity = max(self._severity, *(verdict.severity for verdict in verdicts), 0)
        if job.result is not None and job.result.severity > self._severity:
            # Lists may be capped, or absent until the end.
            its_key = key(job_id, "verdict", job.result.value)
            found.append(VerdictChange(job_id=job_id, key=its_key, job=job, verdict=job.result))
            self._severity = job.result.severity
        if job.state != self._state:
            its_key = key(job_id, "state", job.state.value)
            change = StateChange(job_id=job_id, key=its_key, job=job, state=job.state)
            found.insert(len(found) if job.ended else 0, change)
            self._state = job.state
        return found

    def _unseen(self, items: Iterable[Item]) -> list[tuple[Item, Hashable, int]]:
        """Return what is new, each with its identity and its number among equal ones."""
        unseen: list[tuple[Item, Hashable, int]] = []
        shown: Counter[Hashable] = Counter()
        for item in items:
            identity = _identity(item)
            shown[identity] += 1
            if shown[identity] > self._items.get(identity, 0):
                self._items[identity] = shown[identity]
                unseen.append((item, identity, shown[identity]))
        return unseen


def _identity(item: Snapshot | AudioSection) -> Hashable:
    """Return what stays the same from one response to the next."""
    if isinstance(item, Snapshot):
        if item.snapshot_time is not None:
            return item.snapshot_time, item.label, item.result
    elif item.offset_time is not None:
        return item.offset_time, item.duration, item.label, item.result
    return attrs.evolve(item, url=None, url_expires_at=None)


class Findings(Run[Finding]):
    """The findings of watched jobs, while their streams run: an async iterator.

    Made by `LiveAuditClient.watch`. Use it as ``async with … as findings``; leaving the block stops
    everything. It ends when all jobs have ended.
    """

    def __init__(self, polling: Polling, job_ids: str | Source) -> None:
        self._single = isinstance(job_ids, str)
        source = [job_ids] if isinstance(job_ids, str) else job_ids
        self._seen: dict[str, Seen] = {}
        polling = attrs.evolve(polling, keep_last=self._single)
        super().__init__(polling, source, partial(_findings, self._seen))

    @property
    def job(self) -> AuditJob | None:
        """The job that was polled last; of a single job that has ended, its final state."""
        return self._dispatcher.job

    async def __anext__(self) -> Finding:
        """Return the next finding; raise the error of a single job, now and from now on."""
        finding = await super().__anext__()
        if self._single and isinstance(finding, WatchFailed):
            self._dispatcher.error = finding.error
            raise finding.error
        return finding


def _findings(seen: dict[str, Seen], update: Update) -> list[Finding]:
    """Return the findings of an update, and forget a job that is followed no longer."""
    job_id, job, error = update.job_id, update.job, update.error
    found = [] if job is None else seen.setdefault(job_id, Seen()).update(job)
    if error is not None:
        its_key = key(job_id, "error", type(error).__name__)
        found.append(WatchFailed(job_id=job_id, key=its_key, error=error))
    # An id that is no text may not be hashable.
    if isinstance(job_id, str) and (error is not None or (job is not None and job.ended)):
        seen.pop(job_id, None)
    return found
