"""How an end without an answer is shown."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests import Request, Response
from urllib3 import HTTPHeaderDict, HTTPResponse

from holyroute.config.credentials import Credential
from holyroute.core import verdicts
from holyroute.core.call import Call, Origin
from holyroute.core.outcome import Outcome
from holyroute.core.target import Provider, Target
from holyroute.core.trace import Trace
from holyroute.dialects.translation import DIALECTS, translate
from holyroute.engine.attempt import Attempt, Patience
from holyroute.exceptions import AllTargetsFailed, ConfigurationError, ContentFiltered, DeadlineExceeded, InvalidRequest
from holyroute.failure import as_requests_would, exception_of, without_key
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.verdicts import Verdict

TARGET = Target(name="m", model="m", provider=Provider(name="p", base_url="https://p.example/v1", api_key_env=("K",)))
CALL = Call(model="m", body={}, deadline=1, connect=1, read=1)
REQUEST = Request("POST", "https://own.example/v1/chat/completions", headers={"Authorization": "Bearer own"}).prepare()
ORIGIN = Origin(request=REQUEST, base_url="https://own.example/v1")
ATTEMPT = Attempt(
    call=CALL,
    target=TARGET,
    started=1_000,
    patience=Patience(1, 1),
    translation=translate(DIALECTS["openai"], TARGET, {}),
    credential=Credential("K", "test-key-b"),
    own=True,
)


def ended(*outcomes: Outcome, skipped: tuple[tuple[str, float | None], ...] = (), late: bool = False) -> Outcome:
    """A call that is over: its outcome, with the trace."""
    trace = Trace(CALL, FakeClock(), lambda _: None)
    for outcome in outcomes:
        trace.record(ATTEMPT, outcome)
    for reason, retry_at in skipped:
        trace.skip(TARGET, reason, retry_at)
    trace.out_of_time = late
    return trace.close(outcomes[-1] if outcomes and outcomes[-1].is_final else trace.best)


def response(status: int, body: bytes = b"{}") -> Response:
    made = Response()
    made.status_code = status
    made._content = body
    return made


# --- exceptions of ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Outcome(verdict=verdicts.BAD_REQUEST, detail="no"), InvalidRequest, "bad request: no"),
        (Outcome(verdict=verdicts.TOO_LARGE), InvalidRequest, "request too large"),
        (
            Outcome(verdict=verdicts.MALFORMED, detail="ValueError"),
            InvalidRequest,
            "request could not be built: ValueError",
        ),
        (Outcome(verdict=verdicts.FILTERED, detail="no"), ContentFiltered, "m: no"),
        (Outcome(verdict=verdicts.CONTENT_POLICY), ContentFiltered, "m: content policy violation"),
        (
            Outcome(verdict=verdicts.UNAVAILABLE, status=503),
            AllTargetsFailed,
            "nobody could answer: service unavailable",
        ),
    ],
)
def test_the_kind_says_whose_fault_it_is(outcome: Outcome, kind: type[Exception], text: str) -> None:
    """The request's, its content's, or everybody's."""
    error = exception_of(ended(outcome))

    assert type(error) is kind
    assert str(error).splitlines()[0] == text
    assert error.trace is not None


@pytest.mark.parametrize(
    ("skipped", "kind"),
    [
        ((("no credential: set K", None),), ConfigurationError),
        ((("no credential: set K", None), ("its circuit is open", 1_010.0)), AllTargetsFailed),
        ((), AllTargetsFailed),
    ],
)
def test_only_missing_keys_are_an_error_of_configuration(
    skipped: tuple[tuple[str, float | None], ...], kind: type[Exception]
) -> None:
    """Where a key is all that is missing, the owner has to act; else it may pass."""
    asked = Outcome(verdict=verdicts.UNAVAILABLE, status=503)

    assert type(exception_of(ended(skipped=skipped))) is kind
    assert type(exception_of(ended(asked, skipped=skipped))) is AllTargetsFailed


def test_too_late_is_a_timeout() -> None:
    """The deadline passed before anybody was asked."""
    error = exception_of(ended(late=True))

    assert type(error) is DeadlineExceeded
    assert isinstance(error, requests.ReadTimeout)


