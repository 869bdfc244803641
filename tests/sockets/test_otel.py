"""Spans and metrics for OpenTelemetry, as the SDK's own exporters in memory see them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import holyroute
from holyroute.core.call import Call, Selection
from holyroute.engine.router import Router
from holyroute.monitoring import otel
from holyroute.simulator import faults
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from holyroute.config.schema import Config
    from holyroute.engine.attempt import Attempt
    from holyroute.simulator import Simulator

ROUTE = "route:simple_qa/fast"
PROMPT = "What is the time?"
MESSAGES = [{"role": "user", "content": PROMPT}]
KEY = {"Authorization": "Bearer test-key-a"}


class Backend:
    """Where spans and metrics arrive."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("application")

    def attach(self, door: Any, **options: Any) -> None:
        """Trace a door."""
        otel.attach(door, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    def tree(self) -> dict[str, list[str]]:
        """The names of spans below each span's name; each in the order of their beginnings."""
        begun = sorted(self.spans, key=lambda span: span.start_time or 0)
        names = {span.context.span_id: span.name for span in begun if span.context}
        below: dict[str, list[str]] = {}
        for span in begun:
            below.setdefault(names.get(span.parent.span_id, "?") if span.parent else "", []).append(span.name)
        return below

    def named(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Data points of a metric, by the values of their attributes in alphabet, server aside."""
        data = self.reader.get_metrics_data()
        found = (
            []
            if data is None
            else [
                point
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.name == name
                for point in metric.data.data_points
            ]
        )
        return {
            tuple(
                value for key, value in sorted((point.attributes or {}).items()) if not key.startswith("server")
            ): point
            for point in found
        }


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def traced(client: holyroute.Client, backend: Backend) -> holyroute.Client:
    backend.attach(client)
    return client


@pytest.fixture
def instrumented(backend: Backend) -> Iterator[None]:
    """Requests' own instrumentation beside ours."""
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=backend.tracers, meter_provider=MeterProvider())
    yield
    instrumentor.uninstrument()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def post(session: Any, provider: Simulator, **options: Any) -> requests.Response:
    body = {"model": "ma", "messages": MESSAGES, **options.pop("body", {})}
    response: requests.Response = session.post(
        f"{provider.base_url}/chat/completions", json=body, headers=KEY, timeout=(3, 3), **options
    )
    return response


def test_a_call_and_its_attempts(a: Simulator, b: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """One span for the call below the caller's, one for each attempt below that; the call's tells how it was routed."""
    a.always("*", 503)
    with backend.tracer.start_as_current_span("mine"):
        traced.ask(PROMPT, max_tokens=50)
    call, failed, good = (backend.named(name) for name in ("holyroute", "chat ma", "chat mb"))

    assert backend.tree() == {"": ["mine"], "mine": ["holyroute"], "holyroute": ["chat ma", "chat mb"]}
    assert [span.kind for span in (call, failed, good)] == [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.CLIENT]
    assert told(failed) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "a",
        "gen_ai.request.model": "ma",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.7,
        "server.address": "127.0.0.1",
        "server.port": a.port,
        "http.response.status_code": 503,
        "error.type": "unavailable",
    }
    assert told(good) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "b",
        "gen_ai.request.model": "mb",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "mb",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": told(good)["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": told(good)["gen_ai.usage.output_tokens"],
        "server.address": "127.0.0.1",
        "server.port": b.port,
        "http.response.status_code": 200,
    }
    assert told(call) == {
        "holyroute.outcome": "answered",
        "holyroute.attempts": 2,
        "holyroute.failovers": 1,
        "holyroute.why": "the route simple_qa/fast (your own)",
        "holyroute.answered_by": "mb",
        "holyroute.cost_usd": told(call)["holyroute.cost_usd"],
    }
    assert [span.status.status_code for span in (failed, good, call)] == [
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.UNSET,
    ]
    assert failed.status.description == "service unavailable"


def test_attempts_lie_within_their_call_one_after_the_other(
    a: Simulator, traced: holyroute.Client, backend: Backend
) -> None:
    """By the times of their beginnings and ends."""
    a.always("*", 503)
    traced.ask(PROMPT)
    edges = [
        edge
        for name in ("chat ma", "chat mb")
        for edge in (backend.named(name).start_time, backend.named(name).end_time)
    ]
    call = backend.named("holyroute")

    assert [call.start_time, *edges, call.end_time] == sorted([call.start_time, *edges, call.end_time])


