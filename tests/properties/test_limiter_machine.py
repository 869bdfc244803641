"""The limiter against a naive model of it: a list of all that was sent, and sums over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import given
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

from holyroute.config.schema import LimitSettings
from holyroute.resilience.admission import Admission, Priority, Ticket
from holyroute.resilience.bucket import Limit, Limits

SETTINGS = LimitSettings()
REQUESTS, TOKENS = Limit("requests", 60), Limit("tokens", 6_000)
RATES = st.sampled_from(
    [
        (REQUESTS, TOKENS),
        (TOKENS,),
        (Limit("requests", 3),),
        (Limit("requests", 1), TOKENS),
        (REQUESTS, TOKENS, Limit("requests", 100, 600.0), Limit("tokens", 15_000, 600.0)),
    ]
)
LIMITS = st.builds(Limits, RATES, st.sampled_from([None, None, 3]), st.sampled_from([True, True, False]))
SECONDS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 5.0, 15.0, 59.75, 60.0, 130.0])
SIZES = st.sampled_from([0, 1, 50, 100, 400, 570, 571, 2_000, 5_700])  # a bucket of 6,000 a minute holds 570
CLASSES = st.sampled_from([Priority.LIVE, Priority.LIVE, Priority.BATCH, Priority.QUEUE])
TOLERANCE = 0.01


def allowed(limit: Limit) -> float:
    """The most that a window may hold: the limit with its headroom, and at least one whole request."""
    return math.ceil(limit.amount * SETTINGS.headroom)


@dataclass
class Sent:
    at: float
    requests: int
    tokens: float


class LimiterMachine(RuleBasedStateMachine):
    """Does what a limiter's shell does. Times are multiples of 0.25 s, or when the limiter wants to be woken."""

    admission_class: type[Admission] = Admission  # mutants are put here
    waiting = Bundle("waiting")
    settled = Bundle("settled")

    @initialize(limits=LIMITS)
    def start(self, limits: Limits) -> None:
        """Any sensible limits."""
        self.now = 1_000.0
        self.limits = limits
        self.admission = self.admission_class(limits, SETTINGS, lambda: 0.5)
        self.queues: list[list[Ticket]] = [[], [], []]
        self.sent: dict[Ticket, Sent] = {}
        self.in_flight = 0
        self.blocked_until = 0.0

    # --- the model ---

    def was_admitted(self, ticket: Ticket) -> None:
        """Whoever is sent must be sent now: no limit is passed, nobody is overtaken, no block is broken."""
        self.in_flight += 1
        self.sent[ticket] = Sent(self.now, 1, ticket.tokens)
        assert ticket.state == "admitted"
        assert ticket.sent == self.now
        assert self.now >= self.blocked_until
        assert self.in_flight <= (self.limits.max_concurrency or math.inf)
        assert not any(self.queues[: ticket.priority])
        for limit in self.limits.rates:
            recent = [one for one in self.sent.values() if one.at >= self.now - limit.window]
            used = sum(one.requests if limit.kind == "requests" else one.tokens for one in recent)
            assert used <= allowed(limit) + TOLERANCE

    def pump(self) -> list[Ticket]:
        """Admit who can go; the model knows in which order."""
        gone = self.admission.pump(self.now)
        for ticket in gone:
            queue = next(queue for queue in self.queues if queue)
            assert ticket is queue.pop(0)
            self.was_admitted(ticket)
        return gone

    def most(self) -> float:
        """The most tokens that one request may have."""
        return min((allowed(limit) for limit in self.limits.rates if limit.kind == "tokens"), default=math.inf)

    # --- what can happen ---

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        """Time passes; nobody goes before the time that was announced."""
        wake_at = self.admission.wake_at(self.now)
        self.now += seconds
        gone = self.pump()
        assert not gone or (wake_at is not None and wake_at <= self.now)

    @rule()
    def wake(self) -> None:
        """The head sleeps until its time, and then really can go."""
        wake_at, head = self.admission.wake_at(self.now), self.admission.head
        if wake_at is not None:
            self.now = wake_at
            assert head in self.pump()

    @rule(target=waiting, tokens=SIZES, priority=CLASSES)
    def ask(self, tokens: int, priority: Priority) -> Any:
        """Everything fits at once, or one waits, or it can never fit; `eta` knew which."""
        eta = self.admission.eta(tokens, priority, self.now)
        ticket = self.admission.try_admit(tokens, priority, self.now)
        if ticket is not None:
            assert eta == 0
            assert not self.queues[priority]
            self.was_admitted(ticket)
            return ticket
        assert (eta is None) == (tokens > self.most())
        if eta is None:
            return multiple()
        assert 0 <= eta < math.inf
        ticket = self.admission.enqueue(tokens, priority)
        self.queues[priority].append(ticket)
        return ticket

    @rule(tokens=st.lists(SIZES, min_size=4, max_size=12), priority=CLASSES)
    def burst(self, tokens: list[int], priority: Priority) -> None:
        """Many at the same time, of which nobody will hear again."""
        for size in tokens:
            self.ask(size, priority)

    @rule(ticket=consumes(waiting))
    def give_up(self, ticket: Ticket) -> None:
        """Leave the queue, or give back what was admitted and never sent: it counts nowhere."""
        if ticket.state == "waiting":
            self.queues[ticket.priority].remove(ticket)
        elif ticket.state == "admitted":
            self.in_flight -= 1
            del self.sent[ticket]
        self.admission.cancel(ticket)
        self.pump()

    @rule(target=settled, ticket=consumes(waiting), used=st.sampled_from([None, 0.0, 0.1, 1.0, 1.5, 1_000_000.0]))
    def settle(self, ticket: Ticket, used: float | None) -> Any:
        """An answer, with usage as a share of the estimate, or a failure without."""
        if ticket.state != "admitted":
            return multiple()
        actual = None if used is None else round(used * ticket.tokens)
        if actual is not None and (self.limits.refunds or actual > ticket.tokens):
            self.sent[ticket].tokens = min(actual, self.most())
        self.in_flight -= 1
        self.admission.settle(ticket, actual, self.now)
        self.pump()
        return ticket

    @rule(target=settled, ticket=consumes(waiting), retry_after=st.sampled_from([None, 0.0, 2.0, 75.0]))
    def throttle(self, ticket: Ticket, retry_after: float | None) -> Any:
        """A 429: the request counts, its tokens do not, and nobody goes until it is over."""
        if ticket.state != "admitted":
            return multiple()
        self.sent[ticket].tokens = 0
        self.in_flight -= 1
        self.admission.throttle(ticket, retry_after, self.now)
        self.blocked_until = max(self.blocked_until, self.now + (retry_after or 0.0))
        assert self.pump() == [] or retry_after == 0
        return ticket

    @rule(ticket=settled)
    def settle_again(self, ticket: Ticket) -> None:
        """Only the first time counts."""
        before = self.admission.levels(self.now), self.admission.in_flight, self.admission.pace.blocked_until
        self.admission.settle(ticket, 1, self.now)
        self.admission.throttle(ticket, 500.0, self.now)
        self.admission.cancel(ticket)
        assert before == (self.admission.levels(self.now), self.admission.in_flight, self.admission.pace.blocked_until)

    @rule(ticket=settled, left=st.sampled_from([0, 1, 100, 10**9]))
    def observe(self, ticket: Ticket, left: int) -> None:
        """What the provider says it has left never raises a level."""
        before = self.admission.levels(self.now)
        self.admission.observe(ticket, {"requests": left, "tokens": left}, self.now)
        assert all(new[1] <= old[1] for old, new in zip(before, self.admission.levels(self.now), strict=True))

    @invariant()
    @precondition(lambda self: hasattr(self, "limits"))
    def nobody_is_forgotten(self) -> None:
        """Whoever waits is woken at some time, or waits for somebody else's end."""
        wake_at = self.admission.wake_at(self.now)
        assert self.admission.waiting == sum(map(len, self.queues))
        assert self.admission.in_flight == self.in_flight
        assert self.admission.head is next((queue[0] for queue in self.queues if queue), None)
        assert all(level <= capacity for _, level, capacity in self.admission.levels(self.now))
        if wake_at is not None:
            assert self.now <= wake_at < math.inf
        elif self.admission.waiting:
            assert self.in_flight == self.limits.max_concurrency

    def teardown(self) -> None:
        """Whatever happened: if requests end, everybody goes, each when announced."""
        for _ in range(self.admission.waiting if hasattr(self, "limits") else 0):
            for ticket in [ticket for ticket in self.sent if ticket.state == "admitted"]:
                self.in_flight -= 1
                self.admission.settle(ticket, None, self.now)
            self.wake()
            self.pump()
        if hasattr(self, "limits"):
            assert self.admission.head is None


