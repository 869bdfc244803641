"""How fast a target answers: the last five minutes, at most 512 answers.

A window counted in calls alone would be two seconds of a batch and a day of a script, hence a window in time.
"""

from __future__ import annotations

import threading
from collections import deque

WINDOW = 300.0  # seconds
SAMPLES = 512


class LatencyWindow:
    """Durations of valid answers, in seconds. Safe to share between threads."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._lock = threading.Lock()

    def add(self, seconds: float, now: float) -> None:
        """Count one answer."""
        with self._lock:
            self._samples.append((now, seconds))

    def recent(self, now: float) -> list[float]:
        """The durations that still count, sorted."""
        with self._lock:
            while self._samples and self._samples[0][0] < now - WINDOW:
                self._samples.popleft()
            return sorted(seconds for _, seconds in self._samples)

    def average(self, now: float) -> float | None:
        """Mean, or None where nothing was seen lately."""
        recent = self.recent(now)
        return sum(recent) / len(recent) if recent else None

    def p95(self, now: float) -> float | None:
        """95th percentile (nearest rank), or None where nothing was seen lately."""
        recent = self.recent(now)
        return recent[max(0, -(-len(recent) * 95 // 100) - 1)] if recent else None
