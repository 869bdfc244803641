"""`holyroute ask` and `holyroute bench` against a simulated provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holyroute import context
from holyroute.cli.app import app
from holyroute.simulator import Fault, Profile, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from holyroute.simulator import Exchange

SETTINGS = """
[providers.simulated]
base_url = "{url}"
api_key_env = "SIMULATED_KEY"
[models.first]
provider = "simulated"
price = {{ input = 1.00, output = 10.00 }}
[models.second]
provider = "simulated"
price = {{ input = 2.00, output = 20.00 }}
[models.unpriced]
provider = "simulated"
[routes.general]
fast = ["first"]
normal = ["first", "second"]
high = ["second", "first"]
[routes.simple_qa]
fast = ["first"]
normal = ["first"]
high = ["first"]
[routes.code_generation]
fast = ["second"]
normal = ["second"]
high = ["second"]
[routes.complex_reasoning]
fast = ["second"]
normal = ["second"]
high = ["second"]
[retry]
sole_attempts = 1
"""


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    for name in list(os.environ):
        if name.startswith("HOLY") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SIMULATED_KEY", "test-key-a")
    monkeypatch.chdir(tmp_path)
    models = {name: Profile(completion_tokens=10) for name in ("first", "second", "unpriced")}
    with Simulator(models, api_keys=["test-key-a"]) as simulator:
        (tmp_path / "holyroute.toml").write_text(SETTINGS.format(url=simulator.base_url))
        (tmp_path / "holyroute.toml").chmod(0o600)
        context.reset()
        yield simulator
        context.reset()


def run(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, words, input=given)


def test_ask_prints_the_answer_and_nothing_else(provider: Simulator) -> None:
    """The answer is all there is on stdout; who, how long and how much stands on stderr."""
    result = run("ask", "How are you?")

    assert result.exit_code == 0
    assert result.stdout.startswith("Answer to: How are you?")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith("first at simulated, ")
    assert result.stderr.endswith(", 3 + 10 tokens, 0.000103 USD\n")
    assert provider.attempts() == 1


@pytest.mark.parametrize("words", [["ask", "-"], ["ask"]])
def test_ask_reads_a_pipe(provider: Simulator, words: list[str]) -> None:
    """A question may come through a pipe."""
    result = run(*words, given="from the pipe")

    assert result.exit_code == 0
    assert result.stdout.startswith("Answer to: from the pipe")
    assert provider.attempts() == 1


def test_ask_passes_its_options_on(provider: Simulator) -> None:
    """Route and instructions reach the provider."""
    result = run("ask", "x", "--task", "general", "--priority", "high", "--system", "Be brief.", "--deadline", "20")
    messages = provider.seen[0].json["messages"]

    assert result.exit_code == 0
    assert provider.seen[0].model == "second"
    assert messages[0] == {"role": "system", "content": "Be brief."}


def test_ask_explains(provider: Simulator) -> None:
    """--explain tells whom it asked and what they said, on stderr."""
    provider.always("first", faults.status(503))
    result = run("ask", "x", "--explain")

    assert result.exit_code == 0
    assert result.stdout.startswith("Answer to: x")
    assert "first at simulated: service unavailable 503" in result.stderr
    assert "second at simulated: answered 200" in result.stderr
    assert "chosen from the route" in result.stderr


def test_ask_explains_as_json(provider: Simulator) -> None:
    """--explain --json has the trace as data: steps in order, with status, time and wait."""
    provider.always("first", faults.status(503))
    result = run("ask", "x", "--explain", "--json")
    trace = json.loads(result.stdout)["trace"]

    assert [(step["target"], step["status"]) for step in trace["steps"]] == [("first", 503), ("second", 200)]
    assert trace["why"].startswith("the route ")
    assert trace["steps"][1]["wait"] >= 0
    assert "answered 200" not in result.stderr


def test_ask_as_json(provider: Simulator) -> None:
    """Scripts get everything in one object."""
    provider.always("first", faults.status(503))
    record = json.loads(run("ask", "x", "--json").stdout)

    assert record["success"] is True
    assert record["model"] == "second"
    assert record["provider"] == "simulated"
    assert pytest.approx(0.000202) == record["cost_usd"]
    assert len(record["attempts"]) == 2


def test_ask_shows_why_nobody_answered(provider: Simulator) -> None:
    """A failure is exit code 1 and the whole story, once, on stderr."""
    provider.always("*", faults.status(503))
    result = run("ask", "x")
    as_json = run("ask", "x", "--json")

    assert result.exit_code == as_json.exit_code == 1
    assert not result.stdout
    assert "nobody could answer" in result.stderr
    assert result.stderr.count("first at simulated: service unavailable 503") == 1
    assert result.stderr.count("second at simulated: service unavailable 503") == 1
    assert json.loads(as_json.stdout)["success"] is False


def test_ask_shows_a_refusal(provider: Simulator) -> None:
    """A request that is refused says so with the attempt, and asks nobody else."""
    provider.always("first", faults.status(400))
    result = run("ask", "x")

    assert result.exit_code == 1
    assert "first at simulated: bad request 400" in result.stderr
    assert provider.attempts() == 1


def test_bench_measures_every_model_of_the_routes(provider: Simulator) -> None:
    """Per model: requests, answers, latency, availability, cost; each request is sent once, to its model only."""
    result = run("bench", "--requests", "20", "--workers", "4", "--json")
    models = {model["model"]: model for model in json.loads(result.stdout)["models"]}

    assert result.exit_code == 0, result.output
    assert set(models) == {"first", "second"}
    assert provider.attempts("first") == provider.attempts("second") == 20
    assert models["first"]["answered"] == 20
    assert models["first"]["availability"] == 1
    assert 0 < models["first"]["average_s"] <= models["first"]["p95_s"]
    # each answer has 10 tokens at 10 USD, the rest are tokens of the prompt at 1 USD
    assert models["first"]["cost_usd"] == pytest.approx(
        sum(one.prompt_tokens + 100 for one in provider.seen[:20]) / 1e6
    )
    assert pytest.approx(2 * models["first"]["usd_per_million_tokens"]) == models["second"]["usd_per_million_tokens"]


def test_bench_shows_a_table_with_the_worst_cost_first(provider: Simulator) -> None:
    """On this machine no consent is needed, but what it could cost is shown all the same, before anything is sent."""
    provider.script("first", *[faults.status(503)] * 5)
    result = run("bench", "--requests", "20", "--workers", "4", "--model", "first", "--model", "first")
    row = next(line.split() for line in result.stdout.splitlines()[2:] if line.startswith("first  "))

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["model", "host", "USD", "at", "most"]
    assert row[1:3] == ["20", "15"]
    assert "75.0%" in row
    assert "first: 5 x service unavailable" in result.stdout
    assert provider.attempts() == 20


def test_bench_of_a_dead_model_fails(provider: Simulator) -> None:
    """A model that never answered is measured, not retried and not left alone; the command fails."""
    provider.always("first", faults.status(503))
    result = run("bench", "--requests", "30", "--workers", "3", "--model", "first")

    assert result.exit_code == 1
    assert provider.attempts() == 30
    assert "first: 30 x service unavailable" in result.stdout


def test_bench_stops_at_a_rejected_key(provider: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is not tried a thousand times."""
    monkeypatch.setenv("SIMULATED_KEY", "test-key-b")
    result = run("bench", "--requests", "50", "--workers", "2", "--model", "first")

    assert result.exit_code == 1
    assert provider.attempts() <= 4
    assert "x key rejected" in result.stdout
    assert "x not sent" in result.stdout


