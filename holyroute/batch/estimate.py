"""What a batch will take before it runs: tokens, money, time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from holyroute.batch.calls import call_of
from holyroute.batch.options import Defaults
from holyroute.batch.worst import dearest
from holyroute.core.completion import Usage
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from holyroute.batch.row import Row
    from holyroute.core.target import Target
    from holyroute.engine.router import Router

_NOTHING = Defaults()  # a row of a file says everything itself

SHORT = 10  # an answer in the lowest estimate has one in so many tokens of an expected one


@dataclass(slots=True)
class Share:
    """What one model is to do, where everything goes to the first choice."""

    rows: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Estimate:
    """USD and tokens of a whole batch; add its rows one by one.

    Attributes:
        rows: that can be asked.
        broken: rows that nobody can be asked.
        low: each row at the cheapest model it may go to, answers a tenth as long as expected.
        expected: each row at its first choice, answers as long as expected.
        worst: each row at the dearest model, a token per byte, answers as long as they may be, each billed once; None
            where a row has no bound.
        shares: rows and expected tokens by first choice.
    """

    rows: int = 0
    broken: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    low: Decimal | None = Decimal(0)
    expected: Decimal | None = Decimal(0)
    worst: Decimal | None = Decimal(0)
    unbounded: int = 0  # rows whose worst case is not known
    unpriced: Counter[str] = field(default_factory=Counter)  # models without a price, by rows
    shares: dict[Target, Share] = field(default_factory=dict)


class Estimator:
    """Adds up rows.

    Args:
        router: routes, prices, and what was learnt of token counts.
        answer: tokens of a usual answer, where some were seen.
    """

    def __init__(self, router: Router, answer: int | None = None) -> None:
        self._router = router
        self._answer = answer
        self.total = Estimate()

    def add(self, row: Row) -> None:
        """One more row."""
        total = self.total
        targets = self._targets(row)
        if row.body is None or not targets:
            total.broken += 1
            return
        total.rows += 1
        first, counter = targets[0], self._router.state.estimator
        raw = counter.read(row.body)
        prompt = counter.prompt(raw, first.key)
        answer = counter.completion(raw, first.key, reserved=self._answer)
        if self._answer is not None and raw.max_tokens is not None:
            answer = min(self._answer, raw.max_tokens) * raw.choices
        total.prompt_tokens += prompt
        total.completion_tokens += answer
        share = total.shares.setdefault(first, Share())
        share.rows += 1
        share.tokens += prompt + answer
        self._price(row, targets, Usage(prompt, answer))

    def _price(self, row: Row, targets: list[Target], usage: Usage) -> None:
        total = self.total
        short = Usage(usage.prompt_tokens, -(-usage.completion_tokens // SHORT))
        prices = [cost for target in targets if (cost := short.cost(target.price)) is not None]
        total.low = _sum(total.low, min(prices, default=None))
        total.expected = _sum(total.expected, usage.cost(targets[0].price))
        worst = dearest(row, self._router, _NOTHING)
        total.worst = _sum(total.worst, worst)
        total.unbounded += worst is None
        total.unpriced.update(target.name for target in targets if target.price is None)

    def _targets(self, row: Row) -> list[Target]:
        """Everybody who may be asked, whether or not there is a key."""
        if row.problem:
            return []
        call = call_of(row, _NOTHING, self._router.config.time)
        try:
            return [candidate.target for candidate in self._router.candidates(call)]
        except ConfigurationError:  # it names an unknown model
            return []


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a batch takes at least, and what holds it up."""

    seconds: float
    because: str


def pace(estimate: Estimate, router: Router, workers: int) -> Pace:
    """The longest of: each model's own limits with their headroom, and all rows by the workers at declared latency."""
    config = router.config
    usable = config.limits.headroom / 60
    found = [Pace(0.0, "nothing to ask")]
    busy = 0.0
    for target, share in estimate.shares.items():
        if target.rpm:
            found.append(Pace(share.rows / (target.rpm * usable), f"{target.rpm:,} requests a minute of {target.name}"))
        if target.tpm:
            found.append(Pace(share.tokens / (target.tpm * usable), f"{target.tpm:,} tokens a minute of {target.name}"))
        at_once = min(workers, target.provider.max_concurrency or workers)
        latency = config.latency.get(target.latency, 0.0)
        busy += share.rows * latency / at_once
    found.append(Pace(busy, f"{workers} at a time, as long as each model's latency class says"))
    return max(found, key=lambda one: one.seconds)


def _sum(total: Decimal | None, one: Decimal | None) -> Decimal | None:
    return None if total is None or one is None else total + one
