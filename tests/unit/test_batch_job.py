"""A batch under way, on a clock that is moved by hand: rows are asked for in the thread that reads the results."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.batch.crew import Lost
from holyroute.batch.ending import Ending, failed
from holyroute.batch.governor import Governor
from holyroute.batch.job import Job, Means
from holyroute.batch.options import options_of
from holyroute.batch.reading import Pause, row_of, rows_of
from holyroute.batch.row import Cause
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.batch.crew import Crew, Errand, Mailbox, News
    from holyroute.batch.row import Row, RowResult
    from holyroute.batch.slot import Slot

    Answer = Callable[[Errand], News]


def fine(errand: Errand, cost: str = "0.01") -> Ending:
    base = failed(errand.row, Cause.ROW, "")
    allowance = errand.allowance or Decimal(0)
    result = replace(base, ok=True, error=None, model="m", attempts=1, cost_usd=Decimal(cost))
    return Ending(result=result, spent=Decimal(cost), granted=allowance)


def down(errand: Errand, cause: Cause = Cause.UNAVAILABLE, **changes: Any) -> Ending:
    result = replace(failed(errand.row, cause, "no"), attempts=changes.pop("attempts", 1))
    return Ending(result=result, granted=errand.allowance or Decimal(0), may_pass=True, **changes)


class Inline:
    """A crew of the reader's own thread; with `late` it answers only when told to."""

    is_paced = True

    def __init__(self, mailbox: Mailbox, answer: Answer, limit: int, *, late: bool = False) -> None:
        self.limit = limit
        self.is_broken = False
        self.asked: list[int] = []
        self.held: list[tuple[Slot, Errand]] = []
        self.stopped = 0
        self._mailbox = mailbox
        self._answer = answer
        self._late = late

    def give(self, slot: Slot, errand: Errand) -> None:
        """Ask for it, or keep it for later."""
        self.asked.append(errand.row.index)
        self.held.append((slot, errand))
        if not self._late:
            self.answer()

    def answer(self) -> None:
        """Ask for the first that was kept."""
        slot, errand = self.held.pop(0)
        self._mailbox.put(slot, self._answer(errand))

    def flush(self) -> None:
        """Nothing is held back."""

    def recall(self) -> list[Slot]:
        """All were begun with."""
        return []

    def abandon(self) -> list[Slot]:
        """Nobody can call them off."""
        slots = [slot for slot, _ in self.held]
        self.held = []
        return slots

    def stop(self) -> None:
        """Count."""
        self.stopped += 1


class Stage:
    """A job and what it works with."""

    def __init__(self, rows: Any, answer: Answer = fine, *, limit: int = 2, late: bool = False, **options: Any) -> None:
        self.clock = FakeClock()
        self.crews: list[Inline] = []
        self.finished = 0
        self.governor = Governor(options_of(options).max_cost)
        self.price: Decimal | None = Decimal("0.10")

        def crew(mailbox: Mailbox) -> Crew:
            self.crews.append(Inline(mailbox, answer, limit, late=late))
            return self.crews[-1]

        means = Means(
            crew=crew,
            spare=crew,
            governor=self.governor,
            price=self._price,
            finish=self._finish,
            clock=self.clock,
            patience=300.0,
        )
        self.job = Job(rows_of(rows, {}), options_of(options), means)

    def _finish(self) -> None:
        self.finished += 1

    def _price(self, _: Row) -> Decimal | None:
        return self.price

    def take(self, count: int = 1_000) -> None:
        """Let so many rows in, and start what may be started."""
        for _ in range(count):
            if not self.job._take_in():
                return
            self.job._launch()

    def answer_all(self) -> None:
        """Everything that was started."""
        while self.crews[0].held:
            self.crews[0].answer()

    @property
    def asked(self) -> list[int]:
        """The rows that were asked for, as often as they were."""
        return [index for crew in self.crews for index in crew.asked]

    def results(self) -> list[RowResult]:
        """All that come."""
        return list(self.job)


def causes(results: list[RowResult]) -> Counter[str]:
    return Counter(str(result.error.cause) if result.error else "ok" for result in results)


# --- in and out -------------------------------------------------------------------------------------------------------


