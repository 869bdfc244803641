"""Groups of parked calls: who of them may be leased, and how many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holyroute import load
from holyroute.core.call import Call, Selection
from holyroute.deferred.groups import Groups
from holyroute.deferred.parked import ParkedCall, group_of
from holyroute.engine.router import Router
from holyroute.resilience.admission import Priority
from holyroute.testing import FakeClock

MESSAGES = [{"role": "user", "content": "?"}]
PLAIN = ParkedCall(body={"messages": MESSAGES}, model="a")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def router(clock: FakeClock) -> Router:
    config = load(
        cwd_file=False,
        env={},
        providers={"p": {"base_url": "https://provider.example/v1"}},
        models={name: {"provider": "p"} for name in "abc"},
    )
    return Router(config, clock=clock, env={})


def call(*models: str) -> Call:
    body = {"messages": MESSAGES}
    return Call(model=None, body=body, deadline=9, connect=9, read=9, selection=Selection(models=models))


# --- fingerprints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"model": "b"},
        {"model": None},
        {"selection": Selection(task="simple_qa")},
        {"selection": Selection(priority="fast")},
        {"selection": Selection(models=("a",))},
        {"selection": Selection(direct=True)},
        {"body": {"messages": MESSAGES, "tools": [{"type": "function"}]}},
        {"body": {"messages": MESSAGES, "response_format": {"type": "json_object"}}},
    ],
)
def test_another_route_is_another_group(other: dict[str, Any]) -> None:
    """Whatever may lead to other targets."""
    assert group_of(replace(PLAIN, **other)) != group_of(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        {"body": {"messages": [{"role": "user", "content": "Something else."}], "temperature": 1}},
        {"handler": "save", "metadata": {"row": 17}, "key": "row 17"},
    ],
)
def test_the_same_route_is_the_same_group(other: dict[str, Any]) -> None:
    """Whatever is asked, and whoever takes the answer."""
    assert group_of(replace(PLAIN, **other)) == group_of(PLAIN)


def test_a_group_is_the_same_in_every_process() -> None:
    """A number that SQLite can hold, and that stays the same: what was parked yesterday is found today."""
    assert group_of(PLAIN) == -5139588816748176238


@pytest.mark.parametrize("messages", [17, None, "text"])
def test_a_body_that_makes_no_sense_has_a_group_too(messages: Any) -> None:
    """It is parked; whoever replays it says what is wrong."""
    assert -(2**63) <= group_of(replace(PLAIN, body={"messages": messages})) < 2**63


# --- who may be asked -------------------------------------------------------------------------------------------------


def test_the_queue_waits_for_batches(clock: FakeClock) -> None:
    """Nothing is leased while the rate limit has somebody else waiting: live calls, then batches, then the queue."""
    config = load(
        cwd_file=False,
        env={},
        providers={"p": {"base_url": "https://provider.example/v1"}},
        models={"a": {"provider": "p", "rpm": 10}},
    )
    router = Router(config, clock=clock, env={})
    groups = Groups(router, 8)
    group = groups.learn(1, call("a"))
    before = groups.open_at(group, clock.now())
    (limiter,) = router.state.limiters.of(config.models["a"], None)
    limiter._core.enqueue(1, Priority.BATCH)

    assert before == clock.now()
    assert groups.open_at(group, clock.now()) > clock.now()


# --- shares -----------------------------------------------------------------------------------------------------------


def test_after_an_outage_a_group_has_one_place(router: Router, clock: FakeClock) -> None:
    """However many are free: it begins anew; nothing of those that rest or are down."""
    groups = Groups(router, 8)
    groups.learn(1, call("a"))
    resting, down = groups.learn(2, call("b")), groups.learn(3, call("c"))
    resting.ramp.outage(clock.now(), clock.now() + 5.0)
    breaker = router.guards[router.config.models["c"]].breaker
    breaker.force_open(clock.now())
    now = clock.now()

    assert groups.shares([3, 2, 1], 8, now) == {1: 1}
    assert groups.shares([3, 2, 1], 8, now + 5.0) == {2: 1, 1: 1}
    assert groups.open_at(down, now) > now + 10**6
    assert groups.next_at([3, 2], now) == now + 5.0
    assert groups.next_at([], now) is None


def test_places_go_to_the_group_with_the_fewest_under_way(router: Router, clock: FakeClock) -> None:
    """A slow provider with thousands of calls leaves room for another one; of equals the first is served first."""
    groups = Groups(router, 8)
    slow, quick = groups.learn(1, call("a")), groups.learn(2, call("b"))
    for group in (slow, quick):
        group.ramp.width = 8
    fresh = groups.shares([1, 2], 5, clock.now())
    slow.in_flight = 6

    assert fresh == {1: 3, 2: 2}
    assert groups.shares([1, 2], 2, clock.now()) == {2: 2}
    assert groups.shares([1, 2], 8, clock.now()) == {2: 7, 1: 1}
    assert groups.shares([1], 8, clock.now()) == {1: 2}


def test_fingerprints_of_the_same_targets_share_their_places(router: Router, clock: FakeClock) -> None:
    """What comes back is met by one call at first, not by one of each sort."""
    groups = Groups(router, 8)
    group = groups.learn(1, call("a", "b"))
    same = groups.learn(2, call("b", "a"))
    first = groups.shares([2, 1], 8, clock.now())
    group.ramp.width = 4

    assert same is group
    assert first == {2: 1}
    assert groups.shares([2, 1], 8, clock.now()) == {2: 2, 1: 2}


def test_what_nobody_can_read_is_leased_all_the_same(router: Router, clock: FakeClock) -> None:
    """So that its fault comes out; once a call of it can be read, its group is known."""
    groups = Groups(router, 8)
    unknown = groups.unknown([1, 2])
    shares = groups.shares([1], 8, clock.now())
    group = groups.learn(1, call("a"))
    group.ramp.outage(clock.now(), clock.now() + 5.0)

    assert unknown == [1, 2]
    assert shares == {1: 1}
    assert groups.unknown([1, 2]) == [2]
    assert groups.shares([1], 8, clock.now()) == {}
