"""A batch under way: rows go in, results come out, in the thread that reads them."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Self

from holyroute.batch.crew import SENT, Errand, Lost, Mailbox
from holyroute.batch.ending import Ending, failed
from holyroute.batch.reading import Pause, problem_of
from holyroute.batch.row import Cause, Row, RowResult
from holyroute.batch.window import Window
from holyroute.caching.key import is_deterministic
from holyroute.core.cancel import CancelToken
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from holyroute.batch.crew import Crew, News
    from holyroute.batch.governor import Governor
    from holyroute.batch.options import Options
    from holyroute.batch.slot import Slot
    from holyroute.core.clock import Clock

    Price = Callable[[Row], Decimal | None]  # to be set aside for a row; None: not known

LOOK = 0.2  # seconds: the longest wait in one go, because a signal does not wake a thread that waits on a lock

COST_CAP, DEADLINE, DRAINED, CANCELLED = "cost cap", "deadline", "drained", "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A batch at one moment."""

    taken: int = 0  # rows from the input
    done: int = 0  # rows with a result, not all of them read yet
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0  # put off until a limit frees, or for a further round
    spent: Decimal = Decimal(0)  # USD; under a cap with what may have been billed without a word
    reserved: Decimal = Decimal(0)  # USD set aside for what is in flight
    models: Mapping[str, int] = field(default_factory=dict)  # answers of each
    causes: Mapping[Cause, int] = field(default_factory=dict)  # failures by cause
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a batch works with. `crew` makes a crew that tells a mailbox; `spare` takes over where one is broken."""

    crew: Callable[[Mailbox], Crew]
    spare: Callable[[Mailbox], Crew]
    governor: Governor
    price: Price
    finish: Callable[[], None]  # called once, when the batch is over
    clock: Clock
    patience: float  # seconds that a row waits while nobody can be asked


class Job(Iterator[RowResult]):
    """The results of a batch, as they come: iterate over it, best in a `with` block.

    Never raises for one row. An input that raises ends the job: what is under way comes out first, then the exception.
    The rows are taken in the thread that iterates, each when there is room for it. `progress`, `drain` and `cancel` may
    be used by other threads and by signal handlers.

    Attributes:
        stopped: why the job ended before the rows did: `cost cap`, `deadline`, `drained`, `cancelled`; else None.
    """

    def __init__(self, rows: Iterator[Row | Pause], options: Options, means: Means) -> None:
        self.stopped: str | None = None
        self._rows = rows
        self._options = options
        self._means = means
        self._clock = means.clock
        self._governor = means.governor
        self._mailbox = Mailbox()
        self._crew = means.crew(self._mailbox)
        self._cancel = CancelToken()
        self._lock = threading.RLock()
        self._window = Window(
            size=options.max_in_flight or _room(self._crew, ordered=options.ordered),
            ordered=options.ordered,
            rounds=options.passes,
            patience=means.patience,
            paced=self._crew.is_paced,
        )
        self._began = self._clock.now()
        self._until = None if options.deadline is None else self._began + options.deadline
        self._ended: float | None = None
        self._is_last = False  # no row comes in any more
        self._is_short = False  # of money, until something comes back
        self._asked_to_stop: str | None = None
        self._failure: BaseException | None = None
        self._finish = self._finisher()

    def _finisher(self) -> weakref.finalize[..., Self]:
        """Ends what is under way when nobody holds this any more."""
        finisher = weakref.finalize(self, _abandon, self._cancel, self._crew, self._means.finish)
        finisher.atexit = False
        return finisher

    # --- for everybody ---

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        with self._lock:
            counts, governor = self._window.counts, self._governor
            now = self._clock.now() if self._ended is None else self._ended
            return Progress(
                taken=counts.taken,
                done=counts.done,
                answered=counts.answered,
                failed=counts.done - counts.answered,
                in_flight=counts.in_flight,
                waiting=self._window.waiting(now),
                spent=governor.spent,
                reserved=governor.reserved,
                models=Counter(counts.models),
                causes=Counter(counts.causes),
                seconds=now - self._began,
            )

    def drain(self, why: str = DRAINED) -> None:
        """Start no further row. Those in flight finish and come out; the others do not come out at all."""
        self._asked_to_stop = self._asked_to_stop or why

    def cancel(self) -> None:
        """Call off what is in flight too; it comes out with `Cause.CANCELLED`."""
        self._asked_to_stop = CANCELLED
        self._cancel.cancel()

    def close(self) -> None:
        """End it now; what is in flight is called off, and its results are lost."""
        if self._ended is None:
            self._ended = self._clock.now()
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    # --- for whoever iterates ---

    def __next__(self) -> RowResult:
        try:
            while self._ended is None:
                result = self._step()
                if result is not None:
                    return result
        except BaseException:  # Ctrl-C above all
            self.close()
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopIteration

    def _step(self) -> RowResult | None:
        """A bit of everything; waits only where there is nothing else to do."""
        self._collect()
        self._obey()
        took = self._take_in()
        self._launch()
        with self._lock:
            result = self._window.pop()
            if result is not None:
                return result
            if self._window.is_empty and self._is_last:
                self.close()
                return None
        if not took:
            self._crew.flush()
            self._wait()
        return None

    def _collect(self) -> None:
        """Read the mail."""
        while (mail := self._mailbox.take()) is not None:
            with self._lock:
                self._note(*mail)
        if self._crew.is_broken:
            self._replace_crew()

    def _replace_crew(self) -> None:
        """Go on without an executor that takes no more rows; what it has may still come back."""
        self._recall()
        self._crew = self._means.spare(self._mailbox)
        self._finish.detach()
        self._finish = self._finisher()

    def _recall(self) -> None:
        """Take back the rows that nobody has begun with."""
        with self._lock:
            for slot in self._crew.recall():
                self._give_back(slot.reserved, Decimal(0))
                self._window.back(slot)

    def _give_back(self, reserved: Decimal, spent: Decimal) -> None:
        self._governor.settle(reserved, spent)
        self._is_short = False

    def _note(self, slot: Slot, news: News) -> None:
        if news is SENT:
            self._window.sent(slot)
        elif isinstance(news, Ending):
            self._settle(slot, news)
        elif isinstance(news, Lost):
            self._lose(slot, news)

    def _settle(self, slot: Slot, ending: Ending) -> None:
        self._give_back(ending.granted, ending.spent)
        self._window.settle(slot, ending, self._clock.now())

    def _lose(self, slot: Slot, lost: Lost) -> None:
        """Nobody knows what became of a row: what was set aside for it may be spent, and it is asked for once more."""
        slot.lost += lost.was_taken
        if slot.lost > 1:
            self._give_up(slot, Cause.INTERNAL, f"its worker died twice: {lost.why}")
        elif lost.was_taken and not self._window.is_open:
            self._give_up(slot, Cause.CANCELLED if self._cancel.cancelled else Cause.INTERNAL, lost.why)
        else:
            self._give_back(slot.reserved, slot.reserved if lost.was_taken else Decimal(0))
            self._window.back(slot)

    def _give_up(self, slot: Slot, cause: Cause, why: str) -> None:
        """A row may have been asked for, and nobody will tell what came of it."""
        result = failed(slot.row, cause, why)
        self._settle(slot, Ending(result=result, granted=slot.reserved, spent=slot.reserved))

    def _obey(self) -> None:
        """Stop, if somebody wants that or the time is up."""
        why = self._asked_to_stop
        if why is None and self._until is not None and self._clock.now() >= self._until:
            why = DEADLINE
        if why is not None:
            self._stop(why)

    def _stop(self, why: str | None) -> None:
        """Start nothing more."""
        if self.stopped is None and not (self._is_last and self._window.is_empty):
            self.stopped = why
        self._is_last = True
        with self._lock:
            if self._window.is_open:
                self._window.close()
                self._recall()
            if self._cancel.cancelled:
                for slot in self._crew.abandon():
                    self._give_up(slot, Cause.CANCELLED, "called off")

    # --- in ---

    def _take_in(self) -> bool:
        """One row from the input, if there is room for it and it has one."""
        if self._is_last or not self._window.has_room:
            return False
        try:
            row = next(self._rows)
        except StopIteration:
            self._is_last = True
            return True
        except Exception as error:  # noqa: BLE001 - whatever an input raises; it is raised again at the end
            self._failure = error
            self._stop(None)
            return True
        if isinstance(row, Pause):
            return False
        with self._lock:
            self._admit(row)
        return True

    def _admit(self, row: Row) -> None:
        problem = problem_of(row)
        if problem:
            self._refuse(row, Cause.ROW, problem)
            return
        try:
            key = self._key(row)
            worst = None if self._governor.cap is None else self._means.price(row)
        except (ConfigurationError, TypeError, ValueError, RecursionError) as error:  # an unknown model, no JSON
            self._refuse(row, Cause.ROW, str(error) or type(error).__name__)
            return
        if self._governor.cap is not None and worst is None:
            self._refuse(row, Cause.BUDGET, _UNPRICED)
        else:
            self._window.take(row, key, worst)

    def _refuse(self, row: Row, cause: Cause, why: str) -> None:
        self._window.refuse(row, failed(row, cause, why))

    def _key(self, row: Row) -> Hashable | None:
        """What rows share that may have the same answer."""
        defaults = self._options.defaults
        if self._options.dedupe:
            return row.key
        if not defaults.cache or not is_deterministic({**defaults.parameters, **(row.body or {})}):
            return None
        return row.key

    # --- out ---

    def _launch(self) -> None:
        """Start what may be started."""
        with self._lock:
            now = self._clock.now()
            self._window.begin_round(now, is_last=self._is_last)
            while self._window.counts.in_flight < self._crew.limit:
                slot = self._window.peek(now)
                if slot is None or not self._affords(slot):
                    return
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        wants_to_know = self._window.start(slot)
        capped = self._governor.cap is not None
        errand = Errand(
            row=slot.row,
            until=self._until,
            allowance=slot.reserved if capped else None,
            extend=self._governor.reserve if capped else None,
            cancel=self._cancel,
            on_sent=partial(self._mailbox.put, slot, SENT) if wants_to_know else None,
        )
        self._crew.give(slot, errand)

    def _affords(self, slot: Slot) -> bool:
        """Set aside what a row may cost. Where only what is in flight could free enough, it is waited for."""
        if slot.worst is None:
            return True
        slot.reserved = Decimal(0)
        if self._is_short:
            return False
        if self._governor.reserve(slot.worst):
            slot.reserved = slot.worst
            return True
        self._is_short = self._governor.might_fit(slot.worst)
        if not self._is_short:
            self._stop(COST_CAP)
        return False

    def _wait(self) -> None:
        """Until something happens, or may be done."""
        with self._lock:
            now = self._clock.now()
            moments = [now + LOOK] if self._until is None else [now + LOOK, self._until]
            if self._window.counts.in_flight < self._crew.limit and not self._is_short:
                wake_at = self._window.wake_at(is_last=self._is_last)
                moments += [] if wake_at is None else [wake_at]
        seconds = min(moments) - now
        if seconds > 0:
            self._mailbox.wait(self._clock, seconds)


_UNPRICED = (
    "what it may cost is not known, and there is a cap: expected a price of every model that may be asked, "
    "and max_tokens or a declared max_output"
)


def _room(crew: Crew, *, ordered: bool) -> int:
    """Rows in the window: twice what may be in flight, or more where results are held back for their order."""
    return (8 if ordered else 2) * crew.limit


def _abandon(cancel: CancelToken, crew: Crew, finish: Callable[[], None]) -> None:
    """Called when nobody reads the results any more."""
    cancel.cancel("the batch was closed")
    crew.stop()
    finish()
