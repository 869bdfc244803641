"""The queue's operations in SQL, the same for a file and for memory.

All that a process does with SQLite for queues happens under one lock, and a fork waits for it: a child that is forked
while another thread is inside SQLite inherits its locks and never gets one of its own (measured: 15 of 15 children).
The lock also shares the file more fairly between threads than SQLite's own waiting does.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.exceptions import InvalidItem, QueueCorrupt, QueueFull, QueueUnavailable
from holyroute.stores.base import DAMAGED, FURTHEST, Leased, QueueStats, Record
from holyroute.stores.connection import PATIENCE
from holyroute.stores.schema import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from holyroute.config.schema import QueueSettings
    from holyroute.core.clock import Clock
    from holyroute.exceptions import QueueError
    from holyroute.stores.base import NewItem, Repair

SWEEP = 100  # old answers deleted with one lease

LOCK = threading.Lock()
os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)

_ENDED = "state='leased' AND (lease_until<=:now OR lease_until>:far)"
_VANISHED = "the lease ended without a word: whoever held it died or took too long"
_TIDY = (
    f"""UPDATE item SET state='dead', finished=:now, token=NULL, lease_until=NULL,
        error=coalesce(error || '; then ', '') || '{_VANISHED}' WHERE {_ENDED} AND attempts>=:attempts""",
    f"UPDATE item SET state='ready', not_before=:now, token=NULL, lease_until=NULL WHERE {_ENDED}",
    "UPDATE item SET not_before=:now WHERE state='ready' AND not_before>:far",
    """UPDATE item SET state='dead', finished=:now,
        error='waited too long' || coalesce('; last: ' || error, '') WHERE state='ready' AND expires<=:now""",
    f"""DELETE FROM item WHERE seq IN
        (SELECT seq FROM item WHERE state='done' AND finished<=:old LIMIT {SWEEP})""",
)
_INSERT = """INSERT INTO item(id, key, digest, grp, payload, crc, not_before, expires, created, state, attempts, leases)
    VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, 'ready', 0, 0)"""
_OF_GROUP = "state='ready' AND grp=? ORDER BY not_before, seq"
# From one group to the next by the index: a DISTINCT would walk through all items that wait.
_GROUPS = """WITH RECURSIVE names(grp) AS (
        SELECT min(grp) FROM item WHERE state='ready' UNION ALL
        SELECT (SELECT min(grp) FROM item WHERE state='ready' AND grp>names.grp) FROM names WHERE grp IS NOT NULL)
    SELECT grp FROM (SELECT grp, (SELECT not_before FROM item WHERE state='ready' AND grp=names.grp
        ORDER BY not_before LIMIT 1) AS due FROM names WHERE typeof(grp)='integer') WHERE due<=? ORDER BY due, grp"""
_WANTED = "SELECT seq, id, key, payload, grp, crc, attempts, leases FROM item WHERE seq=?"
_HELD = "id=:id AND token=:token AND state='leased'"
_FREED = "token=NULL, lease_until=NULL"
_DONE = f"state='done', payload=NULL, result=:result, crc=:crc, finished=:now, error=NULL, {_FREED}"
_BURY = f"state='dead', finished=:now, error=coalesce(:error, error), {_FREED}"
_BACK = f"state='ready', not_before=:at, error=coalesce(:error, error), attempts=attempts-:given, {_FREED}"
_RECORD = f"SELECT {', '.join(RECORD)}, crc FROM item"


class SqlStore:
    """What both stores have in common; they differ in where a connection comes from."""

    def __init__(self, name: str, settings: QueueSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = name
        self.settings = settings
        self._clock = clock
        self._closed = False

    def _connected(self) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def repair(self) -> Repair:
        """Salvage what can be read, and keep what was there before."""
        raise NotImplementedError

    # --- one operation each ---

    def put(self, new: NewItem) -> tuple[str, bool]:
        """Keep an item; see `QueueStore`."""
        with self._writing() as (db, now):
            known = _known(db, new)
            if known is not None:
                return known, False
            self._check_room(db)
            item_id = os.urandom(16).hex()
            names = (item_id, new.key, new.digest, new.group)
            times = (now + min(new.delay, FURTHEST), now + self.settings.ttl, now)
            db.execute(_INSERT, (*names, new.payload, crc32(new.payload), *times))
            return item_id, True

    def groups(self) -> list[int]:
        """Groups with due items; see `QueueStore`."""
        with self._writing() as (db, now):
            self._tidy(db, now)
            return [group for (group,) in db.execute(_GROUPS, (now,))]

    def sample(self, group: int) -> bytes | None:
        """A payload of a group; see `QueueStore`."""
        with self._reading() as db:
            row = db.execute(f"SELECT payload FROM item WHERE {_OF_GROUP} LIMIT 1", (group,)).fetchone()
            return row[0] if row is not None and isinstance(row[0], bytes) else None

    def lease(self, limit: int, seconds: float, shares: Mapping[int, int] | None = None) -> list[Leased]:
        """Lend due items; see `QueueStore`."""
        with self._writing() as (db, now):
            self._tidy(db, now)
            due = _due(db, now, limit) if shares is None else _due_of(db, now, limit, shares)
            rows = [db.execute(_WANTED, (seq,)).fetchone() for _, seq in due]
            return [leased for row in rows if (leased := _lend(db, row, now, min(seconds, FURTHEST)))]

    def renew(self, item_id: str, token: str, seconds: float) -> bool:
        """Hold an item longer; see `QueueStore`."""
        with self._writing() as (db, now):
            until = now + min(seconds, FURTHEST)
            return _moved(db, item_id, token, "lease_until=:until", until=until)

    def complete(self, item_id: str, token: str, result: bytes) -> bool:
        """Keep the answer; see `QueueStore`."""
        with self._writing() as (db, now):
            return _moved(db, item_id, token, _DONE, result=result, crc=crc32(result), now=now)

    def retry(
        self, item_id: str, token: str, *, delay: float, error: str | None, counts: bool
    ) -> Literal["ready", "dead"] | None:
        """Put an item back; see `QueueStore`."""
        with self._writing() as (db, now):
            held = db.execute(f"SELECT attempts FROM item WHERE {_HELD}", {"id": item_id, "token": token}).fetchone()
            if held is None:
                return None
            if counts and held[0] >= self.settings.attempts:
                _moved(db, item_id, token, _BURY, now=now, error=error)
                return "dead"
            at = now + min(delay, FURTHEST)
            _moved(db, item_id, token, _BACK, at=at, error=error, given=int(not counts))
            return "ready"

    def bury(self, item_id: str, token: str, error: str) -> bool:
        """Give an item up; see `QueueStore`."""
        with self._writing() as (db, now):
            return _moved(db, item_id, token, _BURY, now=now, error=error)

    def get(self, item_id: str) -> Record | None:
        """One item."""
        with self._reading() as db:
            row = db.execute(f"{_RECORD} WHERE id=?", (item_id,)).fetchone()
            return None if row is None else _record(row)

    def dead(self, limit: int) -> list[Record]:
        """Items given up, the latest first."""
        with self._reading() as db:
            rows = db.execute(f"{_RECORD} WHERE state='dead' ORDER BY finished DESC, seq DESC LIMIT ?", (limit,))
            return [_record(row) for row in rows]

    def waiting(self, limit: int) -> list[Record]:
        """Items that wait or are lent, the next one first."""
        with self._reading() as db:
            of_state = f"{_RECORD} WHERE state=? ORDER BY not_before, seq LIMIT ?"
            rows = [row for state in ("leased", "ready") for row in db.execute(of_state, (state, limit))]
            return [_record(row) for row in rows[:limit]]

    def hasten(self, ids: list[str] | None) -> int:
        """Make waiting items due now; see `QueueStore`."""
        change = "UPDATE item SET not_before=? WHERE state='ready'"
        with self._writing() as (db, now):
            if ids is None:
                return db.execute(change, (now,)).rowcount
            return sum(db.execute(f"{change} AND id=?", (now, item_id)).rowcount for item_id in ids)

    def requeue(self, ids: list[str] | None) -> int:
        """Let dead items wait again; see `QueueStore`."""
        change = "UPDATE item SET state='ready', attempts=0, not_before=?, expires=?, finished=NULL WHERE state='dead'"
        with self._writing() as (db, now):
            fresh = (now, now + self.settings.ttl)
            if ids is None:
                return db.execute(change, fresh).rowcount
            return sum(db.execute(f"{change} AND id=?", (*fresh, item_id)).rowcount for item_id in ids)

    def purge(self, older_than: float, *, dead: bool) -> int:
        """Delete what is over; see `QueueStore`."""
        state = "dead" if dead else "done"  # in the text: an index for one state is not found for a bound value
        with self._writing() as (db, now):
            return db.execute(f"DELETE FROM item WHERE state='{state}' AND finished<=?", (now - older_than,)).rowcount

    def stats(self) -> QueueStats:
        """Count."""
        with self._reading() as db:
            counts: dict[str, int] = dict(db.execute("SELECT state, n FROM tally").fetchall())
            ready = db.execute("SELECT min(not_before) FROM item WHERE state='ready'").fetchone()[0]
            leased = db.execute("SELECT min(lease_until) FROM item WHERE state='leased'").fetchone()[0]
            times = [at for at in (ready, leased) if at is not None]
            return QueueStats(**counts, size=_size(db), next_at=min(times, default=None))

    def check(self) -> tuple[str, ...]:
        """Read everything; what is wrong, in words."""
        try:
            with self._reading() as db:
                return tuple(_problems(db))
        except QueueCorrupt as error:
            return (str(error),)

    def close(self) -> None:
        """Let go; everything after that raises `QueueUnavailable`."""
        self._closed = True

    # --- transactions ---

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """A transaction that may write, and the time of day when it got its lock: waiting for it took a while."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db, self._clock.wall()

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._locked(), self._connected() as db:
            db.execute(begin)
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """This process's turn at SQLite, and its errors as ours."""
        if not LOCK.acquire(timeout=PATIENCE):
            raise QueueUnavailable(f"{self.name}: other threads kept the queue busy for {PATIENCE:.0f} s")
        try:
            if self._closed:
                raise QueueUnavailable(f"{self.name}: the queue is closed")
            yield
        except (sqlite3.ProgrammingError, sqlite3.NotSupportedError):
            raise  # our own mistake
        except sqlite3.DatabaseError as error:
            raise translated(error, self.name) from error
        finally:
            LOCK.release()

    def _tidy(self, db: sqlite3.Connection, now: float) -> None:
        """Catch up with what time has brought. Writes nothing, and so costs no fsync, if that is nothing."""
        values = {
            "now": now,
            "far": now + FURTHEST,
            "old": now - self.settings.retention,
            "attempts": self.settings.attempts,
        }
        for statement in _TIDY:
            db.execute(statement, values)

    def _check_room(self, db: sqlite3.Connection) -> None:
        waiting = db.execute("SELECT sum(n) FROM tally WHERE state IN('ready','leased')").fetchone()[0]
        if waiting >= self.settings.max_items:
            raise QueueFull(f"{self.name}: {waiting} calls wait, as many as queue.max_items allows")
        if _size(db) >= self.settings.max_bytes:
            text = "the file has reached queue.max_bytes; purging answers and dead letters makes room"
            raise QueueFull(f"{self.name}: {text}")


