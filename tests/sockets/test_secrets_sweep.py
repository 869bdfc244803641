"""A key is planted, everything happens to it that can, and then it is looked for everywhere.

Keys are made when the test runs: one that the configuration names, those that scripts of three dialects write into
their own headers, and the address and the signature of a webhook. What a script has written itself it may see again:
its request, and the body that its own provider sent it. Nobody else may.
"""

from __future__ import annotations

import json
import logging
import pickle
import secrets
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import requests
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug import Response

import holyroute
from holyroute.config.credentials import Credential, Keyring
from holyroute.engine.router import Router
from holyroute.monitoring import otel, prometheus
from holyroute.monitoring.dashboard.page import PATHS, reply
from holyroute.simulator import Exchange, Fault, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_httpserver import HTTPServer

    from holyroute.monitoring.health import AlertNote


PROMPT = "What is the time?"
HEADERS = ("Authorization", "api-key", "x-api-key")
# What a script of each dialect writes: its path, its body, the header of its key, what stands before the key.
SCRIPTS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "openai": ("/v1/chat/completions", {"model": "ma"}, "Authorization", "Bearer "),
    "azure": ("/openai/deployments/ma/chat/completions?api-version=2024-10-21", {}, "api-key", ""),
    "anthropic": ("/v1/messages", {"model": "ma", "max_tokens": 500}, "x-api-key", ""),
}


def planted() -> str:
    return f"planted{secrets.token_hex(12)}"


def sent_key(exchange: Exchange) -> str:
    """What the provider was sent, to be repeated at the wrong place."""
    return next(exchange.request.headers[name] for name in HEADERS if name in exchange.request.headers)


def echo(status: int) -> Fault:
    """An error that repeats the key, in its message, its code and a header."""

    def play(exchange: Exchange) -> None:
        key = sent_key(exchange)
        error = {"message": f"Incorrect API key provided: {key}", "code": key, "type": "authentication_error"}
        exchange.reply(status, json.dumps({"error": error, "type": "error"}).encode(), headers=[("X-Key", key)])

    return Fault(f"echo {status}", play)


def echo_in_answer(*, reason: bool = False) -> Fault:
    """A good answer under the name of the key, which may stand in the place of its reason to end as well."""

    def play(exchange: Exchange) -> None:
        key = sent_key(exchange)
        openai = {"choices": [{"index": 0, "message": {"role": "assistant", "content": key}, "finish_reason": "stop"}]}
        openai["choices"][0]["finish_reason"] = key if reason else "stop"
        anthropic = {"type": "message", "role": "assistant", "stop_reason": "end_turn"}
        both = {**openai, **anthropic, "content": [{"type": "text", "text": key}], "id": key, "model": key}
        exchange.reply(200, json.dumps(both).encode(), headers=[("X-Key", key)])

    return Fault(f"echo in the {'reason' if reason else 'answer'}", play)


def echo_in_stream() -> Fault:
    """A stream that ends in an error which repeats the key."""

    def play(exchange: Exchange) -> None:
        data = {"error": {"message": f"bad key {sent_key(exchange)}", "type": "api_error"}, "type": "error"}
        body = f"event: error\ndata: {json.dumps(data)}\n\n".encode()
        exchange.reply(200, body, content_type="text/event-stream")

    return Fault("echo in the stream", play)


def redirected() -> Fault:
    """To a place that does not exist, with the key in its address."""

    def play(exchange: Exchange) -> None:
        exchange.reply(307, b"", headers=[("Location", f"/elsewhere?key={sent_key(exchange).split()[-1]}")])

    return Fault("redirected", play)


TROUBLE: tuple[faults.Step, ...] = (
    "ok",
    *map(echo, (400, 401, 402, 403, 404, 429, 500, 503)),
    echo_in_answer(),
    echo_in_answer(reason=True),
    redirected(),
    "reset",
    "cut-body",
    "silent",
)
STREAMS: tuple[faults.Step, ...] = ("ok", echo(401), echo_in_stream(), faults.cut_stream(20), faults.error_event(1))


