"""`responses` intercepts every attempt of every door, as it does for requests."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import requests
import responses
from responses import matchers

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.engine.router import Router

    Ask = Callable[[str], str]

MESSAGES = [{"role": "user", "content": "hello"}]
BODY = {"model": "ma", "messages": MESSAGES}
KEY = {"Authorization": "Bearer test-key-a"}


@pytest.fixture
def mocked() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=True) as mock:
        yield mock


def text_of(response: requests.Response) -> str:
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


@pytest.fixture(params=["Session", "functions", "Client", "mixin", "install"])
def ask(request: pytest.FixtureRequest, router: Router, configured_by_file: None) -> Iterator[Ask]:
    """Every door: takes A's URL, returns what was answered."""
    del configured_by_file
    with holyroute.installed(router=router) if request.param == "install" else nullcontext():
        yield door(request.param, router)


def door(name: str, router: Router) -> Ask:
    if name == "install":
        return lambda url: text_of(requests.post(url, json=BODY, headers=KEY, timeout=5))
    if name == "functions":
        return lambda url: text_of(holyroute.post(url, json=BODY, headers=KEY))
    if name == "Client":
        client = holyroute.Client(router=router)
        return lambda _: client.chat(MESSAGES, model="ma").content
    session = holyroute.Session(router=router)
    if name == "mixin":
        session = type("Theirs", (holyroute.RoutingMixin, requests.Session), {})()
    return lambda url: text_of(session.post(url, json=BODY, headers=KEY))


def sent(mock: responses.RequestsMock) -> list[tuple[str | None, str, str]]:
    """URL, model and key of each attempt."""
    return [
        (call.request.url, json.loads(call.request.body or b"")["model"], call.request.headers["Authorization"])
        for call in mock.calls
    ]


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 503},
        {"status": 429, "headers": {"Retry-After": "60"}},
        {"body": requests.ConnectionError("mocked")},
        {"body": requests.ReadTimeout("mocked")},
        {"json": {"error": {"message": "broken", "code": 500}}},
        {"body": "<html></html>"},
    ],
    ids=["503", "429", "ConnectionError", "ReadTimeout", "error in 200", "html"],
)
def test_each_attempt_is_intercepted(
    mocked: responses.RequestsMock, urls: tuple[str, str], answer: dict[str, Any], ask: Ask, trouble: dict[str, Any]
) -> None:
    """A's fault and B's answer are both the mock's; each attempt shows its own URL, model and key."""
    a, b = urls
    mocked.post(a, **trouble)
    mocked.post(b, json=answer, match=[matchers.header_matcher({"Authorization": "Bearer test-key-b"})])

    assert ask(a) == "hello from B"
    assert sent(mocked)[0] == (a, "ma", "Bearer test-key-a")
    assert sent(mocked)[-1] == (b, "mb", "Bearer test-key-b")


def test_a_mocked_stream_fails_over(mocked: responses.RequestsMock, urls: tuple[str, str], router: Router) -> None:
    """Until the headers, as on real sockets."""
    a, b = urls
    mocked.post(a, status=503)
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": "stop"}]})
    mocked.post(b, body=f"data: {chunk}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
    response = holyroute.Session(router=router).post(a, json={**BODY, "stream": True}, stream=True)

    assert list(filter(None, response.iter_lines())) == [f"data: {chunk}".encode(), b"data: [DONE]"]


def test_what_nobody_registered_is_a_connection_error(
    mocked: responses.RequestsMock, urls: tuple[str, str], answer: dict[str, Any], ask: Ask
) -> None:
    """A URL that is not registered fails as ever, which is a reason to ask the next."""
    a, b = urls
    mocked.post(b, json=answer)

    assert ask(a) == "hello from B"


def test_an_exhausted_call_shows_the_mocked_exception(
    mocked: responses.RequestsMock, urls: tuple[str, str], router: Router
) -> None:
    """The exception that the test made for A is the one it catches."""
    a, b = urls
    error = requests.exceptions.SSLError("mocked")
    mocked.post(a, body=error)
    mocked.post(b, status=503)
    with pytest.raises(requests.exceptions.SSLError) as caught:
        holyroute.Session(router=router).post(a, json=BODY)

    assert caught.value is error


def test_callbacks_and_passing_calls_work(
    mocked: responses.RequestsMock, urls: tuple[str, str], answer: dict[str, Any], router: Router
) -> None:
    """A callback sees the request that is sent; what is not routed is mocked as well."""
    a, _ = urls
    mocked.add_callback(responses.POST, a, lambda request: (200, {"X-Body": request.body.decode()}, json.dumps(answer)))
    mocked.get(f"{a}/elsewhere", body="plain")
    session = holyroute.Session(router=router)
    response = session.post(a, json=BODY)

    assert json.loads(response.headers["X-Body"]) == BODY
    assert session.get(f"{a}/elsewhere").text == "plain"
    assert holyroute.get(f"{a}/elsewhere").text == "plain"


@pytest.mark.parametrize(("verb", "status"), [("head", 302), ("get", 200)])
def test_only_head_follows_no_redirect(mocked: responses.RequestsMock, verb: str, status: int) -> None:
    """The one default in which the functions of requests differ."""
    mocked.assert_all_requests_are_fired = False
    mocked.add(verb.upper(), "https://gateway.example-a.test/", status=302, headers={"Location": "/there"})
    mocked.add(verb.upper(), "https://gateway.example-a.test/there")
    expected, actual = (
        getattr(module, verb)("https://gateway.example-a.test/").status_code for module in (requests, holyroute)
    )

    assert expected == actual == status
