"""The circuit breaker: the state table, cell by cell, and the promises around it."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.config.schema import BreakerSettings
from holyroute.core.verdicts import Effect
from holyroute.resilience.breaker import CircuitBreaker
from holyroute.resilience.circuit import CircuitState, Permit, Rejected, Transition
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUCCESS, FAILURE, IGNORED = Effect.SUCCESS, Effect.FAILURE, Effect.IGNORED
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
FORCED_OPEN, FORCED_CLOSED = CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED


class Rig:
    """A breaker, its clock, and what its listener heard."""

    def __init__(self, jitter: float = 0.0, **rules: Any) -> None:
        self.clock = FakeClock()
        self.transitions: list[Transition] = []
        self.breaker = CircuitBreaker(
            "target", BreakerSettings(**rules), listener=self.transitions.append, jitter=lambda: jitter
        )

    @property
    def state(self) -> CircuitState:
        """What a call would meet now."""
        return self.breaker.peek(self.clock.now()).state

    @property
    def open_for(self) -> float:
        """Seconds left until the open end."""
        retry_at = self.breaker.snapshot().retry_at

        assert retry_at is not None
        return retry_at - self.clock.now()

    def ask(self, **how: Any) -> Permit | Rejected:
        """Ask for leave now."""
        return self.breaker.try_acquire(self.clock.now(), **how)

    def acquire(self, **how: Any) -> Permit:
        """Ask, and be admitted."""
        answer = self.ask(**how)

        assert isinstance(answer, Permit)
        return answer

    def record(self, permit: Permit, effect: Effect, *, floor: float = 0.0) -> None:
        """Settle now."""
        self.breaker.record(permit, effect, self.clock.now(), floor=floor)

    def call(self, *effects: Effect, lasting: float = 0.0, floor: float = 0.0) -> None:
        """Calls one after the other."""
        for effect in effects:
            permit = self.acquire()
            self.clock.advance(lasting)
            self.record(permit, effect, floor=floor)

    def wait(self) -> None:
        """Until the open time is over."""
        self.clock.advance(self.open_for)


def rig_in(state: CircuitState) -> tuple[Rig, Permit]:
    """A breaker in a state, and a permit from before it came there."""
    rig = Rig()
    old = rig.acquire()
    now = rig.clock.now()
    if state is CLOSED:
        rig.breaker.reset(now)
        rig.call(FAILURE)
    elif state is FORCED_OPEN:
        rig.breaker.force_open(now)
    elif state is FORCED_CLOSED:
        rig.breaker.force_close(now)
        rig.call(FAILURE)
    else:
        rig.call(*[FAILURE] * 5)
        if state is HALF_OPEN:
            rig.wait()
            rig.record(rig.acquire(), IGNORED)

    assert state is rig.breaker.snapshot().state
    return rig, old


def changes(rig: Rig, act: Callable[[], object]) -> dict[str, Any]:
    """What an action changes in the snapshot."""
    before = asdict(rig.breaker.snapshot())
    act()
    return {name: value for name, value in asdict(rig.breaker.snapshot()).items() if value != before[name]}


# --- the state table -------------------------------------------------------------------------------------------------

COUNTED: dict[str, Any] = {"window_calls": 2, "consecutive_failures": 0}
FAILED: dict[str, Any] = {"window_calls": 2, "window_failures": 2, "consecutive_failures": 2}

RESULTS: list[tuple[CircuitState, Effect, dict[str, Any]]] = [
    (CLOSED, SUCCESS, COUNTED),
    (CLOSED, FAILURE, FAILED),
    (CLOSED, IGNORED, {}),
    (OPEN, SUCCESS, {"state": HALF_OPEN, "retry_at": None, "generation": 2, "successes": 1}),
    (OPEN, FAILURE, {}),
    (OPEN, IGNORED, {}),
    (HALF_OPEN, SUCCESS, {"successes": 1}),
    (HALF_OPEN, FAILURE, {"state": OPEN, "retry_at": 1_015.0, "generation": 3, "trips": 2}),
    (HALF_OPEN, IGNORED, {}),
    (FORCED_CLOSED, SUCCESS, COUNTED),
    (FORCED_CLOSED, FAILURE, FAILED),
    (FORCED_CLOSED, IGNORED, {}),
]


@pytest.mark.parametrize(("state", "effect", "expected"), RESULTS)
def test_a_result_does_what_the_table_says(state: CircuitState, effect: Effect, expected: dict[str, Any]) -> None:
    """A result of the present generation changes what its cell names, no more. In open: of an early probe."""
    rig, _ = rig_in(state)

    assert expected == changes(rig, lambda: rig.record(rig.acquire(early=True), effect))


@pytest.mark.parametrize("state", CircuitState)
@pytest.mark.parametrize(("effect", "expected"), [(SUCCESS, 1), (FAILURE, 1), (IGNORED, 0)])
def test_a_late_result_is_only_counted(state: CircuitState, effect: Effect, expected: int) -> None:
    """A call from before the state changed moves nothing when it ends; one that says nothing is not counted."""
    rig, old = rig_in(state)

    assert ({"late_results": expected} if expected else {}) == changes(rig, lambda: rig.record(old, effect))


def test_closed_and_forced_closed_admit_everybody() -> None:
    """While closed, by results or by force, any number of calls is in flight at the same time."""
    for state in (CLOSED, FORCED_CLOSED):
        rig, _ = rig_in(state)
        kinds = {rig.acquire(early=early).kind for early in (False, True) for _ in range(50)}

        assert {"normal"} == kinds


def test_open_rejects_until_its_end_and_says_when() -> None:
    """An open breaker names the time from which a call is worth while, and keeps to it."""
    rig, _ = rig_in(OPEN)
    rejected = Rejected(retry_at=1_005.0)

    assert rejected == rig.ask()
    rig.clock.advance(4.75)
    assert rejected == rig.ask()
    rig.clock.advance(0.25)
    assert rig.acquire().kind == "probe"


def test_half_open_admits_one_probe_and_says_how_long_the_rest_waits() -> None:
    """While a probe is in flight everybody else is told when its lease ends."""
    rig, _ = rig_in(HALF_OPEN)
    probe = rig.acquire(timeout=30.0)

    assert rig.clock.now() + 35.0 == probe.lease_end
    assert Rejected(retry_at=probe.lease_end) == rig.ask()
    assert Rejected(retry_at=probe.lease_end) == rig.ask(early=True)


def test_several_probes_where_the_settings_say_so() -> None:
    """`probes` are in flight together; the rest waits for the earliest lease; one failure makes the others late."""
    rig = Rig(probes=3)
    rig.call(*[FAILURE] * 5)
    rig.wait()
    probes = [rig.acquire(timeout=timeout) for timeout in (30.0, 10.0, 20.0)]

    assert Rejected(retry_at=probes[1].lease_end) == rig.ask()
    rig.record(probes[0], FAILURE)
    assert changes(rig, lambda: rig.record(probes[1], SUCCESS)) == {"late_results": 1}


def test_forced_open_rejects_everybody() -> None:
    """Nobody passes, not even early; without an end nobody knows when."""
    rig, _ = rig_in(FORCED_OPEN)
    rig.clock.advance(1e6)

    assert Rejected(retry_at=None, forced=True) == rig.ask()
    assert Rejected(retry_at=None, forced=True) == rig.ask(early=True)


ORDERS = ["force_open", "force_close", "unforce", "reset"]
AFTER: dict[CircuitState, list[CircuitState | None]] = {
    CLOSED: [FORCED_OPEN, FORCED_CLOSED, None, CLOSED],
    OPEN: [FORCED_OPEN, FORCED_CLOSED, None, CLOSED],
    HALF_OPEN: [FORCED_OPEN, FORCED_CLOSED, None, CLOSED],
    FORCED_OPEN: [FORCED_OPEN, None, CLOSED, CLOSED],
    FORCED_CLOSED: [FORCED_OPEN, FORCED_CLOSED, CLOSED, CLOSED],
}


@pytest.mark.parametrize("state", CircuitState)
@pytest.mark.parametrize("order", ORDERS)
def test_an_order_does_what_the_table_says(state: CircuitState, order: str) -> None:
    """Orders lead where the table says and start a new generation; force_open beats force_close; None: no effect."""
    rig, _ = rig_in(state)
    expected = AFTER[state][ORDERS.index(order)]
    before = rig.breaker.snapshot()
    getattr(rig.breaker, order)(rig.clock.now())
    after = rig.breaker.snapshot()

    if expected is None:
        assert before == after
    else:
        assert (expected, before.generation + 1) == (after.state, after.generation)


def test_time_moves_what_the_table_says() -> None:
    """Ages later only open has moved, to half-open, and trips have decayed; looking on its own moved nothing."""
    expected = {state: state for state in CircuitState} | {OPEN: HALF_OPEN}
    rigs = {state: rig_in(state)[0] for state in CircuitState}
    for rig in rigs.values():
        rig.clock.advance(1e6)

    assert expected == {state: rig.state for state, rig in rigs.items()}
    assert {state: state for state in CircuitState} == {
        state: rig.breaker.snapshot().state for state, rig in rigs.items()
    }


# --- when it opens ---------------------------------------------------------------------------------------------------


def test_five_failures_at_once_open() -> None:
    """Five failures in a row open, however close together; four do not."""
    rig = Rig()
    rig.call(*[FAILURE] * 4)

    assert CLOSED is rig.state
    rig.call(FAILURE)
    assert OPEN is rig.state
    assert [transition.reason for transition in rig.transitions] == ["5 failures in a row"]


@pytest.mark.parametrize(("gap", "expected"), [(0.25, CLOSED), (0.5, OPEN), (3.0, OPEN)])
def test_three_failures_open_if_they_span_a_second(gap: float, expected: CircuitState) -> None:
    """Three failures in a row are a fault if a second or more lies between the first and the last, else a hiccup."""
    rig = Rig()
    rig.call(FAILURE)
    rig.clock.advance(gap)
    rig.call(FAILURE)
    rig.clock.advance(gap)
    rig.call(FAILURE)

    assert expected is rig.state


def test_the_span_is_that_of_the_run() -> None:
    """A failure before the last success is no part of the run."""
    rig = Rig()
    rig.call(FAILURE)
    rig.clock.advance(10.0)
    rig.call(SUCCESS, FAILURE, FAILURE, FAILURE)

    assert CLOSED is rig.state


def test_ignored_results_neither_end_nor_lengthen_a_run() -> None:
    """`fail, fail, 400` again and again opens: a 400 proves nothing about the target."""
    rig = Rig()
    rig.call(FAILURE, FAILURE, IGNORED, FAILURE, FAILURE, IGNORED)

    assert CLOSED is rig.state
    rig.call(FAILURE)
    assert OPEN is rig.state


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([SUCCESS, FAILURE] * 4 + [FAILURE], CLOSED),  # nine calls
        ([SUCCESS, FAILURE] * 5, OPEN),  # ten, half of them
        ([SUCCESS] + [SUCCESS, FAILURE] * 5, CLOSED),  # eleven, fewer than half
    ],
)
def test_half_of_ten_calls_open(effects: list[Effect], expected: CircuitState) -> None:
    """A share of one half of at least ten calls opens, without any run."""
    rig = Rig()
    rig.call(*effects)

    assert expected is rig.state


def test_what_is_older_than_the_window_does_not_count() -> None:
    """Ten calls, half of them failed, over more than a minute: no reason to open."""
    rig = Rig()
    rig.call(*[SUCCESS, FAILURE] * 2)
    rig.clock.advance(60.0)
    rig.call(*[SUCCESS, FAILURE] * 3)
    snapshot = rig.breaker.snapshot()

    assert (snapshot.state, snapshot.window_calls, snapshot.window_failures) == (CLOSED, 6, 3)


def test_a_time_before_the_newest_slot_counts_into_it() -> None:
    """Threads get the lock in another order than they read the clock: nothing is lost, nothing moves back."""
    rig = Rig()
    first, second = rig.acquire(), rig.acquire()
    rig.breaker.record(first, FAILURE, 1_020.0)
    rig.breaker.record(second, FAILURE, 1_000.0)
    snapshot = rig.breaker.snapshot()

    assert (snapshot.window_calls, snapshot.window_failures, snapshot.consecutive_failures) == (2, 2, 2)


# --- how long --------------------------------------------------------------------------------------------------------


def test_the_open_time_doubles_up_to_the_cap() -> None:
    """5, 10 and then 15 s, as long as probes fail at once."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    seconds = []
    for _ in range(5):
        seconds.append(rig.open_for)
        rig.wait()
        rig.call(FAILURE)

    assert seconds == [5.0, 10.0, 15.0, 15.0, 15.0]


