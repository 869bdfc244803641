"""Figures for Prometheus on real sockets: they are the provider's own, to the last one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import holyroute
from holyroute.engine.router import Router
from holyroute.monitoring import prometheus
from holyroute.simulator import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator

PROMPT = "What is the time?"


@pytest.fixture
def exporter(client: holyroute.Client) -> prometheus.Exporter:
    return prometheus.attach(client)


def counted(exporter: prometheus.Exporter, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    body, _ = prometheus.metrics_text(exporter)
    return sum(
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == f"holyroute_{name}" and labels.items() <= sample.labels.items()
    )


def post(session: holyroute.Session, provider: Simulator, model: str, **options: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], **options.pop("body", {})}
    key = {"Authorization": "Bearer test-key-a"}
    return session.post(f"{provider.base_url}/chat/completions", json=body, headers=key, timeout=(3, 3), **options)


def test_every_door_is_counted(
    a: Simulator, client: holyroute.Client, router: Router, exporter: prometheus.Exporter
) -> None:
    """A script's calls by the model it names, a client's by its route."""
    session = holyroute.Session(router=router)
    a.script("*", 503)
    post(session, a, "ma")
    post(session, a, "unheard-of")
    client.ask(PROMPT)
    client.ask(PROMPT, task="simple_qa", priority="fast")

    assert counted(exporter, "calls_total", route="ma") == 1
    assert counted(exporter, "calls_total", route="other") == 1
    assert counted(exporter, "calls_total", route="default") == 1
    assert counted(exporter, "calls_total", route="route:simple_qa/fast") == 1
    assert counted(exporter, "failovers_total") == 1


def test_a_script_without_substitutes_is_counted(a: Simulator, configured: Callable[..., Config]) -> None:
    """Its requests go out as they are, and are figures all the same."""
    router = Router(configured(failover={"mc": ["mb"]}), env={})
    exporter = prometheus.attach(router)
    a.always("*", 503)
    post(holyroute.Session(router=router), a, "unheard-of")

    assert counted(exporter, "attempts_total", model="other", outcome="unavailable") == 1


def test_a_stream_is_counted_at_its_end(client: holyroute.Client, exporter: prometheus.Exporter) -> None:
    """With its tokens; one that breaks counts as broken."""
    stream = client.ask(PROMPT, stream=True)
    before = counted(exporter, "calls_total")
    answer = stream.read()

    assert answer.usage is not None
    assert (before, counted(exporter, "calls_total", outcome="answered")) == (0, 1)
    assert counted(exporter, "tokens_total", type="output") == answer.usage.completion_tokens


def test_a_broken_stream_is_no_answer(a: Simulator, client: holyroute.Client, exporter: prometheus.Exporter) -> None:
    """It was charged for, perhaps, and nobody else could take over."""
    a.always("*", faults.cut_stream(20))
    with pytest.raises(holyroute.StreamInterrupted):
        client.ask("Tell me a long story. " * 5, stream=True).read()

    assert counted(exporter, "calls_total", outcome="broken_body") == 1
    assert counted(exporter, "calls_total", outcome="answered") == 0


def test_fifty_threads_are_counted_exactly(
    a: Simulator, b: Simulator, router: Router, client: holyroute.Client, exporter: prometheus.Exporter
) -> None:
    """Half of the first provider's answers are failures: attempts, tokens and dollars are what both providers saw."""
    a.script("*", *[200, 500] * 200)
    barrier = threading.Barrier(50)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(8):
            client.ask(f"{PROMPT} {number} {turn}")

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    used = [entry.usage.total_tokens for entry in router.ledger.entries()]
    seen = {"ma": a, "mb": b}

    assert counted(exporter, "calls_total", outcome="answered") == 400
    assert counted(exporter, "call_duration_seconds_count") == 400
    assert counted(exporter, "attempts_total", outcome="answered") == 400
    for name, provider in seen.items():
        assert counted(exporter, "attempts_total", model=name) == provider.attempts()
        assert counted(exporter, "attempt_duration_seconds_count", model=name) == provider.attempts()
    assert counted(exporter, "tokens_total") == sum(used)
    assert counted(exporter, "cost_usd_total") == pytest.approx(float(router.ledger.balance().spent))