def test_nobody_could_answer(a: Simulator, b: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """The call's span is an error too, and says of what kind."""
    for provider in (a, b):
        provider.always("*", 503)
    with pytest.raises(holyroute.AllTargetsFailed):
        traced.ask(PROMPT)
    call = backend.named("holyroute")

    assert told(call)["error.type"] == told(call)["holyroute.outcome"] == "unavailable"
    assert call.status.status_code is StatusCode.ERROR


def test_what_was_not_asked_is_told(a: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """Why a candidate was passed over stands in the span of the call."""
    traced.router.guards[traced.router.config.models["ma"]].breaker.force_open(traced.router.clock.now())
    traced.ask(PROMPT)

    assert told(backend.named("holyroute"))["holyroute.skipped"] == ("ma at a: not asked, its circuit is forced open",)
    assert a.attempts() == 0


def test_a_hit_is_one_span(traced: holyroute.Client, backend: Backend) -> None:
    """Nobody was asked, and nothing measured but the call."""
    for _ in range(2):
        traced.ask(PROMPT, temperature=0)
    hit = backend.spans[-1]

    assert [span.name for span in backend.spans] == ["chat ma", "holyroute", "holyroute"]
    assert (told(hit)["holyroute.cached"], told(hit)["holyroute.attempts"]) == ("hit", 0)
    assert [point.count for point in backend.points("gen_ai.client.operation.duration").values()] == [1]


def test_a_stream_ends_its_span_at_its_end(traced: holyroute.Client, backend: Backend) -> None:
    """Also when another thread reads it; until then nothing has arrived."""
    with backend.tracer.start_as_current_span("mine"):
        stream = traced.ask(PROMPT, stream=True)
        next(iter(stream))
        under_way = [span.name for span in backend.spans]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stream.read).result()
    span = told(backend.named("chat ma"))

    assert under_way == []
    assert backend.tree() == {"": ["mine"], "mine": ["holyroute"], "holyroute": ["chat ma"]}
    assert span["gen_ai.request.stream"] is True
    assert span["gen_ai.response.finish_reasons"] == ("stop",)
    assert 0 < span["gen_ai.response.time_to_first_chunk"] < 3
    assert [point.count for point in backend.points("gen_ai.client.operation.time_to_first_chunk").values()] == [1]


@pytest.mark.parametrize("leave", [True, False])
def test_a_stream_that_does_not_end(a: Simulator, traced: holyroute.Client, backend: Backend, *, leave: bool) -> None:
    """Broken is an error; left by its reader is none."""
    a.always("*", faults.cut_stream(20))
    stream = traced.ask("Tell me a long story. " * 5, stream=True)
    if leave:
        stream.close()
    else:
        with pytest.raises(holyroute.StreamInterrupted):
            stream.read()
    span = backend.named("chat ma")

    assert told(span).get("error.type") == (None if leave else "broken_body")
    assert (span.status.status_code is StatusCode.ERROR) is not leave


def test_nothing_of_the_prompt_unless_asked_for(traced: holyroute.Client, backend: Backend) -> None:
    """Neither prompt nor answer is in any span; with the flag both are in those of attempts, and only there."""
    traced.ask(PROMPT, system="Be brief.")
    before = str([(span.name, told(span), span.status.description) for span in backend.spans])
    backend.exporter.clear()
    backend.attach(traced, capture_content=True)
    traced.ask(PROMPT, system="Be brief.")
    attempt, call = backend.spans

    assert "time" not in before
    assert "brief" not in before
    assert json.loads(told(attempt)["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": PROMPT}]},
    ]
    assert f"Answer to: {PROMPT}" in told(attempt)["gen_ai.output.messages"]
    assert PROMPT not in str(told(call))


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("door", ["Session", "install"])
def test_requests_own_spans_are_below_the_attempts(a: Simulator, router: Router, backend: Backend, door: str) -> None:
    """Each request has one span of each kind: ours knows the model, theirs the URL, and carries the trace along."""
    backend.attach(router)
    a.always("*", 503)
    if door == "Session":
        post(holyroute.Session(router=router), a)
    else:
        with holyroute.installed(router=router):
            post(requests, a)

    assert backend.tree() == {
        "": ["holyroute ma"],
        "holyroute ma": ["chat ma", "chat mb"],
        "chat ma": ["POST"],
        "chat mb": ["POST"],
    }
    (http,) = [span for span in backend.spans if span.name == "POST" and told(span).get("http.status_code") == 503]
    assert http.context is not None
    assert f"{http.context.span_id:016x}" in a.seen[0].headers["traceparent"]


