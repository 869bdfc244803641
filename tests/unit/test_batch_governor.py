"""Money: nothing is sent that might exceed the cap, and what was not used comes back."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.batch.governor import Governor, Purse, bill
from holyroute.core import verdicts
from holyroute.core.completion import Usage
from holyroute.core.target import Price, Provider, Target
from holyroute.core.trace import RESENT, AttemptRecord

if TYPE_CHECKING:
    from holyroute.core.verdicts import Verdict

TARGET = Target(
    name="m", model="m", provider=Provider(name="p", base_url="http://p/v1"), price=Price(Decimal(1), Decimal(2))
)
WORST = Decimal("0.01")


def record(verdict: Verdict = verdicts.ANSWERED, **changes: Any) -> AttemptRecord:
    settings: dict[str, Any] = {
        "target": TARGET,
        "kind": "normal",
        "verdict": verdict,
        "status": 200,
        "detail": "",
        "started": 0.0,
        "seconds": 1.0,
        "retry_after": None,
        "usage": None,
    }
    return AttemptRecord(**(settings | changes))


USED = Usage(1_000, 500)  # 0.002 USD


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (record(usage=USED), Decimal("0.002")),
        (record(), WORST),
        (record(verdicts.READ_TIMEOUT), WORST),
        (record(verdicts.CANCELLED), WORST),
        (record(verdicts.INVALID_ANSWER, usage=USED), Decimal("0.002")),
        (record(verdicts.SERVER_ERROR), Decimal(0)),
        (record(verdicts.RATE_LIMITED), Decimal(0)),
        (record(usage=USED, detail=RESENT), Decimal("0.002") + WORST),
        (record(detail=f"odd; {RESENT}"), 2 * WORST),
        (record(verdicts.SERVER_ERROR, detail=RESENT), WORST),
    ],
)
def test_the_bill_of_an_attempt(one: AttemptRecord, expected: Decimal) -> None:
    """As reported; where nobody knows, the most that it can be, and twice for what went out twice."""
    assert bill(one, WORST) == expected


def test_what_is_set_aside_counts_like_what_is_spent() -> None:
    """The cap may be reached exactly, and not exceeded."""
    governor = Governor(Decimal(10))

    assert governor.reserve(Decimal(6))
    assert not governor.reserve(Decimal("4.01"))
    assert governor.reserve(Decimal(4))

    governor.settle(Decimal(6), Decimal(1))

    assert (governor.spent, governor.reserved) == (Decimal(1), Decimal(4))
    assert governor.reserve(Decimal(5))


def test_whether_waiting_may_help() -> None:
    """As long as something is set aside; after that only what fits beside what was spent."""
    governor = Governor(Decimal(10))
    governor.reserve(Decimal(8))

    assert governor.might_fit(Decimal(9))

    governor.settle(Decimal(8), Decimal(8))

    assert not governor.might_fit(Decimal(3))
    assert governor.might_fit(Decimal(2))


def test_without_a_cap_it_only_counts() -> None:
    """Everything fits."""
    governor = Governor()

    assert governor.reserve(Decimal(10) ** 9)

    governor.settle(Decimal(10) ** 9, Decimal(3))

    assert (governor.spent, governor.reserved) == (Decimal(3), Decimal(0))
    assert governor.might_fit(Decimal(10) ** 9)


def test_an_attempt_is_paid_for_twice_over_while_it_is_under_way() -> None:
    """Its connection may die unseen, and then it is sent once more."""
    purse = Purse(Decimal("0.02"))

    assert purse.pay(WORST)
    assert purse.spent == 2 * WORST

    purse.settle(record(usage=USED))

    assert purse.spent == Decimal("0.002")


def test_a_failed_attempt_that_is_free_leaves_the_purse_full() -> None:
    """A 503 costs nothing: the next model is paid for from the same money."""
    purse = Purse(Decimal("0.02"))
    for _ in range(3):
        assert purse.pay(WORST)
        purse.settle(record(verdicts.SERVER_ERROR))

    assert (purse.spent, purse.granted) == (Decimal(0), Decimal("0.02"))


def test_more_is_set_aside_for_a_second_attempt_if_there_is_more() -> None:
    """Else it is not sent, and the purse says so."""
    governor = Governor(Decimal("0.03"))
    purse = Purse(Decimal("0.02"), governor.reserve)
    governor.reserve(Decimal("0.02"))
    purse.pay(WORST)
    purse.settle(record(verdicts.READ_TIMEOUT))

    assert purse.pay(WORST)
    assert purse.granted == Decimal("0.03")

    purse.settle(record(verdicts.READ_TIMEOUT))

    assert not purse.pay(WORST)
    assert purse.empty
    assert (purse.spent, purse.granted, governor.reserved) == (Decimal("0.02"), Decimal("0.03"), Decimal("0.03"))


def test_an_attempt_that_nobody_saw_the_end_of_counts_as_spent() -> None:
    """As when a bug throws: what may have been billed is not given back."""
    purse = Purse(Decimal("0.02"))
    purse.pay(WORST)

    assert purse.spent == Decimal("0.02")
