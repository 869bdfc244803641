"""What the monitor adds up, call by call on a clock that stands still."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.cli.tally import Tally
from holyroute.core import forks, verdicts
from holyroute.core.call import Call, Selection
from holyroute.core.outcome import Outcome
from holyroute.core.trace import AttemptRecord
from holyroute.engine.health import health_of
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError
from holyroute.monitoring import prometheus
from holyroute.monitoring.health import Figures, QueueDepth
from holyroute.monitoring.monitor import BATCH, OTHER, SUBJECTS
from holyroute.monitoring.report import report
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.engine.attempt import Attempt
    from holyroute.monitoring.health import Health, RouteHealth, TargetHealth

KEYS = {"KEY_A": "test-key-a", "KEY_B": "test-key-b"}


class World:
    """A router over two providers whose answers, and how long they take, a test decides."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.status = {"ma": 200, "mb": 200, "mc": 200}
        self.takes = {"ma": 0.5, "mb": 2.0, "mc": 1.0}
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={
                "a": {"base_url": "https://a.example/v1", "api_key_env": "KEY_A"},
                "b": {"base_url": "https://b.example/v1", "api_key_env": "KEY_B"},
            },
            models={
                "ma": {"provider": "a", "price": {"input": 1, "output": 2}},
                "mb": {"provider": "b", "price": {"input": 3, "output": 6}, "latency": "slow"},
                "mc": {"provider": "b"},
            },
            routes={"simple_qa": {"fast": ["ma", "mb"]}},
            routing={"task": "simple_qa", "priority": "fast", "reference": "mb"},
            **settings,
        )
        self.router = Router(config, clock=self.clock, env=KEYS)

    def send(self, model: str | None = None, *, only: str | None = None, **options: Any) -> Outcome:
        """What becomes of a call on the default route, for a model, or to one target alone."""
        models = None if only is None else (only,)
        body = {"messages": [{"role": "user", "content": "hello"}], **options.pop("parameters", {})}
        limits = {"deadline": 60.0, "connect": 3.0, "read": 30.0}
        call = Call(**{**limits, **options}, model=model, body=body, selection=Selection(models=models))
        return self.router.send(call, self.transport)

    def transport(self, attempt: Attempt) -> requests.Response:
        """Answers as ordered."""
        name = attempt.target.name
        self.clock.advance(self.takes[name])
        made = requests.Response()
        made.status_code = self.status[name]
        choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        body = {"choices": [choice], "usage": usage} if made.status_code == 200 else {"error": {"message": "no"}}
        made._content = json.dumps(body).encode()
        return made

    def health(self) -> Health:
        """As it is now."""
        return health_of(self.router)

    def target(self, name: str) -> TargetHealth:
        """That of one target."""
        return next(one for one in self.health().targets if one.target == name)

    def route(self, name: str) -> RouteHealth:
        """That of one route."""
        return next(one for one in self.health().routes if one.route == name)


@pytest.fixture
def world() -> World:
    return World(retry={"blip": False})


def counts(figures: Figures) -> tuple[int, int, int]:
    return figures.count, figures.answers, figures.errors


def test_answers_are_counted_with_their_latency(world: World) -> None:
    """Per target and per route: count, answers, average, tokens, cost, class."""
    for _ in range(3):
        world.send()
    ma, route = world.target("ma"), world.route("route:simple_qa/fast")

    assert counts(ma.recent) == counts(ma.total) == counts(route.total) == (3, 3, 0)
    assert ma.total.latency.average == pytest.approx(0.5)
    assert ma.total.latency.p95 == pytest.approx(0.5, rel=0.01)
    assert (ma.prompt_tokens, ma.completion_tokens, ma.cost_usd) == (30, 15, Decimal("0.00006"))
    assert (ma.state, ma.latency_class, ma.retry_in, ma.benched) == ("closed", "fast", None, None)
    assert (ma.provider, ma.host) == ("a", "a.example")
    assert (ma.total.error_rate, ma.total.success_rate) == (0, 1)
    assert ma.sparkline[-1] == pytest.approx(0.5)


def test_failures_are_counted_where_they_happened(world: World) -> None:
    """The target that failed has the error and its reason, the route has an answer and a failover."""
    world.status["ma"] = 500
    world.send()
    ma, mb, route = world.target("ma"), world.target("mb"), world.route("route:simple_qa/fast")
    (note,) = world.health().recent_failovers

    assert (counts(ma.total), counts(mb.total), counts(route.total)) == ((1, 0, 1), (1, 1, 0), (1, 1, 0))
    assert ma.errors_by_reason == {"server error": 1}
    assert ma.total.latency.average is None
    assert route.failovers == world.health().failovers == 1
    assert route.total.latency.average == pytest.approx(2.5)
    assert (note.asked, note.answered_by, note.reason) == ("route:simple_qa/fast", "mb", "server error")
    assert note.at == world.clock.wall()


