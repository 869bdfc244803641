"""What a window is made of: rows, and groups of rows that the same targets may answer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from holyroute.batch.row import Cause, Row, RowResult

BUSY = 0.05  # seconds until somebody is asked again who is busy and says no time: a place may be free any moment
LOOK_AGAIN = 5.0  # seconds of an outage until a row asks whether it is over: what names the time is often a mere bound
REST = 1.0  # seconds after a refusal of which nobody said how long it lasts, and before a further round, doubling
MANY = 64  # rows on their way one after the other, after which a limit is far


@dataclass(eq=False, slots=True)
class Group:
    """Rows that the same targets may answer."""

    key: Hashable
    rows: int = 0  # in the window
    ready: list[tuple[int, Slot]] = field(default_factory=list)  # heap by number
    rests_until: float = -math.inf
    waits_for_place: bool = False  # somebody is busy: the end of a call is a reason to try
    waits_for_answer: bool = False  # nobody may be asked: an answer shows that this is over
    may_start: float = math.inf  # rows that have been started and are not on their way yet
    unsent: int = 0

    def rest(self, seconds: float | None, now: float, *, is_limited: bool = True) -> None:
        """A row came back: leave the others where they are for a while.

        A limit says when it frees. An open circuit does not: while a probe is under way, only when that is given up.
        """
        if not is_limited and seconds is not None:
            seconds = min(seconds, LOOK_AGAIN)
        self.waits_for_answer = not is_limited
        self.waits_for_place = seconds is not None and seconds < BUSY
        self.rests_until = max(self.rests_until, now + max(REST if seconds is None else seconds, BUSY))

    def is_on_its_way(self) -> None:
        """A row got through."""
        self.may_start = self.may_start + 1 if self.may_start < MANY else math.inf

    def hear(self, *, answered: bool) -> None:
        """A call is over that was sent."""
        if self.waits_for_place or (self.waits_for_answer and answered):
            self.rests_until = -math.inf

    @property
    def may_go_at(self) -> float | None:
        """When a row may be started; None: not before another one is on its way, or comes in."""
        return self.rests_until if self.ready and self.unsent < self.may_start else None


@dataclass(eq=False, slots=True)
class Slot:
    """One row in the window, and what it took until now."""

    row: Row
    number: int  # in the order of taking
    group: Group
    rounds: int  # that are left
    key: Hashable | None = None  # equal rows have the same; None: nobody shares its answer
    twins: list[Slot] = field(default_factory=list)
    reserved: Decimal = Decimal(0)
    worst: Decimal | None = None  # to be set aside before it is asked
    unsent: bool = False  # counts in its group
    lost: int = 0  # how often the worker died that had it
    put_off_since: float | None = None
    result: RowResult | None = None  # of the last try, with what all of them took

    def add(self, result: RowResult) -> None:
        """One more try."""
        before = self.result
        if before is not None:
            costs = (before.cost_usd, result.cost_usd)
            result = replace(
                result,
                attempts=before.attempts + result.attempts,
                seconds=before.seconds + result.seconds,
                cost_usd=None if costs[0] is None or costs[1] is None else costs[0] + costs[1],
            )
        self.result = result

    def __lt__(self, other: Slot) -> bool:
        return self.number < other.number


@dataclass(slots=True)
class Counts:
    """What became of the rows."""

    taken: int = 0
    done: int = 0
    answered: int = 0
    in_flight: int = 0
    models: Counter[str] = field(default_factory=Counter)
    causes: Counter[Cause] = field(default_factory=Counter)
