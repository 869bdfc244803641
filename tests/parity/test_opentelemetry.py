"""OpenTelemetry's instrumentation replaces `Session.send`, as `install()` does: they stand in either order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = RequestsInstrumentor()
    plain = requests.Session.send
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()

    assert requests.Session.send is plain


def told(exporter: InMemorySpanExporter) -> list[tuple[str, int]]:
    """URL and status of each span."""
    return [
        (str((span.attributes or {})["http.url"]), int(str((span.attributes or {})["http.status_code"])))
        for span in exporter.get_finished_spans()
    ]


def test_each_attempt_of_our_session_has_a_span(
    a: Simulator, b: Simulator, spans: InMemorySpanExporter, live: Router, ask: Ask
) -> None:
    """And each attempt carries the trace along."""
    ask(holyroute.Session(router=live).post)

    assert told(spans) == [(f"{a.base_url}/chat/completions", 503), (f"{b.base_url}/chat/completions", 200)]
    assert [bool(one.seen[0].headers.get("traceparent")) for one in (a, b)] == [True, True]


def test_instrumented_first_each_attempt_has_a_span(
    a: Simulator, b: Simulator, spans: InMemorySpanExporter, live: Router, ask: Ask
) -> None:
    """Installed over the instrumentation, which is there again afterwards."""
    instrumented = requests.Session.send
    with holyroute.installed(router=live):
        ask(requests.post)

    assert told(spans) == [(f"{a.base_url}/chat/completions", 503), (f"{b.base_url}/chat/completions", 200)]
    assert requests.Session.send is instrumented


def test_an_instrumentation_below_ours_cannot_take_ours_away(
    a: Simulator, b: Simulator, live: Router, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It marks its own patch, and takes away what bears the mark: ours does not."""
    monkeypatch.setattr(requests.Session, "send", requests.Session.send)  # put back at the end, whatever stands there
    RequestsInstrumentor().instrument(tracer_provider=TracerProvider())
    with holyroute.installed(router=live):
        RequestsInstrumentor().uninstrument()
        response = ask(requests.post)

    assert response.json()["model"] == "mb"
    assert (a.attempts(), b.attempts()) == (1, 1)


def test_instrumented_later_the_call_has_a_span(a: Simulator, b: Simulator, live: Router, ask: Ask) -> None:
    """The instrumentation sees one call and its answer; taken away, we are still there."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with holyroute.installed(router=live):
        RequestsInstrumentor().instrument(tracer_provider=provider)
        first = ask(requests.post)
        RequestsInstrumentor().uninstrument()
        second = ask(requests.post)

    assert told(exporter) == [(f"{a.base_url}/chat/completions", 200)]
    assert [answer.json()["model"] for answer in (first, second)] == ["mb", "mb"]
    assert (a.attempts(), b.attempts()) == (2, 2)
    assert ask(requests.post).status_code == 503
