"""The Flask extension: who may see which page, and whose client it is."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response
from prometheus_client.parser import text_string_to_metric_families

import holyroute
from holyroute.config.app_keys import app_settings, token_named
from holyroute.exceptions import ConfigurationError
from holyroute.flask import HolyRoute, current_client

if TYPE_CHECKING:
    from flask.testing import FlaskClient

TOKEN = "test-token-0123456789"
MODEL = "<script>alert(1)</script>"
GUARDED = ["/health", "/metrics", "/dashboard", "/dashboard/page.js", "/dashboard/page.css", "/api"]
DATA = ["/health", "/api"]
PAGES = ["/dashboard", "/dashboard/page.js", "/dashboard/page.css"]
SETTINGS = {
    "providers": {"own": {"base_url": "http://127.0.0.1:9/v1"}},
    "models": {MODEL: {"provider": "own"}},
    "routes": {"general": {"normal": [MODEL]}},
}

Authorize = "Callable[[], Any] | None"


def make(authorize: Authorize = None, *, debug: bool = False, **keys: Any) -> FlaskClient:
    """The test client of an app whose only model has a hostile name."""
    app = Flask("views")
    app.debug = debug
    app.config.update({"HOLYROUTE_SETTINGS": SETTINGS, **keys})
    HolyRoute(app, authorize=authorize)
    return app.test_client()


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


WRONG = [
    {},
    bearer("wrong-token-0123456789"),
    bearer(TOKEN[:-1]),
    bearer(TOKEN + "x"),
    bearer(""),
    {"Authorization": "Bearer"},
    {"Authorization": TOKEN},
    {"Authorization": f"Token {TOKEN}"},
    {"Authorization": "Basic not-base64"},
    {"Authorization": f'Digest username="x", response="{TOKEN}"'},
    bearer("täken-0123456789"),
    basic("wrong-token-0123456789"),
    basic("", user=TOKEN),
    basic("\u20ac\udc80".encode("utf-8", "replace").decode()),
]


@pytest.mark.parametrize("headers", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("path", GUARDED)
def test_without_the_token_there_is_nothing(path: str, headers: dict[str, str]) -> None:
    """401, a way to sign in, and not a word of models, providers or errors; in debug mode as well."""
    for client in (make(HOLYROUTE_TOKEN=TOKEN), make(HOLYROUTE_TOKEN=TOKEN, debug=True)):
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            answer = client.open(f"/holyroute{path}", method=method, headers=headers)

            assert answer.status_code == 401 if method != "POST" else answer.status_code in {401, 405}
            assert answer.get_data(as_text=True) in {"Unauthorized\n", ""} or answer.status_code == 405
            assert "script>" not in str(answer.headers) + answer.get_data(as_text=True)
            if answer.status_code == 401:
                assert 'Basic realm="holyroute", charset="UTF-8"' in answer.headers.getlist("WWW-Authenticate")


@pytest.mark.parametrize("headers", [bearer(TOKEN), basic(TOKEN), basic(TOKEN, user="")], ids=["bearer", "basic", "-"])
def test_with_the_token_there_is_all(headers: dict[str, str]) -> None:
    """As a header of a script or as the password that a browser asks for, whatever the user name."""
    client = make(HOLYROUTE_TOKEN=TOKEN)
    pages = {path: client.get(f"/holyroute{path}", headers=headers) for path in GUARDED}

    assert {path: page.status_code for path, page in pages.items()} == dict.fromkeys(pages, 200)
    assert all("default-src 'none'" in page.headers["Content-Security-Policy"] for page in pages.values())
    assert all(page.headers["Cache-Control"] == "no-store" for page in pages.values())


@pytest.mark.parametrize("path", GUARDED)
def test_without_any_rule_nobody_gets_in(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a token nor `authorize` is set: 403 outside of debug mode, also here; the log says why, once."""
    client = make()
    answers = [client.get(f"/holyroute{path}") for _ in range(3)]

    assert {(answer.status_code, answer.text) for answer in answers} == {(403, "Forbidden\n")}
    assert caplog.text.count("neither HOLYROUTE_TOKEN nor authorize= is set") == 1


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1"])
def test_in_debug_mode_the_developer_gets_in(path: str, address: str) -> None:
    """On the machine itself, without a token."""
    client = make(debug=True)
    answer = client.get(f"/holyroute{path}", environ_base={"REMOTE_ADDR": address})

    assert answer.status_code == 200


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("192.0.2.1", {}),
        ("::2", {}),
        ("", {}),
        ("localhost", {}),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.1"}),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.1"}),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
        ("127.0.0.1", {"Host": "evil.example"}),
        ("127.0.0.1", {"Host": "127.0.0.1.evil.example:5000"}),
        ("127.0.0.1", {"Host": "[::1"}),
    ],
)
def test_in_debug_mode_nobody_else_gets_in(path: str, address: str, headers: dict[str, str]) -> None:
    """Not from another machine, not through a proxy, not by a name that was made to lead here."""
    answer = make(debug=True).get(f"/holyroute{path}", headers=headers, environ_base={"REMOTE_ADDR": address})

    assert answer.status_code in {400, 403}  # 400: a host that Werkzeug itself refuses
    assert "script>" not in answer.text


