"""Figures for Prometheus: what is counted, under which names, and what never becomes a label."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

import holyroute
from holyroute.core import verdicts
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.events import CircuitChanged
from holyroute.engine.router import Router
from holyroute.exceptions import QueueUnavailable
from holyroute.monitoring import labels, otel, prometheus
from holyroute.monitoring.health import QueueDepth
from holyroute.resilience.circuit import CircuitState
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from holyroute.engine.attempt import Attempt

ROUTE = "route:simple_qa/fast"


class World:
    """A, which answers with the statuses it is told, then B, which answers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.statuses: list[int] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 10, "completion_tokens": 5}
        self.router = Router(
            holyroute.load(
                env={},
                cwd_file=False,
                providers={"a": {"base_url": "https://a.example/v1"}, "b": {"base_url": "https://b.example/v1"}},
                models={
                    "ma": {"provider": "a", "price": {"input": 1, "output": 2}},
                    "mb": {"provider": "b", "price": {"input": 3, "output": 6}},
                    "free": {"provider": "b"},
                },
                routes={"simple_qa": {"fast": ["ma", "mb"]}},
                routing={"task": "simple_qa", "priority": "fast"},
                retry={"blip": False},
            ),
            clock=self.clock,
            env={},
        )

    def send(self, **options: Any) -> Any:
        """A call, by default of the route."""
        body = {"messages": [], **options.pop("body", {})}
        defaults = {"model": ROUTE, "deadline": 30.0, "connect": 3.0, "read": 3.0}
        return self.router.send(Call(**{**defaults, **options}, body=body), self.transport)

    def transport(self, attempt: Attempt) -> requests.Response:
        """Takes 2 s."""
        self.clock.advance(2)
        made = requests.Response()
        made.status_code = self.statuses.pop(0) if self.statuses and attempt.target.name == "ma" else 200
        choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
        made._content = json.dumps({"choices": [choice], **({"usage": self.usage} if self.usage else {})}).encode()
        return made


@pytest.fixture
def world() -> World:
    return World()


