"""What a routed session leaves alone, and what it sends first: both byte for byte what requests sends."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.engine.router import Router
    from holyroute.simulator import Seen

    Calls = Callable[[requests.Session, str], requests.Response]

HEADERS = {"Authorization": "Bearer test-key-a"}
MESSAGES = [{"role": "user", "content": "What is the time? Grüße"}]
CHAT = {"model": "ma", "messages": MESSAGES}
ENCODED = json.dumps(CHAT).encode()


def url_of(provider: Simulator) -> str:
    return f"{provider.base_url}/chat/completions"


def on_the_wire(seen: Seen) -> tuple[str, str, tuple[tuple[str, str], ...], bytes]:
    """Everything a provider can tell two requests apart by."""
    return seen.method, seen.path, seen.headers.pairs, seen.body


def pieces(*parts: bytes) -> Any:
    yield from parts


def prepared(session: requests.Session, url: str) -> requests.Response:
    request = requests.Request("POST", url, json=CHAT, headers=HEADERS)
    return session.send(session.prepare_request(request))


def unprepared_by_a_session(session: requests.Session, url: str) -> requests.Response:
    return session.send(requests.Request("POST", url, json=CHAT).prepare())


NOT_OURS: dict[str, Calls] = {
    "GET": lambda session, url: session.get(url),
    "PUT": lambda session, url: session.put(url, json=CHAT),
    "embeddings": lambda session, url: session.post(url.replace("chat/completions", "embeddings"), json=CHAT),
    "responses": lambda session, url: session.post(url.replace("chat/completions", "responses"), json=CHAT),
    "completions": lambda session, url: session.post(url.replace("chat/completions", "completions"), json=CHAT),
    "below the path": lambda session, url: session.post(f"{url}/chatcmpl-1", json=CHAT),
    "no body": lambda session, url: session.post(url),
    "a form": lambda session, url: session.post(url, data={"model": "ma", "messages": "hello"}),
    "text": lambda session, url: session.post(url, data="hello"),
    "a list": lambda session, url: session.post(url, json=[CHAT]),
    "no UTF-8": lambda session, url: session.post(url, data=b'{"model": "\xff", "messages": []}'),
    "NaN": lambda session, url: session.post(url, data='{"model": "ma", "messages": [], "top_p": NaN}'),
    "nested too deep": lambda session, url: session.post(url, data="[" * 100_000),
    "no model": lambda session, url: session.post(url, json={"messages": MESSAGES}),
    "an empty model": lambda session, url: session.post(url, json={"model": "", "messages": MESSAGES}),
    "a model that is no name": lambda session, url: session.post(url, json={"model": 4, "messages": MESSAGES}),
    "no messages": lambda session, url: session.post(url, json={"model": "ma", "prompt": "hello"}),
    "messages that are no list": lambda session, url: session.post(url, json={"model": "ma", "messages": "hello"}),
    "a file": lambda session, url: session.post(url, data=io.BytesIO(ENCODED)),
    "a generator": lambda session, url: session.post(url, data=pieces(ENCODED)),
}

OURS: dict[str, Calls] = {
    "json=": lambda session, url: session.post(url, json=CHAT, headers=HEADERS),
    "text without Content-Type": lambda session, url: session.post(url, data=ENCODED.decode()),
    "bytes": lambda session, url: session.post(url, data=ENCODED),
    "UTF-16": lambda session, url: session.post(url, data=ENCODED.decode().encode("utf-16")),
    "spaces and an order of its own": lambda session, url: session.post(url, data=json.dumps(CHAT, indent=8)),
    "a name twice": lambda session, url: session.post(url, data='{"model": "x",' + json.dumps(CHAT)[1:]),
    "5 MB": lambda session, url: session.post(url, json={**CHAT, "padding": "x" * 5_000_000}),
    "request()": lambda session, url: session.request("post", url, json=CHAT, headers=HEADERS),
    "prepared": prepared,
    "prepared without a session": unprepared_by_a_session,
    "a query": lambda session, url: session.post(url, json=CHAT, params={"api-version": "1"}),
    "user and password": lambda session, url: session.post(url, json=CHAT, auth=("user", "password")),
    "cookies and headers": lambda session, url: session.post(
        url, json=CHAT, cookies={"a": "1"}, headers={"X-Title": "test", "Accept": "text/event-stream"}
    ),
    "Azure": lambda session, url: session.post(
        url.replace("/v1/", "/openai/deployments/ma/") + "?api-version=1", json={"messages": MESSAGES}
    ),
}


@pytest.fixture
def a() -> Iterator[Simulator]:
    """The script's own provider; it takes any key, or none."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def session(router: Router) -> holyroute.Session:
    return holyroute.Session(router=router)


