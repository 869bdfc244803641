"""Calling off a call from another thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.clock import Clock


LATE = "deadline"  # the reason of a token that ran out of time


class CancelToken:
    """Cancels what it was given to: `client.chat(..., cancel=token)` here, `token.cancel()` in another thread.

    A blocked socket is woken within milliseconds in every phase after name resolution. Safe to share between threads;
    once cancelled, always cancelled.
    """

    __slots__ = ("_callbacks", "_lock", "reason")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may cancel while it is held
        self._callbacks: list[Callable[[], None]] = []
        self.reason: str | None = None

    @property
    def cancelled(self) -> bool:
        """Whether somebody called it off."""
        return self.reason is not None

    def cancel(self, reason: str = "cancelled") -> None:
        """Call it off; the first reason stays."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:  # outside the lock: they take locks of their own
            callback()

    def sleep(self, seconds: float, clock: Clock) -> None:
        """Wait, but not longer than until it is cancelled."""
        condition = threading.Condition()

        def wake() -> None:
            with condition:
                condition.notify()

        self.on_cancel(wake)
        try:
            with condition:
                if not self.cancelled:
                    clock.wait(condition, seconds)
        finally:
            self.forget(wake)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back when it is cancelled, in the thread that cancels; at once if that has happened."""
        with self._lock:
            if self.reason is None:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Take a callback back; nothing happens if it is not there."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
