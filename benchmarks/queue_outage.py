"""A long outage in simulated time: what becomes of parked calls, and how a provider that comes back is met.

    python benchmarks/queue_outage.py [--calls 10000] [--days 2] [--seconds 1] [--others 100]

Calls are parked while their only provider refuses connections, and after them some for a healthy one. The real replay
runs all the while, one call at a time, on a clock that jumps over every wait; the queue is in memory. Then the provider
is back. Dead: calls that were given up. Trips after: how often the breaker opened once the provider was back. Prints a
Markdown table; fails if a call died, the breaker tripped again, or the others waited for the provider that was down.
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests

from holyroute import load
from holyroute.config.schema import QueueSettings
from holyroute.core.events import CircuitChanged
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import open_store
from holyroute.deferred.worked import WorkedQueue
from holyroute.engine.router import Router
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome
    from holyroute.engine.attempt import Attempt

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}


@dataclass
class World:
    """A provider that is down until some time, and whoever replays calls to it."""

    back_after: float  # seconds
    takes: float = 1.0  # seconds that an answer takes
    clock: FakeClock = field(default_factory=FakeClock)
    asked_down: int = 0
    asked_up: int = 0
    trips_after: int = 0
    answered_at: list[float] = field(default_factory=list)  # seconds
    healthy_at: list[float] = field(default_factory=list)  # the same, of the other provider
    tickets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = load(
            cwd_file=False,
            env={},
            providers={name: {"base_url": f"https://{name}.example/v1"} for name in "pq"},
            models={"m": {"provider": "p"}, "healthy": {"provider": "q"}},
            retry={"sole_attempts": 1},
        )
        self.began = self.clock.now()
        self.router = Router(config, clock=self.clock, env={}, observers=(self.watch,))
        settings = QueueSettings(path=":memory:")
        store = open_store(settings, self.clock)
        self.queue = WorkedQueue(
            store, settings, self.router, send=self.send, record=lambda _: ANSWER, spawn=lambda work: work()
        )

    @property
    def is_down(self) -> bool:
        """Whether the provider refuses."""
        return self.clock.now() - self.began < self.back_after

    def watch(self, event: Any) -> None:
        """Count what the breaker does once the provider is back."""
        if isinstance(event, CircuitChanged) and event.after == "open" and not self.is_down:
            self.trips_after += 1

    def send(self, call: Call, key: str) -> Outcome:  # noqa: ARG002 - nobody counts keys here
        """The real engine, on a network that is not there."""
        return self.router.send(call, self.answer)

    def answer(self, attempt: Attempt) -> requests.Response:
        """What comes back."""
        is_healthy = attempt.target.name == "healthy"
        if self.is_down and not is_healthy:
            self.asked_down += 1
            raise requests.ConnectionError("refused")
        self.asked_up += not is_healthy
        self.clock.advance(self.takes)
        (self.healthy_at if is_healthy else self.answered_at).append(self.clock.now() - self.began)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = "application/json"
        response._content = json.dumps(ANSWER).encode()  # noqa: SLF001 - as mocks of requests set it
        response.request = attempt.request()
        return response

    def park(self, calls: int, model: str = "m") -> None:
        """So many different calls."""
        for number in range(calls):
            body = {"model": model, "messages": [{"role": "user", "content": f"call {number}"}]}
            self.tickets.append(self.queue.put(ParkedCall(body=body, model=model)).id)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--others", type=int, default=100)
    arguments = parser.parse_args()
    world = World(arguments.days * 86_400, arguments.seconds)
    world.park(arguments.calls)
    world.park(arguments.others, "healthy")
    tracemalloc.start()
    progress = world.queue.drain(until_empty=True)
    memory = tracemalloc.get_traced_memory()[1]
    stats = world.queue.stats()
    drained = world.clock.now() - world.began - world.back_after
    first = world.answered_at[0] - world.back_after
    print(
        "| calls | outage | dead | answered | asked while down | first answer after | drained after "
        "| trips after | peak of Python memory | others answered after |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    print(
        f"| {arguments.calls} | {arguments.days:g} days | {stats.dead} | {len(world.answered_at)} | {world.asked_down} "
        f"| {first:.0f} s | {drained:.0f} s | {world.trips_after} | {memory / 1e6:.1f} MB "
        f"| {max(world.healthy_at):.0f} s |"
    )
    assert (stats.dead, progress.answered, world.trips_after) == (0, arguments.calls + arguments.others, 0)
    assert max(world.healthy_at) < arguments.others * arguments.seconds + 60.0
    assert world.asked_up == arguments.calls


if __name__ == "__main__":
    main()
