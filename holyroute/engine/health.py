"""The state of a router at one moment: what was counted, how each target stands, what was spent."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holyroute.exceptions import ConfigurationError
from holyroute.monitoring.health import Figures, Health, RouteHealth, TargetHealth
from holyroute.monitoring.monitor import OTHER
from holyroute.monitoring.tally import together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.target import Target
    from holyroute.cost.ledger import Entry
    from holyroute.engine.router import Router
    from holyroute.monitoring.health import QueueDepth
    from holyroute.monitoring.monitor import Monitor


def health_of(router: Router, *, reference: Target | None = None, queue: QueueDepth | None = None) -> Health:
    """All that is known at this moment.

    Args:
        router: whose health it is.
        reference: the model that savings are counted against; by default the configured one, else the dearest.
        queue: how many calls are parked.

    Raises:
        ConfigurationError: monitoring is switched off.
    """
    if not router.config.monitoring.enabled:
        raise ConfigurationError("monitoring.enabled: expected true, got false: nothing was counted")
    monitor, clock = router.monitor, router.clock
    router.streams.book_forgotten()
    monitor.look()
    targets = _targets(router)
    with monitor.lock:
        routes = _routes(monitor)
        recent, total = monitor.calls(clock.now())
        failovers = tuple(reversed(monitor.failovers))
        alerts = monitor.alerts.notes()
    balance = router.ledger.balance(reference or reference_of(router))
    return Health(
        at=clock.wall(),
        since=monitor.since,
        pid=os.getpid(),
        window=monitor.window,
        calls=total.figures(),
        recent_calls=recent.figures(),
        failovers=sum(one.failovers for one in routes),
        cache_hits=sum(one.cache_hits for one in routes),
        targets=targets,
        routes=routes,
        spent_usd=balance.spent,
        saved_usd=balance.saved,
        reference=balance.reference,
        unknown_cost=balance.unknown,
        recent_failovers=failovers,
        alerts=alerts,
        queue=queue,
    )


def reference_of(router: Router) -> Target | None:
    """The model that savings are counted against: configured, else the dearest; None where no price is known."""
    name = router.config.routing.reference
    if name:
        return router.selector.known(name)
    priced = [target for target in router.config.models.values() if target.price is not None]
    return max(priced, key=lambda one: one.price.blended if one.price else 0, default=None)


def _routes(monitor: Monitor) -> tuple[RouteHealth, ...]:
    now = monitor.clock.now()
    return tuple(
        RouteHealth(
            route=name,
            recent=together(row.tally.recent(now)).figures(),
            total=row.tally.total().figures(),
            failovers=row.failovers,
            cache_hits=row.cache_hits,
            parked=row.parked,
        )
        for name, row in monitor.routes().items()
    )


def _targets(router: Router) -> tuple[TargetHealth, ...]:
    """Everybody who was asked, or was to be, in the order of their first time."""
    counted = router.monitor.targets()
    booked = {entry.target: entry for entry in router.ledger.entries()}
    found = [_target(router, target, facts, booked.pop(target, None)) for target, facts in counted.items() if target]
    known = {(one.target, one.provider) for one in found}
    unasked = [guard.target for guard in router.guards if (guard.target.name, guard.target.provider.name) not in known]
    if None not in counted:
        nothing = {"recent": Figures(), "total": Figures()}
        return (*found, *(_target(router, target, nothing, booked.get(target)) for target in unasked))
    money = _money(list(booked.values()), known=False)
    rest = TargetHealth(target=OTHER, provider="", host="", state="closed", latency_class="", **counted[None], **money)
    return (*found, rest)


def _target(router: Router, target: Target, facts: Mapping[str, Any], entry: Entry | None) -> TargetHealth:
    now = router.clock.now()
    outlook = router.guards[target].breaker.peek(now)
    benched = router.wallet.benched(target, now)
    waits = [outlook.retry_at, benched.until if benched is not None else None]
    return TargetHealth(
        target=target.name,
        provider=target.provider.name,
        host=target.provider.host,
        state=str(outlook.state),
        retry_in=max((max(0.0, at - now) for at in waits if at is not None), default=None),
        benched=benched.reason if benched is not None else None,
        latency_class=_latency_class(router, target, facts["recent"].latency.p95),
        **facts,
        **_money([entry] if entry is not None else [], known=target.price is not None),
    )


def _latency_class(router: Router, target: Target, p95: float | None) -> str:
    """The fastest class whose seconds the target keeps, the slowest where it keeps none; as declared if unobserved."""
    classes = sorted(router.config.latency.items(), key=lambda one: one[1])
    if p95 is None or not classes:
        return target.latency
    return next((name for name, seconds in classes if p95 <= seconds), classes[-1][0])


def _money(entries: list[Entry], *, known: bool) -> dict[str, Any]:
    """Tokens and USD of some targets; the sum is unknown as soon as one of its parts is, or `known` says so of none."""
    costs = [entry.cost for entry in entries]
    unknown = None in costs if costs else not known
    return {
        "prompt_tokens": sum(entry.usage.prompt_tokens for entry in entries),
        "completion_tokens": sum(entry.usage.completion_tokens for entry in entries),
        "cost_usd": None if unknown else sum((cost for cost in costs if cost), Decimal(0)),
    }
