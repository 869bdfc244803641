"""What an output has already: read once, before a batch goes on."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, TYPE_CHECKING

from holyroute.batch.entry import BadLineError, Entry, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BITS = 8
_SHOWN = 5  # bad lines that a message names


class Bitmap:
    """A set of row indexes, one bit each: 1.25 MB for ten million rows."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0

    def add(self, index: int) -> None:
        """Put an index in."""
        place, bit = divmod(index, _BITS)
        if place >= len(self._bytes):
            self._bytes.extend(bytes(place + 1 - len(self._bytes)))
        if not self._bytes[place] >> bit & 1:
            self._bytes[place] |= 1 << bit
            self._count += 1

    def __contains__(self, index: int) -> bool:
        place, bit = divmod(index, _BITS)
        return place < len(self._bytes) and bool(self._bytes[place] >> bit & 1)

    def __len__(self) -> int:
        return self._count


@dataclass(slots=True)
class Found:
    """What an output holds.

    Attributes:
        done: rows that have a line.
        ok: rows that are answered.
        later: failed rows that may be answered by asking once more.
        spent: USD of all lines whose cost is known.
        completion_tokens: of all answers.
        keys: the first eight bytes of each row's key by index, if asked for; 0 where there is no line.
        end: bytes of the whole lines.
        bad: numbers of damaged lines, and what is wrong.
    """

    done: Bitmap = field(default_factory=Bitmap)
    ok: int = 0
    later: int = 0
    spent: Decimal = Decimal(0)
    completion_tokens: int = 0
    keys: array[int] | None = None
    end: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)

    @property
    def complaint(self) -> str:
        """The damaged lines, for a message."""
        shown = "; ".join(f"line {number}: {problem}" for number, problem in self.bad[:_SHOWN])
        more = len(self.bad) - _SHOWN
        return shown + (f"; {more} more" if more > 0 else "")

    def note(self, entry: Entry) -> None:
        """Count a line."""
        self.done.add(entry.index)
        self.ok += entry.ok
        self.later += entry.may_pass_later
        self.spent += entry.cost or 0
        self.completion_tokens += entry.completion_tokens
        if self.keys is not None:
            if entry.index >= len(self.keys):
                self.keys.extend([0] * (entry.index + 1 - len(self.keys)))
            self.keys[entry.index] = short(entry.key)


def short(key: str) -> int:
    """The beginning of a key as a number."""
    return int(key[:16] or "0", 16)


def scan(path: Path, *, keys: bool = False) -> Found:
    """Read an output. A whole last line that only lacks its end counts: it may have been paid for."""
    found = Found(keys=array("Q") if keys else None)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            whole = line.endswith(b"\n")
            try:
                found.note(decoded(line))
            except BadLineError as error:
                if not whole:  # a kill cut it off
                    break
                found.bad.append((number, str(error)))
            found.end += len(line)
    return found


def entries(file: IO[bytes], damaged: list[int] | None = None) -> Iterator[tuple[int, bytes, Entry]]:
    """Offset, line and entry of each good line of an output; the numbers of all others go into a list."""
    offset = 0
    for number, line in enumerate(file, 1):
        try:
            entry = decoded(line)
        except BadLineError:
            if damaged is not None:
                damaged.append(number)
        else:
            yield offset, line, entry
        offset += len(line)
