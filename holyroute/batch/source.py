"""The input of a batch: JSON Lines, CSV or plain lines, read one row at a time."""

from __future__ import annotations

import csv
import stat
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from holyroute.batch.lines import MAX_ROW, Lines
from holyroute.core import codec
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.batch.lines import Line

STDIN = "-"
FORMATS = ("jsonl", "csv", "tsv", "lines")
TEXT = "text"  # the name of the one field that a plain line has

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "lines"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stands in the file, or what is wrong with it. Blank lines are no rows."""

    index: int  # from 0
    line: int  # from 1, where it begins
    value: Any = None  # an object for CSV and plain lines; any JSON for JSON Lines
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a whole input is: to show how far a batch is, and to tell later whether it was changed."""

    rows: int
    size: int  # bytes
    digest: str  # blake2b of all of it


class Source:
    """Where rows come from; may be read again, unless it is a pipe.

    Args:
        path: a file, or `-` for stdin.
        form: one of `FORMATS`; None goes by the file's name, then by its first character.
        limit: bytes of the longest row that is read.

    Raises:
        ConfigurationError: the file is not there, cannot be read, or is no text.
    """

    def __init__(self, path: str, form: str | None = None, limit: int = MAX_ROW) -> None:
        self.path = path
        self.form = form or _SUFFIXES.get(Path(path).suffix.lower(), "")
        self._limit = limit
        with self._explained():
            self.is_file = path != STDIN and stat.S_ISREG(Path(path).stat().st_mode)

    @property
    def name(self) -> str:
        """For messages."""
        return "stdin" if self.path == STDIN else self.path

    def records(self) -> Iterator[Record]:
        """Every row, one at a time."""
        with self._opened() as file:
            for index, (line, value, problem) in enumerate(self._rows(Lines(file, self.name, self._limit))):
                yield self._record(index, line, value, problem)

    def survey(self) -> Survey | None:
        """Count and fingerprint the whole input; None for a pipe, which can be read only once."""
        if not self.is_file:
            return None
        with self._opened() as file:
            counted = _Counted(file)
            rows = sum(1 for _ in self._rows(Lines(counted, self.name, self._limit)))
        return Survey(rows=rows, size=counted.size, digest=counted.digest.hexdigest())

    def _record(self, index: int, line: int, value: Any, problem: str) -> Record:
        if problem or self.form != "jsonl":
            return Record(index, line, value, problem)
        try:
            return Record(index, line, codec.loads(value, strict=True))
        except (ValueError, RecursionError) as error:
            return Record(index, line, problem=f"not JSON: {str(error).partition(chr(10))[0]}")

    def _rows(self, lines: Lines) -> Iterator[tuple[int, Any, str]]:
        """Line, value and problem of every row; JSON is not decoded yet."""
        self.form = self.form or ("jsonl" if lines.beginning.lstrip()[:1] in b'{["' else "lines")
        if self.form in _DELIMITERS:
            yield from _table(lines, _DELIMITERS[self.form], self)
            return
        self._check_beginning(lines)
        for line in lines:
            if not line.is_blank:
                value = {TEXT: line.text} if self.form == "lines" else line.text
                yield line.number, None if line.problem else value, line.problem

    def _check_beginning(self, lines: Lines) -> None:
        if self.form == "jsonl" and lines.beginning.strip() == b"[":
            raise self.refuse("one JSON array; expected a row per line, as jq -c '.[]' makes of it")

    def refuse(self, problem: str) -> ConfigurationError:
        """What is wrong with the input as a whole."""
        return ConfigurationError(f"{self.name}: {problem}")

    @property
    def limit(self) -> int:
        """Bytes of the longest row that is read."""
        return self._limit

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self.path == STDIN:
            yield sys.stdin.buffer
            return
        with ExitStack() as stack:
            with self._explained():
                file = stack.enter_context(Path(self.path).open("rb"))
            yield file

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"{self.name}: cannot be read: {error.strerror or error}") from error


class _Counted:
    """A file that is counted and fingerprinted while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.digest = blake2b(digest_size=16)

    def readline(self, limit: int) -> bytes:
        """As a file does."""
        data = self._file.readline(limit)
        self.size += len(data)
        self.digest.update(data)
        return data


class _TooLargeError(Exception):
    """A row of a table does not end."""


class _Feed:
    """Hands lines to the CSV reader, and knows where the row that it reads began."""

    def __init__(self, lines: Iterator[Line], limit: int) -> None:
        self._lines = lines
        self.limit = limit
        self.begin()

    def begin(self) -> None:
        """A new row comes."""
        self.first = 0
        self.problem = ""
        self._size = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.first = self.first or line.number
        self._size += len(line.text)
        if self._size > self.limit:
            raise _TooLargeError
        self.problem = self.problem or line.problem
        return line.text + "\n"


def _table(lines: Lines, delimiter: str, source: Source) -> Iterator[tuple[int, Any, str]]:
    """Rows of a CSV file as objects; its first row names the columns."""
    csv.field_size_limit(max(csv.field_size_limit(), source.limit))
    rows = _csv_rows(_Feed(iter(lines), source.limit), delimiter)
    _, names, problem = next(rows, (0, [], ""))
    if problem:
        raise source.refuse(f"line 1: {problem}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise source.refuse(f"line 1: two columns are called {twice.pop()!r}")
    for line, fields, problem in rows:
        if problem or len(fields) == len(names):
            yield line, None if problem else dict(zip(names, fields, strict=True)), problem
        else:
            yield line, None, f"expected {len(names)} columns, got {len(fields)}"


def _csv_rows(feed: _Feed, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield feed.first, [], f"not CSV: {error}"
        except _TooLargeError:
            yield feed.first, [], f"too large: no end within {feed.limit:,} bytes; is a quote missing?"
        else:
            if fields or feed.problem:
                yield feed.first, fields, feed.problem
