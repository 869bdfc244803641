"""Where prompts may go, and what may travel with them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from requests.adapters import HTTPAdapter

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Names, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

    from holyroute.config.schema import Config

    Configured = Callable[..., Config]

PUBLIC = "gateway.example-b.test"
MESSAGES = [{"role": "user", "content": "a prompt that its owner wants to keep"}]
CALLERS_KEY = {"Authorization": "Bearer test-key-a"}


def post(session: requests.Session, provider: Simulator, model: str = "ma", **options: Any) -> requests.Response:
    defaults = {"json": {"model": model, "messages": MESSAGES}, "headers": CALLERS_KEY, "timeout": 3}
    return session.post(f"{provider.base_url}/chat/completions", **{**defaults, **options})


def host_of(provider: Simulator) -> str:
    return f"127.0.0.1:{provider.port}"


def without_lists(configured: Configured, **settings: Any) -> dict[str, Any]:
    """The configuration of two providers, with other lists than the fixture's."""
    known = configured()
    return {
        "providers": {
            one.name: {"base_url": one.base_url, "api_key_env": list(one.api_key_env), "allow_http": True}
            for one in known.providers.values()
            if one.name in "ab"
        },
        "models": {
            one.name: {"provider": one.provider.name} for one in known.models.values() if one.name in {"ma", "mb"}
        },
        **settings,
    }


def session_with(tables: dict[str, Any], env: dict[str, str], **options: Any) -> holyroute.Session:
    router = Router(holyroute.load(env={}, cwd_file=False, **tables), env=env)
    return holyroute.Session(router=router, **options)


# --- consent ----------------------------------------------------------------------------------------------------------

OWN_ROUTE = {"routes": {"mine": {"normal": ["mb"]}}}


@pytest.mark.parametrize(
    ("lists", "options", "model", "asked"),
    [
        ({}, {}, "ma", 0),
        ({}, {"task": "simple_qa"}, "ma", 0),
        ({}, {}, "route:simple_qa/fast", 0),
        (OWN_ROUTE, {}, "ma", 0),
        (OWN_ROUTE, {"task": "mine"}, "ma", 1),
        (OWN_ROUTE, {}, "route:mine", 1),
        ({"failover": {"ma": ["mb"]}}, {}, "ma", 1),
        ({"failover": {"ma": ["mb"]}}, {}, "another", 0),
        ({"failover": {"a": ["mb"]}}, {}, "another", 1),
    ],
)
def test_another_host_needs_an_entry_of_the_owner(
    a: Simulator,
    b: Simulator,
    configured: Configured,
    env: dict[str, str],
    *,
    lists: Any,
    options: Any,
    model: str,
    asked: int,
) -> None:
    """Knowing a provider and its key is not enough: a list must lead from the call to it, and be the owner's own."""
    a.always("*", 503)
    response = post(session_with(without_lists(configured, **lists), env, **options), a, model)

    assert b.attempts() == asked
    assert response.status_code == (200 if asked else 503)


def test_the_owners_entry_may_name_the_host(
    a: Simulator, b: Simulator, configured: Configured, env: dict[str, str]
) -> None:
    """An entry for the host holds for every model there, also one that is configured nowhere."""
    a.always("*", 503)
    session = session_with(without_lists(configured, failover={host_of(a): ["mb"]}), env)
    answers = [post(session, a, model).status_code for model in ("ma", "another")]

    assert answers == [200, 200]
    assert b.attempts() == 2


def test_a_target_without_a_credential_is_not_planned(
    a: Simulator, b: Simulator, configured: Configured, env: dict[str, str]
) -> None:
    """Without its key a substitute is never asked: the call is then as direct as without a list."""
    a.always("*", 503)
    del env["KEY_B"]
    response = post(holyroute.Session(router=Router(configured(), env=env)), a)

    assert response.status_code == 503
    assert (a.attempts(), b.attempts()) == (1, 0)


@pytest.mark.parametrize(
    ("lists", "options", "asked"),
    [
        ({"failover": {"ma": ["mb"]}}, {}, 0),
        (OWN_ROUTE, {"task": "mine"}, 0),
        ({"failover": {"a": ["mb"]}}, {}, 1),
        ({"failover": {"HOST": ["mb"]}}, {}, 1),
    ],
)
def test_a_prompt_leaves_a_private_host_only_by_name(
    a: Simulator, b: Simulator, configured: Configured, env: dict[str, str], *, lists: Any, options: Any, asked: int
) -> None:
    """From this machine to a public host: only an entry that names the host it starts from allows it."""
    a.always("*", 503)
    tables = without_lists(configured, **json.loads(json.dumps(lists).replace("HOST", host_of(a))))
    tables["providers"]["b"]["base_url"] = f"http://{PUBLIC}:{b.port}/v1"
    with Names(PUBLIC):
        response = post(session_with(tables, env, **options), a)

    assert b.attempts() == asked
    assert response.status_code == (200 if asked else 503)


