"""Alerts against a list of everything that happened, and rules written down as plainly as possible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import holyroute
from holyroute.core import verdicts
from holyroute.core.call import Call
from holyroute.core.events import AttemptFinished
from holyroute.core.outcome import Outcome
from holyroute.core.target import Provider, Target
from holyroute.core.trace import AttemptRecord, Trace
from holyroute.monitoring.monitor import Monitor
from holyroute.monitoring.tally import SLICES
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.monitoring.health import AlertNote

PROVIDER = Provider(name="a", base_url="https://a.example/v1")
TARGETS = [Target(name=name, model=name, provider=PROVIDER) for name in ("ma", "mb")]
CALL = Call(model="ma", body={}, deadline=600, connect=10, read=600)
WINDOW, MINIMUM, IN_A_ROW, SHARE, SLOW, CALM = 60.0, 4, 3, 0.3, 5.0, 4.0
RULES = {
    "latency": {"limit": SLOW, "minimum_calls": MINIMUM, "window": WINDOW},
    "error_rate": {"limit": SHARE, "minimum_calls": MINIMUM, "window": WINDOW},
    "consecutive": {"limit": IN_A_ROW},
}
SECONDS = st.sampled_from([0.25, 1.0, 4.5, 8.0])  # none so near to a limit that 1 % decides

History = list[tuple[float, float | None]]  # when, and the seconds of an answer; None: an error


def in_a_row(history: History, *, errors: bool) -> int:
    """How many of the last ones were errors, or answers."""
    count = 0
    for _, seconds in reversed(history):
        if (seconds is None) is not errors:
            break
        count += 1
    return count


def recent(history: History, now: float) -> list[float | None]:
    first = math.floor(now * SLICES / WINDOW) - SLICES + 1
    return [seconds for at, seconds in history if math.floor(at * SLICES / WINDOW) >= first]


def finding(kind: str, history: History, now: float) -> tuple[bool, bool]:
    """Whether an alert begins by what has happened, and whether it ends."""
    if kind == "consecutive":
        return in_a_row(history, errors=True) >= IN_A_ROW, in_a_row(history, errors=False) >= IN_A_ROW
    seen = recent(history, now)
    answers = sorted(seconds for seconds in seen if seconds is not None)
    if kind == "error_rate":
        share = seen.count(None) / len(seen) if seen else 0.0
        return len(seen) >= MINIMUM and share > SHARE, len(seen) < MINIMUM or share <= SHARE / 2
    if len(answers) < MINIMUM:
        return False, True
    p95 = answers[math.ceil(0.95 * len(answers)) - 1]
    return p95 > SLOW, p95 < CALM


class AlertMachine(RuleBasedStateMachine):
    """Two targets, three rules."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.told: list[AlertNote] = []
        tables: dict[str, Any] = {
            "providers": {"a": {"base_url": PROVIDER.base_url}},
            "models": {target.name: {"provider": "a"} for target in TARGETS},
            "monitoring": {"window": WINDOW},
            "alerts": {"rules": RULES},
        }
        self.monitor = Monitor(holyroute.load(env={}, cwd_file=False, **tables), self.clock, self.told.append)
        self.histories: dict[str, History] = {target.name: [] for target in TARGETS}
        self.expected: set[tuple[str, str]] = set()
        self.changes = 0

    def expect(self, target: Target, kinds: dict[str, tuple[bool, bool]]) -> None:
        """Let alerts begin and end, for kinds of which the beginning, the end or both are looked at."""
        for kind, (may_begin, may_end) in kinds.items():
            begins, ends = finding(kind, self.histories[target.name], self.clock.now())
            place = kind, target.name
            if place in self.expected and may_end and ends:
                self.expected.discard(place)
                self.changes += 1
            elif place not in self.expected and may_begin and begins:
                self.expected.add(place)
                self.changes += 1

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """Nobody calls."""
        self.clock.advance(seconds)

    @rule(model=st.sampled_from(TARGETS), times=st.integers(1, 4))
    def fail(self, model: Target, times: int) -> None:
        """Errors are judged one by one, when they happen."""
        for _ in range(times):
            self.happen(model, None)
            self.expect(model, {"consecutive": (True, False), "error_rate": (True, False)})

    @rule(model=st.sampled_from(TARGETS), seconds=SECONDS, times=st.integers(1, 6))
    def answer(self, model: Target, seconds: float, times: int) -> None:
        """Answers are judged if they are slow, or may end a row of errors."""
        for _ in range(times):
            self.happen(model, seconds)
            self.expect(model, {"consecutive": (False, True)})
            if seconds > SLOW:
                self.expect(model, {"latency": (True, False)})

    @rule()
    def look(self) -> None:
        """Somebody looks: everything is judged."""
        self.monitor.look()
        for target in TARGETS:
            self.expect(target, dict.fromkeys(RULES, (True, True)))

    def happen(self, target: Target, seconds: float | None) -> None:
        """A call with one attempt."""
        self.clock.advance(seconds or 0.0)
        trace = Trace(CALL, self.clock, self.monitor)
        trace.began -= seconds or 0.0
        verdict = verdicts.SERVER_ERROR if seconds is None else verdicts.ANSWERED
        record = AttemptRecord(
            target=target,
            kind="normal",
            verdict=verdict,
            status=None,
            detail="",
            started=0.0,
            seconds=seconds or 0.0,
            retry_after=None,
            usage=None,
        )
        trace.attempts.append(record)
        self.monitor(AttemptFinished(trace.id, record))
        trace.close(Outcome(verdict=verdict))
        self.histories[target.name].append((self.clock.now(), seconds))

    @invariant()
    def what_was_told_alternates(self) -> None:
        """Each alert begins, ends, begins …: nothing is told twice."""
        going_on: set[tuple[str, str]] = set()
        for note in self.told:
            place = note.rule, note.subject.removesuffix(" at a")
            assert (place in going_on) is (note.ended is not None)
            going_on ^= {place}

    @invariant()
    def what_goes_on_is_what_should(self) -> None:
        """After everything that waits is counted, the alerts are those of the plain rules."""
        self.monitor.targets()
        going_on = {
            (note.rule, note.subject.removesuffix(" at a")) for note in self.monitor.alerts.notes() if not note.ended
        }

        assert going_on == self.expected
        assert len(self.told) == self.changes


class TestAlerts(AlertMachine.TestCase):  # type: ignore[misc,valid-type]
    """Run it."""

    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
