"""Where alerts go: webhooks on real sockets, and sinks that hang, raise or are down."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug import Response

import holyroute
from holyroute.config.schema import AlertSettings, Webhook
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.monitoring.health import AlertNote
from holyroute.monitoring.sinks import DeliveryFailed, Outlet, Outlets, WebhookSink, flush, log
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_httpserver import HTTPServer

    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator

BEGAN = AlertNote(rule="breaker", subject="<ma> & co at a", message="its circuit is open", began=1_700_000_000.0)
ENDED = AlertNote(
    rule="breaker",
    subject="ma at a",
    message="its circuit is open",
    began=1_700_000_000.0,
    ended=1_700_000_060.0,
    ending="its circuit is closed",
)
PATH = "/hook/test-hook-secret"
LIMIT = 15.0  # seconds that nothing here should take


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def env(httpserver: HTTPServer) -> dict[str, str]:
    return {"HOOK": httpserver.url_for(PATH), "SIGN": "test-signing-secret"}


def sink(env: dict[str, str], clock: FakeClock, **settings: Any) -> WebhookSink:
    return WebhookSink(Webhook(name="ops", url_env="HOOK", **settings), lambda name: env.get(name, ""), clock)


def answering(httpserver: HTTPServer, *statuses: int) -> list[Any]:
    """A webhook that gives these answers in turn; what it received."""
    received: list[Any] = []

    def handle(request: Any) -> Response:
        received.append((dict(request.headers), request.get_data()))
        return Response(status=statuses[len(received) - 1], headers={"Location": httpserver.url_for("/elsewhere")})

    httpserver.expect_request(PATH, method="POST").respond_with_handler(handle)
    return received


def test_a_webhook_gets_json(httpserver: HTTPServer, env: dict[str, str], clock: FakeClock) -> None:
    """All fields of the alert, and whether it begins; unsigned where no secret is named."""
    received = answering(httpserver, 200, 204)
    deliver = sink(env, clock)
    deliver(BEGAN)
    deliver(ENDED)
    (headers, first), (_, second) = received

    assert json.loads(first) == {
        "state": "began",
        "rule": "breaker",
        "subject": "<ma> & co at a",
        "message": "its circuit is open",
        "began": 1_700_000_000.0,
        "ended": None,
        "ending": None,
    }
    assert (json.loads(second)["state"], json.loads(second)["ending"]) == ("ended", "its circuit is closed")
    assert headers["Content-Type"] == "application/json"
    assert "X-Holyroute-Signature" not in headers


def test_a_signature_can_be_checked(httpserver: HTTPServer, env: dict[str, str], clock: FakeClock) -> None:
    """HMAC-SHA256 over the time and the body as it was received."""
    received = answering(httpserver, 200)
    sink(env, clock, secret_env="SIGN")(BEGAN)
    ((headers, body),) = received
    parts = dict(part.split("=") for part in headers["X-Holyroute-Signature"].split(","))
    signed = hmac.new(b"test-signing-secret", parts["t"].encode() + b"." + body, hashlib.sha256)

    assert parts == {"t": str(int(clock.wall())), "v1": signed.hexdigest()}


def test_nothing_of_netrc_goes_along(
    httpserver: HTTPServer, env: dict[str, str], clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that somebody keeps for this host is not meant for a webhook."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password test-password\n")
    monkeypatch.setenv("NETRC", str(netrc))
    received = answering(httpserver, 200)
    sink(env, clock)(BEGAN)

    assert "localhost" in env["HOOK"]
    assert "Authorization" not in received[0][0]


def test_a_login_in_the_address_goes_along(httpserver: HTTPServer, env: dict[str, str], clock: FakeClock) -> None:
    """As requests does it."""
    received = answering(httpserver, 200)
    env["HOOK"] = env["HOOK"].replace("//", "//ops:p%40ss@")
    sink(env, clock)(BEGAN)

    assert received[0][0]["Authorization"] == f"Basic {b64encode(b'ops:p@ss').decode()}"


def test_slack_gets_text(httpserver: HTTPServer, env: dict[str, str], clock: FakeClock) -> None:
    """One field; what callers named makes no link and mentions nobody."""
    received = answering(httpserver, 200, 200)
    deliver = sink(env, clock, format="slack")
    deliver(BEGAN)
    deliver(ENDED)

    assert [json.loads(body) for _, body in received] == [
        {"text": "holyroute: breaker: &lt;ma&gt; &amp; co at a: its circuit is open"},
        {"text": "holyroute: breaker is over: ma at a: its circuit is closed"},
    ]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_webhook_in_trouble_is_tried_again(
    status: int, httpserver: HTTPServer, env: dict[str, str], clock: FakeClock
) -> None:
    """Three attempts in all, with waits that grow, on our clock."""
    received = answering(httpserver, status, status, 200)
    sink(env, clock)(BEGAN)

    assert len(received) == 3
    assert len(clock.slept) == 2
    assert 1.0 <= clock.slept[0] <= 2.0 <= clock.slept[1] <= 3.0


@pytest.mark.parametrize("status", [400, 401, 404, 302, 307])
def test_a_webhook_that_refuses_is_left_alone(
    status: int, httpserver: HTTPServer, env: dict[str, str], clock: FakeClock
) -> None:
    """A refusal stays one, and nobody is sent elsewhere with a signed body."""
    received = answering(httpserver, status)
    with pytest.raises(DeliveryFailed, match=f"^status {status}$"):
        sink(env, clock)(BEGAN)

    assert (len(received), clock.slept) == (1, [])


def unused_port() -> int:
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return int(unbound.getsockname()[1])


def test_a_webhook_that_is_down(env: dict[str, str], clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Three attempts, one warning; the URL, which is a secret, stands in none of what is told."""
    env["HOOK"] = f"http://127.0.0.1:{unused_port()}{PATH}"
    deliver = sink(env, clock)
    with pytest.raises(DeliveryFailed) as caught:
        deliver(BEGAN)
    outlet = Outlet(deliver, "ops")
    outlet.put(BEGAN)
    done = outlet.flush(SYSTEM_CLOCK.now() + LIMIT)
    told = "".join([*traceback.format_exception(caught.value), repr(deliver), caplog.text])

    assert done
    assert len(clock.slept) == 4
    assert "alert sink ops failed: ConnectionError" in caplog.text
    assert "test-hook-secret" not in told


