"""Libraries that listen in on http.client, urllib3 or requests see every attempt, whenever they came."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
import vcr
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from urllib3 import connection, connectionpool, response
from wrapt import wrap_function_wrapper

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Simulator
from holyroute.transport.adapter import Adapter
from holyroute.transport.listeners import nobody_listens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MESSAGES = [{"role": "user", "content": "hello"}]
BODY = {"model": "m", "messages": MESSAGES}
PLAIN = {"User-Agent": "test"}  # without it a request would go the long way anyhow


@pytest.fixture
def a() -> Iterator[Simulator]:
    """Out of order."""
    with Simulator() as simulator:
        simulator.always("ma", 503)
        yield simulator


@pytest.fixture
def b() -> Iterator[Simulator]:
    """In order."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def both(a: Simulator, b: Simulator) -> Router:
    """A, then B, on real sockets."""
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"a": {"base_url": a.base_url}, "b": {"base_url": b.base_url}},
        models={"ma": {"provider": "a"}, "mb": {"provider": "b"}},
        failover={f"127.0.0.1:{a.port}": ["mb"]},
    )
    return Router(config, env={})


@pytest.fixture(params=["Session", "Client"])
def ask(request: pytest.FixtureRequest, both: Router, a: Simulator) -> Iterator[Callable[[], str]]:
    """Asks A and is answered by B."""
    if request.param == "Client":
        with holyroute.Client(router=both) as client:
            yield lambda: client.chat(MESSAGES, models=["ma", "mb"]).content
        return
    with holyroute.Session(router=both) as session:
        body = {"model": "ma", "messages": MESSAGES}
        yield lambda: session.post(f"{a.base_url}/chat/completions", json=body).json()["choices"][0]["message"][
            "content"
        ]


# --- vcrpy ------------------------------------------------------------------------------------------------------------


def test_a_cassette_records_and_plays_each_attempt(
    ask: Callable[[], str], a: Simulator, b: Simulator, tmp_path: Path
) -> None:
    """A's fault and B's answer stand in the cassette; played back, nobody is asked."""
    path = str(tmp_path / "cassette.yaml")
    before = ask()
    with vcr.use_cassette(path) as recorded:
        first = ask()
    asked = a.attempts(), b.attempts()
    with vcr.use_cassette(path, record_mode="none") as played:
        second = ask()

    assert (a.attempts(), b.attempts()) == asked
    assert [entry["status"]["code"] for entry in recorded.responses] == [503, 200]
    assert played.play_count == 2
    assert first == second
    assert before
    assert ask()


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    RequestsInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    RequestsInstrumentor().uninstrument()


def test_each_attempt_of_a_session_is_a_span(
    spans: InMemorySpanExporter, both: Router, a: Simulator, b: Simulator
) -> None:
    """With its own URL and status, as requests' calls are."""
    body = {"model": "ma", "messages": MESSAGES}
    with holyroute.Session(router=both) as session:
        assert session.post(f"{a.base_url}/chat/completions", json=body).ok

    seen = [(span.attributes["http.url"], span.attributes["http.status_code"]) for span in spans.get_finished_spans()]

    assert (f"{a.base_url}/chat/completions", 503) in seen
    assert (f"{b.base_url}/chat/completions", 200) in seen


# --- whoever replaces a method ----------------------------------------------------------------------------------------

WATCHED = [
    *[(http.client.HTTPConnection, name) for name in ("putrequest", "putheader", "endheaders", "send", "getresponse")],
    *[(connection.HTTPConnection, name) for name in ("putrequest", "putheader", "request", "getresponse")],
    (http.client.HTTPResponse, "begin"),
    (response.HTTPResponse, "read"),
    (connectionpool.HTTPConnectionPool, "urlopen"),
    (connectionpool.HTTPConnectionPool, "_make_request"),
    (requests.adapters.HTTPAdapter, "send"),
]


@pytest.mark.parametrize("how", ["function", "wrapt"])
@pytest.mark.parametrize(("owner", "name"), WATCHED, ids=lambda value: getattr(value, "__qualname__", value))
def test_a_replaced_method_is_called(
    owner: type, name: str, how: str, b: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each request as long as it is there, as with the stock adapter, and for a used connection too."""

    def calls_of(adapter: requests.adapters.HTTPAdapter) -> int:
        calls = []
        request = requests.Request("POST", f"{b.base_url}/chat/completions", headers=PLAIN, json=BODY)
        adapter.send(request.prepare(), timeout=5).close()
        original = getattr(owner, name)

        def function(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        def wrapper(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            calls.append(name)
            return wrapped(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, function)
            if how == "wrapt":
                patch.setattr(owner, name, original)
                wrap_function_wrapper(owner, name, wrapper)
            for _ in "ab":
                assert adapter.send(request.prepare(), timeout=5).json()["choices"]
        return len(calls)

    stock, lean = calls_of(requests.adapters.HTTPAdapter()), calls_of(Adapter())

    assert lean == stock > 0
    assert nobody_listens()


@pytest.mark.parametrize("used", [False, True])
def test_debug_output_is_printed(
    b: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, used: bool
) -> None:
    """`http.client.HTTPConnection.debuglevel` shows requests, replies and headers; also of a used connection."""
    adapter = Adapter()
    request = requests.Request("POST", f"{b.base_url}/chat/completions", headers=PLAIN, json=BODY)
    if used:
        assert adapter.send(request.prepare(), timeout=5).json()["choices"]
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    adapter.send(request.prepare(), timeout=5).close()

    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} >= {"send", "reply", "header"}


# --- Sentry -----------------------------------------------------------------------------------------------------------


def run(script: str, *arguments: str) -> Any:
    """What a script prints as JSON, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=15
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


IMPORTS = "import requests, holyroute\nfrom holyroute.transport.adapter import Adapter"
INIT = """
import sentry_sdk
seen = []
def keep(event, hint):
    seen.extend((span["op"], span["data"]["http.response.status_code"]) for span in event["spans"])
sentry_sdk.init("http://test-key-s@127.0.0.1:9/1", traces_sample_rate=1.0, before_send_transaction=keep)
"""
SEND = """
import json, sys
def send():
    body = {"model": "m", "messages": []}
    request = requests.Request("POST", sys.argv[1], headers={"User-Agent": "test"}, json=body)
    return adapter.send(request.prepare(), timeout=5).status_code
adapter = Adapter()
"""
TRACED = """
with sentry_sdk.start_transaction(name="test"):
    send(), send()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("order", [[IMPORTS, INIT, SEND], [INIT, IMPORTS, SEND], [IMPORTS, SEND, "send()", INIT]])
def test_sentry_sees_each_attempt(order: list[str], b: Simulator) -> None:
    """Started before we are imported, after that, or after a connection was used."""
    spans = run("\n".join([*order, TRACED]), f"{b.base_url}/chat/completions")

    assert spans == [["http.client", 200]] * 2


def test_vcrpy_may_be_playing_while_we_are_imported(b: Simulator, tmp_path: Path) -> None:
    """The cassette has what was asked meanwhile; afterwards sockets are used as ever."""
    lines = ["import sys, vcr", "with vcr.use_cassette(sys.argv[2]) as cassette:"]
    lines += [f"    {line}" for line in (IMPORTS + SEND).splitlines()]
    lines += ["    send()", "send()", "print(json.dumps(len(cassette)))"]
    recorded = run("\n".join(lines), f"{b.base_url}/chat/completions", str(tmp_path / "cassette.yaml"))

    assert recorded == 1
    assert b.attempts() == 2
