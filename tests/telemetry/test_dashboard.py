"""The dashboard asks for what Prometheus gets from the exporter of OpenTelemetry."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import now
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ci_live_audit import JobNotFound
from ci_live_audit.telemetry import OpenTelemetry
from ci_live_audit.testing import Emulator, Fault, frame

FILE = Path(__file__).parents[2] / "benchmarks" / "dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: A metric with what it must match, and the labels by which something is added up.
METRIC = re.compile(r"\b((?:ci_live_audit|http_client)_\w+)(?:\{([^}]*)\})?")
MATCH = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')


@pytest.fixture
def provider() -> Iterator[MeterProvider]:
    """Return a provider that Prometheus reads."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


async def exposition(provider: MeterProvider) -> dict[str, list[dict[str, str]]]:
    """Return the labels of each sample, by its name, after a night in which everything happens."""
    telemetry = OpenTelemetry(meter_provider=provider)
    telemetry.observe(SimpleNamespace(counts={"taken": 2}, takeovers=1))
    emulator = Emulator(now=lambda: 1.8e9 + now())
    emulator.inject(Fault.throttle(), times=1)
    async with emulator.client(on_attempt=telemetry) as client:
        job_id = emulator.add_job(duration=20, script=[frame(5, "Porn")])
        async with client.watch(job_id, interval=3) as findings:
            async for _ in findings:
                pass
        with pytest.raises(JobNotFound):
            await client.query("nobody")
        text = generate_latest(REGISTRY).decode()
    samples: dict[str, list[dict[str, str]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append(sample.labels)
    return samples


def matches(labels: dict[str, str], name: str, operator: str, text: str) -> bool:
    """Return whether a sample matches as Prometheus would say."""
    value = labels.get(name, "")
    if operator == "=~":
        return re.fullmatch(text, value) is not None
    return (value == text) == (operator == "=")


async def test_every_query_finds_its_metrics_and_labels(provider: MeterProvider) -> None:
    """Each metric is exposed with the labels that the query matches and adds up by."""
    samples = await exposition(provider)
    assert len(QUERIES) >= 16
    for query in QUERIES:
        found = METRIC.findall(query)
        assert len(found) == 1, query
        ((name, selector),) = found
        matchers = MATCH.findall(selector)
        assert len(matchers) == len(selector.split(", ")) or not selector
        left = [one for one in samples[name] if all(matches(one, *each) for each in matchers)]
        assert left, query
        by = [
            label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")
        ]
        known = {label for labels in left for label in labels}
        assert {*by, *(label for label, *_ in matchers)} <= known, query


async def test_every_metric_has_its_place(provider: MeterProvider) -> None:
    """The dashboard shows all that is exposed."""
    samples = await exposition(provider)
    ours = {name for name in samples if name.startswith(("ci_live_audit", "http_client"))}
    suffixes = re.compile(r"_(bucket|sum|count|created)$")
    shown = {suffixes.sub("", METRIC.findall(query)[0][0]) for query in QUERIES}
    assert {suffixes.sub("", name) for name in ours} == shown


def test_legends_name_labels_of_their_queries() -> None:
    """What a legend shows is left by the query."""
    for panel in PANELS:
        for target in panel["targets"]:
            by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= by


def test_panels_do_not_overlap() -> None:
    """Each has its place, its number and its description; brackets are balanced."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert all(panel["description"] for panel in PANELS)
    for query in QUERIES:
        assert query.count("(") == query.count(")")
