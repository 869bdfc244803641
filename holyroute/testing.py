"""What users of holyroute need for tests of their own: a clock to move by hand and a provider with faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holyroute.core.clock import Clock
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    import threading


class FakeClock(Clock):
    """A clock that moves only when told to, or when somebody sleeps on it.

    `slept` keeps every wait, so that a test asserts `clock.slept == [0.5, 1.0]` instead of waiting.
    """

    def __init__(self, start: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = start
        self._wall = wall
        self.slept: list[float] = []

    def now(self) -> float:
        """The fake monotonic time."""
        return self._now

    def wall(self) -> float:
        """The fake time of day."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Remember the wait and jump over it."""
        self.slept.append(seconds)
        self.advance(max(0.0, seconds))

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """Jump over the wait, as if nobody had notified; without a limit, wait for real."""
        if seconds is None:
            return condition.wait()
        self.sleep(seconds)
        return False

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Set the time of day alone, as an operator or NTP would."""
        self._wall = wall


__all__ = ["FakeClock", "Simulator", "faults"]
