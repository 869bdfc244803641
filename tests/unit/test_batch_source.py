"""The input of a batch: formats, encodings, and what is wrong with single rows."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from holyroute.batch.source import Record, Source
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def records(tmp_path: Path, data: bytes, name: str = "in.jsonl", limit: int = 1_000) -> list[Record]:
    path = tmp_path / name
    path.write_bytes(data)
    return list(Source(str(path), limit=limit).records())


def test_json_lines(tmp_path: Path) -> None:
    """Each line is a row; blank ones are none, but count as lines."""
    found = records(tmp_path, b'{"a": 1}\n\n  \n"text"\n[1]')

    assert found == [Record(0, 1, {"a": 1}), Record(1, 4, "text"), Record(2, 5, [1])]


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}\r\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n\n", []),
        ('{"a": "줄\u2028바꿈"}\n'.encode(), [{"a": "줄\u2028바꿈"}]),
    ],
    ids=["bom", "crlf", "empty", "bom only", "blank", "unicode line separator"],
)
def test_line_ends_and_marks(tmp_path: Path, data: bytes, values: list[object]) -> None:
    """A byte order mark and Windows line ends are no part of a row."""
    assert [record.value for record in records(tmp_path, data)] == values


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b'{"a": ', "not JSON: "),
        (b'{"a": NaN}', "not JSON: "),
        (b"\xff\xfe\x00", "not UTF-8: byte 1 is 0xff"),
        ("{'a': 'é'}".encode("latin-1"), "not UTF-8: byte 8 is 0xe9"),
        (b'{"a": "' + b"x" * 1_000 + b'"}', "too large: 1,010 bytes; at most 1,000 are read"),
        (b"[" * 900, "not JSON: "),
    ],
    ids=["torn", "nan", "bytes", "latin-1", "large", "deep"],
)
def test_a_bad_row_is_a_problem_of_its_own(tmp_path: Path, bad: bytes, problem: str) -> None:
    """It keeps its place and its line, and those behind it are read."""
    first, second, third = records(tmp_path, b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')

    assert (second.index, second.line) == (1, 2)
    assert second.problem.startswith(problem)
    assert (first.value, third) == ({"a": 1}, Record(2, 3, {"a": 3}))


def test_a_row_that_is_too_large_needs_no_memory(tmp_path: Path) -> None:
    """Twenty megabytes pass in pieces."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 20_000_000 + b'"}\n{"a": 2}\n')
    source = Source(str(path), limit=1_000_000)
    tracemalloc.start()
    found = list(source.records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found[0].problem == "too large: 20,000,010 bytes; at most 1,000,000 are read"
    assert found[1] == Record(1, 2, {"a": 2})
    assert peak < 5_000_000


def test_twenty_megabytes_are_too_much_by_default(tmp_path: Path) -> None:
    """No provider takes them."""
    path = tmp_path / "in.txt"
    path.write_bytes(b"x" * 20_000_000)

    assert next(Source(str(path)).records()).problem.startswith("too large: 20,000,000 bytes")


def test_csv(tmp_path: Path) -> None:
    """The first row names the columns; a quoted field may go over several lines."""
    data = b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,plain\r\n'
    found = records(tmp_path, data, "in.csv")

    assert found == [
        Record(0, 2, {"id": "1", "text": 'two\nlines, "quoted"'}),
        Record(1, 5, {"id": "2", "text": "plain"}),
    ]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b"1", "expected 2 columns, got 1"),
        (b"1,2,3", "expected 2 columns, got 3"),
        (b'"a"b,2', "not CSV: "),
        (b"1,\xe9", "not UTF-8: byte 3 is 0xe9"),
    ],
    ids=["few", "many", "quote", "latin-1"],
)
def test_a_bad_csv_row(tmp_path: Path, bad: bytes, problem: str) -> None:
    """It is a problem of its own."""
    first, second, third = records(tmp_path, b"a,b\n1,2\n" + bad + b"\n3,4\n", "in.csv")

    assert second.line == 3
    assert second.problem.startswith(problem)
    assert (first.value, third.value) == ({"a": "1", "b": "2"}, {"a": "3", "b": "4"})


