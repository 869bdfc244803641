"""Rows from a pipe: a pause is no end, an error comes where the rows are taken, and nobody reads on for nobody."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from holyroute.batch.reading import Pause
from holyroute.batch.row import Row
from holyroute.cli.batch_pipe import AHEAD, awaited

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 15.0  # seconds that a busy machine may need for what takes none


def real(rows: Iterator[Row | Pause]) -> list[int]:
    return [one.index for one in rows if isinstance(one, Row)]


def test_a_pause_is_told_and_is_no_end() -> None:
    """Every row comes once, in order."""
    more = threading.Event()

    def pipe() -> Iterator[Row]:
        yield Row(index=0)
        more.wait(PATIENCE)
        yield from (Row(index=number) for number in range(1, 3 * AHEAD))

    rows = awaited(pipe())
    first = next(one for one in rows if isinstance(one, Row))
    pause = next(rows)
    more.set()

    assert first.index == 0
    assert isinstance(pause, Pause)
    assert real(rows) == list(range(1, 3 * AHEAD))


def test_what_the_rows_raise_is_raised_behind_them() -> None:
    """Not in a thread where nobody sees it."""

    def pipe() -> Iterator[Row]:
        yield Row(index=0)
        raise OSError("the pipe burst")

    seen: list[Row | Pause] = []
    with pytest.raises(OSError, match="the pipe burst"):
        seen.extend(awaited(pipe()))

    rows = awaited(pipe())

    assert next(one for one in rows if isinstance(one, Row)).index == 0


def test_nobody_reads_on_for_nobody() -> None:
    """Memory is bounded while rows wait, and the thread ends when they are not wanted any more."""
    taken: list[int] = []
    ended = threading.Event()

    def pipe() -> Iterator[Row]:
        try:
            for number in range(1_000_000):
                taken.append(number)
                yield Row(index=number)
        finally:
            ended.set()

    rows = awaited(pipe())
    next(one for one in rows if isinstance(one, Row))
    rows.close()  # type: ignore[attr-defined]

    assert ended.wait(PATIENCE)
    assert len(taken) <= AHEAD + 3
