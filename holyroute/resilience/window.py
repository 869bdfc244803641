"""How many of the last calls failed, counted in time slots."""

from __future__ import annotations


class RollingWindow:
    """Calls and failures of the last `seconds`, in `buckets` slots of equal width.

    A slot leaves as a whole, so that the window covers between nine tenths and all of `seconds` (with ten buckets). The
    totals are as of the last `add`. Not thread-safe: its owner has a lock.
    """

    __slots__ = ("_buckets", "_calls", "_failures", "_slot", "_width", "calls", "failures")

    def __init__(self, seconds: float, buckets: int = 10) -> None:
        self._width = seconds / buckets
        self._buckets = buckets
        self._slot = 0  # number of the newest slot since time zero
        self.clear()

    def clear(self) -> None:
        """Forget every call."""
        self._calls = [0] * self._buckets
        self._failures = [0] * self._buckets
        self.calls = 0
        self.failures = 0

    def add(self, now: float, *, failed: bool) -> None:
        """Count one call at a monotonic time; a time before the newest slot counts into the newest slot."""
        slot = int(now / self._width)
        if slot > self._slot:
            self._advance(slot)
        index = self._slot % self._buckets
        self._calls[index] += 1
        self._failures[index] += failed
        self.calls += 1
        self.failures += failed

    def _advance(self, slot: int) -> None:
        """Make `slot` the newest: empty every place of the ring that is passed on the way."""
        for passed in range(self._slot + 1, min(slot, self._slot + self._buckets) + 1):
            index = passed % self._buckets
            self.calls -= self._calls[index]
            self.failures -= self._failures[index]
            self._calls[index] = self._failures[index] = 0
        self._slot = slot