@dataclass
class Haystack:
    """All that was written or shown anywhere, with the place."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, *things: Any) -> None:
        """Text and bytes as they are, everything else as it prints and as it pickles."""
        for thing in things:
            if isinstance(thing, bytes):
                self.found.append((place, thing.decode("latin-1")))
            elif isinstance(thing, str):
                self.found.append((place, thing))
            else:
                self.found += [(f"{place}: str", str(thing)), (f"{place}: repr", repr(thing))]
                self.found.append((f"{place}: pickle", pickled(thing)))

    def error(self, place: str, error: BaseException) -> None:
        """An exception as whoever reports it shows it, and the trace in it."""
        self.add(place, error, "".join(traceback.format_exception(error)), *getattr(error, "__notes__", []))
        self.trace(place, holyroute.trace_of(error))

    def trace(self, place: str, trace: holyroute.Trace | None) -> None:
        """A trace, and all that is in it."""
        if trace is not None:
            self.add(f"{place}: trace", trace, *trace.lines, *trace.attempts, *trace.skipped, *deep(trace))
            self.add(f"{place}: explained", json.dumps(trace.as_dict()))

    def places_of(self, *keys: str) -> list[str]:
        """Where one of the keys is found."""
        return sorted({place for place, text in self.found if any(key in text for key in keys)})


def pickled(thing: Any) -> str:
    try:
        return pickle.dumps(thing).decode("latin-1")
    except (TypeError, AttributeError, pickle.PicklingError, requests.RequestException) as refused:
        return str(refused)


def deep(thing: Any, seen: set[int] | None = None) -> Iterator[str]:
    """Every text that can be reached from something of ours, but for those who keep the keys and say so."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (Credential, Keyring, type, logging.Logger)):
        return
    seen.add(id(thing))
    if isinstance(thing, (str, bytes)):
        yield thing if isinstance(thing, str) else thing.decode("latin-1")
    for one in inside(thing):
        yield from deep(one, seen)


def inside(thing: Any) -> list[Any]:
    """What something holds: a container its items, an object of ours its attributes too."""
    held: list[Any] = []
    if isinstance(thing, Mapping):
        held += [one for pair in list(thing.items()) for one in pair]
    elif isinstance(thing, (list, tuple, set, frozenset, deque)):
        held += list(thing)
    if type(thing).__module__.startswith(("holyroute", "cachetools")):
        held += vars(thing).values() if hasattr(thing, "__dict__") else []
        names = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
        held += [getattr(thing, name, None) for name in names]
    return held


@dataclass
class World:
    """A router that everybody watches, over a provider of many faults and one that is always down."""

    router: Router
    a: Simulator
    keys: tuple[str, ...]  # of the configuration, of the webhook's address, of its signature
    received: list[Any]  # by the webhook
    alerts: list[AlertNote]
    events: list[object]
    exporter: prometheus.Exporter
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    straw: Haystack
    shown: Haystack  # to a script: here its own key may stand, and ours may not

    @property
    def key(self) -> str:
        """The one that goes to providers."""
        return self.keys[0]

    def watched(self) -> None:
        """What all observers have heard, and what the router remembers."""
        add = self.straw.add
        with holyroute.Client(router=self.router, queue=True) as client:
            add("health", client.health(), json.dumps(client.health().as_dict()), client.health_report())
        assert self.router.sinks.flush()
        add("alerts", *self.alerts)
        add("webhook", *(body for _, body in self.received))
        add("webhook", *(repr(headers) for headers, _ in self.received))
        add("monitor", *deep(self.router.monitor), *deep(self.router.sinks), repr(vars(self.router.sinks)))
        add("events", repr(self.events), *deep(self.events))
        for accept in ("", "application/openmetrics-text; version=1.0.0"):
            add("Prometheus", prometheus.metrics_text(self.exporter, accept)[0])
        add("spans", *(span.to_json() for span in self.spans.get_finished_spans()))
        add("metrics", self.reader.get_metrics_data().to_json())  # type: ignore[union-attr]
        add("state of the router", *deep(self.router.state), *deep(self.router.streams))
        client = holyroute.Client(router=self.router)
        add("health", repr(client.health()), client.health_report())
        add("pages", *(page.body for path in PATHS if (page := reply(path, client.health))))
        add("ledger", repr(self.router.ledger.entries()), repr(self.router.ledger.balance()))
        add("configuration", self.router.config)
        add("router", repr(self.router), repr(self.router.keyring), repr(self.router.wallet), repr(self.router.cache))


