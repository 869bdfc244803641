"""Figures for Prometheus, named and counted by its conventions. Needs the extra `prometheus`.

    from holyroute.monitoring import prometheus

    exporter = prometheus.attach(client)                 # or a Session, or a Router
    body, content_type = prometheus.metrics_text(exporter)

Sources of the names: prometheus.io/docs/practices/naming and /instrumentation (base units, `_total`, few labels).
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary, ref

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition, multiprocess, values
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "figures for Prometheus need prometheus_client; install it with: pip install 'holyroute[prometheus]'",
        name=missing.name,
    ) from missing

from holyroute.core import forks
from holyroute.core.events import AttemptFinished, CallFinished, CircuitChanged
from holyroute.exceptions import ConfigurationError, QueueError
from holyroute.monitoring.labels import Names, outcome, router_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from holyroute.core.events import Event
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Trace
    from holyroute.monitoring.health import QueueDepth
    from holyroute.monitoring.labels import Router

logger = logging.getLogger("holyroute")

IN_MEMORY = ":memory:"
OTHER = "other"  # in the place of a name that is in no configuration

# Seconds. The bounds of the latency classes (1, 3, 10), the usual alert (5) and the time limits (120, 300) are among
# them; below are answers of fast models and caches.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)

CIRCUIT = {"closed": 0, "forced closed": 0, "half-open": 1, "open": 2, "forced open": 2}

_TARGET = ("provider", "model")


def attach(door: Any, *, registry: CollectorRegistry | None = None) -> Exporter:
    """Count what happens at a Client, a Session or a Router from now on.

    Doors with the same router are counted together; attaching twice counts once. Several routers may be attached to
    one registry.

    Args:
        door: whose router is counted, and the queues that its doors park calls in.
        registry: where the figures are shown, such as `prometheus_client.REGISTRY`; by default one of its own.
    """
    known = None if registry is None else _exporters.get(registry)
    exporter = None if known is None else known()
    if exporter is None:
        exporter = Exporter(CollectorRegistry() if registry is None else registry)
    exporter.attach(door)
    return exporter


def metrics_text(exporter: Exporter, accept: str = "") -> tuple[bytes, str]:
    """What `/metrics` answers: the body, and its Content-Type.

    It holds everything in the exporter's registry. In the multiprocess mode of prometheus_client (its variable
    `PROMETHEUS_MULTIPROC_DIR`, read when that is imported) it holds what all processes counted, added up.

    Args:
        exporter: what `attach` gave.
        accept: the Accept header of the request, which decides between the text formats.
    """
    encode, content_type = exposition.choose_encoder(accept)
    if _is_alone():
        return encode(exporter.registry), content_type
    merged = CollectorRegistry()
    multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
    merged.register(exporter.queues)
    return encode(merged), content_type


_FIGURES: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "calls": (Counter, "Calls, cached ones too.", ("route", "outcome")),
    "call_duration_seconds": (
        Histogram,
        "Duration of calls, in seconds, waits and failed attempts included.",
        ("route",),
    ),
    "attempts": (Counter, "Requests to a model.", (*_TARGET, "outcome")),
    "attempt_duration_seconds": (
        Histogram,
        "Duration of requests to a model, in seconds, streams to their end.",
        _TARGET,
    ),
    "tokens": (Counter, "Tokens of requests to a model.", (*_TARGET, "type")),
    "cost_usd": (Counter, "US dollars spent, as far as price and usage are known.", _TARGET),
    "unknown_cost_attempts": (Counter, "Requests that may cost something, nobody said what.", _TARGET),
    "failovers": (Counter, "Requests that went to another model than the one before it in line.", ("route",)),
    "retries": (Counter, "How often a call asked the same model again.", ("route",)),
    "cache_hits": (Counter, "Calls answered from the cache.", ("route", "kind")),
    "parked_calls": (Counter, "Calls that were parked in the queue.", ("route",)),
    "circuit_state": (Gauge, "Circuit breaker of a model: 0 closed, 1 half-open, 2 open.", _TARGET),
    "circuit_changes": (Counter, "How often a circuit breaker moved, by its new state.", (*_TARGET, "state")),
}
_OPTIONS: dict[Any, dict[str, Any]] = {
    Histogram: {"buckets": BUCKETS},
    Gauge: {"multiprocess_mode": "livemax"},  # the worst that a living process sees
}


class Figures:
    """All counters of one process."""

    def __init__(self) -> None:
        self.all: dict[str, Any] = {
            name: kind(f"holyroute_{name}", text, labels, registry=None, **_OPTIONS.get(kind, {}))
            for name, (kind, text, labels) in _FIGURES.items()
        }
        self._series: dict[tuple[str, ...], Any] = {}

    def of(self, name: str, *labels: str) -> Any:
        """One series of a figure; found faster than by prometheus_client, which takes a lock."""
        key = (name, *labels)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self.all[name].labels(*labels)
        return series


_shared: WeakValueDictionary[int, Figures] = WeakValueDictionary()  # by process


def _figures() -> Figures:
    """An exporter's own, but those of its process in the multiprocess mode.

    There a process has one file for all its series, and two counters of the same name would overwrite each other.
    """
    return Figures() if _is_alone() else _shared.setdefault(os.getpid(), Figures())


def _is_alone() -> bool:
    return values.ValueClass is values.MutexValue


class Queues(Collector):
    """How many parked calls are in which state, asked when somebody wants to know."""

    def __init__(self, routers: Iterable[Router]) -> None:
        self._routers = routers

    def describe(self) -> Iterable[Metric]:
        """Its name."""
        return [GaugeMetricFamily("holyroute_queue_items", "Parked calls, by state.", labels=["state"])]

    def collect(self) -> Iterable[Metric]:
        """The gauge; without a value where there is no queue, or it cannot be read."""
        (gauge,) = self.describe()
        assert isinstance(gauge, GaugeMetricFamily)
        try:
            depths = [look() for look in self._places().values()]
        except QueueError as error:
            logger.warning("the depth of the queue is not known: %s", error)
            depths = []
        for state in ("ready", "leased", "done", "dead") if depths else ():
            gauge.add_metric([state], sum(getattr(one, state) for one in depths))
        return [gauge]

    def _places(self) -> dict[tuple[str, int], Callable[[], QueueDepth]]:
        """Each queue once: a file may be that of several routers, memory is of one."""
        return {
            (place, id(router) if place == IN_MEMORY else 0): look
            for router in list(self._routers)
            for place, look in list(router.monitor.queues.items())
        }


class Exporter(Collector):
    """An observer that counts for Prometheus. Safe to share between threads; a forked child counts for itself.

    Attributes:
        registry: where it shows its figures.
        queues: the depths of the queues of its routers.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._names = Names(OTHER)
        self._routers: WeakSet[Any] = WeakSet()
        self.queues = Queues(self._routers)
        self.after_fork()
        registry.register(self)
        registry.register(self.queues)
        _exporters[registry] = ref(self)
        forks.register(self)

    def after_fork(self) -> None:
        """In a child: what the parent counted is told by the parent, and its locks may be held."""
        self._figures = _figures()

    def attach(self, door: Any) -> None:
        """Count what happens at one more door."""
        router = router_of(door)
        with suppress(AttributeError, ConfigurationError):  # no client, or one that parks nothing
            _ = door.queue  # from now on the router knows of it
        if router not in self._routers:
            self._routers.add(router)
            self._names.add(router.config)
            router.events.subscribe(self)

    def describe(self) -> Iterable[Metric]:
        """The names of all figures."""
        return [metric for figure in self._figures.all.values() for metric in figure.describe()]

    def collect(self) -> Iterable[Metric]:
        """All figures as they stand."""
        return [metric for figure in self._figures.all.values() for metric in figure.collect()]

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, AttemptFinished):
            self._attempt(event.record)
        elif isinstance(event, CallFinished):
            self._call(event.trace)
        elif isinstance(event, CircuitChanged):
            self._circuit(event)

    def _attempt(self, record: AttemptRecord) -> None:
        figures, target = self._figures, self._labels(record.target)
        figures.of("attempts", *target, outcome(record.verdict)).inc()
        figures.of("attempt_duration_seconds", *target).observe(record.seconds)
        figures.of("circuit_state", *target)  # closed, until somebody says otherwise
        usage, cost = record.usage, record.cost
        if usage is not None:
            figures.of("tokens", *target, "input").inc(usage.prompt_tokens)
            figures.of("tokens", *target, "output").inc(usage.completion_tokens)
        if cost is not None:
            figures.of("cost_usd", *target).inc(float(cost))
        elif usage is not None or record.verdict.is_answer or record.verdict.billable:
            figures.of("unknown_cost_attempts", *target).inc()

    def _call(self, trace: Trace) -> None:
        figures, asked = self._figures, self._names.asked(trace)
        assert trace.verdict is not None
        figures.of("calls", asked, outcome(trace.verdict)).inc()
        figures.of("call_duration_seconds", asked).observe(trace.seconds)
        if trace.cached is not None:
            figures.of("cache_hits", asked, trace.cached).inc()
        if trace.ticket is not None:
            figures.of("parked_calls", asked).inc()
        if len(trace.attempts) > 1 or trace.skipped:
            figures.of("failovers", asked).inc(trace.failovers)
            figures.of("retries", asked).inc(trace.retries)

    def _circuit(self, event: CircuitChanged) -> None:
        figures, target = self._figures, self._labels(event.target)
        figures.of("circuit_state", *target).set(CIRCUIT[event.after])
        figures.of("circuit_changes", *target, event.after).inc()

    def _labels(self, target: Target) -> tuple[str, str]:
        return self._names.provider(target), self._names.model(target)


_exporters: WeakKeyDictionary[CollectorRegistry, ref[Exporter]] = WeakKeyDictionary()  # the registry keeps them