@pytest.mark.parametrize(("lasting", "expected"), [(0.5, 15.0), (1.0, 20.0), (2.5, 50.0), (30.0, 60.0)])
def test_slow_probes_are_sent_more_rarely(lasting: float, expected: float) -> None:
    """The cap is 20 times what the failed probe took, between 15 and 60 s: probes cost at most 5 % of the time."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    for _ in range(5):
        rig.wait()
        rig.call(FAILURE, lasting=lasting)

    assert expected == rig.open_for


def test_the_failing_call_sets_the_cap_of_the_first_open_time() -> None:
    """Also what opened while closed counts with its duration."""
    rig = Rig(open_time=40.0)
    rig.call(*[FAILURE] * 2, lasting=0.0)
    rig.call(FAILURE, lasting=1.5)

    assert rig.open_for == 30.0


def test_jitter_lengthens_by_a_tenth_at_most() -> None:
    """So that many processes do not probe in step."""
    for jitter, expected in [(0.0, 5.0), (0.5, 5.25), (1.0, 5.5)]:
        rig = Rig(jitter)
        rig.call(*[FAILURE] * 5)

        assert expected == rig.open_for


@pytest.mark.parametrize(
    ("floor", "expected"), [(2.0, 5.0), (42.0, 42.0), (86_400.0, 300.0), (-1.0, 5.0), (float("nan"), 5.0)]
)
def test_retry_after_is_a_floor(floor: float, expected: float) -> None:
    """The server's Retry-After lengthens the open time, up to 300 s, and never shortens it."""
    rig = Rig()
    rig.call(*[FAILURE] * 5, floor=floor)

    assert expected == rig.open_for


