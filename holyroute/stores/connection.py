"""Connections to a queue's file, and what is looked at when one is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from holyroute.exceptions import QueueCorrupt, QueueUnavailable, QueueVersion
from holyroute.stores.schema import APPLICATION, SCHEMA, VERSION

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 10.0  # seconds to wait for other processes

_PRAGMAS = (
    "journal_mode=DELETE",
    "synchronous=EXTRA",  # FULL, and the folder once the journal is gone
    "secure_delete=ON",  # prompts are overwritten when they are dropped
    "temp_store=MEMORY",  # and never lie in another folder
    "cell_size_check=ON",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that exists; it is never made by opening it."""
    db = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE, isolation_level=None)
    db.text_factory = _text
    try:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def fill(path: Path) -> None:
    """Make a queue of an empty file."""
    with closing(connect(path)) as db:
        db.executescript(SCHEMA)


def check_kind(db: sqlite3.Connection, name: str) -> None:
    """Whether this is a queue, and one that we can read.

    Raises:
        QueueUnavailable: It is another program's database.
        QueueVersion: Another version of holyroute wrote it.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise QueueUnavailable(f"{name}: a database, but no queue of holyroute")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise QueueVersion(f"{name}: its schema has version {version}; this holyroute reads {VERSION}")


def check_pages(db: sqlite3.Connection, name: str) -> None:
    """Look at every page: SQLite itself notices a broken one only when it comes to it.

    Raises:
        QueueCorrupt: The first thing found.
    """
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise QueueCorrupt(f"{name}: damaged ({' '.join(found.split())}); `repair` salvages what can be read")


def _text(value: bytes) -> str:
    """One flipped byte in a text must not hold up everything else."""
    return value.decode(errors="replace")
