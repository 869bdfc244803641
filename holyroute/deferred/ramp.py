"""How fast a queue is replayed: pure rules, with monotonic seconds passed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holyroute.config.schema import QueueSettings


class Ramp:
    """How many parked calls may be under way at once: 1, 2, 4 … up to a limit.

    A provider that just came back is not met by everything that waited for it. As many answers as the present number
    double it; an outage sets it back to one and pauses. What was sent before an outage says nothing about the time
    after it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.width = 1
        self._answered = 0
        self._outage_at = -math.inf
        self._paused_until = -math.inf

    def free(self, in_flight: int, now: float) -> int:
        """How many more may be leased now."""
        return 0 if now < self._paused_until else max(0, self.width - in_flight)

    def paused_until(self, now: float) -> float | None:
        """When leasing may go on; None: it may."""
        return self._paused_until if now < self._paused_until else None

    def succeeded(self, started: float) -> None:
        """A call that was sent at some time was answered."""
        if started < self._outage_at:
            return
        self._answered += 1
        if self._answered >= self.width:
            self._answered = 0
            self.width = min(self.most, 2 * self.width)

    def outage(self, now: float, retry_at: float | None = None) -> None:
        """Nobody could answer; `retry_at` is when a target may be free again, if that is known."""
        self.width, self._answered, self._outage_at = 1, 0, now
        self._paused_until = max(self._paused_until, now if retry_at is None else retry_at)


def backoff(settings: QueueSettings, leases: int) -> float:
    """Seconds until a call that failed is tried again: full jitter, U(0, min(max, base · 2ⁿ)) (Brooker, AWS 2015).

    Args:
        settings: base and cap.
        leases: how often the call was leased, from 1.
    """
    import tenacity

    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = leases
    return tenacity.wait_random_exponential(multiplier=settings.backoff_base, max=settings.backoff_max)(state)