def test_a_refused_route_says_why(a: Simulator, configured: Configured, env: dict[str, str]) -> None:
    """A virtual model that leads nowhere is answered with the reason, and nothing is sent."""
    response = post(session_with(without_lists(configured), env), a, "route:simple_qa/fast")

    assert response.status_code == 503
    assert "only by an entry of your own" in response.json()["error"]["message"]
    assert a.attempts() == 0


GUARDED = """
import json, sys
met = []
def note(event, arguments):
    if event == "socket.connect":
        met.append(list(arguments[1]))
    elif event == "socket.getaddrinfo":
        met.append(list(arguments[:2]))
sys.addaudithook(note)
import holyroute as requests
for url in sys.argv[1:]:
    for model in ("sim:503", "sim:401", "sim:429:1", "sim:html", "sim:reset", "sim:500", "gpt-4.1", "route:general"):
        for body in ({"model": model, "messages": []}, {"model": model, "messages": [], "stream": True}):
            try:
                requests.post(url, json=body, timeout=2)
            except requests.RequestException:
                pass
print(json.dumps(met))
"""


def test_without_configuration_only_the_scripts_host_is_met(tmp_path: Path) -> None:
    """Whatever its provider does, no other name is resolved and no other socket connected, though a key is at hand."""
    with Simulator() as provider, Simulator() as closed:
        closed.unplug()
        urls = [f"{one.base_url}/chat/completions" for one in (provider, closed)]
        done = subprocess.run(
            [sys.executable, "-c", GUARDED, *urls],
            env={"HOME": str(tmp_path), "HOLYSHEEP_API_KEY": "test-key-h"},
            cwd=tmp_path,
            capture_output=True,
            check=True,
            timeout=15,
        )
        met = {tuple(address) for address in json.loads(done.stdout)}

    assert met == {("127.0.0.1", provider.port), ("127.0.0.1", closed.port)}
    assert provider.attempts() == 14


# --- what travels -----------------------------------------------------------------------------------------------------


class Noting(HTTPAdapter):
    """An adapter that keeps the settings of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **settings: Any) -> requests.Response:
        """Note, and send."""
        self.settings.append(settings)
        return super().send(request, *args, **settings)


@pytest.fixture
def session(configured: Configured, env: dict[str, str]) -> Iterator[holyroute.Session]:
    with holyroute.Session(router=Router(configured(), env=env)) as session:
        yield session


def test_nothing_personal_travels_to_another_host(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Of the script's headers only those go along that name nobody; keys and cookies, wherever they stand, stay."""
    a.always("*", 503)
    session.headers.update({"X-Session": "planted", "User-Agent": "script/1.0"})
    session.cookies.set("planted", "jar")
    session.params = {"planted": "query"}
    headers = dict.fromkeys(
        ("api-key", "x-api-key", "HTTP-Referer", "X-Title", "OpenAI-Organization", "Proxy-Authorization", "X-Custom"),
        "planted",
    )
    post(
        session,
        a,
        headers={**CALLERS_KEY, **headers, "Accept": "application/x-test"},
        cookies={"planted": "keyword"},
        auth=("planted", "password"),
    )
    (seen,) = b.seen

    assert dict(seen.headers) == {
        "host": host_of(b),
        "accept-encoding": "identity",
        "accept": "application/x-test",
        "user-agent": "script/1.0",
        "content-length": str(len(seen.body)),
        "content-type": "application/json",
        "authorization": "Bearer test-key-b",
    }
    assert seen.path == "/v1/chat/completions"
    assert b"planted" not in seen.body
    assert a.seen[0].headers["Cookie"].count("planted") == 1


