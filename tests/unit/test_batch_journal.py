"""The output of a batch as its checkpoint: what survives, what is refused, what is asked again."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holyroute.batch.checkpoint import Wishes, begin
from holyroute.batch.entry import decoded, encoded
from holyroute.batch.journal import Journal, JournalFullError
from holyroute.batch.meta import Meta, path_of
from holyroute.batch.row import Cause, Row, RowError, RowResult
from holyroute.batch.scan import Bitmap
from holyroute.batch.source import Survey
from holyroute.core.completion import Usage
from holyroute.exceptions import ConfigurationError
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.batch.checkpoint import Checkpoint

ROWS = [Row(index=number, line=number + 1, body={"messages": [number, "줄"]}) for number in range(4)]
INPUT = Survey(rows=4, size=100, digest="d")
META = Meta(input=INPUT, spec={"template": "{a}", "temperature": 0})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def result(index: int, **fields: Any) -> RowResult:
    cause = fields.pop("cause", None)
    error = RowError(cause=cause, message="no") if cause else None
    base = {"index": index, "ok": error is None, "error": error, "content": f"말 {index}", "cost_usd": Decimal("0.10")}
    return RowResult(**{**base, **fields})


def line(index: int, **fields: Any) -> bytes:
    return encoded(result(index, **fields), ROWS[index].key)


def opened(output: Path, meta: Meta = META, **wishes: bool) -> Checkpoint:
    return begin(output, meta, Wishes(**wishes), FakeClock())


def finish(output: Path, **wishes: bool) -> list[int]:
    """Run a batch to its end; which rows it asked."""
    with opened(output, **wishes) as checkpoint:
        left = [row.index for row in checkpoint.left(ROWS)]
        for index in left:
            checkpoint.journal.append(line(index))
    return left


def indexes(output: Path) -> list[int]:
    return [decoded(one).index for one in output.read_bytes().splitlines()]


def test_a_line_comes_back_as_it_was() -> None:
    """Index first, money exact, everything that the result says."""
    full = result(
        3,
        id="a",
        line=4,
        model="m",
        usage=Usage(3, 5),
        cost_usd=Decimal("0.0000000001"),
        attempts=2,
        columns={"x": 1.5, "half": "\ud800"},
    )
    data = encoded(full, "k" * 32)
    entry = decoded(data)

    assert data.startswith(b'{"index": 3,')  # half a character makes the standard library write it
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    assert (entry.index, entry.ok, entry.key, entry.cost) == (3, True, "k" * 32, Decimal("0.0000000001"))
    assert entry.completion_tokens == 5
    assert entry.fields["columns"] == {"x": 1.5, "half": "\ud800"}


def test_what_a_text_does_not_say_is_kept() -> None:
    """Tool calls and several choices stay; a plain answer is not written twice."""

    def kept(*messages: dict[str, Any]) -> bool:
        raw = {"choices": [{"message": message} for message in messages]}
        return "raw" in json.loads(encoded(result(0, raw=raw), ""))

    plain = {"role": "assistant", "content": "x", "tool_calls": None}

    assert not kept(plain)
    assert kept(plain, plain)
    assert kept({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]})


def test_a_new_output_is_its_owners_alone(output: Path) -> None:
    """It holds prompts and answers; so does what stands beside it."""
    finish(output)

    assert output.stat().st_mode & 0o777 == 0o600
    assert path_of(output).stat().st_mode & 0o777 == 0o600


def test_going_on_asks_what_is_left(output: Path) -> None:
    """Answered and failed rows are done."""
    with opened(output) as checkpoint:
        checkpoint.journal.append(line(2))
        checkpoint.journal.append(line(0, cause=Cause.UNAVAILABLE))

    assert finish(output) == [1, 3]
    assert sorted(indexes(output)) == [0, 1, 2, 3]


WHOLE = b"".join(line(index) for index in (2, 0, 3, 1))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(WHOLE)))
def test_cut_anywhere(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a kill leaves of the file, going on has every row once, and asks none again whose line is whole."""
    output = tmp_path_factory.mktemp("cut") / "out.jsonl"
    with opened(output) as checkpoint:
        checkpoint.journal.append(WHOLE[:cut])
    whole = WHOLE[: cut + 1].count(b"\n")  # a line that only lacks its end is whole

    assert len(finish(output)) == 4 - whole
    assert sorted(indexes(output)) == [0, 1, 2, 3]
    assert output.read_bytes().endswith(b"\n")


