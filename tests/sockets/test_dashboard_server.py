"""The page on the loopback interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from holyroute.monitoring.dashboard.server import DashboardServer

if TYPE_CHECKING:
    from holyroute.monitoring.health import Health


def get(server: DashboardServer, path: str, method: str = "GET", **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, f"http://127.0.0.1:{server.port}/{path}", headers=headers, timeout=10)


def test_it_serves_the_page_and_its_figures(busy_health: Health) -> None:
    """Page, files and figures come with the policy; what is not there is not found."""
    with DashboardServer(lambda: busy_health) as server:
        pages = [get(server, path) for path in ("", "dashboard", "dashboard/page.js", "api?now", "health")]
        head = get(server, "dashboard", method="HEAD")
        missing, posted = get(server, "nothing"), get(server, "api", method="POST")
        elsewhere = get(server, "dashboard/")  # its files would be looked for in the wrong place

    assert [page.status_code for page in pages] == [200] * 5
    assert {page.headers["Content-Security-Policy"][:18] for page in (*pages, missing)} == {"default-src 'none'"}
    assert pages[3].json()["pid"] == 4711
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(pages[1].content)))
    assert (missing.status_code, elsewhere.status_code, posted.status_code) == (404, 404, 501)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", ""])
def test_a_name_that_was_made_to_lead_here_gets_nothing(busy_health: Health, host: str) -> None:
    """A page elsewhere, whose name resolves to this machine, reads no figures: DNS rebinding."""
    with DashboardServer(lambda: busy_health) as server:
        answer = get(server, "api", Host=host.format(port=server.port))
        own = get(server, "api", Host=f"localhost:{server.port}")

    assert answer.status_code == 403
    assert "deepseek" not in answer.text
    assert own.status_code == 200


def test_a_browser_leaves_out_the_usual_port(busy_health: Health) -> None:
    """On port 80 the address of the page has no port."""
    with DashboardServer(lambda: busy_health) as server:
        server._server.server_address = ("127.0.0.1", 80)
        answers = [get(server, "api", Host=host).status_code for host in ("127.0.0.1", "localhost", "evil.example")]

    assert answers == [200, 200, 403]


def test_figures_that_cannot_be_had() -> None:
    """An error in the figures is an answer without details, and the next request is served."""

    def broken() -> Health:
        raise RuntimeError("sk-planted-in-an-error")

    with DashboardServer(broken) as server:
        answer = get(server, "api")
        page = get(server, "dashboard")

    assert (answer.status_code, answer.text) == (500, "There are no figures.\n")
    assert page.status_code == 200


def test_a_port_that_is_taken(busy_health: Health) -> None:
    """Two pages do not share a port."""
    with DashboardServer(lambda: busy_health) as server, pytest.raises(OSError, match="in use"):
        DashboardServer(lambda: busy_health, server.port)
