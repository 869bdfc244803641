"""What the engine's parts cost a call that nothing stops: tight loops, the best of several rounds, in microseconds.

In a real call the same work takes longer, with cold caches: these figures rank, they do not add up.
"""

from __future__ import annotations

import tempfile
import timeit
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exchange import ANSWER_BYTES, MODEL, PAYLOAD
from ours import ENVIRONMENT, configuration
from tables import table

import holyroute
from holyroute.config.schema import BreakerSettings
from holyroute.core.call import Call
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.trace import Trace
from holyroute.core.verdicts import Effect
from holyroute.cost.tokens import TokenEstimator
from holyroute.engine.router import Router
from holyroute.resilience.admission import Ticket
from holyroute.resilience.breaker import CircuitBreaker
from holyroute.resilience.bucket import Limits
from holyroute.resilience.budget import RetryBudget
from holyroute.resilience.circuit import Permit
from holyroute.resilience.gates import Gates
from holyroute.resilience.limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.engine.attempt import Attempt

    Operation = Callable[[], object]

ROUNDS = 7
CALL = Call(model=MODEL, body=PAYLOAD, deadline=300, connect=10, read=120, limit=120)
SAME = replace(CALL, body=PAYLOAD | {"temperature": 0})  # one that a cache may answer


def measure(loops: int) -> dict[str, float]:
    """Microseconds of each operation."""
    best = {}
    for name, operation in (guards() | engine()).items():
        operation()
        best[name] = min(timeit.repeat(operation, number=loops, repeat=ROUNDS)) / loops * 1e6
    return best


def guards() -> dict[str, Operation]:
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
        "token estimate of the question": lambda: estimator.estimate(PAYLOAD, "m"),
    }


def engine() -> dict[str, Operation]:
    """A fully routed `Client` call without its socket, whole and in part."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holyroute.toml"
        file.write_text(configuration("http://127.0.0.1:9"))
        router = Router(holyroute.load(file, env={}), env=ENVIRONMENT)
    asked = []
    response = holyroute.Response()
    response.status_code = 200
    response.headers["Content-Type"] = "application/json"
    response._content = ANSWER_BYTES  # noqa: SLF001 - a response that was read

    def plan() -> None:
        attempt = next(router.plan(CALL, Trace(CALL, router.clock, router.events.publish)))
        assert attempt.clearance is not None
        router.guards[attempt.target].release(attempt.clearance, router.clock.now())

    def transport(_: Attempt) -> holyroute.Response:
        asked.append(1)
        return response

    operations = {
        "engine: select and plan, through all gates": plan,
        "engine: a whole call, answered at once": lambda: router.send(CALL, lambda _: response),
    }
    for _ in range(2):
        router.send(SAME, transport)
    if len(asked) == 1:
        operations["engine: a whole call, answered from the cache"] = lambda: router.send(SAME, transport)
    return operations


def shown(best: dict[str, float]) -> str:
    """The table."""
    return table(("operation", "µs"), [(name, f"{microseconds:.2f}") for name, microseconds in best.items()])
