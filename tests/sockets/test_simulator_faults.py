"""What a plain client sees of each fault that is no stream."""

from __future__ import annotations

import email.utils
import http.client
import json
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests

from holyroute.simulator import Simulator, faults
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "gpt-4.1"
PROMPT = "What is the time?"
GOOD = f"Answer to: {PROMPT}"


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def body(model: str = MODEL) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}]}


def ask(session: requests.Session, provider: Simulator, model: str = MODEL, **options: Any) -> requests.Response:
    return session.post(f"{provider.base_url}/chat/completions", json=body(model), **{"timeout": 5, **options})


def wire(provider: Simulator, model: str) -> bytes:
    """Every byte that comes back, until the simulator closes; OSError when it resets."""
    data = json.dumps(body(model)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=5) as sock:
        sock.sendall(head.encode() + data)
        while piece := sock.recv(65_536):
            received += piece
    return received


def choice(response: requests.Response) -> dict[str, Any]:
    first: dict[str, Any] = response.json()["choices"][0]
    return first


@pytest.mark.parametrize(
    ("name", "status", "kind", "code"),
    [
        ("400", 400, "invalid_request_error", None),
        ("context-length", 400, "invalid_request_error", "context_length_exceeded"),
        ("content-policy", 400, "invalid_request_error", "content_policy_violation"),
        ("401", 401, "invalid_request_error", "invalid_api_key"),
        ("402", 402, "insufficient_quota", "insufficient_balance"),
        ("403", 403, "permission_error", "permission_denied"),
        ("404", 404, "invalid_request_error", "model_not_found"),
        ("model-not-found", 404, "invalid_request_error", "model_not_found"),
        ("408", 408, "timeout_error", "request_timeout"),
        ("409", 409, "conflict_error", "conflict"),
        ("413", 413, "invalid_request_error", "request_too_large"),
        ("422", 422, "invalid_request_error", "unprocessable_entity"),
        ("429", 429, "requests", "rate_limit_exceeded"),
        ("insufficient-quota", 429, "insufficient_quota", "insufficient_quota"),
        ("500", 500, "server_error", None),
        ("502", 502, "server_error", "bad_gateway"),
        ("503", 503, "server_error", "service_unavailable"),
        ("504", 504, "server_error", "gateway_timeout"),
        ("529", 529, "overloaded_error", "overloaded"),
        ("418", 418, "api_error", None),
        ("599", 599, "server_error", None),
    ],
)
def test_error_statuses(
    provider: Simulator, session: requests.Session, name: str, status: int, kind: str, code: str | None
) -> None:
    """Each comes with an error body in OpenAI's shape, without Retry-After, and is not billed."""
    response = ask(session, provider, f"sim:{name}")
    error = response.json()["error"]

    assert (response.status_code, error["type"], error["code"]) == (status, kind, code)
    assert error["message"]
    assert "Retry-After" not in response.headers
    assert [(status, False)] == [(seen.status, seen.billed) for seen in provider.seen]


