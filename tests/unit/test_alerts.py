"""Alerts begin once and end once, whatever storms: rules, hysteresis, what is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import holyroute
from holyroute.core import forks, verdicts
from holyroute.core.call import Call
from holyroute.core.events import AttemptFinished, Benched, BenchEnded, CircuitChanged
from holyroute.core.outcome import Outcome
from holyroute.core.target import Provider, Target
from holyroute.core.ticket import Ticket
from holyroute.core.trace import AttemptRecord, Trace
from holyroute.exceptions import QueueUnavailable
from holyroute.monitoring.alerts import FORGET, MOST, PAST
from holyroute.monitoring.health import AlertNote, QueueDepth
from holyroute.monitoring.monitor import BATCH, Monitor
from holyroute.testing import FakeClock

PROVIDER = Provider(name="a", base_url="https://a.example/v1")
MA, MB = (Target(name=name, model=name, provider=PROVIDER) for name in ("ma", "mb"))
CALL = Call(model="ma", body={}, deadline=600, connect=10, read=600)


class World:
    """A monitor to which things happen."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.told: list[AlertNote] = []
        providers = {"a": {"base_url": PROVIDER.base_url}}
        models = {name: {"provider": "a"} for name in ("ma", "mb")}
        config = holyroute.load(env={}, cwd_file=False, providers=providers, models=models, **settings)
        self.monitor = Monitor(config, self.clock, self.told.append)

    def attempt(self, verdict: verdicts.Verdict, target: Target = MA, seconds: float = 0.1, times: int = 1) -> None:
        """Calls that end with one attempt."""
        for _ in range(times):
            trace = Trace(CALL, self.clock, self.monitor)
            record = AttemptRecord(
                target=target,
                kind="normal",
                verdict=verdict,
                status=None,
                detail="",
                started=0.0,
                seconds=seconds,
                retry_after=None,
                usage=None,
            )
            self.clock.advance(seconds)
            trace.attempts.append(record)
            self.monitor(AttemptFinished(trace.id, record))
            trace.close(Outcome(verdict=verdict))

    def fail(self, target: Target = MA, times: int = 1) -> None:
        """Attempts that fail."""
        self.attempt(verdicts.SERVER_ERROR, target, times=times)

    def answer(self, target: Target = MA, seconds: float = 0.1, times: int = 1) -> None:
        """Attempts that are answered."""
        self.attempt(verdicts.ANSWERED, target, seconds, times)

    def circuit(self, before: str, after: str) -> None:
        """A breaker moves."""
        self.monitor(CircuitChanged(MA, before, after, self.clock.now(), None, "so it was"))

    def heard(self) -> list[tuple[str, str]]:
        """What was told, after a look: which rule, and whether it begins."""
        self.monitor.look()
        return [(note.rule, "began" if note.ended is None else "ended") for note in self.told]


@pytest.fixture
def world() -> World:
    return World()


def test_a_storm_is_one_alert_and_one_recovery(world: World) -> None:
    """10,000 failing calls tell each rule once; when all is well again, each is told to be over, once."""
    world.fail(times=10_000)
    began = world.heard()
    world.clock.advance(301)
    world.answer(times=100)
    told = world.heard()

    assert sorted(began) == [("consecutive", "began"), ("error_rate", "began")]
    assert sorted(told[2:]) == [("consecutive", "ended"), ("error_rate", "ended")]


def test_a_storm_of_slow_answers(world: World) -> None:
    """The same for latencies."""
    world.answer(seconds=6.0, times=2_000)
    began = world.heard()
    world.clock.advance(301)
    world.answer(times=100)

    assert began == [("latency", "began")]
    assert world.heard() == [("latency", "began"), ("latency", "ended")]


def test_a_storm_at_a_breaker(world: World) -> None:
    """A circuit that opens, is probed in vain and opens again is one alert; closing is its end."""
    world.circuit("closed", "open")
    for _ in range(10_000):
        world.circuit("open", "half-open")
        world.circuit("half-open", "open")
    began = world.heard()
    world.circuit("open", "half-open")
    world.circuit("half-open", "closed")

    assert began == [("breaker", "began")]
    assert world.heard() == [("breaker", "began"), ("breaker", "ended")]


