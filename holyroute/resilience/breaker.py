"""The circuit breaker: leaves a failing target alone, and finds out cheaply when it is back.

Two steps, because a 503 is no exception: `try_acquire` before the call, `record` after it. The lock is held inside
each of the two and never in between, so that calls run side by side. Nothing here reads a clock: `now` is passed in, in
monotonic seconds. There are no timers: what time has brought is caught up with at the next `try_acquire` or `record`,
and takes effect at the moment it was due, so that how often anybody looks changes nothing.

A permit carries the *generation* it was given in. Every change of state starts a new one; a result of an older
generation says nothing about the present and is only counted (`late_results`). That idea is gobreaker's; the growing
and slowly decaying open time is Envoy's and gRPC's (A50), giving slots back is resilience4j's, ordered events outside
the lock are Polly's.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from holyroute.core.verdicts import Effect
from holyroute.resilience.window import RollingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.config.schema import BreakerSettings

    Listener = Callable[["Transition"], None]
    Jitter = Callable[[], float]  # from 0 to 1

FLOOR_MAX = 300.0  # seconds of Retry-After that are believed
DECAY = 60.0  # seconds spent closed that take one trip back: a target that flaps stays expensive
JITTER = 0.1  # share of the open time, so that many processes do not probe in step
PROBE_COST = 20.0  # open time per second of a failed probe: probes then cost at most 5 % of the time
DOUBLINGS = 30  # more would only overflow

logger = logging.getLogger("holyroute")


class CircuitState(StrEnum):
    """Whether calls pass, and who decided so: the results, or an operator (forced)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"


_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
_FORCED_OPEN, _FORCED_CLOSED = CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED


@dataclass(slots=True, eq=False)
class Permit:
    """Leave for one call; goes back to `record` exactly once (more often does no harm)."""

    generation: int
    kind: Literal["normal", "probe", "early"]
    t0: float  # monotonic
    lease_end: float = math.inf  # monotonic; a probe that is silent until then counts as failed
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """No leave."""

    retry_at: float | None  # monotonic: no earlier, unless a result or an operator moves the state; None: nobody knows
    forced: bool = False


