"""`holyroute health` against running apps."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from flask import Flask, Response, redirect
from werkzeug.serving import make_server

from holyroute.cli import health as module
from holyroute.cli.app import app as commands
from holyroute.flask import HolyRoute
from holyroute.monitoring.dashboard.server import DashboardServer
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from holyroute.monitoring.health import Health

TOKEN = "test-token-0123456789"


def run(url: str, *words: str, **environment: str) -> Result:
    return CliRunner().invoke(commands, ["health", "--url", url, *words], env=environment)


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address of an app that runs."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def guarded() -> Iterator[str]:
    """A healthy app with a token."""
    app = Flask("guarded")
    app.config["HOLYROUTE_TOKEN"] = TOKEN
    HolyRoute(app)
    with served(app) as url:
        yield url


def test_a_healthy_app(guarded: str) -> None:
    """Exit code 0; the address of the app, its pages or the dashboard will do, the token comes from a variable."""
    for url in (guarded, f"{guarded}/", f"{guarded}/holyroute", f"{guarded}/holyroute/dashboard?x#y"):
        result = run(url, HOLYROUTE_TOKEN=TOKEN)

        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("healthy\nprocess ")
        assert not result.stderr
    named = run(guarded, "--token-env", "OPS", OPS=TOKEN)

    assert named.exit_code == 0


def test_an_app_in_trouble(busy_health: Health) -> None:
    """Exit code 1, and a table that says where the trouble is."""
    with DashboardServer(lambda: busy_health) as server:
        result = run(server.url)
    lines = result.stdout.splitlines()

    assert result.exit_code == 1
    assert lines[0] == "not healthy"
    assert lines[1] == "process 4711, counting since 2023-11-14 22:13:20Z, now 2023-11-14 22:15:30Z"
    assert [line.split() for line in lines[3:5]] == [
        ["model", "state", "attempts", "errors", "average", "p95", "USD"],
        ["deepseek-chat", "open", "412", "7.8%", "0.81", "s", "1.38", "s", "0.0738"],
    ]
    assert [line.split()[:4] for line in lines[7:8]] == [["claude-3-5-sonnet-latest", "key", "rejected", "3"]]
    assert "queue: 12 waiting, 1 under way, 87 done, 2 dead" in lines
    assert "  since 2023-11-14 22:15:00Z  deepseek-chat: its circuit is open" in lines
    assert "  2023-11-14 22:15:29Z  simple_qa/fast: answered by gpt-4.1-mini (circuit open), 2 times" in lines


def test_json(busy_health: Health) -> None:
    """--json prints all figures as they came; the exit code is the same."""
    with DashboardServer(lambda: busy_health) as server:
        result = run(server.url, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout) == busy_health.as_dict()


def test_a_name_does_not_reach_the_terminal(busy_health: Health) -> None:
    """Escape sequences in a name are shown as what they are."""
    hostile = replace(busy_health.targets[0], target="\x1b]0;owned\x07\x1b[2J\r\n")
    with DashboardServer(lambda: replace(busy_health, targets=(hostile,))) as server:
        result = run(server.url)

    assert not {"\x1b", "\x07", "\r"} & set(result.stdout)
    assert "�]0;owned��[2J��" in result.stdout


@pytest.mark.parametrize("environment", [{}, {"HOLYROUTE_TOKEN": "wrong-token-0123456789"}])
def test_not_let_in(guarded: str, environment: dict[str, str]) -> None:
    """Exit code 2, and which variable is asked for; never a token."""
    result = run(guarded, **environment)

    assert result.exit_code == 2
    assert "not let in (401); --token-env names the variable" in result.stderr
    assert "wrong-token" not in result.output


def test_not_reached() -> None:
    """Nobody listens: exit code 2, in one line."""
    with Simulator() as gone:
        port = gone.port
    result = run(f"http://127.0.0.1:{port}")

    assert result.exit_code == 2
    assert result.stderr == f"holyroute: http://127.0.0.1:{port}/holyroute/api: not reached (ConnectionError)\n"


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["in size", "in time"])
def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """Somebody else's stream of events does not hold a cron job for ever."""
    monkeypatch.setattr(module, "PATIENCE", 1 if pause else 15)
    monkeypatch.setattr(module, "LARGEST", 1_000_000)
    app, never = Flask("endless"), threading.Event()

    @app.get("/holyroute/api")
    def api() -> Any:
        return (b" " * (1 if never.wait(pause) or pause else 65_536) for _ in itertools.count())

    with served(app) as url:
        result = run(url)

    assert result.exit_code == 2
    assert "its answer does not end" in result.stderr