def test_rows_are_taken_when_there_is_room() -> None:
    """The input is never more than a window ahead of what was read."""
    taken: list[int] = []

    def rows() -> Iterator[str]:
        for number in range(1_000):
            taken.append(number)
            yield f"{number}"

    stage = Stage(rows(), limit=3)

    assert taken == []

    ahead = [len(taken) - read for read, _ in enumerate(stage.job, 1)]

    assert max(ahead) <= 2 * 3
    assert len(ahead) == 1_000


def test_the_first_result_does_not_wait_for_a_full_window() -> None:
    """A slow input holds no result back but by its next row."""
    taken: list[int] = []

    def rows() -> Iterator[str]:
        for number in range(10):
            taken.append(number)
            yield f"{number}"

    stage = Stage(rows(), limit=10)
    next(stage.job)

    assert len(taken) <= 2


def test_a_pause_of_the_input_holds_nothing_back() -> None:
    """Where there is no row at the moment, what is done comes out, and it is no row by itself."""
    pause = Pause()
    given = [row_of(0, "a"), *[pause] * 3, row_of(1, "b"), pause]
    left = iter(given)
    stage = Stage(left, limit=10)
    first = next(stage.job)

    assert first.index == 0
    assert len(list(left)) > 2  # of the row behind the pauses nobody knew

    assert [result.index for result in Stage(given, limit=10).results()] == [0, 1]


def test_an_input_that_raises_ends_the_job_after_what_was_paid_for() -> None:
    """What is in flight comes out first; then the exception, once."""

    def rows() -> Iterator[str]:
        yield from ["a", "b", "c"]
        raise OSError("disk on fire")

    stage = Stage(rows(), limit=8, late=True)
    stage.take()
    stage.answer_all()
    results = [next(stage.job) for _ in range(3)]
    with pytest.raises(OSError, match="disk on fire"):
        next(stage.job)

    assert [result.index for result in results] == [0, 1, 2]
    assert list(stage.job) == []
    assert stage.job.progress.answered == 3
    assert stage.finished == 1


def test_what_cannot_be_asked_for_is_not() -> None:
    """Bad rows are results; a row that is no JSON too, where equal rows are looked for."""
    odd = {"messages": [{"role": "user", "content": {1, 2}}]}
    nameless = {"messages": [{"role": "user", "content": "x"}], "task": ["no name"]}
    stage = Stage(["fine", 5, odd, nameless], dedupe=True)
    results = stage.results()

    assert causes(results) == {"ok": 1, "row": 3}
    assert stage.asked == [0]


def test_equal_rows_that_may_differ_are_asked_for_each() -> None:
    """Unless somebody wants them shared. Deterministic ones are."""
    random = [{"messages": [{"role": "user", "content": "hi"}]}] * 3
    sure = [{"messages": [{"role": "user", "content": "hi"}], "temperature": 0}] * 3

    for rows, options, expected in ((random, {}, 3), (random, {"dedupe": True}, 1), (sure, {}, 1)):
        stage = Stage(rows, limit=8, late=True, **options)
        stage.take()

        assert len(stage.asked) == expected

    fresh = Stage(sure, limit=8, late=True, cache=False)
    fresh.take()

    assert len(fresh.asked) == 3


def test_results_in_order() -> None:
    """Whatever order they end in."""
    stage = Stage([f"{number}" for number in range(6)], limit=6, late=True, ordered=True)
    stage.take()
    crew = stage.crews[0]
    crew.held.reverse()
    while crew.held:
        crew.answer()

    assert [result.index for result in stage.results()] == list(range(6))


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_for_by_the_clock() -> None:
    """When everything is put off, everybody waits for the first, and nothing is asked in between."""
    times: list[float] = []

    def limited(errand: Errand) -> Ending:
        times.append(stage.clock.now() - 1_000)
        return down(errand, Cause.RATE_LIMITED, wait=30.0) if len(times) == 1 else fine(errand)

    stage = Stage(["a"], limited)
    results = stage.results()

    assert causes(results) == {"ok": 1}
    assert times[0] == 0.0
    assert 30.0 <= times[1] <= 30.2
    assert results[0].attempts == 2


