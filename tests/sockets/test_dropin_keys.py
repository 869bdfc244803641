"""A key that configuration names is sent to its provider, and told to nobody else: not even when it is sent back."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Exchange, Fault, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from holyroute.config.schema import Config

PLANTED = "planted-key-123"
MESSAGES = [{"role": "user", "content": "What is the time?"}]
OWN_KEY = "key-of-the-script"


def echo(status: int) -> Fault:
    """An error that repeats the key it was sent, as OpenAI's 401 did for years."""

    def play(exchange: Exchange) -> None:
        message = f"Incorrect API key provided: {exchange.request.headers['Authorization']}"
        exchange.reply(status, b'{"error": {"message": "' + message.encode() + b'", "code": "invalid_api_key"}}')

    return Fault(f"echo {status}", play)


TROUBLE: list[faults.Step] = [
    *map(echo, (200, 400, 401, 403, 429, 500, 503)),
    "unplugged",
    "reset",
    "cut-body",
    "silent",
    "ok",
]


@pytest.fixture
def events() -> list[object]:
    return []


@pytest.fixture
def router(configured: Callable[..., Config], events: list[object]) -> Router:
    """A's and B's key are both planted."""
    config = configured(
        time={"connect": 0.2, "read": 0.2}, retry={"backoff_base": 0, "throttle_min": 0, "throttle_max": 0}
    )
    return Router(config, env={"KEY_A": f"{PLANTED}-a", "KEY_B": f"{PLANTED}-b"}, observers=(events.append,))


@pytest.fixture(params=TROUBLE, ids=lambda step: getattr(step, "name", step))
def trouble(request: pytest.FixtureRequest, a: Simulator, b: Simulator) -> faults.Step:
    """What goes wrong, at both providers."""
    step: faults.Step = request.param
    for provider in (a, b):
        provider.api_keys = None
        if step == "unplugged":
            provider.unplug()
        else:
            provider.always("*", step)
    return step


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def told_by(error: BaseException | None) -> Iterator[str]:
    """All that error reporters look at: texts, notes, requests, responses, and the variables of every frame."""
    while error is not None:
        yield from ("".join(traceback.format_exception(error)), repr(vars(error)))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "holyroute" in frame.f_code.co_filename or "site-packages" in frame.f_code.co_filename:
                yield from (f"{name} = {value!r}" for name, value in frame.f_locals.items() if name != "env")
        for part in (getattr(error, "request", None), getattr(error, "response", None)):
            yield from told_by_http(part)
        error = error.__cause__ or error.__context__


def told_by_http(part: Any) -> Iterator[str]:
    if part is not None:
        yield f"{part.url} {part.headers} {getattr(part, 'text', '')}"
        yield from told_by_http(getattr(part, "request", None))


def told_by_trace(trace: holyroute.Trace | None) -> Iterator[str]:
    assert trace is not None
    yield from (str(trace), repr(trace), repr(vars(trace)), pickled(trace), repr(trace.attempts))


def pickled(value: object) -> str:
    return pickle.dumps(value).decode("latin-1")


def assert_untold(*texts: str) -> None:
    assert [text for text in texts if PLANTED in text] == []


def test_a_client_tells_no_key(
    trouble: faults.Step, router: Router, events: list[object], logged: pytest.LogCaptureFixture
) -> None:
    """No log record, trace, exception, completion, event or pickle of them holds a key."""
    client = holyroute.Client(router=router)
    returned = client.ask("hello", models=["ma", "mb"], on_failure="return")
    texts = [*told_by_trace(returned.trace), repr(returned), repr(returned.raw), pickled(returned)]
    try:
        client.ask("hello", models=["mb"])
    except holyroute.HolyRouteError as error:
        texts += [*told_by(error), pickled(error), *told_by_trace(error.trace)]
    texts += [repr(events), repr(router.ledger.entries()), repr(client), logged.text]

    assert returned.success is (trouble == "ok")
    assert_untold(*texts)


@pytest.mark.parametrize("model", ["ma", "route:simple_qa/fast"])
@pytest.mark.parametrize("raising", [False, True])
def test_a_session_tells_no_key_but_the_scripts_own(
    a: Simulator,
    trouble: faults.Step,
    router: Router,
    events: list[object],
    logged: pytest.LogCaptureFixture,
    *,
    model: str,
    raising: bool,
) -> None:
    """What a script gets back shows its own request; keys of ours are in no response, exception, log or pickle."""
    del trouble
    session = holyroute.Session(router=router, raise_on_exhaustion=raising)
    texts: list[str] = []
    for _ in range(2):
        try:
            response = post(session, a, model)
        except Exception as error:  # noqa: BLE001 - whatever it is
            texts += [*told_by(error), pickled(error)]
        else:
            texts += [*told_by_http(response), pickled(response), *told_by_trace(holyroute.trace_of(response))]
            assert OWN_KEY in response.request.headers["Authorization"]
    texts += [repr(events), logged.text, pickled(session), repr(session.routing_options)]

    assert OWN_KEY not in logged.text + repr(events)
    assert_untold(*texts)


def test_an_observed_call_tells_no_key(
    a: Simulator, configured: Callable[..., Config], logged: pytest.LogCaptureFixture
) -> None:
    """Where nobody else can answer, the trace masks what a provider repeats; the response is unchanged."""
    events: list[object] = []
    router = Router(configured(failover={"mc": ["mb"]}), env={}, observers=(events.append,))
    a.api_keys = None
    a.always("*", echo(401))
    response = post(holyroute.Session(router=router), a, "another")
    trace = holyroute.trace_of(response)

    assert OWN_KEY in response.text
    assert OWN_KEY not in logged.text + repr(events) + str(trace)


def test_a_configuration_tells_no_key(router: Router) -> None:
    """Settings name variables; they never hold what is in them."""
    assert_untold(
        repr(router.config), pickled(router.config), repr(router.keyring), repr(vars(router.keyring)["_known"])
    )


def test_user_and_password_of_a_url_are_not_shown(b: Simulator, configured: Callable[..., Config]) -> None:
    """A script may write its password into the URL: the trace names the host without it."""
    with Simulator(path="/other/v1") as own:
        own.always("*", 503)
        router = Router(configured(failover={f"127.0.0.1:{own.port}": ["mb"]}), env={"KEY_B": "test-key-b"})
        url = f"http://user:{PLANTED}@127.0.0.1:{own.port}/other/v1/chat/completions?key={PLANTED}"
        response = holyroute.Session(router=router).post(url, json={"model": "ma", "messages": MESSAGES})

    assert b.attempts() == 1
    assert PLANTED not in str([seen.headers for seen in b.seen])
    assert_untold(*told_by_trace(holyroute.trace_of(response)))


def post(session: requests.Session, provider: Simulator, model: str) -> requests.Response:
    return session.post(
        f"{provider.base_url}/chat/completions",
        json={"model": model, "messages": MESSAGES},
        headers={"Authorization": f"Bearer {OWN_KEY}"},
        timeout=0.2,
    )
