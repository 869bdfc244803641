"""A queue that ends with its process: the same SQL, on a database that no file holds."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holyroute.core import forks
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.stores.base import Repair
from holyroute.stores.schema import SCHEMA
from holyroute.stores.sql import LOCK, SqlStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.config.schema import QueueSettings
    from holyroute.core.clock import Clock


class MemoryStore(SqlStore):
    """Safe to share between threads. A forked child starts empty: otherwise both would ask for the same answers."""

    def __init__(self, settings: QueueSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__("queue in memory", settings, clock)
        self._db: sqlite3.Connection | None = None
        forks.register(self)

    def after_fork(self) -> None:
        """Forget the parent's items."""
        self._drop()

    def exists(self) -> bool:
        """It always does."""
        return True

    def repair(self) -> Repair:
        """There is nothing that could be damaged."""
        stats = self.stats()
        return Repair(stats.ready + stats.leased + stats.done + stats.dead, 0, None)

    def close(self) -> None:
        """Forget everything; whatever is asked after that raises `QueueUnavailable`."""
        with LOCK:
            super().close()
            self._drop()

    def __del__(self) -> None:
        self._drop()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._db.executescript(SCHEMA)
        yield self._db

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()
