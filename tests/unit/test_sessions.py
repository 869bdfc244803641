"""What a session reads from a request, and what it is made of."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

import holyroute
from holyroute import sessions
from holyroute.config.environment import settings_for
from holyroute.core.call import Selection
from holyroute.door import RoutingOptions
from holyroute.dropin import Sending
from holyroute.transport.adapter import Adapter, twin_of
from holyroute.transport.pools import ResendOnce
from holyroute.transport.settings import pooled_adapter

URL = "https://api.example.com/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def session() -> holyroute.Session:
    return holyroute.Session(holyroute.load(env={}, cwd_file=False), task="simple_qa", priority="fast")


def read(session: holyroute.Session, **options: Any) -> Any:
    sending = Sending(session, session, requests.Session().send, options)
    return sending.read(requests.Request("POST", URL, json=BODY).prepare())


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, (10, 300, 600)),
        (5, (5, 5, 600)),
        ((5, 1_000), (5, 1_000, 1_005)),
        ((None, 595), (10, 595, 605)),
        (Decimal("2.5"), (2.5, 2.5, 600)),
    ],
)
def test_a_call_has_time(session: holyroute.Session, timeout: Any, expected: tuple[float, float, float]) -> None:
    """The script's timeouts per attempt; the deadline is 600 s, or what the script was ready to wait."""
    call = read(session, timeout=timeout)

    assert (call.connect, call.read, call.deadline) == expected


@pytest.mark.parametrize(
    "timeout", [0, -1, float("inf"), float("nan"), "5", True, (1,), (0, 5), (5, "x"), ("x", 5), [1, 2], object()]
)
def test_a_timeout_that_requests_refuses_is_left_to_it(session: holyroute.Session, timeout: Any) -> None:
    """Nothing is routed that could not be sent."""
    assert read(session, timeout=timeout) is None


def test_a_call_knows_how_it_was_made(session: holyroute.Session) -> None:
    """Model, body, stream, the session's defaults, and the request itself."""
    session.stream = True
    call = read(session)

    assert (call.model, call.body, call.stream) == ("m", BODY, True)
    assert call.selection == Selection(task="simple_qa", priority="fast")
    assert call.origin.base_url == "https://api.example.com/v1"
    assert read(session, stream=False).stream is False
    with holyroute.routing("general", "high"), holyroute.direct():
        assert read(session).selection == Selection(task="simple_qa", priority="fast", direct=True)


def test_a_session_is_a_session() -> None:
    """Of requests, made without arguments, with its attributes and ours in the pickle."""
    made = [holyroute.Session(), holyroute.session()]

    assert all(isinstance(one, requests.Session) for one in made)
    assert [type(one) for one in made] == [holyroute.Session] * 2
    assert set(holyroute.Session.__attrs__) - set(requests.Session.__attrs__) == {"routing_options"}
    assert pickle.loads(pickle.dumps(made[0])).routing_options == RoutingOptions()  # noqa: S301 - our own


def test_standard_retries_are_documented_ones() -> None:
    """Three, with backoff, for POST too; unrouted calls get them only when asked for."""
    retry = holyroute.standard_retry()
    asked: Any = holyroute.Session(retries=retry).adapters.items()
    default: Any = holyroute.Session().adapters.items()

    assert (retry.total, retry.backoff_factor, retry.status_forcelist) == (3, 1, (500, 502, 503, 504))
    assert set(retry.allowed_methods or ()) == {"POST", "GET"}
    assert [(prefix, one.max_retries) for prefix, one in asked] == [("https://", retry), ("http://", retry)]
    assert [(prefix, one.max_retries.total) for prefix, one in default] == [("https://", 0), ("http://", 0)]


def test_the_module_has_what_requests_has() -> None:
    """Scripts reach into `sessions` for helpers."""
    assert sessions.merge_setting is requests.sessions.merge_setting
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sessions.no_such_name


# --- adapters ---------------------------------------------------------------------------------------------------------


class Own(HTTPAdapter):
    """A subclass."""


def test_a_strangers_adapter_is_used_as_it_is() -> None:
    """A subclass may mean something by its retries, its TLS or its `send`."""
    adapter = Own(max_retries=3)

    assert twin_of(adapter) is adapter


@pytest.mark.parametrize("retries", [0, 3, Retry(total=None, connect=2), Retry(5, allowed_methods=None)])
def test_a_twin_has_the_same_settings_and_no_retries(retries: Any) -> None:
    """Pool and TLS settings are the original's, which keeps its retries; a second look finds the same twin."""
    adapter = HTTPAdapter(pool_connections=3, pool_maxsize=7, max_retries=retries)
    adapter.init_poolmanager(3, 7, ssl_minimum_version=771)
    twin = twin_of(adapter)
    assert isinstance(twin, Adapter)

    assert twin is twin_of(adapter)
    assert twin.poolmanager.connection_pool_kw == adapter.poolmanager.connection_pool_kw
    assert (twin._pool_connections, twin._pool_maxsize) == (3, 7)
    assert isinstance(twin.max_retries, ResendOnce)
    assert not isinstance(adapter.max_retries, ResendOnce)


def test_a_twin_follows_new_settings() -> None:
    """A script that gives its adapter new pools gives them to the twin as well."""
    adapter = HTTPAdapter()
    before = twin_of(adapter)
    adapter.init_poolmanager(1, 1, ssl_minimum_version=771)
    after = twin_of(adapter)
    assert isinstance(after, Adapter)

    assert after is not before
    assert after.poolmanager.connection_pool_kw["ssl_minimum_version"] == 771


def test_pools_are_large_enough_for_a_batch() -> None:
    """More hosts and more threads than the defaults of requests allow, and nobody ever blocks."""
    adapter = pooled_adapter()

    assert (adapter._pool_connections, adapter._pool_maxsize, adapter._pool_block) == (32, 64, False)


@pytest.mark.parametrize(
    ("provider", "env", "expected"),
    [
        ({}, {}, {"verify": True, "cert": None, "proxies": {}}),
        ({"verify": False, "cert": ("a", "b")}, {}, {"verify": False, "cert": ("a", "b"), "proxies": {}}),
        ({}, {"REQUESTS_CA_BUNDLE": "/env.pem"}, {"verify": "/env.pem", "cert": None, "proxies": {}}),
        (
            {"verify": "/own.pem"},
            {"REQUESTS_CA_BUNDLE": "/env.pem"},
            {"verify": "/own.pem", "cert": None, "proxies": {}},
        ),
        ({"verify": False}, {"REQUESTS_CA_BUNDLE": "/env.pem"}, {"verify": False, "cert": None, "proxies": {}}),
        ({}, {"HTTPS_PROXY": "http://e"}, {"verify": True, "cert": None, "proxies": {"https": "http://e"}}),
        ({}, {"HTTPS_PROXY": "http://e", "NO_PROXY": "p.example"}, {"verify": True, "cert": None, "proxies": {}}),
        (
            {"proxies": {"all": "http://own"}},
            {"HTTPS_PROXY": "http://e"},
            {"verify": True, "cert": None, "proxies": {"all": "http://own"}},
        ),
    ],
)
def test_a_hosts_settings_come_from_configuration_then_environment(
    monkeypatch: pytest.MonkeyPatch, provider: Any, env: dict[str, str], expected: dict[str, Any]
) -> None:
    """What its owner configured for a provider is more particular than what holds for the machine."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    url = "https://p.example/v1"
    config = holyroute.load(env={}, cwd_file=False, providers={"p": {"base_url": url, **provider}})
    settings = settings_for(config.providers["p"])

    assert {name: settings[name] for name in expected} == expected