def test_three_failures_in_a_row(world: World) -> None:
    """The third begins it, at once; three answers in a row end it, a single one does not."""
    world.fail(times=2)
    world.answer()
    world.fail(times=2)
    before = list(world.told)
    world.fail()
    (note,) = world.told
    world.answer(times=2)
    world.fail()
    world.answer(times=2)
    during = world.heard()
    world.answer()

    assert before == []
    assert (note.rule, note.subject, note.message) == ("consecutive", "ma at a", "3 calls failed in a row")
    assert during == [("consecutive", "began")]
    assert world.heard() == [("consecutive", "began"), ("consecutive", "ended")]


def test_an_error_rate_needs_a_minimum_of_calls(world: World) -> None:
    """One failure of one call is no rate; 2 of 20 are, and 5 % of them is not above 5 %."""
    world.fail()
    world.answer(times=18)
    few = world.heard()
    world.answer()
    five_percent = world.heard()
    world.fail()

    assert few == five_percent == []
    assert [note.message for note in world.told] == ["2 of 21 calls failed (9.5%); the limit is 5.0%"]


def test_an_error_rate_ends_at_half_its_limit(world: World) -> None:
    """Between the half and the whole of the limit nothing changes: what hovers is told once."""
    world.fail(times=2)
    world.answer(times=30)
    world.heard()
    world.answer(times=28)  # 2 of 60: below the limit
    hovering = world.heard()
    world.answer(times=20)  # 2 of 80

    assert hovering == [("error_rate", "began")]
    assert world.heard() == [("error_rate", "began"), ("error_rate", "ended")]
    assert world.told[-1].ending == "2 of 80 calls failed (2.5%); the limit is 5.0%"


def test_an_error_rate_that_enough_answers_make(world: World) -> None:
    """It need not be a failure that makes it: the batch of traces looks too, without anybody's asking."""
    world.fail(times=2)
    world.answer(times=19)
    world.fail(MB)
    before = list(world.told)
    world.answer(MB, times=BATCH)

    assert before == []
    assert [note.rule for note in world.told] == ["error_rate"]


def test_a_rate_of_which_nothing_is_heard_any_more_is_over(world: World) -> None:
    """A process that stops calling is not in trouble for ever."""
    world.fail(times=30)
    world.heard()
    world.clock.advance(301)
    told = world.heard()

    assert ("error_rate", "ended") in told
    assert next(note for note in world.told if note.ended).ending == "only 0 calls of late"


def test_latency(world: World) -> None:
    """Told at once by the answer that makes it so; over below 0.8 of the limit."""
    world.answer(seconds=1.0, times=19)
    world.answer(seconds=5.5)  # 5 % of them
    before = list(world.told)
    world.answer(seconds=5.5)
    (note,) = world.told
    world.clock.advance(301)
    world.answer(seconds=4.5, times=20)
    between = world.heard()
    world.clock.advance(301)
    world.answer(seconds=3.9, times=20)

    assert before == []
    assert note.message.startswith("95 % of its answers come within 5.5")
    assert between == [("latency", "began")]
    assert world.heard()[1:] == [("latency", "ended")]


def test_a_window_of_its_own() -> None:
    """A rule may look back for less than monitoring does."""
    world = World(alerts={"rules": {"error_rate": {"window": 60, "limit": 0.5}, "consecutive": {"enabled": False}}})
    world.answer(times=100)
    world.clock.advance(70)
    world.fail(times=20)

    assert world.heard() == [("error_rate", "began")]


def test_threads_lose_nothing(world: World) -> None:
    """Eight threads at once: every call is counted once, whoever adds up, and each rule is told once."""

    def call(number: int) -> None:
        for turn in range(500):
            if turn % 10 == number:
                world.fail(MB)
            else:
                world.answer(MA, seconds=0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))
    told = world.heard()
    counted = {target.name: facts["total"] for target, facts in world.monitor.targets().items() if target}

    assert (counted["ma"].count, counted["ma"].answers) == (3_600, 3_600)
    assert (counted["mb"].count, counted["mb"].errors) == (400, 400)
    assert sorted(told) == [("consecutive", "began"), ("error_rate", "began")]


