"""What the guards cost a call that nothing stops, in microseconds: tight loops, the best of several rounds.

    python benchmarks/hot_path.py [--rounds 7] [--calls 20000]

In a real call the same work takes longer, with cold caches. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import timeit
from typing import TYPE_CHECKING

from holyroute.config.schema import BreakerSettings
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.verdicts import Effect
from holyroute.cost.tokens import TokenEstimator
from holyroute.resilience.admission import Ticket
from holyroute.resilience.breaker import CircuitBreaker, Permit
from holyroute.resilience.bucket import Limits
from holyroute.resilience.budget import RetryBudget
from holyroute.resilience.gates import Gates
from holyroute.resilience.limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = {"model": "m", "messages": [{"role": "user", "content": "Summarise what was said yesterday. " * 12}]}


def guards() -> dict[str, Callable[[], object]]:
    """One operation of each guard."""
    breaker = CircuitBreaker("m", BreakerSettings())
    limiter = RateLimiter(Limits.per_minute(rpm=10**9, tpm=10**12))
    gates, budget, estimator = Gates(), RetryBudget(), TokenEstimator()

    def pass_breaker() -> None:
        now = SYSTEM_CLOCK.now()
        permit = breaker.try_acquire(now)
        assert isinstance(permit, Permit)
        breaker.record(permit, Effect.SUCCESS, now)

    def pass_limiter() -> None:
        ticket = limiter.acquire(300)
        assert isinstance(ticket, Ticket)
        limiter.settle(ticket, actual=280)

    return {
        "breaker: acquire and record": pass_breaker,
        "limiter: acquire and settle, requests and tokens": pass_limiter,
        "gates: nothing benched": lambda: gates.check(("a", "b", "c"), 0.0),
        "retry budget: success": lambda: budget.succeed(None),
        "token estimate of 420 characters": lambda: estimator.estimate(BODY, "m"),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args()
    print("| operation | µs |\n|---|---|")
    for name, operation in guards().items():
        best = min(timeit.repeat(operation, number=arguments.calls, repeat=arguments.rounds))
        print(f"| {name} | {best / arguments.calls * 1e6:.2f} |")


if __name__ == "__main__":
    main()
