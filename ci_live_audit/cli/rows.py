"""What a line for people says of a finding, an outcome, or an item of a job. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import TypeAlias

import attrs

from ci_live_audit.cli.filters import Filter, Judged
from ci_live_audit.cli.words import clean, clock, elapsed, is_flagged, name_of, word
from ci_live_audit.errors import WaitTimeout
from ci_live_audit.following.finding import (
    AudioFinding,
    Finding,
    SnapshotFinding,
    StateChange,
    VerdictChange,
    WatchFailed,
)
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AudioSection, AuditJob, JobState, Snapshot, Verdict
from ci_live_audit.report.cards import keywords
from ci_live_audit.report.texts import web_url

__all__ = ["STYLES", "Item", "Row", "View", "items", "judged"]

STYLES: dict[Verdict | None, str] = {Verdict.SENSITIVE: "bold red", Verdict.SUSPECTED: "yellow"}
NO_FILTER = Filter()
Item: TypeAlias = Snapshot | AudioSection


@attrs.frozen(kw_only=True)
class Row:
    """The cells of a line; an empty one is not known.

    Attributes:
        time: The time of day, and ``offset`` the time since the job was created.
        verdict: A verdict, or a state.
        stream: What people call the stream, or the whole ``job_id``.
        details: All else, of any length; ``whole`` if nothing of it may be cut off.
        url: Of the picture or the sound, if it is one of the web.
        style: Of the line.
    """

    job_id: str = ""
    time: str = ""
    offset: str = ""
    verdict: str = ""
    scene: str = ""
    score: str = ""
    stream: str = ""
    details: str = ""
    whole: bool = False
    url: str | None = None
    style: str = ""


@attrs.frozen(kw_only=True)
class View:
    """What of the results people see, and how.

    Attributes:
        zone: The zone of times; None is that of this machine.
        urls: Whether URLs of pictures and sounds are printed.
        keep: Which findings are shown.
    """

    zone: tzinfo | None = None
    urls: bool = False
    keep: Filter = NO_FILTER

    def finding(self, finding: Finding, now: datetime) -> Row:
        """Return the row of a finding."""
        stream = finding.stream
        given = (None, None) if stream is None else (stream.data_id, stream.url)
        if isinstance(finding, WatchFailed):
            late = finding.error if isinstance(finding.error, WaitTimeout) else None
            last = None if late is None else late.last
            return Row(
                job_id=clean(finding.job_id),
                time=clock(now, self.zone),
                verdict="Error" if late is None else "Timed out",
                stream=name_of(last, *given) or clean(finding.job_id),
                details=clean(finding.error),
                whole=True,
            )
        job = finding.job
        name = name_of(job, *given) or clean(finding.job_id)
        if isinstance(finding, StateChange | VerdictChange):
            row = self._change(finding, job, now)
        else:
            row = self.item(
                job,
                finding.snapshot if isinstance(finding, SnapshotFinding) else finding.audio_section,
            )
        return attrs.evolve(row, job_id=clean(finding.job_id), stream=name)

    def item(self, job: AuditJob, item: Item) -> Row:
        """Return the row of an item of a job, without its stream."""
        at = time_of(item)
        return attrs.evolve(
            self._found(item),
            time="" if at is None else clock(at, self.zone),
            offset=_offset(job, item),
            details=", ".join(self._details(item)),
            url=web_url(item.url),
            style=STYLES.get(item.result, ""),
        )

    def outcome(self, outcome: Outcome) -> Row:
        """Return the row of an outcome: the verdict, and the worst item of the job."""
        job, error, job_id = outcome.job, outcome.error, clean(outcome.job_id)
        late = isinstance(error, WaitTimeout)
        if job is None:
            text = clean(error)
            state = "Timed out" if late else "Error"
            return Row(job_id=job_id, verdict=state, details=text, whole=True, style="red")
        worst = self.worst(job)
        row = attrs.evolve(
            self._found(worst or job),
            job_id=job_id,
            verdict=_outcome(job, late=late),
            style=STYLES.get(job.result, ""),
        )
        if not is_flagged(job.result):
            row = attrs.evolve(row, scene="", score="")
        at = None if worst is None else time_of(worst)
        told = ["timed out" if late and is_flagged(job.result) else "", *_reason(job)]
        return attrs.evolve(
            row,
            time="" if at is None else clock(at, self.zone),
            stream=name_of(job) or "",
            details=", ".join(filter(None, told)),
            whole=job.state == JobState.FAILED,
        )

    def worst(self, job: AuditJob) -> Item | None:
        """Return the worst of what is flagged in a job and shown, the first of several."""
        return next(iter(self.worst_first(job)), None)

    def worst_first(self, job: AuditJob) -> list[Item]:
        """Return what is flagged in a job and shown, the worst first."""
        return sorted(self.flagged(job), key=self._badness)

    def flagged(self, job: AuditJob) -> list[Item]:
        """Return what is flagged in a job and shown, in the order of the stream."""
        flagged = (item for item in items(job) if is_flagged(item.result))
        return [item for item in flagged if self.keep.passes(item)]

    def _badness(self, item: Item) -> tuple[int, int]:
        hit = self.keep.hit(item)
        score = None if hit is None else hit[1].score
        return -(item.result.severity if item.result else 0), 1 if score is None else -score

    def _change(self, finding: StateChange | VerdictChange, job: AuditJob, now: datetime) -> Row:
        time = clock(job.received_at or now, self.zone)
        if isinstance(finding, StateChange):
            reason = ", ".join(_reason(job))
            return Row(time=time, verdict=clean(finding.state.value), details=reason, whole=True)
        row = attrs.evolve(self._found(job), verdict=clean(word(finding.verdict)))
        style = STYLES.get(finding.verdict, "")
        return attrs.evolve(row, time=time, style=style, details="the stream as a whole")

    def _found(self, found: Judged) -> Row:
        """Return a row of a verdict and what was hit."""
        hit = self.keep.hit(found)
        score = None if hit is None else hit[1].score
        verdict = word(found.result) or ""
        name = found.label if hit is None else hit[0]
        scene = "" if name == verdict else clean(name or "")
        return Row(verdict=verdict, scene=scene, score="" if score is None else clean(score))

    def _details(self, item: Item) -> Iterator[str]:
        """Yield what else is known of an item: the finer labels, other scenes, words and text."""
        worst, scene = self.keep.hit(item) or ("", None)
        labels = [] if scene is None else [scene.sub_label, scene.category]
        if isinstance(item, AudioSection):
            yield "audio"
            labels.append(item.sub_label)
        yield from (clean(label) for label in dict.fromkeys(filter(None, labels)))
        for name, other in item.hits.items():
            if name != worst:
                yield clean(name if other.score is None else f"{name} {other.score}")
        words = ", ".join(f'"{clean(word)}"' for word in keywords(item, item.hits))
        read = (one.text for scene in item.hits.values() for one in scene.ocr_results)
        text = clean(item.text or " ".join(filter(None, read)))
        if words or text:
            yield " in ".join(filter(None, [words, text and f'"{text}"']))


def judged(finding: Finding) -> Judged | None:
    """Return what the verdict of a finding is about; None if it has none."""
    match finding:
        case SnapshotFinding():
            return finding.snapshot
        case AudioFinding():
            return finding.audio_section
        case VerdictChange():
            return finding.job
        case _:
            return None


def items(job: AuditJob) -> list[Item]:
    """Return the snapshots and sections of a job in the order of the stream."""
    found: list[Item] = [*job.snapshots, *job.audio_sections]
    return sorted(found, key=lambda item: number_of(item) or 0)


def number_of(item: Item) -> int | None:
    """Return the time of an item as sent, in milliseconds."""
    return item.snapshot_time if isinstance(item, Snapshot) else item.offset_time


def time_of(item: Item) -> datetime | None:
    """Return when an item was taken or began, if that is known."""
    return item.taken_at if isinstance(item, Snapshot) else item.began_at


def _offset(job: AuditJob, item: Item) -> str:
    """Return how far into the stream an item is: since the job was created, or as sent."""
    at, number = time_of(item), number_of(item)
    if at is None:
        sign = "-" if number is not None and number < 0 else "+"
        return "" if number is None else f"({sign}{elapsed(abs(number) / 1000)})"
    seconds = -1.0 if job.creation_time is None else (at - job.creation_time).total_seconds()
    return "" if seconds < 0 else f"(+{elapsed(seconds)})"


def _outcome(job: AuditJob, *, late: bool) -> str:
    """Return the verdict on a job if it is flagged or all of it was seen, or else its state."""
    if is_flagged(job.result) or job.state == JobState.SUCCESS:
        return clean(word(job.result) or job.state.value)
    return "Timed out" if late else clean(job.state.value)


def _reason(job: AuditJob) -> Iterator[str]:
    """Yield why a job failed; of others the service may send "Success"."""
    if job.state == JobState.FAILED:
        reason = " ".join(filter(None, [job.code, job.message]))
        yield clean(reason or "no reason was given")
