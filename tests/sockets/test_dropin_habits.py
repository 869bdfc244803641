"""The habits of requests that a routed session keeps: retries, timeouts, hooks, authentication, streams, adapters."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from urllib3.util.retry import Retry
from urllib3.util.timeout import Timeout

import holyroute
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError
from holyroute.simulator import Fault, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.schema import Config

    Configured = Callable[..., Config]

MESSAGES = [{"role": "user", "content": "What is the time?"}]
KEY = {"Authorization": "Bearer test-key-a"}


def post(session: requests.Session, provider: Simulator, model: str = "ma", **options: Any) -> requests.Response:
    defaults = {"json": {"model": model, "messages": MESSAGES}, "headers": KEY, "timeout": 3}
    return session.post(f"{provider.base_url}/chat/completions", **{**defaults, **options})


@pytest.fixture
def session(router: Router) -> Iterator[holyroute.Session]:
    """Routes from A to B."""
    with holyroute.Session(router=router) as session:
        yield session


@pytest.fixture
def lone(configured: Configured) -> Iterator[holyroute.Session]:
    """Has nobody to route to: no failover list, no key of its own."""
    with holyroute.Session(router=Router(configured(failover={"mc": ["mb"]}), env={})) as session:
        yield session


# --- one candidate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["ok", "503", "429:1", "401", "400", "html", "empty", "307:/v1/elsewhere"])
def test_with_one_candidate_requests_is_only_observed(a: Simulator, lone: holyroute.Session, fault: str) -> None:
    """One request goes out and its answer comes back as it is, however bad; the trace and the ledger know of it."""
    a.always("*", fault)
    plain = post(requests.Session(), a)
    hits = a.attempts()
    response = post(lone, a)
    trace = holyroute.trace_of(response)

    assert a.attempts() == 2 * hits
    assert (response.status_code, response.text.replace("chatcmpl-2", "chatcmpl-1")) == (plain.status_code, plain.text)
    assert len(response.history) == len(plain.history)
    assert trace is not None
    assert len(trace.attempts) == 1
    assert [entry.attempts for entry in lone.router.ledger.entries()] == [1]


def test_one_candidate_is_never_refused(a: Simulator, lone: holyroute.Session) -> None:
    """However often it failed, the next call reaches it: there is no breaker between a script and its only target."""
    a.always("*", 503)

    assert [post(lone, a).status_code for _ in range(12)] == [503] * 12
    assert a.attempts() == 12


@pytest.mark.parametrize(("fault", "hits"), [("reset", 1), ("cut-body", 1), ("silent", 1)])
def test_one_candidates_exception_is_the_same_object(
    a: Simulator, lone: holyroute.Session, fault: str, hits: int
) -> None:
    """What requests raises passes through as it is: no note, no other request on it."""
    raised: list[Exception] = []

    class Keeping(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            try:
                response = super().send(request, *args, **options)
                _ = response.content
            except requests.RequestException as error:
                raised.append(error)
                raise
            return response

    a.always("*", fault)
    lone.mount("http://", Keeping())
    with pytest.raises(requests.RequestException) as caught:
        post(lone, a, timeout=0.2)

    assert raised == [caught.value]
    assert getattr(caught.value, "__notes__", []) == []
    assert a.attempts() == hits


def test_one_candidates_stream_is_untouched(a: Simulator, lone: holyroute.Session) -> None:
    """The body of a stream is the script's to read, good or bad."""
    a.script("*", "503", "ok")
    failed, streamed = (post(lone, a, stream=True, json=streaming()) for _ in range(2))

    assert failed.raw.read() != b""
    assert list(streamed.iter_lines())[-2] == b"data: [DONE]"


def streaming() -> dict[str, Any]:
    return {"model": "ma", "messages": MESSAGES, "stream": True}


def retrying() -> HTTPAdapter:
    return HTTPAdapter(
        max_retries=Retry(3, backoff_factor=0, status_forcelist=[503], allowed_methods=None, raise_on_status=False)
    )


@pytest.mark.parametrize("direct", [True, False])
def test_a_scripts_own_retries_work_where_nobody_else_can_answer(
    a: Simulator, lone: holyroute.Session, session: holyroute.Session, *, direct: bool
) -> None:
    """One candidate, by configuration or in a `direct()` block: the mounted Retry does what it says."""
    a.always("*", 503)
    for door in (lone, session):
        door.mount("http://", retrying())
    if direct:
        with holyroute.direct():
            response = post(session, a)
    else:
        response = post(lone, a)

    assert response.status_code == 503
    assert a.attempts() == 4


