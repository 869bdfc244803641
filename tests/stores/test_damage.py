"""Every way a queue's file can be damaged has its error, keeps what is there, and can be repaired."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holyroute.config.schema import QueueSettings
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.exceptions import QueueCorrupt, QueueError, QueueFull, QueueUnavailable, QueueVersion
from holyroute.stores import place
from holyroute.stores.base import NewItem
from holyroute.stores.connection import connect
from holyroute.stores.schema import PAGE, VERSION
from holyroute.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITEMS = 100
SETTINGS = QueueSettings()


def payload(number: int) -> bytes:
    """About what a prompt takes, and easy to find in a file."""
    return f"<{number:04}>".encode() * 250


@cache
def parked(items: int) -> bytes:
    """A queue's file with some items in it."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(f"{folder}/queue.db", SETTINGS)
        for number in range(items):
            store.put(NewItem(payload=payload(number), digest=str(number)))
        return store.path.read_bytes()


def park(path: Path, items: int = ITEMS) -> None:
    path.parent.mkdir()
    path.write_bytes(parked(items))
    path.chmod(0o600)


def opened(path: Path) -> SqliteStore:
    """As another process would open it."""
    return SqliteStore(path, SETTINGS)


def change(path: Path, at: int, by: bytes) -> None:
    """Overwrite some bytes."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(by)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def overwrite_with_text(path: Path) -> None:
    path.write_text("this is no queue\n" * 1_000)


def break_pages(path: Path) -> None:
    """One page in ten is noise."""
    for page in range(4, path.stat().st_size // PAGE, 10):
        change(path, page * PAGE, bytes(range(255, -1, -1)) * (PAGE // 256))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: truncate(path, 0),
    "a few bytes": lambda path: truncate(path, 100),
    "cut at 30 %": lambda path: truncate(path, path.stat().st_size * 3 // 10),
    "cut at 60 %": lambda path: truncate(path, path.stat().st_size * 6 // 10),
    "text": overwrite_with_text,
    "header zeroed": lambda path: change(path, 0, bytes(100)),
    "first page zeroed": lambda path: change(path, 0, bytes(PAGE)),
    "first page noise": lambda path: change(path, 0, b"\xa5" * PAGE),
    "pages overwritten": break_pages,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_kept(path: Path, damage: str) -> None:
    """Whatever is asked of it first says that it is damaged, and leaves every byte as it was."""
    park(path)
    DAMAGES[damage](path)
    before = path.read_bytes()

    for use in ("stats", "lease", "put", "requeue"):
        with pytest.raises(QueueCorrupt, match=str(path)):
            ask(opened(path), use)
    assert opened(path).check() != ()
    assert path.read_bytes() == before


def ask(store: SqliteStore, use: str) -> None:
    {
        "stats": store.stats,
        "lease": lambda: store.lease(1, 10),
        "put": lambda: store.put(NewItem(payload=b"new", digest="new")),
        "requeue": lambda: store.requeue(None),
    }[use]()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_repair_salvages_what_can_be_read(path: Path, damage: str) -> None:
    """The queue works again with every item that is still whole in the file; the damaged one lies beside it."""
    park(path)
    DAMAGES[damage](path)
    before = path.read_bytes()
    whole = {payload(number) for number in range(ITEMS) if payload(number) in before}
    store = opened(path)
    found = store.repair()
    lent = store.lease(ITEMS, 100)

    assert {leased.payload for leased in lent} == whole
    assert found.recovered == len(whole)
    assert found.damaged <= 1  # where the file was cut, half an item may be left
    assert len(store.check()) == found.damaged
    assert sorted(path.parent.iterdir()) == [path, Path(str(found.kept))]
    assert [one.read_bytes() for one in path.parent.iterdir() if one != path] == [before]
    assert store.put(NewItem(payload=b"new", digest="new"))[1]


def test_a_repair_keeps_states_leases_and_order(path: Path) -> None:
    """A worker that lives through a repair can hand in its answer; what was done stays done."""
    store = opened(path)
    done, lent, waiting = (store.put(NewItem(payload=b"x", digest=name, key=name))[0] for name in "abc")
    first, second = store.lease(2, 100)
    store.complete(done, first.token, b"answer")
    before = [store.get(one) for one in (done, lent, waiting)]
    store.repair()

    assert [store.get(one) for one in (done, lent, waiting)] == before
    assert store.put(NewItem(payload=b"x", digest="a", key="a")) == (done, False)
    assert store.complete(lent, second.token, b"answer")
    assert [leased.id for leased in store.lease(5, 100)] == [waiting]


def test_a_flipped_byte_costs_one_item(path: Path) -> None:
    """SQLite would not notice; the checksum does. That item is a dead letter, before and after a repair."""
    park(path, 10)
    change(path, path.read_bytes().index(b"<0004>") + 2, b"9")
    store = opened(path)
    problems = store.check()
    lent = store.lease(10, 100)
    (dead,) = store.dead(10)
    again = opened(path).repair()

    assert len(problems) == 1
    assert f"item {dead.id}: damaged" in problems[0]
    assert (len(lent), dead.payload, dead.error) == (9, None, "damaged: its checksum does not match")
    assert (again.recovered, again.damaged) == (9, 1)
    assert store.requeue([dead.id]) == 1
    assert store.lease(10, 100) == []


def test_a_flipped_byte_in_an_answer_is_noticed(path: Path) -> None:
    """A wrong answer is worse than none."""
    store = opened(path)
    item_id, _ = store.put(NewItem(payload=b"x", digest="x"))
    (leased,) = store.lease(1, 100)
    store.complete(item_id, leased.token, b"the right answer")
    change(path, path.read_bytes().index(b"the right answer"), b"THE")
    record = opened(path).get(item_id)

    assert record is not None
    assert (record.state, record.result) == ("done", None)
    assert len(opened(path).check()) == 1


def test_no_text_in_the_file_stops_the_rest(path: Path) -> None:
    """A cause that is no UTF-8 any more is shown as far as it can be read."""
    store = opened(path)
    item_id, _ = store.put(NewItem(payload=b"x", digest="x"))
    (leased,) = store.lease(1, 100)
    store.bury(item_id, leased.token, "a certain cause")
    change(path, path.read_bytes().index(b"a certain cause"), b"\xff")

    assert [record.error for record in opened(path).dead(10)] == ["\ufffd certain cause"]


def test_damage_to_a_queue_in_use_is_noticed(path: Path) -> None:
    """The file is looked at each time, not only when it is opened."""
    park(path, 20)
    store = opened(path)
    store.stats()
    whole = path.read_bytes()

    truncate(path, 0)
    with pytest.raises(QueueCorrupt, match="cut off"):
        store.lease(1, 10)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QueueCorrupt):
        store.lease(1, 10)
    path.write_bytes(whole)
    assert len(store.lease(1, 10)) == 1


def test_a_file_that_vanished_is_not_replaced(path: Path) -> None:
    """An empty queue in its place would look as if everything had been answered."""
    park(path, 1)
    store = opened(path)
    store.stats()
    path.unlink()

    for use in ("stats", "lease", "put", "requeue"):
        with pytest.raises(QueueUnavailable, match="No such file"):
            ask(store, use)
    with pytest.raises(QueueUnavailable, match="No such file"):
        store.repair()
    assert not path.exists()


def test_a_journal_without_its_file_is_not_played_into_a_new_one(path: Path) -> None:
    """SQLite would restore pages of the old file in the new one."""
    path.parent.mkdir()
    place.journal(path).write_bytes(b"x" * 2_000)

    with pytest.raises(QueueCorrupt, match=r"its journal queue\.db-journal is there"):
        opened(path).stats()
    assert not path.exists()


def test_a_transaction_that_was_cut_off_is_undone(path: Path) -> None:
    """What a process left behind that died while writing: the journal brings back what was committed."""
    park(path, 20)
    with caught_in_the_act(path) as (file, journal):
        pass
    path.write_bytes(file)
    place.journal(path).write_bytes(journal)
    place.journal(path).chmod(0o600)
    store = opened(path)

    assert store.check() == ()
    assert store.stats().ready == 20
    assert not place.journal(path).exists()


def test_a_repair_undoes_what_was_cut_off(path: Path) -> None:
    """A journal that is good is used, and does not meet the new file."""
    park(path, 20)
    with caught_in_the_act(path) as (file, journal):
        pass
    path.write_bytes(file)
    place.journal(path).write_bytes(journal)
    store = opened(path)
    found = store.repair()

    assert (found.recovered, found.damaged) == (20, 0)
    assert store.check() == ()


def test_a_repair_puts_a_useless_journal_aside(path: Path) -> None:
    """Where the file is gone it has nothing to be played into; it stays with what is left."""
    park(path, 1)
    truncate(path, 0)
    place.journal(path).write_bytes(b"no journal either" * 100)
    store = opened(path)
    found = store.repair()

    assert found.recovered == 0
    assert store.check() == ()
    assert not place.journal(path).exists()
    assert place.journal(Path(str(found.kept))).read_bytes() == b"no journal either" * 100


WRITER = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def test_a_repair_keeps_everybody_else_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process writes into the old file while the new one is made, nor afterwards by a connection it had."""
    park(path, 3)
    link, shown = os.link, []

    def look_and_link(source: Path, target: Path) -> None:
        writer = [sys.executable, "-c", WRITER, str(path)]
        shown.append(subprocess.run(writer, capture_output=True, text=True, check=True, timeout=15).stdout)
        link(source, target)

    monkeypatch.setattr(os, "link", look_and_link)
    with closing(connect(path)) as old:
        count = old.execute("SELECT count(*) FROM item").fetchone()
        opened(path).repair()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            old.execute("UPDATE item SET attempts=1")

    assert count == (3,)
    assert shown == ["database is locked\n"]


