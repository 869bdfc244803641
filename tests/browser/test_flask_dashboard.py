"""The page of a real app, with its own client, in a real browser."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from werkzeug.serving import make_server

from holyroute.flask import HolyRoute
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Browser

pytestmark = pytest.mark.timeout(60)  # a browser takes its time on a busy machine

TOKEN = "test-token-0123456789"
HOSTILE = "<script>document.title='owned'</script>"


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as provider:
        yield provider


@pytest.fixture
def app(provider: Simulator) -> Flask:
    """Asks the model with the hostile name first."""
    app = Flask("shown")
    app.config["HOLYROUTE_TOKEN"] = TOKEN
    app.config["HOLYROUTE_SETTINGS"] = {
        "providers": {"simulated": {"base_url": provider.base_url}},
        "models": {name: {"provider": "simulated"} for name in (HOSTILE, "substitute")},
        "routes": {"general": {"normal": [HOSTILE, "substitute"]}},
    }
    HolyRoute(app)
    return app


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """Where it runs: host and port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_browser_with_the_token_sees_a_circuit_open(
    browser: Browser, app: Flask, address: str, provider: Simulator
) -> None:
    """The token as password opens the page; it shows what the app's own calls meet, while they meet it."""
    client = app.extensions["holyroute"].client
    client.ask("is all well?")
    browser.open(f"http://ops:{TOKEN}@{address}/holyroute/dashboard")
    browser.wait_for("document.querySelector('#verdict').textContent === '✓ healthy'")
    before = browser.text("#targets")
    provider.always(HOSTILE, 503)
    answers = [client.ask("and now?").model for _ in range(6)]
    browser.wait_for("document.querySelector('#targets .pill').textContent === '✕ open'")

    assert HOSTILE in before
    assert "✓ closed" in before
    assert answers == ["substitute"] * 6
    assert f"{HOSTILE}: closed → open" in browser.text("#changes")
    assert "→ substitute" in browser.text("#failovers")
    assert browser.run("return document.scripts.length") == 1
    assert "owned" not in browser.run("return document.title")
    assert browser.complaints() == []


def test_a_browser_without_it_sees_nothing(browser: Browser, address: str) -> None:
    """With a wrong password there is no page."""
    browser.open(f"http://ops:wrong-{TOKEN}@{address}/holyroute/dashboard")

    assert browser.run("return document.body.innerText") in {"", "Unauthorized"}
    assert browser.run("return [document.scripts.length, document.querySelectorAll('table').length]") == [0, 0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (("Forbidden", 403), "Access was refused: reload the page to sign in again."),
        (("", 302, {"Location": "/login"}), "Access was refused: reload the page to sign in again."),
        (("Service Unavailable", 503), "The application answered 503; asking again every 2 s."),
        (("<h1>Please log in</h1>", 200), "Something else answered; asking again every 2 s."),
    ],
    ids=["403", "302", "503", "html"],
)
def test_what_is_wrong_is_told(
    browser: Browser, app: Flask, address: str, answer: tuple[object, ...], told: str
) -> None:
    """The page says why there is nothing new, and shows its last figures as old ones."""
    app.extensions["holyroute"].client.ask("is all well?")
    browser.open(f"http://ops:{TOKEN}@{address}/holyroute/dashboard")
    browser.wait_for("document.querySelectorAll('#targets tr').length === 1")
    app.before_request_funcs.setdefault(None, []).append(lambda: answer)
    browser.run("document.dispatchEvent(new Event('visibilitychange'))")
    browser.wait_for("!document.querySelector('#trouble').hidden")

    assert browser.text("#trouble").startswith(f"{told} The figures below are those of ")
    assert browser.run("return document.body.className") == "stale"