def test_error_can_say_anything(provider: Simulator, session: requests.Session) -> None:
    """Type, code, message and parameter of an error are free, and so are headers."""
    error = faults.Error(type="a", code="b", message="c", param="d")
    provider.script(MODEL, faults.status(400, error, headers=[("x-should-retry", "false")]))
    response = ask(session, provider)

    assert response.json() == {"error": {"type": "a", "code": "b", "message": "c", "param": "d"}}
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("value", ["2", "300", "1.5", "0", "-1", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT"])
@pytest.mark.parametrize("status", ["429", "503"])
def test_retry_after_is_sent_as_given(provider: Simulator, session: requests.Session, status: str, value: str) -> None:
    """Numbers, fractions, dates and rubbish all reach the client."""
    response = ask(session, provider, f"sim:{status}:{value}")

    assert (int(status), value) == (response.status_code, response.headers["Retry-After"])


def test_retry_after_date() -> None:
    """The date lies ahead of the simulator's clock."""
    clock = FakeClock(wall=1_700_000_000.0)
    with Simulator(clock=clock) as provider, requests.Session() as session:
        response = ask(session, provider, "sim:retry-after-date:30")

    assert response.status_code == 429
    assert email.utils.parsedate_to_datetime(response.headers["Retry-After"]).timestamp() == 1_700_000_030


def test_retry_after_ms(provider: Simulator, session: requests.Session) -> None:
    """Some providers send milliseconds, alone."""
    response = ask(session, provider, "sim:retry-after-ms:1500")

    assert (response.status_code, response.headers["retry-after-ms"]) == (429, "1500")
    assert "Retry-After" not in response.headers


def test_firewall(provider: Simulator, session: requests.Session) -> None:
    """403 as an HTML page."""
    response = ask(session, provider, "sim:firewall")

    assert response.status_code == 403
    assert response.headers["Content-Type"].startswith("text/html")
    assert response.text.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(provider: Simulator, session: requests.Session, status: int) -> None:
    """The client is sent to the address which was given."""
    address = "http://127.0.0.1:9/v1/chat/completions"
    response = ask(session, provider, f"sim:{status}:{address}", allow_redirects=False)

    assert (status, address) == (response.status_code, response.headers["Location"])


def test_redirect_to_another_simulator(provider: Simulator, session: requests.Session) -> None:
    """A 307 which is followed takes the request with it."""
    with Simulator() as other:
        provider.script(MODEL, faults.redirect(f"{other.base_url}/chat/completions"))
        response = ask(session, provider)

        assert choice(response)["message"]["content"] == GOOD
        assert (provider.attempts(), other.attempts()) == (1, 1)


def test_no_prefill(provider: Simulator, session: requests.Session) -> None:
    """Only a conversation that ends with the assistant's words is refused."""
    prefilled = {
        "model": "sim:no-prefill",
        "messages": [*body()["messages"], {"role": "assistant", "content": "It is"}],
    }
    refused = session.post(f"{provider.base_url}/chat/completions", json=prefilled, timeout=5)

    assert refused.status_code == 400
    assert "assistant" in refused.json()["error"]["message"]
    assert ask(session, provider, "sim:no-prefill").status_code == 200


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("reset", requests.exceptions.ConnectionError, "Connection reset by peer"),
        ("no-reply", requests.exceptions.ConnectionError, "Remote end closed connection without response"),
        ("cut-body", requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
        ("reset-body", requests.exceptions.ChunkedEncodingError, "Connection reset by peer"),
        ("bad-chunk", requests.exceptions.ChunkedEncodingError, "InvalidChunkLength"),
    ],
)
def test_broken_connections(
    provider: Simulator, session: requests.Session, name: str, error: type[Exception], message: str
) -> None:
    """The client sees the error of its library, the provider one unbilled failure; the next call works."""
    with pytest.raises(error, match=message):
        ask(session, provider, f"sim:{name}")

    assert [seen.billed for seen in provider.seen] == [False]
    assert provider.statistics()[f"sim:{name}"].failures == 1
    assert ask(session, provider).status_code == 200


def test_reset_before_headers_sends_nothing(provider: Simulator) -> None:
    """Not a byte comes before the reset."""
    with pytest.raises(ConnectionResetError):
        wire(provider, "sim:reset")

    assert [seen.status for seen in provider.seen] == [None]


def test_cut_headers(provider: Simulator, session: requests.Session) -> None:
    """A plain client takes headers that end early for an empty 200: the trap which a router must see."""
    received = wire(provider, "sim:cut-headers")
    response = ask(session, provider, "sim:cut-headers")

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in received
    assert (response.status_code, response.content) == (200, b"")


def test_cut_unframed(provider: Simulator, session: requests.Session) -> None:
    """Without a length, a body cut in the middle is a complete 200; only its JSON tells."""
    response = ask(session, provider, "sim:cut-unframed")

    assert response.status_code == 200
    assert {"Content-Length", "Transfer-Encoding"} & response.headers.keys() == set()
    with pytest.raises(requests.exceptions.JSONDecodeError):
        response.json()


def test_cut_gzip(provider: Simulator, session: requests.Session) -> None:
    """A gzip body cut in the middle passes as a 200 with half its text, for urllib3 does not check the trailer."""
    response = ask(session, provider, "sim:cut-gzip")

    assert (response.status_code, response.headers["Content-Encoding"]) == (200, "gzip")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        response.json()


def test_silent(provider: Simulator, session: requests.Session) -> None:
    """The request is read and never answered; the client's own timeout ends it."""
    with pytest.raises(requests.exceptions.ReadTimeout):
        ask(session, provider, "sim:silent", timeout=0.2)

    assert [seen.status for seen in provider.seen] == [None]


def test_silent_for_a_while(provider: Simulator, session: requests.Session) -> None:
    """With a time given, the connection closes after it, without an answer."""
    with pytest.raises(requests.exceptions.ConnectionError, match="without response"):
        ask(session, provider, "sim:silent:0.05")


def test_drip_escapes_a_read_timeout(provider: Simulator, session: requests.Session) -> None:
    """Byte by byte, an answer takes many times the read timeout and never meets it."""
    response = ask(session, provider, "sim:drip:0.002", timeout=0.4)
    seen = provider.seen[0]

    assert choice(response)["message"]["content"] == GOOD
    assert seen.finished is not None
    assert seen.finished - seen.arrived >= 0.002 * (len(response.content) - 1) > 0.4


def test_dripping_stops_when_the_client_leaves(provider: Simulator, session: requests.Session) -> None:
    """An answer nobody waits for is a failure, and not billed."""
    with closing(ask(session, provider, "sim:drip:0.01", stream=True)) as response:
        assert response.status_code == 200
    provider.close()

    assert provider.statistics()["sim:drip:0.01"].failures == 1
    assert provider.statistics()["sim:drip:0.01"].bill == 0


def test_drip_headers(provider: Simulator) -> None:
    """The head comes byte by byte as well; in between stands each byte of a good answer."""
    clock = FakeClock()
    with Simulator(clock=clock) as slow, requests.Session() as session:
        response = ask(session, slow, "sim:drip-headers:0.5")

    assert choice(response)["message"]["content"] == GOOD
    assert set(clock.slept) == {0.5}
    assert len(clock.slept) > len(response.content) + 50
    assert provider.attempts() == 0


def test_late(provider: Simulator, session: requests.Session) -> None:
    """A good answer, or any other step, after the time which was asked for."""
    provider.script(MODEL, faults.late(0.05), faults.late(0.05, faults.status(503)))
    codes = [ask(session, provider).status_code for _ in range(2)]

    assert codes == [200, 503]
    assert all(seen.finished is not None and seen.finished - seen.arrived >= 0.05 for seen in provider.seen)


def test_closes_with_announcement(provider: Simulator, session: requests.Session) -> None:
    """A client which is told does not reuse the connection."""
    response = ask(session, provider, "sim:close-after")
    ask(session, provider)

    assert response.headers["Connection"] == "close"
    assert [seen.connection for seen in provider.seen] == [1, 2]


def test_closes_without_announcement(provider: Simulator) -> None:
    """A client which looks no more than http.client does meets a dead connection."""
    with closing(http.client.HTTPConnection("127.0.0.1", provider.port, timeout=5)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body("sim:close-after-unannounced")))
        response = connection.getresponse()
        response.read()

        assert response.status == 200
        assert response.getheader("Connection") is None
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            again(connection)
    assert provider.attempts() == 1


