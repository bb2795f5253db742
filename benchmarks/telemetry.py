"""Measures what telling observers of an attempt and of its call costs, against not telling them.

A client without observers pays for two looks at whether there is anybody, and saves the record of
the attempt, which nobody would see; so it is measured against the record as it was, which was
always made. With `OpenTelemetry` the cost depends on
what the application has set up: nothing but the API, metrics, spans that are sampled or not. All
this happens on the event loop. A call without it takes some 760 µs.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from report import Sample, Table, interleaved

from ci_live_audit import Attempt
from ci_live_audit.observers import Audience
from ci_live_audit.telemetry import OpenTelemetry

__all__ = ["run"]

LOGGER = logging.getLogger("ci_live_audit")
UNUSED_GOAL, SDK_GOAL = 0.1, 50
ADDED = ("endpoint", "lane")
ENDPOINT = "https://examplebucket-1250000000.ci.ap-beijing.myqcloud.com"
STATUSES: Counter[int | None] = Counter()
ID, REQUEST = "av0123456789abcdef", "NjI2ZjY2ZDBfMjAxNDQzMGFfMmQ1"
#: The record of an attempt as it was.
Before: Callable[..., Any] = attrs.make_class(
    "Before",
    {
        one.name: attrs.field(default=one.default)
        for one in attrs.fields(Attempt)
        if one.name not in ADDED
    },
    frozen=True,
    kw_only=True,
    slots=True,
)


class _Nowhere(SpanExporter):
    """Takes spans, as an exporter does, and sends none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


def run(*, quick: bool) -> Iterator[Table]:
    """Yield both tables."""
    number, rounds = (2000, 5) if quick else (20_000, 15)
    records = {
        "as it was": partial(_time, _before, number),
        "as it is, with nobody to tell": partial(_time, partial(_now, Audience()), number),
    }
    found = {name: Sample.of(values) for name, values in interleaved(records, rounds).items()}
    before, now = found.values()
    more = Sample.of(a - b for a, b in zip(now.values, before.values, strict=True))
    yield Table(
        f"The record of an attempt, CPU time, {rounds} rounds; at most {UNUSED_GOAL} µs more "
        "is the goal",
        ("record", "µs", "µs more"),
        [(name, cost, None if cost is before else more) for name, cost in found.items()],
    )
    observers = _observers()
    attempt = _attempt()
    cases = {
        f"{what}: {name}": partial(_time, partial(tell, Audience(hook), attempt), number)
        for what, tell in (("attempt", _tell_attempt), ("call", _tell_call))
        for name, hook in observers.items()
    }
    told = {name: Sample.of(values) for name, values in interleaved(cases, rounds).items()}
    yield Table(
        f"Telling an observer, CPU time, {rounds} rounds; at most {SDK_GOAL} µs an attempt "
        "is the goal",
        ("observer", "attempt, µs", "end of a call, µs"),
        [(name, told[f"attempt: {name}"], told[f"call: {name}"]) for name in observers],
    )


def _before() -> object:
    return Before(
        operation="query",
        job_id=ID,
        number=1,
        idempotent=True,
        queued=0.01,
        elapsed=0.03,
        since_first=0.03,
        status=200,
        request_id=REQUEST,
        error=None,
    )


def _now(audience: Audience) -> None:
    if audience.hooks or LOGGER.isEnabledFor(logging.DEBUG):
        _tell_attempt(audience, _attempt())
    if audience.observers:
        audience.tell("call_ended", "query", ID, 0.03, None)


def _attempt() -> Attempt:
    return Attempt(
        operation="query",
        job_id=ID,
        number=1,
        idempotent=True,
        queued=0.01,
        elapsed=0.03,
        since_first=0.03,
        status=200,
        request_id=REQUEST,
        error=None,
        endpoint=ENDPOINT,
        lane="call",
    )


def _tell_attempt(audience: Audience, attempt: Attempt) -> None:
    audience.attempted(attempt)


def _tell_call(audience: Audience, attempt: Attempt) -> None:
    audience.tell("call_ended", attempt.operation, attempt.job_id, attempt.elapsed, attempt.error)


def _observers() -> dict[str, Callable[[Attempt], object]]:
    return {
        "a function that counts": _count,
        "the API alone, metrics": OpenTelemetry("none"),
        "the API alone, metrics and spans": OpenTelemetry("all"),
        "an SDK, metrics": OpenTelemetry("none", meter_provider=_meters()),
        "an SDK, metrics and spans that are not sampled": _with_spans(ALWAYS_OFF),
        "an SDK, metrics and spans in batches": _with_spans(ALWAYS_ON),
    }


def _count(attempt: Attempt) -> None:
    STATUSES[attempt.status] += 1


def _meters() -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def _with_spans(sampler: Sampler) -> OpenTelemetry:
    tracers = TracerProvider(sampler, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return OpenTelemetry("all", meter_provider=_meters(), tracer_provider=tracers)


def _time(tell: Callable[[], object], number: int) -> float:
    """Return the CPU µs of one time, those of threads of the SDK included."""
    gc.collect()
    gc.disable()
    began = time.process_time()
    for _ in range(number):
        tell()
    spent = time.process_time() - began
    gc.enable()
    return spent / number * 1e6
