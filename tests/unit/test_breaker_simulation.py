"""What the breaker costs a target that fails now and then, and how it behaves in an outage: hours in fake time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest

from holyroute.config.schema import BreakerSettings
from holyroute.core.verdicts import Effect
from holyroute.resilience.breaker import CircuitBreaker
from holyroute.resilience.circuit import Permit
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3_600.0
FAST_FAILURE = 0.05  # seconds until a 503 is there


@dataclass
class Traffic:
    """Calls at even intervals, overlapping as they last; each is sent to the target or diverted."""

    interval: float
    healthy: Callable[[float], bool]  # whether a call sent at this time will be answered
    seed: int
    failure_lasts: float = FAST_FAILURE
    asked: int = 0
    diverted: int = 0
    attempts: list[tuple[float, bool]] = field(default_factory=list)  # when one was sent, and whether it was answered

    def run(self, start: float, end: float) -> Traffic:
        """From `start` to `end` in seconds of the simulation."""
        chance = random.Random(self.seed)  # noqa: S311 - a reproducible simulation
        clock = FakeClock(start=start)
        breaker = CircuitBreaker("target", BreakerSettings(), jitter=chance.random)
        in_flight: list[tuple[float, int, Permit, Effect]] = []
        for number in count():
            now = start + number * self.interval
            if now >= end:
                return self
            clock.advance(now - clock.now())
            while in_flight and in_flight[0][0] <= now:
                settled_at, _, permit, effect = heapq.heappop(in_flight)
                breaker.record(permit, effect, settled_at)
            self.asked += 1
            answer = breaker.try_acquire(clock.now())
            if not isinstance(answer, Permit):
                self.diverted += 1
                continue
            answered = self.healthy(now)
            self.attempts.append((now, answered))
            lasts = chance.uniform(0.3, 3.0) if answered else self.failure_lasts
            effect = Effect.SUCCESS if answered else Effect.FAILURE
            heapq.heappush(in_flight, (now + lasts, number, answer, effect))
        raise AssertionError


@pytest.mark.parametrize("seed", range(5))
def test_one_call_in_ten_failing_diverts_next_to_nothing(seed: int) -> None:
    """10 % random 503 at 16 calls/s for two hours: less than 2 % of the calls are kept from the target."""
    chance = random.Random(seed)  # noqa: S311 - a reproducible simulation
    traffic = Traffic(1 / 16, lambda _: chance.random() >= 0.1, seed).run(0.0, 2 * HOUR)

    assert traffic.asked == 2 * HOUR * 16
    assert traffic.diverted / traffic.asked < 0.02


@pytest.mark.parametrize("seed", range(20))
def test_an_outage_of_a_minute(seed: int) -> None:
    """A minute of 503, a call every 4 s, 50 phases: at most 8 attempts in vain, back within 12 s of the recovery."""
    for phase in range(50):
        start = phase * 4 / 50
        traffic = Traffic(4.0, lambda now: not 100.0 <= now < 160.0, seed).run(start, 300.0)
        in_vain = [when for when, answered in traffic.attempts if not answered]
        back = min(when for when, _ in traffic.attempts if when >= 160.0)

        assert 3 <= len(in_vain) <= 8
        assert back - 160.0 <= 12.0