def test_every_cut_of_a_line(output: Path) -> None:
    """Byte by byte, without chance."""
    for cut in range(len(line(1)) + 1):
        output.unlink(missing_ok=True)
        with opened(output) as checkpoint:
            checkpoint.journal.append(line(0) + line(1)[:cut])

        finish(output)
        assert sorted(indexes(output)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (Meta(input=INPUT, spec={"template": "{b}", "temperature": 0}), 'template: was "{a}", is "{b}"'),
        (Meta(input=INPUT, spec={"template": "{a}"}), "temperature: was 0, is null"),
        (Meta(input=INPUT, spec={**META.spec, "seed": 1}), "seed: was null, is 1"),
        (Meta(input=INPUT, spec=META.spec, shard="1/2"), "shard: was all rows, is 1/2"),
        (
            Meta(input=Survey(rows=5, size=120, digest="e"), spec=META.spec),
            "input: was 4 rows in 100 bytes, is 5 rows in 120 bytes",
        ),
        (Meta(input=Survey(rows=4, size=100, digest="e"), spec=META.spec), "input: the same size, but other bytes"),
    ],
)
def test_another_question_is_refused(output: Path, meta: Meta, message: str) -> None:
    """What differs is named, and nothing is touched."""
    finish(output)
    before = output.read_bytes()
    with pytest.raises(ConfigurationError) as raised:
        opened(output, meta)

    assert message in str(raised.value)
    assert output.read_bytes() == before


def test_a_long_difference_is_shortened(output: Path) -> None:
    """Nobody reads a whole prompt in a message."""
    finish(output)
    with pytest.raises(ConfigurationError, match="…") as raised:
        opened(output, Meta(input=INPUT, spec={**META.spec, "template": "x" * 5_000}))

    assert len(str(raised.value)) < 500


def test_overwriting_forgets(output: Path) -> None:
    """On request, another question takes the place of the first."""
    finish(output)
    with opened(output, Meta(input=INPUT, spec={}), overwrite=True) as checkpoint:
        assert len(list(checkpoint.left(ROWS))) == 4


def test_an_empty_output_holds_nobody_up(output: Path) -> None:
    """A run that wrote nothing has paid for nothing."""
    opened(output, Meta(input=INPUT, spec={})).journal.close()

    assert finish(output) == [0, 1, 2, 3]


def test_a_file_of_somebody_else(output: Path) -> None:
    """It is neither gone on with nor overwritten."""
    output.write_text("precious\n")
    with pytest.raises(ConfigurationError, match=r"not out\.jsonl\.meta\.json, so it is not known to be an output"):
        opened(output)

    assert output.read_text() == "precious\n"


def test_resume_wants_something_to_resume(output: Path) -> None:
    """With --resume an output that is not there is a mistake."""
    with pytest.raises(ConfigurationError, match="nothing to resume"):
        opened(output, must_resume=True)


@pytest.mark.parametrize("text", ["{", '{"schema": 1}', '{"schema": 99, "version": "9"}', "[]"])
def test_a_damaged_meta_file(output: Path, text: str) -> None:
    """The message names it."""
    finish(output)
    path_of(output).write_text(text)
    with pytest.raises(ConfigurationError, match=r"out\.jsonl\.meta\.json: "):
        opened(output)


def test_another_run_holds_it(output: Path) -> None:
    """Two runs never write into one output."""
    with opened(output), pytest.raises(ConfigurationError, match="another run is writing it"):
        opened(output)

    assert finish(output) == [0, 1, 2, 3]


def test_the_hold_survives_a_new_file_in_its_place(output: Path) -> None:
    """Also after lines were dropped, which puts another file under the name."""
    with opened(output) as checkpoint:
        checkpoint.journal.append(line(0))
        checkpoint.journal.keep(lambda _: False)
        with pytest.raises(ConfigurationError, match="another run is writing it"):
            opened(output)


@pytest.mark.parametrize(
    "damage", [b"not json", b"[]", b'{"index": 1}', b"\0" * 50, b'{"index":-1,"ok":true,"key":""}']
)
def test_a_damaged_line(output: Path, damage: bytes) -> None:
    """It is told with its number; --repair drops it, and its row is asked again."""
    finish(output)
    lines = output.read_bytes().splitlines(keepends=True)
    lines[1] = damage + b"\n"
    output.write_bytes(b"".join(lines))
    with pytest.raises(ConfigurationError, match="damaged: line 2: "):
        opened(output)

    assert finish(output, repair=True) == [1]
    assert sorted(indexes(output)) == [0, 1, 2, 3]


