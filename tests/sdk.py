"""The SDK of OpenTelemetry in tests: what an exporter would get, kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ci_live_audit.telemetry import OpenTelemetry

__all__ = ["Sdk"]


class Sdk:
    """Providers of its own, and what has come to them."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def telemetry(self, spans: Literal["none", "calls", "all"] = "calls") -> OpenTelemetry:
        """Return an observer that uses these providers."""
        return OpenTelemetry(spans, meter_provider=self.meters, tracer_provider=self.tracers)

    def scopes(self) -> list[Any]:
        """Return what was measured until now, by instrumentation scope."""
        data = self.reader.get_metrics_data()
        return (
            []
            if data is None
            else [one for it in data.resource_metrics for one in it.scope_metrics]
        )

    def metrics(self) -> dict[str, Metric]:
        """Return what was measured until now, by name."""
        return {metric.name: metric for scope in self.scopes() for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return attributes and value of each series; of a histogram the count."""
        metric = self.metrics().get(name)
        return (
            []
            if metric is None
            else [(dict(it.attributes or {}), _value(it)) for it in metric.data.data_points]
        )

    def series(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the name and the attributes of all series."""
        return [
            (name, attributes) for name in self.metrics() for attributes, _ in self.points(name)
        ]

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended."""
        return self.exporter.get_finished_spans()


def _value(point: Any) -> Any:
    return point.count if hasattr(point, "count") else point.value
