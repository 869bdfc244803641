"""The settings as frozen records, with their defaults, units and where a figure comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.target import FailoverList, Provider, Route, Target


ANYWHERE = "*"  # the source of a failover list that holds for every call, wherever it goes


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSettings:
    """Seconds. `deadline`, `connect` and `read` are for `Client`; drop-in calls keep what the script wrote."""

    deadline: float = 300.0  # a whole `Client` call
    connect: float = 10.0  # one `Client` attempt
    read: float = 120.0
    first_byte: float = 60.0  # of a `Client` stream, until anything comes, be it a comment
    dropin_deadline: float = 600.0  # a whole drop-in call; at least the script's own connect + read
    dropin_connect: float = 10.0  # where a script set no timeout
    dropin_read: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """Asking the same target again; everything else fails over at once."""

    blip: bool = True  # one retry of a lone fault
    short_wait: float = 2.5  # seconds of Retry-After worth waiting for on the preferred target
    retry_empty: bool = True  # an empty answer asks one more target
    sole_attempts: int = 3  # attempts on a target that has no substitute
    backoff_base: float = 0.5  # seconds, doubling, full jitter
    backoff_max: float = 8.0
    throttle_min: float = 2.0  # seconds, 429 without a hint on a sole target
    throttle_max: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a target is left alone, and how it comes back."""

    consecutive: int = 5  # failures in a row that trip
    consecutive_slow: int = 3  # failures in a row that trip when they span at least `consecutive_span`
    consecutive_span: float = 1.0  # seconds
    failure_rate: float = 0.5  # share of failures in the window that trips …
    minimum_calls: int = 10  # … from this many calls on
    window: float = 60.0  # seconds, in 10 buckets
    open_time: float = 5.0  # seconds, doubling with every trip
    open_cap_min: float = 15.0  # the cap is clamp(20 × duration of the failed probe, min, max): probes then cost ≤ 5 %
    open_cap_max: float = 60.0
    probes: int = 1  # at the same time
    successes: int = 2  # that close
    lease_extra: float = 5.0  # seconds on top of the attempt's timeout before a silent probe counts as failed
    lease_max: float = 120.0
    early_probe_interval: float = 1.0  # seconds between probes while every candidate is open


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How closely the limits are approached, and what a 429 changes."""

    headroom: float = 0.95  # share of a limit that is used
    burst: float = 0.1  # share of that which may go at once
    max_wait: float = 5.0  # seconds a live call waits for its turn; longer, and the next target is asked
    batch_share: float = 0.8  # of the limit, for everything but live calls while live calls have to wait
    cut: float = 0.7  # factor of the rate after a 429
    factor_min: float = 0.05
    recovery: float = 0.05  # of the full rate, given back every …
    recovery_interval: float = 5.0  # … seconds
    window_scale: float = 1.0  # all windows shorter or longer, for tests


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What is kept in memory, and for how long: answers to calls with temperature 0 or a seed, without tools."""

    enabled: bool = True
    dropin: bool = False  # drop-in calls too
    max_entries: int = 10_000
    max_bytes: int = 64_000_000
    ttl: float = 3_600.0  # seconds; 0: nothing is kept
    tasks: Mapping[str, float] = field(default_factory=dict)  # task → seconds, where they differ from `ttl`
    stale: float = 0.0  # seconds that an answer past its time still serves where nobody else can answer


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Calls that nobody could answer, kept for later. Off until asked for: prompts are written to disk."""

    enabled: bool = False
    path: str = ""  # a file on a local disk, or ":memory:"; empty: queue.db in the user's state folder
    max_items: int = 100_000  # calls waiting
    max_bytes: int = 1_000_000_000  # of the file, free pages not counted
    max_item_bytes: int = 5_000_000  # of one call as JSON
    ttl: float = 604_800.0  # seconds a call may wait: an outage costs time, not attempts
    attempts: int = 5  # that count, because the call itself may be at fault
    lease: float = 120.0  # seconds that a call stays with whoever replays it; at least 1.5 × the replay's deadline
    backoff_base: float = 30.0  # seconds, doubling, full jitter
    backoff_max: float = 900.0
    retention: float = 604_800.0  # seconds that an answer is kept
    concurrency: int = 8  # calls replayed at the same time, once the ramp is through


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringSettings:
    """What is counted of calls, and logged."""

    enabled: bool = True
    window: float = 300.0  # seconds that "recent" looks back
    log_prompts: bool = False  # messages of calls, at level DEBUG; keys in them are masked


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """When somebody is to be told. `limit`, `minimum_calls` and `window` are None where a kind of rule has none."""

    name: str
    when: str  # latency, error_rate, consecutive, breaker, queue, key
    limit: float | None = None  # seconds (95th percentile), share of errors, errors in a row, calls the queue grew by
    minimum_calls: int | None = None  # that have to be in the window
    window: float | None = None  # seconds looked back
    models: tuple[str, ...] = ()  # only these; empty: all
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where alerts are sent. Its URL is a secret, so an environment variable holds it."""

    name: str
    url_env: str
    format: str = "json"  # or slack
    secret_env: str = ""  # of what signs the body; empty: it is not signed
    timeout: float = 10.0  # seconds, to connect and between two bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Who is told when something goes wrong, and when it is over."""

    enabled: bool = True
    log: bool = True  # as warnings of the logger `holyroute`
    flush: float = 2.0  # seconds that closing a client waits for alerts under way
    rules: Mapping[str, AlertRule] = field(default_factory=dict)
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """How targets are chosen where a call says nothing."""

    task: str = "general"
    priority: str = "normal"
    order: str = "listed"  # listed, cheapest, fastest, weighted
    reference: str = ""  # the target that savings are counted against; empty: the dearest one


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything holyroute was told, checked and resolved."""

    providers: Mapping[str, Provider]
    models: Mapping[str, Target]
    routes: Mapping[str, Mapping[str, Route]]  # task → priority → route
    failover: Mapping[str, FailoverList]  # host, provider, model or `ANYWHERE` → list
    latency: Mapping[str, float]  # latency class → seconds
    time: TimeSettings = field(default_factory=TimeSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    source: str = "built-in"  # the file that was read, for messages

    @property
    def logs_key_alerts(self) -> bool:
        """Whether the log is told of rejected keys and empty accounts by an alert."""
        rules = self.alerts.rules.values()
        on = self.monitoring.enabled and self.alerts.enabled and self.alerts.log
        return on and any(rule.enabled and rule.when == "key" for rule in rules)
