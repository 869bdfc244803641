"""The observer that adds up: per target and per route, in constant memory, and almost for nothing.

A call only leaves its trace in a queue. It is added up when somebody looks, when 64 wait, or at once when there is
something to look at: an attempt that failed, a slow answer. Attempts that failed are counted when they end, all else
with the end of its call.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from holyroute.core import forks, verdicts
from holyroute.core.events import AttemptFinished, Benched, BenchEnded, CallFinished, CircuitChanged
from holyroute.core.verdicts import Failover
from holyroute.exceptions import QueueError
from holyroute.monitoring.alerts import Alerts
from holyroute.monitoring.health import FailoverNote, QueueDepth, StateChange
from holyroute.monitoring.tally import Slice, Tally, together
from holyroute.monitoring.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.schema import Config
    from holyroute.core.clock import Clock
    from holyroute.core.events import Event
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Trace
    from holyroute.core.verdicts import Verdict
    from holyroute.monitoring.health import AlertNote

BATCH = 64  # traces that wait before they are added up; at eight times as many, callers wait for that
SUBJECTS = 128  # targets, and as many routes, that are told apart; the rest is one subject
OTHER = "other"  # its name
NOTES = 20  # failovers, and changes of a circuit, that are remembered
LONGEST = 200  # characters of what a caller named

NEITHER = frozenset({verdicts.CANCELLED, verdicts.LEFT, verdicts.CUT_SHORT, verdicts.FILTERED})  # nor answer nor error


class TargetRow:
    """All that is counted of one target."""

    __slots__ = (
        "answers_in_a_row",
        "errors_in_a_row",
        "history",
        "rate_limited",
        "reasons",
        "retries",
        "tally",
        "target",
    )

    def __init__(self, target: Target | None, window: float) -> None:
        self.target = target  # None: all that are not told apart
        self.tally = Tally(window)
        self.retries = self.rate_limited = 0
        self.errors_in_a_row = self.answers_in_a_row = 0
        self.reasons: dict[str, int] = {}
        self.history: deque[StateChange] = deque(maxlen=NOTES)

    def answered(self, now: float, seconds: float) -> None:
        """An attempt was answered."""
        self.tally.at(now).answered(seconds)
        self.answers_in_a_row += 1
        self.errors_in_a_row = 0

    def failed(self, now: float, record: AttemptRecord) -> None:
        """An attempt was not answered; whether that counts as an error depends on why."""
        reason = record.verdict.name
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if record.verdict in NEITHER:
            self.tally.at(now).count += 1
            return
        self.tally.at(now).failed()
        self.rate_limited += record.status == 429
        self.errors_in_a_row += 1
        self.answers_in_a_row = 0


class RouteRow:
    """All that is counted of what callers asked for by one name."""

    __slots__ = ("cache_hits", "failovers", "parked", "tally")

    def __init__(self, window: float) -> None:
        self.tally = Tally(window)
        self.failovers = self.cache_hits = self.parked = 0

    def ended(self, now: float, verdict: Verdict, seconds: float) -> None:
        """A call is over."""
        here = self.tally.at(now)
        if verdict.is_answer:
            here.answered(seconds)
        elif verdict in NEITHER:
            here.count += 1
        else:
            here.failed()


class _Failed(NamedTuple):
    at: float  # monotonic
    record: AttemptRecord


class Monitor:
    """Adds up what happens. Safe to share between threads; a forked child begins afresh.

    Args:
        config: the window, and the default route.
        clock: of what is counted.
        tell: takes alerts; has to come back at once.
    """

    def __init__(self, config: Config, clock: Clock, tell: Callable[[AlertNote], None]) -> None:
        self.alerts = Alerts(config, clock, tell)
        self.ticker = Ticker(self.look)
        self.window = config.monitoring.window
        self.default_route = f"route:{config.routing.task}/{config.routing.priority}"
        self.clock = clock
        self.queues: dict[str, Callable[[], QueueDepth]] = {}  # of parked calls, by their places
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """What the parent counted, it tells itself."""
        self.lock = threading.RLock()  # of all that follows, but for the queue of traces
        self.since = self.clock.wall()
        self._waiting: deque[Trace | _Failed] = deque()
        self.alerts.clear()
        self._targets: dict[Target | None, TargetRow] = {}  # None: all that are not told apart
        self._routes: dict[str, RouteRow] = {}
        self.failovers: deque[FailoverNote] = deque(maxlen=NOTES)  # oldest first
        self._parked = False  # whether calls wait, as far as is known

    def __call__(self, event: Event) -> None:
        """Take an event; the usual one, a call that is over, costs a push into a queue."""
        kind = type(event)
        if kind is CallFinished:
            trace: Trace = event.trace  # type: ignore[attr-defined]
            waiting = self._waiting
            waiting.append(trace)
            if len(waiting) >= BATCH or trace.seconds > self.alerts.slow or trace.ticket is not None:
                self._add_up(wait=len(waiting) >= 8 * BATCH)
        elif kind is AttemptFinished:
            record: AttemptRecord = event.record  # type: ignore[attr-defined]
            if not record.verdict.is_answer:
                self._waiting.append(_Failed(self.clock.now(), record))
                self._add_up(wait=True)
        else:
            self._note(event)

    def _note(self, event: Event) -> None:
        """Take one of the rare events."""
        with self.lock:
            if isinstance(event, CircuitChanged):
                at = self.clock.wall() - (self.clock.now() - event.at)
                change = StateChange(at=at, before=event.before, after=event.after, reason=event.reason)
                self._target(event.target).history.append(change)
                self.alerts.circuit(event)
            elif isinstance(event, Benched):
                self.alerts.benched(event)
            elif isinstance(event, BenchEnded):
                self.alerts.bench_ended(event)
            self._keep_looking()

    def _add_up(self, *, wait: bool) -> None:
        """Count all that waits; who may not wait leaves it to the thread that is at it."""
        if not self.lock.acquire(blocking=wait):
            return
        try:
            waiting, alerts = self._waiting, self.alerts
            full = len(waiting) >= BATCH
            for _ in range(len(waiting)):  # what comes meanwhile is for the next one: nobody works for all others
                if not waiting:  # a signal's handler made a call in the middle of this, and counted the rest
                    break
                one = waiting.popleft()
                if isinstance(one, _Failed):
                    row = self._target(one.record.target)
                    row.failed(one.at, one.record)
                    alerts.failed(row, one.at)
                else:
                    self._count(one)
            if full:  # an error rate may have come about by enough answers
                alerts.look_at_errors(self._rows(), self.clock.now())
            self._keep_looking()
        finally:
            self.lock.release()

    def _keep_looking(self) -> None:
        """While an alert goes on, or calls are parked, somebody has to notice when that is over."""
        if self.alerts or self._parked:
            self.ticker.wake()

    def _count(self, trace: Trace) -> None:
        verdict, now = trace.verdict, trace.began + trace.seconds
        assert verdict is not None  # the call is over
        row = self._route(trace.asked or self.default_route)
        row.ended(now, verdict, trace.seconds)
        attempts = trace.attempts
        if attempts and attempts[-1].verdict.is_answer:
            last = attempts[-1]
            seconds = last.seconds if last.first_byte is None else last.first_byte
            answered = self._target(last.target)
            answered.answered(now, seconds)
            self.alerts.answered(answered, now, seconds)
        if trace.cached is not None:
            row.cache_hits += 1
        if len(attempts) > 1 or trace.skipped or trace.ticket is not None:
            self._count_detours(trace, row)

    def _count_detours(self, trace: Trace, row: RouteRow) -> None:
        if trace.ticket is not None:
            row.parked += 1
            self._parked = self.alerts.watches_queue
        before = None
        for record in trace.attempts:
            if before is not None and before.key == record.target.key:
                self._target(record.target).retries += 1
            before = record.target
        row.failovers += trace.failovers
        reason = _detour(trace)
        if reason is None:
            return
        answered_by = trace.answered_by.name if trace.answered_by is not None else None
        asked = (trace.asked or self.default_route)[:LONGEST]
        note = FailoverNote(at=trace.began_wall + trace.seconds, asked=asked, answered_by=answered_by, reason=reason)
        self.failovers.append(note)

    def _target(self, target: Target) -> TargetRow:
        row = self._targets.get(target)
        if row is None:
            key = target if len(self._targets) < SUBJECTS else None
            row = self._targets.get(key)
        if row is None:
            row = self._targets[key] = TargetRow(key, self.window)
        return row

    def _rows(self) -> list[TargetRow]:
        """As they are now: a signal's handler may ask a new target in the middle of a look."""
        return list(self._targets.values())

    def _route(self, name: str) -> RouteRow:
        row = self._routes.get(name)
        if row is None:
            name = name[:LONGEST] if len(self._routes) < SUBJECTS else OTHER
            row = self._routes.get(name)
        if row is None:
            row = self._routes[name] = RouteRow(self.window)
        return row

    # --- looking ---

    def look(self) -> bool:
        """Count what waits, and see what time has ended; whether somebody should look again."""
        waiting: int | None = 0  # None: nobody knows
        if self.alerts.watches_queue and self.queues:
            try:
                depth = self.depth()  # reads a file: not under the lock
                waiting = depth.ready + depth.leased if depth is not None else 0
            except QueueError:  # whoever parks a call is told; nothing begins or ends by what cannot be read
                waiting = None
        with self.lock:
            now = self.clock.now()  # all that had ended by then is counted now
            self._add_up(wait=True)
            if self.queues and waiting is not None:
                self.alerts.queue(waiting)
            self.alerts.look(self._rows(), now)
            self._parked = waiting is None or waiting > 0
            return bool(self.alerts) or self._parked

    def parked(self) -> None:
        """A call was parked without being asked first."""
        with self.lock:
            self._parked = self.alerts.watches_queue
            self._keep_looking()

    def targets(self) -> dict[Target | None, dict[str, Any]]:
        """What was counted of each target, as `TargetHealth` has it; None: of all that are not told apart."""
        self._add_up(wait=True)
        now = self.clock.now()
        with self.lock:
            return {target: _told(row, now) for target, row in self._targets.items()}

    def routes(self) -> dict[str, RouteRow]:
        """What was counted of each route; to be read under the lock."""
        self._add_up(wait=True)
        return self._routes

    def calls(self, now: float) -> tuple[Slice, Slice]:
        """All calls: those in the window, and those since the start; to be asked under the lock."""
        rows = list(self.routes().values())
        recent = together(one for row in rows for one in row.tally.recent(now))
        return recent, together(row.tally.total() for row in rows)

    def depth(self) -> QueueDepth | None:
        """How many parked calls are in which state, in all queues of this router; None: it has none."""
        depths = [look() for look in list(self.queues.values())]  # another thread may open one meanwhile
        if not depths:
            return None
        return QueueDepth(
            ready=sum(one.ready for one in depths),
            leased=sum(one.leased for one in depths),
            done=sum(one.done for one in depths),
            dead=sum(one.dead for one in depths),
        )