def test_bench_leaves_out_models_without_a_key(provider: Simulator) -> None:
    """Without --model, what has no key is named and left out; what is named must have one."""
    with open("holyroute.toml", "a") as file:  # noqa: PTH123 - the working folder is the test's own
        file.write('[providers.keyless]\nbase_url = "http://localhost:1/v1"\napi_key_env = "NO_SUCH_KEY"\n')
        file.write('[models.third]\nprovider = "keyless"\n[routes.more]\nfast = ["third"]\n')
    default = run("bench", "--requests", "2")
    named = run("bench", "--requests", "2", "--model", "third")

    assert default.exit_code == 0
    assert "third: left out, no key is there for keyless" in default.stderr
    assert named.exit_code == 2
    assert "export NO_SUCH_KEY=" in named.stderr
    assert provider.attempts() == 4


def test_bench_does_not_wait_for_answers_after_ctrl_c(provider: Simulator) -> None:
    """An interrupt ends it at once and quietly, however long the answers under way may take."""
    asked = threading.Event()

    def never_answer(exchange: Exchange) -> None:
        asked.set()
        exchange.connection.wait_for_client()

    provider.always("*", Fault("never", never_answer))
    command = [sys.executable, "-m", "holyroute", "bench", "--requests", "9", "--workers", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            under_way = asked.wait(10)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=10)
        finally:
            process.kill()

    assert under_way
    assert process.returncode == 130
    assert not told
