"""Salvages a damaged queue: a copy is read row by row, what can be read goes into a new file, nothing is deleted."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from holyroute.exceptions import QueueUnavailable
from holyroute.stores import place
from holyroute.stores.base import DAMAGED, Repair
from holyroute.stores.connection import check_kind, connect, fill
from holyroute.stores.schema import COLUMNS, PAGE
from holyroute.stores.sql import intact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Row = dict[str, Any]

_NAMES = ", ".join(COLUMNS)
_INSERT = f"INSERT OR IGNORE INTO item({_NAMES}) VALUES({', '.join(f':{name}' for name in COLUMNS)})"
_SMALLEST_ROW = 64  # bytes, less than any row of ours takes


def repair(path: Path) -> Repair:
    """Put a new file with everything that can be read in the place of a damaged one.

    Raises:
        QueueUnavailable: It is in use, not there, or no queue's.
        QueueVersion: Another version of holyroute wrote it.
    """
    size = place.check_owner(path)
    with ExitStack() as stack:
        stack.enter_context(place.explained(path))
        # Closing any descriptor of the file drops this process's locks on it: it is closed after the connection is.
        damaged = stack.enter_context(path.open("rb"))
        if size >= place.SMALLEST:  # SQLite would make a new database of less, and delete the journal
            stack.enter_context(_exclusive(path))
        new, copy = (stack.enter_context(place.private(path)) for _ in range(2))
        fill(new)
        with copy.open("r+b") as file:
            shutil.copyfileobj(damaged, file)
        _renew_first_page(copy, new)
        counts = _refill(copy, new)
        kept = _replace(path, new)
        place.sync(path.parent)
        return Repair(*counts, str(kept))


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keep other processes out, if the file is whole enough for that; a transaction that was cut off is undone."""
    with ExitStack() as stack:
        try:
            db = stack.enter_context(closing(connect(path)))
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise QueueUnavailable(f"{path}: in use; end the processes that use it before the repair") from error
        else:
            check_kind(db, str(path))
        yield


def _renew_first_page(copy: Path, new: Path) -> None:
    """Give a copy the header and the table of contents of a fresh file, which are the same in every queue.

    So it can be opened whatever happened to them, and to the length; what lies beyond the end reads as damage.
    """
    fresh = new.read_bytes()
    pages = max(-(-copy.stat().st_size // PAGE), len(fresh) // PAGE)  # those that the contents name have to be there
    page = bytearray(fresh[:PAGE])
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # no free pages
    with copy.open("r+b") as file:
        file.write(page)
        file.truncate(pages * PAGE)


def _refill(copy: Path, new: Path) -> tuple[int, int]:
    """Move rows over: how many are in order, and how many are not."""
    counts = [0, 0]
    with closing(connect(copy)) as old, closing(connect(new)) as db:
        db.execute("BEGIN IMMEDIATE")
        for row in _rows(old):
            is_damaged = not intact(row["result"] if row["state"] == "done" else row["payload"], row["crc"])
            if is_damaged:
                row |= {"state": "dead", "error": DAMAGED, "token": None, "lease_until": None}
                row["finished"] = row["finished"] or row["created"]
            counts[is_damaged] += db.execute(_INSERT, row).rowcount
        db.execute("COMMIT")
    return counts[0], counts[1]


def _rows(old: sqlite3.Connection) -> Iterator[Row]:
    """Every row that can be read, in order; steps over those that cannot.

    One query per row: a cursor looks at the next page before it hands out the last row of this one, and loses both.
    """
    at, last = 1, _last(old)
    while at <= last:
        try:
            values = old.execute(f"SELECT {_NAMES} FROM item WHERE seq>=? ORDER BY seq LIMIT 1", (at,)).fetchone()
        except sqlite3.DatabaseError:
            at += 1
            continue
        if values is None:
            return
        row = dict(zip(COLUMNS, values, strict=True))
        if row["seq"] >= at:  # and not on a page that points back
            yield row
        at = max(at, row["seq"]) + 1


def _last(old: sqlite3.Connection) -> int:
    """The largest number that a row may have."""
    found = [0]
    for query in (
        "SELECT seq FROM sqlite_sequence WHERE name='item'",
        "SELECT max(seq) FROM item",
        f"SELECT * FROM (SELECT page_count * {PAGE // _SMALLEST_ROW} FROM pragma_page_count)",
    ):
        try:
            found += [value for (value,) in old.execute(query) if isinstance(value, int)]
        except sqlite3.DatabaseError:
            continue
    return max(found)


def _replace(path: Path, new: Path) -> Path:
    """Put the new file in place; the old one stays under another name, with its journal."""
    kept = path.with_name(f"{path.name}.damaged-{os.urandom(4).hex()}")
    os.link(path, kept)
    if place.journal(path).exists():  # SQLite would play it into the new file
        place.journal(path).rename(place.journal(kept))
    new.replace(path)
    return kept
