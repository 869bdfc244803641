"""Every attempt, booked exactly: what was spent, and what the routing saved."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from holyroute.core.completion import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Price, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Totals of one target at one unit price; a changed price opens a new entry."""

    target: Target
    price: Price | None
    attempts: int
    answers: int
    usage: Usage  # of the attempts that reported it
    unreported: int  # attempts that may have been billed though no usage was reported
    estimated: int = 0  # attempts whose usage was counted by us

    @property
    def cost(self) -> Decimal | None:
        """USD for the reported tokens; None where the price is unknown."""
        return self.usage.cost(self.price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What was spent, in USD, beside what the same tokens would have cost at a reference model."""

    spent: Decimal  # where price and usage are known
    reference: str | None
    at_reference: Decimal | None
    unknown: int  # attempts whose cost is not in `spent`: no price, or no usage reported
    estimated: int = 0  # attempts whose cost in `spent` is our estimate

    @property
    def saved(self) -> Decimal | None:
        """Negative when the reference would have been cheaper."""
        return None if self.at_reference is None else self.at_reference - self.spent


class _Row:
    __slots__ = ("answers", "attempts", "completion", "estimated", "price", "prompt", "target", "unreported")

    def __init__(self, target: Target) -> None:
        self.target, self.price = target, target.price
        self.attempts = self.answers = self.prompt = self.completion = self.unreported = self.estimated = 0


class Ledger:
    """Books attempts in whole tokens; money is worked out when somebody asks. Safe to share between threads."""

    def __init__(self) -> None:
        self._rows: dict[Target, _Row] = {}
        self._lock = threading.Lock()

    def book(self, target: Target, outcome: Outcome, *, resent: bool = False) -> None:
        """Count one attempt, failed ones too: a provider may have billed them, and a request that went out twice."""
        usage = outcome.usage
        with self._lock:
            row = self._rows.get(target)
            if row is None:
                row = self._rows[target] = _Row(target)
            row.attempts += 1
            row.answers += outcome.is_answer
            row.unreported += resent
            if usage is not None:
                row.estimated += usage.estimated
                row.prompt += usage.prompt_tokens
                row.completion += usage.completion_tokens
            elif outcome.is_answer or outcome.verdict.billable:
                row.unreported += 1

    def entries(self) -> list[Entry]:
        """All that was booked, per target and unit price."""
        with self._lock:
            return [
                Entry(
                    target=row.target,
                    price=row.price,
                    attempts=row.attempts,
                    answers=row.answers,
                    usage=Usage(row.prompt, row.completion),
                    unreported=row.unreported,
                    estimated=row.estimated,
                )
                for row in self._rows.values()
            ]

    def balance(self, reference: Target | None = None) -> Balance:
        """Spent and, against a reference model on the same tokens, saved."""
        entries = self.entries()
        known = [entry for entry in entries if entry.price is not None]
        price = reference.price if reference is not None else None
        return Balance(
            spent=_sum(entry.cost for entry in known),
            reference=reference.name if reference is not None else None,
            at_reference=None if price is None else _sum(entry.usage.cost(price) for entry in known),
            estimated=sum(entry.estimated for entry in known),
            unknown=sum(entry.unreported if entry.price is not None else entry.attempts for entry in entries),
        )


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