def test_endless_outages_do_not_overflow() -> None:
    """After thousands of trips the open time is still the cap."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    for _ in range(3_000):
        rig.wait()
        rig.call(FAILURE)

    assert (rig.breaker.snapshot().trips, rig.open_for) == (3_001, 15.0)


def recovered(rig: Rig) -> None:
    rig.wait()
    rig.call(SUCCESS, SUCCESS)

    assert CLOSED is rig.state


def test_flapping_stays_expensive() -> None:
    """Closing forgets the window, not the trips: who fails again at once is left alone for longer."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    recovered(rig)
    snapshot = rig.breaker.snapshot()

    assert (snapshot.trips, snapshot.window_calls, snapshot.consecutive_failures) == (1, 0, 0)
    rig.call(*[FAILURE] * 5)
    assert rig.open_for == 10.0


@pytest.mark.parametrize(("seconds", "expected"), [(59.75, 15.0), (60.0, 10.0), (120.0, 5.0), (9_000.0, 5.0)])
def test_trips_decay_while_closed(seconds: float, expected: float) -> None:
    """Every minute spent closed takes one trip back."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    rig.wait()
    rig.call(FAILURE)
    recovered(rig)
    rig.clock.advance(seconds)
    rig.call(*[FAILURE] * 5)

    assert expected == rig.open_for


# --- how it comes back -----------------------------------------------------------------------------------------------


def test_two_successes_close() -> None:
    """One answered probe might be luck; the second closes, and the listener heard the whole story."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    rig.wait()
    rig.call(SUCCESS)

    assert HALF_OPEN is rig.state
    rig.call(SUCCESS)
    assert CLOSED is rig.state
    assert [
        Transition("target", CLOSED, OPEN, 1_000.0, 1_005.0, "5 failures in a row"),
        Transition("target", OPEN, HALF_OPEN, 1_005.0, None, "open time over"),
        Transition("target", HALF_OPEN, CLOSED, 1_005.0, None, "probes answered"),
    ] == rig.transitions