def test_when_to_come_back_is_the_earliest_of_all() -> None:
    """Open circuits, benches and `Retry-After` count; seconds from now, and on the monotonic clock."""
    error = exception_of(ended(skipped=(("its circuit is open", 1_020.0), ("benched: x", 1_007.5))))
    assert isinstance(error, AllTargetsFailed)

    assert (error.retry_at, error.retry_after) == (1_007.5, 7.5)
    assert pickle.loads(pickle.dumps(error)).retry_after == 7.5  # noqa: S301 - our own


# --- what requests would show -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skipped", "status", "wait", "kind"),
    [
        ((("its circuit is open", 1_007.2),), 503, "8", "server_error"),
        ((("benched: rate limited", 1_007.0),), 429, "7", "rate_limit_error"),
        (
            (("benched: rate limited, no hint when", 1_000.1), ("benched: rate limited", 1_009.0)),
            429,
            "1",
            "rate_limit_error",
        ),
        ((("benched: rate limited", 1_007.0), ("its circuit is open", 1_009.0)), 503, "7", "server_error"),
        ((("benched: rate limited", 1_007.0), ("no credential: set K", None)), 429, "7", "rate_limit_error"),
        ((("no credential: set K", None),), 503, "1", "server_error"),
        ((), 503, "1", "server_error"),
    ],
)
def test_nothing_sent_is_a_response(
    skipped: tuple[tuple[str, float | None], ...], status: int, wait: str, kind: str
) -> None:
    """503, or 429 where rate limits are all there is to wait for; whole seconds, at least one; the reasons inside."""
    shown = as_requests_would(ended(skipped=skipped), ORIGIN)
    error = shown.json()["error"]

    assert (shown.status_code, shown.headers["Retry-After"], error["type"]) == (status, wait, kind)
    assert error["code"] == "holyroute_nothing_sent"
    assert all(reason in error["message"] for reason, _ in skipped or (("there is no candidate", None),))
    assert (shown.request, shown.url) == (REQUEST, REQUEST.url)
    assert shown.raw.read() == b""


def test_an_exception_is_raised_as_it_is() -> None:
    """The same object, with the caller's request and a note for each attempt and each target that was passed over."""
    first = requests.ConnectTimeout("slow")
    outcome = ended(Outcome(verdict=verdicts.CONNECT_TIMEOUT, error=first), skipped=(("its circuit is open", 1_010.0),))
    with pytest.raises(requests.ConnectTimeout) as caught:
        as_requests_would(outcome, ORIGIN)

    assert caught.value is first
    assert caught.value.request is REQUEST
    assert first.__notes__ == [
        "holyroute: m at p: connect timeout, 0.000 s after 0.000 s",
        "holyroute: m at p: not asked, its circuit is open",
    ]


def test_a_spent_deadline_is_a_read_timeout() -> None:
    """With the caller's request; but where the script's own target failed in time, that failure tells more."""
    own = requests.exceptions.SSLError("own")
    with pytest.raises(requests.ReadTimeout) as caught:
        as_requests_would(ended(late=True), ORIGIN)
    with pytest.raises(requests.exceptions.SSLError):
        as_requests_would(ended(Outcome(verdict=verdicts.TLS_FAILED, error=own), late=True), ORIGIN)

    assert caught.value.request is REQUEST


# --- keys of ours -----------------------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[], Response]:
    def send() -> Response:
        headers = {"Authorization": "Bearer test-key-b"}
        assert headers
        raise error

    return send


def test_what_is_raised_shows_no_key() -> None:
    """Neither its request nor a variable of a frame; what the caller was handling keeps its own frames."""
    handled = cause = None
    try:
        {}["missing"]
    except KeyError as missing:
        handled = missing
        with pytest.raises(requests.ConnectionError) as caught:
            without_key(ATTEMPT, REQUEST, raising(requests.ConnectionError("x")))
        cause = caught.value
    frames: Any = cause.__traceback__
    variables = []
    while frames is not None:
        variables.append(repr(frames.tb_frame.f_locals.get("headers")))
        frames = frames.tb_next

    assert variables
    assert "test-key-b" not in "".join(variables)
    assert cause.request is not None
    assert cause.request.headers["Authorization"] == "***"
    assert cause.__context__ is handled
    assert handled.__traceback__ is not None


