"""The error table: every way an attempt can end, and what follows from it.

Responses are real ones without a socket. Exceptions are raised by urllib3's `Retry` and translated by requests' own
adapter, so that their chains are the ones that an outage produces.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, Retry
from urllib3 import exceptions as of_urllib3

from holyroute.config.schema import BreakerSettings
from holyroute.core import classify, verdicts
from holyroute.core.target import Provider, Target
from holyroute.resilience.guard import Guards

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.outcome import Outcome

    Made = Callable[[], Outcome]

POOL = HTTPConnectionPool("a.example", 80)
CONNECTION: Any = POOL.ConnectionCls("a.example", 80)
TARGET = Target(name="m", model="m", provider=Provider(name="a", base_url="https://a.example/v1"))

# --- how an outcome is made ------------------------------------------------------------------------------------------


def response(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> Made:
    """What an HTTP answer is classified as."""

    def make() -> Outcome:
        made = requests.Response()
        made.status_code = status
        made.headers.update({"Content-Type": "application/json", **(headers or {})})
        made._content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return classify.of_response(made)

    return make


def error(status: int, code: str | int | None = None, message: str = "", **fields: Any) -> Made:
    """An error in OpenAI's shape; fields that are no part of it are headers."""
    headers = {name.replace("_", "-"): str(value) for name, value in fields.items()}
    return response(status, {"error": {"message": message, "type": "error", "code": code}}, headers)


def ok(message: Any, finish_reason: str = "stop", **more: Any) -> Made:
    return response(200, {"choices": [{"message": message, "finish_reason": finish_reason}], **more})


def raised(cause: Exception) -> Made:
    """What an exception before the answer is classified as."""

    def urlopen(**request: Any) -> None:
        Retry(0, read=False).increment(request["method"], request["url"], error=cause, _pool=POOL)

    return lambda: _classified(urlopen)


def raised_in_body(cause: Exception) -> Made:
    """What an exception inside the body is classified as."""

    def stream(*_: Any, **__: Any) -> None:
        raise cause

    def urlopen(**_: Any) -> HTTPResponse:
        raw = HTTPResponse(status=200, preload_content=False)
        raw.stream = stream  # type: ignore[method-assign, assignment]
        return raw

    return lambda: _classified(urlopen)


class _Adapter(HTTPAdapter):
    def __init__(self, urlopen: Callable[..., Any]) -> None:
        super().__init__()
        self._pool = SimpleNamespace(urlopen=urlopen)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool


def _classified(urlopen: Callable[..., Any]) -> Outcome:
    with requests.Session() as session:
        session.mount("http://", _Adapter(urlopen))
        with pytest.raises(requests.RequestException) as caught:
            session.post("http://a.example/v1/chat/completions", json={})
    return classify.of_exception(caught.value)


# --- the table -------------------------------------------------------------------------------------------------------

F, S, I = "failure", "success", "ignored"  # noqa: E741 - the letters of the table
NOTHING = ("nothing", 0.0)
NEVER, SOLE, BLIP, SHORT, ONCE = "never", "sole", "blip", "short wait", "once"
NEXT, FINAL, LARGER, OTHER = "next", "final", "larger context only", "other provider first"


@dataclass(frozen=True)
class Row:
    """One way to end: effect on the breaker, same-target retry, failover, what is benched for how long, queueable."""

    made: Made
    breaker: str
    same: str
    over: str
    bench: tuple[str, float] = NOTHING
    queueable: bool = False


