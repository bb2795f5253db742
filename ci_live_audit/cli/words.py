"""Texts, numbers and times as people read them in a terminal. Pure."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from unicodedata import category
from urllib.parse import unquote, urlsplit

from rich.cells import cell_len, set_cell_size

from ci_live_audit.models import AuditJob, JobState, Verdict
from ci_live_audit.report.texts import HIDDEN, visible

__all__ = [
    "clean",
    "clock",
    "count",
    "cut",
    "date",
    "elapsed",
    "is_flagged",
    "judgement",
    "name_of",
    "span",
    "word",
]

#: Names of playlists, which tell nothing of the stream.
PLAYLIST = re.compile(r"(?i)(index|playlist|master|manifest|chunklist|live|stream)\b[^/]*")
#: Characters of a text that are looked at.
LONGEST = 10_000


def clean(value: object) -> str:
    """Return a text without control characters, and without what hides or turns it.

    Some texts come from streams: each such character becomes one that can be seen.
    """
    text = HIDDEN.sub("\ufffd", str(value)[:LONGEST])
    text = visible("".join(one if one.isprintable() else "\ufffd" for one in text))
    # A mark in front would be put on whatever stands before, and change its width.
    return f"\u25cc{text}" if text and category(text[0]).startswith("M") else text


def cut(text: str, cells: int) -> str:
    """Return a text that is at most some cells wide, with an ellipsis where the rest was."""
    if cell_len(text) <= cells:
        return text
    return f"{set_cell_size(text, cells - 1).rstrip()}\u2026" if cells > 0 else ""


def count(number: int, noun: str) -> str:
    """Return a number of things: ``1 job``, ``2,000 jobs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def elapsed(seconds: float) -> str:
    """Return a stretch of time: ``1:08``, ``1:02:03``, from ten hours on ``10h02m``."""
    sign, whole = "-" if seconds < 0 else "", abs(int(seconds))
    minutes, rest = divmod(whole, 60)
    if whole >= 36_000:
        return f"{sign}{minutes // 60}h{minutes % 60:02}m"
    if minutes >= 60:
        return f"{sign}{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return f"{sign}{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """Return a stretch of time from now: ``3 s``, ``1:08``."""
    return f"{seconds:.0f} s" if seconds < 60 else elapsed(seconds)


def clock(at: datetime, zone: tzinfo | None) -> str:
    """Return a time of day; the zone of this machine by default."""
    return f"{_in(at, zone):%H:%M:%S}"


def date(at: datetime, zone: tzinfo | None) -> str:
    """Return a date and a time of day with the zone."""
    shown = _in(at, zone)
    return f"{shown.isoformat(sep=' ', timespec='seconds')}"


def _in(at: datetime, zone: tzinfo | None) -> datetime:
    try:
        return at.astimezone(zone)
    except (OverflowError, OSError):  # a day that the zone of this machine does not have
        return at


def is_flagged(verdict: Verdict | None) -> bool:
    """Return whether a verdict is suspected or sensitive."""
    return verdict is not None and verdict.severity > 0


def word(verdict: Verdict | None) -> str | None:
    """Return a verdict in a word."""
    if verdict is None:
        return None
    return verdict.name.capitalize() if verdict in list(Verdict) else f"verdict {verdict.value}"


def judgement(job: AuditJob) -> str | None:
    """Return the verdict on a job as far as it goes: nobody has seen all of one that failed."""
    told = word(job.result)
    if told is None or job.result != Verdict.NORMAL or job.state == JobState.SUCCESS:
        return told
    if job.state == JobState.FAILED:
        return None
    return f"{told} {'until cancelled' if job.ended else 'so far'}"


def name_of(job: AuditJob | None, data_id: str | None = None, url: str | None = None) -> str | None:
    """Return what people call a stream: its data id, or else the end of its URL."""
    data_id = data_id or (job.data_id if job is not None else None)
    if data_id:
        return clean(data_id)
    url = url or (job.url if job is not None else None) or ""
    try:
        parts = urlsplit(url)
        path, host = unquote(parts.path).strip("/"), parts.hostname or ""
    except ValueError:
        return None
    above, _, last = path.rpartition("/")
    if above and PLAYLIST.fullmatch(last):
        last = f"{above.rpartition('/')[2]}/{last}"
    return clean(last or host) or None