def test_a_probe_that_says_nothing_gives_its_slot_back() -> None:
    """A probe whose thread died properly, or that got a 400: the next call probes at once."""
    rig, _ = rig_in(HALF_OPEN)
    rig.record(rig.acquire(), IGNORED)

    assert rig.acquire().kind == "probe"


@pytest.mark.parametrize(("timeout", "lease"), [(1.0, 6.0), (60.0, 65.0), (600.0, 120.0)])
def test_a_lost_probe_opens_again_when_its_lease_ends(timeout: float, lease: float) -> None:
    """A probe that never returns blocks nobody for longer than its timeout and 5 s, 120 s at most."""
    rig, _ = rig_in(HALF_OPEN)
    probe = rig.acquire(timeout=timeout)
    rig.clock.advance(lease - 0.25)

    assert HALF_OPEN is rig.state
    rig.clock.advance(0.25)
    assert Rejected(retry_at=probe.lease_end + 10.0) == rig.ask()
    assert changes(rig, lambda: rig.record(probe, SUCCESS)) == {"late_results": 1}


def test_nobody_looking_changes_nothing() -> None:
    """A lost probe opens when its lease ends, not when somebody notices: an hour later the next call probes."""
    rig, _ = rig_in(HALF_OPEN)
    lost = rig.acquire()
    rig.clock.advance(3_600.0)

    assert rig.acquire().kind == "probe"
    assert [
        ("probe lost", lost.lease_end, lost.lease_end + 10.0),
        ("open time over", lost.lease_end + 10.0, None),
    ] == [(transition.reason, transition.at, transition.retry_at) for transition in rig.transitions[-2:]]


