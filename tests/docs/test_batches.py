"""The page about batches: every command on it runs as it stands, and what it says of a line is what a line has."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holyroute import context
from holyroute.batch.row import Cause
from holyroute.cli.app import app
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "batches.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that the page speaks of, and a simulated provider behind the built-in models."""
    messages = [{"role": "user", "content": "hello"}]
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    line["body"] = {"model": "gpt-4.1", "messages": messages}  # type: ignore[assignment]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"word {number}"}) + "\n" for number in range(8)))
    (tmp_path / "in.csv").write_text('kind,language,question\nsimple_qa,French,"Who, and\nwhy?"\n')
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    (tmp_path / "openai-batch.jsonl").write_text(json.dumps(line) + "\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "test-key-a")
    monkeypatch.chdir(tmp_path)
    with Simulator() as provider:
        (tmp_path / "holyroute.toml").write_text(f'[providers.holysheep]\nbase_url = "{provider.base_url}"\n')
        (tmp_path / "holyroute.toml").chmod(0o600)
        context.reset()
        yield tmp_path


@pytest.mark.timeout(60)
def test_every_command_of_the_page(folder: Path) -> None:
    """In their order; each of them ends well."""
    for command in COMMANDS:
        if command.startswith("holyroute "):
            result = CliRunner().invoke(app, shlex.split(command)[1:])
            assert result.exit_code == 0, f"{command}\n{result.output}"
        else:
            shell = f'holyroute() {{ "{sys.executable}" -m holyroute "$@"; }}; {command}'
            subprocess.run(["/bin/sh", "-c", shell], check=True, capture_output=True, timeout=40)

    assert len(COMMANDS) >= 12
    assert [json.loads(line)["index"] for line in (folder / "all.jsonl").read_text().splitlines()] == list(range(8))
    assert (folder / "out-as-table.csv").read_text().startswith("index,id,text,content")
    assert (folder / "answers-only.jsonl").read_text().count("\n") == 2
    assert json.loads((folder / "openai-answers.jsonl").read_text())["custom_id"] == "a"
    assert "French" in (folder / "out.csv").read_text()


def test_a_line_has_what_the_page_shows(folder: Path) -> None:
    """Field by field, in that order."""
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    CliRunner().invoke(app, ["batch", "in.jsonl", "out.jsonl", "--template", "{text}", "--limit", "1"])
    line = json.loads((folder / "out.jsonl").read_text())

    assert list(line) == list(shown)
    assert {name: type(value) for name, value in line.items()} == {name: type(value) for name, value in shown.items()}
    assert set(line["usage"]) == set(shown["usage"])


def test_the_page_names_every_cause() -> None:
    """Of a row that has no answer; `cancelled` alone never stands in an output."""
    assert {cause for cause in Cause if f"`{cause}`" not in PAGE} == {Cause.CANCELLED}


def test_the_page_and_the_help_agree_on_exit_codes() -> None:
    """Each code stands in both."""
    told = CliRunner().invoke(app, ["batch", "--help"]).output
    codes = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)

    assert codes == ["0", "1", "2", "3", "130"]
    for code in codes:
        assert re.search(rf"\b{code}\b", told.split("Exit codes:")[1].split("Options:")[0])


def test_every_option_that_the_page_names_is_there() -> None:
    """And none is misspelt."""
    known = {name for command in app.commands.values() for param in command.params for name in param.opts}

    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) - known == set()


def test_the_example_loses_nothing() -> None:
    """It runs without a key: every row that can be asked is answered, by two models."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "batch_job.py"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )

    assert done.returncode == 0, done.stderr
    assert "answered: 199 of 200, stopped: None\nby both models: True\n" in done.stdout
    assert done.stdout.startswith("row 7: row: messages: ")
