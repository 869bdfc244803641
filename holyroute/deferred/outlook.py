"""Who could be asked now: looked up before anything is leased, so that an outage costs parked calls nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holyroute.resilience.admission import Priority

if TYPE_CHECKING:
    from holyroute.core.call import Call
    from holyroute.engine.attempt import Candidate
    from holyroute.engine.router import Router


def free_at(router: Router, call: Call, candidates: list[Candidate], now: float) -> float:
    """Monotonic seconds when the first candidate may be asked; not after now: at once. Takes no place and no probe."""
    return min((_free_at(router, call, one, now) for one in candidates), default=now)


def _free_at(router: Router, call: Call, candidate: Candidate, now: float) -> float:
    target = candidate.target
    choice = router.wallet.choose(candidate, call, now)
    if choice.refused is not None:
        return now if choice.retry_at is None else choice.retry_at  # without a key: the attempt tells what is missing
    outlook = router.guards[target].breaker.peek(now)
    at = now if outlook.admits else math.inf if outlook.retry_at is None else outlook.retry_at
    limiters = router.state.limiters.of(target, choice.credential)
    if limiters:
        estimator = router.state.estimator
        tokens = estimator.estimate(estimator.read(call.body), target.key)
        waits = (limiter.eta(tokens, now, Priority.QUEUE) for limiter in limiters)
        at = max(at, *(now if wait is None else now + wait for wait in waits))  # too large: the attempt tells
    return at
