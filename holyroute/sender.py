"""What asks for one row of a batch, with the engine and transport of a client."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from requests.exceptions import RequestException

from holyroute.batch import worst
from holyroute.batch.calls import call_of
from holyroute.batch.ending import Ending, cause_of, failed, message_of
from holyroute.batch.governor import NOTHING, Purse
from holyroute.batch.row import Cause, Row, RowError, RowResult
from holyroute.completing import completed
from holyroute.core import codec
from holyroute.core.cancel import CancelToken
from holyroute.core.events import AttemptFinished
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import Response

    from holyroute.batch.crew import Errand
    from holyroute.batch.options import Defaults
    from holyroute.core.call import Call
    from holyroute.core.events import Event
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt, Transport
    from holyroute.engine.router import Router

COST_CAP = "cost cap"  # the reason of a call that could not be paid for any further


class _UnpaidError(Exception):
    """An attempt is not sent: its call is called off."""


class Sender:
    """Asks for a row once. Safe to share between threads; does not raise for a row.

    Args:
        router: the engine.
        transport: sends an attempt.
        defaults: for every row.
    """

    def __init__(self, router: Router, transport: Transport, defaults: Defaults) -> None:
        self._router = router
        self._transport = transport
        self._defaults = defaults
        self._mine = threading.local()  # the purse of the call that this thread makes

    def __call__(self, errand: Errand) -> Ending:
        """Ask for a row; what came of it."""
        row, purse = errand.row, None
        if errand.allowance is not None:
            purse = Purse(errand.allowance, errand.extend)
        try:
            with _own_token(errand, purse) as cancel:
                call = self._call(row, errand, cancel)
                outcome = self._router.send(call, self._transport_of(errand, purse, cancel, call))
            return self._ending(row, outcome, purse)
        except ConfigurationError as error:  # an unknown model
            return _failure(row, Cause.ROW, error, purse)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - an adapter's mistake, or ours
            return _failure(row, Cause.INTERNAL if _is_json(row.body) else Cause.ROW, error, purse)
        finally:
            self._mine.purse = None

    def settle(self, event: Event) -> None:
        """An attempt of a call is over: observe the router with this where there is a cap."""
        purse = getattr(self._mine, "purse", None)
        if purse is not None and isinstance(event, AttemptFinished):
            purse.settle(event.record)

    def _call(self, row: Row, errand: Errand, cancel: CancelToken | None) -> Call:
        seconds = None if errand.until is None else errand.until - self._router.clock.now()
        return call_of(row, self._defaults, self._router.config.time, seconds=seconds, cancel=cancel)

    def _transport_of(self, errand: Errand, purse: Purse | None, cancel: CancelToken | None, call: Call) -> Transport:
        """The transport, which first tells that an attempt leaves, and pays for it."""
        self._mine.purse = purse
        if purse is None:
            return self._transport if errand.on_sent is None else partial(self._told, errand.on_sent)
        size = worst.prompt_bound(call.body)
        return partial(self._paid, errand, purse, cancel, size)

    def _told(self, on_sent: Callable[[], None], attempt: Attempt) -> Response:
        on_sent()
        return self._transport(attempt)

    def _paid(
        self, errand: Errand, purse: Purse, cancel: CancelToken | None, size: int | None, attempt: Attempt
    ) -> Response:
        price = None if size is None else worst.of_request(size, attempt.call, attempt.target)
        if price is None or not purse.pay(price):
            purse.empty = True
            assert cancel is not None
            cancel.cancel(COST_CAP)
            raise _UnpaidError
        if errand.on_sent is not None:
            errand.on_sent()
        return self._transport(attempt)

    def _ending(self, row: Row, outcome: Outcome, purse: Purse | None) -> Ending:
        trace = outcome.trace
        assert trace is not None
        now = self._router.clock.now()
        retry_at = trace.retry_at
        result, is_broke = result_of(row, outcome), purse is not None and purse.empty
        if is_broke:  # the last attempt was none
            error = RowError(cause=Cause.BUDGET, message="one more attempt might exceed what may be spent")
            result = replace(result, attempts=result.attempts - 1, error=error)
        return Ending(
            result=result,
            spent=_reported(trace) if purse is None else purse.spent,
            granted=NOTHING if purse is None else purse.granted,
            wait=None if retry_at is None else max(0.0, retry_at - now),
            may_pass=not outcome.is_final and trace.queueable,
            is_broke=is_broke,
        )


@contextmanager
def _own_token(errand: Errand, purse: Purse | None) -> Iterator[CancelToken | None]:
    """The token of a call: the batch's, or one of its own where the call may run out of money."""
    if purse is None or errand.cancel is None:
        yield errand.cancel if purse is None else CancelToken()
        return
    token = CancelToken()
    errand.cancel.on_cancel(token.cancel)
    try:
        yield token
    finally:
        errand.cancel.forget(token.cancel)


def result_of(row: Row, outcome: Outcome) -> RowResult:
    """What became of a row."""
    trace = outcome.trace
    assert trace is not None
    answer = completed(outcome)
    error = None if outcome.is_answer else RowError(cause=cause_of(outcome), message=message_of(outcome))
    return RowResult(
        index=row.index,
        id=row.id,
        line=row.line,
        ok=error is None,
        content=answer.content,
        model=answer.model,
        model_asked=answer.model_asked,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        cost_usd=answer.cost_usd if error is None else _cost_of_failure(trace),
        attempts=len(trace.attempts),
        seconds=trace.seconds,
        cached=trace.cached,
        error=error,
        raw=answer.raw,
        columns=row.columns,
    )


def _cost_of_failure(trace: Trace) -> Decimal | None:
    """USD of attempts without an answer; None where one may have been billed without a word."""
    if any(record.cost is None and record.verdict.billable for record in trace.attempts):
        return None
    return _reported(trace)


def _reported(trace: Trace) -> Decimal:
    return sum((record.cost or Decimal(0) for record in trace.attempts), Decimal(0))


def _is_json(body: Any) -> bool:
    try:
        codec.dumps(body)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _failure(row: Row, cause: Cause, error: BaseException, purse: Purse | None) -> Ending:
    """What came of a call that ended without an outcome."""
    is_told = isinstance(error, (ConfigurationError, RequestException))
    said = str(error) if is_told else f"{type(error).__name__}: {error}"
    return Ending(
        result=failed(row, cause, said),
        spent=NOTHING if purse is None else purse.spent,
        granted=NOTHING if purse is None else purse.granted,
    )
