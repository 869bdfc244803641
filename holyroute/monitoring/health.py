"""The state of everything at one moment, as values: what `Client.health()` gives and every page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds; None where nothing was measured."""

    average: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Attempts at a target, or calls of a route, over some time."""

    count: int = 0  # attempts, or calls
    answers: int = 0
    errors: int = 0  # those that count as errors; the rest were cancelled, cut short or content filtered
    latency: Latency = field(default_factory=Latency)  # of answers

    @property
    def error_rate(self) -> float | None:
        """Share of errors; None where nothing happened."""
        return self.errors / (self.answers + self.errors) if self.answers + self.errors else None

    @property
    def success_rate(self) -> float | None:
        """Share of answers; None where nothing happened."""
        rate = self.error_rate
        return None if rate is None else 1 - rate


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A circuit breaker moved. `at` is seconds since the epoch."""

    at: float
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetHealth:
    """One model at one provider."""

    target: str
    provider: str
    host: str
    state: str  # of the circuit: closed, open, half-open, forced open, forced closed
    retry_in: float | None = None  # seconds until it may be asked again; None: now
    benched: str | None = None  # why it is left alone although its circuit is closed
    recent: Figures  # in the sliding window
    total: Figures  # since the start
    latency_class: str  # by its recent 95th percentile; as declared where nothing was measured
    retries: int = 0  # attempts at the same target as just before
    rate_limited: int = 0  # answers 429
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Decimal | None = None  # None where the price is unknown
    errors_by_reason: Mapping[str, int] = field(default_factory=dict)
    history: tuple[StateChange, ...] = ()  # of the circuit, the last ones, oldest first
    sparkline: tuple[float | None, ...] = ()  # average seconds of answers per slice of the window, oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHealth:
    """What callers asked for: a route, or a model by its name."""

    route: str
    recent: Figures
    total: Figures
    failovers: int = 0  # as `Trace.failovers` counts them
    cache_hits: int = 0
    parked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverNote:
    """A call that somebody else than the first choice answered, or nobody. `at` is seconds since the epoch."""

    at: float
    asked: str
    answered_by: str | None
    reason: str  # why the first choice did not


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertNote:
    """An alert as it stands or stood. Times are seconds since the epoch."""

    rule: str
    subject: str  # the target, the queue, the credential
    message: str
    began: float
    ended: float | None = None  # None: it goes on
    ending: str | None = None  # how it ended, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How many parked calls are in which state."""

    ready: int
    leased: int
    done: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Everything, at one moment. Times are seconds since the epoch."""

    at: float
    since: float  # when counting began
    pid: int  # a process counts for itself
    window: float  # seconds that `recent` looks back
    calls: Figures  # since the start
    recent_calls: Figures = field(default_factory=Figures)  # in the sliding window
    failovers: int = 0
    cache_hits: int = 0
    targets: tuple[TargetHealth, ...] = ()
    routes: tuple[RouteHealth, ...] = ()
    spent_usd: Decimal = Decimal(0)
    saved_usd: Decimal | None = None
    reference: str | None = None  # the model that savings are counted against
    unknown_cost: int = 0  # attempts whose cost is not in `spent_usd`
    recent_failovers: tuple[FailoverNote, ...] = ()  # newest first
    alerts: tuple[AlertNote, ...] = ()  # newest first; those that go on before all others
    queue: QueueDepth | None = None  # None: calls are not parked, or their queue cannot be read now

    @property
    def is_healthy(self) -> bool:
        """Whether every target may be asked and no alert goes on."""
        able = all(one.state == "closed" and one.benched is None for one in self.targets)
        return able and not any(alert.ended is None for alert in self.alerts)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: amounts of money as text, the rates of all figures worked out."""
        facts: dict[str, Any] = _plain(self)
        return {**facts, "is_healthy": self.is_healthy}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        facts = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        if isinstance(value, Figures):
            facts |= {"error_rate": value.error_rate, "success_rate": value.success_rate}
        return facts
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, Decimal) else value
