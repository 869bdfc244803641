"""How far a batch is, shown where there is no terminal."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from holyroute.batch.row import Cause
from holyroute.cli.batch_display import BatchDisplay, duration
from holyroute.cli.batch_run import Snapshot
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def snapshot(done: int, **fields: object) -> Snapshot:
    return Snapshot(done=done, answered=done, spent=Decimal(done) / 100, **fields)  # type: ignore[arg-type]


def shown(display: BatchDisplay, clock: FakeClock, snapshots: Iterator[Snapshot], seconds: float) -> None:
    with display:
        for one in snapshots:
            display.show(one)
            clock.advance(seconds)


def test_a_line_every_half_minute(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """By the clock, however many rows there are; on stderr."""
    display = BatchDisplay(clock, 1_000)
    shown(display, clock, (snapshot(done) for done in range(100)), 1.0)
    printed = capsys.readouterr()

    assert printed.out == ""
    assert printed.err.splitlines() == [
        "30 of 1,000 rows done (3%), 1.0 rows/s, about 16 min left, 0.3000 USD, 10.0000 when done",
        "60 of 1,000 rows done (6%), 1.0 rows/s, about 16 min left, 0.6000 USD, 10.0000 when done",
        "90 of 1,000 rows done (9%), 1.0 rows/s, about 15 min left, 0.9000 USD, 10.0000 when done",
    ]


def test_a_standstill_shows(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate is that of the last minute, and nobody guesses an end; what waits and fails is said."""
    display = BatchDisplay(clock, 1_000, Decimal(2))
    still = snapshot(50, failed=3, waiting=7)
    shown(display, clock, (still for _ in range(10)), 10.0)
    last = capsys.readouterr().err.splitlines()[-1]

    assert last == ("50 of 1,000 rows done (5%), 0.0 rows/s, 2.5000 USD, 12.0000 when done, 3 failed, 7 put off")


def test_a_pipe_has_no_end(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that are not counted beforehand."""
    display = BatchDisplay(clock, None)
    shown(display, clock, (snapshot(done) for done in range(32)), 1.0)

    assert capsys.readouterr().err == "30 rows done, 1.0 rows/s, 0.3000 USD\n"


def test_what_was_called_off_is_no_failure() -> None:
    """It is not told among the causes."""
    seen = Snapshot(causes={Cause.CANCELLED: 4, Cause.REFUSED: 1})

    assert seen.called_off == 4
    assert seen.failures == {Cause.REFUSED: 1}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (3_599, "1 h 00 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    """For people."""
    assert duration(seconds) == text
