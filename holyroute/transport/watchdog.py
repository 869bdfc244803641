"""One thread that cuts what is late.

A read timeout counts from byte to byte: a body that drips a byte a second never meets it. The watchdog cancels the
token of an attempt at a point in time, whatever the socket is doing.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holyroute.core import forks
from holyroute.core.cancel import LATE
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.core.cancel import CancelToken

NAP = 3_600.0  # seconds: the longest wait in one go; a condition cannot wait for ever
_COMPACT = 1_024  # entries; below that finished ones may lie about


class _Entry:
    __slots__ = ("at", "number", "token")

    def __init__(self, at: float, number: int, token: CancelToken | None) -> None:
        self.at, self.number, self.token = at, number, token

    def __lt__(self, other: _Entry) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Watchdog:
    """A heap of deadlines and a daemon thread, started when the first one comes in."""

    def __init__(self) -> None:
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Begin without a thread and without deadlines."""
        self._condition = threading.Condition()
        self._heap: list[_Entry] = []
        self._numbers = itertools.count()
        self._finished = 0
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, token: CancelToken, at: float) -> Iterator[None]:
        """Cancel a token if the block is still running at a moment of the monotonic clock."""
        entry = self._add(token, at)
        try:
            yield
        finally:
            self._remove(entry)

    def _add(self, token: CancelToken, at: float) -> _Entry:
        entry = _Entry(at, next(self._numbers), token)
        with self._condition:
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="holyroute-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif self._heap[0] is entry:
                self._condition.notify()
        return entry

    def _remove(self, entry: _Entry) -> None:
        """Finished entries stay in the heap until most of it is finished: taking one out would cost a walk."""
        with self._condition:
            entry.token = None
            self._finished += 1
            if self._finished > _COMPACT and self._finished * 2 > len(self._heap):
                self._heap = [one for one in self._heap if one.token is not None]
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
            while self._heap and (self._heap[0].token is None or self._heap[0].at <= now):
                entry = heapq.heappop(self._heap)
                if entry.token is not None:
                    due.append(entry.token)
                else:
                    self._finished -= 1
            if not due:
                self._condition.wait(min(self._heap[0].at - now, NAP) if self._heap else None)
            return due


WATCHDOG = Watchdog()
