"""Health as text for people: lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holyroute.core.explain import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from holyroute.monitoring.health import Figures, Health, TargetHealth

WIDTH = 80
NAME = 24  # columns of a model's name; longer ones get a line of their own
RECENT = 5  # failovers and alerts that are told
NONE = "-"

_HEAD = ("model", "state", "requests", "failed", "average", "p95", "USD")
_WIDTHS = (NAME, 9, 8, 7, 8, 8, 10)


def report(health: Health) -> str:
    """The state of each model, average latency, requests, failure rate, and all that is worth a look."""
    return "\n".join(_lines(health))


def _lines(health: Health) -> Iterator[str]:
    yield f"Health at {_moment(health.at)}: {'good' if health.is_healthy else 'not everything is well'}"
    yield from _wrapped(f"process {health.pid}, counting since {_moment(health.since)}; {_calls(health)}")
    yield ""
    yield _row(_HEAD)
    for target in health.targets:
        yield from _of_target(target)
    if not health.targets:
        yield "nobody was asked yet"
    yield from _section("Routes", [_of_route(health, number) for number in range(len(health.routes))])
    yield from _section("Alerts", [_of_alert(health, number) for number in range(len(health.alerts))][:RECENT])
    failovers = health.recent_failovers[:RECENT]
    told = [f"{_moment(one.at)} {one.asked} -> {one.answered_by or 'nobody'}: {one.reason}" for one in failovers]
    yield from _section("Failovers", told)
    yield from _section("Queue", _of_queue(health))
    yield from _section("Money", [_money(health)])


def _calls(health: Health) -> str:
    calls = health.calls
    return (
        f"{calls.count:,} calls, {_share(calls.error_rate)} failed, {health.failovers:,} failovers, "
        f"{health.cache_hits:,} from the cache"
    )


def _of_target(target: TargetHealth) -> Iterator[str]:
    total = target.total
    state = "benched" if target.benched is not None and target.state == "closed" else target.state.split()[0]
    facts = (state, f"{total.count:,}", _share(total.error_rate), *_latency(total), _usd(target.cost_usd))
    name = printable(target.target)
    if len(name) > NAME:
        yield from _wrapped(name)
        name = ""
    yield _row((name, *facts))
    if target.provider:
        yield from _wrapped(f"at {target.provider} ({target.host}), {_detail(target)}", "  ")


def _detail(target: TargetHealth) -> str:
    parts = [target.latency_class]
    if target.state.startswith("forced"):
        parts.append(f"its circuit is {target.state}")
    if target.retry_in:
        parts.append(f"asked again in {target.retry_in:.0f} s")
    if target.benched is not None:
        parts.append(target.benched)
    if target.recent.count:
        parts.append(f"of late {target.recent.count:,} requests, {_share(target.recent.error_rate)} failed")
    reasons = sorted(target.errors_by_reason.items(), key=lambda one: -one[1])
    return "; ".join([*parts, *(f"{count:,} × {reason}" for reason, count in reasons)])


def _of_route(health: Health, number: int) -> str:
    route = health.routes[number]
    total = route.total
    average, p95 = _latency(total)
    return (
        f"{route.route}: {total.count:,} calls, {_share(total.error_rate)} failed, {average} on average, "
        f"p95 {p95}, {route.failovers:,} failovers, {route.cache_hits:,} from the cache, {route.parked:,} parked"
    )


def _of_alert(health: Health, number: int) -> str:
    alert = health.alerts[number]
    until = "goes on" if alert.ended is None else f"ended {_moment(alert.ended)}"
    return f"{_moment(alert.began)} {alert.rule}: {alert.subject}: {alert.message} ({until})"


def _of_queue(health: Health) -> list[str]:
    queue = health.queue
    if queue is None:
        return []
    return [f"{queue.ready:,} wait, {queue.leased:,} are under way, {queue.done:,} answered, {queue.dead:,} given up"]


def _money(health: Health) -> str:
    text = f"{_usd(health.spent_usd)} USD spent"
    if health.unknown_cost:
        text += f", not counting {health.unknown_cost:,} requests whose cost is unknown"
    if health.saved_usd is not None:
        text += f"; {_usd(health.saved_usd)} USD saved against {health.reference}"
    return text


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
    for line in lines:
        yield from _wrapped(printable(line), "  ")


def _row(cells: Sequence[str]) -> str:
    first, state, *rest = (
        f"{cell:<{width}}" if number < 2 else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return " ".join([first, state, *rest]).rstrip()


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def _latency(figures: Figures) -> tuple[str, str]:
    return _seconds(figures.latency.average), _seconds(figures.latency.p95)


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.2f} s"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _usd(value: Decimal | None) -> str:
    return "unknown" if value is None else f"{value:,.4f}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
