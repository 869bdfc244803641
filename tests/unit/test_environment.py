"""Proxies and certificate bundles: the same as requests finds, in any environment, also right after it has changed."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests import utils

import holyroute
from holyroute.config.environment import merged_settings

NAMES = (
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "Https_Proxy",
    "all_proxy",
    "no_proxy",
    "NO_PROXY",
    "REQUEST_METHOD",
)
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
VALUES = ("", "http://one:1", "http://two:2", "*", "localhost,.example.com", "10.0.0.0/8", "api.example.com:8443")
URLS = (
    "https://api.example.com/v1/chat/completions",
    "https://api.example.com:8443/v1?key=a/b",
    "http://user:word@10.1.2.3/x",
    "http://[::1]:8000/",
    "http+unix://somewhere/",
    "mailto:nobody",
)

variables = st.dictionaries(st.sampled_from(NAMES + BUNDLES), st.sampled_from(VALUES), max_size=4)
arguments = st.tuples(
    st.sampled_from(URLS),
    st.sampled_from([None, {}, {"http": "http://own:3"}, {"no_proxy": "example.com"}, {"https": None}]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False, "/some/bundle.pem"]),
    st.sampled_from([None, "/some/cert.pem", ("/some/cert.pem", "/some/key.pem")]),
)


def both(session: requests.Session, url: str, proxies: Any, *rest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What requests finds, and what we find; each may change the proxies it is given."""
    given_to_each = [None if proxies is None else dict(proxies) for _ in range(2)]
    expected = requests.Session.merge_environment_settings(session, url, given_to_each[0], *rest)
    found = merged_settings(session, url, given_to_each[1], *rest)
    assert given_to_each[0] == given_to_each[1]
    return expected, found


@settings(max_examples=300, deadline=None)
@given(
    environments=st.lists(variables, min_size=1, max_size=3),
    calls=st.lists(arguments, min_size=1, max_size=3),
    of_session=st.sampled_from([{}, {"https": "http://session:4"}, None]),
    trust_env=st.booleans(),
)
def test_any_environment_gives_what_requests_finds(
    environments: list[dict[str, str]], calls: list[Any], of_session: Any, *, trust_env: bool
) -> None:
    """Whatever is set, and whatever it is changed to between two calls."""
    session = requests.Session()
    session.proxies, session.trust_env = of_session, trust_env
    for environment in environments:
        with pytest.MonkeyPatch.context() as patch:
            for name in NAMES + BUNDLES:
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            for call in calls:
                expected, found = both(session, *call)

                assert found == expected


def test_proxies_from_elsewhere_are_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's settings count, or a test puts something in their place, nothing is remembered."""
    for number in range(2):
        monkeypatch.setattr(utils, "getproxies", lambda number=number: {"https": f"http://system:{number}"})
        expected, found = both(requests.Session(), URLS[0], {}, None, None, None)

        assert found == expected
        assert found["proxies"] == {"https": f"http://system:{number}"}


def test_the_environment_is_walked_once_per_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call to the same host asks nobody; a changed variable is noticed."""
    monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
    walks: list[str] = []

    def walk(url: str, no_proxy: str | None = None) -> dict[str, str]:
        walks.append(url)
        return real(url, no_proxy)

    real = utils.get_environ_proxies
    monkeypatch.setattr(utils, "get_environ_proxies", walk)
    session = holyroute.Session(holyroute.load(env={}, cwd_file=False))
    for url in (URLS[0], URLS[0] + "/again"):
        session.merge_environment_settings(url, {}, None, None, None)
    monkeypatch.setenv("HTTPS_PROXY", "http://two:2")
    found = session.merge_environment_settings(URLS[0], {}, None, None, None)

    assert len(walks) == 2
    assert found["proxies"] == {"https": "http://two:2"}