def _told(row: TargetRow, now: float) -> dict[str, Any]:
    return {
        "recent": together(row.tally.recent(now)).figures(),
        "total": row.tally.total().figures(),
        "retries": row.retries,
        "rate_limited": row.rate_limited,
        "errors_by_reason": dict(row.reasons),
        "history": tuple(row.history),
        "sparkline": row.tally.averages(now),
    }


def _detour(trace: Trace) -> str | None:
    """Why the first choice did not answer; None: it did, or nobody should: the call itself was wrong, or called off."""
    verdict = trace.verdict
    if trace.cached is not None or verdict is None or (verdict.failover is Failover.FINAL and not verdict.is_answer):
        return None
    if verdict.is_answer and not trace.failovers:  # passed over at first, and asked after all
        return None
    return next(_refusals(trace), None)


def _refusals(trace: Trace) -> Iterator[str]:
    """Why those did not answer who were to be asked before whoever did, in order."""
    answerer = trace.answered_by
    passed = [skip for skip in trace.skipped if skip.retry_at is not None and skip.target is not answerer]
    for number, record in enumerate(trace.attempts):
        yield from (skip.reason for skip in passed if skip.after == number)
        if record.target is not answerer:
            yield str(record.verdict)
    yield from (skip.reason for skip in passed if skip.after == len(trace.attempts))