def test_subjects_are_told_apart(world: World) -> None:
    """What one model has is not what another has."""
    world.fail(MA, times=3)
    world.fail(MB, times=3)

    assert [note.subject for note in world.told] == ["ma at a", "mb at a"]


def test_a_rule_for_some_models() -> None:
    """A second rule of a kind, with a name of its own, for the models that it names."""
    rules = {"consecutive": {"enabled": False}, "touchy": {"when": "consecutive", "limit": 1, "models": ["mb"]}}
    world = World(alerts={"rules": rules})
    world.fail(MA, times=5)
    world.fail(MB)

    assert [(note.rule, note.subject) for note in world.told] == [("touchy", "mb at a")]


@pytest.mark.parametrize("settings", [{"enabled": False}, {"rules": {"consecutive": {"enabled": False}}}])
def test_switched_off(settings: dict[str, Any]) -> None:
    """All rules, or one."""
    world = World(alerts=settings)
    world.fail(times=10)

    assert world.heard() == []


def test_a_new_target_in_the_middle_of_a_look(world: World) -> None:
    """As when a signal's handler makes a call then: it is counted, and the look goes on."""
    told = world.told.append

    def tell(note: AlertNote) -> None:
        told(note)
        if note.ended is not None:
            world.fail(replace(MA, name="new"))

    world.monitor.alerts._tell = tell
    world.fail(times=25)
    world.clock.advance(400)
    world.monitor.look()

    assert ("error_rate", "ended") in world.heard()
    assert {target.name for target in world.monitor.targets() if target} == {"ma", "new"}


def test_a_name_is_one_line(world: World) -> None:
    """A script may call a model as it likes; no log is forged with that, and no memory filled."""
    world.fail(replace(MA, name="ma\nCRITICAL all is lost" + "a" * 10_000), times=3)
    (note,) = world.told

    assert note.subject.startswith("ma?CRITICAL all is lost")
    assert len(note.subject) < 600


def test_a_rejected_key(world: World) -> None:
    """Told with the name of its variable, once however often it is benched again, and over when it works."""
    for _ in range(10):
        until = world.clock.now() + 300
        world.monitor(Benched(MA, "credential", "key rejected", until, "KEY_A"))
    began = list(world.told)
    world.monitor(BenchEnded(MA, "target", "KEY_A"))
    world.monitor(BenchEnded(MA, "credential", "KEY_B"))
    others = list(world.told)
    world.monitor(BenchEnded(MA, "credential", "KEY_A"))

    assert [note.subject for note in began] == ["the key in KEY_A for a.example"]
    assert began[0].message == "key rejected; left alone for 300 s"
    assert others == began
    assert world.heard() == [("key", "began"), ("key", "ended")]


def test_a_key_that_was_replaced(world: World) -> None:
    """Nothing is heard any more of the old one: that is the end of it."""
    world.monitor(Benched(MA, "account", "quota exhausted", world.clock.now() + 300, "KEY_A"))
    world.clock.advance(300 + FORGET - 1)
    before = world.heard()
    world.clock.advance(1)

    assert before == [("key", "began")]
    assert world.heard() == [("key", "began"), ("key", "ended")]


def test_a_bench_of_a_busy_server_is_nobodys_business(world: World) -> None:
    """Only what a person has to mend is told: keys and accounts."""
    world.monitor(Benched(MA, "target", "service unavailable", world.clock.now() + 5))

    assert world.heard() == []


