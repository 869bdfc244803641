"""Outages in fake time: hours of them, at every phase, without a socket.

The router is the real one. The providers are functions of time, asked through a transport that moves the clock by what
an answer takes.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core.call import Call, Selection
from holyroute.engine.router import Router
from holyroute.failure import exception_of
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt

    Behaviour = Callable[[float], int]  # seconds since the start → status; SILENT: no answer

SILENT = 0
UP, DOWN = 200, 503
LATENCY = 0.02  # seconds that an answer takes
KEYS = {"KEY_A": "test-key-a", "KEY_A2": "test-key-a2", "KEY_B": "test-key-b"}


def response(status: int, headers: dict[str, str] | None = None) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update(headers or {})
    answer = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
    made._content = json.dumps(answer if status == UP else {"error": {"message": "no"}}).encode()
    return made


class World:
    """Two providers, A and B, one model each, and a router in front of them."""

    def __init__(self, a: Behaviour, b: Behaviour = lambda _: UP, **settings: Any) -> None:
        self.clock = FakeClock()
        self.start = self.clock.now()
        self.behaviours = {"ma": a, "mb": b}
        self.asked: dict[str, list[tuple[float, str]]] = {
            "ma": [],
            "mb": [],
        }  # when, of which kind
        self.headers: dict[str, str] = {}
        self.keys: list[str] = []  # names of the credentials that came along
        self.meanwhile: Callable[[], None] = lambda: None  # what others do while an attempt is under way
        providers: dict[str, Any] = {
            "a": {"base_url": "https://a.example/v1", "api_key_env": settings.pop("keys", ["KEY_A"])},
            "b": {"base_url": "https://b.example/v1", "api_key_env": "KEY_B"},
        }
        models = {"ma": {"provider": "a"}, "mb": {"provider": "b"}}
        config = holyroute.load(env={}, cwd_file=False, providers=providers, models=models, **settings)
        self.router = Router(config, clock=self.clock, env=KEYS)

    @property
    def time(self) -> float:
        """Seconds since the start."""
        return self.clock.now() - self.start

    def send(self, *models: str, deadline: float = 300.0, read: float = 3.0) -> Outcome:
        """Ask for an answer; A first, then B, unless others are named."""
        call = Call(
            model=None,
            body={"messages": []},
            deadline=deadline,
            connect=3.0,
            read=read,
            selection=Selection(models=models or ("ma", "mb")),
        )
        return self.router.send(call, self.transport)

    def transport(self, attempt: Attempt) -> requests.Response:
        """What a provider does with an attempt."""
        name = attempt.target.name
        self.asked[name].append((self.time, attempt.kind))
        if attempt.credential is not None:
            self.keys.append(attempt.credential.name)
        status = self.behaviours[name](self.time)
        self.meanwhile()
        if status == SILENT:
            self.clock.advance(attempt.patience.read)
            raise requests.ReadTimeout
        self.clock.advance(LATENCY)
        return response(status, self.headers)

    def wait_until(self, seconds: float) -> None:
        """Move the clock to a number of seconds since the start, unless it is there already."""
        self.clock.advance(max(0.0, seconds - self.time))


def down_between(begin: float, end: float, how: int = DOWN) -> Behaviour:
    return lambda now: how if begin <= now < end else UP


def story(outcome: Outcome) -> Trace:
    assert outcome.trace is not None
    return outcome.trace


def who(outcome: Outcome) -> str | None:
    answered_by = story(outcome).answered_by
    return answered_by.name if answered_by else None


def attempts(outcome: Outcome) -> int:
    return len(story(outcome).attempts)


@pytest.mark.parametrize("phase", range(50))
def test_l3_an_outage_of_a_minute(phase: int) -> None:
    """A is down for 60 s, a call comes every 4 s: all are answered, ≤ 8 touch A meanwhile, A is back within 12 s."""
    begin = 8 + phase * 4 / 50
    world = World(down_between(begin, begin + 60))
    answers = []

    for number in range(24):
        world.wait_until(4 * number)
        answers.append((world.time, who(world.send())))

    during = [moment for moment, _ in world.asked["ma"] if begin <= moment < begin + 60]
    back = next(moment for moment, model in answers if moment >= begin + 60 and model == "ma")
    assert None not in {model for _, model in answers}
    assert len(during) <= 8
    assert back - (begin + 60) <= 12
    assert {"ma"} == {model for moment, model in answers if moment >= back}


@pytest.mark.parametrize("how", [DOWN, 500, SILENT])
def test_an_outage_of_an_hour(how: int) -> None:
    """A is down for an hour, a call comes every second: nobody goes without an answer, and hardly anybody waits."""
    world = World(down_between(0, 3_600, how))
    waits = []

    while world.time < 3_600:
        began = world.time
        assert who(world.send()) == "mb"
        waits.append(world.time - began)
        world.wait_until(began + 1)
    asked = len(world.asked["ma"])
    while who(world.send()) != "ma":
        world.clock.advance(1)

    probes = 3_600 / (15 if how != SILENT else 60)  # the longest open time, for cheap and for slow failures
    assert 0.8 * probes <= asked <= probes + 10
    assert sum(wait > 1 for wait in waits) <= 0.05 * len(waits)
    assert world.time - 3_600 <= (20 if how != SILENT else 70)


def test_a_provider_that_flaps() -> None:
    """A goes up and down every 10 s for 10 min, at 5 calls a second: all are answered, ≤ 6 calls per outage touch A."""
    world = World(lambda now: UP if int(now / 10) % 2 else DOWN)
    models = []

    while world.time < 600:
        models.append(who(world.send()))
        world.clock.advance(0.2 - LATENCY)

    in_vain = [moment for moment, _ in world.asked["ma"] if not int(moment / 10) % 2]
    assert None not in models
    assert len(in_vain) <= 6 * 30
    assert models.count("ma") >= 0.1 * len(models)


@pytest.mark.parametrize("percent", range(0, 101, 10))
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_amplification(percent: int, status: int, rate: float) -> None:
    """At no share of errors does A see more than 1.2 attempts per call, beyond a burst of 20; everybody is answered."""
    draw = random.Random(percent)  # noqa: S311 - a simulation
    world = World(lambda _: status if draw.random() < percent / 100 else UP)
    calls = 1_000

    for _ in range(calls):
        assert who(world.send()) is not None
        world.clock.advance(1 / rate)

    assert len(world.asked["ma"]) <= 1.2 * calls + 20
    assert len(world.asked["mb"]) <= 1.0 * calls


def test_l4_everybody_down() -> None:
    """A and B are down for 60 s, 16 callers loop: an early probe a second per target, all others fail at once; then up.

    Ordinary probes, when an open time ends, come on top: 5, 10, 15, 15 s apart.
    """
    world = World(down_between(10, 70), down_between(10, 70))
    outcomes: list[tuple[float, Outcome]] = []

    while world.time < 75:
        tick = world.time
        outcomes += [(world.time, world.send()) for _ in range(16)]
        world.wait_until(tick + 0.1)

    outage = [outcome for moment, outcome in outcomes if 12 <= moment < 70]  # both circuits are open by then
    refused = [outcome for outcome in outage if not attempts(outcome)]
    for name in ("ma", "mb"):
        early = [moment for moment, kind in world.asked[name] if kind == "early"]
        ordinary = [moment for moment, kind in world.asked[name] if kind == "probe" and moment < 70]
        assert all(later - before >= 1 for before, later in itertools.pairwise(early))
        assert 40 <= len(early) <= 60
        assert len(ordinary) <= 8
    assert len(outage) - len(refused) <= 2 * (60 + 8)
    assert {story(outcome).seconds for outcome in refused} == {0.0}
    assert all(outcome.retry_after is not None and outcome.queueable for outcome in refused)
    assert min(moment for moment, outcome in outcomes if moment >= 70 and outcome.is_answer) <= 71.2
    assert all(outcome.is_answer for moment, outcome in outcomes if moment > 73)


@pytest.mark.parametrize("pause", [1.0, 30.0])
def test_l4_everybody_silent(pause: float) -> None:
    """While a probe of each silent target is under way, early or not, all other callers fail at once."""
    world = World(lambda _: SILENT, lambda _: SILENT)
    for _ in range(5):
        world.send()
    world.clock.advance(pause)
    before = {name: len(moments) for name, moments in world.asked.items()}
    others: list[Outcome] = []

    def second() -> None:
        world.meanwhile = third
        world.send()

    def third() -> None:
        world.meanwhile = lambda: None
        others.extend(world.send() for _ in range(64))

    world.meanwhile = second
    world.send()

    assert {name: count + 1 for name, count in before.items()} == {name: len(ms) for name, ms in world.asked.items()}
    assert [attempts(outcome) for outcome in others] == [0] * 64
    assert {story(outcome).seconds for outcome in others} == {0.0}


def test_the_next_best_gets_the_early_probe() -> None:
    """When all circuits are open the target nearest to recovery is probed first."""
    world = World(lambda _: DOWN, lambda _: DOWN)
    for _ in range(5):
        world.send("mb")
    world.clock.advance(2)
    for _ in range(5):
        world.send("ma")
    before = {name: len(moments) for name, moments in world.asked.items()}

    outcome = world.send("ma", "mb")

    assert before | {"mb": before["mb"] + 1} == {name: len(moments) for name, moments in world.asked.items()}
    assert [record.kind for record in story(outcome).attempts] == ["early"]


def test_a_call_probes_one_target_only() -> None:
    """With two targets on the mend a call probes one of them: no user pays for the recovery of a whole list."""
    world = World(lambda _: DOWN, lambda _: DOWN)
    for _ in range(5):
        world.send("ma", "mb")
    world.clock.advance(10)

    outcome = world.send("ma", "mb")

    assert attempts(outcome) == 1
    assert who(outcome) is None


@pytest.mark.parametrize("deadline", [5.0, 2.0, 0.5])
def test_the_deadline_of_a_whole_call(deadline: float) -> None:
    """A and B are silent: when the time is up the caller gets DeadlineExceeded, at the deadline; both were asked."""
    world = World(lambda _: SILENT, lambda _: SILENT)

    outcome = world.send(deadline=deadline, read=120.0)

    assert isinstance(exception_of(outcome), holyroute.DeadlineExceeded)
    assert story(outcome).seconds == pytest.approx(deadline)
    assert [record.target.name for record in story(outcome).attempts] == ["ma", "mb"]


def test_a_probe_with_a_rejected_key() -> None:
    """A probe that meets a rejected key goes on with the provider's other key: it is the same target."""
    world = World(lambda now: 401 if 6 < now < 6.01 else DOWN if now < 6 else UP, keys=["KEY_A", "KEY_A2"])
    for _ in range(5):
        world.send()
    world.wait_until(6.001)

    outcome = world.send()

    assert who(outcome) == "ma"
    assert set(world.keys[-2:]) == {"KEY_A", "KEY_A2"}


