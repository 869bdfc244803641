"""The speed benchmarks run as the documents say; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from holyroute.simulator import Simulator
from holyroute.simulator.answers import Answer, completion

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


def test_a_quick_run_prints_its_tables() -> None:
    """One command measures a routed call beside requests, and says what it left out and where the goals stand."""
    command = [sys.executable, SPEED, "--quick", "--part", "calls", "--only", "holyroute.Session.post"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)

    assert done.returncode == 0, done.stderr
    assert "| client | CPU ratio | ± % | CPU µs | wall µs |" in done.stdout
    assert "| requests.Session.post | 1.00 |" in done.stdout
    assert "| holyroute.Session.post | " in done.stdout
    assert "| work | goal | measured | reached |" in done.stdout
    assert "| holyroute.Client.chat: CPU | ≤ 0.5 | not measured |  |" in done.stdout


@pytest.mark.parametrize("row", [0, 1, 2], ids=["chat", "session", "post"])
def test_the_routed_rows_are_routed(row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first model of the benchmark's configuration fails, another one answers through every door."""
    monkeypatch.syspath_prepend(SPEED)
    ours = runpy.run_path(str(SPEED / "ours.py"))
    with Simulator(path="/first/v1") as provider:
        url = f"http://127.0.0.1:{provider.port}"
        provider.always("gpt-4o-mini", 503)
        (tmp_path / "holyroute.toml").write_text(ours["configuration"](url).replace("/second/", "/first/"))
        monkeypatch.setenv("HOLYROUTE_CONFIG", str(tmp_path / "holyroute.toml"))
        monkeypatch.setenv(*next(iter(ours["ENVIRONMENT"].items())))
        answer = ours["OURS"][row].build(url, 1)()
        asked = [one.model for one in provider.seen]

    assert "tide table" in answer
    assert asked == ["gpt-4o-mini", "stand-in"]


def test_the_answer_is_one_that_a_provider_gives() -> None:
    """The benchmark's server says at least what the Simulator says, in the same shape."""
    canned = runpy.run_path(str(SPEED / "exchange.py"))["ANSWER"]
    simulated = json.loads(completion(Answer(id="x", model="m", content="hello")))

    assert paths(simulated) - paths(canned) == set()


def test_the_picture_shows_every_row() -> None:
    """It is well-formed, whatever a row is called."""
    picture = runpy.run_path(str(SPEED / "picture.py"))["drawn"]({"a <b> & c": 2.5, "holyroute.x": 0.04, "base": 1.0})
    texts = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - our own

    assert texts[1:] == ["holyroute.x", "0.04", "base", "1.00", "a <b> & c", "2.50"]


def paths(value: Any, place: str = "") -> set[str]:
    """Every key of a JSON document, with its type."""
    if isinstance(value, dict):
        return {one for key, inner in value.items() for one in paths(inner, f"{place}.{key}")}
    if isinstance(value, list):
        return {one for inner in value for one in paths(inner, f"{place}[]")}
    return {f"{place}: {type(value).__name__}"}