@pytest.mark.parametrize("value", ["", "test-hook-secret", "ftp://test-hook-secret"])
def test_a_variable_without_a_url(value: str, env: dict[str, str], clock: FakeClock) -> None:
    """The message names the variable, never what it holds."""
    env["HOOK"] = value
    with pytest.raises(DeliveryFailed, match=r"^HOOK holds no URL$"):
        sink(env, clock)(BEGAN)


def test_a_missing_secret_sends_nothing(httpserver: HTTPServer, env: dict[str, str], clock: FakeClock) -> None:
    """Whoever asked for a signature gets nothing unsigned."""
    del env["SIGN"]
    with pytest.raises(DeliveryFailed, match=r"^SIGN is not set$"):
        sink(env, clock, secret_env="SIGN")(BEGAN)

    assert httpserver.log == []


class Bad:
    """Sinks that do not do their work, and one that does."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.raised: list[AlertNote] = []
        self.hung: list[AlertNote] = []
        self.good: list[AlertNote] = []

    def hang(self, note: AlertNote) -> None:
        """Until the test is over."""
        self.entered.set()
        self.gate.wait(60)
        self.hung.append(note)

    def fail(self, note: AlertNote) -> None:
        """Every time."""
        self.raised.append(note)
        raise RuntimeError("test-hook-secret")

    def work(self, note: AlertNote) -> None:
        """As a sink should."""
        self.good.append(note)


def test_bad_sinks_lose_no_call_and_no_alert(
    a: Simulator,
    configured: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One hangs, one raises, one is down: every call is answered, and the good sink is told everything, in order."""
    monkeypatch.setenv("DOWN", f"http://127.0.0.1:{unused_port()}{PATH}")
    for name, key in {"KEY_A": "test-key-a", "KEY_B": "test-key-b"}.items():
        monkeypatch.setenv(name, key)
    bad = Bad()
    alerts = {"webhooks": {"down": {"url_env": "DOWN"}}, "flush": 0.001}
    with holyroute.Client(configured(alerts=alerts)) as client:
        for sink in (bad.hang, bad.fail, bad.work):
            client.on_alert(sink)
        a.always("*", "503")
        answers = [client.ask(f"question {number}") for number in range(60)]
        circuit = client.router.guards[client.router.config.models["ma"]].breaker
        circuit.force_close(client.router.clock.now())
        answers += [client.ask(f"again {number}") for number in range(20)]
        good = [outlet for outlet in client.router.sinks._outlets if outlet.name in {"work", "fail"}]
        delivered = flush(good, LIMIT)
        notes = client.health().alerts
    bad.gate.set()
    hanging = [outlet for outlet in client.router.sinks._outlets if outlet.name == "hang"]

    assert [answer.model for answer in answers] == ["mb"] * 80
    assert delivered
    assert {(note.rule, note.ended is None) for note in bad.good} >= {
        ("consecutive", True),
        ("error_rate", True),
        ("breaker", True),
        ("breaker", False),
    }
    assert bad.raised == bad.good
    assert len(notes) == sum(note.ended is None for note in bad.good)
    assert "alert sink fail failed: RuntimeError" in caplog.text
    assert "test-hook-secret" not in caplog.text
    assert flush(hanging, 1e300)  # more than a lock can wait
    assert bad.hung == bad.good