def test_failed_rows_are_asked_for_again_at_the_end() -> None:
    """Two further rounds by default."""
    seen: Counter[int] = Counter()

    def flaky(errand: Errand) -> Ending:
        seen[errand.row.index] += 1
        return down(errand) if errand.row.index == 1 and seen[1] < 3 else fine(errand)

    stage = Stage([f"{number}" for number in range(5)], flaky)
    results = stage.results()

    assert causes(results) == {"ok": 5}
    assert [result.index for result in results] == [0, 2, 3, 4, 1]
    assert seen[1] == 3


def test_no_round_where_none_is_wanted() -> None:
    """`passes=0`."""
    stage = Stage(["a"], down, passes=0)

    assert causes(stage.results()) == {"unavailable": 1}
    assert stage.asked == [0]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_job() -> None:
    """Nothing is started after it; what was put off and never asked for does not come out."""

    def slow(errand: Errand) -> Ending:
        stage.clock.advance(10.0)
        return fine(errand)

    stage = Stage([f"{number}" for number in range(100)], slow, limit=1, deadline=45.0)
    results = stage.results()

    assert len(results) == 5
    assert stage.job.stopped == "deadline"
    assert stage.finished == 1


def test_what_the_deadline_kept_from_being_sent_does_not_come_out() -> None:
    """A thread that takes a row up too late asks nobody for it."""

    def late(errand: Errand) -> Ending:
        stage.clock.advance(50.0)
        return fine(errand) if errand.row.index == 0 else down(errand, Cause.DEADLINE, attempts=0)

    stage = Stage([f"{number}" for number in range(10)], late, limit=2, deadline=45.0)

    assert causes(stage.results()) == {"ok": 1}
    assert stage.job.stopped == "deadline"


def test_calls_are_told_the_deadline() -> None:
    """So that none outlasts it."""
    until: list[float | None] = []

    def noted(errand: Errand) -> Ending:
        until.append(errand.until)
        return fine(errand)

    Stage(["a"], noted, deadline=45.0).results()
    Stage(["a"], noted).results()

    assert until == [1_045.0, None]


def test_draining_lets_what_is_in_flight_finish() -> None:
    """Nothing more is started, and nothing else comes out."""
    stage = Stage([f"{number}" for number in range(100)], limit=4, late=True)
    stage.take(3)
    stage.job.drain("enough")
    stage.job._obey()
    stage.answer_all()
    results = stage.results()

    assert [result.index for result in results] == [0, 1, 2]
    assert stage.job.stopped == "enough"
    assert stage.asked == [0, 1, 2]


def test_cancelling_calls_off_what_nobody_can_stop() -> None:
    """It comes out as cancelled; whatever was set aside for it may have been spent."""
    stage = Stage(["a", "b"], limit=4, late=True, max_cost=5)
    stage.take(2)
    stage.job.cancel()
    results = stage.results()

    assert causes(results) == {"cancelled": 2}
    assert stage.job.stopped == "cancelled"
    assert stage.job.progress.spent == Decimal("0.20")


def test_ctrl_c_in_the_reader_ends_everything() -> None:
    """The exception goes on, and nobody is asked any more."""

    def interrupted(_: Errand) -> Ending:
        raise KeyboardInterrupt

    stage = Stage(["a", "b"], interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stage.job)

    assert stage.crews[0].stopped == 1
    assert list(stage.job) == []


def test_a_job_that_nobody_holds_ends() -> None:
    """A loop that is left by `break` leaves nothing behind."""
    stage = Stage([f"{number}" for number in range(10)])
    for _ in stage.job:
        break
    crew = stage.crews[0]
    del stage.job
    gc.collect()

    assert crew.stopped == 1
    assert stage.finished == 1


def test_a_job_may_be_closed_twice_and_before_it_began() -> None:
    """As files may."""
    with Stage(["a"]).job as job:
        job.close()
    job.close()

    assert list(job) == []


# --- money ------------------------------------------------------------------------------------------------------------


def test_at_the_cap_it_stops() -> None:
    """As many rows as are paid for, not one more."""
    stage = Stage([f"{number}" for number in range(100)], max_cost="0.50")
    results = stage.results()

    assert causes(results) == {"ok": 41}  # 0.01 each, and 0.10 must be free for the next
    assert stage.job.stopped == "cost cap"
    assert stage.job.progress.spent == Decimal("0.41")
    assert stage.job.progress.reserved == 0