TestLimiter = LimiterMachine.TestCase


def departures(jobs: list[tuple[int, Priority, float]], cancelled: int | None, cancel_after: float) -> list[float]:
    """When each of some jobs goes, if they come one after the other and one of them gives up."""
    admission = Admission(Limits((REQUESTS, TOKENS)), SETTINGS, lambda: 0.5)
    events = [(at, index) for index, (_, _, at) in enumerate(jobs)]
    if cancelled is not None:
        events.append((jobs[cancelled][2] + cancel_after, -1))
    tickets: dict[int, Ticket] = {}
    now = 0.0
    for at, index in [*sorted(events), (math.inf, None)]:
        while (wake_at := admission.wake_at(now)) is not None and wake_at <= at:
            now = wake_at
            admission.pump(now)
        now = at
        if index == -1 and cancelled is not None and tickets[cancelled].state == "waiting":
            admission.cancel(tickets[cancelled])
            admission.pump(now)
        elif index is not None and index >= 0:
            tokens, priority, _ = jobs[index]
            ticket = admission.try_admit(tokens, priority, now)
            tickets[index] = ticket or admission.enqueue(tokens, priority)
    return [tickets[index].sent for index in range(len(jobs))]


@given(
    st.lists(st.tuples(SIZES, st.just(Priority.LIVE), st.sampled_from([0.0, 0.5, 3.0, 20.0])), min_size=2, max_size=20),
    st.data(),
    st.sampled_from([0.25, 2.0, 30.0]),
)
def test_a_cancel_delays_nobody(jobs: list[tuple[int, Priority, float]], data: st.DataObject, after: float) -> None:
    """When one of those who wait gives up, nobody goes later than if it had stayed."""
    cancelled = data.draw(st.integers(0, len(jobs) - 1))
    stayed, left = departures(jobs, None, after), departures(jobs, cancelled, after)

    assert all(
        then <= now + 1e-6 for index, (now, then) in enumerate(zip(stayed, left, strict=True)) if index != cancelled
    )
