"""What a benchmark may cost, and what it measured."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holyroute.cli.output import NONE, UNKNOWN, seconds, share, show, show_json, show_table, usd
from holyroute.core.completion import Usage
from holyroute.core.target import is_loopback
from holyroute.simulator.statistics import percentile

if TYPE_CHECKING:
    from holyroute.cli.tally import Tally
    from holyroute.core.target import Target
    from holyroute.cost.ledger import Entry, Ledger

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be measured: `size` requests to each target, `workers` at a time."""

    size: int
    workers: int
    prompt: str
    max_tokens: int
    targets: tuple[Target, ...]

    def question(self, number: int) -> str:
        """A prompt that no other request has: an answer out of somebody's cache would measure the cache."""
        return f"[{number}] {self.prompt}"

    @property
    def abroad(self) -> bool:
        """Whether any request leaves this machine."""
        return not all(is_loopback(target.provider.base_url) for target in self.targets)

    def worst_cost(self, target: Target) -> Decimal | None:
        """The most USD that all requests to a target can cost; None where its price is unknown.

        No tokenizer makes more tokens than bytes, and no answer is longer than its limit.
        """
        longest = len(self.question(self.size).encode("utf-8", "surrogatepass"))
        return Usage(longest * self.size, self.max_tokens * self.size).cost(target.price)


def announce(job: Job, *, err: bool) -> None:
    """Show the most that a job can cost, on stderr where stdout is for something else."""
    costs = {target: job.worst_cost(target) for target in job.targets}
    known = [cost for cost in costs.values() if cost is not None]
    unknown = [target.name for target, cost in costs.items() if cost is None]
    rows = [[target.name, target.provider.host, usd(cost)] for target, cost in costs.items()]
    show_table(["model", "host", "USD at most"], rows, left=2, err=err)
    show(f"{job.size:,} requests to each model, answers of at most {job.max_tokens} tokens", err=err)
    if known:
        show(f"at most {usd(sum(known, Decimal(0)))} USD{' for those with a price' if unknown else ''}", err=err)
    if unknown:
        show(f"cost {UNKNOWN}, no price is configured: {', '.join(unknown)}", err=err)
    show("", err=err)


def report(job: Job, tally: Tally, ledger: Ledger, *, as_json: bool) -> None:
    """Show what was measured."""
    entries = {entry.target.key: entry for entry in ledger.entries()}
    if as_json:
        records = [_record(target, tally, entries.get(target.key)) for target in job.targets]
        show_json({"requests": job.size, "workers": job.workers, "max_tokens": job.max_tokens, "models": records})
        return
    show("")
    headers = ["model", "sent", "answered", "average", "p95", "avail.", "USD/M", "USD"]
    show_table(headers, [_row(target, tally, entries.get(target.key)) for target in job.targets])
    show("average and p95 of what was answered; USD/M: per million tokens, as used", style="dim")
    for target in job.targets:
        for reason, count in _failures(job, target, tally).items():
            show(f"{target.name}: {count:,} x {reason}")


def _row(target: Target, tally: Tally, entry: Entry | None) -> list[str]:
    sent, times = tally.attempts[target.name], tally.answered[target.name]
    average = sum(times) / len(times) if times else None
    p95 = percentile(times, 0.95) if times else None
    return [
        target.name,
        str(sent),
        str(len(times)),
        seconds(average),
        seconds(p95),
        share(len(times), sent),
        usd(_per_million(entry), 2) if times else NONE,
        usd(entry.cost) if entry else NONE,
    ]


def _failures(job: Job, target: Target, tally: Tally) -> dict[str, int]:
    failures = dict(tally.reasons[target.name].most_common())
    unsent = job.size - tally.attempts[target.name]
    return failures | ({"not sent, for it asked to be left alone": unsent} if unsent else {})


def _per_million(entry: Entry | None) -> Decimal | None:
    """USD per million tokens in the mix of prompt and answer that was used."""
    if entry is None or entry.cost is None or not entry.usage.total_tokens:
        return None
    return entry.cost / entry.usage.total_tokens * MILLION


def _record(target: Target, tally: Tally, entry: Entry | None) -> dict[str, Any]:
    sent, times = tally.attempts[target.name], tally.answered[target.name]
    return {
        "model": target.name,
        "provider": target.provider.name,
        "sent": sent,
        "answered": len(times),
        "average_s": sum(times) / len(times) if times else None,
        "p95_s": percentile(times, 0.95) if times else None,
        "availability": len(times) / sent if sent else None,
        "usd_per_million_tokens": _per_million(entry),
        "cost_usd": entry.cost if entry else None,
        "failures": dict(tally.reasons[target.name]),
    }
