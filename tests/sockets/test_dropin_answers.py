"""What a script gets back: the answer of whoever answered, or what requests would have shown."""

from __future__ import annotations

import json
import logging
import pickle
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute import dropin
from holyroute.core.clock import Clock
from holyroute.engine.router import Router
from holyroute.simulator import Simulator, faults
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.schema import Config

MESSAGES = [{"role": "user", "content": "What is the time?"}]
GOOD = f"Answer to: {MESSAGES[0]['content']}"
KEY = {"Authorization": "Bearer test-key-a"}
UNPLUGGED = "unplugged"


def post(session: requests.Session, provider: Simulator, model: str = "ma", **options: Any) -> requests.Response:
    defaults = {"json": {"model": model, "messages": MESSAGES}, "headers": KEY, "timeout": 3}
    return session.post(f"{provider.base_url}/chat/completions", **{**defaults, **options})


def break_it(provider: Simulator, fault: faults.Step) -> None:
    if fault == UNPLUGGED:
        provider.unplug()
    else:
        provider.always("*", fault)


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropin, "_substituted", set())


@pytest.fixture
def session(router: Router) -> Iterator[holyroute.Session]:
    with holyroute.Session(router=router) as session:
        yield session


# --- an answer --------------------------------------------------------------------------------------------------------


def test_a_substitutes_answer_is_a_response_to_the_scripts_request(
    a: Simulator, b: Simulator, session: holyroute.Session
) -> None:
    """Type, request, URL, history and time are as from the script's own provider, the body is the other's."""
    a.always("*", 503)
    request = session.prepare_request(
        requests.Request(
            "POST", f"{a.base_url}/chat/completions", json={"model": "ma", "messages": MESSAGES}, headers=KEY
        )
    )
    response = session.send(request)
    trace = holyroute.trace_of(response)

    assert type(response) is requests.Response
    assert response.request is request
    assert response.url == request.url
    assert response.history == []
    assert (response.status_code, response.reason, response.ok) == (200, "OK", True)
    assert response.json()["model"] == "mb"
    assert response.json()["choices"][0]["message"]["content"] == GOOD
    assert trace is not None
    assert response.elapsed == timedelta(seconds=trace.seconds) > timedelta(0)
    assert [record.target.name for record in trace.attempts] == ["ma", "mb"]
    assert trace.answered_by is not None
    assert trace.answered_by.name == "mb"
    assert b.attempts() == 1


def test_an_answer_can_be_read_in_every_way(a: Simulator, session: holyroute.Session) -> None:
    """It pickles, iterates and decodes as any response."""
    a.always("*", 503)
    response = post(session, a)
    again = pickle.loads(pickle.dumps(response))  # noqa: S301 - our own

    assert again.json() == response.json()
    assert again.request.headers["Authorization"] == KEY["Authorization"]
    assert json.loads(b"".join(response.iter_lines())) == response.json()
    assert b"".join(response.iter_content(7)) == response.content


@pytest.mark.parametrize("step", [faults.chunked(), faults.gzipped(), faults.ok("Grüße"), faults.large(2_000_000)])
def test_the_body_is_not_touched(a: Simulator, b: Simulator, session: holyroute.Session, step: faults.Fault) -> None:
    """Headers and body are those which the substitute sent."""
    a.always("*", 503)
    b.always("*", step)
    routed = post(session, a)
    plain = post(requests.Session(), b, "mb", headers={"Authorization": "Bearer test-key-b"})
    expected = {**plain.json(), "id": routed.json()["id"], "created": routed.json()["created"]}

    assert routed.json() == expected
    assert routed.headers.keys() == plain.headers.keys()


