"""The rows that are under way: which is asked next, and what becomes of one that nobody could answer.

A row is in the window from the moment it is taken from the input until its result is handed out, so that the window's
size bounds memory, whatever happens to the rows. Rows that the same targets may answer are a group. When one of them
meets a rate limit, or a Retry-After, or nothing but open circuits, it is put off, and its group rests until somebody
may be free; then one goes first, and the next when that one is on its way. No threads, no clock: `now` is passed in,
in monotonic seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from holyroute.batch.row import Cause
from holyroute.batch.slot import REST, Counts, Group, Slot

if TYPE_CHECKING:
    from collections.abc import Hashable

    from holyroute.batch.ending import Ending
    from holyroute.batch.row import Row, RowResult

LONGEST_REST = 60.0  # seconds before a further round
KEPT = 1_000  # failed rows that wait for a further round, if the input goes on
LIMIT_PATIENCE = 3_600.0  # seconds that a row is put off for rate limits, in all

DUPLICATE = "duplicate"


class Window:
    """Not thread-safe: its owner has a lock.

    Args:
        paced: whoever asks for the rows tells when one is on its way.
        size: rows in it at most, `KEPT` that wait for a further round not counted.
        ordered: results come out in the order of taking; then those that wait count too.
        rounds: for rows that failed on every model.
        patience: seconds that a row is put off, in all, while nobody can be asked at all.
    """

    def __init__(self, *, size: int, ordered: bool, rounds: int, patience: float, paced: bool = True) -> None:
        self.counts = Counts()
        self.is_open = True  # rows may be taken and started
        self._size = size
        self._ordered = ordered
        self._rounds = rounds
        self._patience = patience
        self._paced = paced
        self._groups: dict[Hashable, Group] = {}
        self._leaders: dict[Hashable, Slot] = {}
        self._later: list[Slot] = []
        self._round_at = -math.inf
        self._inside = 0
        self._held: dict[int, RowResult | None] = {}  # ordered: what waits for those before it; None: nothing comes
        self._next = 0
        self._out: deque[RowResult] = deque()

    # --- in ---

    @property
    def has_room(self) -> bool:
        """Whether one more row may be taken."""
        kept = 0 if self._ordered else len(self._later)
        return self.is_open and self._inside - kept < self._size and kept < KEPT

    def take(self, row: Row, key: Hashable | None = None, worst: Decimal | None = None) -> None:
        """A row comes in.

        Args:
            row: one that can be asked for.
            key: what it shares with rows that may have the same answer; None: it is asked for by itself.
            worst: USD to be set aside before it is asked.
        """
        models = None if row.models is None else tuple(row.models)
        slot = self._slot(row, (row.model, models, row.task, row.priority))
        slot.key, slot.worst = key, worst
        leader = self._leaders.get(key) if key is not None else None
        if leader is not None:
            leader.twins.append(slot)
            return
        if key is not None:
            self._leaders[key] = slot
        heapq.heappush(slot.group.ready, (slot.number, slot))

    def refuse(self, row: Row, result: RowResult) -> None:
        """A row comes in that nobody is asked for."""
        slot = self._slot(row, None)
        slot.result = result
        self._deliver(slot)

    def _slot(self, row: Row, name: Hashable) -> Slot:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
        group.rows += 1
        self._inside += 1
        slot = Slot(row, self.counts.taken, group, self._rounds)
        self.counts.taken += 1
        return slot

    # --- whom to ask for ---

    def peek(self, now: float) -> Slot | None:
        """The row to be started next, if one may be."""
        first: Slot | None = None
        for group in self._groups.values():
            at = group.may_go_at
            if at is not None and at <= now and (first is None or group.ready[0][1] < first):
                first = group.ready[0][1]
        return first

    def start(self, slot: Slot) -> bool:
        """The row that was peeked at goes; whether somebody wants to know when it is on its way."""
        group = slot.group
        heapq.heappop(group.ready)
        self.counts.in_flight += 1
        slot.unsent = group.may_start < math.inf
        group.unsent += slot.unsent
        return slot.unsent

    def sent(self, slot: Slot) -> None:
        """A row that was started is on its way."""
        if slot.unsent:
            slot.unsent = False
            slot.group.unsent -= 1
            slot.group.is_on_its_way()

    def back(self, slot: Slot) -> None:
        """A row that was started was not asked for: it is ready again, or dropped where none is started any more."""
        self._landed(slot)
        self._again(slot)

    # --- what came of it ---

    def settle(self, slot: Slot, ending: Ending, now: float) -> None:
        """A row was asked for."""
        was_unsent = slot.unsent
        self._landed(slot)
        slot.add(ending.result)
        group, error = slot.group, ending.result.error
        if was_unsent and ending.result.attempts:
            group.is_on_its_way()
        if ending.result.attempts:
            group.hear(answered=error is None)
        if ending.is_broke:
            self._again(slot)
        elif error is None or not ending.may_pass:
            self._deliver(slot)
        elif self._is_put_off(slot, ending, now):
            group.rest(ending.wait, now, is_limited=error.cause is Cause.RATE_LIMITED)
            group.may_start = 1 if self._paced else math.inf
            self._again(slot)
        elif not self.is_open:
            self._drop(slot)
        elif slot.rounds > 0:
            self._put_aside(slot, ending, now)
        else:
            self._deliver(slot)

    def _landed(self, slot: Slot) -> None:
        self.counts.in_flight -= 1
        if slot.unsent:
            slot.unsent = False
            slot.group.unsent -= 1

    def _again(self, slot: Slot) -> None:
        if self.is_open:
            heapq.heappush(slot.group.ready, (slot.number, slot))
        else:
            self._drop(slot)

    def _is_put_off(self, slot: Slot, ending: Ending, now: float) -> bool:
        """Whether a row only has to wait: for a limit, or because there is nobody who may be asked at the moment."""
        error = ending.result.error
        assert error is not None
        is_limited = error.cause is Cause.RATE_LIMITED
        if not is_limited and (ending.result.attempts or ending.wait is None):
            return False
        if slot.put_off_since is None:
            slot.put_off_since = now
        patience = LIMIT_PATIENCE if is_limited else self._patience
        return now + (ending.wait or 0.0) - slot.put_off_since <= patience

    def _put_aside(self, slot: Slot, ending: Ending, now: float) -> None:
        pause = min(REST * 2 ** (self._rounds - slot.rounds), LONGEST_REST)
        self._round_at = max(self._round_at, now + max(pause, min(ending.wait or 0.0, LONGEST_REST)))
        slot.rounds -= 1
        slot.put_off_since = None
        self._later.append(slot)

    def begin_round(self, now: float, *, is_last: bool) -> bool:
        """Let failed rows be asked for again, if there is nothing else to do: no row is ready, or on its way.

        Args:
            now: the time.
            is_last: no row comes in any more.
        """
        if not self._round_is_next(is_last=is_last) or now < self._round_at:
            return False
        self._round_at = -math.inf
        later, self._later = self._later, []
        for slot in later:
            self._again(slot)
        return True

    def _round_is_next(self, *, is_last: bool) -> bool:
        if not self._later or self.counts.in_flight or not (is_last or not self.has_room):
            return False
        return not any(group.ready for group in self._groups.values())

    def wake_at(self, *, is_last: bool) -> float | None:
        """When somebody may be asked again, or a round begins; None: only what is on its way changes anything."""
        moments = [at for group in self._groups.values() if (at := group.may_go_at) is not None]
        if self._round_is_next(is_last=is_last):
            moments.append(self._round_at)
        return min(moments, default=None)

    # --- out ---

    def pop(self) -> RowResult | None:
        """The next result, if there is one."""
        return self._out.popleft() if self._out else None

    @property
    def is_empty(self) -> bool:
        """Whether every row that came in has gone out."""
        return not self._inside and not self._out

    def waiting(self, now: float) -> int:
        """Rows that are put off with their group, or wait for a further round."""
        resting = (group for group in self._groups.values() if now < group.rests_until)
        return sum(len(group.ready) for group in resting) + len(self._later)

    def close(self) -> None:
        """Start no further row. What was asked for comes out as it stands; what was not does not come out."""
        self.is_open = False
        later, self._later = self._later, []
        for slot in later:
            self._drop(slot)
        for group in list(self._groups.values()):
            while group.ready:
                self._drop(heapq.heappop(group.ready)[1])

    def _drop(self, slot: Slot) -> None:
        """A row is not asked for any more."""
        if slot.result is not None and slot.result.attempts:
            self._deliver(slot)
        else:
            self._leave(slot, None)

    def _deliver(self, slot: Slot) -> None:
        result = slot.result
        assert result is not None
        self.counts.done += 1
        if result.error is None:
            self.counts.answered += 1
            self.counts.models[result.model or ""] += 1
        else:
            self.counts.causes[result.error.cause] += 1
        self._leave(slot, result)

    def _leave(self, slot: Slot, result: RowResult | None) -> None:
        group = slot.group
        group.rows -= 1
        if not group.rows:
            self._groups.pop(group.key, None)
        twins, slot.twins = slot.twins, []
        if slot.key is not None and self._leaders.get(slot.key) is slot:
            del self._leaders[slot.key]
        self._put_out(slot.number, result)
        if twins:
            self._share(slot.key, twins, result)

    def _share(self, key: Hashable, twins: list[Slot], result: RowResult | None) -> None:
        """Those who asked for the same have the answer too. A failure is shared where it lies in the question."""
        error = result.error if result is not None else None
        if result is None or (error is not None and error.cause.may_pass_later):
            self._lead(key, twins)
            return
        for twin in twins:
            twin.result = replace(
                result,
                index=twin.row.index,
                id=twin.row.id,
                line=twin.row.line,
                columns=twin.row.columns,
                cost_usd=Decimal(0),
                attempts=0,
                cached=DUPLICATE,
            )
            self._deliver(twin)

    def _lead(self, key: Hashable, twins: list[Slot]) -> None:
        """The first of those who asked for the same takes over."""
        if not self.is_open:
            for twin in twins:
                self._drop(twin)
            return
        first, *first.twins = twins
        self._leaders[key] = first
        self._again(first)

    def _put_out(self, number: int, result: RowResult | None) -> None:
        if not self._ordered:
            self._inside -= 1
            if result is not None:
                self._out.append(result)
            return
        self._held[number] = result
        while self._next in self._held:
            first = self._held.pop(self._next)
            self._next += 1
            self._inside -= 1
            if first is not None:
                self._out.append(first)
