"""Fifty workers and a provider that enforces its limit, minute for minute, in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from holyroute.batch.ending import Ending, failed
from holyroute.batch.row import Cause, Row
from holyroute.batch.window import Window
from holyroute.resilience.admission import Priority
from holyroute.resilience.bucket import Limits
from holyroute.resilience.limiter import RateLimiter, Refused
from holyroute.simulator.profiles import Limit, lognormal
from holyroute.simulator.profiles import Window as Enforced
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.batch.slot import Slot

MINUTES = 3
ROUND_TRIP = 0.05  # seconds until a 429 is back


class Simulation:
    """Rows without end. What takes no time in the network takes none here.

    Args:
        limit: requests a minute that the provider allows.
        configured: what the limiter believes.
    """

    def __init__(self, limit: int, configured: int, workers: int = 50) -> None:
        self.clock = FakeClock(start=0.0)
        self.limiter = RateLimiter(Limits.per_minute(rpm=configured), clock=self.clock, jitter=lambda: 0.5)
        self.provider = Enforced(Limit(rpm=limit), 60.0)
        self.window = Window(size=3 * workers, ordered=False, rounds=2, patience=300.0)
        self.workers = workers
        self.answered = self.refused = self.asked_in_vain = 0
        self._random = random.Random(7)  # noqa: S311 - a simulation
        self._latency = lognormal(1.8, 3.5)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> None:
        """Until then."""
        while self.clock.now() < seconds:
            while self.window.has_room:
                self.window.take(Row(index=self.window.counts.taken, body={}))
            while self.window.counts.in_flight < self.workers and (slot := self.window.peek(self.clock.now())):
                self.window.start(slot)
                self._ask(slot)
            self._wait(seconds)
            while self.window.pop() is not None:
                pass

    def _ask(self, slot: Slot) -> None:
        now = self.clock.now()
        leave = self.limiter.acquire(100, max_wait=0.0, priority=Priority.BATCH)
        if isinstance(leave, Refused):
            self.asked_in_vain += 1
            self._settle(slot, None, leave.eta)
            return
        self.window.sent(slot)
        wait = self.provider.take(100, now)
        if wait > 0:
            self.refused += 1
            self._later(ROUND_TRIP, lambda: (self.limiter.throttled(leave, wait), self._settle(slot, False, wait)))
        else:
            latency = self._random.lognormvariate(*self._latency)
            self._later(latency, lambda: (self.limiter.settle(leave), self._settle(slot, True, None)))

    def _settle(self, slot: Slot, ok: bool | None, wait: float | None) -> None:
        """None: nobody was asked."""
        result = replace(failed(slot.row, Cause.RATE_LIMITED, "no"), attempts=ok is not None, cost_usd=Decimal(0))
        if ok:
            self.answered += 1
            result = replace(result, ok=True, error=None)
        self.window.settle(slot, Ending(result=result, wait=wait, may_pass=not ok), self.clock.now())

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.clock.now() + seconds, next(self._order), lambda: (what(), None)[1]))

    def _wait(self, end: float) -> None:
        wake_at = self.window.wake_at(is_last=False) if self.window.counts.in_flight < self.workers else None
        first = self._events[0][0] if self._events else end
        if wake_at is not None and wake_at <= first:
            self.clock.advance(max(1e-6, wake_at - self.clock.now()))
        elif self._events:
            at, _, what = heapq.heappop(self._events)
            self.clock.advance(max(0.0, at - self.clock.now()))
            what()
        else:
            self.clock.advance(end - self.clock.now())


def test_a_limit_of_600_a_minute_is_used_and_kept() -> None:
    """No 429, at least 85 % of what is allowed, and a row is seldom taken up before its turn."""
    simulation = Simulation(600, 600)
    simulation.run(60.0 * MINUTES)

    assert simulation.refused == 0
    assert simulation.answered >= 0.85 * 600 * MINUTES
    assert simulation.asked_in_vain <= 2 * simulation.answered


@pytest.mark.parametrize("limit", [60, 3_000])
def test_other_limits(limit: int) -> None:
    """One that fifty workers exceed by far, and one that they hardly reach."""
    simulation = Simulation(limit, limit)
    simulation.run(60.0 * MINUTES)
    reachable = min(limit, 50 / 1.8 * 60)

    assert simulation.refused == 0
    assert simulation.answered >= 0.85 * reachable * MINUTES - 50


def test_a_limit_that_is_believed_to_be_twice_as_high() -> None:
    """The provider's own 429s slow the batch down: few are refused."""
    simulation = Simulation(300, 600)
    simulation.run(60.0 * MINUTES)

    assert simulation.refused <= 0.03 * simulation.answered
    assert simulation.answered >= 0.7 * 300 * MINUTES
