"""pytest-httpserver is a server: what a test expects there arrives there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from pytest_httpserver import HTTPServer

import holyroute
from holyroute.engine.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = {"model": "ma", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    with HTTPServer() as a, HTTPServer() as b:
        yield a, b


def test_expectations_are_met(servers: tuple[HTTPServer, HTTPServer], answer: dict[str, Any]) -> None:
    """The script's own request at A, the substitute's at B, each once and in order."""
    a, b = servers
    a.expect_ordered_request(PATH, method="POST", json=BODY, headers={"X-Title": "mine"}).respond_with_json({}, 503)
    b.expect_ordered_request(PATH, method="POST", json={**BODY, "model": "mb"}).respond_with_json(answer)
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"b": {"base_url": b.url_for("/v1")}},
        models={"mb": {"provider": "b"}},
        failover={f"{a.host}:{a.port}": ["mb"]},
    )
    with holyroute.installed(router=Router(config)):
        response = requests.post(a.url_for(PATH), json=BODY, headers={"X-Title": "mine"}, timeout=5)

    assert response.json() == answer
    assert (len(a.log), len(b.log)) == (1, 1)
    a.check()
    b.check()
