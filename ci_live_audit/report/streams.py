"""A job as a page shows it, in front of the items that it lists. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from urllib.parse import urlsplit

import attrs

from ci_live_audit.errors import JobFailed
from ci_live_audit.following.outcomes import Outcome
from ci_live_audit.models import AuditJob, JobState, plain
from ci_live_audit.report import texts
from ci_live_audit.report.cards import Card, card
from ci_live_audit.report.items import Found, Item, items
from ci_live_audit.report.texts import LONG, clipped
from ci_live_audit.report.timeline import Timeline, timeline
from ci_live_audit.report.verdicts import FAILED, Judgement, Rank, judge

__all__ = ["Stream", "stream"]

#: Account lists and unreadable values that are named.
FEW = 20
LISTS = {0: "Allow list", 1: "Block list"}


@attrs.frozen
class Fact:
    """A name and its value; ``link`` is a URL of the web."""

    name: str
    value: str
    link: str | None = None


@attrs.frozen(kw_only=True)
class Stream:
    """A job and what a person should look at in it, the worst first.

    Attributes:
        number: Its place among the jobs, as they came.
        name: What people call it: the ``data_id``, the end of the URL, or the id.
        notes: What must not be missed about it as a whole.
        pictures: How many snapshots it has, and ``sounds`` how many sections.
        flagged: How many of its items have a judgement, by its word.
        as_of: When it was queried.
    """

    number: int
    job_id: str
    name: str
    judgement: Judgement
    labels: tuple[str, ...]
    state: str
    notes: tuple[str, ...]
    pictures: int
    sounds: int
    flagged: dict[str, int]
    listed: tuple[Item, ...]
    timeline: Timeline | None
    as_of: datetime | None
    facts: tuple[Fact, ...]

    @property
    def worst(self) -> Item | None:
        """The worst item."""
        return self.listed[0] if self.listed else None

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The key by which streams are sorted, the worst first."""
        score = -1 if self.worst is None or self.worst.score is None else self.worst.score
        return -self.judgement.rank, -score, -len(self.listed), self.number


def stream(number: int, given: AuditJob | Outcome) -> tuple[Stream, list[Card]]:
    """Return what a page shows of a job, or of the error in its place; and its cards."""
    if isinstance(given, AuditJob):
        given = Outcome(job_id=given.job_id, job=given)
    job, error = given.job, given.error
    pairs = [] if job is None else list(items(job))
    found = [item for item, _ in pairs]
    # Those that are equally bad stay in the order of the stream.
    worst_first = sorted((pair for pair in pairs if pair[0].listed), key=_badness)
    listed = [item for item, _ in worst_first]
    notes: list[str] = []
    if error is not None and not isinstance(error, JobFailed):
        notes.append(clipped(str(error), LONG))
    if job is not None:
        notes += _notes(job, found)
    shown = Stream(
        number=number,
        job_id=given.job_id,
        name=_name(given.job_id, job),
        judgement=_judgement(job, found),
        labels=() if job is None else _labels(job),
        state="Not known" if job is None else clipped(job.state.value),
        notes=tuple(notes),
        pictures=sum(item.kind == "picture" for item in found),
        sounds=sum(item.kind == "sound" for item in found),
        flagged=dict(Counter(item.judgement.word for item in listed)),
        listed=tuple(listed),
        timeline=timeline(found, {item.key: place for place, item in enumerate(listed)}),
        as_of=None if job is None else job.received_at,
        facts=tuple(_facts(given.job_id, job)),
    )
    return shown, [card(*pair) for pair in worst_first]


def _badness(pair: tuple[Item, Found]) -> tuple[int, int]:
    item = pair[0]
    return -item.judgement.rank, 1 if item.score is None else -item.score


def _name(job_id: str, job: AuditJob | None) -> str:
    if job is not None and job.data_id:
        return clipped(job.data_id)
    try:
        path = urlsplit((job and job.url) or "").path
    except ValueError:
        path = ""
    return clipped(path.rstrip("/").rpartition("/")[2] or job_id)


def _judgement(job: AuditJob | None, found: Iterable[Item]) -> Judgement:
    """Return the worst of what is known; what is not known for good is not called normal."""
    if job is None:
        return Judgement(Rank.FAILED, "No result")
    own = judge(job.result, job.hits)
    if job.state == JobState.FAILED:
        own = max(own, FAILED, key=lambda one: one.rank)
    elif own.rank <= Rank.UNCLEAR and job.state != JobState.SUCCESS:
        until = "until cancelled" if job.ended else "so far"
        own = Judgement(Rank.UNCLEAR, f"{own.word} {until}")
    listed = (item.judgement for item in found if item.listed)
    return max((own, *listed), key=lambda one: one.rank)


def _labels(job: AuditJob) -> tuple[str, ...]:
    words = [job.label, job.sub_label, *job.hits]
    return tuple(dict.fromkeys(clipped(word) for word in words if word and word != "Normal"))[:FEW]


def _notes(job: AuditJob, found: Sequence[Item]) -> Iterator[str]:
    if job.state == JobState.FAILED:
        reason = " ".join(filter(None, [job.code, job.message])) or "the service gave no reason"
        yield f"The job failed; the stream was not moderated to its end: {clipped(reason, LONG)}"
    own = judge(job.result, job.hits)
    worst = max((item.judgement.rank for item in found), default=Rank.NORMAL)
    if own.flagged and worst < Rank.SUSPECTED:
        yield (
            f"The service calls this stream {own.word.lower()}, "
            "but sent no picture or sound that shows why."
        )
    elif job.ended and own.rank < worst >= Rank.SUSPECTED:
        yield f"The service's verdict on the whole stream is milder than these: {own.word.lower()}."
    if job.snapshot_count is not None and job.snapshot_count > len(job.snapshots):
        yield f"The service took {job.snapshot_count:,} pictures and lists {len(job.snapshots):,}."
    if job.unreadable:
        names = ", ".join(job.unreadable[:FEW])
        yield f"Values that could not be read ({len(job.unreadable):,}): {clipped(names, LONG)}"


def _facts(job_id: str, job: AuditJob | None) -> Iterator[Fact]:
    yield Fact("Job", clipped(job_id, LONG))
    if job is None:
        return
    named = {
        "Data id": job.data_id,
        "Stream": job.url,
        "Object": job.object,
        "Bucket": job.bucket_id,
        "Region": job.region,
        "Created": job.creation_time and texts.iso(job.creation_time),
        "Code": job.code,
        "Message": job.message,
        "Request": job.request_id,
    }
    for name, value in named.items():
        if value:
            yield Fact(
                name, clipped(value, LONG), texts.web_url(value) if name == "Stream" else None
            )
    for one in job.list_results[:FEW]:
        kind = "Account list" if one.list_type is None else LISTS.get(one.list_type, "Account list")
        yield Fact(kind, clipped(", ".join(filter(None, [one.list_name, one.entity]))))
    if job.user_info is not None:
        for name, value in plain(job.user_info).items():
            if value and name != "extra":
                yield Fact(f"User: {name.replace('_', ' ')}", clipped(value))
        if job.user_info.extra:
            yield Fact("User: other", texts.values(job.user_info.extra))
    others = {
        "Masking": job.mask_info and job.mask_info.to_dict(),
        "Texts": [one.to_dict() for one in job.ocr_hit_infos],
        "COS headers": job.cos_headers,
        "Other": job.extra,
    }
    for name, several in others.items():
        if several:
            yield Fact(name, texts.values(several))
