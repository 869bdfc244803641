"""The breaker against a naive model of it: any program of calls, losses, orders and waits."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import cycle, takewhile
from math import ceil
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from holyroute.config.schema import BreakerSettings
from holyroute.core.verdicts import Effect
from holyroute.resilience.breaker import CircuitBreaker
from holyroute.resilience.circuit import CircuitState, Outlook, Permit

if TYPE_CHECKING:
    from collections.abc import Callable

SUCCESS, FAILURE, IGNORED = Effect.SUCCESS, Effect.FAILURE, Effect.IGNORED
DRAWS = (0.0, 0.5, 1.0)  # of the jitter, in turn

# --- the model -------------------------------------------------------------------------------------------------------
# It is eager where the breaker is lazy: timers fire one after the other, each at its time. It keeps every result and
# counts afresh where the breaker keeps counters. Its generations are the identities of its phases.


@dataclass(eq=False)
class Ticket:
    phase: Phase
    kind: str
    start: float
    lease_end: float


@dataclass(eq=False)
class Closed:
    decay_at: float
    forced: bool = False
    results: list[tuple[float, bool]] = field(default_factory=list)  # when, and whether it failed


@dataclass(eq=False)
class Open:
    until: float
    early: Ticket | None = None


@dataclass(eq=False)
class HalfOpen:
    probes: list[Ticket] = field(default_factory=list)
    answered: int = 0


@dataclass(eq=False)
class Shut:
    until: float | None


Phase = Closed | Open | HalfOpen | Shut


class Model:
    def __init__(self, rules: BreakerSettings) -> None:
        self.rules = rules
        self.phases: list[Phase] = [Closed(decay_at=60.0)]
        self.trips = 0
        self.late = 0
        self.last_early = float("-inf")

    @property
    def phase(self) -> Phase:
        """The present one."""
        return self.phases[-1]

    # --- time ---

    def wake(self, now: float) -> None:
        """Fire every timer up to now."""
        while True:
            due, action = self.timer()
            if due > now:
                return
            action(due)

    def timer(self) -> tuple[float, Callable[[float], None]]:
        """What happens next if nobody does anything, and when."""
        phase = self.phase
        if isinstance(phase, Closed) and not phase.forced and self.trips:
            return phase.decay_at, self.decay
        if isinstance(phase, Open) and phase.early:
            return phase.early.lease_end, self.forget_early
        if isinstance(phase, Open | Shut) and phase.until is not None:
            return phase.until, lambda _: self.phases.append(HalfOpen())
        if isinstance(phase, HalfOpen) and phase.probes:
            lost = min(phase.probes, key=lambda probe: probe.lease_end)
            return lost.lease_end, lambda due: self.trip(lost, due, 0.0)
        return float("inf"), lambda _: None

    def decay(self, due: float) -> None:
        """A minute spent closed takes a trip back."""
        assert isinstance(self.phase, Closed)
        self.trips -= 1
        self.phase.decay_at = due + 60.0

    def forget_early(self, _: float) -> None:
        """The lease of the early probe is over."""
        assert isinstance(self.phase, Open)
        self.phase.early = None

    # --- calls ---

    def acquire(self, now: float, timeout: float, *, early: bool) -> Ticket | None:
        """A ticket, or None for a rejection."""
        self.wake(now)
        phase = self.phase
        lease_end = now + min(timeout + 5.0, 120.0)
        if isinstance(phase, Closed):
            return Ticket(phase, "normal", now, float("inf"))
        if isinstance(phase, HalfOpen) and len(phase.probes) < self.rules.probes:
            phase.probes.append(Ticket(phase, "probe", now, lease_end))
            return phase.probes[-1]
        if isinstance(phase, Open) and early and not phase.early and now - self.last_early >= 1.0:
            phase.early = Ticket(phase, "early", now, lease_end)
            self.last_early = now
            return phase.early
        return None

    def is_late(self, ticket: Ticket) -> bool:
        """Whether a result says nothing about the present."""
        forgotten = isinstance(self.phase, Open) and ticket is not self.phase.early
        return ticket.phase is not self.phase or forgotten

    def settle(self, ticket: Ticket, effect: Effect, now: float, floor: float) -> None:
        """A result comes in: it is late, or says something about the phase it belongs to."""
        self.wake(now)
        if self.is_late(ticket):
            self.late += effect != IGNORED
        elif ticket.kind == "normal":
            self.count(ticket, effect, now, floor)
        else:
            self.settle_probe(ticket, effect, now, floor)

    def count(self, ticket: Ticket, effect: Effect, now: float, floor: float) -> None:
        """A result while closed, or forced closed."""
        assert isinstance(self.phase, Closed)
        if effect == IGNORED:
            return
        self.phase.results.append((now, effect == FAILURE))
        if effect == FAILURE and not self.phase.forced and self.is_too_bad(now):
            self.trip(ticket, now, floor)

    def settle_probe(self, probe: Ticket, effect: Effect, now: float, floor: float) -> None:
        """A result of a probe or an early probe."""
        if isinstance(self.phase, Open):
            self.phase.early = None
            if effect == SUCCESS:
                self.phases.append(HalfOpen())
                self.answer(now)
        elif isinstance(self.phase, HalfOpen):
            self.phase.probes.remove(probe)
            if effect == SUCCESS:
                self.answer(now)
            if effect == FAILURE:
                self.trip(probe, now, floor)

    def answer(self, now: float) -> None:
        """A probe was answered."""
        assert isinstance(self.phase, HalfOpen)
        self.phase.answered += 1
        if self.phase.answered == self.rules.successes:
            self.close(now)

    def close(self, now: float, *, forced: bool = False) -> None:
        """Start with an empty list of results."""
        self.phases.append(Closed(now + 60.0, forced))

    def trip(self, failed: Ticket, at: float, floor: float) -> None:
        """Open, for how long the failed call, the trips and the server say."""
        draw = DRAWS[sum(isinstance(phase, Open) for phase in self.phases) % len(DRAWS)]
        self.trips += 1
        cap = sorted([15.0, 20 * (at - failed.start), 60.0])[1]
        seconds = min(cap, 5.0 * 2 ** (self.trips - 1)) * (1 + draw / 10)
        self.phases.append(Open(at + max(seconds, min(floor, 300.0))))

    # --- orders ---

    def is_forced(self) -> bool:
        """Whether an operator's order holds."""
        return isinstance(self.phase, Shut) or (isinstance(self.phase, Closed) and self.phase.forced)

    def obey(self, order: str, now: float, until: float | None) -> None:
        """What the four orders do."""
        self.wake(now)
        if order == "force_open":
            self.phases.append(Shut(until))
        elif order == "force_close" and not isinstance(self.phase, Shut):
            self.close(now, forced=True)
        elif order == "unforce" and self.is_forced():
            self.close(now)
        elif order == "reset":
            self.trips = 0
            self.close(now)

    # --- counts ---

    def closed_results(self) -> list[tuple[float, bool]]:
        """The results since it was last closed."""
        return next(phase.results for phase in reversed(self.phases) if isinstance(phase, Closed))

    def run(self) -> list[float]:
        """When the failures at the end happened, the newest first."""
        return [when for when, _ in takewhile(lambda result: result[1], reversed(self.closed_results()))]

    def recent(self) -> list[bool]:
        """Whether they failed: the calls of the newest 6-second slot and of the nine before it."""
        results = self.closed_results()
        newest = results[-1][0] // 6 if results else 0
        return [failed for when, failed in results if when // 6 > newest - 10]

    def is_too_bad(self, now: float) -> bool:
        """The three rules."""
        rules, run, recent = self.rules, self.run(), self.recent()
        return (
            len(run) >= rules.consecutive
            or (len(run) >= rules.consecutive_slow and now - run[-1] >= 1.0)
            or (len(recent) >= rules.minimum_calls and sum(recent) / len(recent) >= 0.5)
        )

    # --- what must be seen of it ---

    def state(self, phase: Phase) -> CircuitState:
        """The name of a phase."""
        match phase:
            case Closed(forced=True):
                return CircuitState.FORCED_CLOSED
            case Closed():
                return CircuitState.CLOSED
            case Open():
                return CircuitState.OPEN
            case HalfOpen():
                return CircuitState.HALF_OPEN
        return CircuitState.FORCED_OPEN

    def outlook(self, now: float) -> Outlook:
        """What a call at this time would meet."""
        future = self
        if self.timer()[0] <= now:
            future = deepcopy(self)
            future.wake(now)
        phase = future.phase
        retry_at = None
        if isinstance(phase, Open):
            retry_at = phase.until if now < phase.until or not phase.early else phase.early.lease_end
        elif isinstance(phase, HalfOpen) and len(phase.probes) == self.rules.probes:
            retry_at = min(probe.lease_end for probe in phase.probes)
        elif isinstance(phase, Shut):
            retry_at = phase.until
        return Outlook(self.state(phase), retry_at)

    def figures(self) -> dict[str, Any]:
        """What a snapshot must show."""
        phase = self.phase
        return {
            "state": self.state(phase),
            "retry_at": phase.until if isinstance(phase, Open | Shut) else None,
            "generation": len(self.phases) - 1,
            "trips": self.trips,
            "late_results": self.late,
            "probes_in_flight": len(getattr(phase, "probes", ())) + bool(getattr(phase, "early", None)),
            "successes": getattr(phase, "answered", 0),
            "consecutive_failures": len(self.run()),
            "window_calls": len(self.recent()),
            "window_failures": sum(self.recent()),
        }


# --- the machine -----------------------------------------------------------------------------------------------------

SETTINGS = st.builds(
    BreakerSettings,
    probes=st.sampled_from([1, 2, 1, 3]),
    successes=st.sampled_from([2, 2, 1, 3]),
    consecutive=st.sampled_from([5, 5, 50]),
    consecutive_slow=st.sampled_from([3, 3, 50]),
    minimum_calls=st.sampled_from([10, 4]),
)
SECONDS = st.sampled_from([0.25, 0.5, 1.0, 4.75, 5.0, 6.0, 15.0, 35.0, 60.0, 130.0, 400.0])
EFFECTS = st.sampled_from([FAILURE, SUCCESS, FAILURE, IGNORED])
TIMEOUTS = st.sampled_from([1.0, 4.0, 30.0, 600.0])
BURSTS = st.lists(EFFECTS, min_size=3, max_size=20)
LASTING = st.sampled_from([0.0, 0.0, 1.5])
ORDERS = st.sampled_from(["force_open", "force_close", "unforce", "reset"])
LATE = st.sampled_from([0.0, 0.0, 0.25])
FLOORS = st.sampled_from([0.0, 0.0, 20.0, 900.0])

Pair = tuple[Permit, Ticket]


class BreakerMachine(RuleBasedStateMachine):
    """Does the same to the breaker and to the model. Times are multiples of 0.25 s, hence exact."""

    breaker_class: type[CircuitBreaker] = CircuitBreaker  # mutants are put here
    live = Bundle("live")
    probes = Bundle("probes")  # and early probes: what is in flight in the intricate states
    settled = Bundle("settled")

    @initialize(rules=SETTINGS)
    def start(self, rules: BreakerSettings) -> None:
        """Any sensible settings."""
        self.now = 1_000.0
        self.longest_open = 1.1 * rules.open_cap_max
        self.seen: list[CircuitState] = []
        self.breaker = self.breaker_class(
            "target",
            rules,
            listener=lambda transition: self.seen.append(transition.after),
            jitter=cycle(DRAWS).__next__,
        )
        self.model = Model(rules)

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        """Time passes, unseen."""
        self.now += seconds

    @rule(late=LATE)
    def wait(self, late: float) -> None:
        """Time passes until a call is worth while again."""
        retry_at = self.breaker.peek(self.now).retry_at
        if retry_at is not None:
            self.wait_until(retry_at + late)

    @rule(target=live, timeout=TIMEOUTS, early=st.booleans())
    def acquire(self, timeout: float, early: bool) -> Any:
        """Both admit, or both reject, and `peek` knew."""
        foreseen = self.breaker.peek(self.now)
        answer = self.breaker.try_acquire(self.now, timeout=timeout, early=early)
        ticket = self.model.acquire(self.now, timeout, early=early)
        self.compare()
        if isinstance(answer, Permit):
            assert ticket is not None, f"the breaker admits {answer}, the model does not"
            assert (ticket.kind, ticket.start, ticket.lease_end) == (answer.kind, answer.t0, answer.lease_end)
            return answer, ticket
        assert ticket is None, f"the model admits {ticket}, the breaker does not"
        assert foreseen.retry_at == answer.retry_at
        assert (foreseen.state == CircuitState.FORCED_OPEN) == answer.forced
        return multiple()

    @precondition(lambda self: isinstance(self.model.phase, Open | HalfOpen))
    @rule(target=probes, timeout=TIMEOUTS, early=st.sampled_from([True, True, False]))
    def probe(self, timeout: float, early: bool) -> Any:
        """The same, more often where it is most intricate."""
        return self.acquire(timeout=timeout, early=early)

    @rule(target=settled, pair=consumes(live), effect=EFFECTS, floor=FLOORS, look=st.booleans())
    def settle(self, pair: Pair, effect: Effect, floor: float, look: bool) -> Any:
        """A late result moves nothing but its own count, whether or not anybody looked at the time before."""
        permit, ticket = pair
        if look:
            self.tick()
        frozen = self.breaker.snapshot()
        late = self.model.is_late(ticket)
        self.record(permit, ticket, effect, floor)
        if look and late:
            assert replace(frozen, late_results=frozen.late_results + (effect != IGNORED)) == self.breaker.snapshot()
        return pair

    @rule(target=settled, pair=consumes(probes), effect=EFFECTS, floor=FLOORS, look=st.booleans())
    def settle_probe(self, pair: Pair, effect: Effect, floor: float, look: bool) -> Any:
        """The same."""
        return self.settle(pair=pair, effect=effect, floor=floor, look=look)

    @rule(target=settled, pair=consumes(probes), effect=EFFECTS, late=LATE, look=st.booleans())
    def outlive_lease(self, pair: Pair, effect: Effect, late: float, look: bool) -> Any:
        """The same, when the lease has just ended."""
        self.wait_until(min(pair[1].lease_end, self.now + 130) + late)
        return self.settle(pair=pair, effect=effect, floor=0.0, look=look)

    @rule(pair=settled, effect=EFFECTS)
    def settle_again(self, pair: Pair, effect: Effect) -> None:
        """Only the first time counts."""
        before = self.breaker.snapshot()
        self.breaker.record(pair[0], effect, self.now)
        assert before == self.breaker.snapshot()

    @rule(pair=consumes(probes))
    def lose(self, pair: Pair) -> None:
        """The thread died: nobody will settle this permit."""

    @rule(effects=BURSTS, gap=st.sampled_from([0.0, 0.5, 5.0]), lasting=LASTING, floor=FLOORS)
    def burst(self, effects: list[Effect], gap: float, lasting: float, floor: float) -> None:
        """Calls one after the other, each of which lasts."""
        for effect in effects:
            pair = self.acquire(timeout=30.0, early=False)
            self.now += lasting
            if isinstance(pair, tuple):
                self.record(pair[0], pair[1], effect, floor)
            self.now += gap

    @precondition(lambda self: isinstance(self.model.phase, Closed))
    @rule(again=st.booleans(), lasting=LASTING, floor=FLOORS)
    def outage(self, again: bool, lasting: float, floor: float) -> None:
        """The way into the intricate states."""
        self.burst(effects=[FAILURE] * 5, gap=0.0, lasting=lasting, floor=floor)
        if again:
            self.wait(late=0.0)

    @rule(order=ORDERS, seconds=st.one_of(st.none(), SECONDS))
    def obey(self, order: str, seconds: float | None) -> None:
        """An operator's order, whatever the state. All in one rule, or most programs would be nothing but orders."""
        until = None if seconds is None else self.now + seconds
        getattr(self.breaker, order)(self.now, **({"until": until} if order == "force_open" else {}))
        self.model.obey(order, self.now, until)
        self.compare()

    @precondition(lambda self: self.model.is_forced())
    @rule()
    def relent(self) -> None:
        """The way out of the dull states."""
        self.obey(order="unforce", seconds=None)

    @invariant()
    def foresight(self) -> None:
        """`peek` says what the model's future is, and moves nothing."""
        before = self.breaker.snapshot()

        assert self.model.outlook(self.now) == self.breaker.peek(self.now)
        assert before == self.breaker.snapshot()

    def teardown(self) -> None:
        """Whatever happened: with a healthy server it is closed within the longest open time and two leases."""
        if not hasattr(self, "model"):
            return
        self.breaker.unforce(self.now)
        limit = self.now + self.longest_open + 2 * self.breaker.settings.lease_max
        while self.breaker.snapshot().state != CircuitState.CLOSED:
            answer = self.breaker.try_acquire(self.now)
            if isinstance(answer, Permit):
                self.breaker.record(answer, SUCCESS, self.now)
            else:
                self.now += 1.0

            assert self.now <= limit, f"still {self.breaker.snapshot()}"

    # --- parts of the rules ---

    def wait_until(self, when: float) -> None:
        """To the next quarter of a second."""
        self.now = max(self.now, ceil(when * 4) / 4)

    def tick(self) -> None:
        """Let both catch up with time, and nothing else."""
        with self.breaker._lock:
            self.breaker._tick_locked(self.now)
        self.model.wake(self.now)
        self.breaker._deliver()
        self.compare()

    def record(self, permit: Permit, ticket: Ticket, effect: Effect, floor: float) -> None:
        """Tell both."""
        self.longest_open = max(self.longest_open, min(floor, 300.0))
        self.breaker.record(permit, effect, self.now, floor=floor)
        self.model.settle(ticket, effect, self.now, floor)
        self.compare()

    def compare(self) -> None:
        """Every figure, and every transition so far."""
        snapshot = self.breaker.snapshot()

        assert self.model.figures() == {name: getattr(snapshot, name) for name in self.model.figures()}
        assert [self.model.state(phase) for phase in self.model.phases[1:]] == self.seen


class TestBreakerMachine(BreakerMachine.TestCase):  # type: ignore[misc,valid-type]
    """Any program does the same to the breaker as to the model."""

    settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


# --- metamorphic -----------------------------------------------------------------------------------------------------

STEP = st.tuples(st.sampled_from([0.0, 0.5, 2.0, 8.0, 30.0]), st.sampled_from([0.0, 0.5, 3.0]), EFFECTS)


def play(program: list[tuple[float, float, Effect]], *, extra: list[int]) -> list[object]:
    """Calls one after the other: a gap, then a call that lasts. In the gaps numbered in `extra`, an ignored call."""
    transitions: list[object] = []
    breaker = CircuitBreaker("target", BreakerSettings(), listener=transitions.append, jitter=lambda: 0.5)
    now = 1_000.0
    for number, (gap, lasting, effect) in enumerate(program):
        if number in extra and isinstance(answer := breaker.try_acquire(now + gap / 2), Permit):
            breaker.record(answer, IGNORED, now + gap / 2)
        now += gap
        answer = breaker.try_acquire(now)
        if isinstance(answer, Permit):
            now += lasting
            breaker.record(answer, effect, now)
    return transitions


@given(program=st.lists(STEP, max_size=40), extra=st.lists(st.integers(0, 39)))
@settings(deadline=None)
def test_ignored_results_change_no_verdict(program: list[tuple[float, float, Effect]], extra: list[int]) -> None:
    """Calls that say nothing, put in anywhere, change no transition, neither what nor when; nor does looking often."""
    assert play(program, extra=[]) == play(program, extra=extra)


@given(data=st.data(), failures=st.integers(1, 10))
@settings(deadline=None)
def test_the_order_of_results_does_not_matter_to_the_rate(data: st.DataObject, failures: int) -> None:
    """Of ten calls in flight together, the rate rule counts how many failed, not in which order they came back."""
    rules = BreakerSettings(consecutive=100, consecutive_slow=100)
    effects = [FAILURE] * (failures - 1) + [SUCCESS] * (10 - failures)
    order = [*data.draw(st.permutations(effects)), FAILURE]  # the rule is asked when a failure comes in
    breaker = CircuitBreaker("target", rules)
    permits = [breaker.try_acquire(1_000.0) for _ in order]
    for permit, effect in zip(data.draw(st.permutations(permits)), order, strict=True):
        assert isinstance(permit, Permit)
        breaker.record(permit, effect, 1_001.0)

    assert (CircuitState.OPEN if failures >= 5 else CircuitState.CLOSED) == breaker.snapshot().state
