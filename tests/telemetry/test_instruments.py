"""Names, kinds, units, attributes and buckets of the metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clocks import now
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum
from sdk import Sdk

import ci_live_audit
from ci_live_audit import Attempt, Credentials, CredentialsError, RetryPolicy, Throttled
from ci_live_audit.testing import Emulator, Fault, frame, sound

HTTP = {
    *("http.request.method", "http.response.status_code", "error.type"),
    *("server.address", "server.port", "url.template"),
}
#: Kind, unit and all attributes.
METRICS: dict[str, tuple[Any, str, set[str]]] = {
    "http.client.request.duration": (Histogram, "s", HTTP),
    "ci_live_audit.limiter.rate": (Gauge, "{request}/s", set()),
    "ci_live_audit.limiter.wait.duration": (Histogram, "s", {"operation", "lane"}),
    "ci_live_audit.limiter.holds": (True, "{hold}", set()),
    "ci_live_audit.limiter.degraded": (Gauge, "1", set()),
    "ci_live_audit.call.duration": (Histogram, "s", {"operation", "error.type"}),
    "ci_live_audit.call.retries": (True, "{retry}", {"operation", "error.type"}),
    "ci_live_audit.run.jobs": (False, "{job}", {"run"}),
    "ci_live_audit.run.lag": (Gauge, "s", {"run"}),
    "ci_live_audit.finding.delay": (Histogram, "s", {"source"}),
    "ci_live_audit.findings": (True, "{finding}", {"kind", "verdict"}),
    "ci_live_audit.callbacks": (True, "{callback}", {"result"}),
    "ci_live_audit.ledger.takeovers": (True, "{job}", set()),
}


def wall() -> float:
    """Return a date that follows virtual time."""
    return 1.8e9 + now()


async def test_every_metric_is_as_documented() -> None:
    """A night in which everything happens has these metrics, and no other."""
    emulator = Emulator(now=wall)
    sdk = Sdk()
    telemetry = sdk.telemetry()
    telemetry.observe(SimpleNamespace(counts={"taken": 2, "probe": 1}))
    telemetry.observe(SimpleNamespace(takeovers=3))
    emulator.inject(Fault.throttle(), times=1)
    async with emulator.client(on_attempt=telemetry) as client:
        job_id = emulator.add_job(duration=20, script=[frame(5, "Porn"), sound(7)])
        async with client.watch(job_id, interval=3) as findings:
            assert [finding async for finding in findings]
        (scope,) = sdk.scopes()
        found = sdk.metrics()
    assert (scope.scope.name, scope.scope.version) == ("ci_live_audit", ci_live_audit.__version__)
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    assert set(found) == set(METRICS)
    for name, (kind, unit, attributes) in METRICS.items():
        metric = found[name]
        assert metric.unit == unit
        assert metric.description
        if isinstance(kind, bool):
            assert isinstance(metric.data, Sum)
            assert metric.data.is_monotonic == kind
        else:
            assert isinstance(metric.data, kind)
        used = {key for point in metric.data.data_points for key in point.attributes or ()}
        assert used == attributes - ({"error.type"} if name.endswith("call.duration") else set())
    kinds = [point["kind"] for point, _ in sdk.points("ci_live_audit.findings")]
    assert set(kinds) == {"state", "snapshot", "audio"}
    assert sdk.points("ci_live_audit.finding.delay") == [({"source": "query"}, 1)]


async def test_a_call_that_is_retried() -> None:
    """Attempts, calls, retries and holds are counted, each where it belongs."""
    emulator = Emulator()
    sdk = Sdk()
    policy = RetryPolicy(attempts=2)
    async with emulator.client(on_attempt=sdk.telemetry(), retry=policy) as client:
        emulator.inject(Fault.error(503), times=1)
        await client.query(emulator.add_job())
        emulator.inject(Fault.throttle(), times=2)
        with pytest.raises(Throttled):
            await client.submit("rtmp://live.example.com/app/room7")
    get = {"http.request.method": "GET", "url.template": "/video/auditing/{job_id}"}
    post = {"http.request.method": "POST", "url.template": "/video/auditing"}
    server = {"server.address": "ci.ap-beijing.myqcloud.com", "server.port": 443}
    status = "http.response.status_code"
    assert sdk.points("http.client.request.duration") == [
        (server | get | {status: 503, "error.type": "503"}, 1),
        (server | get | {status: 200}, 1),
        (server | post | {status: 429, "error.type": "429"}, 2),
    ]
    assert sdk.points("ci_live_audit.call.duration") == [
        ({"operation": "query"}, 1),
        ({"operation": "submit", "error.type": "Throttled"}, 1),
    ]
    assert sdk.points("ci_live_audit.call.retries") == [
        ({"operation": "query", "error.type": "ServiceUnavailable"}, 1),
        ({"operation": "submit", "error.type": "Throttled"}, 1),
    ]
    assert sdk.points("ci_live_audit.limiter.holds") == [({}, 2)]
    assert sdk.points("ci_live_audit.limiter.wait.duration") == [
        ({"operation": "query", "lane": "call"}, 2),
        ({"operation": "submit", "lane": "call"}, 2),
    ]


async def test_what_was_never_sent_is_no_request() -> None:
    """Without credentials no attempt waits for the limiter, and none is sent."""

    def none() -> Credentials:
        raise OSError("the vault is sealed")

    sdk = Sdk()
    async with Emulator().client(on_attempt=sdk.telemetry(), credentials=none) as client:
        with pytest.raises(CredentialsError):
            await client.query("a")
    expected = {"operation": "query", "error.type": "CredentialsError"}
    assert sdk.points("ci_live_audit.call.duration") == [(expected, 1)]
    assert sdk.points("http.client.request.duration") == []
    assert sdk.points("ci_live_audit.limiter.wait.duration") == []
    assert sdk.spans() == ()


def test_an_attempt_that_lost_its_credentials_in_the_queue_is_no_request() -> None:
    """It has waited for the limiter all the same."""
    sdk = Sdk()
    error = CredentialsError("expired")
    sdk.telemetry()(Attempt(operation="query", number=1, error=error, queued=2.0))
    assert sdk.points("http.client.request.duration") == []
    wait = {"operation": "query", "lane": "call"}
    assert sdk.points("ci_live_audit.limiter.wait.duration") == [(wait, 1)]


async def test_buckets_reach_as_far_as_what_they_count() -> None:
    """Those of requests are the conventions'; a wait or a call may last minutes."""
    emulator = Emulator(now=wall)
    sdk = Sdk()
    async with emulator.client(on_attempt=sdk.telemetry()) as client:
        job_id = emulator.add_job(duration=10, script=[frame(1, "Porn")])
        async with client.watch(job_id, interval=3) as findings:
            assert [finding async for finding in findings]
    bounds = {
        name: metric.data.data_points[0].explicit_bounds
        for name, metric in sdk.metrics().items()
        if isinstance(metric.data, Histogram)
    }
    http = bounds.pop("http.client.request.duration")
    assert http == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    wait = bounds["ci_live_audit.limiter.wait.duration"]
    assert wait == (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    assert bounds["ci_live_audit.call.duration"] == wait
    assert bounds["ci_live_audit.finding.delay"][-1] == 3600
