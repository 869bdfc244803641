"""Outputs in order, as CSV, in OpenAI's shape, and the failed rows alone."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.batch.entry import decoded, encoded
from holyroute.batch.printing import Ordered, failure_line, openai_line, shaped
from holyroute.batch.row import Cause, RowError, RowResult
from holyroute.core.completion import Usage
from holyroute.stores.place import put

if TYPE_CHECKING:
    from pathlib import Path


def line(index: int, *, ok: bool = True, **fields: Any) -> bytes:
    error = None if ok else RowError(cause=Cause.RATE_LIMITED, message="slow down")
    return encoded(RowResult(index=index, ok=ok, error=error, **fields), "k")


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def contents(ordered: Ordered) -> list[tuple[int, str]]:
    return [(decoded(one).index, decoded(one).fields["content"]) for one in ordered]


def test_lines_come_in_order(tmp_path: Path) -> None:
    """Whatever order they were written in; a torn tail is left out, and told."""
    path = written(tmp_path / "a", line(2, content="c"), line(0, content="a"), line(1, content="b"), line(3)[:-9])
    ordered = Ordered([path])

    assert contents(ordered) == [(0, "a"), (1, "b"), (2, "c")]
    assert (ordered.rows, ordered.ok, list(ordered.missing())) == (3, 3, [])
    assert ordered.damaged == [f"{path}: line 4 is damaged or cut off"]


def test_a_whole_last_line_counts(tmp_path: Path) -> None:
    """Also without its end, which it gets."""
    path = written(tmp_path / "a", line(1), line(0).rstrip(b"\n"))

    assert list(Ordered([path])) == [line(0), line(1)]


def test_shards_are_put_together(tmp_path: Path) -> None:
    """What is missing is told."""
    first = written(tmp_path / "a", line(4, content="e"), line(0, content="a"))
    second = written(tmp_path / "b", line(1, content="b"))
    ordered = Ordered([first, second])

    assert contents(ordered) == [(0, "a"), (1, "b"), (4, "e")]
    assert list(ordered.missing()) == [2, 3]
    assert list(ordered.missing(7)) == [2, 3, 5, 6]


def test_an_answer_counts_before_a_failure(tmp_path: Path) -> None:
    """Of several lines of a row, wherever they stand; else the last one."""
    first = written(tmp_path / "a", line(0, content="old"), line(1, ok=False), line(0, ok=False), line(2, ok=False))
    second = written(
        tmp_path / "b",
        line(3, content="kept"),
        line(3, ok=False),
        line(0, content="new"),
        line(1, content="late"),
        line(2, ok=False, attempts=7),
    )
    ordered = Ordered([first, second])

    assert contents(ordered)[:2] == [(0, "new"), (1, "late")]
    assert contents(ordered)[3] == (3, "kept")
    assert decoded(list(ordered)[2]).fields["attempts"] == 7
    assert (ordered.rows, ordered.ok) == (4, 3)


def test_csv_keeps_the_callers_columns(tmp_path: Path) -> None:
    """Ours stand around them, and get out of the way where the names are the same."""
    path = written(
        tmp_path / "a",
        line(0, content='two\n"lines"', model="m", columns={"id": "x", "content": "theirs", "n": 3}, id="x"),
        line(1, ok=False, columns={"id": "y", "extra": ["é"]}, id="y"),
    )
    table = b"".join(shaped(Ordered([path]), "csv")).decode()
    first, second = csv.DictReader(io.StringIO(table))

    assert table.startswith("index,")
    assert (first["id"], first["content"], first["n"], first["extra"]) == ("x", "theirs", "3", "")
    assert (first["holyroute_content"], first["model"], first["cause"]) == ('two\n"lines"', "m", "")
    assert (second["id"], second["extra"], second["cause"], second["error"]) == (
        "y",
        '["é"]',
        "rate limited",
        "slow down",
    )


def test_the_shape_of_openais_batch_api() -> None:
    """Answers with a response, failures with an error, each under its `custom_id`."""
    answer = json.loads(
        openai_line(line(0, id="r-1", content="hello", model="m", finish_reason="stop", usage=Usage(1, 2)))
    )
    failure = json.loads(openai_line(line(1, ok=False)))

    assert answer["custom_id"] == "r-1"
    assert answer["error"] is None
    assert answer["response"]["status_code"] == 200
    assert answer["response"]["body"] == {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    assert (failure["custom_id"], failure["response"]) == ("row-1", None)
    assert failure["error"] == {"code": "rate_limited", "message": "slow down"}


def test_the_providers_own_answer_is_shown_where_it_was_kept() -> None:
    """With its id, as it came."""
    raw = {"id": "chatcmpl-1", "choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}
    response = json.loads(openai_line(line(0, raw=raw)))["response"]

    assert response == {"status_code": 200, "request_id": "chatcmpl-1", "body": raw}


def test_failures_alone() -> None:
    """Where they stand in the input, why, and what was in them."""
    shown = failure_line(line(3, ok=False, line=5, id="a", attempts=2, columns={"text": "x"}, cost_usd=Decimal(0)))

    assert failure_line(line(0)) is None
    assert shown is not None
    assert json.loads(shown) == {
        "index": 3,
        "line": 5,
        "id": "a",
        "cause": "rate limited",
        "message": "slow down",
        "attempts": 2,
        "columns": {"text": "x"},
    }


def test_a_file_is_put_whole(tmp_path: Path) -> None:
    """What breaks in the middle leaves the old one."""
    path = tmp_path / "a"
    put(path, [b"old"])

    def broken() -> Any:
        yield b"new"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        put(path, broken())

    assert path.read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