def test_no_key_of_one_provider_is_sent_to_the_other(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Each provider sees its own key only, in the longest story a call can have."""
    a.always("*", 503)
    b.script("mb", 401)
    for _ in range(3):
        post(session, a)
        post(session, a, headers={"api-key": "test-key-a2"})

    assert "test-key-b" not in str([seen.headers for seen in a.seen])
    assert "test-key-a" not in str([seen.headers for seen in b.seen])
    assert b.attempts() > 0


def test_verify_cert_and_proxies_stay_at_home(
    a: Simulator, b: Simulator, session: holyroute.Session, tmp_path: Path
) -> None:
    """What a script relaxes for its own host says nothing about another one."""
    a.unplug()
    there = Noting()
    session.mount(b.base_url, there)
    session.verify = False
    session.proxies = {"http": f"http://{host_of(a)}"}
    certificate = tmp_path / "client.pem"
    certificate.touch()
    response = post(session, a, verify=False, cert=str(certificate), proxies={"http": f"http://{host_of(a)}"})

    assert response.status_code == 200
    assert [(one["verify"] is False, one["cert"], one["proxies"]) for one in there.settings] == [(False, None, {})]


def test_cookies_stay_where_they_were_set(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """B's cookies never reach A and the session, nor A's B, though both are the same host to a cookie jar."""
    a.script("*", faults.status(503, headers=[("Set-Cookie", "of=a; Path=/")]), "503", "ok")
    b.always("*", faults.cookies("of=b; Path=/", "more=b; Path=/"))
    answers = [post(session, a) for _ in range(3)]

    assert [seen.headers.get("Cookie") for seen in a.seen] == [None, "of=a", "of=a"]
    assert [seen.headers.get("Cookie") for seen in b.seen] == [None, None]
    assert session.cookies.get_dict() == {"of": "a"}
    assert [answer.cookies.get_dict() for answer in answers] == [{"of": "b", "more": "b"}] * 2 + [{}]


# --- the same host ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_models(a: Simulator, configured: Configured) -> Config:
    """`ma` fails over to another model of the same provider."""
    return configured(models={"ma2": {"provider": "a", "model": "second"}}, failover={host_of(a): ["ma2"]})


def test_at_home_the_callers_own_request_asks_for_another_model(a: Simulator, two_models: Config) -> None:
    """The same host may have everything the script sent: only the model changes."""
    a.always("ma", 503)
    session = holyroute.Session(router=Router(two_models, env={}))
    session.cookies.set("mine", "1")
    response = post(session, a, headers={**CALLERS_KEY, "X-Title": "mine"})
    first, second = a.seen

    assert response.status_code == 200
    assert second.json == {**first.json, "model": "second"}
    assert without_length(second.headers.pairs) == without_length(first.headers.pairs)


def without_length(pairs: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if pair[0] != "Content-Length"]


def test_a_rejected_key_is_replaced_by_a_configured_one(a: Simulator, two_models: Config) -> None:
    """After a 401 the provider's own configured key is used, for the same model and the next call; nobody sees it."""
    session = holyroute.Session(router=Router(two_models, env={"KEY_A": "test-key-a"}))
    headers = {"Authorization": "Bearer test-key-wrong", "X-Title": "mine"}
    answers = [post(session, a, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [(seen.model, seen.headers["Authorization"], seen.headers.get("X-Title")) for seen in a.seen] == [
        ("ma", "Bearer test-key-wrong", "mine"),
        ("ma", "Bearer test-key-a", None),
        ("ma", "Bearer test-key-a", None),
    ]
    assert [answer.request.headers["Authorization"] for answer in answers] == ["Bearer test-key-wrong"] * 2


def test_at_home_the_scripts_own_way_there_is_kept(a: Simulator, two_models: Config) -> None:
    """With another key, too, its host is reached as the script reaches it: its proxies, and what it relaxed."""
    session = holyroute.Session(router=Router(two_models, env={"KEY_A": "test-key-a"}))
    noting = Noting()
    session.mount("http://", noting)
    proxies = {"http": f"http://{host_of(a)}"}
    post(session, a, headers={"Authorization": "Bearer test-key-wrong"}, verify=False, proxies=proxies)

    assert [(one["verify"], dict(one["proxies"])) for one in noting.settings] == [(False, proxies)] * 2


def test_a_substitute_without_a_key_is_said_and_seen(
    a: Simulator,
    configured: Callable[..., Config],
    env: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An owner who forgot the backup's key hears of it, and the trace of a failed call says why nobody stood in."""
    env["KEY_B"] = ""
    a.always("*", 503)
    session = holyroute.Session(router=Router(configured(), env=env))
    with caplog.at_level(logging.WARNING, "holyroute"):
        traces = [holyroute.trace_of(post(session, a)) for _ in range(2)]

    assert [[str(skip.reason) for skip in trace.skipped] for trace in traces if trace] == [
        ["no credential: set KEY_B"]
    ] * 2
    assert [record.getMessage() for record in caplog.records if "cannot stand in" in record.getMessage()] != []
    assert len([record for record in caplog.records if "cannot stand in" in record.getMessage()]) == 1


def test_a_route_asked_without_a_key_goes_with_the_configured_one(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """A script that sent no key and named a route is not sent out to be refused first."""
    config = configured(routes={"mine": {"normal": ["ma"]}})
    session = holyroute.Session(router=Router(config, env=env))
    body = {"model": "route:mine", "messages": [{"role": "user", "content": "hello"}]}
    response = session.post(f"{a.base_url}/chat/completions", json=body)

    assert response.status_code == 200
    assert [seen.headers["Authorization"] for seen in a.seen] == ["Bearer test-key-a"]
