"""The rate limiters of all targets: made for those that have a limit, and for nobody else.

A target's requests and tokens are limited per key, because providers limit accounts; a provider's `max_concurrency`
holds for all its models together. What is not limited costs nothing here: a 429 benches the target all the same.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holyroute.core.target import Target
from holyroute.resilience.admission import Priority
from holyroute.resilience.bucket import Limits
from holyroute.resilience.limiter import RateLimiter, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetools import LRUCache

    from holyroute.config.credentials import Credential
    from holyroute.config.schema import LimitSettings
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.target import Provider
    from holyroute.resilience.admission import Ticket

SCOPES = 4_096  # limiters that are remembered: scripts may bring keys of their own
Pass = tuple[RateLimiter, "Ticket"]


class Limiters:
    """Finds and asks the limiters of a target. Safe to share between threads."""

    def __init__(self, settings: LimitSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        from cachetools import LRUCache

        self._limiters: LRUCache[str, RateLimiter] = LRUCache(SCOPES)
        self._found: dict[tuple[str, str, bool, bool], tuple[RateLimiter, ...]] = {}  # until another one is made
        self._lock = threading.Lock()

    def of(self, target: Target, credential: Credential | None) -> tuple[RateLimiter, ...]:
        """The limiters that a request has to pass; none for a target without limits."""
        provider = target.provider
        by_key, together = target.rpm is not None or target.tpm is not None, provider.max_concurrency is not None
        if not by_key and not together:
            return ()
        fingerprint = credential.fingerprint if by_key and credential is not None else ""
        known = target.key, fingerprint, by_key, together  # one endpoint may be configured twice, with other limits
        found = self._found.get(known)
        if found is None:
            with self._lock:
                scopes: list[tuple[str, Target | Provider]] = (
                    [(f"{target.key}|{fingerprint}", target)] if by_key else []
                )
                if together:
                    scopes.append((provider.base_url, provider))
                found = tuple(self._get_locked(scope, owner) for scope, owner in scopes)
                if len(self._found) >= SCOPES:
                    self._found.clear()
                self._found[known] = found
        return found

    def _get_locked(self, scope: str, owner: Target | Provider) -> RateLimiter:
        limiter = self._limiters.get(scope)
        if limiter is None:
            self._found.clear()  # the cache may drop one for it
            limits = _limits_of(owner)
            limiter = self._limiters[scope] = RateLimiter(limits, self.settings, name=owner.name, clock=self._clock)
        return limiter

    def acquire(
        self, limiters: tuple[RateLimiter, ...], tokens: int, call: Call, max_wait: float
    ) -> tuple[Pass, ...] | Refused:
        """Pass all of them or none; waits at most some seconds in all, and not for a caller who has left."""
        priority = Priority.QUEUE if call.replayed else Priority.BATCH if call.background else Priority.LIVE
        if len(limiters) == 1:
            answer = self._ask(limiters[0], tokens, max(0.0, max_wait), priority, call)
            return answer if isinstance(answer, Refused) else ((limiters[0], answer),)
        give_up = self._clock.now() + max_wait
        passed: list[Pass] = []
        try:
            for limiter in limiters:
                left = max(0.0, give_up - self._clock.now())
                answer = self._ask(limiter, tokens, left, priority, call)
                if isinstance(answer, Refused):
                    release(passed)
                    return answer
                passed.append((limiter, answer))
        except BaseException:
            release(passed)
            raise
        return tuple(passed)

    def _ask(
        self, limiter: RateLimiter, tokens: int, max_wait: float, priority: Priority, call: Call
    ) -> Ticket | Refused:
        token = call.cancel
        if token is None or max_wait <= 0:  # nobody has to be woken
            return limiter.acquire(tokens, max_wait=max_wait, priority=priority)
        wake: Callable[[], None] = limiter.wake
        token.on_cancel(wake)
        try:
            return limiter.acquire(tokens, max_wait=max_wait, priority=priority, cancelled=lambda: token.cancelled)
        finally:
            token.forget(wake)


def _limits_of(owner: Target | Provider) -> Limits:
    if isinstance(owner, Target):
        return Limits.per_minute(rpm=owner.rpm, tpm=owner.tpm)
    return Limits(max_concurrency=owner.max_concurrency)


def release(passed: list[Pass] | tuple[Pass, ...]) -> None:
    """Nothing was sent: everything comes back."""
    for limiter, ticket in passed:
        limiter.release(ticket)