def test_a_failure_is_seen_before_its_call_is_over(world: World) -> None:
    """Who looks while the substitute is still being asked sees why it is."""
    world.status["ma"] = 500
    seen = []
    answer = world.transport

    def transport(attempt: Attempt) -> requests.Response:
        if attempt.target.name == "mb":
            seen.append(counts(world.target("ma").total))
        return answer(attempt)

    world.transport = transport  # type: ignore[method-assign]
    world.send()

    assert seen == [(1, 0, 1)]


def test_an_open_circuit_is_a_failover_too(world: World) -> None:
    """Who was passed by was not asked: no attempt is counted, and the note says why."""
    world.takes = {"ma": 0.1, "mb": 0.1}
    world.status["ma"] = 500
    for _ in range(5):
        world.send()
    before = world.target("ma").total.count
    world.send()
    ma, notes = world.target("ma"), world.health().recent_failovers

    assert ma.total.count == before
    assert (ma.state, world.health().is_healthy) == ("open", False)
    assert 0 < (ma.retry_in or 0) <= 5.5
    assert [change.after for change in ma.history] == ["open"]
    assert ma.history[0].at <= world.clock.wall()
    assert (notes[0].answered_by, notes[0].reason) == ("mb", "its circuit is open")
    assert notes[-1].reason == "server error"
    assert world.health().failovers == 6


def test_everybody_counts_the_same_failovers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Traces, health, Prometheus, the demo and the log have one definition, whatever became of the calls."""
    exporter, tally = prometheus.attach(world.router), Tally()
    world.router.events.subscribe(tally)
    caplog.set_level(logging.DEBUG, "holyroute")
    world.takes = {"ma": 0.1, "mb": 0.1}
    outcomes = [world.send()]
    world.status["ma"] = 500
    outcomes += [world.send() for _ in range(7)]  # asked, then passed over
    world.status["mb"] = 500
    outcomes += [world.send() for _ in range(7)]  # nobody answers, then nobody is asked but early
    world.status = dict.fromkeys(world.status, 200)
    world.clock.advance(1)
    outcomes.append(world.send())  # both passed over at first, one asked after all
    each = [outcome.trace.failovers for outcome in outcomes if outcome.trace is not None]
    samples = [one for family in exporter.collect() for one in family.samples if one.name.endswith("failovers_total")]
    logged = [vars(record)["failovers"] for record in caplog.records if vars(record).get("event") == "call"]

    assert each[:8] == [0, *[1] * 7]
    assert logged == each
    assert world.health().failovers == world.route("route:simple_qa/fast").failovers == sum(each)
    assert sum(sample.value for sample in samples) == tally.failovers == sum(each)


def test_who_is_asked_after_all_was_not_failed_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Everybody was passed over, and the first choice was the first to be free again: that is no detour."""
    caplog.set_level(logging.INFO, "holyroute")
    ma, mb = (world.router.config.models[name] for name in ("ma", "mb"))
    trace = world.router.begin(Call(model=None, body={}, deadline=60.0, connect=3.0, read=30.0))
    for target in (ma, mb):
        trace.skip(target, "rate limited", world.clock.now() + 1)
    world.clock.advance(1)
    trace.attempts.append(
        AttemptRecord(
            target=ma,
            kind="normal",
            verdict=verdicts.ANSWERED,
            status=200,
            detail="",
            started=1.0,
            seconds=0.0,
            retry_after=None,
            usage=None,
        )
    )
    trace.close(Outcome(verdict=verdicts.ANSWERED))

    assert trace.answered_by is ma
    assert (world.health().calls.answers, world.health().failovers, world.health().recent_failovers) == (1, 0, ())
    assert caplog.text == ""


def test_nobody_answers(world: World) -> None:
    """The call is an error of its route; the note names nobody, and the first choice's reason."""
    world.status |= {"ma": 503, "mb": 500}
    world.send()
    route, (note,) = world.route("route:simple_qa/fast"), world.health().recent_failovers

    assert counts(route.total) == (1, 0, 1)
    assert (note.answered_by, note.reason) == (None, "service unavailable")


def test_the_callers_own_mistake_is_no_failover(world: World) -> None:
    """A refused request is an error of the target's and the route's figures, and of nobody's order."""
    world.status["ma"] = 400
    world.send()

    assert counts(world.target("ma").total) == counts(world.route("route:simple_qa/fast").total) == (1, 0, 1)
    assert world.health().recent_failovers == ()


