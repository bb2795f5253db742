"""Spans of attempts; several observers of one provider; without an SDK; without the API."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import Any, Literal

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from sdk import Sdk
from servers import answering, client_for, serving

from ci_live_audit import ConfigurationError, JobNotFound, RetryPolicy
from ci_live_audit.telemetry import OpenTelemetry
from ci_live_audit.testing import Emulator, Fault

JOB = b"<Response><JobsDetail><JobId>a</JobId><State>Success</State></JobsDetail></Response>"


async def test_every_attempt_of_a_call_has_a_span() -> None:
    """It is the caller's child, lasts as long as the attempt did, and says what happened."""
    emulator = Emulator()
    emulator.inject(Fault.error(503), times=1)
    sdk = Sdk()
    job_id = emulator.add_job()
    async with emulator.client(on_attempt=sdk.telemetry()) as client:
        with sdk.tracers.get_tracer("app").start_as_current_span("the caller's") as parent:
            await client.query(job_id)
    failed, succeeded, outer = sdk.spans()
    assert outer.name == "the caller's"
    for number, span in enumerate([failed, succeeded]):
        assert span.name == "GET /video/auditing/{job_id}"
        assert span.kind is SpanKind.CLIENT
        assert span.parent == parent.get_span_context()
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "ci_live_audit"
        assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
        assert span.attributes is not None
        attributes = dict(span.attributes)
        assert attributes.pop("ci_live_audit.request.id")
        assert attributes == {
            "http.request.method": "GET",
            "http.response.status_code": 200 if number else 503,
            "server.address": emulator.host,
            "server.port": 443,
            "url.template": "/video/auditing/{job_id}",
            "ci_live_audit.job.id": job_id,
            **({"http.request.resend_count": 1} if number else {"error.type": "503"}),
        }
    assert failed.status.status_code is StatusCode.ERROR
    assert succeeded.status.status_code is StatusCode.UNSET


async def test_a_span_lasts_from_the_limiter_to_the_end_of_the_attempt() -> None:
    """It is made afterwards, with its start time; the wait for the limiter is not part of it."""
    emulator = Emulator()
    emulator.inject(Fault.slow(3))
    sdk = Sdk()
    async with emulator.client(on_attempt=sdk.telemetry(), rate=0.1) as client:
        await asyncio.gather(client.query(emulator.add_job()), client.query(emulator.add_job()))
    for span in sdk.spans():
        assert span.start_time is not None
        assert span.end_time is not None
        assert (span.end_time - span.start_time) / 1e9 == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("spans", "number"), [("none", 0), ("calls", 2), ("all", 5)])
async def test_polling_has_spans_on_demand(
    spans: Literal["none", "calls", "all"], number: int
) -> None:
    """By default single calls have some; metrics count all attempts in any case."""
    emulator = Emulator()
    sdk = Sdk()
    async with emulator.client(on_attempt=sdk.telemetry(spans)) as client:
        submitted = await client.submit("rtmp://live.example.com/app/room7")
        await client.wait(emulator.add_job(duration=5), interval=3)
        await client.cancel(submitted.job_id)
    assert len(sdk.spans()) == number
    counted = sum(count for _, count in sdk.points("http.client.request.duration"))
    assert counted == 5


async def test_the_spans_of_concurrent_calls_have_their_own_parents() -> None:
    """Each is below the span of the task that made the call, polls below that of their run."""
    emulator = Emulator()
    sdk = Sdk()
    tracer = sdk.tracers.get_tracer("app")
    parents: dict[str, Any] = {}

    async def query() -> None:
        job_id = emulator.add_job()
        with tracer.start_as_current_span("one") as span:
            parents[job_id] = span.get_span_context()
            await client.query(job_id)

    async with emulator.client(on_attempt=sdk.telemetry("all")) as client:
        await asyncio.gather(*(query() for _ in range(20)))
        job_id = emulator.add_job(duration=1)
        with tracer.start_as_current_span("run") as span:
            parents[job_id] = span.get_span_context()
            await client.wait(job_id, interval=2)
    made = [one for one in sdk.spans() if one.attributes]
    assert len(made) == 22
    for made_one in made:
        assert made_one.attributes is not None
        assert made_one.parent == parents[str(made_one.attributes["ci_live_audit.job.id"])]


