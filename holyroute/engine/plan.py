"""Whom to ask next, and how long to wait first. Decides; touches no socket."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holyroute.core.deadline import Deadline
from holyroute.core.verdicts import RATE_LIMITED, READ_TIMEOUT, Effect, Failover, Retry, Scope
from holyroute.dialects.base import Untranslatable
from holyroute.dialects.translation import DIALECTS, translate
from holyroute.engine.attempt import Attempt, Patience
from holyroute.resilience import backoff
from holyroute.resilience.breaker import CircuitState, Rejected
from holyroute.resilience.guard import Clearance
from holyroute.resilience.limiter import Refused
from holyroute.resilience.limits import release

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holyroute.config.credentials import Credential
    from holyroute.config.schema import RetrySettings
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.cost.tokens import RawEstimate
    from holyroute.dialects.translation import Translation
    from holyroute.engine.attempt import Candidate
    from holyroute.engine.state import State
    from holyroute.resilience.breaker import Permit
    from holyroute.resilience.budget import Loan
    from holyroute.resilience.limits import Pass

PREFERENCE = 2.0  # seconds that a listed target is preferred to the next one, when it has to be waited for

_OF_THE_KEY = {Scope.CREDENTIAL, Scope.ACCOUNT}  # another key of the same provider may do


class Plan:
    """The attempts of one call. Each is decided when it is asked for, from how those before it ended.

    Fail over first; the same target is asked again only after a lone fault (blip rule), after a short wait that the
    server named (short-wait rule), or where there is nobody else.
    """

    def __init__(
        self, call: Call, candidates: list[Candidate], trace: Trace, state: State, settings: RetrySettings, clock: Clock
    ) -> None:
        self._call = call
        self._trace = trace
        self._state = state
        self._settings = settings
        self._clock = clock
        self._deadline = Deadline.after(call.deadline, trace.began)
        self._candidates = candidates
        self._budget = state.budget(candidates)
        self._refused: list[tuple[float, Candidate]] = []  # by an open breaker, and until when
        self._full: list[tuple[float, Candidate]] = []  # at their rate limit, and for how long
        self._probed: Candidate | None = None
        self._raw: RawEstimate | None = None

    def attempts(self) -> Iterator[Attempt]:
        """Every candidate is visited once; if nobody could be asked, the one that is free first is."""
        waiting = list(self._candidates)
        while waiting and not self._is_over():
            candidate = waiting.pop(0)
            before = len(self._trace.attempts)
            yield from self._visit(candidate, others=bool(waiting))
            if len(self._trace.attempts) > before:
                waiting = _narrow(waiting, candidate, self._trace.last, retry_empty=self._settings.retry_empty)
        if not self._trace.attempts:
            yield from self._probe_early()
        if not self._trace.attempts and self._full and self._call.waits and not self._is_over():
            yield from self._visit(min(self._full, key=lambda one: one[0])[1], others=False)
        self._is_over()

    def _is_over(self) -> bool:
        """Whether the caller has left, or the time is up; the trace knows from now on."""
        self._trace.cancelled = self._call.cancel is not None and self._call.cancel.cancelled
        self._trace.out_of_time = not self._deadline.allows_attempt(self._clock.now())
        return self._trace.cancelled or self._trace.out_of_time

    def _visit(self, candidate: Candidate, *, others: bool) -> Iterator[Attempt]:
        """Ask one candidate, once as a rule."""
        asked: list[Attempt] = []
        loan: Loan | None = None
        while (attempt := self._admit(candidate, others=others, asked=asked, loan=loan)) is not None:
            yield attempt
            asked.append(attempt)
            loan = None
            pause = self._pause(candidate, asked)
            if pause is None or pause >= self._deadline.remaining(self._clock.now()):
                return
            if not self._is_refused_key():  # another key is no retry
                loan = self._borrow()
                if loan is None:
                    return
            self._sleep(pause)
        if loan is not None:  # nothing was sent with it
            self._budget.succeed(loan)

    def _borrow(self) -> Loan | None:
        """A retry costs; when too many were needed lately there is none, and nobody waits for it."""
        timeout = self._trace.last is not None and self._trace.last.verdict is READ_TIMEOUT
        return self._budget.take(timeout=timeout)

    def _sleep(self, seconds: float) -> None:
        if self._call.cancel is None:
            self._clock.sleep(seconds)
        else:
            self._call.cancel.sleep(seconds, self._clock)

    def _probe_early(self) -> Iterator[Attempt]:
        """Nobody could be asked: no reset, one early probe, nearest to recovery first."""
        for _, candidate in sorted(self._refused, key=lambda refusal: refusal[0]):
            if self._is_over():
                return
            attempt = self._admit(candidate, others=False, early=True)
            if attempt is not None:
                yield attempt
                return

    def _admit(
        self,
        candidate: Candidate,
        *,
        others: bool,
        early: bool = False,
        asked: Sequence[Attempt] = (),
        loan: Loan | None = None,
    ) -> Attempt | None:
        """The last gates before the send: time, credential and benches, rate limits, breaker."""
        if (asked and self._is_over()) or (translation := self._translated(candidate)) is None:
            return None
        spent = self._spent(asked) if asked else ()
        choice = self._state.wallet.choose(candidate, self._call, self._clock.now(), spent=spent)
        if choice.refused is not None:
            if not asked:
                self._trace.skip(candidate.target, choice.refused, choice.retry_at)
            return None
        passes = self._pass_limits(candidate, choice.credential, others=others, early=early)
        if passes is None:
            return None
        if passes and self._is_over():  # it was a long wait
            release(passes)
            return None
        now = self._clock.now()
        share = self._deadline.slice(math.inf, now, others_left=others)
        permit = self._pass_breaker(candidate, share, now, early=early)
        if permit is None:
            release(passes)
            return None
        return Attempt(
            call=self._call,
            target=candidate.target,
            started=now,
            patience=Patience(
                connect=min(self._call.connect, share),
                read=min(self._call.read, share),
                limit=min(self._call.limit, share),
                first_byte=self._call.first_byte,
                until=self._deadline.remaining(now),
            ),
            translation=translation,
            reader=translation.reader(self._call.choices) if self._call.stream else None,
            clearance=Clearance(permit=permit, passes=passes, tokens=self._raw, budget=self._budget, loan=loan),
            credential=choice.credential,
            own=candidate.own and choice.with_callers_key,
            is_first_choice=candidate is self._candidates[0],
            with_callers_key=choice.with_callers_key,
        )

    def _translated(self, candidate: Candidate) -> Translation | None:
        """What a candidate is to be told; None where its dialect has no words for it."""
        try:
            return translate(DIALECTS[self._call.dialect], candidate.target, self._call.body)
        except Untranslatable as no:
            self._trace.skip(candidate.target, f"its dialect cannot say it: {no}")
            return None

    def _pass_limits(
        self, candidate: Candidate, credential: Credential | None, *, others: bool, early: bool
    ) -> tuple[Pass, ...] | None:
        """Wait for a place within the rate limits, if it is a short wait; None: not now."""
        limiters = self._state.limiters.of(candidate.target, credential)
        if not limiters:
            return ()
        now = self._clock.now()
        outlook = self._state.guards[candidate.target].breaker.peek(now)
        if not early and not outlook.admits:  # no use waiting for a place at a target that is not asked
            self._refuse(candidate, Rejected(outlook.retry_at, forced=outlook.state is CircuitState.FORCED_OPEN))
            return None
        self._raw = self._raw or self._state.estimator.read(self._call.body)
        tokens = self._state.estimator.estimate(self._raw, candidate.target.key)
        answer = self._state.limiters.acquire(limiters, tokens, self._call, self._patience(now, others=others))
        if not isinstance(answer, Refused):
            return answer
        if answer.eta is None:
            self._trace.skip(candidate.target, f"about {tokens} tokens are more than its rate limit allows")
            return None
        self._trace.skip(candidate.target, RATE_LIMITED.name, self._clock.now() + answer.eta)
        self._full.append((answer.eta, candidate))
        return None

    def _patience(self, now: float, *, others: bool) -> float:
        """Seconds that waiting for a rate limit is worth; background calls have all the time there is."""
        if not self._call.waits:
            return 0.0
        remaining = self._deadline.remaining(now)
        if self._call.background:
            return remaining
        patience = min(self._state.limiters.settings.max_wait, remaining / 5)
        return min(patience, PREFERENCE) if others else patience

    def _pass_breaker(self, candidate: Candidate, share: float, now: float, *, early: bool) -> Permit | None:
        seconds = min(self._call.limit, self._call.connect + self._call.read, share)
        permit = self._state.guards[candidate.target].breaker.try_acquire(now, timeout=seconds, early=early)
        if isinstance(permit, Rejected):
            self._refuse(candidate, permit)
            return None
        if permit.kind != "normal" and not self._may_probe(candidate, permit, now):
            return None
        return permit

    def _refuse(self, candidate: Candidate, rejected: Rejected) -> None:
        reason = "its circuit is forced open" if rejected.forced else "its circuit is open"
        self._trace.skip(candidate.target, reason, rejected.retry_at)
        if rejected.retry_at is not None and not rejected.forced:
            self._refused.append((rejected.retry_at, candidate))

    def _may_probe(self, candidate: Candidate, permit: Permit, now: float) -> bool:
        """One call probes one target at most: a user should not pay for the recovery of a whole list."""
        if self._probed is not None and self._probed is not candidate:
            self._state.guards[candidate.target].breaker.record(permit, Effect.IGNORED, now)
            self._trace.skip(candidate.target, "its circuit wants a probe, and this call has carried one")
            return False
        self._probed = candidate
        return True

    def _pause(self, candidate: Candidate, asked: list[Attempt]) -> float | None:
        """Seconds until the same candidate is asked again; None: go on."""
        outcome = self._trace.last
        if outcome is None or outcome.is_final or outcome.may_retry is False:
            return None
        if self._is_refused_key():
            choice = self._state.wallet.choose(candidate, self._call, self._clock.now(), spent=self._spent(asked))
            return 0.0 if choice.refused is None else None
        if len(self._candidates) == 1 and self._call.waits:
            return self._pause_alone(candidate, outcome, len(asked))
        return self._pause_once(candidate, outcome) if len(asked) == 1 else None

    def _spent(self, asked: Sequence[Attempt]) -> list[Credential | None]:
        """The credentials of this visit, if it is they that were refused: none is tried twice."""
        return [attempt.credential for attempt in asked] if self._is_refused_key() else []

    def _is_refused_key(self) -> bool:
        return self._trace.last is not None and self._trace.last.verdict.gate in _OF_THE_KEY

    def _pause_once(self, candidate: Candidate, outcome: Outcome) -> float | None:
        """The blip rule, the short-wait rule, and a conflict."""
        remaining = self._deadline.remaining(self._clock.now())
        retry = outcome.verdict.retry
        if retry is Retry.BLIP and outcome.lone and self._settings.blip and remaining >= self._deadline.total / 2:
            return backoff.blip()
        if retry is Retry.SHORT_WAIT and candidate is self._candidates[0] and outcome.retry_after is not None:
            short = outcome.retry_after <= min(self._settings.short_wait, remaining / 5)
            return outcome.retry_after if short and self._call.waits else None
        return backoff.ONCE if retry is Retry.ONCE else None

    def _pause_alone(self, candidate: Candidate, outcome: Outcome, asked: int) -> float | None:
        """A target without a substitute gets a few attempts, with backoff, and never before its bench ends."""
        if asked >= self._settings.sole_attempts or (outcome.verdict.retry is Retry.NEVER and not outcome.may_retry):
            return None
        choice = self._state.wallet.choose(candidate, self._call, now := self._clock.now())
        benched = 0.0 if choice.retry_at is None else choice.retry_at - now
        return max(backoff.sole(self._settings, outcome, asked), benched)


def _narrow(
    waiting: list[Candidate], asked: Candidate, outcome: Outcome | None, *, retry_empty: bool
) -> list[Candidate]:
    """Who is still worth asking after an outcome."""
    rule = outcome.verdict.failover if outcome is not None else Failover.NEXT
    target = asked.target
    if rule is Failover.LARGER:
        known = target.context or 0
        return [one for one in waiting if one.target.context is not None and one.target.context > known]
    if rule is Failover.OTHER_PROVIDER:
        return sorted(waiting, key=lambda one: one.target.provider.base_url == target.provider.base_url)
    if rule is Failover.ONCE:
        return waiting[:1] if retry_empty else []
    return waiting