@pytest.mark.parametrize("path", DATA + PAGES)
@pytest.mark.parametrize("debug", [False, True])
def test_authorize_decides(path: str, *, debug: bool) -> None:
    """True opens, False and None do not, on the own machine in debug mode neither."""
    status = [make(lambda verdict=v: verdict, debug=debug).get(f"/holyroute{path}") for v in (True, False, None)]

    assert [answer.status_code for answer in status] == [200, 403, 403]
    assert status[1].text == "Forbidden\n"


def test_token_or_authorize() -> None:
    """Where both are set, either opens: people by their session, a scraper by the token."""
    refusing = make(lambda: False, HOLYROUTE_TOKEN=TOKEN)
    letting = make(lambda: True, HOLYROUTE_TOKEN=TOKEN)

    assert refusing.get("/holyroute/api", headers=bearer(TOKEN)).status_code == 200
    assert refusing.get("/holyroute/api").status_code == 401
    assert letting.get("/holyroute/api").status_code == 200


@pytest.mark.parametrize("answer", [Response("please log in", 302), "yes", 1, object()])
def test_a_true_thing_is_no_permission(answer: object) -> None:
    """A view helper that returns a redirect is true, and opens nothing: it is an error of the app."""
    client = make(lambda: answer)
    client.application.testing = True

    with pytest.raises(TypeError, match="authorize: expected it to return True, False or None"):
        client.get("/holyroute/api")


def test_an_error_in_authorize_opens_nothing() -> None:
    """Whoever cannot be judged gets the app's own error page."""

    def authorize() -> bool:
        raise RuntimeError("the session store is down")

    answer = make(authorize).get("/holyroute/api")

    assert answer.status_code == 500
    assert "script>" not in answer.text


@pytest.mark.parametrize("keys", [{}, {"HOLYROUTE_TOKEN": TOKEN}])
def test_live_is_for_everybody(keys: dict[str, str]) -> None:
    """Always 200, always empty, asks and tells nothing: also if the configuration is wrong."""
    client = make(**{"HOLYROUTE_SETTINGS": {"nonsense": {}}, **keys})
    answer = client.get("/holyroute/live", environ_base={"REMOTE_ADDR": "192.0.2.1"})

    assert (answer.status_code, answer.data) == (200, b"")
    assert client.application.extensions["holyroute"]._made is None


def test_a_hostile_name_stays_data() -> None:
    """It is told as JSON that no browser takes for markup, and is no part of the page."""
    client = make(HOLYROUTE_TOKEN=TOKEN)
    with client.application.app_context():
        current_client.ask("?", on_failure="return")
    told = client.get("/holyroute/api", headers=bearer(TOKEN))
    page = client.get("/holyroute/dashboard", headers=bearer(TOKEN))

    assert [one["target"] for one in told.get_json()["targets"]] == [MODEL]
    assert told.content_type == "application/json"
    assert told.headers["X-Content-Type-Options"] == "nosniff"
    assert "alert(1)" not in page.text


def test_one_client_per_app() -> None:
    """Two apps in one process share nothing, and each finds its own."""
    first, second = (make().application for _ in range(2))
    with first.app_context():
        one, again = current_client._get_current_object(), HolyRoute().client
    with second.app_context():
        other = current_client._get_current_object()

    assert one is again
    assert one is not other
    assert isinstance(one, holyroute.Client)


def test_the_factory_pattern() -> None:
    """One extension for many apps; where and for which task is the app's own affair."""
    extension = HolyRoute()
    app = Flask("factory")
    app.config.update(HOLYROUTE_URL_PREFIX="/ops/models", HOLYROUTE_TASK="simple_qa", HOLYROUTE_PRIORITY="fast")
    extension.init_app(app)

    assert app.test_client().get("/ops/models/live").status_code == 200
    assert app.test_client().get("/holyroute/live").status_code == 404
    with app.app_context():
        assert (extension.client._selection.task, extension.client._selection.priority) == ("simple_qa", "fast")


