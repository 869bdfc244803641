"""The engine on one page: who is asked, in which order, and what becomes of the answers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holyroute.config.credentials import callers_credential
from holyroute.core import forks, verdicts
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.events import Events
from holyroute.core.trace import RESENT, Trace
from holyroute.dialects.translation import DIALECTS, translate
from holyroute.engine.asking import ask
from holyroute.engine.attempt import Attempt, Patience
from holyroute.engine.plan import Plan
from holyroute.engine.selector import Selector
from holyroute.engine.state import State
from holyroute.engine.streams import Streams
from holyroute.monitoring.log import log_events, log_prompt
from holyroute.monitoring.monitor import Monitor
from holyroute.monitoring.sinks import Outlets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holyroute.caching.cache import ResponseCache
    from holyroute.config.credentials import Keyring
    from holyroute.config.schema import Config
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.events import Observer
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.cost.ledger import Ledger
    from holyroute.engine.attempt import Candidate, Transport
    from holyroute.engine.wallet import Wallet
    from holyroute.resilience.guard import Guards

    Park = Callable[[Call, Trace], None]  # keeps a call for later, and tells its trace


class Router:
    """Sends a chat completion to the first target that can answer it.

    Holds all state that lives longer than a call: breakers, benches, limits, latencies, the ledger. Safe to share
    between threads; a forked child begins afresh.

    Args:
        config: providers, models, routes, settings.
        clock: time, for tests.
        observers: called with every event, in the thread of the call.
        env: where credentials are looked up; the process environment by default.
        tokenizer: counts the tokens of a text, for rate limits; estimated by script without one.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = SYSTEM_CLOCK,
        observers: tuple[Observer, ...] = (),
        env: Mapping[str, str] | None = None,
        tokenizer: Callable[[str], int] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.events = Events(observers)
        self.sinks = Outlets(config.alerts, self._secret, clock)
        self.monitor = Monitor(config, clock, self.sinks.tell)
        if config.monitoring.enabled:
            self.events.subscribe(self.monitor)
        self.events.subscribe(log_events)
        self._logs_prompts = config.monitoring.log_prompts
        self.selector = Selector(config, self.observed_latency)
        self._begin = partial(State, config, clock, self.events.publish, env=env, tokenizer=tokenizer)
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """In a child: what the parent learnt, and may have held a lock on, is left behind."""
        self.state = self._begin()
        self.streams = Streams(self)

    @property
    def guards(self) -> Guards:
        """Breakers, benches and latencies."""
        return self.state.guards

    @property
    def keyring(self) -> Keyring:
        """Where keys are looked up."""
        return self.state.keyring

    def _log_prompt(self, call: Call, trace: Trace) -> None:
        own = callers_credential(call)
        known = self.keyring.secrets(self.config.providers.values())
        log_prompt(call, trace.id, [*known, *([own.secret] if own is not None else [])])

    def _secret(self, name: str) -> str:
        """What a variable holds that is no key of a provider: the URL of a webhook."""
        return self.keyring.value(name)

    @property
    def wallet(self) -> Wallet:
        """Who goes with which credential."""
        return self.state.wallet

    @property
    def cache(self) -> ResponseCache:
        """Answers that are kept."""
        return self.state.answers.cache

    @property
    def ledger(self) -> Ledger:
        """What was spent."""
        return self.state.ledger

    def send(self, call: Call, transport: Transport, park: Park | None = None) -> Outcome:
        """Ask one target after the other until one answers. Failures come back as values; the outcome has the trace."""
        self.streams.book_forgotten()
        trace = self.begin(call)
        with trace, self.state.answers.claim(call, trace) as claim:  # kept, on its way elsewhere, or ours to fetch
            if claim.answer is not None:
                return trace.close(claim.answer)
            for attempt in self.plan(call, trace):  # decides whom, when, how long; touches no socket
                outcome = trace.record(attempt, self.attempt(attempt, trace.followed(transport), trace))
                if outcome.is_final:  # answered, or the caller's own mistake
                    return trace.close(claim.settle(outcome))
            outcome = claim.settle(trace.best)
            if park is not None and not outcome.is_final and trace.queueable:
                park(call, trace)  # nobody could: keep it for later
            return trace.close(outcome)

    def begin(self, call: Call) -> Trace:
        """The story of a call, told from here on to everybody who listens."""
        trace = Trace(call, self.clock, self.events.publish, self.events.begin)
        if self._logs_prompts:
            self._log_prompt(call, trace)
        return trace

    def plan(self, call: Call, trace: Trace) -> Iterator[Attempt]:
        """Whom to ask next, and how long to wait first."""
        candidates = self.candidates(call, trace)
        return Plan(call, candidates, trace, self.state, self.config.retry, self.clock).attempts()

    def candidates(self, call: Call, trace: Trace | None = None) -> list[Candidate]:
        """Everybody who may be asked, first choice first."""
        return self.selector.candidates(call, trace)

    def attempt(self, attempt: Attempt, transport: Transport, trace: Trace) -> Outcome:
        """Ask one target once. Failures come back as values."""
        caller = attempt.call.cancel
        if caller is not None:
            caller.on_cancel(attempt.token.cancel)
        outcome = None
        try:
            outcome = ask(attempt, transport)
            if outcome.stream is None:
                return self.settle(attempt, outcome)
            # what it comes to is booked at its end
            outcome.stream.on_end = self.streams.opened(attempt, outcome.stream, trace)
            return outcome
        except BaseException:  # Ctrl-C, a bug in somebody's adapter: says nothing about the target
            if attempt.clearance is not None:
                self.guards[attempt.target].release(attempt.clearance, self.clock.now())
            raise
        finally:
            if caller is not None and (outcome is None or outcome.stream is None):
                caller.forget(attempt.token.cancel)

    def observe(self, call: Call, candidate: Candidate, transport: Transport, park: Park | None = None) -> Outcome:
        """Let the only candidate be asked as it is: never refused, retried or cut, only noted."""
        trace = self.begin(call)
        for other in self.candidates(call, trace):
            if other is not candidate and not other.own:
                trace.skip(other.target, self.wallet.missing(other.target.provider))
        patience = Patience(call.connect, call.read)
        attempt = Attempt(
            call=call,
            target=candidate.target,
            started=trace.began,
            patience=patience,
            translation=translate(DIALECTS[call.dialect], candidate.target, call.body),
            own=True,
        )
        with trace, self.state.answers.claim(call, trace) as claim:
            if claim.answer is not None:
                return trace.close(claim.answer)
            outcome = ask(attempt, trace.followed(transport), only_look=call.stream)
            if outcome.detail:
                outcome.detail = self.wallet.explain(attempt.target, callers_credential(call), outcome)
            self.ledger.book(attempt.target, outcome)
            outcome = claim.settle(trace.record(attempt, outcome))
            if park is not None and not outcome.is_final and trace.queueable:
                park(call, trace)
            return trace.close(outcome)

    def settle(self, attempt: Attempt, outcome: Outcome, seconds: float | None = None) -> Outcome:
        """Book an outcome everywhere, once; `seconds` is how long it took, until now if nothing is said."""
        now, target, clearance = self.clock.now(), attempt.target, attempt.clearance
        assert clearance is not None
        if outcome.verdict is verdicts.READ_TIMEOUT and now - attempt.started < self._fair_time(attempt):
            outcome = replace(outcome, verdict=verdicts.CUT_SHORT)
        guards = self.state.guards
        lone = guards[target].settle(clearance, outcome, now - attempt.started if seconds is None else seconds, now)
        guards.bench(target, attempt.credential, outcome, sent=attempt.started, now=now)
        self.ledger.book(target, outcome, resent=bool(attempt.notes) and RESENT in attempt.notes)
        if clearance.tokens is not None:
            self.state.estimator.learn(clearance.tokens, target.key, outcome.usage)
        outcome.lone = lone
        outcome.detail = self.wallet.explain(target, attempt.credential, outcome)
        return outcome if attempt.is_first_choice else outcome.from_substitute()

    def _fair_time(self, attempt: Attempt) -> float:
        """Seconds of silence that say something about a target: most of its normal time, or thrice its usual one.

        An attempt that a short deadline ended sooner says nothing, and is not held against the target.
        """
        usual = self.observed_latency(attempt.target) or self.config.latency.get(attempt.target.latency, math.inf)
        return min(0.8 * min(attempt.call.limit, attempt.call.read), 3 * usual)

    def observed_latency(self, target: Target) -> float | None:
        """Seconds, 95th percentile of the last five minutes; None where the target was not seen."""
        return self.guards[target].latency.p95(self.clock.now())
