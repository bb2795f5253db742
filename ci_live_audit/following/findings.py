"""What turns up while streams run: `Findings` (watch), each once.

A snapshot is known by its time and an audio section by its offset and duration, for their URLs are
signed anew in every answer; with another label or verdict it is news again. Nothing is concluded
from what an answer leaves out: no document says whether a query shows findings while a stream runs,
and how many of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import attrs

from ci_live_audit.errors import LiveAuditError
from ci_live_audit.following.ids import Source
from ci_live_audit.following.run import Query, Run
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict, plain

__all__ = ["Finding", "Findings", "Seen"]

SEVERITY = {Verdict.SUSPECTED: 1, Verdict.SENSITIVE: 2}


@attrs.frozen(kw_only=True)
class Finding:
    """Something new about a job that is watched.

    It is one of these: a snapshot; an audio section; a state, the first one seen and every change;
    a verdict of the job that is worse than those of all findings before; an error, after which
    nothing more comes of this job.

    Attributes:
        job_id: The job.
        verdict: The judgement of the snapshot, the section or the job; None with a state.
        snapshot: The snapshot, if it is one.
        audio_section: The audio section, if it is one.
        state: The state, if it is one; ``job.ended`` tells whether it is the last.
        error: What made an end of watching this job.
        job: The answer in which it came.
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
        """What was found, as ``"Porn"``: the label of the snapshot, the section or the job."""
        of = self.snapshot or self.audio_section or self.job
        return of.label if of is not None else None

    @property
    def time(self) -> int | None:
        """Milliseconds at which a snapshot was taken or a section began, as sent."""
        if self.snapshot is not None:
            return self.snapshot.snapshot_time
        return self.audio_section.offset_time if self.audio_section is not None else None

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values, ready for ``json.dumps``; the job itself is left out."""
        names = [field.name for field in attrs.fields(Finding) if field.name != "job"]
        return {name: plain(getattr(self, name)) for name in (*names, "label", "time")}


@attrs.define
class Seen:
    """What has been seen of one job."""

    #: How many items have been seen under each identity.
    _items: dict[Hashable, int] = attrs.field(factory=dict[Hashable, int])
    _state: JobState | None = None
    _severity: int = 0

    def news(self, job: AuditJob) -> list[Finding]:
        """What an answer shows for the first time, in the order of the stream."""
        found = [
            Finding(
                job_id=job.job_id,
                verdict=item.result,
                snapshot=item if isinstance(item, Snapshot) else None,
                audio_section=item if isinstance(item, AudioSection) else None,
                job=job,
            )
            for item in self._unseen(job)
        ]
        found.sort(key=lambda finding: (finding.time is None, finding.time or 0))
        worst = max((SEVERITY.get(one.verdict, 0) for one in found if one.verdict), default=0)
        overall = SEVERITY.get(job.result, 0) if job.result is not None else 0
        self._severity = max(self._severity, worst)
        if overall > self._severity:
            # Lists may be capped, or absent until the end.
            found.append(Finding(job_id=job.job_id, verdict=job.result, job=job))
            self._severity = overall
        if job.state != self._state:
            change = Finding(job_id=job.job_id, state=job.state, job=job)
            found.insert(len(found) if job.ended else 0, change)
            self._state = job.state
        return found

    def _unseen(self, job: AuditJob) -> list[Snapshot | AudioSection]:
        unseen: list[Snapshot | AudioSection] = []
        shown: Counter[Hashable] = Counter()
        items: list[Snapshot | AudioSection] = [*job.snapshots, *job.audio_sections]
        for item in items:
            identity = _identity(item)
            shown[identity] += 1
            if shown[identity] > self._items.get(identity, 0):
                self._items[identity] = shown[identity]
                unseen.append(item)
        return unseen


def _identity(item: Snapshot | AudioSection) -> Hashable:
    """What stays the same from answer to answer."""
    if isinstance(item, Snapshot):
        if item.snapshot_time is not None:
            return item.snapshot_time, item.label, item.result
    elif item.offset_time is not None:
        return item.offset_time, item.duration, item.label, item.result
    return attrs.evolve(item, url=None, url_expires_at=None)


class Findings(Run[Finding]):
    """What turns up in the jobs that are watched, while their streams run: an async iterator.

    Made by `LiveAuditClient.watch`. Use it as ``async with … as findings``; leaving it stops
    everything. It ends when all jobs have ended.

    Attributes:
        job: The newest answer; of a single job that has ended, the final one.
    """

    def __init__(self, query: Query, job_ids: str | Source, **options: Any) -> None:
        self._single = isinstance(job_ids, str)
        source = [job_ids] if isinstance(job_ids, str) else job_ids
        super().__init__(query, source, keep_last=self._single, **options)
        self._seen: dict[int, Seen] = {}
        self.job: AuditJob | None = None

    def _deliver(self, number: int, job: AuditJob) -> None:
        self.job = job
        seen = self._seen.pop(number, None) or Seen()
        self._ready.extend(seen.news(job))
        if not job.ended:
            self._seen[number] = seen

    def _deliver_error(self, number: int | None, job_id: str, error: LiveAuditError) -> None:
        if number is not None:
            self._seen.pop(number, None)
        if self._single:
            self._broken = error
        else:
            self._ready.append(Finding(job_id=job_id, error=error))