def test_the_queue_of_a_sink_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """The oldest make room for the newest, and the log says how many were lost."""
    bad = Bad()
    outlet = Outlet(bad.hang, "hang", most=10)
    notes = [AlertNote(rule="breaker", subject=str(number), message="", began=0.0) for number in range(500)]
    outlet.put(notes[0])
    assert bad.entered.wait(LIMIT)
    for note in notes[1:]:
        outlet.put(note)
    late = outlet.flush(SYSTEM_CLOCK.now())
    bad.gate.set()
    done = outlet.flush(SYSTEM_CLOCK.now() + LIMIT)

    assert (late, done) == (False, True)
    assert bad.hung == [notes[0], *notes[-10:]]
    assert "alert sink hang was too slow: 489 alerts were dropped" in caplog.text


def test_a_sink_that_wants_to_exit(caplog: pytest.LogCaptureFixture) -> None:
    """`sys.exit()` in a sink ends neither its thread nor its alerts."""
    told = []

    def leave(note: AlertNote) -> None:
        told.append(note)
        sys.exit(1)

    outlet = Outlet(leave, "leave")
    outlet.put(BEGAN)
    outlet.put(ENDED)

    assert outlet.flush(SYSTEM_CLOCK.now() + LIMIT)
    assert told == [BEGAN, ENDED]
    assert "alert sink leave failed: SystemExit" in caplog.text


def test_a_child_has_a_thread_of_its_own() -> None:
    """What waited in the parent is the parent's to deliver."""
    bad = Bad()
    outlet = Outlet(bad.hang, "hang")
    for _ in range(3):
        outlet.put(BEGAN)
    assert bad.entered.wait(LIMIT)
    outlet.after_fork()
    fresh = outlet.flush(SYSTEM_CLOCK.now())
    bad.gate.set()
    outlet.put(ENDED)

    assert fresh
    assert outlet.flush(SYSTEM_CLOCK.now() + LIMIT)
    assert ENDED in bad.hung


def test_the_log_is_a_sink(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings, with the alert's fields as attributes of the record."""
    log(BEGAN)
    log(ENDED)
    began, ended = caplog.records

    assert (began.levelno, ended.levelno) == (logging.WARNING, logging.WARNING)
    assert began.getMessage() == "alert breaker: <ma> & co at a: its circuit is open"
    assert ended.getMessage() == "alert breaker is over: ma at a: its circuit is closed"
    assert (ended.event, ended.rule, ended.subject, ended.ended) == ("alert", "breaker", "ma at a", ENDED.ended)  # type: ignore[attr-defined]


def test_the_log_can_be_left_out() -> None:
    """`[alerts] log = false`."""
    outlets = Outlets(AlertSettings(log=False), lambda _: "", FakeClock())
    outlets.tell(BEGAN)

    assert outlets.flush()


LAST_WORDS = """
import holyroute
from holyroute.monitoring.health import AlertNote
client = holyroute.Client()
client.router.sinks.tell(AlertNote(rule="breaker", subject="ma at a", message="open", began=0.0))
"""


def test_the_last_alert_of_a_process_is_delivered(httpserver: HTTPServer, tmp_path: Path) -> None:
    """Who ends right after it waits a little."""
    received = answering(httpserver, 200)
    config = tmp_path / "holyroute.toml"
    config.write_text('[alerts.webhooks.ops]\nurl_env = "HOOK"\n')
    env = {**os.environ, "HOOK": httpserver.url_for(PATH), "HOLYROUTE_CONFIG": str(config)}
    done = subprocess.run([sys.executable, "-c", LAST_WORDS], env=env, check=False, capture_output=True, timeout=15)

    assert done.returncode == 0, done.stderr
    assert [json.loads(body)["rule"] for _, body in received] == ["breaker"]
    assert "alert breaker: ma at a: open" in done.stderr.decode()