def translated(error: sqlite3.DatabaseError, name: str) -> QueueError:
    """SQLite's error as ours. What it does not name is taken for damage: our statements are right."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return QueueFull(f"{name}: the disk is full")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return QueueUnavailable(f"{name}: other processes kept the queue busy for {PATIENCE:.0f} s")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return QueueUnavailable(f"{name}: file and folder must be writable: {error}")
        case sqlite3.SQLITE_IOERR if code != sqlite3.SQLITE_IOERR_SHORT_READ:
            return QueueUnavailable(f"{name}: {error}")
        case _:
            return QueueCorrupt(f"{name}: damaged ({error}); `repair` salvages what can be read")


def intact(blob: object, crc: object) -> bool:
    """Whether bytes are what was written."""
    return isinstance(blob, bytes) and crc32(blob) == crc


def _known(db: sqlite3.Connection, new: NewItem) -> str | None:
    """The item that this one repeats, if there is one."""
    if new.key is None:
        row = db.execute("SELECT id FROM item WHERE digest=? AND state IN('ready','leased')", (new.digest,)).fetchone()
        return None if row is None else str(row[0])
    row = db.execute("SELECT id, digest FROM item WHERE key=?", (new.key,)).fetchone()
    if row is not None and row[1] != new.digest:
        raise InvalidItem(f"the idempotency key {new.key!r} stands for another call")
    return None if row is None else str(row[0])


def _due(db: sqlite3.Connection, now: float, limit: int) -> list[tuple[float, int]]:
    """When the next items were due, and their numbers."""
    wanted = "SELECT not_before, seq FROM item WHERE state='ready' AND not_before<=? ORDER BY not_before, seq LIMIT ?"
    return db.execute(wanted, (now, limit)).fetchall()


def _due_of(db: sqlite3.Connection, now: float, limit: int, shares: Mapping[int, int]) -> list[tuple[float, int]]:
    """The same of some groups, of each no more than its share."""
    wanted = f"SELECT not_before, seq FROM item WHERE not_before<=? AND {_OF_GROUP} LIMIT ?"
    found = [row for group, share in shares.items() for row in db.execute(wanted, (now, group, share))]
    return sorted(found)[:limit]


def _lend(db: sqlite3.Connection, row: tuple[Any, ...], now: float, seconds: float) -> Leased | None:
    """Lease one item; a damaged one dies instead."""
    seq, item_id, key, payload, group, crc, attempts, leases = row
    if not intact(payload, crc):
        db.execute("UPDATE item SET state='dead', finished=?, error=? WHERE seq=?", (now, DAMAGED, seq))
        return None
    token = os.urandom(16).hex()
    db.execute(
        """UPDATE item SET state='leased', attempts=attempts+1, leases=leases+1, lease_until=?, token=?
        WHERE seq=?""",
        (now + seconds, token, seq),
    )
    counts = (attempts + 1, leases + 1)
    return Leased(id=item_id, token=token, key=key, payload=payload, group=group, attempts=counts[0], leases=counts[1])


def _moved(db: sqlite3.Connection, item_id: str, token: str, change: str, **values: Any) -> bool:
    """Change an item for whoever holds its lease, and for nobody else."""
    statement = f"UPDATE item SET {change} WHERE {_HELD}"
    return db.execute(statement, {"id": item_id, "token": token, **values}).rowcount == 1


def _record(row: tuple[Any, ...]) -> Record:
    *values, crc = row
    found = dict(zip(RECORD, values, strict=True))
    for name in ("payload", "result"):
        if not intact(found[name], crc):
            found[name] = None
    return Record(**found)


def _size(db: sqlite3.Connection) -> int:
    """Bytes in use, free pages not counted."""
    pages, free, page = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page)


def _problems(db: sqlite3.Connection) -> Iterator[str]:
    for (line,) in db.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield str(line)
    for item_id, payload, result, crc in db.execute("SELECT id, payload, result, crc FROM item"):
        if not intact(payload if payload is not None else result, crc):
            yield f"item {item_id}: {DAMAGED}"