def test_closes_on_reuse(provider: Simulator) -> None:
    """The idle connection looks alive until the next request is sent on it; that request never arrived."""
    with closing(http.client.HTTPConnection("127.0.0.1", provider.port, timeout=5)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body("sim:close-on-reuse")))

        assert connection.getresponse().read()
        assert select.select([connection.sock], [], [], 0.05) == ([], [], [])
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            again(connection)
    assert provider.attempts() == 1


def again(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/v1/chat/completions", json.dumps(body()))
    connection.getresponse()


@pytest.mark.parametrize(
    ("name", "expected", "finish_reason"),
    [
        ("ok", GOOD, "stop"),
        ("ok:Good evening", "Good evening", "stop"),
        ("gzip", GOOD, "stop"),
        ("chunked", GOOD, "stop"),
        ("cookies", GOOD, "stop"),
        ("no-usage", GOOD, "stop"),
        ("absurd-usage", GOOD, "stop"),
        ("empty", "", "stop"),
        ("empty-length", "", "length"),
        ("truncated", "Answer to: What ", "length"),
        ("content-filter", "", "content_filter"),
        ("refusal", None, "stop"),
        ("tool-call", None, "tool_calls"),
        ("no-finish-reason", GOOD, None),
    ],
)
def test_completions(
    provider: Simulator, session: requests.Session, name: str, expected: str | None, finish_reason: str | None
) -> None:
    """All of these are whole completions with status 200, and billed."""
    response = ask(session, provider, f"sim:{name}")
    first = choice(response)

    assert response.status_code == 200
    assert (expected, finish_reason) == (first["message"]["content"], first["finish_reason"])
    assert [seen.billed for seen in provider.seen] == [True]


def test_encodings(provider: Simulator, session: requests.Session) -> None:
    """Gzip and chunks are really on the wire."""
    packed, pieces = ask(session, provider, "sim:gzip"), ask(session, provider, "sim:chunked")

    assert packed.headers["Content-Encoding"] == "gzip"
    assert pieces.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in pieces.headers


def test_cookies(provider: Simulator, session: requests.Session) -> None:
    """They end up in the client's jar."""
    provider.script(MODEL, faults.cookies("a=1; Path=/", "b=2; Path=/"))
    ask(session, provider)

    assert session.cookies.get_dict() == {"a": "1", "b": "2"}


def test_extra_headers(provider: Simulator, session: requests.Session) -> None:
    """A good answer can carry any header, such as what is left of a rate limit."""
    provider.script(MODEL, faults.ok(headers=[("x-ratelimit-remaining-requests", "0")]))

    assert ask(session, provider).headers["x-ratelimit-remaining-requests"] == "0"


def test_large(provider: Simulator, session: requests.Session) -> None:
    """The content has as many bytes as asked for, and tokens to match."""
    response = ask(session, provider, "sim:large:300000")

    assert len(choice(response)["message"]["content"].encode()) == 300_000
    assert response.json()["usage"]["completion_tokens"] == len(choice(response)["message"]["content"].split())


def test_refusal_and_tool_call(provider: Simulator, session: requests.Session) -> None:
    """Without content, the message says what came instead."""
    provider.script(MODEL, faults.refusal("No."), faults.tool_call("add", {"a": 1}))
    refusal, call = (choice(ask(session, provider))["message"] for _ in range(2))
    function = call["tool_calls"][0]["function"]

    assert refusal["refusal"] == "No."
    assert (function["name"], json.loads(function["arguments"])) == ("add", {"a": 1})


def test_usage(provider: Simulator, session: requests.Session) -> None:
    """Missing or absurd usage in the answer does not change the true tokens."""
    missing, absurd = (ask(session, provider, f"sim:{name}").json() for name in ("no-usage", "absurd-usage"))

    assert "usage" not in missing
    assert absurd["usage"]["prompt_tokens"] < 0
    assert [(seen.prompt_tokens, seen.completion_tokens) for seen in provider.seen] == [(4, 6), (4, 6)]


def test_no_choices(provider: Simulator, session: requests.Session) -> None:
    """An empty list where the answer should be."""
    assert ask(session, provider, "sim:no-choices").json()["choices"] == []


def test_error_in_200(provider: Simulator, session: requests.Session) -> None:
    """The status says 200, the body another one."""
    response = ask(session, provider, "sim:error-in-200:429")

    assert response.status_code == 200
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert [seen.billed for seen in provider.seen] == [False]


def test_invalid_json_and_html(provider: Simulator, session: requests.Session) -> None:
    """A 200 whose body is no JSON, with and without saying so."""
    broken, page = (ask(session, provider, f"sim:{name}") for name in ("invalid-json", "html"))

    assert (broken.status_code, broken.headers["Content-Type"]) == (200, "application/json")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for response in (broken, page):
        with pytest.raises(requests.exceptions.JSONDecodeError):
            response.json()


def test_once_counts_across_threads(provider: Simulator) -> None:
    """However many clients ask at the same moment, exactly as many meet the fault as were asked for."""
    provider.always(MODEL, faults.once(faults.status(503), times=3))

    def client(_: int) -> int:
        with requests.Session() as session:
            return ask(session, provider).status_code

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(client, range(32)))

    assert codes.count(503) == 3
    assert codes.count(200) == 29
