"""Where the results of a batch go: into an output that is its own checkpoint, or to stdout."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Protocol

from holyroute.batch.entry import encoded
from holyroute.batch.journal import JournalFullError, NotDurableError
from holyroute.batch.printing import failure_line, openai_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holyroute.batch.checkpoint import Checkpoint
    from holyroute.batch.row import RowResult


class Sink(Protocol):
    """Takes results one at a time.

    Attributes:
        path: the output; None for stdout.
        problem: why nothing more could be written; empty if all is well.
        rescued: another file that holds what the output could not take.
        lost: answers that could be written nowhere.
    """

    path: Path | None
    problem: str
    rescued: str
    lost: int

    def take(self, result: RowResult, key: str) -> bool:
        """Write a result; False when nothing more can be written, so that no further row should be started."""

    def tick(self) -> None:
        """Called several times a second."""

    def finish(self) -> None:
        """All results have come."""


class FileSink:
    """Into a checkpoint. When the disk is full, what still comes in is kept, and written when all has come in.

    Attributes:
        told: USD that the lines say, so that a later run finds them there.
    """

    def __init__(self, checkpoint: Checkpoint, *, raw: bool = False) -> None:
        self._journal = checkpoint.journal
        self.path: Path | None = checkpoint.journal.path
        self._raw = raw
        self._waiting: list[bytes] = []
        self.told = Decimal(0)
        self.problem = ""
        self.rescued = ""
        self.lost = 0

    def take(self, result: RowResult, key: str) -> bool:
        """Write a line."""
        line = encoded(result, key, raw=self._raw)
        self.told += result.cost_usd or 0
        if self.problem or not self._is_written(line):
            self._waiting.append(line)
        return not self.problem

    def tick(self) -> None:
        """Make lines durable in time."""
        if not self.problem:
            with self._noted():
                self._journal.sync_if_due()

    def finish(self) -> None:
        """Write what is still waiting: there may be room by now, in the output or for a file elsewhere."""
        while self._waiting and self._is_written(self._waiting[0]):
            del self._waiting[0]
        self._rescue()
        with self._noted():
            self._journal.sync()

    def _is_written(self, line: bytes) -> bool:
        """Put a line into the output; one that is not durable stands there all the same, and must not come twice."""
        written = False
        with self._noted():
            try:
                self._journal.append(line)
                written = True
            except NotDurableError:
                written = True
                raise
        return written

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """The first that goes wrong is the problem."""
        try:
            yield
        except JournalFullError as error:
            self.problem = self.problem or str(error)

    def _rescue(self) -> None:
        if not self._waiting:
            return
        try:
            file, path = tempfile.mkstemp(".jsonl", "holyroute-rescued-")
            with os.fdopen(file, "wb") as rescued:
                rescued.writelines(self._waiting)
            self.rescued = path
        except OSError:
            self.lost = len(self._waiting)


class StreamSink:
    """To stdout, as they come, and the failed ones also into a file of their own."""

    def __init__(self, out: IO[bytes], shape: str, errors: IO[bytes] | None, *, raw: bool = False) -> None:
        self._out = out
        self._shape = shape
        self._errors = errors
        self._raw = raw
        self.path: Path | None = None
        self.problem = ""
        self.rescued = ""
        self.lost = 0

    def take(self, result: RowResult, key: str) -> bool:
        """Write a line."""
        line = encoded(result, key, raw=self._raw)
        failure = failure_line(line)
        try:
            if self._errors is not None and failure is not None:
                self._errors.write(failure)
                self._errors.flush()
            self._out.write(openai_line(line) if self._shape == "openai" else line)
            self._out.flush()
        except OSError as error:  # nobody reads on, or the disk behind it is full
            self.problem = f"stdout: {error.strerror or error}"
            return False
        return True

    def tick(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Nothing waits."""