def test_the_first_substitution_of_a_kind_is_said_once(
    a: Simulator, session: holyroute.Session, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning per model asked and model that answered, and none for the script's own."""
    post(session, a)
    a.always("*", 503)
    with caplog.at_level(logging.WARNING, "holyroute"):
        for model in ("ma", "ma", "another", "another", "an\nother"):
            post(session, a, model)
    said = [record.getMessage() for record in caplog.records if "answered in place of" in record.getMessage()]

    assert [text.split(";")[0].split(" in place of ")[1] for text in said] == ["ma", "another", "an?other"]
    assert all(text.startswith("mb at http://127.0.0.1:") for text in said)


@pytest.mark.parametrize(
    ("substitute", "model", "said"),
    [
        ({"provider": "b", "model": "ma"}, "ma", ["same at http://127.0.0.1:PORT/v1 answered in place of ma"]),
        ({"provider": "a", "model": "second"}, "ma", ["same at http://127.0.0.1:PORT/v1 answered in place of ma"]),
        ({"provider": "b", "model": "ma"}, "route:simple_qa/fast", []),
    ],
)
def test_a_substitution_is_another_host_or_another_model(
    a: Simulator,
    configured: Callable[..., Config],
    env: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    *,
    substitute: dict[str, str],
    model: str,
    said: list[str],
) -> None:
    """Either is worth a warning; who asks for a route chose neither."""
    a.always("ma", 503)
    lists: dict[str, Any] = {"failover": {f"127.0.0.1:{a.port}": ["same"]}, "routes": {"simple_qa": {"fast": ["same"]}}}
    router = Router(configured(models={"same": substitute}, **lists), env=env)
    with caplog.at_level(logging.WARNING, "holyroute"):
        response = post(holyroute.Session(router=router), a, model)

    assert response.status_code == 200
    assert [re.sub(r":\d+/", ":PORT/", text.getMessage()).split(";")[0] for text in caplog.records] == said


# --- final answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_the_first_is_final(a: Simulator, b: Simulator, session: holyroute.Session, status: int) -> None:
    """The request's own mistake comes back at once, as requests shows it."""
    a.always("*", status)
    response = post(session, a)

    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert (a.attempts(), b.attempts()) == (1, 0)
    with pytest.raises(
        requests.HTTPError, match=rf"^{status} Client Error: .* for url: {a.base_url}/chat/completions$"
    ):
        response.raise_for_status()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_a_substitute_means_next(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str], status: int
) -> None:
    """A substitute may dislike what the first choice takes: somebody else is asked."""
    a.always("*", 503)
    b.always("mb", status)
    config = configured(failover={f"127.0.0.1:{a.port}": ["mb", "mc"]})
    response = post(holyroute.Session(router=Router(config, env=env)), a)

    assert response.json()["model"] == "mc"
    assert [seen.model for seen in b.seen] == ["mb", "mc"]


# --- exhausted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["503", "429:60", "401", "404", "firewall", "error-in-200", "html", "invalid-json", "empty"]
)
@pytest.mark.parametrize("other", [UNPLUGGED, "503"])
def test_the_scripts_own_answer_is_shown(
    a: Simulator, b: Simulator, session: holyroute.Session, env: dict[str, str], fault: str, other: str
) -> None:
    """When nobody can, the script sees what its own provider said, whatever the substitutes did."""
    env["KEY_A"] = ""
    a.always("*", fault)
    break_it(b, other)
    response = post(session, a)
    plain = post(requests.Session(), a)

    assert (response.status_code, response.content) == (
        plain.status_code,
        plain.content.replace(b"chatcmpl-2", b"chatcmpl-1"),
    )
    assert (response.reason, response.url) == (plain.reason, plain.url)
    assert response.request.headers == plain.request.headers
    assert holyroute.trace_of(response) is not None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (UNPLUGGED, requests.ConnectionError),
        ("reset", requests.ConnectionError),
        ("cut-body", requests.exceptions.ChunkedEncodingError),
        ("silent", requests.ReadTimeout),
    ],
)
def test_the_scripts_own_exception_is_shown(
    a: Simulator, b: Simulator, session: holyroute.Session, fault: str, kind: type[Exception]
) -> None:
    """The class is the one requests raises; the request is the script's; the attempts are notes."""
    break_it(a, fault)
    b.always("*", 503)
    with pytest.raises(requests.RequestException) as plain:
        post(requests.Session(), a, timeout=0.2)
    with pytest.raises(requests.RequestException) as caught:
        post(session, a, timeout=0.2)
    error = caught.value

    assert type(error) is type(plain.value)
    assert isinstance(error, kind)
    assert error.response is None
    assert error.request is not None
    assert error.request.url == f"{a.base_url}/chat/completions"
    assert error.request.headers["Authorization"] == KEY["Authorization"]
    assert [note.split(" at ")[0] for note in error.__notes__][-1] == "holyroute: mb"
    assert len(error.__notes__) == b.attempts() + (0 if fault == UNPLUGGED else len(a.seen) - 1) + (fault == UNPLUGGED)


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [("404", UNPLUGGED, 404), (UNPLUGGED, "503", 503), ("404", "503", 503), (UNPLUGGED, UNPLUGGED, None)],
)
def test_without_the_scripts_own_the_last_answer_or_the_first_exception_is_shown(
    a: Simulator,
    b: Simulator,
    configured: Callable[..., Config],
    env: dict[str, str],
    *,
    first: str,
    second: str,
    shown: int | None,
) -> None:
    """A route's script wrote no target: the last HTTP answer tells most, else the first exception."""
    break_it(a, first)
    break_it(b, second)
    session = holyroute.Session(router=Router(configured(), env=env))
    if shown is None:
        with pytest.raises(requests.ConnectionError, match=f"port={a.port}") as caught:
            post(session, a, "route:simple_qa/fast")

        assert len(caught.value.__notes__) == 2
    else:
        assert post(session, a, "route:simple_qa/fast").status_code == shown


