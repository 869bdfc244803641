"""Whom to ask next, and how long to wait first. Decides; touches no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holyroute.core.deadline import Deadline
from holyroute.core.verdicts import Failover, Retry, Scope
from holyroute.engine.attempt import Attempt
from holyroute.resilience import backoff
from holyroute.resilience.breaker import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holyroute.config.credentials import Credential
    from holyroute.config.schema import RetrySettings
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Candidate
    from holyroute.engine.wallet import Wallet
    from holyroute.resilience.breaker import Permit
    from holyroute.resilience.guard import Guards

_OF_THE_KEY = {Scope.CREDENTIAL, Scope.ACCOUNT}  # another key of the same provider may do


class Plan:
    """The attempts of one call. Each is decided when it is asked for, from how those before it ended.

    Fail over first; the same target is asked again only after a lone fault (blip rule), after a short wait that the
    server named (short-wait rule), or where there is nobody else.
    """

    def __init__(
        self, call: Call, trace: Trace, *, guards: Guards, wallet: Wallet, settings: RetrySettings, clock: Clock
    ) -> None:
        self._call = call
        self._trace = trace
        self._guards = guards
        self._wallet = wallet
        self._settings = settings
        self._clock = clock
        self._deadline = Deadline.after(call.deadline, trace.began)
        self._refused: list[tuple[float, Candidate]] = []  # by an open breaker, and until when
        self._probed: Candidate | None = None
        self._first: Candidate | None = None

    def attempts(self, candidates: list[Candidate]) -> Iterator[Attempt]:
        """Every candidate is visited once; if every breaker is open, the one nearest to recovery is probed."""
        waiting = list(candidates)
        self._first = candidates[0] if candidates else None
        sole = len(candidates) == 1
        while waiting and not self._trace.out_of_time:
            candidate = waiting.pop(0)
            before = len(self._trace.attempts)
            yield from self._visit(candidate, sole=sole, others=bool(waiting))
            if len(self._trace.attempts) > before:
                waiting = _narrow(waiting, candidate, self._trace.last, retry_empty=self._settings.retry_empty)
        if not self._trace.attempts:
            yield from self._probe_early()
        self._trace.out_of_time |= not self._deadline.allows_attempt(self._clock.now())

    def _visit(self, candidate: Candidate, *, sole: bool, others: bool) -> Iterator[Attempt]:
        """Ask one candidate, once as a rule."""
        asked: list[Attempt] = []
        while (attempt := self._admit(candidate, others=others, asked=asked)) is not None:
            yield attempt
            asked.append(attempt)
            pause = self._pause(candidate, asked, sole=sole)
            if pause is None or pause >= self._deadline.remaining(self._clock.now()):
                return
            self._clock.sleep(pause)

    def _probe_early(self) -> Iterator[Attempt]:
        """Nobody could be asked: no reset, one early probe, nearest to recovery first."""
        for _, candidate in sorted(self._refused, key=lambda refusal: refusal[0]):
            attempt = self._admit(candidate, others=False, early=True)
            if attempt is not None:
                yield attempt
                return

    def _admit(
        self, candidate: Candidate, *, others: bool, early: bool = False, asked: Sequence[Attempt] = ()
    ) -> Attempt | None:
        """The last gates before the send: time, credential and benches, breaker."""
        now = self._clock.now()
        if not self._deadline.allows_attempt(now):
            self._trace.out_of_time = True
            return None
        target = candidate.target
        choice = self._wallet.choose(candidate, self._call, now, spent=self._spent(asked))
        if choice.refused is not None:
            if not asked:
                self._trace.skip(target, choice.refused, choice.retry_at)
            return None
        seconds = self._deadline.slice(self._call.read, now, others_left=others)
        permit = self._guards[target].breaker.try_acquire(now, timeout=seconds, early=early)
        if isinstance(permit, Rejected):
            self._refuse(candidate, permit)
            return None
        if permit.kind != "normal" and not self._may_probe(candidate, permit, now):
            return None
        return Attempt(
            call=self._call,
            target=target,
            permit=permit,
            started=now,
            connect=self._deadline.slice(self._call.connect, now, others_left=others),
            read=seconds,
            credential=choice.credential,
            own=candidate.own and choice.with_callers_key,
            is_first_choice=candidate is self._first,
            with_callers_key=choice.with_callers_key,
        )

    def _refuse(self, candidate: Candidate, rejected: Rejected) -> None:
        reason = "its circuit is forced open" if rejected.forced else "its circuit is open"
        self._trace.skip(candidate.target, reason, rejected.retry_at)
        if rejected.retry_at is not None and not rejected.forced:
            self._refused.append((rejected.retry_at, candidate))

    def _may_probe(self, candidate: Candidate, permit: Permit, now: float) -> bool:
        """One call probes one target at most: a user should not pay for the recovery of a whole list."""
        if self._probed is not None and self._probed is not candidate:
            self._guards[candidate.target].release(permit, now)
            self._trace.skip(candidate.target, "its circuit wants a probe, and this call has carried one")
            return False
        self._probed = candidate
        return True

    def _pause(self, candidate: Candidate, asked: list[Attempt], *, sole: bool) -> float | None:
        """Seconds until the same candidate is asked again; None: go on."""
        outcome = self._trace.last
        if outcome is None or outcome.is_final or outcome.may_retry is False:
            return None
        if outcome.verdict.gate in _OF_THE_KEY:
            choice = self._wallet.choose(candidate, self._call, self._clock.now(), spent=self._spent(asked))
            return 0.0 if choice.refused is None else None
        if sole:
            return self._pause_alone(candidate, outcome, len(asked))
        return self._pause_once(candidate, outcome) if len(asked) == 1 else None

    def _spent(self, asked: Sequence[Attempt]) -> list[Credential | None]:
        """The credentials of this visit, if it is they that were refused: none is tried twice."""
        refused = self._trace.last is not None and self._trace.last.verdict.gate in _OF_THE_KEY
        return [attempt.credential for attempt in asked] if refused else []

    def _pause_once(self, candidate: Candidate, outcome: Outcome) -> float | None:
        """The blip rule, the short-wait rule, and a conflict."""
        remaining = self._deadline.remaining(self._clock.now())
        retry = outcome.verdict.retry
        if retry is Retry.BLIP and outcome.lone and self._settings.blip and remaining >= self._deadline.total / 2:
            return backoff.blip()
        if retry is Retry.SHORT_WAIT and candidate is self._first and outcome.retry_after is not None:
            short = outcome.retry_after <= min(self._settings.short_wait, remaining / 5)
            return outcome.retry_after if short else None
        return backoff.ONCE if retry is Retry.ONCE else None

    def _pause_alone(self, candidate: Candidate, outcome: Outcome, asked: int) -> float | None:
        """A target without a substitute gets a few attempts, with backoff, and never before its bench ends."""
        if asked >= self._settings.sole_attempts or (outcome.verdict.retry is Retry.NEVER and not outcome.may_retry):
            return None
        choice = self._wallet.choose(candidate, self._call, now := self._clock.now())
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
