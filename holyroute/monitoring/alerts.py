"""Alerts: each begins once for a rule and a subject, and ends once, however often its cause comes up meanwhile.

| rule        | begins when                                | ends when                                           |
|-------------|--------------------------------------------|-----------------------------------------------------|
| latency     | the 95th percentile is above the limit     | it is below 0.8 of the limit, or too few calls came |
| error_rate  | the share of errors is above the limit     | it is at most half of that, or too few calls came   |
| consecutive | that many errors came in a row             | as many answers came in a row                       |
| breaker     | a circuit opens                            | it closes                                           |
| key         | a credential or its account is benched     | it works again, or nothing was heard of it for long |
| queue       | that many more calls wait than a while ago | it has grown by less than half of that              |

The gap between beginning and end keeps what hovers at a limit from being told over and over. Where a rule has a minimum
of calls, fewer of them in its window begin nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holyroute.core.explain import printable
from holyroute.core.verdicts import Scope
from holyroute.monitoring.health import AlertNote
from holyroute.monitoring.tally import SLICES, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holyroute.config.schema import AlertRule, Config
    from holyroute.core.clock import Clock
    from holyroute.core.events import Benched, BenchEnded, CircuitChanged
    from holyroute.core.target import Target
    from holyroute.monitoring.monitor import TargetRow

PAST = 50  # alerts that are over and remembered
MOST = 1_000  # alerts that go on at the same time
CALM = 0.8  # share of the limit below which a latency is well again
FORGET = 300.0  # seconds after the end of a bench without a word on the key
QUEUE = "queue"  # the subject of its rule

_OPEN, _CLOSED = {"open", "forced open"}, {"closed", "forced closed"}
_BY_ERRORS, _BY_ANSWERS, _BY_LATENCY = ("consecutive", "error_rate"), ("consecutive",), ("latency",)
_ALL = ("latency", "error_rate", "consecutive")
_OF_KEYS = {Scope.CREDENTIAL, Scope.ACCOUNT}


@dataclass(slots=True)
class _Active:
    note: AlertNote
    until: float = math.inf  # monotonic: over then, if nothing new is heard


class Alerts:
    """Decides who is told what. Not thread-safe: the monitor calls it under its lock.

    Args:
        config: the rules.
        clock: of what is told.
        tell: takes what begins and what ended; has to come back at once.
    """

    def __init__(self, config: Config, clock: Clock, tell: Callable[[AlertNote], None]) -> None:
        settings = config.alerts
        on = settings.enabled and config.monitoring.enabled
        rules = [rule for rule in settings.rules.values() if rule.enabled and on]
        self._clock = clock
        self._tell = tell
        self._by_kind: dict[str, list[AlertRule]] = {}
        for rule in rules:
            self._by_kind.setdefault(rule.when, []).append(rule)
        self._of_calls = [rule for rule in rules if rule.when in _ALL]
        #: Seconds of an answer that are worth a look at once.
        self.slow = min((rule.limit or math.inf for rule in self._by_kind.get("latency", ())), default=math.inf)
        #: Whether anybody wants to know of parked calls.
        self.watches_queue = bool(self._by_kind.get("queue"))
        self.clear()

    def clear(self) -> None:
        """Begin without any alert."""
        self._active: dict[tuple[str, str], _Active] = {}
        self._past: deque[AlertNote] = deque(maxlen=PAST)
        self._depths: deque[tuple[float, int]] = deque(maxlen=SLICES + 1)

    def __bool__(self) -> bool:
        """Whether any alert goes on."""
        return bool(self._active)

    def notes(self) -> tuple[AlertNote, ...]:
        """Those that go on, then those that are over, the newest first."""
        return (*(one.note for one in reversed(self._active.values())), *reversed(self._past))

    # --- what happened ---

    def failed(self, row: TargetRow, now: float) -> None:
        """An attempt failed: its target may have failed too often, or too many times in a row."""
        self._judge(row, now, _BY_ERRORS, look=False)

    def answered(self, row: TargetRow, now: float, seconds: float) -> None:
        """An attempt was answered, slowly or as one of many in a row."""
        if self._active:
            self._judge(row, now, _BY_ANSWERS, look=True)
        if seconds > self.slow:
            self._judge(row, now, _BY_LATENCY, look=False)

    def look_at_errors(self, rows: Iterable[TargetRow], now: float) -> None:
        """See who has failed too often; cheap."""
        for row in rows:
            self._judge(row, now, _BY_ERRORS, look=False)

    def _judge(self, row: TargetRow, now: float, kinds: tuple[str, ...], *, look: bool) -> None:
        """See what begins, and if somebody wants to look what has ended: in a window, that costs more."""
        for rule in self._of_calls:
            if rule.when not in kinds or not _covers(rule, row.target):
                continue
            subject = subject_of(row.target)
            if look or (rule.name, subject) not in self._active:
                begins, ends, words = _CHECKS[rule.when](rule, row, now)
                self._set((rule, subject), begins=begins, ends=ends, words=words)

    def circuit(self, event: CircuitChanged) -> None:
        """A circuit moved."""
        for rule in self._by_kind.get("breaker", ()):
            if _covers(rule, event.target):
                begins, ends = event.after in _OPEN, event.after in _CLOSED
                words = f"its circuit is {event.after}: {event.reason}"
                self._set((rule, subject_of(event.target)), begins=begins, ends=ends, words=words)

    def benched(self, event: Benched) -> None:
        """Something is left alone; of interest where a person has to mend it."""
        if event.scope not in _OF_KEYS:
            return
        for rule in self._by_kind.get("key", ()):
            subject = _key_of(event)
            words = f"{event.reason}; left alone for {event.until - self._clock.now():.0f} s"
            self._set((rule, subject), begins=True, ends=False, words=words)
            active = self._active.get((rule.name, subject))
            if active is not None:
                active.until = event.until + FORGET

    def bench_ended(self, event: BenchEnded) -> None:
        """A key works again."""
        if event.scope in _OF_KEYS:
            for rule in self._by_kind.get("key", ()):
                self._set((rule, _key_of(event)), begins=False, ends=True, words="it works again")

    def queue(self, waiting: int) -> None:
        """How many parked calls wait now."""
        now, rules = self._clock.now(), self._by_kind.get("queue", ())
        apart = max((rule.window or 0.0 for rule in rules), default=0.0) / SLICES
        if not self._depths or now - self._depths[-1][0] >= apart:
            self._depths.append((now, waiting))
        for rule in rules:
            window = rule.window or 0.0
            least = min((depth for at, depth in self._depths if at >= now - window), default=waiting)
            grown, limit = waiting - least, rule.limit or math.inf
            words = f"{waiting:,} calls wait, {grown:,} more than within the last {window:.0f} s"
            self._set((rule, QUEUE), begins=grown >= limit, ends=grown < limit / 2, words=words)

    def look(self, rows: Iterable[TargetRow], now: float) -> None:
        """See what has begun, and what time alone has brought to an end."""
        for (name, subject), active in list(self._active.items()):
            if now >= active.until:
                self._end((name, subject), "nothing was heard of it since")
        for row in rows:
            self._judge(row, now, _ALL, look=True)

    # --- telling ---

    def _set(self, key: tuple[AlertRule, str], *, begins: bool, ends: bool, words: str) -> None:
        rule, subject = key
        place = rule.name, subject
        if place in self._active:
            if ends:
                self._end(place, words)
        elif begins and len(self._active) < MOST:
            note = AlertNote(rule=rule.name, subject=subject, message=words, began=self._clock.wall())
            self._active[place] = _Active(note)
            self._tell(note)

    def _end(self, place: tuple[str, str], words: str) -> None:
        note = replace(self._active.pop(place).note, ended=self._clock.wall(), ending=words)
        self._past.append(note)
        self._tell(note)


def subject_of(target: Target | None) -> str:
    """What an alert calls a target; a script may name a model as it likes."""
    return f"{printable(target.name)} at {target.provider.name}" if target is not None else "other models"


def _key_of(event: Benched | BenchEnded) -> str:
    what = "the account of the key" if event.scope is Scope.ACCOUNT else "the key"
    name = f" in {event.credential}" if event.credential is not None else ""
    return f"{what}{name} for {event.target.provider.host}"


def _covers(rule: AlertRule, target: Target | None) -> bool:
    return not rule.models or (target is not None and target.name in rule.models)


_Finding = tuple[bool, bool, str]  # whether it begins, whether it ends, in words


def _check_latency(rule: AlertRule, row: TargetRow, now: float) -> _Finding:
    limit = rule.limit or math.inf
    seen = together(row.tally.recent(now, rule.window or math.inf))
    if seen.answers < (rule.minimum_calls or 1):
        return False, True, f"only {seen.answers} answers of late"
    (p95,) = seen.percentiles((0.95,))
    p95 = p95 or 0.0
    return p95 > limit, p95 < CALM * limit, f"95 % of its answers come within {p95:.2f} s; the limit is {limit:g} s"


def _check_error_rate(rule: AlertRule, row: TargetRow, now: float) -> _Finding:
    limit = rule.limit or math.inf
    slices = row.tally.recent(now, rule.window or math.inf)
    errors = sum(one.errors for one in slices)
    calls = errors + sum(one.answers for one in slices)
    if calls < (rule.minimum_calls or 1):
        return False, True, f"only {calls} calls of late"
    words = f"{errors:,} of {calls:,} calls failed ({errors / calls:.1%}); the limit is {limit:.1%}"
    return errors > limit * calls, errors <= limit / 2 * calls, words


def _check_consecutive(rule: AlertRule, row: TargetRow, now: float) -> _Finding:  # noqa: ARG001 - as the others
    limit = rule.limit or math.inf
    if row.errors_in_a_row:
        return row.errors_in_a_row >= limit, False, f"{row.errors_in_a_row} calls failed in a row"
    return False, row.answers_in_a_row >= limit, f"{row.answers_in_a_row} calls were answered in a row"


_CHECKS: dict[str, Callable[[AlertRule, TargetRow, float], _Finding]] = {
    "latency": _check_latency,
    "error_rate": _check_error_rate,
    "consecutive": _check_consecutive,
}