def figures(exporter: prometheus.Exporter, accept: str = "") -> dict[str, float]:
    """What Prometheus reads from our text, but for bounds of buckets and times of creation."""
    body, _ = prometheus.metrics_text(exporter, accept)
    return {
        sample.name.removeprefix("holyroute_") + shown(sample.labels): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def shown(names: dict[str, str]) -> str:
    return "{" + ",".join(names[name] for name in sorted(names)) + "}" if names else ""


def test_a_failover_is_counted_at_both_and_once_as_a_call(world: World) -> None:
    """Attempts by model and outcome, the call by route; seconds, tokens and money add up. Labels in alphabet."""
    exporter = prometheus.attach(world.router)
    world.statuses = [503]
    world.send()

    assert figures(exporter) == {
        "attempts_total{ma,unavailable,a}": 1,
        "attempts_total{mb,answered,b}": 1,
        "attempt_duration_seconds_count{ma,a}": 1,
        "attempt_duration_seconds_sum{ma,a}": 2,
        "attempt_duration_seconds_count{mb,b}": 1,
        "attempt_duration_seconds_sum{mb,b}": 2,
        "tokens_total{mb,b,input}": 10,
        "tokens_total{mb,b,output}": 5,
        "cost_usd_total{mb,b}": pytest.approx(0.00006),
        f"calls_total{{answered,{ROUTE}}}": 1,
        f"call_duration_seconds_count{{{ROUTE}}}": 1,
        f"call_duration_seconds_sum{{{ROUTE}}}": 4,
        f"failovers_total{{{ROUTE}}}": 1,
        f"retries_total{{{ROUTE}}}": 0,
        "circuit_state{ma,a}": 0,
        "circuit_state{mb,b}": 0,
    }


def test_a_hit_is_a_call_without_attempts(world: World) -> None:
    """It is answered, a cache hit, and costs nothing."""
    exporter = prometheus.attach(world.router)
    for _ in range(3):
        world.send(body={"temperature": 0})
    counted = figures(exporter)

    assert counted[f"calls_total{{answered,{ROUTE}}}"] == 3
    assert counted[f"cache_hits_total{{hit,{ROUTE}}}"] == 2
    assert counted["attempts_total{ma,answered,a}"] == 1


def test_what_nobody_says_the_cost_of_is_counted_apart(world: World) -> None:
    """A model without a price; an answer without usage. Neither counts as nothing."""
    exporter = prometheus.attach(world.router)
    world.send(model="free")
    world.usage = None
    world.statuses = [504]
    world.send(model="ma")
    counted = figures(exporter)

    assert counted["unknown_cost_attempts_total{free,b}"] == 1
    assert counted["unknown_cost_attempts_total{ma,a}"] == 1
    assert "cost_usd_total{free,b}" not in counted


def test_a_retry_is_no_failover(world: World) -> None:
    """The same model, asked again."""
    exporter = prometheus.attach(world.router)
    world.statuses = [503]
    world.send(selection=Selection(models=("ma",)), model=None)
    counted = figures(exporter)

    assert (counted["retries_total{ma}"], counted["failovers_total{ma}"]) == (1, 0)


def test_the_circuit_is_shown_as_it_moves(world: World) -> None:
    """0 closed, 1 half-open, 2 open; a forced state as what it comes to."""
    exporter = prometheus.attach(world.router)
    target = world.router.config.models["ma"]
    shown = []
    for state in CircuitState:
        exporter(CircuitChanged(target, "closed", str(state), 0.0, None, ""))
        shown.append((str(state), figures(exporter)["circuit_state{ma,a}"]))

    assert shown == [("closed", 0), ("open", 2), ("half-open", 1), ("forced open", 2), ("forced closed", 0)]
    assert figures(exporter)["circuit_changes_total{ma,a,half-open}"] == 1


def test_a_breaker_that_opens_is_seen(world: World) -> None:
    """Three failures that span a second open it."""
    exporter = prometheus.attach(world.router)
    world.statuses = [503] * 3
    for _ in range(3):
        world.send()
    counted = figures(exporter)

    assert counted["circuit_state{ma,a}"] == 2
    assert counted["circuit_changes_total{ma,a,open}"] == 1


def test_every_outcome_has_a_name() -> None:
    """Each row of the error table is one word, and no two are the same."""
    names = [labels.outcome(row) for row in verdicts.TABLE.values()]

    assert len(set(names)) == len(verdicts.TABLE)
    assert all(name.isidentifier() and name.islower() for name in names)


def scripts_call(model: str, host: str, **options: Any) -> dict[str, Any]:
    """Options of a call as a script writes it, to a host of its own."""
    request = requests.Request("POST", f"https://{host}/v1/chat/completions").prepare()
    return {"model": model, "origin": Origin(request=request, base_url=f"https://{host}/v1"), **options}


def test_what_scripts_name_is_other(world: World) -> None:
    """A thousand models at as many hosts are one more series of each kind; configured ones keep their names."""
    exporter = prometheus.attach(world.router)
    for number in range(1_000):
        world.send(**scripts_call(f"model-{number}", f"host-{number}.example"))
    world.send(**scripts_call("ma", "a.example"))
    counted = figures(exporter)

    assert counted["attempts_total{other,answered,other}"] == 1_000
    assert counted["calls_total{answered,other}"] == 1_000
    assert counted["attempts_total{ma,answered,a}"] == counted["calls_total{answered,ma}"] == 1
    assert len(counted) < 30


def test_a_model_of_a_configured_provider_shows_the_provider(world: World) -> None:
    """Also where the model is none of the configuration."""
    exporter = prometheus.attach(world.router)
    world.send(**scripts_call("unheard-of", "a.example"))

    assert figures(exporter)["attempts_total{other,answered,a}"] == 1


def test_attached_twice_counts_once(world: World) -> None:
    """By the same registry; another registry counts for itself."""
    registry = CollectorRegistry()
    first, second = (prometheus.attach(world.router, registry=registry) for _ in range(2))
    other = prometheus.attach(world.router)
    world.send()

    assert first is second
    assert figures(first)["attempts_total{ma,answered,a}"] == 1
    assert figures(other)["attempts_total{ma,answered,a}"] == 1


def test_two_routers_are_added_up_in_one_registry(world: World) -> None:
    """With the names of both configurations."""
    another = World()
    registry = CollectorRegistry()
    exporters = [prometheus.attach(one.router, registry=registry) for one in (world, another)]
    for one in (world, another):
        one.send()

    assert exporters[0] is exporters[1]
    assert figures(exporters[0])["attempts_total{ma,answered,a}"] == 2


def test_a_registry_of_the_users_shows_the_rest_too(world: World) -> None:
    """And a second exporter of the same names is refused by it, as any other metric would be."""
    registry = CollectorRegistry()
    Gauge("app_users", "Users.", registry=registry).set(7)
    exporter = prometheus.attach(world.router, registry=registry)

    assert figures(exporter)["app_users"] == 7
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Gauge("holyroute_circuit_state", "Taken.", registry=registry)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_the_content_type_is_that_of_the_format(world: World, accept: str, expected: str) -> None:
    """Prometheus says what it can read."""
    body, content_type = prometheus.metrics_text(prometheus.attach(world.router), accept)

    assert content_type.startswith(expected)
    assert (b"# EOF" in body) is ("openmetrics" in accept)


def test_the_queue_is_shown_by_state(world: World) -> None:
    """As it stands when somebody asks; left out when it cannot be read."""
    exporter = prometheus.attach(world.router)
    queues = world.router.monitor.queues
    depth = QueueDepth(ready=3, leased=1, done=9, dead=2)
    queues["calls.db"] = lambda: depth
    before = figures(exporter)

    def broken() -> QueueDepth:
        raise QueueUnavailable("locked")

    queues["other.db"] = broken
    shown = {f"queue_items{{{state}}}": getattr(depth, state) for state in ("ready", "leased", "done", "dead")}

    assert {name: value for name, value in before.items() if "queue" in name} == shown
    assert not [name for name in figures(exporter) if "queue" in name]


def test_a_file_is_counted_once_and_memory_for_each_router(world: World) -> None:
    """Two routers may park in one file; what each keeps in memory is its own."""
    registry = CollectorRegistry()
    worlds = (world, World())
    for one in worlds:
        exporter = prometheus.attach(one.router, registry=registry)
        for place in ("calls.db", ":memory:"):
            one.router.monitor.queues[place] = lambda: QueueDepth(ready=1, leased=0, done=0, dead=0)

    assert figures(exporter)["queue_items{ready}"] == 3


def test_a_client_with_a_queue_shows_its_depth(world: World) -> None:
    """One without shows none."""
    with holyroute.Client(router=world.router, queue=":memory:") as client:
        client.submit("hello", model="ma")
        session = prometheus.attach(holyroute.Session(router=world.router))
        with_queue = figures(prometheus.attach(client, registry=session.registry))
    without = figures(prometheus.attach(World().router))

    assert with_queue["queue_items{ready}"] == 1
    assert not [name for name in without if "queue" in name]


def test_what_is_attached_lives_no_longer_than_its_router() -> None:
    """Clients come and go; what watched them goes with them."""
    watched = []
    for _ in range(3):
        router = World().router
        watched += [ref(router), ref(prometheus.attach(router)), ref(otel.attach(router, capture_content=True))]
    del router
    gc.collect()

    assert [one() for one in watched] == [None] * 9


def test_a_forked_child_counts_for_itself(world: World) -> None:
    """What the parent counted is told by the parent."""
    exporter = prometheus.attach(world.router)
    world.send()
    exporter.after_fork()
    world.send()

    assert figures(exporter)["attempts_total{ma,answered,a}"] == 1


WORKERS = """
    import os, sys
    from prometheus_client.parser import text_string_to_metric_families
    import holyroute
    from holyroute.monitoring import prometheus
    from holyroute.core.events import AttemptFinished, CircuitChanged
    from holyroute.core.trace import AttemptRecord
    from holyroute.core import verdicts
    from holyroute.monitoring.health import QueueDepth

    config = holyroute.load(env={}, cwd_file=False, providers={"a": {"base_url": "https://a.example/v1"}},
                            models={"ma": {"provider": "a"}})
    router = holyroute.Client(config).router
    exporter = prometheus.attach(router)  # before the fork, as with gunicorn --preload
    router.monitor.queues["calls.db"] = lambda: QueueDepth(ready=3, leased=0, done=0, dead=0)
    target = config.models["ma"]
    record = AttemptRecord(target=target, kind="normal", verdict=verdicts.ANSWERED, status=200, detail="",
                           started=0.0, seconds=2.0, retry_after=None, usage=None)
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            for _ in range(10):
                router.events.publish(AttemptFinished(1, record))
            if number == 1:
                router.events.publish(CircuitChanged(target, "closed", "open", 0.0, None, ""))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    body, _ = prometheus.metrics_text(exporter)
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                print(sample.name + sample.labels.get("state", ""), sample.value)
"""


APPS = """
    from prometheus_client.parser import text_string_to_metric_families
    import holyroute
    from holyroute.monitoring import prometheus
    from holyroute.core.events import AttemptFinished
    from holyroute.core.trace import AttemptRecord
    from holyroute.core import verdicts

    config = holyroute.load(env={}, cwd_file=False, providers={"a": {"base_url": "https://a.example/v1"}},
                            models={"ma": {"provider": "a"}})
    record = AttemptRecord(target=config.models["ma"], kind="normal", verdict=verdicts.ANSWERED, status=200, detail="",
                           started=0.0, seconds=2.0, retry_after=None, usage=None)
    routers = [holyroute.Client(config).router for _ in range(2)]
    exporters = [prometheus.attach(router) for router in routers]
    for times in (5, 3, 2):
        for router in routers:
            for _ in range(times):
                router.events.publish(AttemptFinished(1, record))
    body, _ = prometheus.metrics_text(exporters[0])
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            print(sample.name, sample.value)
"""


def counted_together(script: str, folder: Path) -> dict[str, str]:
    """What a script prints in the multiprocess mode: names and values."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )

    assert done.returncode == 0, done.stderr
    return dict(line.split(" ") for line in done.stdout.splitlines())


def test_several_apps_of_one_process_are_added_up_too(tmp_path: Path) -> None:
    """In that mode a process has one file: counters of two exporters do not overwrite each other there."""
    assert counted_together(APPS, tmp_path)["holyroute_attempts_total"] == "20.0"


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    """In the multiprocess mode of prometheus_client: counts are sums, a circuit is the worst that a process has seen.

    The queue is one for all, and asked by whoever answers.
    """
    shown = counted_together(WORKERS, tmp_path)

    assert shown["holyroute_attempts_total"] == "30.0"
    assert shown["holyroute_attempt_duration_seconds_sum"] == "60.0"
    assert shown["holyroute_circuit_changes_totalopen"] == "1.0"
    assert shown["holyroute_circuit_state"] == "2.0"
    assert shown["holyroute_queue_itemsready"] == "3.0"


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")],
)
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, library: str, extra: str
) -> None:
    """As with the command line."""
    monkeypatch.delitem(sys.modules, f"holyroute.monitoring.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'holyroute\[{extra}\]'"):
        importlib.import_module(f"holyroute.monitoring.{module}")
