"""Ten simulated minutes in a moment: sixteen workers against a provider that enforces its limits to the letter."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from holyroute.config.schema import LimitSettings
from holyroute.resilience.admission import Admission, Priority, Ticket
from holyroute.resilience.bucket import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE = 60.0
REFUSAL = 0.05  # seconds that a 429 takes


@dataclass(frozen=True)
class Job:
    estimate: int  # tokens
    actual: int
    seconds: float


@dataclass
class Provider:
    """Counts what came in during the last minute, wherever the minute begins, and refuses what is too much."""

    rpm: float
    tpm: float
    hints: bool = True
    log: deque[tuple[float, int]] = field(default_factory=deque)
    accepted: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def receive(self, now: float, tokens: int) -> tuple[bool, float | None]:
        """Whether a request is accepted, and the Retry-After if not."""
        while self.log and self.log[0][0] <= now - MINUTE:
            self.log.popleft()
        used = sum(tokens for _, tokens in self.log)
        if len(self.log) < self.rpm and used + tokens <= self.tpm:
            self.log.append((now, tokens))
            self.accepted.append((now, tokens))
            return True, None
        self.refused.append(now)
        return False, self.log[0][0] + MINUTE - now if self.hints else None

    def used(self, minutes: float) -> float:
        """The share of the tighter limit that was used."""
        tokens = sum(tokens for _, tokens in self.accepted)
        return max(len(self.accepted) / self.rpm, tokens / self.tpm) / minutes

    def share_refused(self, after: float) -> float:
        """The share of 429s among the answers from then on."""
        refused = sum(at > after for at in self.refused)
        return refused / (refused + sum(at > after for at, _ in self.accepted))


class World:
    """Sixteen workers, each with one request after the other, in simulated time."""

    def __init__(self, limits: Limits, provider: Provider, jobs: Callable[[random.Random], Job]) -> None:
        self.now = 0.0
        self.provider = provider
        self.departures: dict[Ticket, float] = {}
        self._random = random.Random(7)  # noqa: S311 - the same run every time
        self._admission = Admission(limits, LimitSettings(), self._random.random)
        self._jobs = jobs
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waiting: dict[Ticket, Job] = {}

    def run(self, minutes: float, workers: int = 16) -> World:
        """Let time pass."""
        for worker in range(workers):
            self.at(worker / 100, lambda: self.ask(self._jobs(self._random)))
        while self._events and self._events[0][0] <= minutes * MINUTE:
            self.now, _, action = heapq.heappop(self._events)
            action()
            for ticket in self._admission.pump(self.now):
                self._send(ticket, self._waiting.pop(ticket))
            wake_at = self._admission.wake_at(self.now)
            if wake_at is not None and not (self._events and self._events[0][0] <= wake_at):
                self.at(wake_at, lambda: None)
        return self

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._events, (time, next(self._order), action))

    def ask(self, job: Job) -> Ticket:
        """Come to the limiter."""
        ticket = self._admission.try_admit(job.estimate, Priority.LIVE, self.now)
        if ticket is not None:
            self._send(ticket, job)
            return ticket
        ticket = self._admission.enqueue(job.estimate, Priority.LIVE)
        self._waiting[ticket] = job
        return ticket

    def _send(self, ticket: Ticket, job: Job) -> None:
        self.departures[ticket] = self.now
        accepted, retry_after = self.provider.receive(self.now, job.actual)

        def end() -> None:
            if accepted:
                self._admission.settle(ticket, job.actual, self.now)
            else:
                self._admission.throttle(ticket, retry_after, self.now)
            self.ask(self._jobs(self._random))

        self.at(self.now + (job.seconds if accepted else REFUSAL), end)


def even(_: random.Random) -> Job:
    return Job(500, 450, 2.0)


def mixed(chance: random.Random) -> Job:
    actual = chance.randint(50, 3_000)
    return Job(round(actual * chance.uniform(1.0, 1.3)), actual, chance.uniform(0.5, 8))


def large(chance: random.Random) -> Job:
    return Job(9_000, chance.randint(7_000, 9_000), chance.uniform(5, 20))


@pytest.mark.parametrize("jobs", [even, mixed])
def test_correct_limits(jobs: Callable[[random.Random], Job]) -> None:
    """With the provider's own figures nobody is ever refused, and 85 % of what is allowed is used."""
    provider = Provider(60, 60_000)
    World(Limits.per_minute(rpm=60, tpm=60_000), provider, jobs).run(5)

    assert provider.refused == []
    assert provider.used(5) >= 0.85


def test_prompts_larger_than_a_bucket() -> None:
    """Prompts that are each a sixth of a minute's tokens are never refused either, and use most of the limit."""
    provider = Provider(60, 60_000)
    World(Limits.per_minute(rpm=60, tpm=60_000), provider, large).run(10)

    assert provider.refused == []
    assert provider.used(10) >= 0.75


def test_estimates_that_turn_out_to_be_right_after_all() -> None:
    """Minutes of answers that use a tenth of what they reserve are no licence for the minute that uses all of it."""
    provider = Provider(600, 60_000)
    world: list[World] = []

    def turning(chance: random.Random) -> Job:
        late = world[0].now > 150
        return Job(2_000, 2_000 if late else 200, chance.uniform(10, 40))

    world.append(World(Limits.per_minute(rpm=600, tpm=60_000), provider, turning))
    world[0].run(5, workers=64)

    assert provider.refused == []


@pytest.mark.parametrize("hints", [True, False])
def test_twice_the_real_limit(hints: bool) -> None:
    """With figures twice too high fewer than 5 % are refused once it has settled, with or without Retry-After."""
    provider = Provider(60, 60_000, hints=hints)
    World(Limits.per_minute(rpm=120, tpm=120_000), provider, even).run(10)

    assert provider.share_refused(after=30) < 0.05
    assert provider.used(10) >= 0.75


def test_one_large_prompt_among_small_ones() -> None:
    """A large prompt goes within twice the time that its tokens and those ahead of it take at the full rate."""
    world = World(Limits.per_minute(tpm=60_000), Provider(1e9, 60_000), lambda _: Job(500, 500, 0.2))
    came: list[tuple[float, Ticket]] = []
    for minute in (1, 2, 3, 4):
        world.at(minute * MINUTE, lambda: came.append((world.now, world.ask(Job(10_000, 10_000, 1.0)))))
    world.run(5.5)
    waits = [world.departures[ticket] - at for at, ticket in came]
    fair = (16 * 500 + 10_000) / (0.9 * 57_000 / 60)

    assert len(waits) == 4
    assert max(waits) <= 2 * fair
    assert world.provider.refused == []
