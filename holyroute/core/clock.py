"""The only module that touches time.

Everything that waits or measures takes a `Clock`, so that tests move time by hand (`holyroute.testing.FakeClock`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading


class Clock:
    """Real time, in seconds."""

    def now(self) -> float:
        """Monotonic seconds: for durations and deadlines; setting the wall clock never moves it."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch: only for what is written down or compared with a server's date."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds; zero or less returns at once."""
        if seconds > 0:
            time.sleep(seconds)

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """Wait on a condition whose lock is held; False when the seconds passed without a notification."""
        return condition.wait(seconds)


SYSTEM_CLOCK = Clock()
