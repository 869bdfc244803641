"""The monitor's figures beside those of the providers themselves, on real sockets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.core.events import AttemptFinished
from holyroute.engine.health import health_of
from holyroute.engine.router import Router
from holyroute.monitoring.health import QueueDepth
from holyroute.simulator import Simulator, benchmark_profiles
from holyroute.simulator.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import ShiftedClock

    from holyroute.config.schema import Config
    from holyroute.core.events import Event
    from holyroute.core.trace import AttemptRecord

NEVER = 1_000_000_000
CALLS, THREADS = 60, 16  # to each model


def test_the_published_benchmark_in_short() -> None:
    """Six models, as in the S13 run: calls, failures, tokens and costs are those that the provider counted.

    Latencies are those of the attempts, the average exactly and the 95th percentile within 1 %.
    """
    profiles = {
        name: replace(one, mean=one.mean / 100, p95=one.p95 / 100, availability=0.8, completion_tokens=50)
        for name, one in benchmark_profiles().items()
    }
    records: list[AttemptRecord] = []

    def observe(event: Event) -> None:
        if isinstance(event, AttemptFinished):
            records.append(event.record)

    with Simulator(profiles, seed=7) as provider:
        settings: dict[str, Any] = {
            "providers": {"holysheep": {"base_url": provider.base_url, "api_key_env": []}},
            "retry": {"sole_attempts": 1, "blip": False},
            "breaker": {"consecutive": NEVER, "consecutive_slow": NEVER, "minimum_calls": NEVER},
        }
        config = holyroute.load(env={}, cwd_file=False, **settings)
        unlimited = {name: replace(one, rpm=None, tpm=None) for name, one in config.models.items()}
        client = holyroute.Client(router=Router(replace(config, models=unlimited), observers=(observe,), env={}))
        # a 503 benches its model for as long as the provider asks, which here is not at all
        jobs = [(name, number) for number in range(CALLS) for name in profiles]
        with client, ThreadPoolExecutor(THREADS) as pool:
            answers = list(
                pool.map(lambda job: client.ask(f"{job}", models=[job[0]], on_failure="return").success, jobs)
            )
            health = client.health()
        counted = provider.statistics()

    assert health.calls.count == len(answers) == len(profiles) * CALLS
    assert health.calls.errors == answers.count(False)
    for one in health.targets:
        theirs = counted[one.target]
        seconds = [record.seconds for record in records if record.target.name == one.target and record.status == 200]
        assert (one.total.count, one.total.errors) == (theirs.calls, theirs.failures)
        assert theirs.failures > 0
        assert one.errors_by_reason == {"service unavailable": theirs.failures}
        assert (one.prompt_tokens, one.completion_tokens) == (theirs.prompt_tokens, theirs.completion_tokens)
        assert one.cost_usd == theirs.bill
        assert one.total.latency.average == pytest.approx(sum(seconds) / len(seconds))
        assert one.total.latency.p95 == pytest.approx(percentile(seconds, 0.95), rel=0.01)
        assert (one.total.latency.average or 0) >= theirs.average  # ours has the way there and back


def test_failover_as_the_providers_saw_it(client: holyroute.Client, a: Simulator, b: Simulator) -> None:
    """While A is down, its attempts and those of B are what arrived there."""
    a.always("*", "503")
    for number in range(40):
        client.ask(f"question {number}")
    health = client.health()
    ma, mb = health.targets

    assert (ma.total.count, ma.total.errors) == (a.attempts(), a.attempts())
    assert (mb.total.count, mb.total.answers) == (b.attempts(), 40)
    assert health.failovers == 40
    assert ma.state == "open"


def test_the_latency_of_a_stream_is_that_of_its_first_word(client: holyroute.Client, clock: ShiftedClock) -> None:
    """How long the caller takes to read is no fault of the model; the whole time stands in the trace."""
    stream = client.chat([{"role": "user", "content": "hello"}], stream=True)
    before = client.health().calls.count
    next(iter(stream))
    clock.advance(100)
    for _ in stream:
        pass
    health = client.health()
    ma, (route,) = health.targets[0], health.routes

    assert before == 0
    assert (ma.total.count, route.total.count) == (1, 1)
    assert (ma.total.latency.average or 0) < 50
    assert (route.total.latency.average or 0) >= 100


def test_parked_calls_show(configured: Callable[..., Config], a: Simulator, b: Simulator, env: dict[str, str]) -> None:
    """In the route's figures, and in the depth of the queue."""
    a.always("*", "503")
    b.always("*", "503")
    config = configured(queue={"path": ":memory:"})
    with holyroute.Client(router=Router(config, env=env), queue=True) as client:
        for number in range(3):
            client.ask(f"question {number}", on_failure="queue")
        health = client.health()

    assert [route.parked for route in health.routes] == [3]
    assert health.queue == QueueDepth(ready=3, leased=0, done=0, dead=0)
    assert {note.answered_by for note in health.recent_failovers} == {None}


def test_scripts_are_counted_too(router: Router, a: Simulator) -> None:
    """A changed import line is enough, with somebody to fail over to or without."""
    with holyroute.Session(router=router) as session:
        for direct in (False, True):
            if direct:
                with holyroute.direct():
                    session.post(f"{a.base_url}/chat/completions", json=BODY, headers=KEY)
            else:
                session.post(f"{a.base_url}/chat/completions", json=BODY, headers=KEY)
    health = health_of(router)

    assert [(one.target, one.total.answers) for one in health.targets if one.total.count] == [("ma", 2)]
    assert [(one.route, one.total.answers) for one in health.routes] == [("ma", 2)]


BODY = {"model": "ma", "messages": [{"role": "user", "content": "hello"}]}
KEY = {"Authorization": "Bearer test-key-a"}