@pytest.fixture
def world(tmp_path: Path, httpserver: HTTPServer) -> Iterator[World]:
    keys = (planted(), planted(), planted())
    received: list[Any] = []
    alerts: list[AlertNote] = []
    events: list[object] = []
    with Simulator() as a:
        root = a.base_url.removesuffix("/v1")
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={
                "a": {"base_url": a.base_url, "api_key_env": "PLANTED"},
                "azure": {"base_url": root, "api_key_env": "PLANTED", "dialect": "azure"},
                "claude": {"base_url": f"{root}/v1", "api_key_env": "PLANTED", "dialect": "anthropic"},
                "gone": {"base_url": "http://chat.invalid/v1", "api_key_env": "PLANTED", "allow_http": True},
            },
            models={
                "ma": {"provider": "a", "price": {"input": 1, "output": 2}},
                "on-azure": {"provider": "azure"},
                "on-claude": {"provider": "claude"},
                "gone": {"provider": "gone"},
            },
            failover={root.split("/")[2]: ["gone", "on-claude", "on-azure"]},
            time={"connect": 0.2, "read": 0.2},
            retry={"backoff_base": 0, "throttle_min": 0, "throttle_max": 0, "blip": False, "sole_attempts": 1},
            breaker={"consecutive": 1_000, "consecutive_slow": 1_000, "minimum_calls": 1_000},
            queue={"path": str(tmp_path / "queue.db")},
            cache={"dropin": True},
            alerts={"webhooks": {"ops": {"url_env": "HOOK", "secret_env": "SIGN"}}, "flush": 10},
            monitoring={"log_prompts": True},
        )
        env = {"PLANTED": keys[0], "HOOK": httpserver.url_for(f"/{keys[1]}"), "SIGN": keys[2]}
        httpserver.expect_request(f"/{keys[1]}").respond_with_handler(webhook(received))
        router = Router(config, env=env, observers=(events.append,))
        router.sinks.add(alerts.append, "list")
        spans, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(spans))
        otel.attach(router, tracer_provider=tracers, meter_provider=MeterProvider([reader]), capture_content=True)
        exporter, straw, shown = prometheus.attach(router), Haystack(), Haystack()
        yield World(router, a, keys, received, alerts, events, exporter, spans, reader, straw, shown)


def webhook(received: list[Any]) -> Callable[[Any], Response]:
    """Takes the first alert, and refuses the others, so that failures are told too."""

    def handle(request: Any) -> Response:
        received.append((dict(request.headers), request.get_data()))
        return Response(status=200 if len(received) == 1 else 400)

    return handle


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def of_ours(logged: pytest.LogCaptureFixture) -> list[str]:
    """Every record of our loggers, with all its fields. Others tell addresses, also those of webhooks and redirects."""
    ours = [record for record in logged.records if record.name.startswith("holyroute")]
    return [logged.handler.format(record) + repr(vars(record)) for record in ours]


def ask_everything(world: World, client: holyroute.Client) -> None:
    """Every trouble through the typed door, on each dialect, answered and streamed, cached and parked."""
    straw = world.straw
    for step in TROUBLE:
        world.a.always("*", step)
        for model in ("ma", "on-azure", "on-claude"):
            place = f"client, {getattr(step, 'name', step)}, {model}"
            answer = client.ask(place, models=[model], temperature=0, on_failure="queue")
            straw.add(place, answer, repr(answer.raw), repr(answer.ticket))
            straw.trace(place, answer.trace)
            try:
                straw.add(place, client.ask(place, models=[model]))
            except holyroute.HolyRouteError as error:
                straw.error(place, error)
            _forgive(world)
    for step in STREAMS:
        world.a.always("*", step)
        for model in ("ma", "on-azure", "on-claude"):
            place = f"client, streamed, {getattr(step, 'name', step)}, {model}"
            try:
                straw.add(place, client.ask(PROMPT, models=[model], stream=True).read())
            except holyroute.HolyRouteError as error:
                straw.error(place, error)
            _forgive(world)


def ask_nobody(world: World) -> None:
    """A host whose name does not resolve, without a queue: it would hold up the replay of the others."""
    for stream in (False, True):
        with pytest.raises(holyroute.AllTargetsFailed) as raised:
            holyroute.Client(router=world.router).ask(PROMPT, models=["gone"], stream=stream)
        world.straw.error("client, gone", raised.value)


def ask_with_the_key_in_the_prompt(world: World, client: holyroute.Client) -> None:
    """What somebody writes into a prompt goes to the model, and is neither logged, traced nor parked."""
    prompt = f"Why does {world.key} not work?"
    for step in ("ok", 503):
        world.a.always("*", step)
        answer = client.ask(prompt, models=["ma"], temperature=0, on_failure="queue")
        world.straw.add("client, key in the prompt", answer, repr(answer.ticket))
        world.straw.trace("client, key in the prompt", answer.trace)
        _forgive(world)


def _forgive(world: World) -> None:
    """No bench keeps the next trouble away."""
    world.router.guards.gates._benches.clear()