def test_a_mistake_after_a_retry_is_no_failover_either(world: World) -> None:
    """The first choice was asked twice, and refused the request itself: nobody else was meant to answer."""
    statuses = [429, 400]
    answer = world.transport

    def transport(attempt: Attempt) -> requests.Response:
        world.status["ma"] = statuses.pop(0)
        made = answer(attempt)
        made.headers["Retry-After"] = "1"
        return made

    world.transport = transport  # type: ignore[method-assign]
    world.send()

    assert counts(world.target("ma").total) == (2, 0, 2)
    assert world.health().recent_failovers == ()


def test_looking_ends_what_is_over() -> None:
    """Who asks for the health is not told of an error rate that nothing was heard of for long."""
    never = 1_000_000
    world = World(breaker={"consecutive": never, "consecutive_slow": never, "minimum_calls": never})
    world.status["ma"] = 400
    for _ in range(25):
        world.send()
    before = {note.rule: note.ended for note in world.health().alerts}
    world.clock.advance(301)
    after = {note.rule: note.ended for note in world.health().alerts}

    assert before == {"error_rate": None, "consecutive": None}
    assert after == {"error_rate": world.clock.wall(), "consecutive": None}


def test_retries_and_rate_limits_are_counted(world: World) -> None:
    """A second attempt at the same target is a retry, an answer 429 a rate limit."""
    world.status["mc"] = 429
    world.send(only="mc")
    mc = world.target("mc")

    assert (mc.total.count, mc.retries, mc.rate_limited) == (3, 2, 3)
    assert world.health().failovers == 0


def test_a_rejected_key_shows(world: World) -> None:
    """The target is benched although its circuit is closed, with the reason and for how long."""
    world.status["ma"] = 401
    world.send()
    ma = world.target("ma")

    assert (ma.state, ma.benched) == ("closed", "key rejected")
    assert ma.retry_in == pytest.approx(298)
    assert not world.health().is_healthy


def test_cache_hits_are_no_attempts(world: World) -> None:
    """The route has two calls, the target one attempt, the answer is paid once."""
    for _ in range(2):
        world.send(parameters={"temperature": 0})
    route = world.route("route:simple_qa/fast")

    assert (counts(route.total), route.cache_hits, world.health().cache_hits) == ((2, 2, 0), 1, 1)
    assert counts(world.target("ma").total) == (1, 1, 0)
    assert world.health().spent_usd == Decimal("0.00002")


def test_money(world: World) -> None:
    """Spent, saved against the reference, and how much is unknown: where there is no price, costs are None, not 0."""
    world.send()
    world.send(only="mc")
    health = world.health()

    assert (health.spent_usd, health.saved_usd) == (Decimal("0.00002"), Decimal("0.00004"))
    assert (health.reference, health.unknown_cost) == ("mb", 1)
    assert world.target("mc").cost_usd is None


def test_the_window_slides(world: World) -> None:
    """After five minutes only the figures since the start remember; the latency class is the declared one again."""
    world.send(only="mb")
    before = world.target("mb")
    world.clock.advance(301)
    after = world.target("mb")

    assert (before.latency_class, after.latency_class) == ("normal", "slow")
    assert (counts(after.recent), counts(after.total)) == ((0, 0, 0), (1, 1, 0))
    assert set(after.sparkline) == {None}
    assert counts(world.health().recent_calls) == (0, 0, 0)
    assert counts(world.health().calls) == (1, 1, 0)


def test_slower_than_every_class_is_the_slowest(world: World) -> None:
    """A latency class is never left out."""
    world.takes["ma"] = 25.0
    world.send(only="ma")

    assert world.target("ma").latency_class == "slow"


@pytest.mark.parametrize("calls", [BATCH - 1, BATCH, 3 * BATCH + 1])
def test_nothing_is_lost_between_batches(calls: int, world: World) -> None:
    """Whenever somebody looks, every call that ended is there."""
    for _ in range(calls):
        world.send()

    assert counts(world.target("ma").total) == (calls, calls, 0)
    assert len(world.router.monitor._waiting) == 0


def test_the_queue_of_traces_is_bounded(world: World) -> None:
    """A process that nobody looks at keeps a batch of traces at most."""
    most = 0
    for _ in range(3 * BATCH):
        world.send()
        most = max(most, len(world.router.monitor._waiting))

    assert most == BATCH - 1


def test_many_names_become_one(world: World) -> None:
    """Names that callers make up cost no memory: beyond the bound they are counted together, and none is lost."""
    for number in range(SUBJECTS + 50):
        world.send(f"route:made up {number}/fast")
    routes = {one.route: one.total.count for one in world.health().routes}

    assert len(routes) == SUBJECTS + 1
    assert (sum(routes.values()), routes[OTHER]) == (SUBJECTS + 50, 50)