@contextmanager
def caught_in_the_act(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """File and journal of a transaction that has begun to write the file and never commits."""
    with closing(connect(path)) as db:
        db.execute("PRAGMA cache_size=2")
        db.execute("PRAGMA cache_spill=1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE item SET payload=zeroblob(1500), crc=1, state='dead', finished=1")
        yield path.read_bytes(), place.journal(path).read_bytes()
        db.execute("ROLLBACK")


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_another_schema_is_left_alone(path: Path, version: int) -> None:
    """A newer or older version's file is neither used nor repaired."""
    park(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={version}")
    before = path.read_bytes()

    for use in (opened(path).stats, opened(path).repair):
        with pytest.raises(QueueVersion, match=f"schema has version {version}; this holyroute reads {VERSION}"):
            use()
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A path that points to something else harms nothing."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious(thing)")
    path.chmod(0o600)
    before = path.read_bytes()

    for use in (opened(path).stats, opened(path).repair):
        with pytest.raises(QueueUnavailable, match="no queue of holyroute"):
            use()
    assert path.read_bytes() == before


class NearlyFull(SqliteStore):
    """On a disk with so many pages: SQLite itself then says that it is full."""

    pages = 10**6

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with super()._connected() as db:
            db.execute(f"PRAGMA max_page_count={self.pages}")
            yield db


def test_a_full_disk_refuses_and_keeps(path: Path) -> None:
    """What could not be written leaves no trace, and what was there can be read."""
    park(path, 5)
    store = NearlyFull(path, SETTINGS)
    store.pages = 1  # no more than there are
    with pytest.raises(QueueFull, match="the disk is full"):
        store.put(NewItem(payload=bytes(100_000), digest="large"))
    ready = store.stats().ready
    (leased,) = store.lease(1, 100)

    assert ready == 5
    assert leased.payload == payload(0)
    assert store.check() == ()
    assert opened(path).put(NewItem(payload=b"new", digest="new"))[1]


def test_a_busy_file_is_given_up_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never ends its transaction holds up nobody for long; a repair does not touch it."""
    monkeypatch.setattr("holyroute.stores.connection.PATIENCE", 0.2)
    park(path, 1)
    store = opened(path)
    store.stats()
    before = SYSTEM_CLOCK.now()
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match="other processes kept the queue busy"):
            store.lease(1, 10)
        with pytest.raises(QueueUnavailable, match="in use"):
            store.repair()

    assert SYSTEM_CLOCK.now() - before < 10
    assert len(store.lease(1, 10)) == 1


def test_every_error_of_the_queue_is_one_family() -> None:
    """One `except` is enough for whoever parks calls."""
    for error in (QueueCorrupt, QueueFull, QueueUnavailable, QueueVersion):
        assert issubclass(error, QueueError)
