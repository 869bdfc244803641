"""`holyroute simulate`: a provider in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = {"messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def simulation(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running simulation, and its base URL."""
    command = [sys.executable, "-m", "holyroute", "simulate", "--port", "0", "--speed", "100", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            yield process, first.removeprefix("base URL: ").strip()
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What else it shows, and its complaints; `communicate` would miss what came along with the first line."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, told = process.stdout.read(), process.stderr.read()
    process.wait(timeout=10)
    return output, told


def ask(url: str, model: str, key: str = "") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {key}"}
        return session.post(f"{url}/chat/completions", json=BODY | {"model": model}, headers=headers, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_ended(number: signal.Signals) -> None:
    """It plays the published models, and ends with its figures, exit code 0 and no traceback."""
    with simulation("--availability", "1") as (process, url):
        answer = ask(url, "gpt-4.1")
        unknown = ask(url, "nobody")
        process.send_signal(number)
        output, told = rest_of(process)

    assert answer.json()["choices"][0]["message"]["content"] == "Answer to: hello"
    assert unknown.status_code == 404
    assert process.returncode == 0
    assert not told
    assert f"curl {url}/chat/completions" in output
    assert re.search(r"^gpt-4\.1 +1 +1 .* 100\.0%", output, re.MULTILINE)


def test_it_plays_faults_and_wants_keys() -> None:
    """Faults and keys hold for every request."""
    with simulation("--fault", "gpt-4.1=429:7", "--fault", "*=503", "--key", "test-key-a") as (process, url):
        limited = ask(url, "gpt-4.1", "test-key-a")
        broken = ask(url, "deepseek-chat", "test-key-a")
        refused = ask(url, "gpt-4.1", "test-key-b")
        process.send_signal(signal.SIGINT)
        output, _ = rest_of(process)

    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    assert broken.status_code == 503
    assert refused.status_code == 401
    assert "test-key-a" not in output


def test_a_port_that_is_taken() -> None:
    """A port in use is a failure with a hint, not a traceback."""
    with Simulator() as other:
        command = [sys.executable, "-m", "holyroute", "simulate", "--port", str(other.port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)

    assert result.returncode == 1
    assert result.stderr == f"holyroute: port {other.port}: Address already in use; --port chooses another\n"