def test_a_long_name_is_cut(world: World) -> None:
    """What a caller names may be a whole prompt by mistake."""
    for _ in range(2):
        world.send(f"route:{'x' * 5_000}/fast")
    (route,) = world.health().routes

    assert (len(route.route), route.total.count) == (200, 2)


def test_many_targets_become_one() -> None:
    """As for names; the rest has tokens and cost of its own."""
    world = World(failover={})
    models = {f"m{number}": {"provider": "a", "price": {"input": 1, "output": 2}} for number in range(SUBJECTS + 3)}
    config = holyroute.load(
        env={}, cwd_file=False, providers={"a": {"base_url": "https://a.example/v1"}}, models=models
    )
    world.router = Router(config, clock=world.clock, env={})
    world.takes |= dict.fromkeys(models, 0.1)
    world.status |= dict.fromkeys(models, 200)
    for name in models:
        world.send(only=name)
    health = world.health()
    rest = health.targets[-1]

    assert len(health.targets) == SUBJECTS + 1
    assert (rest.target, rest.total.count, rest.prompt_tokens, rest.cost_usd) == (OTHER, 3, 30, Decimal("0.00006"))
    assert sum(one.total.count for one in health.targets) == health.calls.count == SUBJECTS + 3
    assert "other" in report(health)


def test_switched_off() -> None:
    """`[monitoring] enabled = false` counts nothing, and says so instead of showing zeros."""
    world = World(monitoring={"enabled": False})
    world.send()

    assert world.router.monitor.targets() == {}
    with pytest.raises(ConfigurationError, match=r"monitoring\.enabled: expected true, got false"):
        world.health()


def test_a_child_begins_afresh(world: World) -> None:
    """What the parent counted is told by the parent."""
    world.send()
    world.clock.advance(10)
    forks._renew()
    world.send()
    health = world.health()

    assert counts(health.calls) == counts(world.target("ma").total) == (1, 1, 0)
    assert health.since == world.clock.wall() - 0.5


def test_the_report_fits_a_terminal(world: World) -> None:
    """Every model with state, requests, failure rate, average latency; 80 columns, whatever callers named."""
    world.status["ma"] = 500
    world.takes = {"ma": 0.1, "mb": 0.1}
    for _ in range(6):
        world.send()
    world.send("route:\x1b[2Jmade up/" + "y" * 100)
    text = report(world.health())

    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "ma                       open             5  100.0%        -        -" in text
    assert "mb                       closed           7    0.0%   100 ms" in text
    assert "5 × server error" in text
    assert "-> mb: its circuit is open" in text


def test_an_empty_report(world: World) -> None:
    """Before the first call there is nothing to divide by."""
    text = report(world.health())

    assert "nobody was asked yet" in text
    assert "0 calls, - failed" in text


def test_a_client_tells() -> None:
    """`health()` and `health_report()` are the client's; the depth of the queue is looked up."""
    client = holyroute.Client(queue=":memory:")
    client.submit("hello", model="gpt-4.1")

    assert client.health().queue == QueueDepth(ready=1, leased=0, done=0, dead=0)
    assert "1 wait, 0 are under way" in client.health_report()
    assert holyroute.Client().health().queue == client.health().queue  # they share a router, which has one queue
    told = json.loads(json.dumps(client.health().as_dict()))
    assert told["is_healthy"] is True
    assert {"error_rate", "success_rate"} <= told["calls"].keys()


def test_looking_makes_no_file(tmp_path: Any) -> None:
    """A queue that was never used is empty, and stays without a file."""
    client = holyroute.Client(queue=tmp_path / "queue.db")

    assert client.health().queue == QueueDepth(ready=0, leased=0, done=0, dead=0)
    assert not (tmp_path / "queue.db").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alerts": {"log": False}},
        {"alerts": {"rules": {"key": {"enabled": False}}}},
        {"monitoring": {"enabled": False}},
    ],
    ids=["as ever", "alerts not logged", "no alert", "nothing watched"],
)
@pytest.mark.parametrize("status", [401, 402])
def test_a_rejected_key_is_one_warning(settings: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture) -> None:
    """By the alert where that is logged, else by the engine: told once, and never not at all."""
    world = World(**settings)
    world.status["ma"] = status
    world.send()
    told = world.router.sinks.flush()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    assert told
    assert len([one for one in warnings if "the key in KEY_A" in one]) == 1


def test_a_queue_that_is_opened_during_a_look(world: World) -> None:
    """Another thread makes a queue while the depth of the first one is read."""
    queues = world.router.monitor.queues

    def depth() -> QueueDepth:
        queues["other"] = depth
        return QueueDepth(ready=1, leased=0, done=0, dead=0)

    queues["one"] = depth

    assert world.router.monitor.depth() == QueueDepth(ready=1, leased=0, done=0, dead=0)
