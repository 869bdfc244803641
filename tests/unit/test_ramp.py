"""How fast parked calls are replayed after an outage."""

from __future__ import annotations

from holyroute.deferred.ramp import Ramp


def test_a_ramp_doubles_with_every_round() -> None:
    """1, 2, 4 … calls at once, up to the limit: every round of answers doubles the next one."""
    ramp = Ramp(10)
    widths = []
    for _ in range(6):
        widths.append(ramp.free(0, now=0.0))
        for _ in range(widths[-1]):
            ramp.succeeded(started=0.0)

    assert widths == [1, 2, 4, 8, 10, 10]


def test_what_is_under_way_takes_room() -> None:
    """Nobody leases what cannot be sent at once, and there is never less than no room."""
    ramp = Ramp(4)
    ramp.succeeded(0.0)

    assert [ramp.free(in_flight, 0.0) for in_flight in range(4)] == [2, 1, 0, 0]


def test_an_outage_begins_anew() -> None:
    """One at a time again, and not before somebody may be free."""
    ramp = Ramp(8)
    for _ in range(7):
        ramp.succeeded(0.0)
    wide = ramp.free(0, 0.0)
    ramp.outage(now=10.0, retry_at=15.0)

    assert wide == 8
    assert [ramp.free(0, now) for now in (10.0, 14.9, 15.0)] == [0, 0, 1]
    assert (ramp.paused_until(14.0), ramp.paused_until(15.0)) == (15.0, None)


def test_a_shorter_outage_does_not_end_a_longer_one() -> None:
    """The latest moment counts; an outage without one pauses nothing."""
    ramp = Ramp(8)
    ramp.outage(now=10.0, retry_at=60.0)
    ramp.outage(now=11.0)
    ramp.outage(now=12.0, retry_at=20.0)

    assert ramp.paused_until(12.0) == 60.0


def test_answers_from_before_an_outage_say_nothing() -> None:
    """A late answer to an early question does not widen the ramp; one that was asked after it does."""
    ramp = Ramp(8)
    ramp.outage(now=10.0)
    ramp.succeeded(started=9.0)
    before = ramp.free(0, 11.0)
    ramp.succeeded(started=10.0)

    assert (before, ramp.free(0, 11.0)) == (1, 2)