class Outlook(NamedTuple):
    """What `try_acquire` would meet: the state, and the `retry_at` of a rejection."""

    state: CircuitState
    retry_at: float | None

    @property
    def admits(self) -> bool:
        """Whether a call would be let through."""
        return self.retry_at is None and self.state is not _FORCED_OPEN


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, forced or not. `before` equals `after` when an operator repeats an order."""

    name: str
    before: CircuitState
    after: CircuitState
    at: float  # monotonic; for what time brought, when it was due
    retry_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """The breaker as its last `try_acquire` or `record` left it; `peek` knows what time has brought since."""

    name: str
    state: CircuitState
    retry_at: float | None
    generation: int
    trips: int
    late_results: int
    probes_in_flight: int
    successes: int  # of probes since half-open
    consecutive_failures: int  # this and the next two: while calls last passed freely
    window_calls: int
    window_failures: int


class _Move(NamedTuple):
    state: CircuitState
    at: float
    reason: str
    retry_at: float | None = None


class CircuitBreaker:
    """One target's breaker; safe to share between threads.

    | state         | acquire                                | SUCCESS                    | FAILURE                    |
    |---------------|----------------------------------------|----------------------------|----------------------------|
    | closed        | admitted                               | counted; ends the run      | counted; may open          |
    | open          | rejected until `retry_at`, then        | early probe: half-open,    | early probe: nothing       |
    |               | half-open; or an early probe           | with one success           |                            |
    | half-open     | a probe if a slot is free, or rejected | slot free; enough of them  | open again, for longer     |
    |               | until the earliest lease ends          | close                      |                            |
    | forced open   | rejected                               | cannot occur               | cannot occur               |
    | forced closed | admitted                               | counted                    | counted; never opens       |

    IGNORED gives the slot back and counts nowhere. A probe that is silent for its whole lease counts as a failure.

    *Early probes* are for callers that have nobody else to ask: `try_acquire(early=True)` lets one through although the
    breaker is open, one at a time and one per `early_probe_interval`. While one is in flight the breaker stays open
    even past `retry_at`, so that there are never two probes at once; if its lease ends, it is forgotten.

    `listener` gets every `Transition`, in order, one at a time and outside the lock, in the thread of whoever caused it
    or of whoever is already delivering. It may call the breaker. Its exceptions are logged and dropped.
    """

    def __init__(
        self, name: str, settings: BreakerSettings, *, listener: Listener | None = None, jitter: Jitter = random.random
    ) -> None:
        self.name = name
        self.settings = settings
        self._listener = listener
        self._jitter = jitter
        self._lock = threading.Lock()
        self._outbox: deque[Transition] = deque()
        self._delivering = False
        self._state = _CLOSED
        self._retry_at: float | None = None
        self._generation = 0
        self._late_results = 0
        self._trips = 0
        self._decayed_at = 0.0
        self._draw = jitter()  # for the next trip, ahead of it, so that `peek` foresees the same open time
        self._window = RollingWindow(settings.window)
        self._consecutive = 0
        self._run_began = 0.0
        self._in_flight: list[Permit] = []  # permits with a lease: probes in half-open, at most one early probe in open
        self._successes = 0
        self._early_at = -math.inf

    def try_acquire(self, now: float, *, timeout: float = 60.0, early: bool = False) -> Permit | Rejected:
        """Ask for leave; never waits.

        `timeout` is the attempt's, in seconds, and decides how long a silent probe keeps its slot. `early` asks for a
        probe before the open time is over.
        """
        with self._lock:
            self._tick_locked(now)
            answer = self._answer_locked(now, timeout, early)
        if self._outbox:
            self._deliver()
        return answer

    def record(self, permit: Permit, effect: Effect, now: float, *, floor: float = 0.0) -> None:
        """Settle a permit; only the first time counts.

        `floor` is the server's Retry-After in seconds (believed up to 300): if this result opens the breaker, it stays
        open for at least that long.
        """
        with self._lock:
            if permit.settled:
                return
            permit.settled = True
            self._tick_locked(now)
            if not self._is_current_locked(permit):
                self._late_results += effect is not Effect.IGNORED
            elif permit.kind == "normal":
                self._count_locked(permit, effect, now, floor)
            else:
                self._settle_probe_locked(permit, effect, now, floor)
        if self._outbox:
            self._deliver()

    def peek(self, now: float) -> Outlook:
        """Foresee what `try_acquire` would meet, and move nothing."""
        with self._lock:
            if due := self._due_locked(now):
                return Outlook(due[-1].state, due[-1].retry_at)
            return Outlook(self._state, None if self._admits_locked() else self._reject_locked(now).retry_at)

    def snapshot(self) -> BreakerSnapshot:
        """Copy the figures, and move nothing."""
        with self._lock:
            return BreakerSnapshot(
                name=self.name,
                state=self._state,
                retry_at=self._retry_at,
                generation=self._generation,
                trips=self._trips,
                late_results=self._late_results,
                probes_in_flight=len(self._in_flight),
                successes=self._successes,
                consecutive_failures=self._consecutive,
                window_calls=self._window.calls,
                window_failures=self._window.failures,
            )

    def force_open(self, now: float, *, until: float | None = None) -> None:
        """Reject every call, until a monotonic time (then half-open) or until `unforce` or `reset`."""
        with self._lock:
            self._tick_locked(now)
            self._move_locked(_Move(_FORCED_OPEN, now, "forced open", until))
        self._deliver()

    def force_close(self, now: float) -> None:
        """Admit every call until `unforce`, `force_open` or `reset`; without effect while forced open: `unforce` it."""
        with self._lock:
            self._tick_locked(now)
            if self._state is not _FORCED_OPEN:
                self._move_locked(_Move(_FORCED_CLOSED, now, "forced closed"))
        self._deliver()

    def unforce(self, now: float) -> None:
        """Lift `force_open` or `force_close`: closed, with a fresh window; does nothing if neither holds."""
        with self._lock:
            self._tick_locked(now)
            if self._state in (_FORCED_OPEN, _FORCED_CLOSED):
                self._move_locked(_Move(_CLOSED, now, "unforced"))
        self._deliver()

    def reset(self, now: float) -> None:
        """Closed as on the first day, from any state: also lifts a force and forgets the trips."""
        with self._lock:
            self._tick_locked(now)
            self._trips = 0
            self._move_locked(_Move(_CLOSED, now, "reset"))
        self._deliver()

    def _answer_locked(self, now: float, timeout: float, early: bool) -> Permit | Rejected:
        if self._admits_locked():
            if self._state is not _HALF_OPEN:
                return Permit(self._generation, "normal", now)
            return self._lease_locked("probe", now, timeout)
        if early and self._admits_early_locked(now):
            self._early_at = now
            return self._lease_locked("early", now, timeout)
        return self._reject_locked(now)

    def _admits_locked(self) -> bool:
        if self._state is _HALF_OPEN:
            return len(self._in_flight) < self.settings.probes
        return self._state is _CLOSED or self._state is _FORCED_CLOSED

    def _admits_early_locked(self, now: float) -> bool:
        rested = now - self._early_at >= self.settings.early_probe_interval
        return self._state is _OPEN and not self._in_flight and rested

    def _lease_locked(self, kind: Literal["probe", "early"], now: float, timeout: float) -> Permit:
        lease = min(timeout + self.settings.lease_extra, self.settings.lease_max)
        permit = Permit(self._generation, kind, now, now + lease)
        self._in_flight.append(permit)
        return permit

    def _reject_locked(self, now: float) -> Rejected:
        retry_at = self._retry_at
        if self._in_flight and (retry_at is None or now >= retry_at):  # a probe, or an early one past the open time
            retry_at = min(permit.lease_end for permit in self._in_flight)
        return Rejected(retry_at, forced=self._state is _FORCED_OPEN)

    def _is_current_locked(self, permit: Permit) -> bool:
        """Whether a result still says something; an early probe is forgotten at the end of its lease."""
        return permit.generation == self._generation and (permit.kind == "normal" or permit in self._in_flight)

    def _count_locked(self, permit: Permit, effect: Effect, now: float, floor: float) -> None:
        if effect is Effect.IGNORED:
            return
        failed = effect is Effect.FAILURE
        self._window.add(now, failed=failed)
        if not failed:
            self._consecutive = 0
            return
        if self._consecutive == 0:
            self._run_began = now
        self._consecutive += 1
        if self._state is _CLOSED and (reason := self._reason_to_trip_locked(now)):
            self._move_locked(_Move(_OPEN, now, reason, self._open_end_locked(permit, now, floor)))

    def _reason_to_trip_locked(self, now: float) -> str | None:
        settings, run, span = self.settings, self._consecutive, now - self._run_began
        calls, failures = self._window.calls, self._window.failures
        if run >= settings.consecutive:
            return f"{run} failures in a row"
        if run >= settings.consecutive_slow and span >= settings.consecutive_span:
            return f"{run} failures in a row over {span:.1f} s"
        if calls >= settings.minimum_calls and failures >= settings.failure_rate * calls:
            return f"{failures} of {calls} calls failed within {settings.window:.0f} s"
        return None

    def _settle_probe_locked(self, permit: Permit, effect: Effect, now: float, floor: float) -> None:
        self._in_flight.remove(permit)
        if effect is Effect.SUCCESS:
            if self._state is _OPEN:
                self._move_locked(_Move(_HALF_OPEN, now, "early probe answered"))
            self._successes += 1
            if self._successes >= self.settings.successes:
                self._move_locked(_Move(_CLOSED, now, "probes answered"))
        elif effect is Effect.FAILURE and self._state is _HALF_OPEN:
            self._move_locked(_Move(_OPEN, now, "probe failed", self._open_end_locked(permit, now, floor)))

    def _open_end_locked(self, failed: Permit, at: float, floor: float = 0.0) -> float:
        """When the next trip, made `at` a time by a failed call or probe, will be over."""
        settings = self.settings
        cap = min(max(PROBE_COST * (at - failed.t0), settings.open_cap_min), settings.open_cap_max)
        grown = settings.open_time * 2.0 ** min(self._trips, DOUBLINGS)
        return at + max(min(grown, cap) * (1 + JITTER * self._draw), min(floor, FLOOR_MAX))

    def _tick_locked(self, now: float) -> None:
        """Catch up with time."""
        if self._state is _CLOSED:
            while self._trips and now - self._decayed_at >= DECAY:
                self._trips -= 1
                self._decayed_at += DECAY
            return
        for move in self._due_locked(now):
            self._move_locked(move)
        if self._state is _OPEN:
            self._in_flight = [early for early in self._in_flight if now < early.lease_end]

    def _due_locked(self, now: float) -> list[_Move]:
        """The moves that time has brought, in order, not yet made: a lost probe opens, an open time ends."""
        moves = []
        state, until, in_flight = self._state, self._retry_at, self._in_flight
        if state is _HALF_OPEN and in_flight:
            lost = min(in_flight, key=lambda permit: permit.lease_end)
            if now >= lost.lease_end:
                state, until, in_flight = _OPEN, self._open_end_locked(lost, lost.lease_end), []
                moves.append(_Move(_OPEN, lost.lease_end, "probe lost", until))
        if state in (_OPEN, _FORCED_OPEN) and until is not None:
            until = max([until, *(early.lease_end for early in in_flight)])
            if now >= until:
                moves.append(_Move(_HALF_OPEN, until, "open time over"))
        return moves

    def _move_locked(self, move: _Move) -> None:
        """The only place where the state changes."""
        before, self._state = self._state, move.state
        self._retry_at = move.retry_at
        self._generation += 1
        self._in_flight = []
        self._successes = 0
        if move.state is _OPEN:
            self._trips += 1
            self._draw = self._jitter()
        elif move.state in (_CLOSED, _FORCED_CLOSED):
            self._window.clear()
            self._consecutive = 0
            self._decayed_at = move.at
        if self._listener is not None:
            self._outbox.append(Transition(self.name, before, move.state, move.at, move.retry_at, move.reason))

    def _deliver(self) -> None:
        """Empty the outbox, in order; whoever comes while it is being emptied leaves the rest to that one."""
        while self._listener is not None and (transition := self._take()) is not None:
            try:
                self._listener(transition)
            except Exception:
                logger.exception("listener of breaker %s failed", self.name)
            finally:
                with self._lock:
                    self._delivering = False

    def _take(self) -> Transition | None:
        with self._lock:
            if self._delivering or not self._outbox:
                return None
            self._delivering = True
            return self._outbox.popleft()
