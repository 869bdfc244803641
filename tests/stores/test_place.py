"""Where a queue's file lies, and who may read it."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holyroute.config.schema import QueueSettings
from holyroute.exceptions import QueueUnavailable
from holyroute.stores import place
from holyroute.stores.base import NewItem
from holyroute.stores.connection import connect
from holyroute.stores.sqlite import SqliteStore
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65_534


def put(path: Path | str, name: str = "a") -> str:
    return SqliteStore(path, QueueSettings()).put(NewItem(payload=name.encode(), digest=name))[0]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder, in the shoes of somebody whom permissions stop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid():
            yield folder
            return
        os.chown(folder, NOBODY, -1)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_nothing_is_opened_before_it_is_used(path: Path) -> None:
    """A queue that is only configured leaves no file."""
    store = SqliteStore(path, QueueSettings())
    store.close()

    assert not path.parent.exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277])
def test_nobody_else_can_read_it(path: Path, mask: int) -> None:
    """File and journal belong to their owner alone, whatever the umask; so does the folder that is made for them."""
    with umask(mask):
        put(path)
        with SqliteStore(path, QueueSettings())._writing() as (db, _):
            db.execute("UPDATE item SET attempts=1")
            modes = {mode(path), mode(place.journal(path))}

    assert modes == {0o600}
    assert mode(path.parent) & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """It may be shared; only what we make is ours."""
    tmp_path.chmod(0o755)
    put(tmp_path / "queue.db")

    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o606, 0o620])
def test_a_file_that_others_can_use_is_refused(path: Path, bits: int) -> None:
    """It may have been read already: its owner should know."""
    put(path)
    path.chmod(bits)

    with pytest.raises(QueueUnavailable, match="others may use it; it holds prompts: chmod 600"):
        put(path)


def test_somebody_elses_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever planted it could read what is parked."""
    put(path)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)

    with pytest.raises(QueueUnavailable, match="belongs to another user"):
        put(path)


def test_a_link_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    """Only a regular file is a queue."""
    put(tmp_path / "real.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    (tmp_path / "dangling.db").symlink_to(tmp_path / "nothing.db")
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")

    for name in ("link.db", "dangling.db", "folder.db", "pipe.db"):
        with pytest.raises(QueueUnavailable, match="not a regular file"):
            put(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    """Neither a new queue nor one that is there can do without its folder; reading it goes on."""
    with unprivileged() as folder:
        put(folder / "there.db")
        folder.chmod(0o500)
        with pytest.raises(QueueUnavailable, match=r"new\.db: Permission denied"):
            put(folder / "new.db")
        with pytest.raises(QueueUnavailable, match="file and folder must be writable"):
            put(folder / "there.db", "b")
        stats = SqliteStore(folder / "there.db", QueueSettings()).stats()
        folder.chmod(0o700)

    assert stats.ready == 1


def test_a_file_that_cannot_be_written_is_refused() -> None:
    """It is not taken for a damaged one."""
    with unprivileged() as folder:
        put(folder / "queue.db")
        (folder / "queue.db").chmod(0o400)
        with pytest.raises(QueueUnavailable, match="file and folder must be writable"):
            put(folder / "queue.db", "b")


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "file").write_text("")

    with pytest.raises(QueueUnavailable, match=r"queue\.db: "):
        put(tmp_path / "file" / "queue.db")


@pytest.mark.parametrize("name", ["a b", "100%41", "what?mode=memory", "hash#", "큐", "quote'\""])
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    """What means something in a URL means nothing in a path."""
    item_id = put(tmp_path / name / name)

    assert SqliteStore(tmp_path / name / name, QueueSettings()).get(item_id) is not None
    assert [one.name for one in (tmp_path / name).iterdir()] == [name]


def test_the_path_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that changes its folder keeps its queue; `~` is the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = SqliteStore("queue.db", QueueSettings())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    store.stats()

    assert (tmp_path / "queue.db").exists()
    assert SqliteStore("~/queue.db", QueueSettings()).path == tmp_path / "queue.db"


def test_the_default_is_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system keeps what programs remember."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert place.default() == tmp_path / "holyroute" / "queue.db"


def test_whoever_comes_first_makes_it(path: Path) -> None:
    """Eight that find no file at once share one, and nothing else is left in the folder."""
    gate = threading.Barrier(8)
    stores = [SqliteStore(path, QueueSettings()) for _ in range(8)]

    def work(number: int) -> bool:
        gate.wait()
        return stores[number].put(NewItem(payload=b"x", digest=str(number)))[1]

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(work, range(8)))

    assert created == [True] * 8
    assert stores[0].stats().ready == 8
    assert list(path.parent.iterdir()) == [path]


def test_somebody_who_comes_second_uses_it(path: Path) -> None:
    """A file that appears between the look and the link is the one that is used."""
    first = put(path)
    place.create(path, lambda new: new.write_bytes(b"another"))

    assert SqliteStore(path, QueueSettings()).get(first) is not None
    assert list(path.parent.iterdir()) == [path]


def test_answered_prompts_are_gone_from_the_file(path: Path) -> None:
    """What is dropped is overwritten."""
    store = SqliteStore(path, QueueSettings())
    store.put(NewItem(payload=b"a very private prompt" * 100, digest="x"))
    (leased,) = store.lease(1, 100)
    store.complete(leased.id, leased.token, b"1")

    assert b"private" not in path.read_bytes()


def test_a_put_that_returned_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollback journal, and every step synced: the new file's folder too."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    put(path)
    db = connect(path)
    found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")]
    db.close()

    assert found == ["delete", 3, 1]
    assert synced == [path.parent.stat().st_ino]


def test_a_file_that_somebody_turned_to_wal_is_turned_back(path: Path) -> None:
    """The write-ahead log of many SQLite versions can lose what several processes wrote."""
    put(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
    put(path, "b")

    assert path.read_bytes()[18:20] == b"\x01\x01"
    assert list(path.parent.iterdir()) == [path]


class LookingClock(FakeClock):
    """Looks, whenever it is asked for the time of day, whether somebody else could write."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.free: list[bool] = []

    def wall(self) -> float:
        """The time of day."""
        with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                self.free.append(False)
            else:
                self.free.append(True)
        return super().wall()


def test_a_lease_begins_when_the_lock_is_there(path: Path) -> None:
    """Waiting for other processes takes nothing of it."""
    put(path)
    clock = LookingClock(path)
    store = SqliteStore(path, QueueSettings(), clock)
    (leased,) = store.lease(1, 100)
    store.renew(leased.id, leased.token, 100)

    assert clock.free == [False, False]
