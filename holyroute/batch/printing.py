"""Outputs in input order, and in other shapes: CSV, OpenAI's Batch API, the failed rows alone."""

from __future__ import annotations

import csv
import io
from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from holyroute.batch.entry import decoded
from holyroute.batch.scan import Bitmap, entries
from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from holyroute.batch.entry import Entry

SHAPES = ("jsonl", "csv", "openai")

_NOWHERE = -1
_OURS = ("content", "model", "finish_reason", "cost_usd", "cause", "error")  # columns of a CSV file behind the caller's


class Ordered:
    """The lines of one or more outputs by row: 10 bytes of memory each, and one pass over the files.

    Where a row has several lines, one with an answer counts before one without, and a later one before an earlier one.

    Attributes:
        rows: rows that have a line.
        ok: rows that are answered.
        damaged: lines that were left out.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._offsets = array("q")
        self._files = array("H")
        self._ok = Bitmap()
        self.rows = 0
        self.damaged: list[str] = []
        for number, path in enumerate(paths):
            self._read(path, number)
        self.ok = len(self._ok)

    def missing(self, total: int = 0) -> Iterator[int]:
        """The rows that have no line, up to the last one that has, or of so many."""
        for index, offset in enumerate(self._offsets):
            if offset == _NOWHERE:
                yield index
        yield from range(len(self._offsets), total)

    def __iter__(self) -> Iterator[bytes]:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._paths]
            for offset, number in zip(self._offsets, self._files, strict=True):
                if offset != _NOWHERE:
                    files[number].seek(offset)
                    yield files[number].readline().rstrip(b"\n") + b"\n"

    def _read(self, path: Path, number: int) -> None:
        damaged: list[int] = []
        with path.open("rb") as file:
            for offset, _, entry in entries(file, damaged):
                self._place(entry, number, offset)
        self.damaged += [f"{path}: line {line} is damaged or cut off" for line in damaged]

    def _place(self, entry: Entry, number: int, offset: int) -> None:
        more = entry.index + 1 - len(self._offsets)
        if more > 0:
            self._offsets.extend([_NOWHERE] * more)
            self._files.extend([0] * more)
        is_new = self._offsets[entry.index] == _NOWHERE
        if not is_new and entry.index in self._ok and not entry.ok:
            return
        self.rows += is_new
        self._offsets[entry.index], self._files[entry.index] = offset, number
        if entry.ok:
            self._ok.add(entry.index)


def shaped(lines: Iterable[bytes], shape: str) -> Iterator[bytes]:
    """Lines of an output in one of `SHAPES`. CSV goes over the lines twice: its columns come first."""
    if shape == "csv":
        return _table(lines)
    return map(openai_line, lines) if shape == "openai" else iter(lines)


def openai_line(line: bytes) -> bytes:
    """A line as OpenAI's Batch API writes it."""
    entry = decoded(line)
    fields = entry.fields
    error = fields.get("error") or {}
    body = fields.get("raw") or _answer(fields)
    shown = {
        "id": f"batch_req_{entry.index}",
        "custom_id": fields.get("id") or f"row-{entry.index}",
        "response": {"status_code": 200, "request_id": body.get("id") or "", "body": body} if entry.ok else None,
        "error": None if entry.ok else {"code": entry.cause.replace(" ", "_"), "message": error.get("message")},
    }
    return codec.dumps(shown) + b"\n"


def failure_line(line: bytes) -> bytes | None:
    """A failed row with its cause, for people and scripts that mend it; None for an answered one."""
    entry = decoded(line)
    if entry.ok:
        return None
    fields, error = entry.fields, entry.fields.get("error") or {}
    shown = {name: fields.get(name) for name in ("index", "line", "id")}
    shown |= {"cause": entry.cause, "message": error.get("message"), "attempts": fields.get("attempts")}
    return codec.dumps({**shown, "columns": fields.get("columns")}) + b"\n"


def _answer(fields: Any) -> dict[str, Any]:
    """A completion of which the text alone was kept."""
    usage = dict(fields.get("usage") or {})
    if usage:
        usage["total_tokens"] = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
    message = {"role": "assistant", "content": fields.get("content")}
    return {
        "object": "chat.completion",
        "model": fields.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": fields.get("finish_reason")}],
        "usage": usage or None,
    }


def _table(lines: Iterable[bytes]) -> Iterator[bytes]:
    names: dict[str, None] = {}
    for line in lines:
        names |= dict.fromkeys(decoded(line).fields.get("columns") or {})
    first = ["index"] if "id" in names else ["index", "id"]  # theirs is most often the same
    yield _csv_line([*_apart(first, names), *names, *_apart(_OURS, names)])
    for line in lines:
        entry = decoded(line)
        columns, error = entry.fields.get("columns") or {}, entry.fields.get("error") or {}
        said = {**entry.fields, "cause": entry.cause, "error": error.get("message")}
        yield _csv_line([*map(said.get, first), *map(columns.get, names), *map(said.get, _OURS)])


def _apart(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """Names of ours that nobody takes for one of theirs."""
    return [f"holyroute_{name}" if name in theirs else name for name in ours]


def _csv_line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow([_cell(value) for value in values])
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return codec.dumps(value).decode()
