"""Rows from a pipe, which may pause: what is answered meanwhile does not wait for its next row."""

from __future__ import annotations

import threading
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from holyroute.batch.reading import Pause
from holyroute.cli.waiting import LOOK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.batch.row import Row

AHEAD = 64  # rows that are read before somebody wants them
MOMENT = 0.02  # seconds that a row is waited for before it is a pause: a pipe that flows has none
_PAUSE = Pause()


def awaited(rows: Iterator[Row]) -> Iterator[Row | Pause]:
    """The rows, with a pause wherever none has come; what they raise is raised here.

    They are read by a thread. It is a daemon, because nobody can wake it while its pipe says nothing.
    """
    feed = _Feed(rows)
    threading.Thread(target=feed.fill, name="holyroute-pipe", daemon=True).start()
    try:
        while (one := feed.next()) is not None:
            yield one
    finally:
        feed.is_wanted = False
    if feed.error is not None:
        raise feed.error


class _Feed:
    """What one thread reads and another one takes."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self.is_wanted = True
        self.error: Exception | None = None
        self._rows = rows
        self._queue: Queue[Row | None] = Queue(AHEAD)  # None: no more come

    def fill(self) -> None:
        """Read until the end, or until nobody wants more."""
        try:
            for row in self._rows:
                self._put(row)
                if not self.is_wanted:
                    return
        except Exception as error:  # noqa: BLE001 - raised where the rows are taken
            self.error = error
        self._put(None)

    def _put(self, row: Row | None) -> None:
        while self.is_wanted:
            try:
                self._queue.put(row, timeout=LOOK)
            except Full:
                continue
            return

    def next(self) -> Row | Pause | None:
        """A row, or a pause, or the end."""
        try:
            return self._queue.get(timeout=MOMENT)
        except Empty:
            return _PAUSE
