"""Threads that ask for rows: whatever becomes of a pool, each row is asked for or taken back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from holyroute.batch.crew import Errand, Mailbox, Threads
from holyroute.batch.ending import Ending, failed
from holyroute.batch.row import Cause, Row
from holyroute.batch.slot import Group, Slot
from holyroute.core.clock import SYSTEM_CLOCK

PATIENCE = 15.0  # seconds that a busy machine may need for what takes none


class FewThreads(ThreadPoolExecutor):
    """A pool on a system that has no thread left after some."""

    def __init__(self, most: int) -> None:
        super().__init__(50)
        self._most = most

    def _adjust_thread_count(self) -> None:
        if len(self._threads) >= self._most:
            raise RuntimeError("can't start new thread")
        super()._adjust_thread_count()  # type: ignore[misc]


def ask(errand: Errand) -> Ending:
    return Ending(result=replace(failed(errand.row, Cause.ROW, ""), ok=True, error=None))


def rows(count: int) -> list[tuple[Slot, Errand]]:
    made = [Row(index=number, body={}) for number in range(count)]
    return [(Slot(row, row.index, Group(None), 0), Errand(row=row)) for row in made]


def test_rows_of_a_pool_that_is_shut_down_are_taken_back() -> None:
    """Also if it had taken them, and no thread had begun: nobody waits for them for ever."""
    busy = threading.Event()
    pool = ThreadPoolExecutor(1)
    pool.submit(busy.wait, PATIENCE)
    crew = Threads(ask, pool, 1, Mailbox(), own=False)
    given = rows(3)
    for slot, errand in given:
        crew.give(slot, errand)

    assert not crew.is_broken

    pool.shutdown(wait=False, cancel_futures=True)
    busy.set()

    assert crew.is_broken
    assert crew.recall() == [slot for slot, _ in given]


def test_fewer_threads_than_wanted_are_enough() -> None:
    """Where the system gives no more, those that are there ask for all rows."""
    mailbox = Mailbox()
    crew = Threads(ask, FewThreads(2), 50, mailbox, own=True)
    given = rows(20)
    for slot, errand in given:
        crew.give(slot, errand)
    crew.flush()
    until, told = SYSTEM_CLOCK.now() + PATIENCE, 0
    while told < len(given) and SYSTEM_CLOCK.now() < until:
        mailbox.wait(SYSTEM_CLOCK, PATIENCE)
        told += mailbox.take() is not None
    crew.stop()

    assert told == len(given)
    assert not crew.is_broken


def test_no_thread_at_all_is_an_error() -> None:
    """Nothing can be asked, and waiting would not help."""
    crew = Threads(ask, FewThreads(0), 50, Mailbox(), own=True)
    ((slot, errand),) = rows(1)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        crew.give(slot, errand)