def test_nothing_sent_is_a_503(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """All circuits open: a response in the provider's own shape says so and when to come back."""
    session = holyroute.Session(router=Router(configured(), clock=FakeClock(), env=env))
    for provider in (a, b):
        provider.unplug()
    for _ in range(7):  # five open the circuits, then each target admits the early probe of this second
        with pytest.raises(requests.ConnectionError):
            post(session, a)
    response = post(session, a)

    assert response.status_code == 503
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert response.json()["error"]["type"] == "server_error"
    assert response.json()["error"]["code"] == "holyroute_nothing_sent"
    assert "its circuit is open" in response.json()["error"]["message"]
    assert response.url == response.request.url == f"{a.base_url}/chat/completions"
    assert pickle.loads(pickle.dumps(response)).text == response.text  # noqa: S301 - our own
    assert "".join(response.iter_lines(decode_unicode=True)) == response.text
    with pytest.raises(requests.HTTPError, match=r"^503 Server Error: Service Unavailable for url: http://127.0.0.1"):
        response.raise_for_status()


def test_nothing_sent_for_rate_limits_is_a_429(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Where only limits are in the way, the script is told to wait, and how long."""
    for provider in (a, b):
        provider.always("*", "429:60")
    post(session, a)
    response = post(session, a)

    assert response.status_code == 429
    assert 55 <= int(response.headers["Retry-After"]) <= 60
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert (a.attempts(), b.attempts()) == (1, 1)


def test_a_spent_deadline_is_a_read_timeout(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """No time left before anybody could be asked: what requests calls a timeout."""
    config = configured(time={"dropin_deadline": 0.5})
    router = Router(config, env=env, clock=Forward())
    with pytest.raises(requests.ReadTimeout, match="no answer within") as caught:
        post(holyroute.Session(router=router), a, timeout=0.2)

    assert caught.value.request is not None
    assert a.attempts() == 0


class Forward(Clock):
    """A clock on which a second passes between two looks."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """One second later than the last time."""
        self._now += 1
        return self._now


@pytest.mark.parametrize("fault", ["503", UNPLUGGED])
def test_exhaustion_can_be_an_exception_of_ours(a: Simulator, b: Simulator, router: Router, fault: str) -> None:
    """`raise_on_exhaustion` tells the whole story instead; a final refusal stays a response."""
    session = holyroute.Session(router=router, raise_on_exhaustion=True)
    a.script("ma", 400)

    assert post(session, a).status_code == 400

    break_it(a, fault)
    break_it(b, fault)
    with pytest.raises(holyroute.AllTargetsFailed) as caught:
        post(session, a)

    assert caught.value.trace is not None
    assert [record.target.name for record in caught.value.trace.attempts] == ["ma", "mb"]
