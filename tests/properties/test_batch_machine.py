"""Laws of a batch: whatever happens to the rows, each leaves once, in bounded memory, within the cap."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holyroute.batch.ending import Ending, failed
from holyroute.batch.governor import Governor
from holyroute.batch.row import Cause, Row
from holyroute.batch.window import KEPT, Window

if TYPE_CHECKING:
    from holyroute.batch.slot import Slot

CENTS = st.integers(0, 300).map(lambda cents: Decimal(cents) / 100)


class WindowMachine(RuleBasedStateMachine):
    """A window whose rows are started, answered, put off and given up in any order."""

    @initialize(size=st.integers(1, 6), ordered=st.booleans(), rounds=st.integers(0, 2), paced=st.booleans())
    def begin(self, *, size: int, ordered: bool, rounds: int, paced: bool) -> None:
        """An empty window."""
        self.size, self.ordered = size, ordered
        self.window = Window(size=size, ordered=ordered, rounds=rounds, patience=100.0, paced=paced)
        self.now = 0.0
        self.taken = 0
        self.in_flight: list[Slot] = []
        self.asked: Counter[int] = Counter()
        self.out: list[int] = []
        self.is_open = True

    @precondition(lambda self: self.window.has_room)
    @rule(model=st.sampled_from(["a", "b"]), key=st.sampled_from([None, None, "x", "y"]), bad=st.booleans())
    def take(self, *, model: str, key: str | None, bad: bool) -> None:
        """A row comes in; equal ones have the same key."""
        row = Row(index=self.taken, body={}, model=model)
        self.taken += 1
        if bad and key is None:
            self.window.refuse(row, failed(row, Cause.ROW, "no"))
        else:
            self.window.take(row, key)

    @rule()
    def start(self) -> None:
        """The next row goes."""
        slot = self.window.peek(self.now)
        if slot is not None:
            self.window.start(slot)
            self.in_flight.append(slot)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        """A row is on its way; told twice it does no harm."""
        self.window.sent(data.draw(st.sampled_from(self.in_flight)))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def back(self, data: st.DataObject) -> None:
        """A row was not asked for after all."""
        self.window.back(self.leave(data))

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        cause=st.sampled_from([None, None, *Cause]),
        attempts=st.integers(0, 2),
        wait=st.sampled_from([None, 0.0, 1.0, 50.0, 5_000.0]),
        may_pass=st.booleans(),
        is_broke=st.sampled_from([False, False, False, True]),
    )
    def settle(
        self,
        *,
        data: st.DataObject,
        cause: Cause | None,
        attempts: int,
        wait: float | None,
        may_pass: bool,
        is_broke: bool,
    ) -> None:
        """A row was asked for."""
        slot = self.leave(data)
        base = failed(slot.row, cause or Cause.ROW, "no")
        result = replace(
            base, attempts=attempts or (cause is None), ok=cause is None, error=base.error if cause else None
        )
        self.asked[slot.row.index] += bool(result.attempts)
        broke = is_broke and cause is not None
        self.window.settle(slot, Ending(result=result, wait=wait, may_pass=may_pass, is_broke=broke), self.now)

    def leave(self, data: st.DataObject) -> Slot:
        """One of those in flight."""
        slot = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(slot)
        return slot

    @rule(seconds=st.sampled_from([0.05, 1.0, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; a round begins, if it may."""
        self.now += seconds
        self.window.begin_round(self.now, is_last=not self.is_open)

    @rule()
    def read(self) -> None:
        """Results are read."""
        while (result := self.window.pop()) is not None:
            self.out.append(result.index)

    @precondition(lambda self: self.taken > 3)
    @rule()
    def close(self) -> None:
        """No row is started any more."""
        self.window.close()
        self.is_open = False

    @invariant()
    def every_row_leaves_once(self) -> None:
        """And in order, if that is wanted."""
        assert max(Counter(self.out).values(), default=0) <= 1
        if self.ordered:
            assert self.out == sorted(self.out)

    @invariant()
    def memory_is_bounded(self) -> None:
        """By the window, and by the number of failed rows that are kept."""
        kept = 0 if self.ordered else KEPT
        counts = self.window.counts
        assert counts.taken - counts.done <= self.size + kept
        assert self.window._inside <= self.size + kept
        assert counts.in_flight == len(self.in_flight)

    def teardown(self) -> None:
        """In the end everything is out: all rows that were answered, and none that nobody was asked for."""
        if not hasattr(self, "window"):
            return
        for step in range(10_000):
            if self.window.is_empty:
                break
            self.read()
            self.start()
            if self.in_flight and self.window.peek(self.now) is None:
                slot = self.in_flight.pop()
                self.asked[slot.row.index] += 1
                result = replace(failed(slot.row, Cause.ROW, ""), ok=True, error=None, attempts=1)
                self.window.settle(slot, Ending(result=result), self.now)
            elif not self.in_flight:
                self.now += 10.0 * step
                self.window.begin_round(self.now, is_last=True)
        self.read()

        assert self.window.is_empty
        assert len(self.window._groups) == len(self.window._leaders) == 0
        if self.is_open:
            assert sorted(self.out) == list(range(self.taken))
        else:
            assert {index for index, times in self.asked.items() if times} <= set(self.out)


TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(
    cap=CENTS,
    steps=st.lists(st.tuples(st.booleans(), CENTS, st.integers(0, 100), st.integers(0, 9)), max_size=60),
)
def test_the_cap_holds(cap: Decimal, steps: list[tuple[bool, Decimal, int, int]]) -> None:
    """As long as nobody spends more than was set aside for him; and what is not spent comes back."""
    governor = Governor(cap)
    held: list[Decimal] = []
    spent = Decimal(0)
    for reserves, amount, percent, which in steps:
        if reserves or not held:
            if governor.reserve(amount):
                held.append(amount)
            else:
                assert spent + sum(held) + amount > cap
        else:
            reserved = held.pop(which % len(held))
            used = reserved * percent / 100
            spent += used
            governor.settle(reserved, used)

        assert (governor.spent, governor.reserved) == (spent, sum(held))
        assert spent + sum(held) <= cap
