"""What a circuit breaker deals in: states, permits, rejections, outlooks, transitions, snapshots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple


class CircuitState(StrEnum):
    """Whether calls pass, and who decided so: the results, or an operator (forced)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"


@dataclass(slots=True, eq=False)
class Permit:
    """Leave for one call; goes back to `record` exactly once (more often does no harm)."""

    generation: int
    kind: Literal["normal", "probe", "early"]
    t0: float  # monotonic
    lease_end: float = math.inf  # monotonic; a probe that is silent until then counts as failed
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """No leave."""

    retry_at: float | None  # monotonic: no earlier, unless a result or an operator moves the state; None: nobody knows
    forced: bool = False


class Outlook(NamedTuple):
    """What `try_acquire` would meet: the state, and the `retry_at` of a rejection."""

    state: CircuitState
    retry_at: float | None

    @property
    def admits(self) -> bool:
        """Whether a call would be let through."""
        return self.retry_at is None and self.state is not CircuitState.FORCED_OPEN


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, forced or not. `before` equals `after` when an operator repeats an order."""

    name: str
    before: CircuitState
    after: CircuitState
    at: float  # monotonic; for what time brought, when it was due
    retry_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """The breaker as its last `try_acquire` or `record` left it; `peek` knows what time has brought since."""

    name: str
    state: CircuitState
    retry_at: float | None
    generation: int
    trips: int
    late_results: int
    probes_in_flight: int
    successes: int  # of probes since half-open
    consecutive_failures: int  # this and the next two: while calls last passed freely
    window_calls: int
    window_failures: int
