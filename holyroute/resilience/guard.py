"""What stands between a call and a target: its circuit breaker, its benches, and what is remembered of its answers."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holyroute.core import verdicts
from holyroute.core.events import Benched, BenchEnded, CircuitChanged
from holyroute.core.explain import printable
from holyroute.core.verdicts import Effect, Retry, Scope
from holyroute.resilience.breaker import CircuitBreaker
from holyroute.resilience.gates import Gates
from holyroute.resilience.latency import LatencyWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.credentials import Credential
    from holyroute.config.schema import BreakerSettings
    from holyroute.core.events import Event
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.cost.tokens import RawEstimate
    from holyroute.resilience.admission import Ticket
    from holyroute.resilience.budget import Loan, RetryBudget
    from holyroute.resilience.circuit import Permit, Transition
    from holyroute.resilience.gates import Bench
    from holyroute.resilience.limiter import RateLimiter
    from holyroute.resilience.limits import Pass

logger = logging.getLogger("holyroute")

BLIP_INTERVAL = 5.0  # seconds between blip retries at one target
QUOTA_MAX = 3_600.0  # seconds: an empty account is asked again at least once an hour
SILENT_MAX = 30.0  # seconds: 429 without a hint
FLOOR_MAX = 300.0  # seconds of Retry-After that a busy server may ask for
FRESH = 60.0  # seconds after its end in which a bench still counts as the one before


@dataclass(slots=True, kw_only=True)
class Clearance:
    """Leave for one attempt, and all that goes back when it is over."""

    permit: Permit
    passes: tuple[Pass, ...] = ()
    tokens: RawEstimate | None = None  # what was estimated for the passes
    budget: RetryBudget
    loan: Loan | None = None  # for a retry


class Guard:
    """The breaker and the memory of one target. Safe to share between threads."""

    def __init__(self, target: Target, settings: BreakerSettings, publish: Callable[[Event], None]) -> None:
        self.target = target
        self.latency = LatencyWindow()
        self.breaker = CircuitBreaker(target.key, settings, listener=self._circuit_changed)
        self._publish = publish
        self._lock = threading.Lock()
        self._last_failed = False
        self._last_blip = float("-inf")

    def _circuit_changed(self, change: Transition) -> None:
        event = CircuitChanged(
            self.target, str(change.before), str(change.after), change.at, change.retry_at, change.reason
        )
        self._publish(event)

    def release(self, clearance: Clearance, now: float) -> None:
        """Give everything back without a word on the target's health; the request may have been sent."""
        self.breaker.record(clearance.permit, Effect.IGNORED, now)
        for limiter, ticket in clearance.passes:
            limiter.settle(ticket)

    def settle(self, clearance: Clearance, outcome: Outcome, seconds: float, now: float) -> bool:
        """Book an outcome. Whether it looks like a lone fault, and this caller is the one to retry it."""
        effect = outcome.verdict.breaker
        self.breaker.record(clearance.permit, effect, now, floor=outcome.retry_after or 0.0)
        for limiter, ticket in clearance.passes:
            _hand_back(limiter, ticket, outcome)
        if outcome.is_answer:
            self.latency.add(seconds, now)
            clearance.budget.succeed(clearance.loan)
        if effect is Effect.IGNORED:
            return False
        with self._lock:
            lone = not self._last_failed and now - self._last_blip >= BLIP_INTERVAL
            self._last_failed = effect is Effect.FAILURE
            if lone and self._last_failed and outcome.verdict.retry is Retry.BLIP:
                self._last_blip = now
                return True
            return False