def test_the_queue_grows() -> None:
    """Told when so many more calls wait than a while ago, over when they do not get more."""
    world = World(alerts={"rules": {"queue": {"limit": 10}}})
    waiting = [0]
    world.monitor.queues["here"] = lambda: QueueDepth(ready=waiting[0], leased=0, done=7, dead=3)
    told = []
    for now in (0, 5, 9, 10, 25, 25, 25, 25):
        waiting[0] = now
        told.append(world.heard()[-1:])
        world.clock.advance(100)

    assert told == [*[[]] * 3, *[[("queue", "began")]] * 4, [("queue", "ended")]]
    assert world.told[0].message == "10 calls wait, 10 more than within the last 300 s"


def test_a_queue_that_cannot_be_read() -> None:
    """Nothing is known then: an alert neither ends nor begins, and somebody looks again."""
    world = World(alerts={"rules": {"queue": {"limit": 10}}})
    waiting = [0]

    def depth() -> QueueDepth:
        if waiting[0] < 0:
            raise QueueUnavailable("locked by somebody else")
        return QueueDepth(ready=waiting[0], leased=0, done=0, dead=0)

    world.monitor.queues["here"] = depth
    for now in (0, 50, -1, 50):
        waiting[0] = now
        world.monitor.look()
        world.clock.advance(20)
    waiting[0] = -1

    assert world.heard() == [("queue", "began")]
    assert world.monitor.look()


def test_monitoring_that_is_switched_off_raises_no_alert() -> None:
    """Neither of parked calls, which no event tells."""
    world = World(monitoring={"enabled": False}, alerts={"rules": {"queue": {"limit": 1}}})
    waiting = [0]
    world.monitor.queues["here"] = lambda: QueueDepth(ready=waiting[0], leased=0, done=0, dead=0)
    world.monitor.parked()
    world.monitor.look()
    waiting[0] = 50

    assert world.heard() == []
    assert world.monitor.ticker._thread is None


def test_a_parked_call_makes_somebody_look(world: World) -> None:
    """The depth of a queue is not looked up in a call; a thread does, as long as calls wait."""
    world.monitor.queues["here"] = lambda: QueueDepth(ready=1, leased=0, done=0, dead=0)
    idle = world.monitor.ticker._thread
    trace = Trace(CALL, world.clock, world.monitor)
    trace.ticket = Ticket("t1", created=True, results=None)  # type: ignore[arg-type]
    trace.close(Outcome(verdict=verdicts.NOT_SENT))

    assert idle is None
    assert world.monitor.ticker._thread is not None
    assert world.monitor.look()


def test_nobody_looks_when_all_is_well(world: World) -> None:
    """No thread is started by calls that go well, and it ends when all alerts have."""
    world.answer(times=1_000)
    well = world.monitor.ticker._thread
    world.fail(times=3)
    alarmed = world.monitor.look()
    world.answer(times=1_000)

    assert well is None
    assert alarmed
    assert not world.monitor.look()
    assert not world.monitor.ticker.tick()


def test_memory_is_bounded(world: World) -> None:
    """Alerts that go on, and those that are over, are remembered up to a number."""
    for number in range(MOST + 10):
        world.monitor(Benched(MA, "credential", "key rejected", world.clock.now(), f"KEY_{number}"))
    going_on = len(world.monitor.alerts.notes())
    world.clock.advance(FORGET)
    world.monitor.look()

    assert going_on == MOST
    assert len(world.monitor.alerts.notes()) == PAST


def test_notes_are_in_order(world: World) -> None:
    """Those that go on first, then the others, the newest first in both."""
    world.circuit("closed", "open")
    world.circuit("open", "closed")
    world.fail(MA, times=3)
    world.fail(MB, times=3)
    notes = world.monitor.alerts.notes()

    assert [(note.rule, note.subject, note.ended is None) for note in notes] == [
        ("consecutive", "mb at a", True),
        ("consecutive", "ma at a", True),
        ("breaker", "ma at a", False),
    ]


def test_a_child_begins_without_alerts(world: World) -> None:
    """They are the parent's, which will tell how they end."""
    world.fail(times=3)
    forks._renew()

    assert world.monitor.alerts.notes() == ()
    assert world.monitor.ticker._thread is None
    world.fail(times=3)
    assert [note.rule for note in world.told] == ["consecutive", "consecutive"]
