"""The Flask extension with a provider behind it: threads, forks, streams."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response

from holyroute.flask import HolyRoute, current_client
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

FORKING = """
import json, os, sys
from flask import Flask
from holyroute.flask import HolyRoute, current_client

app = Flask("forked", root_path=".")
app.debug = True
app.config["HOLYROUTE_SETTINGS"] = {
    "providers": {"simulated": {"base_url": sys.argv[1]}},
    "models": {"m": {"provider": "simulated"}},
    "routes": {"general": {"normal": ["m"]}},
}
HolyRoute(app)

def ask(number):
    with app.app_context():
        return current_client.ask(f"question {number}").content == f"Answer to: question {number}"

right = all(ask(number) for number in range(3))
child = os.fork()
right = right and all(ask(number) for number in range(40))
told = app.test_client().get("/holyroute/api").get_json()
if child:
    os.waitpid(child, 0)  # one prints after the other
print(json.dumps([bool(child), right, told["pid"] == os.getpid(), told["calls"]["count"]]))
"""


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as provider:
        yield provider


@pytest.fixture
def app(provider: Simulator) -> Flask:
    app = Flask("views")
    app.debug = True
    app.config["HOLYROUTE_SETTINGS"] = {
        "providers": {"simulated": {"base_url": provider.base_url}},
        "models": {"m": {"provider": "simulated"}},
        "routes": {"general": {"normal": ["m"]}},
    }
    HolyRoute(app)
    return app


def test_a_forked_worker_has_figures_and_connections_of_its_own(provider: Simulator) -> None:
    """Also where the client was used before the fork, as by an app that is loaded before its workers are made."""
    done = subprocess.run(
        # from 3.12 on Python warns of every fork beside another thread; ours is the watchdog
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, provider.base_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    told = sorted(json.loads(line) for line in done.stdout.splitlines())

    assert done.stderr == ""
    assert told == [[False, True, True, 40], [True, True, True, 43]]
    assert provider.attempts() == 83


def test_all_threads_have_the_same_client(app: Flask) -> None:
    """However many views are the first ones, one client is made, and it counts all their calls."""
    together = threading.Barrier(16)

    def view(number: int) -> tuple[int, str]:
        with app.app_context():
            together.wait()
            answer = current_client.ask(f"question {number}")
            return id(current_client._get_current_object()), answer.content  # type: ignore[attr-defined]

    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(view, range(16)))
    told = app.test_client().get("/holyroute/api").get_json()

    assert len({client for client, _ in seen}) == 1
    assert [content for _, content in seen] == [f"Answer to: question {number}" for number in range(16)]
    assert told["calls"]["count"] == 16


def test_a_reader_that_leaves_is_no_error(app: Flask, provider: Simulator) -> None:
    """A view that streams ends with its reader, and the model is not blamed for it."""
    provider.always("*", faults.slow_stream(interval=0.01))

    @app.get("/chat")
    def chat() -> Response:
        stream = current_client.ask("word " * 2_000, stream=True)

        def words() -> Iterator[str]:
            with stream:
                for delta in stream:
                    yield delta.text

        return Response(words())

    client = app.test_client()
    answer: Any = client.get("/chat", buffered=False)
    first = next(word for word in answer.iter_encoded() if word)
    answer.close()
    told = client.get("/holyroute/api").get_json()

    assert first == b"Answer "
    assert (told["calls"]["count"], told["calls"]["errors"]) == (1, 0)
    assert told["is_healthy"]
