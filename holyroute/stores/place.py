"""Where a queue's file lies: created whole or not at all, and nobody else's business.

Once a queue is in use nothing here opens its file: closing any descriptor of a file drops all POSIX locks that the
process has on it, those of SQLite too. So it is looked at from outside only.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from holyroute.exceptions import QueueCorrupt, QueueError, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

SMALLEST = 512  # bytes: SQLite takes a shorter file for a new one, and we never make one

_OTHERS = 0o077


def default() -> Path:
    """`~/.local/state/holyroute/queue.db` on Linux."""
    import platformdirs

    return platformdirs.user_state_path("holyroute") / "queue.db"


def journal(path: Path) -> Path:
    """Where SQLite keeps what it needs to undo a transaction that was cut off."""
    return path.with_name(f"{path.name}-journal")


def check_owner(path: Path) -> int:
    """The size of a file that is ours alone.

    Raises:
        QueueUnavailable: It is not there, no plain file, somebody else's, or open to others.
    """
    with explained(path):
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise QueueUnavailable(f"{path}: not a regular file")
    if status.st_uid != os.geteuid():
        raise QueueUnavailable(f"{path}: belongs to another user")
    if status.st_mode & _OTHERS:
        raise QueueUnavailable(f"{path}: others may use it; it holds prompts: chmod 600")
    return status.st_size


def check(path: Path) -> None:
    """Whether a file can be a queue of ours.

    Raises:
        QueueUnavailable: As `check_owner`.
        QueueCorrupt: It is too short; opened as it is, it would silently become an empty queue.
    """
    if check_owner(path) < SMALLEST:
        raise QueueCorrupt(f"{path}: cut off; `repair` keeps the file and starts anew")


def create(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a file under another name, fill it, and link it to its place; whoever links first wins.

    Raises:
        QueueUnavailable: The folder cannot be made or written to.
        QueueCorrupt: There is a journal without its file: SQLite would undo what never was in the new one.
    """
    if journal(path).exists():
        raise QueueCorrupt(f"{path}: the file is gone, but its journal {journal(path).name} is there")
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with private(path) as new:
            fill(new)
            with suppress(FileExistsError):
                os.link(new, path)
        sync(path.parent)


@contextmanager
def private(path: Path) -> Iterator[Path]:
    """A new, empty file beside another one, for its owner only; it goes with the block."""
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        new.chmod(0o600)  # whatever the umask left of it
        yield new
    finally:
        new.unlink(missing_ok=True)


def put(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file whole or not at all; readable by its owner only."""
    with private(path) as new:
        with new.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the system refuses, as ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, QueueError):  # an OSError too, because requests' root is one
            raise
        raise QueueUnavailable(f"{path}: {error.strerror or error}") from error
