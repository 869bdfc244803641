"""An outage in simulated time: parked calls outlive it, and a provider that comes back is not run over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from queue_outage import World

from holyroute.deferred.parked import ParkedCall, encode
from holyroute.stores.base import NewItem

if TYPE_CHECKING:
    import pytest

    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome

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


def test_nobody_waits_behind_a_provider_that_is_down() -> None:
    """Calls for a healthy one, parked after hundreds of others, are answered by a single pass; one is tried in vain."""
    world = World(back_after=HOUR, takes=0.01)
    world.park(500)
    world.park(30, "healthy")
    progress = world.queue.drain()
    stats = world.queue.stats()
    leases = sum(world.queue.get(ticket).leases for ticket in world.tickets[:500])

    assert (progress.answered, stats.ready, stats.leased) == (30, 500, 0)
    assert (world.asked_down, leases) == (1, 1)


def test_calls_that_cannot_be_read_hold_up_no_others() -> None:
    """Somebody else's payloads, or a model that is gone: they die or wait with the cause, the others are answered."""
    world = World(back_after=0.0)
    world.park(1)
    (group,) = world.queue.groups()
    for number in range(3):
        world.queue._store.put(NewItem(payload=b"[]", digest=str(number), group=group + 1))
        world.clock.advance(1.0)
    body = {"messages": [{"role": "user", "content": "?"}]}
    lost = world.queue.put(ParkedCall(body=body, model="gone"))
    world.queue._store.put(
        NewItem(payload=encode(ParkedCall(body=body, model="m"), 10**6, ()), digest="x", group=group + 1)
    )
    progress = world.queue.drain()

    assert (progress.answered, world.queue.stats().dead) == (2, 3)
    assert "gone" in (world.queue.get(lost.id).error or "")


def test_replays_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go after live calls, and after those of a batch."""
    world = World(back_after=0.0)
    world.park(1)
    seen: list[Call] = []
    send = world.router.send

    def watch(call: Call, *rest: Any) -> Outcome:
        seen.append(call)
        return send(call, *rest)

    monkeypatch.setattr(world.router, "send", watch)
    world.queue.drain()

    assert [(call.background, call.replayed) for call in seen] == [(True, True)]
