"""The output of a batch while it is written: one line per finished row, and nobody else writes in it.

Each line is written at once, so that it survives the end of the process, and made durable in groups, so that a power
cut costs at most a second of answers. A kill in the middle of a line leaves a torn tail, which the next run cuts off.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from holyroute.batch.scan import Found, entries, scan
from holyroute.exceptions import ConfigurationError, HolyRouteError
from holyroute.stores import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.batch.entry import Entry
    from holyroute.core.clock import Clock

GROUP = 256  # lines that are made durable at once …
GROUP_SECONDS = 1.0  # … or after so long


class JournalFullError(HolyRouteError):
    """A line could not be written: the disk is full, or a limit reached. What was written before is whole."""


class NotDurableError(JournalFullError):
    """Lines that stand in the file could not be made durable."""


class Journal:
    """An output that only this run writes in. Safe to share between threads.

    Args:
        path: the output; made for its owner only if it is not there.
        clock: when to make lines durable.

    Raises:
        ConfigurationError: it cannot be written, is no plain file, or another run holds it.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._real = Path(os.path.realpath(path))  # a link stays one when the file behind it is replaced
        self._clock = clock
        self._lock = threading.Lock()
        self._loose = 0  # lines that are not durable yet
        self._synced = clock.now()
        with _explained(path):
            self._file = _locked(path)
            self._end = os.fstat(self._file).st_size

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands in it."""
        return self._end == 0

    def scan(self, *, keys: bool = False) -> Found:
        """What it has; a torn tail is cut off.

        Args:
            keys: keep the beginning of each row's key.
        """
        with _explained(self.path):
            found = scan(self.path, keys=keys)
            os.ftruncate(self._file, found.end)
            self._end = found.end
            if found.end and os.pread(self._file, 1, found.end - 1) != b"\n":
                self.append(b"\n")
        return found

    def keep(self, wanted: Callable[[Entry], bool]) -> None:
        """Drop the lines that are not wanted, and damaged ones: all at once, or not at all."""

        def kept() -> Iterator[bytes]:
            with self.path.open("rb") as file:
                yield from (line for _, line, entry in entries(file) if wanted(entry))

        self.replace(kept())

    def replace(self, lines: Iterator[bytes]) -> None:
        """Put other lines in place of all that it has, all at once or not at all."""
        with _explained(self.path), place.private(self._real) as new:
            file = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = _fill(file, lines)
                os.fchmod(file, stat.S_IMODE(os.fstat(self._file).st_mode))
                os.fsync(file)
                new.replace(self._real)  # locked before it has the name, so that nobody gets in between
            except BaseException:
                os.close(file)
                raise
            with self._lock:
                os.close(self._file)
                self._file, self._end, self._loose = file, end, 0
            place.sync(self._real.parent)

    def clear(self) -> None:
        """Forget all that it has."""
        with _explained(self.path):
            os.ftruncate(self._file, 0)
            self._end = 0

    def append(self, line: bytes) -> None:
        """Write a line, whole or not at all.

        Raises:
            NotDurableError: it stands there, but the system could not make it durable.
            JournalFullError: it could not be written.
        """
        with self._lock:
            left = memoryview(line)
            try:
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError as error:
                with suppress(OSError):  # the next run would cut off what is torn
                    os.ftruncate(self._file, self._end)
                raise JournalFullError(f"{self.path}: {error.strerror or error}") from error
            self._end += len(line)
            self._loose += 1
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Make the lines durable, if there are many or the last time is long ago."""
        now = self._clock.now()
        if self._loose and (self._loose >= GROUP or now - self._synced >= GROUP_SECONDS):
            self.sync()

    def sync(self) -> None:
        """Make all lines durable.

        Raises:
            NotDurableError: the system could not write them.
        """
        with self._lock:
            self._synced, self._loose = self._clock.now(), 0
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise NotDurableError(f"{self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Make all lines durable, and let others in. May be called twice."""
        if self._file < 0:
            return
        try:
            if self._loose:
                self.sync()
        finally:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _locked(path: Path) -> int:
    """A descriptor of the file that has this name now, which nobody else writes in."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            _check(path, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BlockingIOError:
            os.close(file)
            raise ConfigurationError(f"{path}: another run is writing it; expected an output of its own") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the other run has put a new file in its place


def _check(path: Path, file: int) -> None:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise ConfigurationError(f"{path}: not a regular file; - writes to stdout")


def _fill(file: int, lines: Iterator[bytes]) -> int:
    with os.fdopen(os.dup(file), "wb") as written:
        for line in lines:
            written.write(line)
        return written.tell()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, ConfigurationError):  # an OSError too, because requests' root is one
            raise
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error
