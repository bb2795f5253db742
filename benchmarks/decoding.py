"""The cost of decoding a body, against the parsers below it (the limit) and the SDK (the peer).

`decode.job` makes typed, frozen values of what `xmltodict.parse` makes of what expat reads. So
expat with handlers that do nothing cannot be beaten, bare xmltodict is the cost if our own part
were free, and the SDK (ElementTree, a dict of its own, ``eval`` of its text, lists where there may
be several) is what users have today. Memory is the peak growth while decoding, in multiples of the
body, as a large body must not exhaust a small machine.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any
from xml.parsers import expat

import service
import xmltodict
from peers import vendor
from report import Sample, Table, interleaved

from ci_live_audit import decode

__all__ = ["run"]

#: Numbers of snapshots, and of audio sections: about 2.5 KB, 190 KB, 3.9 MB and 39 MB.
COUNTS = (1, 112, 2275, 22750)
NOW = datetime(2026, 8, 7, 5, 0, tzinfo=UTC)
EXPAT, XMLTODICT, OURS, VENDOR = "expat", "xmltodict.parse", "decode.job", "SDK"


def run(*, quick: bool) -> Iterator[Table]:
    """Yield the table."""
    rows = []
    bodies = [("", service.ENGLISH, count) for count in COUNTS]
    bodies += [("Chinese ", service.CHINESE, count) for count in COUNTS[:3]]
    for language, texts, count in bodies[:2] if quick else bodies:
        body = service.answer(count, texts)
        decoders: dict[str, Callable[[], object]] = {
            EXPAT: partial(_expat, body),
            XMLTODICT: partial(xmltodict.parse, body),
            OURS: partial(decode.job, body, received_at=NOW),
            VENDOR: _vendor(body),
        }
        times = max(1, 1_000_000 // len(body))
        huge = len(body) > 10_000_000
        rounds = 3 if huge else 5 if quick else 11
        cases = {name: partial(_cpu, run_one, times) for name, run_one in decoders.items()}
        cost = {name: Sample.of(found) for name, found in interleaved(cases, rounds).items()}
        rows += [
            (
                f"{language}{len(body) / 1000:,.1f} KB: {name}",
                cost[name],
                cost[name] / cost[EXPAT],
                cost[name] / cost[XMLTODICT],
                cost[name] / cost[VENDOR],
                # Tracing the allocations of the SDK for a huge body takes minutes.
                None if huge and name == VENDOR else round(_peak(run_one) / len(body), 2),
            )
            for name, run_one in decoders.items()
        ]
    yield Table(
        "Decoding one body, CPU time, 3 to 11 rounds",
        ("body: decoder", "ms", "vs expat", "vs xmltodict", "vs SDK", "peak memory vs body"),
        rows,
        (
            "expat: three handlers that do nothing. SDK: ci_auditing_video_query, its exchange",
            "replaced by one that has the body. A tenth of the snapshots have OCR, object and",
            "library results.",
        ),
    )


def _expat(body: bytes) -> None:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda _name, _attributes: None
    parser.EndElementHandler = lambda _name: None
    parser.CharacterDataHandler = lambda _text: None
    parser.Parse(body, True)


def _vendor(body: bytes) -> Callable[[], Any]:
    client = vendor("http://127.0.0.1:1")
    client.send_request = lambda **_: SimpleNamespace(content=body)
    return partial(client.ci_auditing_video_query, service.BUCKET, service.JOB_ID)


def _cpu(run_one: Callable[[], object], times: int) -> float:
    """Return the CPU milliseconds of one decoding."""
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        run_one()
    return (time.process_time() - began) / times * 1e3


def _peak(run_one: Callable[[], object]) -> int:
    """Return the peak growth of memory in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        run_one()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
