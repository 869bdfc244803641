"""The retry budget: bounds what retries add, and never makes anybody wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from holyroute.resilience.budget import Loan, RetryBudget


def taken(budget: RetryBudget, *, timeout: bool = False) -> Loan:
    loan = budget.take(timeout=timeout)

    assert loan is not None

    return loan


@pytest.mark.parametrize(("timeout", "retries"), [(False, 20), (True, 10)])
def test_a_burst(timeout: bool, retries: int) -> None:
    """Twenty retries in a row, or ten after timeouts; then none, and the answer comes at once."""
    budget = RetryBudget()
    loans = [budget.take(timeout=timeout) for _ in range(retries + 5)]

    assert sum(loan is not None for loan in loans) == retries
    assert budget.tokens == 0


def test_a_timeout_needs_its_full_price() -> None:
    """What is left may do for a cheap retry and not for a dear one."""
    budget = RetryBudget()
    for _ in range(19):
        budget.take()

    assert budget.take(timeout=True) is None
    assert budget.take() is not None


def test_a_success_at_the_first_try_earns_one() -> None:
    """Five first-try successes pay for one retry."""
    budget = RetryBudget()
    while budget.take():
        pass
    for _ in range(4):
        budget.succeed()

    assert budget.take() is None

    budget.succeed()

    assert budget.take() is not None


@pytest.mark.parametrize("timeout", [False, True])
def test_a_retry_that_helped_costs_nothing(timeout: bool) -> None:
    """A success after a retry gives back what it cost, once."""
    budget = RetryBudget()
    first = taken(budget)
    loan = taken(budget, timeout=timeout)
    budget.succeed(loan)
    budget.succeed(loan)

    assert budget.tokens == 95

    budget.succeed(first)

    assert budget.tokens == 100


def test_never_more_than_full() -> None:
    """A quiet day is not saved up for a storm."""
    budget = RetryBudget()
    loan = taken(budget)
    for _ in range(1_000):
        budget.succeed()
    budget.succeed(loan)

    assert budget.tokens == 100


def test_amplification_when_everything_fails() -> None:
    """A thousand calls of which each wants two retries send 1.02 times their number, not 3 times."""
    budget = RetryBudget()
    retries = sum(budget.take() is not None for _ in range(1_000) for _ in range(2))

    assert (1_000 + retries) / 1_000 == 1.02


@pytest.mark.parametrize("percent", [5, 10, 20, 50, 90])
def test_amplification_at_any_failure_rate(percent: int) -> None:
    """Retries that do not help add a fifth of the successes and a burst of twenty, at any share of failures."""
    budget = RetryBudget()
    retries = 0
    for call in range(2_000):
        if call * 37 % 100 < percent:
            retries += budget.take() is not None
        else:
            budget.succeed()

    assert retries <= 0.2 * (100 - percent) / 100 * 2_000 + 20


def test_threads() -> None:
    """However many threads take and return, no token is made or lost."""
    budget = RetryBudget()
    gate = threading.Barrier(8)

    def work(_: int) -> int:
        gate.wait()
        held = 0
        for turn in range(500):
            loan = budget.take(timeout=turn % 3 == 0)
            if loan is not None and turn % 5 == 0:
                held += loan.cost
            elif loan is not None:
                budget.succeed(loan)
        return held

    with ThreadPoolExecutor(8) as pool:
        held = sum(pool.map(work, range(8)))

    assert budget.tokens == 100 - held
