"""`requests_mock` sees every attempt of the drop-in doors, and leaves routing as it found it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
import requests_mock
import responses

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.engine.router import Router

    Post = Callable[..., requests.Response]

BODY = {"model": "ma", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def session(router: Router) -> holyroute.Session:
    return holyroute.Session(router=router)


@pytest.fixture(params=["Session", "functions", "mixin"])
def post(request: pytest.FixtureRequest, session: holyroute.Session, configured_by_file: None) -> Post:
    """Every drop-in door."""
    del configured_by_file
    if request.param == "functions":
        return holyroute.post
    if request.param == "mixin":
        return type("Theirs", (holyroute.RoutingMixin, requests.Session), {})().post
    return session.post


@pytest.mark.parametrize(
    "trouble",
    [{"status_code": 503}, {"exc": requests.ConnectTimeout}, {"text": "<html></html>"}],
    ids=["503", "ConnectTimeout", "html"],
)
def test_a_mocker_sees_each_attempt(
    urls: tuple[str, str], answer: dict[str, Any], post: Post, trouble: dict[str, Any]
) -> None:
    """A's fault and B's answer are both the mock's; the script's request is shown on the answer."""
    a, b = urls
    with requests_mock.Mocker() as mocker:
        mocker.post(a, **trouble)
        mocker.post(b, json=answer)
        response = post(a, json=BODY, headers={"Authorization": "Bearer test-key-a"})

    assert response.json() == answer
    assert response.request.url == a
    assert [(seen.url, seen.json()["model"]) for seen in mocker.request_history][-1] == (b, "mb")
    assert mocker.request_history[0].url == a
    assert mocker.request_history[-1].headers["Authorization"] == "Bearer test-key-b"


def test_a_mocker_leaves_no_trace(urls: tuple[str, str], answer: dict[str, Any], session: holyroute.Session) -> None:
    """After the block the session routes, and sends, as before."""
    a, b = urls
    for _ in range(2):
        with requests_mock.Mocker() as mocker:
            mocker.post(a, status_code=500)
            mocker.post(b, json=answer)
            session.post(a, json=BODY)
    with responses.RequestsMock() as mock:
        mock.post(a, status=503)
        mock.post(b, json=answer)

        assert session.post(a, json=BODY).json() == answer


def test_a_mounted_adapter_takes_each_attempt(
    urls: tuple[str, str], answer: dict[str, Any], session: holyroute.Session
) -> None:
    """An adapter that the test mounts is the session's way to every host."""
    a, b = urls
    adapter = requests_mock.Adapter()
    adapter.register_uri("POST", a, status_code=503)
    adapter.register_uri("POST", b, json=answer)
    session.mount("https://", adapter)
    response = session.post(a, json=BODY)

    assert response.json() == answer
    assert [seen.url for seen in adapter.request_history] == [a, b]


def test_a_mocked_session_is_not_routed(urls: tuple[str, str], session: holyroute.Session) -> None:
    """`Mocker(session=…)` puts itself in the place of `send`: it answers for the script's URL, as with requests."""
    a, _ = urls
    with requests_mock.Mocker(session=session) as mocker:
        mocker.post(a, status_code=503)
        response = session.post(a, json=BODY)

    assert response.status_code == 503
    assert mocker.call_count == 1


def test_what_nobody_registered_is_the_mocks_complaint(urls: tuple[str, str], session: holyroute.Session) -> None:
    """It is no failure of a provider, so it reaches the test at once and nobody else is asked."""
    a, _ = urls
    with requests_mock.Mocker() as mocker, pytest.raises(requests_mock.NoMockAddress):
        session.post(a, json=BODY)

    assert mocker.call_count == 1


def test_under_install_a_mocker_answers_for_the_scripts_url(urls: tuple[str, str], router: Router) -> None:
    """It puts itself over our `send` and calls the one that it saw at import: its fault is what the test gets."""
    a, _ = urls
    with holyroute.installed(router=router), requests_mock.Mocker() as mocker:
        mocker.post(a, status_code=503)
        response = requests.post(a, json=BODY, timeout=5)

    assert response.status_code == 503
    assert mocker.call_count == 1


def test_under_install_a_mounted_adapter_takes_each_attempt(
    urls: tuple[str, str], answer: dict[str, Any], router: Router
) -> None:
    """Mounted on a plain session, it answers for both providers."""
    a, b = urls
    adapter = requests_mock.Adapter()
    adapter.register_uri("POST", a, status_code=503)
    adapter.register_uri("POST", b, json=answer)
    with holyroute.installed(router=router), requests.Session() as session:
        session.mount("https://", adapter)

        assert session.post(a, json=BODY).json() == answer
    assert [seen.url for seen in adapter.request_history] == [a, b]


def test_a_session_that_was_mocked_under_install_is_routed_again(
    urls: tuple[str, str], answer: dict[str, Any], router: Router
) -> None:
    """The mocker leaves a `get_adapter` of its own on the session."""
    a, b = urls
    with holyroute.installed(router=router), requests.Session() as session:
        with requests_mock.Mocker() as mocker:
            mocker.post(a, status_code=503)
            session.post(a, json=BODY)
        with responses.RequestsMock() as mock:
            mock.post(a, status=503)
            mock.post(b, json=answer)

            assert session.post(a, json=BODY).json() == answer
