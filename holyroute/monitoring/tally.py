"""Counts and latencies over a sliding window and since the start, in constant memory.

Time is cut into slices, a thirtieth of the window each; a slice leaves as a whole, so that the window covers between
29/30 and all of its seconds. Latencies are counted in buckets whose limits grow by 2 %: a percentile is off by at most
1 % between 0.1 ms and 1,000 s, by at most 0.1 ms below, and 1,000 s is the most that is told. The idea is that of HDR
histograms and of DDSketch (Masson, Rim and Lee, 2019); averages are exact.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from typing import TYPE_CHECKING

from holyroute.monitoring.health import Figures, Latency

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SLICES = 30
GROWTH = 1.02  # from one bucket's limit to the next
LEAST, MOST = 1e-4, 1e3  # seconds
ERROR = (GROWTH - 1) / (GROWTH + 1)  # of a percentile, as a share of it

_PER_LOG = 1 / math.log(GROWTH)
_SHIFT = 1 - math.log(LEAST) * _PER_LOG
BUCKETS = math.ceil(math.log(MOST) * _PER_LOG + _SHIFT)
_EMPTY = bytes(4 * BUCKETS)
_MIDDLE = 2 / (GROWTH + 1)  # of a bucket, as a share of its upper limit: equally far off on both sides
_log = math.log


def bucket(seconds: float) -> int:
    """The number of the bucket that a duration falls into."""
    if seconds <= LEAST:
        return 0
    number = int(_log(seconds) * _PER_LOG + _SHIFT)
    return number if number < BUCKETS else BUCKETS - 1


def middle(number: int) -> float:
    """The duration that stands for all in a bucket, in seconds."""
    return LEAST * GROWTH**number * _MIDDLE if number else LEAST


class Slice:
    """What was counted in some stretch of time."""

    __slots__ = ("answers", "buckets", "count", "errors", "number", "seconds")

    def __init__(self, number: int = -1) -> None:
        self.number = number  # of the stretch since time zero
        self.count = self.answers = self.errors = 0
        self.seconds = 0.0  # of all answers together
        self.buckets: array[int] | None = None  # of answers; none yet

    def answered(self, seconds: float) -> None:
        """Count one answer, and how long it took."""
        self.count += 1
        self.answers += 1
        self.seconds += seconds
        if self.buckets is None:
            self.buckets = array("I", _EMPTY)
        self.buckets[bucket(seconds)] += 1

    def failed(self) -> None:
        """Count one error."""
        self.count += 1
        self.errors += 1

    def include(self, other: Slice) -> None:
        """Add what another slice counted."""
        self.count += other.count
        self.answers += other.answers
        self.errors += other.errors
        self.seconds += other.seconds
        if other.buckets is not None:
            mine = self.buckets
            added = other.buckets if mine is None else map(int.__add__, mine, other.buckets)
            self.buckets = array("I", added)

    @property
    def average(self) -> float | None:
        """Seconds of an answer; None where there was none."""
        return self.seconds / self.answers if self.answers else None

    def percentiles(self, shares: Sequence[float]) -> list[float | None]:
        """Latencies by nearest rank, for ascending shares such as 0.5 and 0.95; None where there was no answer."""
        if self.buckets is None:
            return [None] * len(shares)
        found: list[float | None] = []
        seen, numbers = 0, iter(enumerate(self.buckets))
        number = 0
        for share in shares:
            rank = math.ceil(share * self.answers)
            while seen < rank:
                number, here = next(numbers)
                seen += here
            found.append(middle(number))
        return found

    def figures(self) -> Figures:
        """As a value."""
        p50, p95, p99 = self.percentiles((0.5, 0.95, 0.99))
        latency = Latency(average=self.average, p50=p50, p95=p95, p99=p99)
        return Figures(count=self.count, answers=self.answers, errors=self.errors, latency=latency)


def together(slices: Iterable[Slice]) -> Slice:
    """What several slices counted."""
    whole = Slice()
    for one in slices:
        whole.include(one)
    return whole


class Tally:
    """The counts of one subject. Not thread-safe: its owner has a lock. Times are monotonic seconds."""

    __slots__ = ("_before", "_newest", "_per_second", "_slices")

    def __init__(self, window: float) -> None:
        self._per_second = SLICES / window
        self._newest = Slice()
        self._slices = deque([self._newest])  # oldest first; stretches without anything have none
        self._before = Slice()  # all that has left the window

    def at(self, now: float) -> Slice:
        """Where to count what happens now; a time before the newest slice counts into the newest slice."""
        number = int(now * self._per_second)
        if number > self._newest.number:
            self._turn(number)
            self._newest = Slice(number)
            self._slices.append(self._newest)
        return self._newest

    def _turn(self, number: int) -> None:
        """Let go of what has left the window by a slice's beginning."""
        slices = self._slices
        while slices and slices[0].number <= number - SLICES:
            self._before.include(slices.popleft())

    def recent(self, now: float, seconds: float = math.inf) -> list[Slice]:
        """The slices of the window, or of its last seconds, in whole slices."""
        newest = int(now * self._per_second)
        first = newest - min(SLICES, math.ceil(min(seconds * self._per_second, SLICES)))
        return [one for one in self._slices if one.number > first]

    def total(self) -> Slice:
        """All that was ever counted."""
        return together([self._before, *self._slices])

    def averages(self, now: float) -> tuple[float | None, ...]:
        """Seconds of an answer in each slice of the window, oldest first."""
        newest = int(now * self._per_second)
        by_number = {one.number: one.average for one in self.recent(now)}
        return tuple(by_number.get(number) for number in range(newest - SLICES + 1, newest + 1))
