"""The course of a stream in one line of text: ``21:23 ....s.....S..x 22:10``. Pure."""

from __future__ import annotations

from datetime import tzinfo

from ci_live_audit.cli.rows import items, number_of, time_of
from ci_live_audit.cli.words import clock, elapsed, is_flagged
from ci_live_audit.models import AuditJob, JobState, Verdict

__all__ = ["strip"]

#: Signs at most.
LONGEST = 60
#: Seconds of a stream of which times are shown without seconds.
LONG = 600
SIGNS = {"S": "sensitive", "s": "suspected", ".": "not flagged", "x": "cancelled", "!": "failed"}
ENDS = {JobState.CANCELLED: "x", JobState.FAILED: "!"}


def strip(job: AuditJob, width: int, zone: tzinfo | None) -> list[str]:
    """Return the worst of each part of a stream by a sign, and what the signs mean.

    It is empty if the times of fewer than two items are known.
    """
    found = [(number, item) for item in items(job) if (number := number_of(item)) is not None]
    if len(found) < 2 or found[0][0] == found[-1][0]:
        return []
    (begin, first), (end, last) = found[0], found[-1]
    begin_at, end_at = time_of(first), time_of(last)
    if begin_at is not None and end_at is not None:
        places = [clock(at, zone) for at in (begin_at, end_at)]
        if end - begin >= LONG * 1000:
            places = [place[:5] for place in places]
    else:
        places = [elapsed(number / 1000) for number in (begin, end)]
    size = max(1, min(len(found) * 2 // 3 + 1, LONGEST, width - sum(map(len, places)) - 3))
    worst = [-1] * size
    for number, item in found:
        part = min(size - 1, (number - begin) * size // (end - begin))
        flagged = item.result if is_flagged(item.result) else None
        worst[part] = max(
            worst[part], Verdict.NORMAL.severity if flagged is None else flagged.severity
        )
    signs = "".join(" .sS"[severity + 1] for severity in worst) + ENDS.get(job.state, "")
    legend = (f"{sign} {SIGNS[sign]}" for sign in SIGNS if sign in signs)
    return [f"{places[0]} {signs} {places[1]}", ", ".join(legend)]