def test_an_app_without_it() -> None:
    """Forgetting `init_app`, or doing it twice, is told."""
    app = Flask("bare")
    with app.app_context(), pytest.raises(RuntimeError, match="init_app"):
        current_client.ask("?")
    HolyRoute(app)
    with pytest.raises(RuntimeError, match="already"):
        HolyRoute(app)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"HOLYROUTE_TOKNE": "x"}, r"\['HOLYROUTE_TOKNE'\]: unknown key; did you mean 'HOLYROUTE_TOKEN'"),
        ({"HOLYROUTE_TOKEN": ""}, r"\['HOLYROUTE_TOKEN'\]: expected at least 16"),
        ({"HOLYROUTE_TOKEN": "short-planted"}, r"\['HOLYROUTE_TOKEN'\]: expected at least 16"),
        ({"HOLYROUTE_TOKEN": b"planted-0123456789"}, r"\['HOLYROUTE_TOKEN'\]: expected at least 16"),
        ({"HOLYROUTE_TOKEN": "planted with spaces 0123"}, r"\['HOLYROUTE_TOKEN'\]: expected at least 16"),
        ({"HOLYROUTE_TOKEN_ENV": "NOT_SET"}, r"\['HOLYROUTE_TOKEN_ENV'\]: variable NOT_SET is not set"),
        ({"HOLYROUTE_TOKEN_ENV": "SHORT"}, r"variable SHORT: expected at least 16"),
        ({"HOLYROUTE_TOKEN_ENV": 7}, r"\['HOLYROUTE_TOKEN_ENV'\]: expected the name"),
        ({"HOLYROUTE_TOKEN_ENV": "GOOD", "HOLYROUTE_TOKEN": TOKEN}, "got both"),
        (
            {"HOLYROUTE_URL_PREFIX": "ops"},
            r"\['HOLYROUTE_URL_PREFIX'\]: expected a path such as '/holyroute', got 'ops'",
        ),
        ({"HOLYROUTE_URL_PREFIX": "/"}, "expected a path"),
        ({"HOLYROUTE_URL_PREFIX": "/<x>"}, "expected a path"),
        ({"HOLYROUTE_SETTINGS": ["time"]}, r"\['HOLYROUTE_SETTINGS'\]: expected a dict of sections, got a list"),
        ({"HOLYROUTE_SETTINGS": {"task": "simple_qa"}}, r"\['HOLYROUTE_SETTINGS'\]: expected sections .* got 'task'"),
        ({"HOLYROUTE_CONFIG": 5}, r"\['HOLYROUTE_CONFIG'\]: expected a file or a Config, got 5"),
        ({"HOLYROUTE_TASK": 5}, r"\['HOLYROUTE_TASK'\]: expected a name, got 5"),
    ],
)
def test_a_wrong_key_is_told_when_the_app_starts(keys: dict[str, Any], message: str) -> None:
    """The message names the key and what was expected; a token is never part of it."""
    env = {"SHORT": "short-planted", "GOOD": TOKEN}

    with pytest.raises(ConfigurationError, match=message) as caught:
        app_settings({"SECRET_KEY": "of the app", **keys}, env)
    assert "planted" not in str(caught.value)


def test_the_token_by_the_name_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the environment, and does not stand in `app.config`."""
    monkeypatch.setenv("OPS_TOKEN", f" {TOKEN}\n")
    client = make(HOLYROUTE_TOKEN_ENV="OPS_TOKEN")

    assert client.get("/holyroute/api", headers=bearer(TOKEN)).status_code == 200
    assert TOKEN not in repr(client.application.config)
    assert token_named("OPS_TOKEN") == token_named("OPS_TOKEN", {"OPS_TOKEN": TOKEN})
    assert token_named("OPS_TOKEN", {}) is None


def test_the_token_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Not in the state of the extension, not in a log at DEBUG, not on a page; and it is not pickled."""
    caplog.set_level(logging.DEBUG)
    client = make(HOLYROUTE_TOKEN=TOKEN)
    pages = [client.get(f"/holyroute{path}", headers=bearer(TOKEN)) for path in GUARDED]
    state = client.application.extensions["holyroute"]

    assert TOKEN not in caplog.text
    assert TOKEN not in repr(vars(state))
    assert not [page for page in pages if TOKEN in str(page.headers) + page.text]
    with pytest.raises(TypeError):
        pickle.dumps(state._settings)


def test_health_tells_the_process() -> None:
    """Under several workers each answer says whose figures it shows, and since when they count."""
    told = make(debug=True).get("/holyroute/health").get_json()

    assert told["pid"] == os.getpid()
    assert told["since"] <= told["at"]
    assert json.dumps(told)


def test_monitoring_that_is_switched_off() -> None:
    """There are no figures then, and the page says so to whoever may see it."""
    client = make(debug=True, HOLYROUTE_SETTINGS={**SETTINGS, "monitoring": {"enabled": False}})
    answer = client.get("/holyroute/api")

    assert answer.status_code == 503
    assert "monitoring" in answer.text
    assert client.get("/holyroute/dashboard").status_code == 200


def test_metrics_are_for_prometheus() -> None:
    """Its own parser reads them; they count from the first call on, and carry no token."""
    client = make(debug=True)
    with client.application.app_context():
        for _ in range(3):
            current_client.ask("?", on_failure="return")
    answer = client.get("/holyroute/metrics")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    calls = [sample.value for sample in samples if sample.name == "holyroute_calls_total"]

    assert answer.content_type.startswith("text/plain; version=")
    assert sum(calls) == 3


def test_metrics_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """501 and what to install; the other pages do without it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "holyroute.monitoring.prometheus", raising=False)
    client = make(debug=True)
    answers = [client.get(f"/holyroute{path}") for path in ("/metrics", "/api")]

    assert [answer.status_code for answer in answers] == [501, 200]
    assert "pip install 'holyroute[prometheus]'" in answers[0].text