def test_a_permit_settles_once() -> None:
    """Whatever is recorded for a permit the second time is dropped."""
    rig = Rig()
    permit = rig.acquire()
    rig.record(permit, SUCCESS)

    assert changes(rig, lambda: rig.record(permit, FAILURE)) == {}


# --- forced ----------------------------------------------------------------------------------------------------------


def test_forced_open_until_then_half_open() -> None:
    """A force with an end gives way to a probe."""
    rig = Rig()
    rig.breaker.force_open(rig.clock.now(), until=1_090.0)

    assert Rejected(retry_at=1_090.0, forced=True) == rig.ask()
    rig.clock.advance(90.0)
    assert rig.acquire().kind == "probe"


def test_forced_closed_never_opens_and_forgets_afterwards() -> None:
    """Failures under force are counted, open nothing, and are not held against the target later."""
    rig = Rig()
    rig.breaker.force_close(rig.clock.now())
    rig.call(*[FAILURE] * 100)

    assert (rig.state, rig.breaker.snapshot().window_failures) == (FORCED_CLOSED, 100)
    rig.breaker.unforce(rig.clock.now())
    rig.call(*[FAILURE] * 4)
    assert CLOSED is rig.state


def test_reset_forgets_the_trips() -> None:
    """After a reset the next outage starts with 5 s again."""
    rig = Rig()
    rig.call(*[FAILURE] * 5)
    rig.wait()
    rig.call(FAILURE)
    rig.breaker.reset(rig.clock.now())
    rig.call(*[FAILURE] * 5)

    assert rig.open_for == 5.0


# --- early probes ----------------------------------------------------------------------------------------------------


def test_early_probes_come_one_at_a_time_and_one_a_second() -> None:
    """While one is in flight no other passes, and the next not within a second of its start."""
    rig, _ = rig_in(OPEN)
    first = rig.acquire(early=True)
    rig.clock.advance(2.0)

    assert ("early", Rejected(retry_at=1_005.0)) == (first.kind, rig.ask(early=True))
    rig.record(first, FAILURE)
    second = rig.acquire(early=True)
    rig.record(second, FAILURE)
    rig.clock.advance(0.75)
    assert Rejected(retry_at=1_005.0) == rig.ask(early=True)
    rig.clock.advance(0.25)
    assert rig.acquire(early=True).kind == "early"


def test_an_early_failure_changes_nothing() -> None:
    """The open time grows no longer and ends when it would have ended."""
    rig, _ = rig_in(OPEN)
    rig.record(rig.acquire(early=True), FAILURE, floor=300.0)

    assert (rig.breaker.snapshot().retry_at, rig.breaker.snapshot().trips) == (1_005.0, 1)


def test_an_early_success_is_the_first_of_two() -> None:
    """An early answer leads to half-open; one probe more closes. With `successes=1` it closes at once."""
    rig, _ = rig_in(OPEN)
    rig.record(rig.acquire(early=True), SUCCESS)
    rig.call(SUCCESS)

    assert CLOSED is rig.state
    rig = Rig(successes=1)
    rig.call(*[FAILURE] * 5)
    rig.record(rig.acquire(early=True), SUCCESS)
    assert [transition.after for transition in rig.transitions] == [OPEN, HALF_OPEN, CLOSED]


