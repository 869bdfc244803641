"""What the demo shows at the end: who answered, for how much, and that nothing was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.cli.output import seconds, share, show, show_json, show_table, usd
from holyroute.cli.stage import ROUTE
from holyroute.simulator.statistics import percentile

if TYPE_CHECKING:
    from decimal import Decimal

    from holyroute.cli.demo import Play
    from holyroute.cli.tally import Tally
    from holyroute.client import Client
    from holyroute.cost.ledger import Entry

EXACT = 8  # digits of a bill; prices per million tokens leave no more


class Report:
    """The figures of one demo.

    Args:
        play: what became of the calls.
        tally: what the client did.
        client: whose ledger is read.
        bill: what the gateways ask for, in US dollars.
        duration: seconds.
    """

    def __init__(self, play: Play, tally: Tally, client: Client, bill: Decimal, duration: float) -> None:
        self._play = play
        self._tally = tally
        self._bill = bill
        self._duration = duration
        self._balance = client.balance()
        self._entries = {entry.target.name: entry for entry in client.router.ledger.entries()}

    @property
    def is_good(self) -> bool:
        """Nothing was lost, and the two bills agree, as far as the client can know."""
        return self._play.lost == 0 and (self._difference == 0 or (self._difference > 0 and self._balance.unknown > 0))

    @property
    def _difference(self) -> Decimal:
        return self._bill - self._balance.spent

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        if as_json:
            show_json(self._record())
            return
        show("")
        headers = ["model", "calls", "answered", "average", "p95", "avail.", "USD"]
        show_table(headers, [self._row(model) for model in ROUTE])
        show("calls, latency and availability as the client saw them; USD by its ledger", style="dim")
        show("", *self._totals())
        show(f"lost: {self._play.lost}", style="bold")
        show("", *self._money())

    def _row(self, model: str) -> list[str]:
        calls, times = self._tally.attempts[model], self._tally.answered[model]
        entry = self._entries.get(model)
        average = sum(times) / len(times) if times else None
        p95 = percentile(times, 0.95) if times else None
        cost = usd(entry.cost) if entry else usd(None)
        figures = [seconds(average), seconds(p95), share(len(times), calls), cost if calls else "-"]
        return [model, str(calls), str(len(times)), *figures]

    def _totals(self) -> list[str]:
        calls = self._tally.calls
        p50, p95 = percentile(calls, 0.5), percentile(calls, 0.95)
        return [
            f"duration: {self._duration:.1f} s",
            f"time per request: p50 {p50:.2f} s, p95 {p95:.2f} s, slowest {max(calls):.2f} s",
            f"attempts: {self._tally.attempts.total():,}",
            f"failovers: {self._tally.failovers:,}",
            f"circuit openings: {self._tally.openings}",
        ]

    def _money(self) -> list[str]:
        balance = self._balance
        verdict = "equal"
        if self._difference:
            verdict = "not equal: "
            verdict += "answers were billed that broke off" if self.is_good else "this should not happen"
        return [
            f"spent: {usd(balance.spent)} USD",
            f"saved: {usd(balance.saved)} USD against {balance.reference} for the same tokens",
            f"bill: {usd(balance.spent, EXACT)} USD by the client, {usd(self._bill, EXACT)} by the gateways: {verdict}",
        ]

    def _record(self) -> dict[str, Any]:
        calls = self._tally.calls
        return {
            "requests": self._play.size,
            "workers": self._play.workers,
            "duration_s": round(self._duration, 3),
            "lost": self._play.lost,
            "attempts": self._tally.attempts.total(),
            "failovers": self._tally.failovers,
            "circuit_openings": self._tally.openings,
            "call_p50_s": percentile(calls, 0.5),
            "call_p95_s": percentile(calls, 0.95),
            "call_slowest_s": max(calls),
            "spent_usd": self._balance.spent,
            "saved_usd": self._balance.saved,
            "reference": self._balance.reference,
            "billed_usd": self._bill,
            "bills_agree": self._difference == 0,
            "models": [self._model_record(model, self._entries.get(model)) for model in ROUTE],
        }

    def _model_record(self, model: str, entry: Entry | None) -> dict[str, Any]:
        calls, times = self._tally.attempts[model], self._tally.answered[model]
        return {
            "model": model,
            "calls": calls,
            "answered": len(times),
            "average_s": sum(times) / len(times) if times else None,
            "p95_s": percentile(times, 0.95) if times else None,
            "availability": len(times) / calls if calls else None,
            "cost_usd": entry.cost if entry else None,
        }
