"""The engine on one page: who is asked, in which order, and what becomes of the answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from requests.exceptions import RequestException

from holyroute.config.credentials import Keyring
from holyroute.core import classify
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.events import Events
from holyroute.core.trace import Trace
from holyroute.cost.ledger import Ledger
from holyroute.engine.attempt import Attempt
from holyroute.engine.plan import Plan
from holyroute.engine.selector import Selector
from holyroute.engine.wallet import Wallet, callers_credential
from holyroute.resilience.guard import Guards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holyroute.config.schema import Config
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.events import Observer
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.engine.attempt import Candidate, Transport


class Router:
    """Sends a chat completion to the first target that can answer it.

    Holds all state that lives longer than a call: breakers, benches, latencies, the ledger. Safe to share between
    threads.

    Args:
        config: providers, models, routes, settings.
        clock: time, for tests.
        observers: called with every event, in the thread of the call.
        env: where credentials are looked up; the process environment by default.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = SYSTEM_CLOCK,
        observers: tuple[Observer, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.events = Events(observers)
        self.guards = Guards(config.breaker, self.events.publish)
        self.keyring = Keyring(env)
        self.wallet = Wallet(self.keyring, self.guards)
        self.selector = Selector(config, self.observed_latency)
        self.ledger = Ledger()

    def send(self, call: Call, transport: Transport) -> Outcome:
        """Ask one target after the other until one answers. Failures come back as values; the outcome has the trace."""
        trace = Trace(call, self.clock, self.events.publish)
        for attempt in self.plan(call, trace):  # decides whom, when, how long; touches no socket
            outcome = trace.record(attempt, self.attempt(attempt, transport))
            if outcome.is_final:  # answered, or the caller's own mistake
                return trace.close(outcome)
        return trace.close(trace.best)

    def plan(self, call: Call, trace: Trace) -> Iterator[Attempt]:
        """Whom to ask next, and how long to wait first."""
        plan = Plan(call, trace, guards=self.guards, wallet=self.wallet, settings=self.config.retry, clock=self.clock)
        return plan.attempts(self.candidates(call, trace))

    def candidates(self, call: Call, trace: Trace | None = None) -> list[Candidate]:
        """Everybody who may be asked, first choice first."""
        return self.selector.candidates(call, trace)

    def attempt(self, attempt: Attempt, transport: Transport) -> Outcome:
        """Ask one target once. Failures come back as values."""
        try:
            return self.settle(attempt, _ask(attempt, transport))
        except BaseException:  # Ctrl-C, a bug in somebody's adapter: says nothing about the target
            self.guards[attempt.target].release(attempt.permit, self.clock.now())
            raise

    def observe(self, call: Call, candidate: Candidate, transport: Transport) -> Outcome:
        """Let the only candidate be asked as it is: never refused, retried or cut, only noted."""
        trace = Trace(call, self.clock, self.events.publish)
        attempt = Attempt(
            call=call, target=candidate.target, started=trace.began, connect=call.connect, read=call.read, own=True
        )
        outcome = _ask(attempt, transport, only_look=call.stream)
        if outcome.detail:
            outcome = replace(outcome, detail=self.wallet.explain(attempt.target, callers_credential(call), outcome))
        self.ledger.book(attempt.target, outcome)
        return trace.close(trace.record(attempt, outcome))

    def settle(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Book an outcome everywhere, once."""
        now = self.clock.now()
        target = attempt.target
        lone = self.guards[target].settle(attempt.permit, outcome, now - attempt.started, now)
        self.guards.bench(target, attempt.credential, outcome, sent=attempt.started, now=now)
        self.ledger.book(target, outcome)
        outcome = replace(outcome, detail=self.wallet.explain(target, attempt.credential, outcome))
        return replace(outcome if attempt.is_first_choice else outcome.from_substitute(), lone=lone)

    def observed_latency(self, target: Target) -> float | None:
        """Seconds, 95th percentile of the last five minutes; None where the target was not seen."""
        return self.guards[target].latency.p95(self.clock.now())


def _ask(attempt: Attempt, transport: Transport, *, only_look: bool = False) -> Outcome:
    try:
        response = transport(attempt)
    except RequestException as error:
        return classify.of_exception(error)
    return classify.of_status(response) if only_look else classify.of_response(response, stream=attempt.call.stream)
