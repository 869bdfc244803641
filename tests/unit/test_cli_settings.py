"""`holyroute config` and `holyroute models`."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holyroute.cli.app import app
from holyroute.config.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

LONGEST = "gemini-2.5-flash-preview-05-20"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("HOLY", "FORCE_COLOR", "NO_COLOR", "TTY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_init_writes_a_private_file_that_is_valid(folder: Path) -> None:
    """The starter file can be read by its owner alone, and passes its own check."""
    written = run("config", "init")
    checked = run("config", "check")

    assert written.exit_code == 0
    assert stat.S_IMODE((folder / "holyroute.toml").stat().st_mode) == 0o600
    assert checked.exit_code == 0
    assert f"source: {folder / 'holyroute.toml'}" in checked.stdout


def test_init_does_not_overwrite(folder: Path) -> None:
    """A file that is there stays as it is, unless its owner insists; then it becomes private as well."""
    file = folder / "mine.toml"
    file.write_text("# mine\n")
    file.chmod(0o644)
    refused = run("config", "init", "mine.toml")
    kept = file.read_text()
    forced = run("config", "init", "mine.toml", "--force")

    assert refused.exit_code == 2
    assert "holyroute: mine.toml: is there already; --force overwrites it" in refused.stderr
    assert kept == "# mine\n"
    assert forced.exit_code == 0
    assert "api_key_env" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_init_says_why_it_cannot_write() -> None:
    """A folder that is not there is an error of usage, told in one line."""
    result = run("config", "init", "nowhere/holyroute.toml")

    assert result.exit_code == 2
    assert result.stderr == "holyroute: nowhere/holyroute.toml: cannot be written: No such file or directory\n"


def test_check_counts_and_warns() -> None:
    """A valid configuration is summed up; a missing key is a warning, not an error."""
    result = run("config", "check")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "source: built-in",
        "providers: 1",
        "models: 6",
        "routes: 12",
        "failover lists: 1",
        "valid",
    ]
    assert result.stderr == "warning: HOLYSHEEP_API_KEY is not set: holysheep cannot be asked\n"


def test_check_does_not_warn_of_a_key_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its key, a provider is no reason to warn."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "test-key-a")
    result = run("config", "check")

    assert result.exit_code == 0
    assert not result.stderr


def test_check_tells_every_problem(folder: Path) -> None:
    """All problems of a file come at once, each with its path, and exit code 2."""
    (folder / "bad.toml").write_text('[models.m]\nprovider = "nobody"\n[time]\ndeadlin = 3\n')
    result = run("config", "check", "bad.toml")

    assert result.exit_code == 2
    assert not result.stdout
    assert "models.m.provider" in result.stderr
    assert "time.deadlin: unknown key; did you mean 'deadline'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_show_prints_what_load_reads_back(folder: Path) -> None:
    """The settings in effect are a file that means the same."""
    (folder / "given.toml").write_text("[time]\ndeadline = 42.0\n")
    shown = run("config", "show", "given.toml")
    (folder / "again.toml").write_text(shown.stdout)

    assert shown.exit_code == 0
    assert load("given.toml").time == load("again.toml").time
    assert load("given.toml").models == load("again.toml").models


def test_no_command_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are named by their variables and never printed."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "test-key-a")
    outputs = [
        run(*words).output for words in (["config", "show"], ["config", "check"], ["models"], ["models", "--json"])
    ]

    assert not [output for output in outputs if "test-key-a" in output]
    assert "HOLYSHEEP_API_KEY (set)" in outputs[2]


def test_models_shows_prices_limits_and_keys() -> None:
    """One line per model: provider, prices, class, limits, and whether its key is there."""
    result = run("models")
    row = next(line for line in result.stdout.splitlines() if line.startswith("deepseek-chat"))

    assert result.exit_code == 0
    assert row.split() == ["deepseek-chat", "holysheep", "0.42", "1.68", "fast", "2k", "1M", "no"]
    assert "HOLYSHEEP_API_KEY (not set)" in result.stdout


def test_models_shows_routes_when_asked() -> None:
    """Each task and priority with its models, first choice first."""
    assert "simple_qa/fast" not in run("models").stdout
    assert (
        "simple_qa/fast\n  deepseek-chat, gemini-2.5-flash-preview-05-20, gpt-4.1-mini\n"
        in run("models", "--routes").stdout
    )


def test_models_as_json() -> None:
    """Scripts read exact names and numbers."""
    record = json.loads(run("models", "--routes", "--json").stdout)
    models = {model["name"]: model for model in record["models"]}

    assert len(models) == 6
    assert models["gpt-4.1"]["price_output"] == 32
    assert models["gpt-4.1"]["tpm"] == 150_000
    assert models["gpt-4.1"]["key_present"] is False
    assert record["routes"]["code_generation/fast"] == ["gpt-4.1-mini", "deepseek-chat"]


def test_models_knows_providers_without_keys(folder: Path) -> None:
    """A provider that needs no key is not shown as one whose key is missing."""
    (folder / "local.toml").write_text(
        '[providers.local]\nbase_url = "http://localhost:11434/v1"\n[models.llama]\nprovider = "local"\n'
    )
    result = run("models", "--config", "local.toml")
    row = next(line for line in result.stdout.splitlines() if line.startswith("llama"))

    assert row.split() == ["llama", "local", "unknown", "unknown", "normal", "-", "-", "-"]
    assert "no key needed" in result.stdout


def test_output_is_plain_in_a_pipe() -> None:
    """Where no terminal reads, there are no escape codes and nothing is cut."""
    output = run("models", "--routes").output

    assert "\x1b" not in output
    assert "…" not in output
    assert LONGEST in output


def test_tables_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 60 columns nothing is cut or broken within a line of a table."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", run("models", "--routes").output).splitlines()

    assert LONGEST in lines
    assert max(map(len, lines)) <= 60