@pytest.mark.waits
async def test_the_service_is_told_of_no_trace() -> None:
    """No ``traceparent`` is sent, not even within a span."""
    sdk = Sdk()
    async with (
        serving(answering(JOB)) as served,
        client_for(served.url, on_attempt=sdk.telemetry()) as client,
    ):
        with sdk.tracers.get_tracer("app").start_as_current_span("outer"):
            await client.query("a")
    (request,) = served.requests
    assert b"trace" not in bytes(request).lower()
    attributes = sdk.spans()[0].attributes
    assert attributes is not None
    assert attributes["server.address"] == "127.0.0.1"


async def test_observers_of_one_provider_share_its_instruments() -> None:
    """One for each client counts as one for all would, also after some of them are gone."""
    emulator = Emulator()
    sdk = Sdk()
    for _ in range(3):
        async with (
            emulator.client(on_attempt=sdk.telemetry(), rate=7) as first,
            emulator.client(on_attempt=sdk.telemetry(), rate=5) as second,
            second.watch([emulator.add_job()]),
        ):
            await first.query(emulator.add_job())
            await second.query(emulator.add_job())
            assert sdk.points("ci_live_audit.limiter.rate") == [({}, 12)]
            assert sdk.points("ci_live_audit.run.jobs") == [({"run": "watch"}, 1)]
        gc.collect()
    ((_, calls),) = (
        point for point in sdk.points("ci_live_audit.call.duration") if len(point[0]) == 1
    )
    assert calls >= 6
    assert sdk.points("ci_live_audit.limiter.rate") == []


def test_another_word_for_spans_is_refused() -> None:
    """The error names those that there are."""
    with pytest.raises(ConfigurationError, match='"none", "calls" or "all"; got \'some\''):
        OpenTelemetry("some")  # type: ignore[arg-type]


async def test_without_an_sdk_nothing_comes_of_it() -> None:
    """The API alone does nothing, and harms nothing."""
    emulator = Emulator()
    policy = RetryPolicy(attempts=1)
    async with emulator.client(on_attempt=OpenTelemetry("all"), retry=policy) as client:
        assert (await client.wait(emulator.add_job(duration=1), interval=2)).ended
        with pytest.raises(JobNotFound):
            await client.query("nobody")


GLOBAL = """
import asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from ci_live_audit.telemetry import OpenTelemetry
from ci_live_audit.testing import Emulator, VirtualTimeLoop

reader = InMemoryMetricReader()
provider = MeterProvider([reader])
before = OpenTelemetry(meter_provider=provider if EARLY else None)
metrics.set_meter_provider(provider)

async def main():
    emulator = Emulator()
    after, given = OpenTelemetry(), OpenTelemetry(meter_provider=provider)
    async with (
        emulator.client(on_attempt=before, rate=1) as one,
        emulator.client(on_attempt=after, rate=2) as two,
        emulator.client(on_attempt=given, rate=4) as three,
    ):
        for client in (one, two, three):
            await client.query(emulator.add_job())
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        found = {metric.name: metric.data.data_points for metric in scope.metrics}
        (rate,) = found["ci_live_audit.limiter.rate"]
        (calls,) = found["ci_live_audit.call.duration"]
        print(rate.value, calls.count)

with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
    runner.run(main())
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize("early", [False, True])
def test_the_global_provider_may_be_set_later(*, early: bool) -> None:
    """Observers made before it, after it, and with it by name count together."""
    assert run(f"EARLY = {early}\n{GLOBAL}") == "7 3"


def test_without_the_api_the_import_says_what_to_install() -> None:
    """The core needs none of it; whatever else is missing is told as it is."""
    program = """if True:
        import sys
        missing = sys.argv[1] if len(sys.argv) > 1 else MISSING
        sys.modules[missing] = None
        import ci_live_audit.client
        try:
            import ci_live_audit.telemetry
        except ModuleNotFoundError as error:
            print(error, "|", error.name)
    """
    told = run(f"MISSING = 'opentelemetry'\n{program}")
    assert 'pip install "ci-live-audit[otel]"' in told
    assert told.endswith("| opentelemetry")
    told = run(f"MISSING = 'ci_live_audit.telemetry.words'\n{program}")
    assert told.endswith("| ci_live_audit.telemetry.words")
    assert "pip install" not in told
