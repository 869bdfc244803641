"""What `holyroute health` shows of an app."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holyroute.cli.output import NONE, seconds, share, show, show_table, usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LISTED = 5  # failovers
_WELL = "closed"


class Report:
    """The figures of one process.

    Args:
        told: `Health.as_dict()` as it came over the network. What stands in it is not trusted with the terminal.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told: Mapping[str, Any] = _printable(told)

    def show(self) -> None:
        """Print it."""
        told = self._told
        show("healthy" if told["is_healthy"] else "not healthy", style="bold")
        counting = f"counting since {_time(told['since'])}, now {_time(told['at'])}"
        show(f"process {told['pid']}, {counting}", style="dim")
        show("")
        headers = ["model", "state", "attempts", "errors", "average", "p95", "USD"]
        show_table(headers, [self._row(target) for target in told["targets"]], left=2)
        show(f"attempts, errors and latency of the last {told['window']:.0f} s; USD since the start", style="dim")
        show("", *self._totals())
        self._show_notes("alerts", [_alert(one) for one in told["alerts"]])
        self._show_notes("recent failovers", _failovers(told["recent_failovers"])[:LISTED])

    def _row(self, target: Mapping[str, Any]) -> list[str]:
        recent = target["recent"]
        state = target["state"]
        if target["benched"] is not None:
            state = target["benched"] if state == _WELL else f"{state}, {target['benched']}"
        judged = recent["answers"] + recent["errors"]
        latency = recent["latency"]
        figures = [seconds(latency["average"]), seconds(latency["p95"]), _money(target["cost_usd"])]
        return [target["target"], state, f"{recent['count']:,}", share(recent["errors"], judged), *figures]

    def _totals(self) -> list[str]:
        told, calls = self._told, self._told["calls"]
        lines = [
            f"calls: {calls['count']:,}, not answered: {calls['errors']:,}",
            f"failovers: {told['failovers']:,}, answered from memory: {told['cache_hits']:,}",
            f"spent: {_money(told['spent_usd'])} USD",
        ]
        if told["saved_usd"] is not None:
            lines.append(f"saved: {_money(told['saved_usd'])} USD against {told['reference']} for the same tokens")
        queue = told["queue"]
        if queue is not None:
            lines.append("queue: {ready:,} waiting, {leased:,} under way, {done:,} done, {dead:,} dead".format(**queue))
        return lines

    def _show_notes(self, title: str, lines: list[str]) -> None:
        if lines:
            show("", f"{title}:", *(f"  {line}" for line in lines))


def _alert(one: Mapping[str, Any]) -> str:
    when = f"since {_time(one['began'])}" if one["ended"] is None else f"{_time(one['began'])} to {_time(one['ended'])}"
    return f"{when}  {one['subject']}: {one['message']}"


def _failovers(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last one of each kind: in an outage the same happens again and again."""
    kinds = [(one["asked"], one["answered_by"] or "nobody", one["reason"]) for one in notes]
    times, last = Counter(kinds), {kind: one["at"] for kind, one in zip(kinds[::-1], notes[::-1], strict=True)}
    return [
        f"{_time(last[kind])}  {kind[0]}: answered by {kind[1]} ({kind[2]})" + (f", {count} times" if count > 1 else "")
        for kind, count in times.items()
    ]


def _money(amount: str | None) -> str:
    return usd(None if amount is None else Decimal(amount))


def _time(at: float | None) -> str:
    try:
        return NONE if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"
    except OSError as error:  # what some systems say to a year that no calendar has
        raise ValueError(at) from error


def _printable(value: Any) -> Any:
    """Texts without the control characters that a terminal would obey."""
    if isinstance(value, dict):
        return {name: _printable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, str):
        return "".join(one if one.isprintable() else "�" for one in value)
    return value