def test_unrouted_retries_are_a_parameter(a: Simulator, router: Router) -> None:
    """`retries=` acts on what is not routed; the standard ones repeat a POST three times."""
    a.always("*", 503)
    retries = holyroute.standard_retry().new(backoff_factor=0)
    session = holyroute.Session(router=router, retries=retries)
    with pytest.raises(requests.exceptions.RetryError), holyroute.direct():
        post(session, a)

    assert a.attempts() == 4


# --- adapters ---------------------------------------------------------------------------------------------------------


def test_a_stock_adapters_retries_do_not_multiply(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """In a routed call a mounted Retry would repeat what failover already does: each target is asked once."""
    a.always("*", 503)
    session.mount("http://", retrying())
    response = post(session, a)

    assert response.status_code == 200
    assert (a.attempts(), b.attempts()) == (1, 1)


def test_a_custom_adapter_is_used_as_it_is(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """A subclass may mean something by its `send`: every attempt goes through it."""
    sent = []

    class Own(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            sent.append(request.url)
            return super().send(request, *args, **options)

    a.always("*", 503)
    session.mount("http://127.0.0.1", Own(max_retries=retrying().max_retries))
    response = post(session, a)

    assert response.status_code == 200
    assert sent == [f"{a.base_url}/chat/completions", f"{b.base_url}/chat/completions"]
    assert a.attempts() == 4


@pytest.mark.parametrize("stream", [False, True])
def test_connections_are_reused_after_failures(
    a: Simulator, b: Simulator, session: holyroute.Session, *, stream: bool
) -> None:
    """A failed attempt is read to its end, also of a stream: the next one finds its connection again."""
    a.always("*", "409")
    for _ in range(5):
        post(session, a, stream=stream).close()

    assert [seen.connection for seen in a.seen] == [1] * 10
    assert b.attempts() == 5


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, (10, 300)),
        (7, (7, 7)),
        (0.5, (0.5, 0.5)),
        ((2, 8), (2, 8)),
        ((2, None), (2, 300)),
        ((None, 8), (10, 8)),
        (Timeout(connect=2, read=8), (2, 8)),
        (Timeout(total=8), (8, 8)),
        (Timeout(connect=2, total=8), (2, 8)),
        (Timeout(), (10, 300)),
    ],
    ids=str,
)
def test_a_timeout_keeps_its_meaning(
    a: Simulator, b: Simulator, session: holyroute.Session, timeout: Any, expected: Any
) -> None:
    """Each attempt gets the script's connect and read timeout; where it set none, 10 s and 300 s."""
    timeouts = []

    class Noting(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            timeouts.append(options["timeout"])
            return super().send(request, *args, **options)

    a.always("*", 503)
    session.mount("http://", Noting())
    post(session, a, timeout=timeout)

    assert timeouts == [pytest.approx(expected, abs=0.1)] * 2
    assert b.attempts() == 1


@pytest.mark.parametrize("timeout", ["soon", 0, -1, True, (1, 2, 3), [1, 2], (1, "x")], ids=str)
def test_a_wrong_timeout_is_requests_own_error(a: Simulator, session: holyroute.Session, timeout: Any) -> None:
    """What requests refuses, it refuses in its own words."""
    with pytest.raises(ValueError, match="imeout") as plain:
        post(requests.Session(), a, timeout=timeout)
    with pytest.raises(ValueError, match="imeout") as caught:
        post(session, a, timeout=timeout)

    assert (type(caught.value), str(caught.value)) == (type(plain.value), str(plain.value))
    assert a.attempts() == 0


# --- hooks and authentication -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["call", "session"])
def test_hooks_see_the_final_answer_once(a: Simulator, session: holyroute.Session, where: str) -> None:
    """A hook is not shown what failed on the way, and what it returns is the answer."""
    a.always("*", 503)
    seen = []

    def hook(response: requests.Response, **options: Any) -> requests.Response:
        seen.append((response.status_code, response.json()["model"], sorted(options)))
        response.headers["X-Hook"] = "was here"
        return response

    options: dict[str, Any] = {"hooks": {"response": hook}} if where == "call" else {}
    if where == "session":
        session.hooks["response"].append(hook)
    response = post(session, a, **options)

    assert seen == [(200, "mb", ["cert", "proxies", "stream", "timeout", "verify"])]
    assert response.headers["X-Hook"] == "was here"


@pytest.mark.parametrize("listed", [True, False])
def test_hooks_of_a_prepared_request_get_what_requests_gives(
    a: Simulator, session: holyroute.Session, *, listed: bool
) -> None:
    """`send()` fills in the session's settings, also for hooks; a hook may be a function instead of a list."""
    url = f"{a.base_url}/chat/completions"
    request = session.prepare_request(requests.Request("POST", url, json={"model": "ma", "messages": MESSAGES}))
    told: list[Any] = []

    def hook(response: requests.Response, **options: Any) -> None:
        told.append((response.status_code, sorted(options)))

    request.hooks = {"response": [hook] if listed else hook}  # type: ignore[dict-item]
    a.script("*", "ok", "503")
    a.api_keys = None
    for one in (requests.Session(), session):
        one.send(request)

    assert told == [(200, ["cert", "proxies", "stream", "verify"])] * 2


def test_there_may_be_no_hooks_at_all(a: Simulator, session: holyroute.Session) -> None:
    """As in requests, neither an empty table nor None is an error."""
    a.always("*", 503)
    request = requests.Request("POST", f"{a.base_url}/chat/completions", json={"model": "ma", "messages": []}).prepare()
    for hooks in ({}, None):
        request.hooks = hooks  # type: ignore[assignment]

        assert session.send(request).status_code == 200


def test_a_hook_that_raises_does_not_spoil_the_failover(a: Simulator, session: holyroute.Session) -> None:
    """`raise_for_status` as a hook meets the final answer only; there its exception is the caller's."""

    def check(response: requests.Response, **_: Any) -> None:
        response.raise_for_status()

    session.hooks["response"].append(check)
    a.script("ma", 503)

    assert post(session, a).status_code == 200

    a.script("ma", 400)
    with pytest.raises(requests.HTTPError, match="400 Client Error"):
        post(session, a)


def digest_guarded() -> Fault:
    """Asks for digest authentication, then fails: the second request must come from the hook of the first attempt."""
    challenge = 'Digest realm="test", nonce="abc", qop="auth"'

    def play(exchange: Any) -> None:
        if exchange.request.headers.get("Authorization", "").startswith("Digest"):
            faults.status(503).play(exchange)
        else:
            faults.status(401, headers=[("WWW-Authenticate", challenge)]).play(exchange)

    return Fault("digest", play)


def test_authentication_belongs_to_the_attempt(b: Simulator, configured: Configured, env: dict[str, str]) -> None:
    """Digest answers a challenge within the attempt, and what it knows never reaches the substitute."""
    with Simulator() as guarded:
        guarded.always("*", digest_guarded())
        config = configured(failover={f"127.0.0.1:{guarded.port}": ["mb"]})
        session = holyroute.Session(router=Router(config, env=env))
        response = post(session, guarded, headers={}, auth=HTTPDigestAuth("user", "planted"))

        assert response.status_code == 200
        assert [(seen.headers.get("Authorization") or "").split(" ")[0] for seen in guarded.seen] == ["", "Digest"]
        assert [seen.headers["Authorization"] for seen in b.seen] == ["Bearer test-key-b"]


def test_a_signing_callable_is_asked_once(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """An auth object signs the script's own request, and nothing else."""
    signed = []

    class Signing(AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            signed.append(request.url)
            request.headers["X-Signature"] = "planted"
            return request

    a.always("*", 503)
    session.auth = Signing()
    post(session, a)

    assert signed == [f"{a.base_url}/chat/completions"]
    assert "X-Signature" in a.seen[0].headers
    assert "X-Signature" not in b.seen[0].headers


# --- streams and redirects --------------------------------------------------------------------------------------------


def test_a_stream_fails_over_until_its_headers(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """An error status moves a stream on; once a 200 is there, its body is the script's, and breaks as in requests."""
    a.always("*", 503)
    with post(session, a, stream=True, json=streaming()) as response:
        lines = list(response.iter_lines())

    assert lines[-2] == b"data: [DONE]"

    b.always("*", faults.cut_stream(2))
    with (
        post(session, a, stream=True, json=streaming()) as response,
        pytest.raises(requests.exceptions.ChunkedEncodingError),
    ):
        list(response.iter_lines())
    assert b.attempts() == 2


@pytest.mark.parametrize("code", [307, 308])
def test_a_redirect_is_followed_within_the_attempt(
    a: Simulator, b: Simulator, session: holyroute.Session, code: int
) -> None:
    """The hops of the script's own request are requests' business: history, hooks and final request as ever."""
    steps = [f"{code}:/v1/chat/completions?hop", "ok"]
    a.script("*", *steps, *steps)
    shown: list[list[Any]] = [[], []]
    for session_used, statuses in zip((requests.Session(), session), shown, strict=True):
        hook = {"response": lambda answer, statuses=statuses, **_: statuses.append(answer.status_code)}
        response = post(session_used, a, hooks=hook)
        statuses += [response.url, response.request.url, [hop.status_code for hop in response.history]]

    assert shown[1] == shown[0]
    assert shown[1][:2] == [code, 200]
    assert b.attempts() == 0


@pytest.mark.parametrize("steps", [["307:/v1/chat/completions?hop"] * 9, ["307:/v1/chat/completions?hop", "silent"]])
def test_an_exception_shows_the_hop_it_came_from(
    a: Simulator, b: Simulator, session: holyroute.Session, steps: list[str]
) -> None:
    """Too many redirects, or silence after one: request and response are those of the hop, as in requests."""
    b.unplug()
    shown = []
    for session_used in (requests.Session(), session):
        a.script("*", *steps)
        session_used.max_redirects = 5
        with pytest.raises(requests.RequestException) as caught:
            post(session_used, a, timeout=0.3)
        request, response = caught.value.request, caught.value.response
        assert request is not None
        shown.append((type(caught.value), request.url, response is not None and len(response.history)))
        a.script("*")

    assert shown[1] == shown[0]
    assert str(shown[1][1]).endswith("?hop")


def test_a_hop_is_not_routed_once_more(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """A redirect to chat completions that fails there is one failed attempt."""
    a.script("*", "307:/v1/chat/completions", "503")
    response = post(session, a)
    trace = holyroute.trace_of(response)
    assert trace is not None

    assert [record.status for record in trace.attempts] == [503, 200]
    assert (response.json()["model"], response.history) == ("mb", [])
    assert (a.attempts(), b.attempts()) == (2, 1)


def test_a_substitutes_redirect_is_not_followed(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Who may answer stands in the owner's list, not in an answer."""
    a.always("*", 503)
    with Simulator() as elsewhere:
        b.always("*", f"307:{elsewhere.base_url}/chat/completions")
        response = post(session, a)

        assert response.status_code == 503
        assert elsewhere.attempts() == 0


# --- sessions as values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [lambda session: pickle.loads(pickle.dumps(session)), copy.deepcopy, copy.copy])  # noqa: S301
def test_a_session_can_be_copied(
    a: Simulator, b: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch, again: Callable[[Any], Any]
) -> None:
    """Pickle, deepcopy and copy keep the settings and the routing, and a router's configuration stands for it."""
    for name, value in (("KEY_A", "test-key-a"), ("KEY_B", "test-key-b")):
        monkeypatch.setenv(name, value)
    session = holyroute.Session(router=router, task="simple_qa", priority="fast", raise_on_exhaustion=True)
    session.headers["X-Title"] = "mine"
    copied = again(session)
    a.always("*", 503)
    response = post(copied, a)

    assert type(copied) is holyroute.Session
    assert copied.routing_options == session.routing_options
    assert copied.headers == session.headers
    assert response.json()["model"] == "mb"
    assert a.seen[0].headers["X-Title"] == "mine"
    assert b.attempts() == 1


def test_a_file_session_pickles_its_file_name(tmp_path: Any) -> None:
    """A session over a file finds it again, in this process with the same router."""
    path = tmp_path / "holyroute.toml"
    path.touch()
    session = holyroute.Session(str(path))
    again = pickle.loads(pickle.dumps(session))  # noqa: S301 - our own

    assert again.routing_options.config == str(path)
    assert again.router is session.router
    assert holyroute.Session(path).router is session.router


def test_a_router_and_a_configuration_exclude_each_other(router: Router, configured: Configured) -> None:
    """Two sources of settings would leave one of them without effect."""
    with pytest.raises(ConfigurationError, match="expected an engine or a configuration, got both"):
        holyroute.Session(configured(), router=router)


class Earlier(requests.Session):
    """A session class of somebody else."""

    sent = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Count."""
        type(self).sent += 1
        return super().send(request, **options)


class Mixed(holyroute.RoutingMixin, Earlier):
    """Theirs, routed."""


def test_the_mixin_routes_any_session_class(
    a: Simulator, b: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class below sees every attempt."""
    monkeypatch.setattr(Mixed, "sent", 0)
    a.always("*", 503)
    session = Mixed()
    session._router = router
    response = post(session, a)

    assert response.json()["model"] == "mb"
    assert (Mixed.sent, a.attempts(), b.attempts()) == (2, 1, 1)


def test_one_session_serves_fifty_threads(
    a: Simulator,
    b: Simulator,
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everybody gets the answer to the own question, over one router, and no pool overflows."""
    monkeypatch.setenv("KEY_B", "test-key-b")
    a.always("*", "429:60")
    session = holyroute.Session(configured())
    barrier = threading.Barrier(50)

    def ask(number: int) -> str:
        barrier.wait()
        body = {"model": "ma", "messages": [{"role": "user", "content": f"question {number}"}]}
        text: str = post(session, a, json=body, timeout=10).json()["choices"][0]["message"]["content"]
        return text

    with caplog.at_level(logging.WARNING, "urllib3"), ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(100)))

    assert answers == [f"Answer to: question {number}" for number in range(100)]
    assert sum(entry.attempts for entry in session.router.ledger.entries()) == a.attempts() + b.attempts()
    assert "pool is full" not in caplog.text
