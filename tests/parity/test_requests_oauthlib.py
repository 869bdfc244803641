"""requests-oauthlib adds its token before the request is prepared: it goes to its own host, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from requests_oauthlib import OAuth1, OAuth2Session

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]

TOKEN = {"access_token": "planted", "token_type": "Bearer"}


class Routed(OAuth2Session, holyroute.Session):
    """Both, cooperating."""


@pytest.mark.parametrize("kind", [Routed, OAuth2Session])
def test_a_token_stays_at_home(
    a: Simulator, b: Simulator, live: Router, ask: Ask, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Mixed with our session, and as it is under `install()`."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    session = kind(client_id="test", token=TOKEN)
    session._router = live
    with holyroute.installed(router=live):
        response = ask(session.post)

    assert response.json()["model"] == "mb"
    assert a.seen[0].headers["Authorization"] == "Bearer planted"
    assert "planted" not in str([seen.headers for seen in b.seen])


def test_a_signature_stays_at_home(a: Simulator, b: Simulator, session: requests.Session, ask: Ask) -> None:
    """It holds for the URL that it was made for, and the other host sees none."""
    session.auth = OAuth1("planted", client_secret="planted")
    response = ask(session.post)

    assert response.json()["model"] == "mb"
    assert "OAuth oauth_nonce" in str(a.seen[0].headers["Authorization"])
    assert "planted" not in str([seen.headers for seen in b.seen])
