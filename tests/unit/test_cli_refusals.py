"""What the commands refuse to do, and how they say so: one message, exit code 2, nothing sent."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holyroute import context
from holyroute.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

PAID = """
[providers.paid]
base_url = "https://llm.example.com/v1"
[models.priced]
provider = "paid"
price = { input = 1.00, output = 10.00 }
[models.unpriced]
provider = "paid"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith("HOLY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paid.toml").write_text(PAID)
    context.reset()
    yield tmp_path
    context.reset()


def run(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, words, input=given)


def test_ask_without_a_key_says_what_to_do() -> None:
    """The message names the variable, the provider by its address, and the command that needs no key."""
    result = run("ask", "hello")

    assert result.exit_code == 2
    assert not result.stdout
    assert "export HOLYSHEEP_API_KEY=" in result.stderr
    assert "https://api.holysheep.ai/v1" in result.stderr
    assert "holyroute demo" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("words", "given"), [(["ask"], ""), (["ask", "-"], " \n"), (["ask", ""], None)])
def test_ask_wants_a_question(words: list[str], given: str | None) -> None:
    """Nothing to ask is an error of usage, wherever it comes from."""
    result = run(*words, given=given)

    assert result.exit_code == 2
    assert "a question is missing" in result.stderr


def test_ask_knows_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model is an error of usage, with the nearest known name."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "test-key-a")
    result = run("ask", "hello", "--model", "gpt-4.1-mimi")

    assert result.exit_code == 2
    assert "did you mean 'gpt-4.1-mini'?" in result.stderr


def test_a_file_that_is_not_there() -> None:
    """A settings file that is named must exist."""
    for words in (["ask", "hello"], ["models"], ["bench"]):
        result = run(*words, "--config", "nowhere.toml")

        assert result.exit_code == 2
        assert "nowhere.toml: cannot be read" in result.stderr


def test_bench_shows_the_most_it_can_cost_and_stops() -> None:
    """Beyond this machine nothing is sent without --yes: input bytes as tokens, answers as long as they may be."""
    result = run(
        *("bench", "--config", "paid.toml", "--model", "priced"),
        *("--requests", "1000", "--max-tokens", "100", "--prompt", "x" * 93),
    )

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    # 1000 requests x (93 + len("[1000] ") bytes at 1 USD + 100 tokens at 10 USD) per million
    assert re.search(r"^priced +llm\.example\.com +1\.1000$", result.stdout, re.MULTILINE)


def test_bench_says_where_a_price_is_unknown() -> None:
    """What cannot be priced is never shown as 0, and needs --yes as well."""
    result = run("bench", "--config", "paid.toml", "--model", "unpriced", "--requests", "10")

    assert result.exit_code == 2
    assert re.search(r"^unpriced +llm\.example\.com +unknown$", result.stdout, re.MULTILINE)
    assert "cost unknown, no price is configured: unpriced" in result.stdout
    assert "at most 0" not in result.stdout


def test_bench_with_consent_still_wants_a_key() -> None:
    """--yes is no key: the variable is named before anything is sent."""
    result = run("bench", "--yes", "--requests", "1")

    assert result.exit_code == 2
    assert "export HOLYSHEEP_API_KEY=" in result.stderr


def test_bench_knows_its_models() -> None:
    """An unknown model is an error of usage."""
    result = run("bench", "--model", "gpt-5000")

    assert result.exit_code == 2
    assert "unknown model 'gpt-5000'" in result.stderr


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("503", "expected MODEL=FAULT, got '503'"),
        ("gpt-4.2=503", "unknown model 'gpt-4.2'; did you mean 'gpt-4.1'?"),
        ("gpt-4.1=sillent", "did you mean 'silent'?"),
        ("*=gzip:3", "it takes no argument"),
    ],
)
def test_simulate_knows_its_faults(fault: str, message: str) -> None:
    """A fault that cannot be played is an error of usage, told before the port is opened."""
    result = run("simulate", "--port", "0", "--fault", fault)

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_simulate_lists_its_faults() -> None:
    """The list has every name there is."""
    from holyroute.simulator import faults

    result = run("simulate", "--list-faults")

    assert result.exit_code == 0
    assert set(faults.names()) <= set(re.findall(r"[\w-]+", result.stdout))


def test_demo_does_not_pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """With holyroute switched off, the demo says so instead of losing requests."""
    monkeypatch.setenv("HOLYROUTE_DISABLED", "1")
    result = run("demo")

    assert result.exit_code == 2
    assert "HOLYROUTE_DISABLED" in result.stderr