def test_no_probe_beside_an_early_one() -> None:
    """The open end passes while an early probe is in flight: everybody waits for it, and its answer still counts."""
    rig, _ = rig_in(OPEN)
    early = rig.acquire(early=True, timeout=30.0)
    rig.clock.advance(20.0)

    assert Rejected(retry_at=early.lease_end) == rig.ask()
    assert OPEN is rig.state
    assert changes(rig, lambda: rig.record(early, SUCCESS)) == {
        "state": HALF_OPEN,
        "retry_at": None,
        "generation": 2,
        "probes_in_flight": 0,
        "successes": 1,
    }


def test_a_lost_early_probe_is_forgotten() -> None:
    """When its lease is over another may go, the open end stands, and its answer comes too late."""
    rig = Rig()
    rig.call(*[FAILURE] * 5, floor=60.0)
    lost = rig.acquire(early=True, timeout=5.0)
    rig.clock.advance(9.75)

    assert Rejected(retry_at=1_060.0) == rig.ask(early=True)
    rig.clock.advance(0.25)
    assert changes(rig, lambda: rig.record(lost, SUCCESS)) == {"late_results": 1, "probes_in_flight": 0}
    assert rig.acquire(early=True).kind == "early"


def test_early_is_an_ordinary_probe_once_the_open_time_is_over() -> None:
    """Who asks early too late gets the probe that everybody would get."""
    rig, _ = rig_in(OPEN)
    rig.wait()

    assert rig.acquire(early=True).kind == "probe"


# --- looking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", CircuitState)
@pytest.mark.parametrize("later", [0.0, 5.0, 64.0, 65.0, 500.0])
def test_peek_foresees_the_answer(state: CircuitState, later: float) -> None:
    """For any state and any time, with a probe lost or not, `peek` says what `try_acquire` then says."""
    for losses in (0, 1):
        rig, _ = rig_in(state)
        for _ in range(losses):
            rig.ask(early=True)
        rig.clock.advance(later)
        outlook = rig.breaker.peek(rig.clock.now())
        answer = rig.ask()

        assert outlook.admits == isinstance(answer, Permit)
        assert outlook.state is rig.breaker.snapshot().state
        assert outlook.retry_at == (answer.retry_at if isinstance(answer, Rejected) else None)


# --- the listener ----------------------------------------------------------------------------------------------------