@pytest.mark.parametrize("body", [b'{"error": "test-key-b"}', b"plain"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_comes_back_shows_no_key(body: bytes, *, stream: bool) -> None:
    """The request is masked, and so is a key that the provider repeats; without a key the body is left alone."""
    attempt = replace(ATTEMPT, call=replace(CALL, stream=stream))
    shown = without_key(attempt, REQUEST, lambda: response(401, body))
    keyless = without_key(replace(attempt, credential=None), REQUEST, lambda: response(401, body))

    assert shown.content == body.replace(b"test-key-b", b"***")
    assert keyless.content == body
    assert shown.request.headers["Authorization"] == "***"
    assert REQUEST.headers["Authorization"] == "Bearer own"


def test_a_header_that_repeats_a_key_loses_nothing_else() -> None:
    """It may stand there several times; cookies are made of headers."""
    fields = [("X", "one"), ("X", "test-key-b"), ("X", "three"), ("Set-Cookie", "a=test-key-b"), ("Y", "v")]
    made = response(401)
    made.reason = "not test-key-b"
    made.raw = HTTPResponse(headers=HTTPHeaderDict(fields), preload_content=False)
    made.headers.update(made.raw.headers)
    made.cookies.set("a", "test-key-b")
    made.cookies.set("b", "c")
    shown = without_key(ATTEMPT, REQUEST, lambda: made)

    expected = [("X", "one"), ("X", "***"), ("X", "three"), ("Set-Cookie", "a=***"), ("Y", "v")]
    assert [*shown.raw.headers.items()] == expected
    assert dict(shown.headers) == {"X": "one, ***, three", "Set-Cookie": "a=***", "Y": "v"}
    assert dict(shown.cookies) == {"a": "***", "b": "c"}
    assert shown.reason == "not ***"


@pytest.mark.parametrize(("reason", "header"), [("not test-key-b", "one"), ("Unauthorized", "not test-key-b")])
def test_one_place_that_repeats_a_key_is_enough(reason: str, header: str) -> None:
    """The head is taken apart wherever in it a key stands."""
    made = response(401)
    made.reason, made.headers["X"], made.headers["Y"] = reason, header, "v"
    shown = without_key(ATTEMPT, REQUEST, lambda: made)

    assert "not ***" in {shown.reason, shown.headers["X"]}
    assert "test-key-b" not in f"{shown.reason} {shown.headers}"


@pytest.mark.parametrize("headers", [None, {"X": 5}, {b"X": b"test"}])
def test_headers_that_are_no_text_are_left_alone(headers: Any) -> None:
    """An adapter of the user's own may put anything there."""
    made = response(200)
    made.raw = SimpleNamespace(headers=headers)
    made.headers = headers or {}
    shown = without_key(ATTEMPT, REQUEST, lambda: made)

    assert shown.raw.headers == headers


@pytest.mark.parametrize("secret", ["x", "EMPTY", "ollama"])
def test_what_stands_for_a_key_is_left_in_an_answer(secret: str) -> None:
    """Local servers take anything for a key: an answer that happens to hold it is not damaged."""
    body = f'{{"text": "ollama, x, EMPTY, {secret}"}}'.encode()
    attempt = replace(ATTEMPT, credential=Credential("KEY_B", secret))
    shown = without_key(attempt, REQUEST, lambda: response(200, body))

    assert shown.content == body


def test_a_wrong_path_of_a_certificate_is_a_failure_of_this_target() -> None:
    """Requests says it with a bare OSError, which would end a call that others could answer."""
    with pytest.raises(requests.exceptions.SSLError, match="invalid path"):
        without_key(ATTEMPT, REQUEST, raising(OSError("Could not find a suitable bundle, invalid path: x")))


@pytest.mark.parametrize("verdict", [verdicts.UNAVAILABLE, verdicts.UNAUTHORIZED])
def test_an_error_with_a_response_pickles(verdict: Verdict) -> None:
    """Story, response and cause travel between processes."""
    answer = without_key(ATTEMPT, REQUEST, lambda: response(503, json.dumps({"error": "x"}).encode()))
    error = exception_of(ended(Outcome(verdict=verdict, status=503, response=answer)))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert (type(again), str(again), str(again.trace)) == (type(error), str(error), str(error.trace))
    assert again.response.json() == {"error": "x"}
    assert again.request.headers["Authorization"] == "***"