class Guards:
    """The guards of all targets, and the benches that several of them share.

    Args:
        settings: of all breakers.
        publish: takes what happens.
        alerted: whether an alert on keys is logged: then a rejected one is not told here too.
    """

    def __init__(self, settings: BreakerSettings, publish: Callable[[Event], None], *, alerted: bool = False) -> None:
        self.gates = Gates()
        self._alerted = alerted
        self._settings = settings
        self._publish = publish
        self._guards: dict[str, Guard] = {}
        self._lock = threading.Lock()

    def __getitem__(self, target: Target) -> Guard:
        guard = self._guards.get(target.key)
        if guard is None:
            with self._lock:
                guard = self._guards.setdefault(target.key, Guard(target, self._settings, self._publish))
        return guard

    def __iter__(self) -> Iterator[Guard]:
        return iter(list(self._guards.values()))

    def benched(self, target: Target, credential: Credential | None, now: float) -> Bench | None:
        """Why a target may not be asked with this credential, or None."""
        return self.gates.check(tuple(_keys(target, credential).values()), now) if self.gates else None

    def held(self, target: Target, now: float) -> Bench | None:
        """Why a target may not be asked with some credential or other, or None."""
        return self.gates.held(tuple(_keys(target, None).values()), now) if self.gates else None

    def bench(
        self, target: Target, credential: Credential | None, outcome: Outcome, *, sent: float, now: float
    ) -> None:
        """Leave alone what the outcome of a request, sent at a monotonic time, says should be.

        An answer clears what was benched before, and a bench that did not help doubles. Neither is told by a request
        that was under way when the bench began: of sixteen refused at once, fifteen bring no news.
        """
        scope = outcome.verdict.gate
        if scope is Scope.NOTHING and not (outcome.is_answer and self.gates):
            return
        keys = _keys(target, credential)
        if outcome.is_answer:
            for of, key in keys.items():
                if self.gates.clear(key, sent):
                    self._publish(BenchEnded(target, of, credential.name if credential is not None else None))
            return
        before = self.gates.last(keys[scope], str(outcome.verdict))
        recent = before if before and before.until <= sent < before.until + FRESH else None
        seconds = _bench_seconds(outcome, recent)
        if seconds <= 0:
            return
        bench = self.gates.bench(keys[scope], str(outcome.verdict), seconds, now)
        told = self._alerted and scope in {Scope.CREDENTIAL, Scope.ACCOUNT}
        if outcome.verdict.gate_seconds >= FRESH and not told:  # a person has to mend it; busy servers mend themselves
            logger.warning("%s: %s; left alone for %.0f s", _who(target, scope, credential), outcome.verdict, seconds)
        name = credential.name if credential is not None else None
        self._publish(Benched(target, scope, str(outcome.verdict), bench.until, name))


def _hand_back(limiter: RateLimiter, ticket: Ticket, outcome: Outcome) -> None:
    if outcome.response is not None:
        limiter.observe(ticket, outcome.response.headers)
    if outcome.verdict in {verdicts.RATE_LIMITED, verdicts.RATE_LIMITED_SILENT}:
        limiter.throttled(ticket, outcome.retry_after)
    else:
        limiter.settle(ticket, actual=outcome.usage.total_tokens if outcome.usage is not None else None)


def _who(target: Target, scope: Scope, credential: Credential | None) -> str:
    provider = target.provider
    if scope is Scope.TARGET or credential is None:
        return f"{printable(target.name)} at {provider.base_url}"
    return f"the key in {credential.name} for {provider.base_url}"


def _keys(target: Target, credential: Credential | None) -> dict[Scope, str]:
    """What the benches of a target are called. A key that is changed has another fingerprint, hence no bench."""
    fingerprint = credential.fingerprint if credential is not None else ""
    return {
        Scope.CREDENTIAL: f"credential {target.provider.base_url} {fingerprint}",
        Scope.ACCOUNT: f"account {target.provider.base_url} {fingerprint}",
        Scope.TARGET: f"target {target.key} {fingerprint}",
    }


def _bench_seconds(outcome: Outcome, recent: Bench | None) -> float:
    """Seconds to leave the scope alone; a bench that did not help doubles where nobody said how long."""
    wait = outcome.retry_after
    verdict = outcome.verdict
    if verdict is verdicts.QUOTA:
        return min(QUOTA_MAX, 2 * recent.seconds) if recent else verdict.gate_seconds
    if verdict is verdicts.RATE_LIMITED_SILENT:
        longest = min(SILENT_MAX, 2 * recent.seconds if recent else 2.0)
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter
    if verdict in {verdicts.UNAVAILABLE, verdicts.OVERLOADED}:
        return max(verdict.gate_seconds, min(wait or 0.0, FLOOR_MAX))
    if verdict in {verdicts.RATE_LIMITED, verdicts.PAYMENT_REQUIRED} and wait is not None:
        return wait
    return verdict.gate_seconds