def test_a_configured_key(world: World, logged: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """It went out in every call, and is found nowhere else: not even in what was sent back."""
    client = holyroute.Client(router=world.router, queue=True)
    ask_everything(world, client)
    ask_nobody(world)
    ask_with_the_key_in_the_prompt(world, client)
    world.a.heal()
    world.straw.add("queue, parked", *(path.read_bytes() for path in tmp_path.glob("queue.db*")))
    client.queue.hasten()  # what has failed would wait a little
    drained = client.queue.drain()
    world.straw.add("queue, drained", *(path.read_bytes() for path in tmp_path.glob("queue.db*")), repr(drained))
    world.straw.add("queue", repr(client.queue), repr(client.queue.stats()), *map(repr, client.queue.dead()))
    hit = [client.ask(PROMPT, models=["ma"], temperature=0) for _ in range(2)][1]
    world.straw.add("client", repr(client), repr(hit), pickled(client))
    world.watched()
    world.straw.add("log", *of_ours(logged))
    client.close()
    used = {header for seen in world.a.seen for header in seen.headers.values() if world.key in header}

    assert used == {f"Bearer {world.key}", world.key}
    assert drained.answered > 0
    assert world.key not in logged.text  # of all loggers: urllib3 tells addresses, and no headers
    assert hit.cached
    assert {alert.rule for alert in world.alerts} >= {"consecutive", "key"}
    assert len(world.received) > 1
    assert world.straw.places_of(*world.keys) == []


@pytest.mark.parametrize("dialect", SCRIPTS)
@pytest.mark.parametrize("alone", [False, True], ids=["with substitutes", "alone"])
def test_the_key_of_a_script(
    world: World, logged: pytest.LogCaptureFixture, tmp_path: Path, dialect: str, *, alone: bool
) -> None:
    """Its own provider has it; no log, trace, event, figure, span, exception or file has."""
    own = planted()
    session = holyroute.Session(router=world.router, queue=True)
    path, body, header, prefix = SCRIPTS[dialect]

    def post(prompt: str, **more: Any) -> requests.Response:
        return session.post(
            world.a.base_url.removesuffix("/v1") + path,
            json={**body, "messages": [{"role": "user", "content": prompt}], **more},
            headers={header: f"{prefix}{own}", "anthropic-version": "2023-06-01"},
            timeout=0.2,
            stream=more.get("stream", False),
        )

    with holyroute.direct() if alone else holyroute.routing():
        post_everything(world, post)
        substituted(world, post)
        world.a.heal()
        hits = [holyroute.trace_of(post(PROMPT, temperature=0)) for _ in range(2)]
    world.straw.add("session", repr(session), pickled(session), repr(session.routing_options))
    world.straw.add("queue", *(file.read_bytes() for file in tmp_path.glob("queue.db*")))
    world.watched()
    world.straw.add("log", *of_ours(logged))

    assert any(own in value for seen in world.a.seen for value in seen.headers.values())
    assert [trace.cached for trace in hits if trace] == [None, "hit"]
    assert world.straw.places_of(own, *world.keys) == []
    assert world.shown.places_of(*world.keys) == []


def post_everything(world: World, post: Callable[..., requests.Response]) -> None:
    """Every trouble through a script's door. What the provider tells the script itself is between the two of them."""
    straw = world.straw
    calls: list[tuple[faults.Step, dict[str, Any]]] = [(step, {"temperature": 0}) for step in TROUBLE]
    calls += [(step, {"stream": True}) for step in STREAMS]
    for step, more in calls:
        world.a.always("*", step)
        place = f"script, {getattr(step, 'name', step)}{', streamed' if more.get('stream') else ''}"
        try:
            response = post(place, **more)
            straw.trace(place, holyroute.trace_of(response))
            _ = response.content
        except requests.RequestException as error:
            own_request, error.request = error.request, None  # which requests shows, and pickles, too
            straw.error(place, error)
            world.shown.add(place, str(getattr(own_request, "headers", "")))
        else:
            straw.trace(place, holyroute.trace_of(response))
            straw.add(place, repr(response))
            world.shown.add(place, response, response.text, str(response.headers), response.reason)
            world.shown.add(place, str(response.raw.headers), str(response.request.headers))
        _forgive(world)


def substituted(world: World, post: Callable[..., requests.Response]) -> None:
    """A substitute goes with our key, and tells it to the script that never had it."""
    for step in (echo_in_answer(), echo_in_stream(), *map(echo, (400, 401, 503))):
        world.a.always("*", step)
        world.a.always("ma", 503)
        for stream in (False, True):
            place = f"script, substituted, {step.name}, {stream}"
            response = post(place, stream=stream)
            world.straw.trace(place, holyroute.trace_of(response))
            world.shown.add(place, response, response.text, str(response.headers), response.reason)
            world.shown.add(place, str(response.raw.headers), str(response.request.headers))
            _forgive(world)