@pytest.mark.parametrize("call", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_no_chat_completion_goes_out_as_requests_sends_it(
    a: Simulator, b: Simulator, session: holyroute.Session, call: Calls
) -> None:
    """Other methods, paths and bodies are sent and answered as ever, and no substitute is asked."""
    a.always("*", 503)
    expected = call(requests.Session(), url_of(a))
    actual = call(session, url_of(a))
    plain, ours = a.seen

    assert on_the_wire(plain) == on_the_wire(ours)
    assert expected.status_code == actual.status_code
    assert holyroute.trace_of(actual) is None
    assert b.attempts() == 0


@pytest.mark.parametrize("call", OURS.values(), ids=OURS)
def test_the_first_attempt_is_what_the_script_wrote(
    a: Simulator, b: Simulator, session: holyroute.Session, call: Calls
) -> None:
    """URL, headers and body arrive unchanged; then the failover list is asked, with its own model."""
    a.always("*", 503)
    call(requests.Session(), url_of(a))
    response = call(session, url_of(a))
    plain, ours = a.seen

    assert on_the_wire(plain) == on_the_wire(ours)
    assert [seen.json["model"] for seen in b.seen] == ["mb"]
    assert [seen.json["messages"] for seen in b.seen] == [MESSAGES]
    assert response.status_code == 200


def test_a_healthy_provider_is_asked_once(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Where nothing is wrong, one request goes out, and its answer comes back."""
    response = session.post(url_of(a), json=CHAT, headers=HEADERS)

    assert response.json()["choices"][0]["message"]["content"] == f"Answer to: {MESSAGES[0]['content']}"
    assert (a.attempts(), b.attempts()) == (1, 0)


@pytest.mark.parametrize("value", ["1", "true", "anything"])
def test_disabled_means_plain_requests(
    a: Simulator, b: Simulator, session: holyroute.Session, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """`HOLYROUTE_DISABLED` takes effect at the next call, also on sessions that exist."""
    monkeypatch.setenv("HOLYROUTE_DISABLED", value)
    a.always("*", 503)
    response = session.post(url_of(a), json=CHAT, headers=HEADERS)

    assert response.status_code == 503
    assert holyroute.trace_of(response) is None
    assert (a.attempts(), b.attempts()) == (1, 0)


def test_an_unsendable_request_fails_as_in_requests(a: Simulator, session: holyroute.Session) -> None:
    """What requests refuses to build or send, it refuses with the same exception."""
    with pytest.raises(requests.exceptions.InvalidJSONError):
        session.post(url_of(a), json={**CHAT, "top_p": float("nan")})
    with pytest.raises(ValueError, match="can only send PreparedRequests"):
        session.send(requests.Request("POST", url_of(a), json=CHAT))  # type: ignore[arg-type]
    with pytest.raises(requests.exceptions.MissingSchema):
        session.post("v1/chat/completions", json=CHAT)

    broken = requests.Request("POST", url_of(a), json=CHAT).prepare()
    broken.url = "http://[::1/v1/chat/completions"
    with pytest.raises(ValueError, match=r"Invalid IPv6 URL|Failed to parse"):
        session.send(broken)
    assert a.attempts() == 0
