"""Questions under way: one caller fetches the answer, the others wait for it.

The idea is that of Go's `singleflight`, with three differences: everybody waits by his own deadline and cancel token, a
failure is not shared, and a leader who leaves early hands over to the next in line.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from holyroute.caching.entry import Entry
    from holyroute.core.cancel import CancelToken
    from holyroute.core.clock import Clock


class Caller:
    """One caller in the line for an answer. The first in line leads."""

    __slots__ = ("answer", "heard", "key", "line")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.answer: Entry | None = None  # what the leader shared
        self.line: list[Caller] | None = None  # None: not, or no longer, in line
        self.heard: threading.Condition | None = None  # only those who wait need one

    @property
    def waits(self) -> bool:
        """Whether somebody else is to fetch the answer."""
        return self.line is not None and self.line[0] is not self

    def hear(self) -> None:
        """Look again: something has changed. Called with the lock held."""
        if self.heard is not None:
            self.heard.notify()


class Flights:
    """The lines of all questions under way. Safe to share between threads; nobody asks a model with its lock held."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[Hashable, list[Caller]] = {}
        self._lock = threading.RLock()  # a signal handler may cancel while it is held

    def join(self, caller: Caller, until: float, cancel: CancelToken | None) -> None:
        """Get in line, and wait: for the answer, for one's turn to lead, or until the leader has failed.

        Who runs out of time or is called off leaves the line, and goes on alone.
        """
        with self._lock:
            line = caller.line = self._lines.setdefault(caller.key, [])
            line.append(caller)
            if not caller.waits:
                return
            caller.heard = threading.Condition(self._lock)
        if cancel is None:
            self._wait(caller, until, cancel)
            return

        def wake() -> None:
            with self._lock:
                caller.hear()

        cancel.on_cancel(wake)
        try:
            self._wait(caller, until, cancel)
        finally:
            cancel.forget(wake)

    def _wait(self, caller: Caller, until: float, cancel: CancelToken | None) -> None:
        assert caller.heard is not None
        with self._lock:
            while caller.waits:
                left = until - self._clock.now()
                if left <= 0 or (cancel is not None and cancel.cancelled):
                    self.leave(caller)
                    return
                self._clock.wait(caller.heard, min(left, threading.TIMEOUT_MAX))

    def land(self, caller: Caller, answer: Entry | None) -> None:
        """The leader is done: everybody has his answer, or None and goes on alone, all at the same time.

        Nothing happens to who is not in line.
        """
        with self._lock:
            if caller.line is None:
                return
            del self._lines[caller.key]
            for one in caller.line:
                one.line, one.answer = None, answer
                one.hear()

    def leave(self, caller: Caller) -> None:
        """Get out of the line; nothing happens to who is not in it. A leader hands over to the next."""
        with self._lock:
            line, led = caller.line, not caller.waits
            if line is None:
                return
            caller.line = None
            line.remove(caller)
            if not line:
                del self._lines[caller.key]
            elif led:
                line[0].hear()
