"""A thread that looks every few seconds, for as long as there is something to look at."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from holyroute.core import forks

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("holyroute")

TICK = 5.0  # seconds


class Ticker:
    """Calls a method until it says that it need not be called any more, or its object is gone.

    Safe to share between threads; a forked child begins without the thread.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = weakref.WeakMethod(look)
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The thread stayed behind."""
        # reentrant: a signal's handler may make a call that fails while a thread is being started here; of two threads
        # the second ends at its first look
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()  # never set: waiting for it is a nap

    def wake(self) -> None:
        """Start looking, unless somebody does."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=_run, args=[weakref.ref(self), self._pause], daemon=True)
                thread.name = "holyroute-monitor"
                thread.start()
                self._thread = thread

    def tick(self) -> bool:
        """Look once; whether to go on."""
        look = self._look()
        with self._lock:
            self._thread = None  # who finds something after this look begins, starts another thread
        try:
            go_on = look is not None and look()
        except Exception:
            logger.exception("the monitor failed; it looks again at the next event")
            return False
        with self._lock:
            if not go_on or self._thread is not None:
                return False
            self._thread = threading.current_thread()
            return True


def _run(ticker: weakref.ref[Ticker], pause: threading.Event) -> None:
    """A function without the ticker in a variable: while it naps, nothing is kept alive."""
    while True:
        pause.wait(TICK)
        alive = ticker()
        if alive is None or not alive.tick():
            return
        del alive
