"""The cost of a poll of a long stream: what is new is read, and what is known is only passed over.

The limits are decoding the whole response, and a bare search for the borders of its items, which
any way of telling them apart has to do. URLs are signed anew in every response, as by the service.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from functools import partial

import service
from picture import Series
from report import Sample, Table, interleaved

from ci_live_audit import decode
from ci_live_audit.following.reading import Reading
from ci_live_audit.following.seen import News, Seen

__all__ = ["run"]

#: Numbers of snapshots, and of audio sections: 0.19, 1.9, 3.9 and 39 MB.
COUNTS = (112, 1137, 2275, 22750)
#: Items of each kind after each hour of a stream, at one in 2 seconds.
HOURS = (1800, 3600, 5400, 7200, 9000)
WHOLE, BORDERS = "decode.job", "bytes.find, the borders"
WATCH, ENDS = "watch, one new snapshot", "as_completed, the job goes on"
SIGNATURE = re.compile(rb"(?<=q-signature=)[0-9a-f]+")


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the tables."""
    rows = []
    for count in COUNTS[:2] if quick else COUNTS:
        size, cost = _measure(count)
        rows += [
            (f"{size}: {name}", cost[name], cost[WHOLE] / cost[name], cost[name] / cost[BORDERS])
            for name in cost
        ]
    columns = ("", "CPU ms", "times as fast as decode.job", "vs bytes.find")
    yield Table("One poll, by the size of the response", columns, rows)

    hours = [_measure(count)[1] for count in (HOURS[:2] if quick else HOURS)]
    yield Table(
        f"One poll after each of {len(hours)} hours of a stream",
        ("", "CPU ms", "last vs first hour", "last vs decode.job"),
        [
            (
                name,
                Series.of(cost[name].median for cost in hours),
                hours[-1][name].median / hours[0][name].median,
                hours[-1][name].median / hours[-1][WHOLE].median,
            )
            for name in hours[0]
        ],
        ("Of each hour, the median; a snapshot and a section every two seconds.",),
    )


def _measure(count: int) -> tuple[str, dict[str, Sample]]:
    """Return the size of a response with so many items of each kind, and the costs."""
    before, body = _signed_anew(service.answer(count)), _signed_anew(_one_more(count))
    known = News(Seen())
    known.read(before)
    cases: dict[str, Callable[[], object]] = {
        WHOLE: partial(decode.job, body),
        BORDERS: partial(_borders, body),
        WATCH: partial(_watch, known.seen, body),
        ENDS: partial(Reading().read, body),
    }
    rounds = 3 if len(body) > 10_000_000 else 7
    timed = {name: partial(_cpu, case) for name, case in cases.items()}
    found = interleaved(timed, rounds)
    return f"{len(body) / 1e6:.2f} MB", {name: Sample.of(one) for name, one in found.items()}


def _one_more(count: int) -> bytes:
    """Return a job with one snapshot more than audio sections."""
    body = service.answer(count + 1)
    start = body.rindex(b"<AudioSection>")
    end = body.rindex(b"</AudioSection>") + len(b"</AudioSection>")
    return body[:start] + body[end:]


def _signed_anew(body: bytes) -> bytes:
    return SIGNATURE.sub(lambda _: b"%040x" % random.getrandbits(160), body)


def _watch(seen: Seen, body: bytes) -> None:
    assert len(News(seen).read(body).snapshots) == 1


def _borders(body: bytes) -> None:
    for tag in (b"Snapshot", b"AudioSection"):
        at = body.find(b"<%b>" % tag)
        while at >= 0:
            at = body.find(b"<%b>" % tag, body.find(b"</%b>" % tag, at))


def _cpu(case: Callable[[], object]) -> float:
    began = time.process_time()
    case()
    return (time.process_time() - began) * 1000
