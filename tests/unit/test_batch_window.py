"""The window: which row is asked for next, and what becomes of one that nobody could answer."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holyroute.batch import window as rules
from holyroute.batch.ending import Ending, failed
from holyroute.batch.row import Cause, Row
from holyroute.batch.slot import LOOK_AGAIN, REST
from holyroute.batch.window import KEPT, Window

if TYPE_CHECKING:
    from holyroute.batch.row import RowResult
    from holyroute.batch.slot import Slot


def make(**changes: Any) -> Window:
    settings: dict[str, Any] = {"size": 4, "ordered": False, "rounds": 2, "patience": 300.0}
    return Window(**(settings | changes))


def row(index: int, **changes: Any) -> Row:
    return Row(index=index, body={"messages": [{"role": "user", "content": f"{index}"}]}, **changes)


def answer(slot: Slot, cost: str = "1") -> Ending:
    base = failed(slot.row, Cause.ROW, "")
    return Ending(result=replace(base, ok=True, error=None, model="m", cost_usd=Decimal(cost), attempts=1))


def failure(slot: Slot, cause: Cause, *, attempts: int = 1, wait: float | None = None, may_pass: bool = True) -> Ending:
    result = replace(failed(slot.row, cause, "no"), attempts=attempts, cost_usd=Decimal(1))
    return Ending(result=result, wait=wait, may_pass=may_pass)


def started(window: Window, now: float = 0.0) -> Slot | None:
    slot = window.peek(now)
    if slot is not None:
        window.start(slot)
    return slot


def start(window: Window, now: float = 0.0) -> Slot:
    slot = started(window, now)
    assert slot is not None
    return slot


def drained(window: Window) -> list[RowResult]:
    return list(iter(window.pop, None))


def indexes(window: Window) -> list[int]:
    return [result.index for result in drained(window)]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_no_more_rows_than_fit_are_taken() -> None:
    """A row has left when its result is out, and not before."""
    window = make(size=2)
    window.take(row(0))
    window.take(row(1))

    assert not window.has_room

    slot = start(window)

    assert not window.has_room

    window.settle(slot, answer(slot), 0.0)

    assert window.has_room
    assert indexes(window) == [0]


def test_rows_that_are_put_off_count() -> None:
    """A limit that frees in an hour does not let the input pile up in memory."""
    window = make(size=2)
    for index in range(2):
        window.take(row(index, model=f"{index}"))
        slot = start(window)
        window.settle(slot, failure(slot, Cause.RATE_LIMITED, wait=60.0), 0.0)
        if index == 0:
            assert window.has_room
            assert window.waiting(0.0) == 1

    assert not window.has_room
    assert window.waiting(0.0) == 2


def test_failed_rows_make_room_up_to_a_number() -> None:
    """They wait for the end of the input; when too many do, none is taken before they were asked for again."""
    window = make(size=1)
    for index in range(KEPT):
        assert window.has_room
        window.take(row(index))
        slot = start(window)
        window.settle(slot, failure(slot, Cause.UNAVAILABLE), 0.0)

    assert not window.has_room
    assert not window.begin_round(0.0, is_last=False)
    assert window.wake_at(is_last=False) == REST
    assert window.begin_round(REST, is_last=False)
    assert start(window, REST).row.index == 0


def test_in_order_what_is_held_back_counts() -> None:
    """A slow first row stops the input after as many rows as the window holds."""
    window = make(size=3, ordered=True)
    for index in range(3):
        window.take(row(index))
    first, second, third = start(window), start(window), start(window)
    window.settle(third, answer(third), 0.0)
    window.settle(second, answer(second), 0.0)

    assert not window.has_room
    assert indexes(window) == []

    window.settle(first, answer(first), 0.0)

    assert window.has_room
    assert indexes(window) == [0, 1, 2]


def test_refused_rows_keep_their_place() -> None:
    """What cannot be read comes out where it stood."""
    window = make(ordered=True)
    window.take(row(0))
    window.refuse(row(1), failed(row(1), Cause.ROW, "no"))
    slot = start(window)

    assert indexes(window) == []

    window.settle(slot, answer(slot), 0.0)

    assert indexes(window) == [0, 1]


# --- waiting for others -----------------------------------------------------------------------------------------------


def test_a_limit_rests_the_rows_of_its_group_alone() -> None:
    """The others go on; after the wait the row that was put off goes first."""
    window = make()
    window.take(row(0, model="a"))
    window.take(row(1, model="a"))
    window.take(row(2, model="b"))
    slot = start(window)
    window.settle(slot, failure(slot, Cause.RATE_LIMITED, wait=10.0), 5.0)

    assert start(window, 5.0).row.index == 2
    assert window.peek(14.9) is None
    assert window.wake_at(is_last=False) == 15.0
    assert start(window, 15.0).row.index == 0


def test_after_a_rest_one_goes_first() -> None:
    """The next goes when the one before is on its way; what comes back rests the group again."""
    window = make()
    for index in range(4):
        window.take(row(index))
    slot = start(window)
    window.settle(slot, failure(slot, Cause.RATE_LIMITED, attempts=0, wait=10.0), 0.0)
    first = start(window, 10.0)

    assert window.peek(10.0) is None
    assert window.wake_at(is_last=False) is None

    window.sent(first)
    second = start(window, 10.0)
    third = start(window, 10.0)

    assert window.peek(10.0) is None

    window.settle(second, failure(second, Cause.RATE_LIMITED, attempts=0, wait=2.0), 10.0)

    assert window.peek(11.9) is None

    window.settle(third, answer(third), 12.0)

    assert start(window, 12.0) is second


def test_a_limit_that_is_far_holds_nobody_back() -> None:
    """When enough rows got through, all may start at once."""
    window = make(size=200)
    for index in range(200):
        window.take(row(index))
    slot = start(window)
    window.settle(slot, failure(slot, Cause.RATE_LIMITED, wait=1.0), 0.0)
    for _ in range(70):
        window.sent(start(window, 1.0))
    others = 0
    while started(window, 1.0) is not None:
        others += 1

    assert others == 200 - 70


def test_nobody_waits_for_long_where_no_time_was_named() -> None:
    """A 429 without a hint: after a second one is tried."""
    window = make()
    window.take(row(0))
    slot = start(window)
    window.settle(slot, failure(slot, Cause.RATE_LIMITED), 0.0)

    assert window.wake_at(is_last=True) == REST


def test_a_place_that_frees_wakes_those_who_wait_for_one() -> None:
    """`max_concurrency`: the end of a call is what everybody waits for."""
    window = make()
    window.take(row(0))
    window.take(row(1))
    busy, other = start(window), start(window)
    window.settle(other, failure(other, Cause.RATE_LIMITED, attempts=0, wait=0.0), 0.0)

    assert window.peek(0.01) is None

    window.settle(busy, answer(busy), 0.01)

    assert start(window, 0.01) is other


def test_an_outage_is_waited_for_with_patience() -> None:
    """Nobody was asked: no round is lost. When patience is over, it is a failure like others."""
    window = make(rounds=0, patience=300.0)
    window.take(row(0))
    tries, result = [], None
    while result is None:
        tries.append(60.0 * len(tries))
        slot = start(window, tries[-1])
        window.settle(slot, failure(slot, Cause.UNAVAILABLE, attempts=0, wait=60.0), tries[-1])
        result = window.pop()

    assert tries == [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]
    assert result.error is not None
    assert result.error.cause is Cause.UNAVAILABLE


def test_an_outage_may_be_over_sooner_than_it_was_said() -> None:
    """While a probe is under way nobody knows more than when it is given up, which may be minutes later.

    So a row looks again after a while, and an answer, the probe's own above all, lets the next one go at once.
    """
    window = make()
    for index in range(3):
        window.take(row(index))
    probe, other = start(window), start(window)
    window.settle(other, failure(other, Cause.UNAVAILABLE, attempts=0, wait=120.0), 0.0)

    assert window.wake_at(is_last=True) == LOOK_AGAIN
    assert window.peek(LOOK_AGAIN - 0.1) is None

    window.settle(probe, answer(probe), 1.0)

    assert start(window, 1.0) is other


def test_an_answer_does_not_lift_a_limit() -> None:
    """A rate limit says when it frees."""
    window = make()
    for index in range(2):
        window.take(row(index))
    first, limited = start(window), start(window)
    window.settle(limited, failure(limited, Cause.RATE_LIMITED, attempts=0, wait=60.0), 0.0)
    window.settle(first, answer(first), 1.0)

    assert window.wake_at(is_last=True) == 60.0


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_failed_rows_have_two_further_rounds() -> None:
    """At the end, with a pause before each; the result says what all of them took."""
    window = make()
    window.take(row(0))
    moments, now = [], 0.0
    while (result := window.pop()) is None:
        slot = start(window, now)
        window.settle(slot, failure(slot, Cause.UNAVAILABLE), now)
        if (at := window.wake_at(is_last=True)) is not None:
            moments.append(at - now)
            now = at
            assert window.begin_round(now, is_last=True)

    assert moments == [1.0, 2.0]
    assert (result.attempts, result.cost_usd) == (3, Decimal(3))
    assert window.is_empty


def test_a_round_waits_for_the_end_of_the_others() -> None:
    """New rows go first; then those that failed."""
    window = make()
    window.take(row(0))
    window.take(row(1))
    first, second = start(window), start(window)
    window.settle(first, failure(first, Cause.UNAVAILABLE), 0.0)

    assert not window.begin_round(100.0, is_last=True)

    window.settle(second, answer(second), 0.0)

    assert not window.begin_round(100.0, is_last=False)
    assert window.begin_round(100.0, is_last=True)
    assert start(window, 100.0) is first


def test_what_time_does_not_mend_has_no_round() -> None:
    """A refusal, a filtered answer, a missing key: the result comes at once."""
    window = make()
    for index, cause in enumerate([Cause.REFUSED, Cause.FILTERED, Cause.CREDENTIAL, Cause.INTERNAL]):
        window.take(row(index))
        slot = start(window)
        window.settle(slot, failure(slot, cause, may_pass=False), 0.0)

    assert indexes(window) == [0, 1, 2, 3]
    assert window.counts.causes.total() == 4


# --- equal rows -------------------------------------------------------------------------------------------------------


def test_equal_rows_are_asked_for_once() -> None:
    """Each has the answer under its own name; it is paid for once."""
    window = make()
    for index in range(3):
        window.take(row(index, id=f"r{index}", columns={"n": index}), key="same")
    slot = start(window)

    assert window.peek(0.0) is None

    window.settle(slot, answer(slot), 0.0)
    results = drained(window)

    assert [(one.index, one.id, one.columns.get("n")) for one in results] == [(0, "r0", 0), (1, "r1", 1), (2, "r2", 2)]
    assert [one.cost_usd for one in results] == [Decimal(1), Decimal(0), Decimal(0)]
    assert [one.cached for one in results] == [None, "duplicate", "duplicate"]
    assert window.counts.answered == 3


def test_a_failure_is_shared_where_it_lies_in_the_question() -> None:
    """What was refused once is refused; what failed otherwise is asked for by the next in line."""
    window = make(rounds=0)
    for index in range(3):
        window.take(row(index), key="same")
    first = start(window)
    window.settle(first, failure(first, Cause.UNAVAILABLE), 0.0)
    second = start(window)

    assert indexes(window) == [0]
    assert second.row.index == 1

    window.settle(second, failure(second, Cause.REFUSED, may_pass=False), 0.0)

    assert indexes(window) == [1, 2]
    assert window.is_empty


def test_an_equal_row_that_comes_later_is_asked_for() -> None:
    """Only what is under way is shared."""
    window = make()
    for _ in range(2):
        window.take(row(0), key="same")
        slot = start(window)
        window.settle(slot, answer(slot), 0.0)

    assert window.counts.answered == 2


# --- the end ----------------------------------------------------------------------------------------------------------


def test_rows_that_were_never_asked_for_do_not_come_out() -> None:
    """Those in flight do; so does what is known of those that were asked for and failed."""
    window = make(size=10)
    for index in range(6):
        window.take(row(index))
    window.take(row(6), key="same")
    window.take(row(7), key="same")
    in_flight, limited, refused, aside = (start(window) for _ in range(4))
    window.settle(limited, failure(limited, Cause.RATE_LIMITED, attempts=1, wait=9.0), 0.0)
    window.settle(refused, failure(refused, Cause.RATE_LIMITED, attempts=0, wait=9.0), 0.0)
    window.settle(aside, failure(aside, Cause.UNAVAILABLE), 0.0)
    window.close()

    assert not window.has_room
    assert sorted(indexes(window)) == [1, 3]
    assert window.peek(100.0) is None
    assert not window.is_empty

    window.settle(in_flight, answer(in_flight), 0.0)

    assert indexes(window) == [0]
    assert window.is_empty


def test_in_order_the_end_leaves_gaps() -> None:
    """Rows that do not come out hold nobody back."""
    window = make(ordered=True)
    for index in range(4):
        window.take(row(index))
    first = start(window)
    second = start(window)
    window.settle(second, answer(second), 0.0)
    window.back(first)
    window.close()

    assert indexes(window) == [1]
    assert window.is_empty


def test_what_comes_back_after_the_end_is_not_put_off() -> None:
    """A row in flight that meets a limit then has its failure for a result, if anybody was asked."""
    window = make()
    window.take(row(0))
    window.take(row(1))
    asked, unasked = start(window), start(window)
    window.close()
    window.settle(asked, failure(asked, Cause.RATE_LIMITED, attempts=1, wait=9.0), 0.0)
    window.settle(unasked, failure(unasked, Cause.RATE_LIMITED, attempts=0, wait=9.0), 0.0)

    assert indexes(window) == [0]
    assert window.is_empty


def test_many_equal_rows_leave_at_the_end() -> None:
    """However many wait for one that is not asked for any more."""
    window = make(size=5_000)
    for index in range(5_000):
        window.take(row(index), key="same")
    window.close()

    assert window.is_empty


def test_a_row_that_could_not_be_paid_for_goes_again() -> None:
    """It is neither put off nor does it lose a round."""
    window = make(rounds=0)
    window.take(row(0))
    slot = start(window)
    ending = failure(slot, Cause.BUDGET, attempts=1, may_pass=False)
    window.settle(slot, Ending(result=ending.result, is_broke=True), 0.0)

    assert start(window) is slot


def test_a_long_wait_is_not_waited_for() -> None:
    """A Retry-After beyond all patience counts as a failure."""
    window = make(rounds=0)
    window.take(row(0))
    slot = start(window)
    window.settle(slot, failure(slot, Cause.RATE_LIMITED, wait=rules.LIMIT_PATIENCE + 1), 0.0)

    assert indexes(window) == [0]
