"""Answers that are still coming when the call comes back: booked when they are over."""

from __future__ import annotations

from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from holyroute.core import classify, verdicts
from holyroute.core.cancel import LATE
from holyroute.core.stream import How

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.clock import Clock
    from holyroute.core.outcome import Outcome
    from holyroute.core.stream import StreamReader
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt
    from holyroute.engine.state import State


class Books(Protocol):
    """Where the end of an attempt is booked: the router."""

    clock: Clock
    state: State

    def settle(self, attempt: Attempt, outcome: Outcome, seconds: float | None = None) -> Outcome:
        """Book an outcome everywhere."""


class Streams:
    """The open streams of one router; it keeps none of them alive."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._forgotten: SimpleQueue[Callable[[], None]] = SimpleQueue()  # may be filled in the middle of anything

    def opened(self, attempt: Attempt, reader: StreamReader, trace: Trace) -> Callable[[Exception | None, How], None]:
        """An answer has begun; what comes back is to be called when it is over."""
        seconds, state = self._books.clock.now() - attempt.started, self._books.state

        def end(error: Exception | None, how: How) -> None:
            if self._books.state is not state:  # a fork lies between: the parent has opened it, and will book it
                return
            book = partial(self._book, attempt, reader, trace, seconds, error, how)
            if how is How.FORGOTTEN:
                self._forgotten.put(book)
            else:
                book()

        return end

    def book_forgotten(self) -> None:
        """Book the streams that their callers lost."""
        while not self._forgotten.empty():
            try:
                book = self._forgotten.get_nowait()
            except Empty:  # another thread was faster
                return
            book()

    def _book(
        self,
        attempt: Attempt,
        reader: StreamReader,
        trace: Trace,
        seconds: float,
        error: Exception | None,
        how: How,
    ) -> None:
        token = attempt.token
        outcome = classify.of_stream(reader, error, how)
        if token.cancelled and not outcome.is_answer:
            late = token.reason == LATE  # the time of the whole call: no fault of a target that was answering
            outcome.verdict = verdicts.CUT_SHORT if late else verdicts.CANCELLED
        if outcome.usage is None:
            key = attempt.target.key
            outcome.usage = self._books.state.estimator.of_stream(attempt.call.body, key, reader.written)
        if attempt.call.cancel is not None:
            attempt.call.cancel.forget(token.cancel)
        trace.end(attempt, self._books.settle(attempt, outcome, seconds), seconds)
