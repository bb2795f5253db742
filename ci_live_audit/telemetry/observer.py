"""`OpenTelemetry`: what a client does, as metrics and spans.

Names: https://opentelemetry.io/docs/specs/semconv/http/
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakValueDictionary

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from ci_live_audit._version import __version__
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.following.finding import Finding
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.observers import Followed, Observer
from ci_live_audit.retry import Attempt
from ci_live_audit.telemetry import words
from ci_live_audit.telemetry.instruments import Instruments

__all__ = ["OpenTelemetry"]

SCOPE = "ci_live_audit", __version__
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SPANS: dict[str, tuple[str, ...]] = {"none": (), "calls": ("call",), "all": ("call", "poll")}


class OpenTelemetry(Observer):
    """Makes metrics and spans of what clients do: ``on_attempt=OpenTelemetry()``.

    One may be shared by any number of clients. It uses the API of OpenTelemetry alone: where the
    application sets up no SDK, nothing comes of it. Metrics name no job, no bucket and no URL, and
    have at most 150 series. A span of an attempt names the job and the request of the service.

    Args:
        spans: Which attempts get a span: of all calls but those with which runs poll
            (``"calls"``), of those too (``"all"``), or none (``"none"``).
        meter_provider: In place of the global one.
        tracer_provider: In place of the global one.

    Raises:
        ConfigurationError: ``spans`` is another word.
    """

    def __init__(
        self,
        spans: Literal["none", "calls", "all"] = "calls",
        *,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        if spans not in SPANS:
            raise ConfigurationError(f'spans: expected "none", "calls" or "all"; got {spans!r}')
        self._lanes = SPANS[spans]
        self._tracer = trace.get_tracer(*SCOPE, tracer_provider, SCHEMA)
        self._instruments = _instruments(meter_provider)

    def observe(self, source: object) -> None:
        """Count what a `CallbackReceiver` receives, or what a `RedisCheckpoint` takes over.

        Raises:
            ConfigurationError: It is something else.
        """
        self._instruments.add_source(source)

    def __call__(self, attempt: Attempt) -> None:
        """Record an attempt, and make its span if it gets one."""
        self._instruments.attempted(attempt)
        if attempt.lane in self._lanes:
            self._make_span(attempt)

    def call_ended(
        self,
        operation: str,
        job_id: str | None,  # noqa: ARG002
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """Record a call."""
        self._instruments.call_ended(operation, seconds, error)

    def client_made(self, limiter: RateLimiter, is_open: Callable[[], bool]) -> None:
        """Read the limiter from now on."""
        self._instruments.add_client(limiter, is_open)

    def run_began(self, run: Followed) -> None:
        """Read a run from now on."""
        self._instruments.add_run(run)

    def run_ended(self, run: Followed) -> None:
        """Read a run no longer."""
        self._instruments.remove_run(run)

    def found(self, finding: Finding) -> None:
        """Record a finding."""
        self._instruments.found(finding)

    def _make_span(self, attempt: Attempt) -> None:
        """Make the span of an attempt that has ended, below the caller's span."""
        ended = time.time_ns()
        method, template = words.request(attempt.operation)
        error = words.error_of(attempt)
        host, port, _ = words.server(attempt.endpoint)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.response.status_code": attempt.status,
            "http.request.resend_count": attempt.number - 1 or None,
            "error.type": error,
            "server.address": host,
            "server.port": port,
            "url.template": template,
            "ci_live_audit.job.id": attempt.job_id,
            "ci_live_audit.request.id": attempt.request_id,
        }
        span = self._tracer.start_span(
            f"{method} {template}",
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in attributes.items() if value is not None},
            start_time=ended - round(attempt.elapsed * 1e9),
        )
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(ended)


#: By the identities of providers. A provider knows the first instrument of a name alone, and keeps
#: it: so there is one for all who use it.
_made: WeakValueDictionary[int, Instruments] = WeakValueDictionary()


def _instruments(provider: metrics.MeterProvider | None) -> Instruments:
    """Return the instruments of a provider; None is the global one, which may be set later."""
    current = metrics.get_meter_provider()
    keys = [id(current), id(None)] if provider in (None, current) else [id(provider)]
    found = next((one for key in keys if (one := _made.get(key)) is not None), None)
    if found is None:
        meter = metrics.get_meter(*SCOPE, provider, SCHEMA)
        found = _made[keys[-1]] = Instruments(meter, provider)
    return found
