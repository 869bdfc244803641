"""The rate limiter: callers wait their turn until the provider's limits allow one more request.

A thin shell around `Admission`: one lock for the core, one condition per waiting thread. Whoever is at the head of
the queue sleeps until its own turn and then also admits those behind it that fit; the others sleep until they are
called or give up.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holyroute.config.schema import LimitSettings
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.resilience.admission import Admission, Priority, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holyroute.core.clock import Clock
    from holyroute.resilience.bucket import Kind, Limits

NAP = 60.0  # seconds: the longest wait in one go; a condition cannot wait for ever

# Where providers say what is left. OpenAI's names are spoken by most; a value of -1 or none at all says nothing.
_REMAINING: dict[Kind, tuple[str, ...]] = {
    "requests": ("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"),
    "tokens": (
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-input-tokens-remaining",
    ),
}
_TOLD = frozenset(name for names in _REMAINING.values() for name in names)

logger = logging.getLogger("holyroute")


@dataclass(frozen=True, slots=True)
class Refused:
    """No leave in time."""

    eta: float | None  # seconds until there might have been; None: never, the request is larger than the limit


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """A look at a limiter, for people."""

    levels: tuple[tuple[Kind, float, float], ...]  # kind, level, capacity
    waiting: int
    in_flight: int
    factor: float  # of the full rate, below 1 after a 429
    blocked_until: float  # monotonic seconds


class RateLimiter:
    """One scope's limiter: an account, or a family of models of an account. Safe to share between threads.

    Every ticket goes back exactly once, to `settle`, `throttled` or `release`; more often does no harm. A ticket that
    never comes back keeps its slot.

    Without any limit a 429 still blocks for its Retry-After. A bench (`Gates`) may hold the target for the same 429, by
    its own rules: both must let a call through, so the later of the two counts. Handing `throttled` the seconds of the
    bench makes them end together.
    """

    def __init__(
        self,
        limits: Limits,
        settings: LimitSettings | None = None,
        *,
        name: str = "",
        clock: Clock = SYSTEM_CLOCK,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.limits = limits
        self.settings = settings or LimitSettings()
        self._clock = clock
        self._core = Admission(limits, self.settings, jitter)
        self._unlimited = not limits.rates and limits.max_concurrency is None
        self._lock = threading.Lock()
        self._waiters: dict[Ticket, threading.Condition] = {}
        self._complained = False

    def eta(self, tokens: int, now: float, priority: Priority = Priority.LIVE) -> float | None:
        """Seconds until a ticket could be admitted, by what is known now; None: never, too large."""
        if self._is_free(now):
            return 0.0
        with self._lock:
            return self._core.eta(tokens, priority, now)

    def acquire(
        self,
        tokens: int,
        *,
        max_wait: float | None = None,
        priority: Priority = Priority.LIVE,
        cancelled: Callable[[], bool] | None = None,
    ) -> Ticket | Refused:
        """Wait for leave, first come, first served; at once `Refused` if it will certainly take too long.

        Args:
            tokens: the estimate of prompt and answer.
            max_wait: seconds; the setting by default, `math.inf` to wait as long as it takes.
            priority: live callers go first.
            cancelled: asked before every wait and after every `wake`; must be quick, and not use the limiter.
        """
        now = self._clock.now()
        if self._is_free(now):
            return Ticket(tokens, priority, state="admitted", sent=now)
        max_wait = self.settings.max_wait if max_wait is None else max_wait
        with self._lock:
            now = self._clock.now()  # the lock may have taken a while
            ticket = self._core.try_admit(tokens, priority, now)
            if ticket is not None:
                return ticket
            eta = self._core.eta(tokens, priority, now)
            if eta is None or eta > max_wait:
                return Refused(eta)
            ticket = self._core.enqueue(tokens, priority)
            return self._wait_locked(ticket, now + max_wait, cancelled)

    def settle(self, ticket: Ticket, *, actual: int | None = None) -> None:
        """The request is over, well or not; `actual` is what it used in tokens, where the provider said so."""
        if self._was_free(ticket):
            return
        with self._lock:
            now = self._clock.now()
            self._core.settle(ticket, actual, now)
            self._pump_locked(now)

    def release(self, ticket: Ticket) -> None:
        """The request was never sent: everything comes back."""
        if self._was_free(ticket):
            return
        with self._lock:
            now = self._clock.now()
            self._core.cancel(ticket)
            self._pump_locked(now)

    def throttled(self, ticket: Ticket, retry_after: float | None) -> None:
        """The provider answered 429; `retry_after` in seconds, None where it did not say."""
        with self._lock:
            now = self._clock.now()
            self._core.throttle(ticket, retry_after, now)
            self._pump_locked(now)
            too_slow = bool(self.limits.rates) and self._core.pace.factor(now) < 0.5
            complain, self._complained = too_slow and not self._complained, too_slow
        if complain:
            text = "%s: the provider refuses at less than half of the configured limit: is it shared, or wrong?"
            logger.warning(text, self.name or "limiter")

    def observe(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Read from an answer's headers what the provider has left; it may only slow us down."""
        by_name = getattr(headers, "_store", None)  # those of requests: by lower-case names
        if not self.limits.rates or (by_name is not None and _TOLD.isdisjoint(by_name)):
            return
        told = {low: headers[name] for name in headers if (low := name.lower()) in _TOLD}
        if not told:
            return
        remaining = {kind: left for kind, names in _REMAINING.items() if (left := _least(told, names)) is not None}
        if remaining:
            with self._lock:
                self._core.observe(ticket, remaining, self._clock.now())

    def wake(self) -> None:
        """Let every waiting caller ask its `cancelled` now; for a cancel from another thread."""
        with self._lock:
            for condition in self._waiters.values():
                condition.notify()

    def snapshot(self) -> LimiterSnapshot:
        """Copy the figures."""
        with self._lock:
            now, core = self._clock.now(), self._core
            levels = tuple(core.levels(now))
            return LimiterSnapshot(levels, core.waiting, core.in_flight, core.pace.factor(now), core.pace.blocked_until)

    def _is_free(self, now: float) -> bool:
        """Whether nothing limits; without the lock, because that is the usual case."""
        return self._unlimited and now >= self._core.pace.blocked_until and not self._waiters

    def _was_free(self, ticket: Ticket) -> bool:
        """Close a ticket that was given out where nothing limits, so that nothing is to be put back."""
        if not self._unlimited or ticket.number:
            return False
        ticket.state = "over"
        return True

    def _wait_locked(self, ticket: Ticket, give_up: float, cancelled: Callable[[], bool] | None) -> Ticket | Refused:
        condition = self._waiters[ticket] = threading.Condition(self._lock)
        now = self._clock.now()
        try:
            while ticket.state == "waiting" and now < give_up and not (cancelled is not None and cancelled()):
                wake_at = self._core.wake_at(now) if self._core.head is ticket else None
                until = give_up if wake_at is None else min(give_up, wake_at)
                self._clock.wait(condition, min(until - now, NAP))
                now = self._clock.now()
                self._pump_locked(now)
        except BaseException:
            self._core.cancel(ticket)
            raise
        finally:
            del self._waiters[ticket]
            if ticket.state == "waiting":
                self._core.cancel(ticket)
            self._pump_locked(now)
        if ticket.state == "admitted":
            return ticket
        return Refused(self._core.eta(ticket.tokens, ticket.priority, now))

    def _pump_locked(self, now: float) -> None:
        """Call those who may go now, and the one who is next: its turn may have moved."""
        if not self._waiters:
            return
        for ticket in self._core.pump(now):
            self._waiters[ticket].notify()
        if (head := self._core.head) is not None:
            self._waiters[head].notify()


def _least(headers: Mapping[str, str], names: Iterable[str]) -> float | None:
    """The smallest usable number among some headers."""
    found = []
    for name in names:
        try:
            found.append(float(headers.get(name) or ""))
        except ValueError:
            continue
    return min((number for number in found if 0 <= number < math.inf), default=None)
