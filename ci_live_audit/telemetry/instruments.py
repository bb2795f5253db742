"""All instruments, with those that are written as things happen: histograms and counters."""

from __future__ import annotations

from opentelemetry.metrics import Meter, MeterProvider

from ci_live_audit.errors import ConfigurationError, Throttled
from ci_live_audit.following.finding import Finding
from ci_live_audit.retry import Attempt
from ci_live_audit.telemetry import words
from ci_live_audit.telemetry.gauges import Gauges
from ci_live_audit.telemetry.words import AttributeSets

__all__ = ["Instruments"]

#: Buckets that the semantic conventions give, and longer ones for what waits for a quota or a poll.
HTTP: list[float] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
WAITS: list[float] = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
DELAYS: list[float] = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600]


class Instruments(Gauges):
    """Records what it is told, in at most 132 series: 150, with the 18 of the gauges."""

    def __init__(self, meter: Meter, provider: MeterProvider | None = None) -> None:
        super().__init__(meter)
        self.provider: MeterProvider | None = provider  # nothing else gets its identity
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=HTTP,
        )
        self._of_request = AttributeSets(
            56,
            *("http.request.method", "http.response.status_code", "error.type"),
            *("server.address", "server.port", "url.template"),
        )
        self._waits = meter.create_histogram(
            "ci_live_audit.limiter.wait.duration",
            "s",
            "Time that attempts waited for the rate limiter.",
            explicit_bucket_boundaries_advisory=WAITS,
        )
        self._of_wait = AttributeSets(8, "operation", "lane")
        self._holds = meter.create_counter(
            "ci_live_audit.limiter.holds",
            "{hold}",
            "Times that everybody had to pause because the service refused a request.",
        )
        self._calls = meter.create_histogram(
            "ci_live_audit.call.duration",
            "s",
            "Duration of calls, with all their attempts and waits.",
            explicit_bucket_boundaries_advisory=WAITS,
        )
        self._of_call = AttributeSets(32, "operation", "error.type")
        self._retries = meter.create_counter(
            "ci_live_audit.call.retries", "{retry}", "Attempts after which another one is made."
        )
        self._of_retry = AttributeSets(14, "operation", "error.type")
        self._delays = meter.create_histogram(
            "ci_live_audit.finding.delay",
            "s",
            "Time from a snapshot to the answer that showed it.",
            explicit_bucket_boundaries_advisory=DELAYS,
        )
        self._of_delay = AttributeSets(3, "source")
        self._findings = meter.create_counter(
            "ci_live_audit.findings", "{finding}", "Findings that were handed out."
        )
        self._of_finding = AttributeSets(18, "kind", "verdict")

    def attempted(self, attempt: Attempt) -> None:
        """Record an attempt."""
        operation = words.operation(attempt.operation)
        if attempt.delay is not None:
            self._retries.add(1, self._of_retry.of(operation, words.error_type(attempt.error)))
        if attempt.lane is None:
            return
        self._waits.record(attempt.queued, self._of_wait.of(operation, attempt.lane))
        if isinstance(attempt.error, Throttled):
            self._holds.add(1)
        if not isinstance(attempt.error, ConfigurationError):  # for then nothing was sent
            method, template = words.request(attempt.operation)
            _, port, host = words.server(attempt.endpoint)
            outcome = words.status_of(attempt), words.error_of(attempt)
            attributes = self._of_request.of(method, *outcome, host, port, template)
            self._requests.record(attempt.elapsed, attributes)

    def call_ended(self, operation: str, seconds: float, error: BaseException | None) -> None:
        """Record a call."""
        attributes = self._of_call.of(words.operation(operation), words.error_type(error))
        self._calls.record(seconds, attributes)

    def found(self, finding: Finding) -> None:
        """Record a finding."""
        self._findings.add(1, self._of_finding.of(*words.of_finding(finding)))
        delay = words.delay(finding)
        if delay is not None:
            source = words.SOURCES.get(finding.source, words.OTHER)
            self._delays.record(delay, self._of_delay.of(source))
