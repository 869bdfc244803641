"""requests-toolbelt: sessions with a base URL, hooks that raise, adapters that it mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from requests_toolbelt.adapters.source import SourceAddressAdapter
from requests_toolbelt.sessions import BaseUrlSession
from requests_toolbelt.utils.user_agent import user_agent

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]


class Routed(BaseUrlSession, holyroute.Session):
    """Both, cooperating."""


@pytest.mark.parametrize("kind", [Routed, BaseUrlSession])
def test_a_base_url_is_where_the_call_starts(a: Simulator, live: Router, kind: Any) -> None:
    """Mixed with our session, and as it is under `install()`."""
    session = kind(f"{a.base_url}/")
    session._router = live
    with holyroute.installed(router=live):
        response = session.post("chat/completions", json={"model": "ma", "messages": []}, timeout=5)

    assert response.json()["model"] == "mb"
    assert response.url == f"{a.base_url}/chat/completions"


def test_a_mounted_adapter_takes_each_attempt(a: Simulator, b: Simulator, session: requests.Session, ask: Ask) -> None:
    """Its source address holds for every host."""
    session.mount("http://", SourceAddressAdapter("127.0.0.7"))
    session.headers["User-Agent"] = user_agent("test", "1")

    assert ask(session.post).json()["model"] == "mb"
    assert [one.seen[0].headers["User-Agent"] for one in (a, b)] == [session.headers["User-Agent"]] * 2
