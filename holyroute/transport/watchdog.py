"""One thread that cuts what is late.

A read timeout counts from byte to byte: a body that drips a byte a second never meets it. The watchdog cancels the
token of an attempt at a point in time, whatever the socket is doing.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from holyroute.core import forks
from holyroute.core.cancel import LATE
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from holyroute.core.cancel import CancelToken

NAP = 3_600.0  # seconds: the longest wait in one go; a condition cannot wait for ever


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
    """The blocks that are being watched, and a daemon thread, started when the first one comes in.

    The thread sleeps until the moment that was the first one when it fell asleep, and then looks at all of them: most
    blocks are over long before, so that they are not kept in order.
    """

    def __init__(self) -> None:
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Begin without a thread and without deadlines."""
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._watched: set[_Watch] = set()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def watching(self, token: CancelToken, at: float) -> _Watch:
        """Cancel a token if the block is still running at a moment of the monotonic clock."""
        return _Watch(self, token, at)

    def add(self, watch: _Watch) -> None:
        """Begin to watch a block."""
        self._watched.add(watch)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="holyroute-watchdog", daemon=True)
                thread.start()
                self._thread = thread
            elif watch.at < self._wakes_at:
                self._wakes_at = watch.at
                self._condition.notify()

    def remove(self, watch: _Watch) -> None:
        """A block is over."""
        watch.token = None
        self._watched.discard(watch)  # without the lock: one step in CPython

    def _run(self) -> None:
        while True:
            for token in self._wait():
                token.cancel(LATE)

    def _wait(self) -> list[CancelToken]:
        """Sleep until something is due; returns without the lock, because cancelling takes others."""
        with self._condition:
            now, due = SYSTEM_CLOCK.now(), []
            self._wakes_at = now + NAP
            for watch in list(self._watched):
                token = watch.token
                if token is None or watch.at <= now:  # None: also of streams that were lost
                    self._watched.discard(watch)
                    due += [token] if token is not None else []
                else:
                    self._wakes_at = min(self._wakes_at, watch.at)
            if not due:
                self._condition.wait(self._wakes_at - now)
            return due


WATCHDOG = Watchdog()
