"""The moment by which a whole call must be over."""

from __future__ import annotations

from dataclasses import dataclass

MINIMUM_ATTEMPT = 1.0  # seconds: a shorter slice buys no answer, only load
RESERVE = 10.0  # seconds kept for the next target while there is one


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, and how far away it was at the start."""

    at: float
    total: float

    @classmethod
    def after(cls, seconds: float, now: float) -> Deadline:
        """A deadline some seconds from now."""
        return cls(now + seconds, seconds)

    def remaining(self, now: float) -> float:
        """Seconds left; negative when the deadline has passed."""
        return self.at - now

    def allows_attempt(self, now: float) -> bool:
        """Whether an attempt may start: enough time must be left for it to make sense."""
        return self.remaining(now) > min(MINIMUM_ATTEMPT, self.total / 10)

    def slice(self, wanted: float, now: float, *, others_left: bool) -> float:
        """Seconds for one attempt: what it wants, leaving a reserve for those who have not been asked."""
        remaining = self.remaining(now)
        reserve = min(remaining / 2, RESERVE) if others_left else 0.0
        return min(wanted, remaining - reserve)
