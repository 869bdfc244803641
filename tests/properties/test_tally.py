"""The tally against a list of everything that happened."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holyroute.monitoring.tally import ERROR, LEAST, MOST, SLICES, Tally, bucket, middle, together

WINDOW = 300.0
WIDTH = WINDOW / SLICES
SHARES = (0.5, 0.95, 0.99)


class Happened(NamedTuple):
    after: float  # seconds since the one before
    seconds: float | None  # None: an error


EVENTS = st.lists(
    st.builds(
        Happened,
        after=st.sampled_from([0.0, 0.3, WIDTH, 7.5, 45.0, 299.0, 1_000.0]) | st.floats(0, 30),
        seconds=st.none() | st.floats(1e-3, 900),
    ),
    max_size=80,
)


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


@given(EVENTS, st.floats(0, 400))
def test_a_tally_tells_what_a_list_would(events: list[Happened], later: float) -> None:
    """Counts and averages are exact, percentiles within the documented error, in the window and since the start."""
    tally, now = Tally(WINDOW), 1_000.0
    kept: list[tuple[float, float | None]] = []
    for after, seconds in events:
        now += after
        kept.append((now, seconds))
        here = tally.at(now)
        if seconds is None:
            here.failed()
        else:
            here.answered(seconds)
    now += later
    first = (math.floor(now * SLICES / WINDOW) - SLICES + 1) * WINDOW / SLICES
    in_window = [seconds for at, seconds in kept if at >= first]

    for slices, naive in (
        (together(tally.recent(now)), in_window),
        (tally.total(), [seconds for _, seconds in kept]),
    ):
        answers = [seconds for seconds in naive if seconds is not None]
        figures = slices.figures()
        assert (figures.count, figures.answers, figures.errors) == (len(naive), len(answers), naive.count(None))
        if not answers:
            assert figures.latency.average is figures.latency.p50 is figures.latency.p95 is None
            continue
        assert figures.latency.average == pytest.approx(sum(answers) / len(answers))
        told = (figures.latency.p50, figures.latency.p95, figures.latency.p99)
        for share, value in zip(SHARES, told, strict=True):
            assert value == pytest.approx(nearest_rank(answers, share), rel=ERROR * 1.001)


@given(st.floats(0, 5_000))
def test_every_duration_has_a_bucket_that_is_near(seconds: float) -> None:
    """Within 1 % between 0.1 ms and 1,000 s; shorter ones are told as 0.1 ms, longer ones as 1,000 s."""
    told = middle(bucket(seconds))

    assert told == pytest.approx(min(max(seconds, LEAST), MOST), rel=ERROR * 1.001 if seconds < MOST else 2 * ERROR)


@given(EVENTS)
def test_memory_does_not_grow(events: list[Happened]) -> None:
    """A tally holds a slice for each thirtieth of the window at most, however long it counts."""
    tally, now = Tally(WINDOW), 0.0
    for after, _ in events:
        now += after
        tally.at(now).answered(1.0)

        assert len(tally._slices) <= SLICES


def test_a_slice_for_each_thirtieth() -> None:
    """However evenly things happen, thirty slices are all."""
    tally = Tally(WINDOW)
    for number in range(3 * SLICES):
        tally.at(1_000.0 + number * WIDTH).failed()

        assert len(tally._slices) <= SLICES
    assert tally.total().errors == 3 * SLICES


def test_the_window_covers_all_but_a_slice() -> None:
    """What happened 29/30 of a window ago still counts, what happened a window ago never does."""
    tally = Tally(WINDOW)
    tally.at(1_000.0).failed()

    def errors(now: float, seconds: float = math.inf) -> int:
        return together(tally.recent(now, seconds)).errors

    assert [errors(1_000.0 + after) for after in (0, 289.9, 300, 10_000)] == [1, 1, 0, 0]
    assert [errors(1_009.9, 10), errors(1_010.0, 10), errors(1_010.0, 20)] == [1, 0, 1]
    assert tally.total().errors == 1


def test_a_clock_that_seems_to_go_back_loses_nothing() -> None:
    """Threads come a little out of order: the newest slice takes what is older."""
    tally = Tally(WINDOW)
    tally.at(1_000.0).failed()
    tally.at(995.0).failed()

    assert together(tally.recent(1_000.0)).errors == 2


def test_averages_stand_in_their_slices() -> None:
    """A sparkline has a value per slice, oldest first, None where nobody answered."""
    tally = Tally(WINDOW)
    tally.at(1_000.0).answered(1.0)
    tally.at(1_000.0).answered(2.0)
    tally.at(1_010.0).failed()
    tally.at(1_020.0).answered(4.0)

    assert tally.averages(1_029.0) == (None,) * 27 + (1.5, None, 4.0)