FIVE_MINUTES = 300.0
LONG = {"message": "This model's maximum context length is 8192 tokens."}
PER_DAY = [{"error": {"code": 429, "details": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}}]
PER_MINUTE = [{"error": {"code": 429, "details": [{"quotaId": "PerMinute"}, {"retryDelay": "33s"}]}}]
BAD_KEY = [{"error": {"code": 400, "message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}}]
INVALID_CERTIFICATE = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

TABLE: dict[str, Row] = {
    # --- 1 to 6: nothing came back
    "1 name not resolved": Row(
        raised(of_urllib3.NameResolutionError("a.example", CONNECTION, socket.gaierror(-2, "unknown"))),
        F, SOLE, NEXT, queueable=True,
    ),
    "2 refused": Row(raised(of_urllib3.NewConnectionError(CONNECTION, "refused")), F, SOLE, NEXT, queueable=True),
    "2 by a proxy": Row(
        raised(of_urllib3.ProxyError("proxy", of_urllib3.NewConnectionError(CONNECTION, "refused"))),
        F, SOLE, NEXT, queueable=True,
    ),
    "3 connect timeout": Row(raised(of_urllib3.ConnectTimeoutError(CONNECTION, "")), F, SOLE, NEXT, queueable=True),
    "3 handshake": Row(raised(of_urllib3.SSLError(ssl.SSLError(1, "[SSL] no"))), F, NEVER, NEXT, queueable=True),
    "3b certificate": Row(raised(of_urllib3.SSLError(INVALID_CERTIFICATE)), I, NEVER, NEXT, ("target", FIVE_MINUTES)),
    "4 read timeout": Row(raised(of_urllib3.ReadTimeoutError(POOL, "/", "")), F, NEVER, NEXT, queueable=True),
    "4 in the body": Row(raised_in_body(of_urllib3.ReadTimeoutError(POOL, "/", "")), F, NEVER, NEXT, queueable=True),
    "5b reset": Row(
        raised(of_urllib3.ProtocolError("Connection aborted.", ConnectionResetError(104, ""))),
        F, BLIP, NEXT, queueable=True,
    ),
    "5b closed": Row(
        raised(of_urllib3.ProtocolError("Connection aborted.", http.client.RemoteDisconnected(""))),
        F, BLIP, NEXT, queueable=True,
    ),
    "5b no HTTP": Row(
        raised(of_urllib3.ProtocolError("Connection aborted.", http.client.BadStatusLine(""))),
        F, BLIP, NEXT, queueable=True,
    ),
    "5b two lengths": Row(raised(of_urllib3.InvalidHeader("Content-Length")), F, BLIP, NEXT, queueable=True),
    "6 cut": Row(
        raised_in_body(of_urllib3.ProtocolError("Connection broken", of_urllib3.IncompleteRead(1, 2))),
        F, BLIP, NEXT, queueable=True,
    ),
    "6 reset in the body": Row(
        raised_in_body(of_urllib3.ProtocolError("Connection broken", ConnectionResetError(104, ""))),
        F, BLIP, NEXT, queueable=True,
    ),
    "6 no gzip": Row(raised_in_body(of_urllib3.DecodeError("gzip")), F, BLIP, NEXT, queueable=True),
    # --- 7 to 15: the request was refused
    "7 400": Row(error(400), I, NEVER, FINAL),
    "7 400 of a gateway": Row(response(400, {"detail": "messages: expected a list"}), I, NEVER, FINAL),
    "7b 400 spend limit": Row(
        error(400, message="You have reached your API usage limits."), I, NEVER, NEXT, ("account", FIVE_MINUTES)
    ),
    "7b 400 no credit": Row(
        error(400, message="Your credit balance is too low"), I, NEVER, NEXT, ("account", FIVE_MINUTES)
    ),
    "8 401": Row(error(401), I, NEVER, NEXT, ("credential", FIVE_MINUTES)),
    "8 400 of Gemini": Row(response(400, BAD_KEY), I, NEVER, NEXT, ("credential", FIVE_MINUTES)),
    "9 402": Row(error(402), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "9 402 for a while": Row(error(402, retry_after=30), I, NEVER, NEXT, ("account", 30.0), queueable=True),
    "9 402 until now": Row(error(402, retry_after=0), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "10 403": Row(error(403), I, NEVER, NEXT, ("target", FIVE_MINUTES)),
    "10 403 firewall": Row(
        response(403, b"<html>", {"Content-Type": "text/html; charset=utf-8"}), I, NEVER, NEXT, ("target", 60.0)
    ),
    "10 403 moderation": Row(error(403, message="Your input was flagged by moderation"), I, NEVER, FINAL),
    "11 404": Row(error(404, "model_not_found"), I, NEVER, NEXT, ("target", FIVE_MINUTES)),
    "11 400 model not found": Row(error(400, "model_not_found"), I, NEVER, NEXT, ("target", FIVE_MINUTES)),
    "12 408": Row(error(408), F, BLIP, NEXT, queueable=True),
    "13 409": Row(error(409), I, ONCE, NEXT, queueable=True),
    "14 413": Row(error(413), I, NEVER, FINAL),
    "15 422": Row(error(422), I, NEVER, FINAL),
    # --- 16 and 17: busy, or the money is out
    "16a 429 for seconds": Row(error(429, retry_after=7), I, SHORT, NEXT, ("target", 7.0), queueable=True),
    "16a 429 for milliseconds": Row(error(429, retry_after_ms=700), I, SHORT, NEXT, ("target", 0.7), queueable=True),
    "16a 429 of Gemini": Row(response(429, PER_MINUTE), I, SHORT, NEXT, ("target", 33.0), queueable=True),
    "16b 429": Row(error(429), I, SOLE, NEXT, ("target", 1.5), queueable=True),
    "16b 429 for nothing": Row(error(429, retry_after=0), I, SOLE, NEXT, ("target", 1.5), queueable=True),
    "16b 429 for rubbish": Row(error(429, retry_after="soon"), I, SOLE, NEXT, ("target", 1.5), queueable=True),
    "16b 429 for too long": Row(error(429, retry_after=86_401), I, SOLE, NEXT, ("target", 1.5), queueable=True),
    "17 insufficient_quota": Row(error(429, "insufficient_quota"), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "17 with a hint": Row(error(429, "insufficient_quota", retry_after=1), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "17 spend limit": Row(error(429, "enforced_spend_limit_reached"), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "17 hard limit": Row(error(429, "billing_hard_limit_reached"), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "17 per day": Row(response(429, PER_DAY), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "17 limit of 0": Row(error(429, message="Quota exceeded, limit: 0"), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    # --- 18 to 22: the provider is broken
    "18 500": Row(error(500), F, BLIP, NEXT, queueable=True),
    "18 520": Row(response(520, b"<html>"), F, BLIP, NEXT, queueable=True),
    "19 502": Row(error(502), F, BLIP, NEXT, queueable=True),
    "20 503": Row(error(503), F, SOLE, NEXT, queueable=True),
    "20 503 for seconds": Row(error(503, retry_after=30), F, SOLE, NEXT, ("target", 30.0), queueable=True),
    "20 503 for an hour": Row(error(503, retry_after=3_600), F, SOLE, NEXT, ("target", FIVE_MINUTES), queueable=True),
    "21 504": Row(error(504), F, NEVER, NEXT, queueable=True),
    "22 529": Row(error(529), F, SOLE, OTHER, ("target", 1.0), queueable=True),
    "22 529 for seconds": Row(error(529, retry_after=9), F, SOLE, OTHER, ("target", 9.0), queueable=True),
    # --- 23 to 27: 200
    "23 error in 200": Row(error(200, "something new"), F, BLIP, NEXT, queueable=True),
    "23 503 in 200": Row(error(200, 503), F, SOLE, NEXT, queueable=True),
    "23 429 in 200": Row(error(200, "rate_limit_exceeded"), I, SOLE, NEXT, ("target", 1.5), queueable=True),
    "23 400 in 200": Row(error(200, "invalid_request_error"), I, NEVER, FINAL),
    "23 quota in 200": Row(error(200, "insufficient_quota"), I, NEVER, NEXT, ("account", FIVE_MINUTES)),
    "24 no body": Row(response(200), F, BLIP, NEXT, queueable=True),
    "24 half a body": Row(response(200, b'{"choices": [{"mess'), F, BLIP, NEXT, queueable=True),
    "24 HTML": Row(response(200, b"<html>", {"Content-Type": "text/html"}), F, BLIP, NEXT, queueable=True),
    "24 a list": Row(response(200, []), F, BLIP, NEXT, queueable=True),
    "24 no choices": Row(response(200, {"choices": []}), F, BLIP, NEXT, queueable=True),
    "24 choices of nothing": Row(response(200, {"choices": [None]}), F, BLIP, NEXT, queueable=True),
    "24 nested without end": Row(response(200, b"[" * 200_000), F, BLIP, NEXT, queueable=True),
    "25 empty": Row(ok({"content": ""}), I, NEVER, ONCE),
    "25 blank": Row(ok({"content": " \n"}), I, NEVER, ONCE),
    "25 no message": Row(ok(None), I, NEVER, ONCE),
    "25b all spent on thinking": Row(ok({"content": ""}, "length"), S, NEVER, FINAL),
    "26 content filter": Row(ok({"content": ""}, "content_filter"), S, NEVER, FINAL),
    "26 refusal": Row(ok({"content": None, "refusal": "I cannot."}), S, NEVER, FINAL),
    "26 content policy": Row(error(400, "content_policy_violation"), I, NEVER, FINAL),
    "26 Azure": Row(error(400, "content_filter"), I, NEVER, FINAL),
    "27 context length": Row(error(400, "context_length_exceeded"), I, NEVER, LARGER),
    "27 in words": Row(response(400, {"error": LONG}), I, NEVER, LARGER),
    "27 413": Row(error(413, message="prompt is too long: 250000 tokens"), I, NEVER, LARGER),
    # --- an answer
    "an answer": Row(ok({"content": "hello"}), S, NEVER, FINAL),
    "a null error": Row(ok({"content": "hello"}, error=None), S, NEVER, FINAL),
    "a tool call": Row(ok({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"), S, NEVER, FINAL),
    "cut at max_tokens": Row(ok({"content": "hel"}, "length"), S, NEVER, FINAL),
    # --- not in any list
    "a redirect": Row(response(307), I, NEVER, NEXT),
    "418": Row(response(418), I, NEVER, NEXT),
    "204": Row(response(204), I, NEVER, NEXT),
}  # fmt: skip
rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


@rows
def test_a_row(row: Row) -> None:
    """An ending has the effect, the retries, the failover of its row, and may be queued if the row says so."""
    outcome = row.made()
    verdict = outcome.verdict

    assert (row.breaker, row.same, row.over) == (verdict.breaker, verdict.retry, verdict.failover)
    assert row.queueable == outcome.queueable
    assert (row.over == FINAL) == outcome.is_final


@rows
def test_a_bench(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ending benches what its row says, for as long as its row says."""
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    published: list[Any] = []
    guards = Guards(BreakerSettings(), published.append)

    guards.bench(TARGET, None, row.made(), sent=0.0, now=10.0)
    bench = guards.benched(TARGET, None, 10.0)

    scope, seconds = row.bench
    assert [scope] * (seconds > 0) == [event.scope for event in published]
    assert seconds == pytest.approx(bench.seconds if bench else 0.0)
    assert guards.benched(TARGET, None, 10.0 + seconds) is None


def test_a_bench_doubles_for_the_same_reason_only() -> None:
    """An empty account is benched for five minutes, however short the pause was that it asked for before."""
    guards = Guards(BreakerSettings(), lambda _: None)
    guards.bench(TARGET, None, error(402, retry_after=5)(), sent=0.0, now=0.0)

    guards.bench(TARGET, None, error(429, "insufficient_quota")(), sent=6.0, now=6.0)
    first = guards.benched(TARGET, None, 6.0)
    guards.bench(TARGET, None, error(429, "insufficient_quota")(), sent=307.0, now=307.0)
    second = guards.benched(TARGET, None, 307.0)

    assert first is not None
    assert second is not None
    assert (first.seconds, second.seconds) == (300.0, 600.0)


def test_no_row_is_left_out() -> None:
    """Every verdict that an answer or an exception can have stands in the table above."""
    reached = {row.made().verdict.name for row in TABLE.values()}
    by_others = {
        verdicts.TOO_MANY_REDIRECTS,  # requests' own sessions follow redirects
        verdicts.MALFORMED,
        verdicts.CANCELLED,
        verdicts.LEFT,
        verdicts.NOT_SENT,
        verdicts.OUT_OF_TIME,
        verdicts.CUT_SHORT,
    }

    assert {row.name for row in verdicts.TABLE.values()} - reached == {verdict.name for verdict in by_others}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.TooManyRedirects(), verdicts.TOO_MANY_REDIRECTS),
        (requests.exceptions.InvalidURL("no host"), verdicts.MALFORMED),
        (requests.exceptions.InvalidHeader("a line break"), verdicts.MALFORMED),
        (requests.exceptions.RetryError(), verdicts.UNAVAILABLE),
        (requests.ConnectionError("somebody's adapter"), verdicts.REFUSED),
        (requests.Timeout(), verdicts.READ_TIMEOUT),
    ],
)
def test_exceptions_of_requests(error: requests.RequestException, expected: verdicts.Verdict) -> None:
    """Exceptions without anything inside, as mocks and custom adapters raise them, are told by their class."""
    assert expected is classify.of_exception(error).verdict


@rows
def test_a_substitute_speaks(row: Row) -> None:
    """From a substitute a refusal only means "next"; an answer, a filtered one too, is final whoever gives it."""
    outcome = row.made().from_substitute()

    assert outcome.is_final == (row.over == FINAL and row.breaker == S)
