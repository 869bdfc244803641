"""The Flask example: its views, and that it survives what its benchmark does to it."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holyroute.config.app_keys import KEYS, PREFIX
from holyroute.flask import LIVE, METRICS
from holyroute.monitoring.dashboard.page import API, HEALTH, PAGE
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask

ROOT = Path(__file__).parents[2]
QUESTION = {"question": "which river?"}
TOKEN = "test-token-0123456789"


@pytest.fixture
def provider() -> Iterator[Simulator]:
    """Serves two models."""
    with Simulator() as provider:
        yield provider


@pytest.fixture
def app(provider: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Flask]:
    """Loads the example, configured for that provider."""
    config = tmp_path / "holyroute.toml"
    config.write_text(
        f"""
        [providers.simulated]
        base_url = "{provider.base_url}"
        [models]
        first = {{ provider = "simulated" }}
        second = {{ provider = "simulated" }}
        [routes]
        general.normal = ["first", "second"]
        """
    )
    monkeypatch.setenv("HOLYROUTE_CONFIG", str(config))
    monkeypatch.setenv("CHAT_TOKEN", TOKEN)
    return lambda: runpy.run_path(str(ROOT / "examples" / "flask_app.py"))["app"]


def test_its_views_survive_an_outage(provider: Simulator, app: Callable[[], Flask]) -> None:
    """Answers and streams come from the second model while the first one fails; its pages want the token."""
    provider.always("first", 503)
    client = app().test_client()
    answer, stream = client.post("/ask", json=QUESTION), client.post("/chat", json=QUESTION, buffered=True)
    pages = [client.get("/holyroute/api", auth=auth) for auth in (None, ("ops", TOKEN))]

    assert answer.get_json() == {"answer": "Answer to: which river?", "model": "second"}
    assert stream.text == "Answer to: which river?"
    assert [page.status_code for page in pages] == [401, 200]
    assert pages[1].get_json()["failovers"] == 2


@pytest.mark.parametrize("view", ["/ask", "/chat"])
def test_its_views_tell_that_nobody_can_answer(provider: Simulator, app: Callable[[], Flask], view: str) -> None:
    """503 and a line for people, no traceback; a question that is none is 400."""
    provider.always("*", 503)
    client = app().test_client()
    answer, wrong = client.post(view, json=QUESTION), client.post(view, json={})

    assert (answer.status_code, answer.get_json()) == (503, {"error": "no model could answer, please try again"})
    assert wrong.status_code == 400


def test_its_stream_says_that_it_broke_off(provider: Simulator, app: Callable[[], Flask]) -> None:
    """After its first words nobody else can go on: the reader is told."""
    provider.always("*", faults.cut_stream(after=2))
    stream = app().test_client().post("/chat", json=QUESTION)

    assert stream.text.endswith("\n[the answer broke off here]")
    assert stream.text.startswith("Answer")


def test_no_view_fails_under_gunicorn() -> None:
    """The benchmark, shortened: two forked workers, an outage, every view has its own answer, all figures add up."""
    command = [sys.executable, ROOT / "benchmarks" / "flask_outage.py", "--views", "240", "--threads", "12"]
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, check=False, timeout=50)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "views: 240, failed: 0, mixed up: 0\n" in done.stdout
    assert re.search(r"^processes: 2, calls by their own figures: 240 ", done.stdout, re.MULTILINE)
    assert "[ERROR]" not in done.stderr
    assert "Traceback" not in done.stderr


def test_its_document_knows_every_key_and_page() -> None:
    """docs/flask.md names all settings and pages, and its code is code."""
    text = (ROOT / "docs" / "flask.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(code, "docs/flask.md", "exec")
    names = [f"`{PREFIX}{key}`" for key in KEYS]
    names += [f"`/holyroute/{page}`" for page in (LIVE, METRICS, PAGE, API, HEALTH)]

    assert [name for name in names if name not in text] == []
