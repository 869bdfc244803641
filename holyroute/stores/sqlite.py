"""A queue in one SQLite file on a local disk, shared by threads and processes.

Rollback journal and `synchronous=EXTRA`: a put that returned survives a crash of the process and, as far as disks keep
their word, of the machine. Not WAL: until SQLite 3.51.3 its reset bug can lose committed data when several processes
write. One short connection per operation, which the fsyncs hide completely, so that no connection ever lives through a
fork. Not for network file systems: their locks cannot be trusted.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.stores import place
from holyroute.stores.connection import check_kind, check_pages, connect, fill
from holyroute.stores.repair import repair
from holyroute.stores.sql import SqlStore

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterator

    from holyroute.config.schema import QueueSettings
    from holyroute.core.clock import Clock
    from holyroute.stores.base import Repair

QUICK_CHECK = 64_000_000  # bytes: larger files are read through only by `check` (1 to 7 ms per MB)


class SqliteStore(SqlStore):
    """Opens nothing until it is used. The file is made if it is missing then, and never again."""

    def __init__(self, path: str | os.PathLike[str], settings: QueueSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = Path(path).expanduser().absolute()
        super().__init__(str(self.path), settings, clock)
        self._seen = False

    def exists(self) -> bool:
        """Whether something lies in its place, be it what it may, or was left of it."""
        with place.explained(self.path):
            try:
                self.path.lstat()
            except FileNotFoundError:
                return place.journal(self.path).exists()
            return True

    def repair(self) -> Repair:
        """Salvage what can be read into a new file; the damaged one stays beside it under another name.

        Raises:
            QueueUnavailable: Another process is using the file, or it is no queue's.
            QueueVersion: It is of another version.
        """
        with self._locked():
            found = repair(self.path)
            self._seen = True
            return found

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self._seen and not self.path.exists():
            place.create(self.path, fill)
        place.check(self.path)
        with closing(connect(self.path)) as db:
            check_kind(db, self.name)
            if not self._seen and self.path.stat().st_size <= QUICK_CHECK:
                check_pages(db, self.name)
            self._seen = True
            yield db
