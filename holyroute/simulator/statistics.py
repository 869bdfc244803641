"""Figures per model, as a provider's own dashboard and bill would show them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from holyroute.simulator.exchange import Exchange
    from holyroute.simulator.profiles import Profile

_LATENCIES = 100_000


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """The figures of one model.

    Attributes:
        calls: requests that arrived.
        failures: those which ended without a whole, well-formed completion.
        average, p95: seconds from the arrival of a request to the last byte of its completion, of the calls that did
            not fail; p95 by nearest rank over the last 100,000 of them; 0.0 when there was none.
        availability: share of the ended calls which did not fail; 1.0 when none ended.
        prompt_tokens, completion_tokens: on the bill.
        bill: US dollars by the model's own prices, exact. Only whole completions are billed, and what a fault made
            with `faults.billed()` bills nevertheless.
    """

    calls: int
    failures: int
    average: float
    p95: float
    availability: float
    prompt_tokens: int
    completion_tokens: int
    bill: Decimal


class Tally:
    """Adds up the ended calls of one model. The caller holds the lock."""

    def __init__(self) -> None:
        self._good = 0
        self._failures = 0
        self._seconds = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def add(self, exchange: Exchange) -> None:
        """Book one ended call."""
        assert exchange.finished is not None
        if exchange.complete:
            latency = exchange.finished - exchange.arrived
            self._good += 1
            self._seconds += latency
            self._latencies.append(latency)
        else:
            self._failures += 1
        if exchange.complete or exchange.billed:
            self._prompt_tokens += exchange.answer.prompt_tokens
            self._completion_tokens += exchange.answer.completion_tokens

    def statistics(self, calls: int, profile: Profile) -> ModelStatistics:
        """The figures so far."""
        ended = self._good + self._failures
        return ModelStatistics(
            calls=calls,
            failures=self._failures,
            average=self._seconds / self._good if self._good else 0.0,
            p95=percentile(self._latencies, 0.95),
            availability=self._good / ended if ended else 1.0,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            bill=profile.cost(self._prompt_tokens, self._completion_tokens),
        )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value with at least this share of the values at or below it (nearest rank); 0.0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
