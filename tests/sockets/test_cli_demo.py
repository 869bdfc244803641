"""`holyroute demo`, shortened: an outage that nobody notices."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests
from click.testing import CliRunner

from holyroute.cli import demo_report, stage
from holyroute.cli.app import app
from holyroute.simulator import faults

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

SHORT = ("demo", "--requests", "120", "--workers", "12", "--speed", "20")


@pytest.fixture(autouse=True)
def hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, keys and proxies of a user, none of which are the demo's business."""
    for name in list(os.environ):
        if name.startswith(("HOLY", "FORCE_COLOR", "NO_COLOR", "TTY_")):
            monkeypatch.delenv(name)
    (tmp_path / "holyroute.toml").write_text("this is no TOML")
    (tmp_path / "holyroute").mkdir()
    (tmp_path / "holyroute" / "config.toml").write_text("nor is this")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOLYROUTE_CONFIG", str(tmp_path / "nowhere.toml"))
    monkeypatch.setenv("HOLYROUTE_TIME_DEADLINE", "not a number")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_nothing_is_lost() -> None:
    """Through two outages every request is answered, by another model and then by another gateway."""
    result = run(*SHORT)
    lines = result.stdout.splitlines()
    failovers = re.search(r"^failovers: (\d+)$", result.stdout, re.MULTILINE)
    mostly = re.findall(r"^  answered by ([\w.-]+): \d+", result.stdout, re.MULTILINE)
    rows = [line.split()[0] for line in lines if re.search(r" \d+\.\d%  ", line)]

    assert result.exit_code == 0, result.output
    assert "lost: 0" in lines
    assert failovers is not None
    assert int(failovers.group(1)) > 0
    assert mostly == ["deepseek-chat", "gemini-2.5-flash-preview-05-20", "gpt-4.1-mini"]
    assert set(mostly) <= set(rows)
    assert "after 40 requests: deepseek-chat answers 503" in lines
    assert "after 80 requests: gateway-a.test no longer resolves" in lines
    assert "\x1b" not in result.output


def test_the_bills_agree() -> None:
    """What the client booked is what the gateways ask for; only answers that broke off on their way may differ."""
    result = run(*SHORT, "--json", "--seed", "7")
    record = json.loads(result.stdout)

    assert result.exit_code == 0
    assert record["lost"] == 0
    assert sum(model["answered"] for model in record["models"]) == 120
    assert record["attempts"] == sum(model["calls"] for model in record["models"])
    assert record["circuit_openings"] > 0
    assert pytest.approx(sum(model["cost_usd"] or 0 for model in record["models"])) == record["spent_usd"]
    assert 0 < record["spent_usd"] <= record["billed_usd"]
    assert pytest.approx(record["spent_usd"], rel=0.05) == record["billed_usd"]
    assert record["saved_usd"] > 0
    assert record["reference"] == "gpt-4.1"


def test_a_lost_request_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody is left to answer, the demo says how many were lost and fails."""
    monkeypatch.setattr(stage.Stage, "lose_gateway", stage.Stage.unplug)
    result = run(*SHORT)
    lost = re.search(r"^lost: (\d+)$", result.stdout, re.MULTILINE)

    assert result.exit_code == 1
    assert lost is not None
    assert 0 < int(lost.group(1)) <= 40


def test_an_answer_to_another_question_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that belongs to somebody else's question counts as none."""
    mixed_up = faults.ok(content="Answer to: something else entirely")

    def break_model(self: stage.Stage) -> None:
        for gateway in self._gateways.values():
            gateway.always("*", mixed_up)

    monkeypatch.setattr(stage.Stage, "break_model", break_model)
    result = run(*SHORT)

    assert result.exit_code == 1
    assert "lost: 0" not in result.stdout.splitlines()


def test_bills_that_differ_fail_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that books less than it is billed for, without knowing why, is no success."""
    monkeypatch.setattr(demo_report.Report, "_difference", 1)
    monkeypatch.setattr(stage.Stage, "lose_gateway", lambda _: None)  # no answer breaks off
    result = run(*SHORT)

    assert result.exit_code == 1
    assert "not equal: this should not happen" in result.stdout


def test_ctrl_c_ends_it_quietly() -> None:
    """An interrupt ends the demo at once, without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "holyroute", "demo", "--speed", "0.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    started = process.stdout.readline(), process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=15)

    assert started[1] == "all is well\n"
    assert process.returncode == 130
    assert not told


def test_a_terminal_gets_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a bar, and what stays afterwards fits its width."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    result = run(*SHORT)
    report = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.stdout).split("USD\n", 1)[1].splitlines()

    assert result.exit_code == 0
    assert "120/120" in result.stdout
    assert "lost: 0" in report
    assert max(map(len, report)) <= 60


def test_the_names_are_gone_afterwards() -> None:
    """Nothing of the invented world stays in the process."""
    import socket

    before = socket.getaddrinfo
    run(*SHORT)

    assert socket.getaddrinfo is before


def get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=10)


def test_the_dashboard_shows_the_demo_while_it_runs() -> None:
    """With --dashboard its address comes first, the figures are those of the run, and it stays until Ctrl-C."""
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "holyroute", *SHORT, "--dashboard"]
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        shown = read_until(terminal, b"/dashboard")
        url = re.search(r"http://127\.0\.0\.1:\d+/dashboard", shown)
        assert url is not None, shown
        page = get(url[0])
        shown += read_until(terminal, b"Ctrl-C ends it.")
        told = get(url[0].removesuffix("dashboard") + "api").json()
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=15)
        os.close(terminal)

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert code == 0
    assert "lost: 0" in shown
    assert told["pid"] == process.pid
    assert (told["calls"]["count"], told["calls"]["errors"]) == (120, 0)
    assert told["targets"][0]["target"] == "deepseek-chat"
    assert told["failovers"] > 0


def read_until(terminal: int, word: bytes) -> str:
    """What appears on a terminal, up to the end of the line with a word."""
    shown = b""
    while word not in shown or not shown.endswith(b"\n"):
        shown += os.read(terminal, 4_096)
    return shown.decode()


def test_the_dashboard_ends_with_the_demo_where_nobody_sits() -> None:
    """In a script or in CI nothing waits for Ctrl-C."""
    result = run(*SHORT, "--dashboard")

    assert result.exit_code == 0
    assert re.search(r"^dashboard: http://127\.0\.0\.1:\d+/dashboard$", result.output, re.MULTILINE)
    assert "lost: 0" in result.output


def test_the_port_of_the_dashboard() -> None:
    """One that is taken is told before anything runs, and so is one without a page."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed, misused = run(*SHORT, "--dashboard", "--port", port), run(*SHORT, "--port", port)

    assert failed.exit_code == 1
    assert failed.output == f"holyroute: port {port}: Address already in use; --port chooses another\n"
    assert misused.exit_code == 2
    assert "it needs --dashboard" in misused.output