@pytest.mark.usefixtures("instrumented")
def test_a_script_without_substitutes_is_traced_too(
    a: Simulator, configured: Callable[..., Config], backend: Backend
) -> None:
    """Its one attempt is sent as it is, and has the same spans; a stream is its reader's, and its span ends early."""
    router = Router(configured(failover={"mc": ["mb"]}), env={})
    backend.attach(router)
    session = holyroute.Session(router=router)
    post(session, a, body={"model": "unheard-of"})
    with post(session, a, body={"model": "streamed", "stream": True}, stream=True) as response:
        ended = [span.name for span in backend.spans]
        response.content  # noqa: B018 - read it

    assert backend.tree() == {
        "": ["holyroute unheard-of", "holyroute streamed"],
        "holyroute unheard-of": ["chat unheard-of"],
        "chat unheard-of": ["POST"],
        "holyroute streamed": ["chat streamed"],
        "chat streamed": ["POST"],
    }
    assert ended[-1] == "holyroute streamed"
    assert told(backend.named("chat unheard-of"))["gen_ai.response.finish_reasons"] == ("stop",)


def test_the_callers_span_is_the_current_one_again(a: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """After an attempt as before it, whatever became of it."""
    a.script("*", 503, "reset", "cut-body")
    with backend.tracer.start_as_current_span("mine") as mine:
        for _ in range(4):
            traced.ask(PROMPT)
            current = trace.get_current_span()

            assert current is mine


def test_metrics_follow_the_conventions(a: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """Duration and tokens by operation, model, provider and error, with the buckets that the conventions ask for."""
    a.script("*", 503)
    for _ in range(3):
        traced.ask(PROMPT)
    durations, tokens = (backend.points(f"gen_ai.client.{name}") for name in ("operation.duration", "token.usage"))
    usage = told(backend.named("chat mb"))

    assert {labels: point.count for labels, point in durations.items()} == {
        ("unavailable", "chat", "a", "ma"): 1,
        ("chat", "b", "mb", "mb"): 1,
        ("chat", "a", "ma", "ma"): 2,
    }
    assert {labels: (point.count, point.sum) for labels, point in tokens.items() if "b" in labels} == {
        ("chat", "b", "mb", "mb", "input"): (1, usage["gen_ai.usage.input_tokens"]),
        ("chat", "b", "mb", "mb", "output"): (1, usage["gen_ai.usage.output_tokens"]),
    }
    assert {point.explicit_bounds[-1] for point in durations.values()} == {81.92}
    assert {point.explicit_bounds[-1] for point in tokens.values()} == {67_108_864}
    assert {labels: point.count for labels, point in backend.points("holyroute.call.duration").items()} == {
        ("answered", "default"): 3
    }


def test_what_scripts_and_servers_name_is_bounded(a: Simulator, router: Router, backend: Backend) -> None:
    """Models that are not configured are one series, and so are the versions of one that answers under many names."""
    backend.attach(router)
    a.api_keys = None
    session = holyroute.Session(router=router)
    for number in range(30):
        post(session, a, body={"model": f"model-{number}"})
    tracing = otel.attach(router, tracer_provider=backend.tracers, meter_provider=MeterProvider())
    target = router.config.models["ma"]
    names = {tracing.meters.response_model(target, f"version-{number}") for number in range(100)}

    assert {labels: point.count for labels, point in backend.points("gen_ai.client.operation.duration").items()} == {
        ("chat", "_OTHER", "_OTHER"): 30
    }
    assert len(names) == 21
    assert "_OTHER" in names


def test_fifty_threads_are_counted_exactly(a: Simulator, traced: holyroute.Client, backend: Backend) -> None:
    """Each call stands below the span of its own thread, each attempt below its own call."""
    a.api_keys = None
    barrier = threading.Barrier(50)

    def work(number: int) -> None:
        with backend.tracer.start_as_current_span(f"thread {number}"):
            barrier.wait()
            for _ in range(4):
                traced.ask(f"{PROMPT} {number}")

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    calls = [span for span in backend.spans if span.name == "holyroute"]
    attempts = [span for span in backend.spans if span.name.startswith("chat")]
    above = [span.parent.span_id for span in calls if span.parent]

    assert (len(calls), len(attempts)) == (200, 200)
    assert sorted(above.count(span_id) for span_id in set(above)) == [4] * 50
    assert {span.parent.span_id for span in attempts if span.parent} == {
        span.context.span_id for span in calls if span.context
    }
    assert [point.count for point in backend.points("gen_ai.client.operation.duration").values()] == [200]


def test_what_is_replayed_belongs_to_whoever_drains(configured: Callable[..., Config], backend: Backend) -> None:
    """Also in the threads of a drain; in the background nobody waits, and each is a trace of its own."""
    router = Router(configured(queue={"path": ":memory:"}), env={"KEY_A": "test-key-a", "KEY_B": "test-key-b"})
    with holyroute.Client(router=router, queue=True) as client:
        for number in range(3):
            client.submit(f"{PROMPT} {number}", model="ma")
        backend.attach(client)
        with backend.tracer.start_as_current_span("draining"):
            client.queue.drain()
        with backend.tracer.start_as_current_span("starting"):
            answered = threading.Event()
            router.events.subscribe(lambda _: answered.set())
            client.submit("in the background", model="ma")
            client.queue.start()
            assert answered.wait(10)
            client.queue.stop()
        done = client.queue.stats().done

    assert done == 4
    assert backend.tree()["draining"] == ["holyroute ma"] * 3
    assert backend.tree()[""] == ["draining", "starting", "holyroute ma"]


def test_the_rows_of_a_batch_belong_to_whoever_made_it(traced: holyroute.Client, backend: Backend) -> None:
    """On whatever threads they are asked, and wherever the results are read."""
    with backend.tracer.start_as_current_span("making a batch"):
        job = traced.batch([f"{PROMPT} {number}" for number in range(20)], max_workers=4)
    with backend.tracer.start_as_current_span("reading"), job:
        results = list(job)

    assert [result.ok for result in results] == [True] * 20
    assert backend.tree()["making a batch"] == ["holyroute"] * 20


def test_without_an_sdk_nothing_happens(client: holyroute.Client) -> None:
    """The API alone makes spans and metrics that go nowhere."""
    otel.attach(client)

    assert client.ask(PROMPT).content == f"Answer to: {PROMPT}"


def test_what_is_detached_is_not_traced(traced: holyroute.Client, backend: Backend) -> None:
    """Nor is anything twice that was attached twice; detaching twice is no error."""
    backend.attach(traced.router)
    traced.ask(PROMPT)
    for _ in range(2):
        otel.detach(traced)
    traced.ask(PROMPT)

    assert [span.name for span in backend.spans] == ["chat ma", "holyroute"]


def test_what_is_suppressed_is_not_traced(traced: holyroute.Client, backend: Backend) -> None:
    """As exporters do with their own requests, so that telemetry does not beget telemetry."""
    with suppress_instrumentation():
        traced.ask(PROMPT)

    assert backend.spans == []
    assert backend.points("gen_ai.client.operation.duration") == {}


def test_what_is_sampled_out_costs_no_attributes(client: holyroute.Client, backend: Backend) -> None:
    """Metrics count all the same."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    otel.attach(client, tracer_provider=TracerProvider(sampler=ALWAYS_OFF), meter_provider=backend.meters)
    client.ask(PROMPT)

    assert backend.spans == []
    assert [point.count for point in backend.points("gen_ai.client.operation.duration").values()] == [1]


class Timed:
    """A router on a clock that moves by hand, whose attempts take 2 s."""

    def __init__(self, config: Config) -> None:
        self.clock = FakeClock(wall=1_000.0)
        self.router = Router(config, clock=self.clock, env={"KEY_A": "test-key-a", "KEY_B": "test-key-b"})
        self.errors: list[BaseException] = []

    def send(self, *errors: BaseException) -> None:
        """Each attempt raises one of these."""
        self.errors = list(errors)
        body: dict[str, Any] = {"messages": []}
        alone = Selection(models=("ma",))
        self.router.send(Call(model=None, body=body, deadline=30, connect=3, read=3, selection=alone), self._transport)

    def _transport(self, attempt: Attempt) -> requests.Response:
        del attempt
        self.clock.advance(2)
        raise self.errors.pop(0)


def seconds(span: ReadableSpan) -> tuple[str, float, float]:
    return span.name, (span.start_time or 0) / 1e9, (span.end_time or 0) / 1e9


def test_times_are_those_of_the_clock(configured: Callable[..., Config], backend: Backend) -> None:
    """A wait between two attempts is in the call's span, and in neither of theirs."""
    timed = Timed(configured(retry={"sole_attempts": 2}))
    backend.attach(timed.router)
    timed.send(requests.ConnectionError("gone"), requests.ConnectionError("gone"))
    (waited,) = timed.clock.slept

    assert [seconds(span) for span in backend.spans] == [
        ("chat ma", 1_000.0, 1_002.0),
        ("chat ma", pytest.approx(1_002.0 + waited), pytest.approx(1_004.0 + waited)),
        ("holyroute ma", 1_000.0, pytest.approx(1_004.0 + waited)),
    ]


def test_ctrl_c_ends_the_spans(configured: Callable[..., Config], backend: Backend) -> None:
    """They are errors of its name, and the caller's span is the current one again."""
    timed = Timed(configured())
    backend.attach(timed.router)
    with pytest.raises(KeyboardInterrupt):
        timed.send(KeyboardInterrupt())

    assert [(*seconds(span), told(span)["error.type"]) for span in backend.spans] == [
        ("chat ma", 1_000.0, 1_002.0, "KeyboardInterrupt"),
        ("holyroute ma", 1_000.0, 1_002.0, "KeyboardInterrupt"),
    ]
    assert trace.get_current_span() is trace.INVALID_SPAN
