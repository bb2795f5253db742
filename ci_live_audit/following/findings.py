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
from typing import Any, TypeVar

import attrs

from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.dispatcher import Polling
from ci_live_audit.following.ids import Source
from ci_live_audit.following.ledger import Update
from ci_live_audit.following.run import Run
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict, plain

__all__ = ["Finding", "Findings", "Seen"]

Item = TypeVar("Item", Snapshot, AudioSection)


@attrs.frozen(kw_only=True)
class Finding:
    """Something new about a watched job: one of the attributes from ``snapshot`` on, or a verdict.

    Attributes:
        job_id: The job.
        verdict: The verdict of the snapshot or the section; alone, the verdict of the job, worse
            than those of all findings before.
        snapshot: A new snapshot.
        audio_section: A new audio section.
        state: The first state seen, or a changed one; ``job.ended`` tells whether it is the last.
        error: The error that ends watching the job.
        job: The job as it was when this was found.
    """

    job_id: str
    verdict: Verdict | None = None
    snapshot: Snapshot | None = None
    audio_section: AudioSection | None = None
    state: JobState | None = None
    error: LiveAuditError | None = None
    job: AuditJob | None = None

    @property
    def label(self) -> str | None:
        """The label of the snapshot, the section or the job, such as ``"Porn"``."""
        of = self.snapshot or self.audio_section or self.job
        return of.label if of is not None else None

    @property
    def time(self) -> int | None:
        """When the snapshot was taken or the section began, in milliseconds as sent."""
        if self.snapshot is not None:
            return self.snapshot.snapshot_time
        return self.audio_section.offset_time if self.audio_section is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, ready for ``json.dumps``; without the job."""
        names = [field.name for field in attrs.fields(Finding) if field.name != "job"]
        return {name: plain(getattr(self, name)) for name in (*names, "label", "time")}


@attrs.define
class Seen:
    """What has been seen of one job."""

    # How many items have been seen under each identity.
    _items: dict[Hashable, int] = attrs.field(factory=dict[Hashable, int])
    _state: JobState | None = None
    _severity: int = 0

    def update(self, job: AuditJob) -> list[Finding]:
        """Return what a job shows for the first time, in the order of the stream."""
        new = partial(Finding, job_id=job.job_id, job=job)
        found = [new(snapshot=it, verdict=it.result) for it in self._unseen(job.snapshots)]
        sections = self._unseen(job.audio_sections)
        found += [new(audio_section=it, verdict=it.result) for it in sections]
        found.sort(key=lambda finding: (finding.time is None, finding.time or 0))
        verdicts = [one.verdict for one in found if one.verdict is not None]
        self._severity = max(self._severity, *(verdict.severity for verdict in verdicts), 0)
        if job.result is not None and job.result.severity > self._severity:
            # Lists may be capped, or absent until the end.
            found.append(new(verdict=job.result))
            self._severity = job.result.severity
        if job.state != self._state:
            found.insert(len(found) if job.ended else 0, new(state=job.state))
            self._state = job.state
        return found

    def _unseen(self, items: Iterable[Item]) -> list[Item]:
        unseen: list[Item] = []
        shown: Counter[Hashable] = Counter()
        for item in items:
            identity = _identity(item)
            shown[identity] += 1
            if shown[identity] > self._items.get(identity, 0):
                self._items[identity] = shown[identity]
                unseen.append(item)
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
        if self._single and finding.error is not None:
            self._dispatcher.error = finding.error
            raise finding.error
        return finding


def _findings(seen: dict[str, Seen], update: Update) -> list[Finding]:
    """Return the findings of an update, and forget a job that is followed no longer."""
    job_id, job, error = update.job_id, update.job, update.error
    found = [] if job is None else seen.setdefault(job_id, Seen()).update(job)
    if error is not None:
        found.append(Finding(job_id=job_id, error=error))
    # An id that is no text may not be hashable.
    if isinstance(job_id, str) and (error is not None or (job is not None and job.ended)):
        seen.pop(job_id, None)
    return found
