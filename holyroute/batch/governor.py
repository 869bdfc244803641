"""Money: what may be spent is set aside before anything is sent, and what was not used comes back.

Always `spent + reserved <= cap`, as long as no provider bills more than a request can cost (`worst`). Where nobody
knows whether an attempt was billed, the most that it can have cost counts as spent.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING

from holyroute.batch.worst import SENDS
from holyroute.core.trace import RESENT
from holyroute.core.verdicts import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.trace import AttemptRecord

NOTHING = Decimal(0)


class Governor:
    """The money of a batch, in USD. Safe to share between threads.

    Args:
        cap: that is never exceeded; None only counts.
    """

    def __init__(self, cap: Decimal | None = None) -> None:
        self.cap = cap
        self.spent = NOTHING
        self.reserved = NOTHING
        self._lock = threading.Lock()

    def reserve(self, amount: Decimal) -> bool:
        """Set aside; False, and nothing is, where spending it might exceed the cap."""
        with self._lock:
            if self.cap is not None and self.spent + self.reserved + amount > self.cap:
                return False
            self.reserved += amount
            return True

    def settle(self, reserved: Decimal, spent: Decimal) -> None:
        """What was set aside comes back, but for what was spent of it."""
        with self._lock:
            self.reserved -= reserved
            self.spent += spent

    def might_fit(self, amount: Decimal) -> bool:
        """Whether so much may be set aside once everything has come back that can."""
        with self._lock:
            return self.cap is None or self.reserved > 0 or self.spent + amount <= self.cap


class Purse:
    """What one call of a row may spend; each attempt is paid for before it is sent. Belongs to one thread.

    Args:
        allowance: set aside for the call.
        extend: sets more aside, if there is more; without it the allowance is all there is.

    Attributes:
        granted: all that was set aside.
        empty: an attempt was not sent because it could not be paid for.
    """

    def __init__(self, allowance: Decimal, extend: Callable[[Decimal], bool] | None = None) -> None:
        self.granted = allowance
        self.empty = False
        self._billed = NOTHING
        self._attempt: Decimal | None = None  # what the one under way costs at most, for each time it is sent
        self._extend = extend

    def pay(self, worst: Decimal) -> bool:
        """Leave for an attempt that costs at most so much each time it is sent."""
        missing = self.spent + SENDS * worst - self.granted
        if missing > 0:
            if self._extend is None or not self._extend(missing):
                self.empty = True
                return False
            self.granted += missing
        self._attempt = worst
        return True

    def settle(self, record: AttemptRecord) -> None:
        """The attempt is over. One that was not paid for is none."""
        if self._attempt is not None:
            self._billed += bill(record, self._attempt)
            self._attempt = None

    @property
    def spent(self) -> Decimal:
        """What the call cost until now, or may have."""
        return self._billed + (SENDS * self._attempt if self._attempt is not None else NOTHING)


def bill(record: AttemptRecord, worst: Decimal) -> Decimal:
    """What an attempt cost: as reported, or the most it can where it may have been billed without a word.

    An attempt that was called off was sent. One that was sent twice may be billed twice, and only once is reported.
    """
    verdict = record.verdict
    unknown = record.cost is None and (verdict.billable or verdict.is_answer or verdict is CANCELLED)
    return (record.cost or NOTHING) + (unknown + (RESENT in record.detail)) * worst