def test_a_listener_that_raises_is_logged_and_hears_on(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a listener reaches the log and nobody else; the next transition is delivered."""
    heard: list[CircuitState] = []

    def fail(transition: Transition) -> None:
        heard.append(transition.after)
        raise RuntimeError("listener")

    breaker = CircuitBreaker("target", BreakerSettings(), listener=fail)
    with caplog.at_level(logging.ERROR, logger="holyroute"):
        breaker.force_open(1_000.0)
        breaker.unforce(1_001.0)

    assert heard == [FORCED_OPEN, CLOSED]
    assert caplog.messages == ["listener of breaker target failed"] * 2


def test_an_interrupted_listener_loses_nothing() -> None:
    """Ctrl-C inside a listener reaches the caller, and what was not yet delivered is delivered later, in order."""
    heard: list[CircuitState] = []

    def interrupt(transition: Transition) -> None:
        heard.append(transition.after)
        if len(heard) == 1:
            breaker.unforce(1_000.0)
            raise KeyboardInterrupt

    breaker = CircuitBreaker("target", BreakerSettings(), listener=interrupt)
    with pytest.raises(KeyboardInterrupt):
        breaker.force_open(1_000.0)
    breaker.force_close(1_001.0)

    assert heard == [FORCED_OPEN, CLOSED, FORCED_CLOSED]


def test_a_listener_may_call_the_breaker() -> None:
    """What it causes is delivered after it returns, not inside; the lock is free meanwhile."""
    heard: list[str] = []

    def lift(transition: Transition) -> None:
        heard.append(f"enter {transition.after}")

        assert not breaker._lock.locked()
        if transition.after is FORCED_OPEN:
            breaker.unforce(transition.at)
            breaker.force_close(transition.at)
        heard.append(f"leave {transition.after}")

    breaker = CircuitBreaker("target", BreakerSettings(), listener=lift)
    breaker.force_open(1_000.0)

    assert [
        *("enter forced open", "leave forced open"),
        *("enter closed", "leave closed"),
        *("enter forced closed", "leave forced closed"),
    ] == heard


def test_a_listener_that_blocks_holds_up_nobody() -> None:
    """While a listener hangs in one thread, calls and orders of others go on; it then gets the rest, in order."""
    entered, release = threading.Event(), threading.Event()
    heard: list[tuple[CircuitState, str]] = []

    def hang(transition: Transition) -> None:
        heard.append((transition.after, threading.current_thread().name))
        entered.set()
        release.wait()

    breaker = CircuitBreaker("target", BreakerSettings(), listener=hang)
    hanging = threading.Thread(target=breaker.force_open, args=(1_000.0,), name="hanging")
    hanging.start()
    entered.wait()
    breaker.unforce(1_001.0)
    permit = breaker.try_acquire(1_002.0)
    breaker.force_close(1_003.0)

    assert isinstance(permit, Permit)
    assert heard == [(FORCED_OPEN, "hanging")]
    release.set()
    hanging.join()
    assert heard == [(FORCED_OPEN, "hanging"), (CLOSED, "hanging"), (FORCED_CLOSED, "hanging")]


def test_many_threads_lose_and_reorder_no_transition() -> None:
    """Sixteen threads give orders at once: the listener hears every change, each beginning where the last ended."""
    heard: list[Transition] = []
    breaker = CircuitBreaker("target", BreakerSettings(), listener=heard.append)
    threads = [threading.Thread(target=give_orders, args=(breaker,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert breaker.snapshot().generation == len(heard)
    assert [transition.after for transition in heard[:-1]] == [transition.before for transition in heard[1:]]


def give_orders(breaker: CircuitBreaker) -> None:
    for _ in range(50):
        breaker.force_open(1_000.0)
        breaker.unforce(1_000.0)


# --- threads ---------------------------------------------------------------------------------------------------------


def unlocked_writes(breaker_class: type[CircuitBreaker]) -> list[str]:
    """What is written without the lock in a life with every kind of event."""
    written: list[str] = []

    class Audited(breaker_class):  # type: ignore[misc,valid-type]
        def __setattr__(self, name: str, value: object) -> None:
            if "_lock" in vars(self) and auditing and not self._lock.locked():
                written.append(name)
            super().__setattr__(name, value)

    auditing = False
    states: set[CircuitState] = set()
    breaker = Audited("target", BreakerSettings(), listener=lambda transition: states.add(transition.after))
    auditing = True
    now = 1_000.0
    for effect in [FAILURE] * 5 + [SUCCESS] * 3 + [FAILURE] * 9 + [IGNORED, SUCCESS]:
        answer = breaker.try_acquire(now, early=True)
        now += 1.0
        if isinstance(answer, Permit):
            breaker.record(answer, effect, now)
    for order in ORDERS:
        getattr(breaker, order)(now)

    assert {OPEN, HALF_OPEN, CLOSED, FORCED_OPEN} == states
    return written


def test_nothing_is_written_without_the_lock() -> None:
    """In a life with every kind of event each write happens under the lock."""
    assert unlocked_writes(CircuitBreaker) == []


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Threads that are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hasty_threads")
@pytest.mark.parametrize(("early", "kind"), [(False, "probe"), (True, "early")])
def test_exactly_one_probe_of_64_threads(early: bool, kind: str) -> None:
    """64 threads ask at the moment the open time ends, or early at one moment: one passes, in each of 1,000 rounds."""
    rounds, count = 1_000, 64
    passed: list[list[str]] = [[] for _ in range(rounds)]
    breakers = [rig_in(OPEN)[0].breaker for _ in range(rounds)]
    now = 1_001.0 if early else 1_005.0
    barrier = threading.Barrier(count)

    def ask() -> None:
        for breaker, kinds in zip(breakers, passed, strict=True):
            barrier.wait()
            answer = breaker.try_acquire(now, early=early)
            if isinstance(answer, Permit):
                kinds.append(answer.kind)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [[kind]] * rounds == passed