def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    """It does not swallow the file in silence, nor the memory."""
    found = records(tmp_path, b'a,b\n1,"2\n' + b"x" * 30 + b"\n" + b"3,4\n" * 10, "in.csv", limit=50)

    assert found[0].line == 2
    assert "is a quote missing?" in found[0].problem
    assert found[-1].value == {"a": "3", "b": "4"}


def test_a_quote_that_the_end_cuts_off(tmp_path: Path) -> None:
    """The last row is told to be broken."""
    found = records(tmp_path, b'a,b\n1,2\n3,"4\n', "in.csv")

    assert [record.problem[:8] for record in found] == ["", "not CSV:"]


def test_a_long_csv_field(tmp_path: Path) -> None:
    """Longer than the standard library's own limit is fine."""
    found = records(tmp_path, b"a\n" + b"x" * 200_000 + b"\n", "in.csv", limit=1_000_000)

    assert len(found[0].value["a"]) == 200_000


def test_tsv_and_plain_lines(tmp_path: Path) -> None:
    """By the name of the file."""
    assert records(tmp_path, b"a\tb\n1\t2,3\n", "in.tsv")[0].value == {"a": "1", "b": "2,3"}
    assert records(tmp_path, b"one, two\n", "in.txt")[0].value == {"text": "one, two"}


@pytest.mark.parametrize(("data", "form"), [(b' {"a": 1}\n', "jsonl"), (b'"a"\n', "jsonl"), (b"hello\n", "lines")])
def test_a_name_that_tells_nothing(tmp_path: Path, data: bytes, form: str) -> None:
    """The first character decides."""
    path = tmp_path / "prompts"
    path.write_bytes(data)
    source = Source(str(path))
    list(source.records())

    assert source.form == form


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("{}".encode("utf-16"), "in.jsonl", "it is UTF-16; expected UTF-8"),
        (b"\x1f\x8b\x08", "in.jsonl", "it is compressed; expected text, which this makes of it: zcat"),
        (b"PK\x03\x04", "in.csv", "it is a zip file or a spreadsheet"),
        (b'[\n{"a": 1},\n', "in.json", "one JSON array; expected a row per line, as jq -c '.[]' makes of it"),
        (b"a,b,a\n", "in.csv", "line 1: two columns are called 'a'"),
        (b"a,\xe9\n1,2\n", "in.csv", "line 1: not UTF-8"),
    ],
    ids=["utf-16", "gzip", "zip", "array", "columns", "header"],
)
def test_what_is_no_input(tmp_path: Path, data: bytes, name: str, message: str) -> None:
    """It is refused as a whole, and the message says what to do."""
    with pytest.raises(ConfigurationError) as raised:
        records(tmp_path, data, name)

    assert message in str(raised.value)
    assert name in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Nor a folder."""
    with pytest.raises(ConfigurationError, match=r"none\.jsonl: cannot be read: No such file"):
        Source(str(tmp_path / "none.jsonl"))
    with pytest.raises(ConfigurationError, match="Is a directory"):
        list(Source(str(tmp_path)).records())


def test_a_survey_counts_and_fingerprints(tmp_path: Path) -> None:
    """Rows, bytes, and a digest that every changed byte changes."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n\nbroken\n')
    first = Source(str(path)).survey()
    path.write_bytes(b'{"a": 1}\n\nbrokem\n')
    second = Source(str(path)).survey()

    assert first is not None
    assert second is not None
    assert (first.rows, first.size) == (2, 17)
    assert first.digest != second.digest


def test_a_survey_counts_rows_of_csv_not_lines(tmp_path: Path) -> None:
    """A field may go over several lines."""
    path = tmp_path / "in.csv"
    path.write_bytes(b'a\n"1\n2\n3"\n4\n')
    survey = Source(str(path)).survey()

    assert survey is not None
    assert survey.rows == 2


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """It cannot be surveyed; its rows come all the same."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[json.dumps({"a": 1}).encode()])
    writer.start()
    source = Source(str(path))
    found = list(source.records()) if source.survey() is None else []
    writer.join()

    assert found == [Record(0, 1, {"a": 1})]