def test_a_fault_that_stays_is_no_blip() -> None:
    """Only the first of several failures looks like a lone fault: the others go to the substitute at once."""
    world = World(lambda _: 500)

    counts = []
    for _ in range(2):
        world.send()
        world.clock.advance(10)
        counts.append(len(world.asked["ma"]))

    assert counts == [2, 3]
    assert len(world.clock.slept) == 1


def test_a_sole_target() -> None:
    """Without a substitute a target gets three attempts, with growing pauses of half a second to one second at most."""
    world = World(lambda _: 500)

    outcome = world.send("ma")

    first, second = world.clock.slept
    assert attempts(outcome) == 3
    assert 0 <= first <= 0.5
    assert 0 <= second <= 1.0


@pytest.mark.parametrize(("header", "waits"), [("7", [7.0, 7.0]), ("", [2.0, 4.0])])
def test_a_sole_target_that_is_busy(header: str, waits: list[float]) -> None:
    """A sole target's 429 is waited for: as long as it says, else 2 s and 4 s; a bench that lasts longer is kept."""
    world = World(lambda _: 429)
    world.headers = {"Retry-After": header} if header else {}

    outcome = world.send("ma")

    assert attempts(outcome) == 3
    assert waits == world.clock.slept


def test_a_sole_target_that_is_overloaded() -> None:
    """A sole target that is benched for a second is asked again when the bench ends, not before, and not given up."""
    world = World(lambda _: 529)

    outcome = world.send("ma")

    assert attempts(outcome) == 3
    assert world.clock.slept == pytest.approx([1.0, 1.0])


def test_a_sole_target_whose_probe_is_refused() -> None:
    """A 429 does not fail a probe: where there is nobody else the same call waits and probes again."""
    world = World(lambda now: 429 if 6 < now < 8 else DOWN if now < 6 else UP)
    for _ in range(5):
        world.send("mb", "ma")
        world.send("ma", "mb")
    world.wait_until(6.1)
    world.headers = {"Retry-After": "3"}

    outcome = world.send("ma")

    assert (who(outcome), attempts(outcome)) == ("ma", 2)
    assert world.clock.slept == [3.0]


def test_a_wait_beyond_the_deadline() -> None:
    """Nobody waits for a time beyond the deadline: the call ends at once."""
    world = World(lambda _: 429)
    world.headers = {"Retry-After": "120"}

    outcome = world.send("ma", deadline=100.0)

    assert world.clock.slept == []
    assert (attempts(outcome), outcome.retry_after) == (1, 120.0)
