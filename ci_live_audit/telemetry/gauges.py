"""The instruments that are read when metrics are collected, in a thread of the SDK.

They look at what is alive then, so nothing has to be taken back when a run is cancelled, or a
client is forgotten.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.limits.limiter import RateLimiter
from ci_live_audit.observers import Followed
from ci_live_audit.telemetry.words import RESULTS, RUNS, known

__all__ = ["Gauges"]


class Gauges:
    """Reads limiters of open clients, runs in progress, receivers and checkpoints.

    Entries are added and removed in single steps, and copied before they are read, because that
    happens in another thread.
    """

    def __init__(self, meter: Meter) -> None:
        self._clients: dict[int, tuple[weakref.WeakMethod[Callable[[], bool]], RateLimiter]] = {}
        self._runs: dict[int, weakref.ref[Followed]] = {}
        self._kinds: set[str] = set()
        self._sources: dict[int, Any] = {}
        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        name = "ci_live_audit.limiter.rate"
        gauge(name, [self._rate], "{request}/s", "Requests a second that the rate limiter allows.")
        name = "ci_live_audit.limiter.degraded"
        gauge(name, [self._degraded], "1", "Whether a shared limiter is cut off from the others.")
        name = "ci_live_audit.run.jobs"
        meter.create_observable_up_down_counter(name, [self._jobs], "{job}", "Jobs of open runs.")
        name = "ci_live_audit.run.lag"
        gauge(name, [self._lag], "s", "Time by which the most overdue job is late.")
        name = "ci_live_audit.callbacks"
        counter(name, [self._callbacks], "{callback}", "Callbacks that were received.")
        name = "ci_live_audit.ledger.takeovers"
        counter(name, [self._takeovers], "{job}", "Jobs that were taken over from other processes.")

    def add_client(self, limiter: RateLimiter, is_open: Callable[[], bool]) -> None:
        """Read a limiter as long as the object lives whose method ``is_open`` returns True."""
        key = id(is_open.__self__)  # type: ignore[attr-defined]
        ref = weakref.WeakMethod(is_open, lambda _: self._clients.pop(key, None))
        self._clients[key] = ref, limiter

    def add_run(self, run: Followed) -> None:
        """Read a run until it is removed or forgotten."""
        self._kinds.add(known(run.kind, RUNS))  # first: who finds a run finds its kind
        key = id(run)
        self._runs[key] = weakref.ref(run, lambda _: self._runs.pop(key, None))

    def remove_run(self, run: Followed) -> None:
        """Read a run no longer."""
        self._runs.pop(id(run), None)

    def add_source(self, source: Any) -> None:
        """Read ``source.counts``, callbacks by result, or ``source.takeovers``, from now on.

        Raises:
            ConfigurationError: It has neither.
        """
        if not (hasattr(source, "counts") or hasattr(source, "takeovers")):
            raise ConfigurationError(
                f"observe: expected a receiver of callbacks or a shared checkpoint; "
                f"got {type(source).__name__}"
            )
        self._sources[id(source)] = source

    def _limiters(self) -> list[RateLimiter]:
        """Return the limiters of open clients, each once; forget those of closed ones."""
        found: dict[int, RateLimiter] = {}
        for key, (ref, limiter) in list(self._clients.items()):
            is_open = ref()
            if is_open is not None and is_open():
                found[id(limiter)] = limiter
            else:
                self._clients.pop(key, None)
        return list(found.values())

    def _rate(self, _: CallbackOptions) -> Iterable[Observation]:
        rates = [_pace(limiter) for limiter in self._limiters()]
        finite = [rate for rate in rates if rate < math.inf]
        return [Observation(sum(finite))] if finite else []

    def _degraded(self, _: CallbackOptions) -> Iterable[Observation]:
        found = [bool(getattr(limiter, "degraded", False)) for limiter in self._limiters()]
        return [Observation(int(any(found)))] if found else []

    def _jobs(self, _: CallbackOptions) -> Iterable[Observation]:
        running = self._running()
        open_ = dict.fromkeys(self._kinds, 0)
        for run in running:
            open_[known(run.kind, RUNS)] += run.open
        return [Observation(number, {"run": kind}) for kind, number in open_.items()]

    def _lag(self, _: CallbackOptions) -> Iterable[Observation]:
        running = self._running()
        lags = dict.fromkeys(self._kinds, 0.0)
        for run in running:
            kind = known(run.kind, RUNS)
            lags[kind] = max(lags[kind], run.lag)
        return [Observation(seconds, {"run": kind}) for kind, seconds in lags.items()]

    def _running(self) -> list[Followed]:
        runs = [ref() for ref in list(self._runs.values())]
        return [run for run in runs if run is not None]

    def _callbacks(self, _: CallbackOptions) -> Iterable[Observation]:
        total: Counter[str] = Counter()
        for source in list(self._sources.values()):
            counts: Mapping[str, int] = getattr(source, "counts", {})
            for result, number in list(counts.items()):
                total[known(result, RESULTS)] += number
        return [Observation(number, {"result": result}) for result, number in total.items()]

    def _takeovers(self, _: CallbackOptions) -> Iterable[Observation]:
        found = [getattr(source, "takeovers", None) for source in list(self._sources.values())]
        known_ = [number for number in found if number is not None]
        return [Observation(sum(known_))] if known_ else []


def _pace(limiter: RateLimiter) -> float:
    """Return the requests a second that a limiter lets pass now; infinity if that is unknown."""
    pace: Any = getattr(limiter, "pace", getattr(limiter, "rate", math.inf))
    return pace if isinstance(pace, int | float) else math.inf