@pytest.mark.parametrize("headers", [{"Content-Length": "99"}, {"Content-Encoding": "gzip"}], ids=["cut", "garbled"])
def test_an_answer_that_breaks_off(headers: dict[str, str]) -> None:
    """One line, no traceback."""
    app = Flask("broken")
    app.add_url_rule("/holyroute/api", view_func=lambda: Response(iter([b"{}"]), headers=headers))
    with served(app) as url:
        result = run(url)

    assert result.exit_code == 2
    assert "not reached" in result.stderr


@pytest.mark.parametrize("host", ["a..b", "a" * 300])
def test_a_host_that_cannot_be(host: str) -> None:
    """Not reached, which is not the exit code of an app in trouble."""
    result = run(f"http://{host}")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"holyroute: http://{host}/holyroute/api: not reached")


def test_somebody_else_answers() -> None:
    """What is no app of ours is told, and a token does not follow a redirect."""
    other, seen = Flask("other"), []

    @other.get("/holyroute/api")
    def figures() -> Any:
        return {"status": "fine"}

    @other.get("/moved/api")
    def moved() -> Any:
        return redirect("/elsewhere")

    @other.get("/elsewhere")
    def elsewhere() -> str:
        seen.append("token")
        return ""

    @other.get("/half/api")
    def half() -> Any:
        return {"is_healthy": True, "pid": 7}

    @other.get("/deep/api")
    def deep() -> str:
        return "[" * 100_000

    with served(other) as url:
        results = [run(f"{url}{path}", HOLYROUTE_TOKEN=TOKEN) for path in ("", "/moved", "/nowhere", "/half", "/deep")]

    assert [result.exit_code for result in results] == [2] * 5
    assert "these are no figures of holyroute" in results[4].stderr
    assert "these are no figures of holyroute" in results[0].stderr
    assert "redirects, which is not followed" in results[1].stderr
    assert "answered 404" in results[2].stderr
    assert "figures of another version" in results[3].stderr
    assert seen == []


@pytest.mark.parametrize(("key", "value"), [("state", {}), ("target", []), ("recent", "x")])
def test_figures_of_another_shape(busy_health: Health, key: str, value: Any) -> None:
    """What is almost ours is no traceback."""
    figures = busy_health.as_dict()
    figures["targets"][0][key] = value
    app = Flask("almost")
    app.add_url_rule("/holyroute/api", view_func=lambda: figures)
    with served(app) as url:
        result = run(url)

    assert result.exit_code == 2
    assert "figures of another version" in result.stderr


def test_a_year_that_no_calendar_has(busy_health: Health) -> None:
    """Nor is a time that the system cannot tell."""
    with DashboardServer(lambda: replace(busy_health, since=-1e18)) as server:
        result = run(server.url)

    assert result.exit_code == 2
    assert "figures of another version" in result.stderr


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://user:planted@host/", "http://[::1", ""]
)
def test_an_address_that_is_none(url: str) -> None:
    """Wrong usage is exit code 2; a password in it is not repeated."""
    result = run(url)

    assert result.exit_code == 2
    assert "expected http://HOST:PORT/holyroute" in result.stderr
    assert "planted" not in result.output


def test_a_token_that_is_none(guarded: str) -> None:
    """A variable that is named must be there, and hold what can be a token; its value is not shown."""
    missing, wrong = run(guarded, "--token-env", "OPS"), run(guarded, "--token-env", "OPS", OPS="planted")

    assert (missing.exit_code, wrong.exit_code) == (2, 2)
    assert missing.stderr == "holyroute: variable OPS is not set\n"
    assert "variable OPS: expected at least 16" in wrong.stderr
    assert "planted" not in wrong.output


def test_an_unencrypted_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over plain http to another machine it works, with a warning."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody; the name is not looked up here
    result = run("http://app.example", HOLYROUTE_TOKEN=TOKEN)

    assert result.exit_code == 2
    assert result.stderr.startswith("holyroute: the token goes to app.example unencrypted; use https://\n")


def test_a_netrc_file_is_not_asked(guarded: str, tmp_path: Any) -> None:
    """The token is sent, whatever a .netrc file says of the host."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password planted-0123456789\n")
    (tmp_path / ".netrc").chmod(0o600)
    result = run(guarded, HOLYROUTE_TOKEN=TOKEN, HOME=str(tmp_path), NETRC=str(tmp_path / ".netrc"))

    assert result.exit_code == 0