def test_a_link_stays_a_link(output: Path, tmp_path: Path) -> None:
    """What is replaced is the file behind it."""
    real = tmp_path / "real.jsonl"
    output.symlink_to(real)
    finish(output)
    with opened(output) as checkpoint:
        checkpoint.journal.keep(lambda entry: entry.index < 2)

    assert output.is_symlink()
    assert sorted(indexes(real)) == [0, 1]


def test_an_absurd_index_is_damage(output: Path) -> None:
    """It costs no memory."""
    finish(output)
    with output.open("ab") as file:
        file.write(b'{"index":999999999999,"ok":true,"key":""}\n')
    with pytest.raises(ConfigurationError, match="damaged: line 5: index"):
        opened(output)


def test_failed_rows_are_asked_again_on_request(output: Path) -> None:
    """Those which asking again may help; the output never holds a row twice, and what they cost is not forgotten."""
    with opened(output) as checkpoint:
        for index, cause in enumerate((None, Cause.UNAVAILABLE, Cause.ROW, Cause.BUDGET)):
            checkpoint.journal.append(line(index, cause=cause))
    with opened(output, retry_failed=True) as checkpoint:
        assert [row.index for row in checkpoint.left(ROWS)] == [1, 3]
        assert checkpoint.spent == Decimal("0.40")
        assert checkpoint.before.spent == Decimal("0.20")
        checkpoint.journal.append(line(1))
        checkpoint.journal.append(line(3))

    assert sorted(indexes(output)) == [0, 1, 2, 3]
    with opened(output) as checkpoint:
        assert checkpoint.spent == Decimal("0.60")


def test_a_pipe_is_compared_row_by_row(output: Path) -> None:
    """Its fingerprint is not known beforehand, but that of every answered row is."""
    meta = Meta(input=None, spec=META.spec)
    with opened(output, meta) as checkpoint:
        checkpoint.journal.append(line(1))
    with opened(output, meta) as checkpoint:
        assert [row.index for row in checkpoint.left(ROWS)] == [0, 2, 3]
        others = [Row(index=row.index, line=row.line, body={"messages": ["other"]}) for row in ROWS]
        with pytest.raises(ConfigurationError, match="line 2: is not the row that was answered here"):
            list(checkpoint.left(others))


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 1,000 bytes, which is told as a full disk is; only briefly, because pytest writes too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_whole_lines(output: Path) -> None:
    """The line that did not fit is taken back, and said."""
    journal = Journal(output, FakeClock())
    journal.append(line(0))
    with small_files(), pytest.raises(JournalFullError, match=r"out\.jsonl: File too large"):
        journal.append(line(1, content="x" * 2_000))
    journal.append(line(1))
    journal.close()

    assert indexes(output) == [0, 1]


def test_lines_are_made_durable_in_groups(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 256 lines or a second, whichever comes first; never one by one."""
    calls: list[int] = []
    real = os.fdatasync

    def counted(file: int) -> None:
        calls.append(file)
        real(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    clock = FakeClock()
    journal = Journal(output, clock)
    for _ in range(255):
        journal.append(line(0))
    assert not calls
    journal.append(line(0))
    assert len(calls) == 1
    journal.append(line(0))
    clock.advance(0.9)
    journal.sync_if_due()
    assert len(calls) == 1
    clock.advance(0.1)
    journal.sync_if_due()
    journal.sync_if_due()
    assert len(calls) == 2
    journal.close()


def test_where_no_output_can_be(tmp_path: Path) -> None:
    """A folder that is not there, a device: said with the path."""
    with pytest.raises(ConfigurationError, match=r"none/out\.jsonl: cannot be written: No such file"):
        opened(tmp_path / "none" / "out.jsonl")
    with pytest.raises(ConfigurationError, match="/dev/null: not a regular file"):
        opened(Path("/dev/null"))


@settings(deadline=None)
@given(st.sets(st.integers(0, 5_000)))
def test_the_bitmap_is_a_set(members: set[int]) -> None:
    """Of whole numbers, one bit each."""
    bitmap = Bitmap()
    for member in [*members, *members]:
        bitmap.add(member)

    assert {index for index in range(5_010) if index in bitmap} == members
    assert len(bitmap) == len(members)
