"""An outage in simulated time: parked calls outlive it, and a provider that comes back is not run over."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from queue_outage import World

HOUR = 3_600.0


def test_an_outage_kills_no_parked_call() -> None:
    """None dead, each answered once, the breaker closed from the first answers on."""
    world = World(back_after=6 * HOUR)
    world.park(200)
    progress = world.queue.drain(until_empty=True)

    assert (progress.answered, progress.dead, world.trips_after) == (200, 0, 0)
    assert world.asked_up == 200
    assert world.asked_down < 6 * HOUR / 10


def test_nobody_is_asked_while_the_breaker_is_open() -> None:
    """What is leased goes no further than the breaker's own probes: of a thousand calls, none is tried in vain."""
    world = World(back_after=HOUR)
    world.park(1_000)
    world.queue.drain(until_empty=True)
    attempts = [record.leases for record in [world.queue.get(ticket) for ticket in world.tickets]]

    assert sum(attempts) < 1_000 + world.asked_down + HOUR / 10 + 10


def test_after_an_outage_calls_come_one_two_four() -> None:
    """Answers double the number of calls under way, up to the setting; an outage sets it back to one."""
    world = World(back_after=0.0)
    run = world.queue._run()
    world.park(128)
    for _ in range(5):
        for work in run.replayer.take()[1]:
            run.replayer.work(work)
    world.back_after = world.clock.now() - world.began + 60.0
    widths: list[int] = []
    while world.queue.stats().ready:
        _, works = run.replayer.take()
        if works and not world.is_down:
            widths.append(len(works))
        for work in works:
            run.replayer.work(work)
        world.clock.advance(1.0 if works else 5.0)

    assert widths[:4] == [1, 2, 4, 8]
    assert max(widths) == 8
