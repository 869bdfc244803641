"""Lines of a file, one at a time: numbered, bounded in memory, without their ends and a byte order mark."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ROW = 16_000_000  # bytes: above what any provider takes as one request, below what hurts

_PIECE = 65_536
_FOREIGN = {
    codecs.BOM_UTF16_LE: "UTF-16; expected UTF-8, which this makes of it: iconv -f UTF-16 -t UTF-8 {name}",
    codecs.BOM_UTF16_BE: "UTF-16; expected UTF-8, which this makes of it: iconv -f UTF-16 -t UTF-8 {name}",
    b"\x1f\x8b": "compressed; expected text, which this makes of it: zcat {name}",
    b"PK\x03\x04": "a zip file or a spreadsheet; expected text",
}


class Readable(Protocol):
    """What is read: a file in binary mode."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or so much of it; empty at the end."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line as text, or what is wrong with it."""

    number: int  # from 1
    text: str = ""
    problem: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether nothing stands on it."""
        return not self.problem and (not self.text or self.text.isspace())


class Lines:
    """An iterator of lines. Bytes that are no UTF-8, and what is longer than allowed, are problems of their line.

    Args:
        file: in binary mode.
        name: of the file, for messages.
        limit: bytes of the longest line that is read.

    Raises:
        ConfigurationError: the file is no text.
    """

    def __init__(self, file: Readable, name: str, limit: int = MAX_ROW) -> None:
        self._file = file
        self._limit = limit
        self._number = 0
        self._first = self._file.readline(limit + 1)
        for start, what in _FOREIGN.items():
            if self._first.startswith(start):
                raise ConfigurationError(f"{name}: it is {what.format(name=name)}")
        self._first = self._first.removeprefix(codecs.BOM_UTF8)

    @property
    def beginning(self) -> bytes:
        """The first line, as it stands, or what may be read of it."""
        return self._first

    def __iter__(self) -> Iterator[Line]:
        data = self._first
        while data:
            self._number += 1
            yield self._line(data)
            data = self._file.readline(self._limit + 1)

    def _line(self, data: bytes) -> Line:
        if len(data) > self._limit:
            size = self._skip(data)
            return Line(self._number, problem=f"too large: {size:,} bytes; at most {self._limit:,} are read")
        data = data.rstrip(b"\r\n")
        try:
            return Line(self._number, data.decode())
        except UnicodeDecodeError as error:
            where = f"byte {error.start + 1} is 0x{data[error.start]:02x}"
            return Line(self._number, data.decode(errors="replace"), f"not UTF-8: {where}")

    def _skip(self, data: bytes) -> int:
        """Read on to the end of a line and forget it; its length."""
        length = len(data)
        while not data.endswith(b"\n"):
            data = self._file.readline(_PIECE)
            length += len(data)
            if not data:
                break
        return length
