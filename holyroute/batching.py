"""How a `Client` runs a batch: what asks for one row, here or in another process."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from requests.exceptions import RequestException

from holyroute import context
from holyroute.batch import worst
from holyroute.batch.calls import call_of
from holyroute.batch.crew import Elsewhere, Errand, Remote, Threads
from holyroute.batch.ending import Ending, cause_of, failed, message_of
from holyroute.batch.governor import NOTHING, Governor, Purse
from holyroute.batch.job import Job, Means
from holyroute.batch.options import CHUNK, Defaults, options_of
from holyroute.batch.reading import rows_of
from holyroute.batch.row import Cause, Row, RowError, RowResult
from holyroute.completing import completed
from holyroute.config.credentials import is_disabled
from holyroute.config.dump import dump
from holyroute.config.load import restored
from holyroute.core.cancel import CancelToken
from holyroute.core.events import AttemptFinished
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from requests import Response

    from holyroute.batch.crew import Crew, Mailbox
    from holyroute.batch.options import Options
    from holyroute.core.call import Call, Selection
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
        except (ConfigurationError, TypeError, ValueError, RecursionError) as error:  # an unknown model; no JSON
            return _failure(row, Cause.ROW, error, purse)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - an adapter's mistake, or ours
            return _failure(row, Cause.INTERNAL, error, purse)

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


def _failure(row: Row, cause: Cause, error: BaseException, purse: Purse | None) -> Ending:
    """What came of a call that ended without an outcome."""
    is_told = isinstance(error, (ConfigurationError, RequestException))
    said = str(error) if is_told else f"{type(error).__name__}: {error}"
    return Ending(
        result=failed(row, cause, said),
        spent=NOTHING if purse is None else purse.spent,
        granted=NOTHING if purse is None else purse.granted,
    )


# --- a batch ---------------------------------------------------------------------------------------------------------


def start(
    router: Router, transport: Transport, chosen: Selection, rows: Iterable[Any], options: Mapping[str, Any]
) -> Job:
    """A batch of a client. Nothing is asked before somebody reads the results.

    Args:
        router: the client's engine.
        transport: the client's.
        chosen: the client's own task and priority.
        rows: whatever `Client.batch` takes.
        options: the keywords of `Client.batch`.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """
    wanted = options_of(options)
    wanted = replace(wanted, defaults=_with_selection(wanted.defaults, chosen))
    for name in (*(wanted.defaults.models or ()), *filter(None, [wanted.defaults.model])):
        if not name.startswith("route:"):
            router.selector.known(name)  # raises what is wrong with it
    sender = Sender(router, transport, wanted.defaults)
    if wanted.max_cost is not None:
        router.events.subscribe(sender.settle)  # what an attempt cost is known before the next one is paid for
    is_remote = wanted.executor is not None and not isinstance(wanted.executor, ThreadPoolExecutor)
    means = Means(
        crew=partial(_elsewhere, router, wanted) if is_remote else partial(_threads, sender, wanted),
        spare=partial(_threads, sender, replace(wanted, executor=None)),
        governor=Governor(wanted.max_cost),
        price=partial(_to_set_aside, router, wanted.defaults, whole=is_remote),
        finish=partial(router.events.unsubscribe, sender.settle),
        clock=router.clock,
        patience=wanted.defaults.call_deadline or router.config.time.deadline,
    )
    return Job(rows_of(rows, wanted.defaults.parameters), wanted, means)


def _with_selection(defaults: Defaults, chosen: Selection) -> Defaults:
    """What holds where nobody says otherwise: the call's own words, the client's, those of the block it stands in."""
    own = replace(
        chosen,
        task=defaults.task or chosen.task,
        priority=defaults.priority or chosen.priority,
        direct=defaults.direct or is_disabled(),
    )
    selection = context.selection(own)
    return replace(defaults, task=selection.task, priority=selection.priority, direct=selection.direct)


def _to_set_aside(router: Router, defaults: Defaults, row: Row, *, whole: bool) -> Decimal | None:
    """USD for a row before it is asked: one attempt where more can be set aside in between, else all that it may take.

    Raises:
        ConfigurationError: an unknown model.
    """
    router.candidates(call_of(row, defaults, router.config.time))
    if whole:
        return worst.worst_case(row, router, defaults)
    most = worst.dearest(row, router, defaults)
    return None if most is None else most * worst.SENDS


def _threads(sender: Sender, options: Options, mailbox: Mailbox) -> Crew:
    pool = options.executor
    workers = options.max_workers
    if isinstance(pool, ThreadPoolExecutor):
        workers = min(workers, pool._max_workers)  # noqa: SLF001 - there is no other way to ask
        return Threads(sender, pool, workers, mailbox, own=False)
    own = ThreadPoolExecutor(workers, thread_name_prefix="holyroute-batch")
    return Threads(sender, own, workers, mailbox, own=True)


def _elsewhere(router: Router, options: Options, mailbox: Mailbox) -> Crew:
    executor = options.executor
    assert executor is not None
    chunk = options.chunk or CHUNK
    slots = getattr(executor, "_max_workers", None)
    remote = Remote(
        work=run_chunk,
        run_id=uuid.uuid4().hex,
        spec={
            "settings": dump(router.config),  # names of keys, never a key
            "defaults": asdict(options.defaults),
            "threads": min(options.max_workers, chunk),
        },
        chunk=chunk,
        slots=slots if isinstance(slots, int) and slots > 0 else os.cpu_count() or 1,
    )
    return Elsewhere(executor, remote, mailbox, router.clock, options.max_in_flight)


# --- in another process ----------------------------------------------------------------------------------------------

_DESKS: dict[tuple[int, str], _Desk] = {}
_DESKS_LOCK = threading.Lock()
_MOST_DESKS = 8  # that a worker keeps: it may serve several batches


class _Desk:
    """What a worker process works with: one client and its threads, for one configuration."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from holyroute.client import Client

        models = spec["defaults"]["models"]
        defaults = Defaults(**{**spec["defaults"], "models": None if models is None else tuple(models)})
        client = Client(restored(spec["settings"]))  # keys come from this process's environment
        self.clock = client.router.clock
        self.sender = Sender(client.router, client._transport, defaults)  # noqa: SLF001 - our own door
        self.pool = ThreadPoolExecutor(spec["threads"], thread_name_prefix="holyroute-batch")
        client.router.events.subscribe(self.sender.settle)

    def ask(self, item: Mapping[str, Any]) -> Ending:
        """One row; its columns did not travel."""
        names = ("index", "body", "model", "task", "priority")
        models, allowance, seconds = item["models"], item["allowance"], item["seconds"]
        row = Row(**{name: item[name] for name in names}, models=None if models is None else tuple(models))
        errand = Errand(
            row=row,
            until=None if seconds is None else self.clock.now() + seconds,
            allowance=None if allowance is None else Decimal(allowance),
        )
        return self.sender(errand)


def run_chunk(run_id: str, number: int, spec: dict[str, Any], items: list[dict[str, Any]]) -> list[Ending]:
    """Some rows, in whatever process an executor chose. Does not raise for one of them.

    Args:
        run_id: of the batch; with `number` it tells this call from every other, for executors that remember answers.
        number: of the chunk.
        spec: how to make a client, without secrets.
        items: the rows.
    """
    del run_id, number
    desk = _desk(spec)
    return list(desk.pool.map(desk.ask, items))


def _desk(spec: Mapping[str, Any]) -> _Desk:
    key = os.getpid(), repr(spec)
    with _DESKS_LOCK:
        desk = _DESKS.get(key)
        if desk is None:
            while len(_DESKS) >= _MOST_DESKS:
                _DESKS.pop(next(iter(_DESKS)))
            desk = _DESKS[key] = _Desk(spec)
        return desk