def test_a_row_waits_for_what_others_may_give_back() -> None:
    """The job ends only when nothing in flight can free enough."""
    stage = Stage(["a", "b"], limit=4, late=True, max_cost="0.15")
    stage.take(3)

    assert stage.asked == [0]
    assert stage.job.stopped is None

    stage.crews[0].answer()
    next(stage.job)
    stage.job._collect()
    stage.job._launch()

    assert stage.asked == [0, 1]
    assert stage.job.stopped is None


def test_a_row_of_unknown_price_is_refused_under_a_cap() -> None:
    """Nobody is asked; without a cap it goes."""
    capped = Stage(["a"], max_cost=5)
    capped.price = None

    assert causes(capped.results()) == {"budget": 1}
    assert capped.asked == []

    free = Stage(["a"])
    free.price = None

    assert causes(free.results()) == {"ok": 1}


def test_a_row_that_ran_out_of_money_goes_again_when_there_is_some() -> None:
    """What its first call may have cost counts."""
    tries: list[Decimal | None] = []

    def broke_once(errand: Errand) -> Ending:
        tries.append(errand.allowance)
        if len(tries) > 1:
            return fine(errand)
        ending = down(errand, Cause.BUDGET, spent=Decimal("0.05"))
        return replace(ending, is_broke=True)

    stage = Stage(["a"], broke_once, max_cost=1)

    assert causes(stage.results()) == {"ok": 1}
    assert stage.job.progress.spent == Decimal("0.06")


# --- workers that die -------------------------------------------------------------------------------------------------


def test_a_row_whose_worker_died_is_asked_for_once_more() -> None:
    """And what was set aside for it may have been spent."""
    tries: Counter[int] = Counter()

    def mortal(errand: Errand) -> News:
        tries[errand.row.index] += 1
        return Lost("killed") if errand.row.index == 1 and tries[1] == 1 else fine(errand)

    stage = Stage(["a", "b", "c"], mortal, max_cost=1)

    assert causes(stage.results()) == {"ok": 3}
    assert tries == {0: 1, 1: 2, 2: 1}
    assert stage.job.progress.spent == Decimal("0.13")


def test_money_that_a_dead_worker_held_is_waited_for() -> None:
    """A row that could not be paid for beside it goes when the other one is settled."""
    tries: Counter[int] = Counter()

    def mortal(errand: Errand) -> News:
        tries[errand.row.index] += 1
        return Lost("not taken", was_taken=False) if tries.total() == 1 else fine(errand)

    stage = Stage(["a", "b"], mortal, limit=4, late=True, max_cost="0.15")
    stage.take()
    stage.answer_all()
    stage.crews[0]._late = False

    assert causes(stage.results()) == {"ok": 2}


def test_a_row_that_kills_twice_is_given_up() -> None:
    """The others are answered."""
    stage = Stage(["a", "b", "c"], lambda errand: Lost("killed") if errand.row.index == 1 else fine(errand))
    results = stage.results()

    assert causes(results) == {"ok": 2, "internal": 1}
    assert stage.asked.count(1) == 2


def test_a_broken_executor_is_replaced() -> None:
    """Another crew takes over, and every row is answered."""

    def breaking(errand: Errand) -> News:
        first = stage.crews[0]
        if errand.row.index == 2 and not first.is_broken:
            first.is_broken = True
            return Lost("broken", was_taken=False)
        return fine(errand)

    stage = Stage([f"{number}" for number in range(6)], breaking)
    results = stage.results()

    assert causes(results) == {"ok": 6}
    assert len(stage.crews) == 2
    assert stage.crews[1].asked


def test_progress_adds_up() -> None:
    """Every row that was taken is somewhere."""
    stage = Stage(["a", "b", 3, "d"], limit=4, late=True)
    stage.take()
    before = stage.job.progress
    stage.answer_all()
    stage.results()
    after = stage.job.progress

    assert (before.taken, before.in_flight, before.done, before.failed) == (4, 3, 1, 1)
    assert (after.taken, after.in_flight, after.done, after.answered, after.failed) == (4, 0, 4, 3, 1)
    assert after.models == {"m": 3}
    assert after.causes == {Cause.ROW: 1}
