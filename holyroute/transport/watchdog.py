"""One thread that cuts what is late.

A read timeout counts from byte to byte: a body that drips a byte a second never meets it. The watchdog cancels the
token of an attempt at a point in time, whatever the socket is doing.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from holyroute.core import forks
from holyroute.core.cancel import LATE
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from holyroute.core.cancel import CancelToken

NAP = 3_600.0  # seconds: the longest wait in one go; a condition cannot wait for ever
_COMPACT = 1_024  # entries; below that finished ones may lie about


class _Watch:
    """A block that is being watched."""

    __slots__ = ("_watchdog", "at", "token")

    def __init__(self, watchdog: Watchdog, token: CancelToken, at: float) -> None:
        self._watchdog, self.at = watchdog, at
        self.token: CancelToken | None = token  # None: the block is over

    def __enter__(self) -> None:
        self._watchdog.add(self)

    def __exit__(self, *exc: object) -> None:
        self._watchdog.remove(self)


class Watchdog:
    """A heap of deadlines and a daemon thread, started when the first one comes in."""

    def __init__(self) -> None:
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Begin without a thread and without deadlines."""
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._heap: list[tuple[float, int, _Watch]] = []  # by time; the number decides between equal ones
        self._numbers = itertools.count()
        self._finished = 0
        self._thread: threading.Thread | None = None

    def watching(self, token: CancelToken, at: float) -> _Watch:
        """Cancel a token if the block is still running at a moment of the monotonic clock."""
        return _Watch(self, token, at)

    def add(self, watch: _Watch) -> None:
        """Begin to watch a block."""
        with self._lock:
            heapq.heappush(self._heap, (watch.at, next(self._numbers), watch))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="holyroute-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif self._heap[0][2] is watch:
                self._condition.notify()

    def remove(self, watch: _Watch) -> None:
        """A block is over; it stays in the heap until most there are: taking one out would cost a walk."""
        with self._lock:
            watch.token = None
            self._finished += 1
            if self._finished > _COMPACT and self._finished * 2 > len(self._heap):
                self._heap = [one for one in self._heap if one[2].token is not None]
                heapq.heapify(self._heap)
                self._finished = 0

    def _run(self) -> None:
        while True:
            for token in self._wait():
                token.cancel(LATE)

    def _wait(self) -> list[CancelToken]:
        """Sleep until something is due; returns without the lock, because cancelling takes others."""
        with self._condition:
            due: list[CancelToken] = []
            now = SYSTEM_CLOCK.now()
            while self._heap and (self._heap[0][2].token is None or self._heap[0][0] <= now):
                token = heapq.heappop(self._heap)[2].token
                if token is not None:
                    due.append(token)
                else:  # those of lost streams were never counted
                    self._finished = max(0, self._finished - 1)
            if not due:
                self._condition.wait(min(self._heap[0][0] - now, NAP) if self._heap else None)
            return due


WATCHDOG = Watchdog()
