"""Serves the page on this machine, for as long as a command runs."""

from __future__ import annotations

import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from holyroute.monitoring.dashboard.page import HEADERS, PAGE, Reply, reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.monitoring.health import Health

HOST = "127.0.0.1"
PATIENCE = 10  # seconds for a request to arrive
LOOK = 0.1  # seconds until the end is noticed
HTTP = 80  # the port that browsers leave out
_NAMES = (HOST, "localhost")


class DashboardServer:
    """The page on the loopback interface. A context manager.

    Whoever can log in to this machine can read it, and nobody else: requests that were sent to another name, as by a
    page whose name was made to lead here, are refused.

    Args:
        health: the figures of now, asked from the server's threads.
        port: 0 lets the system choose; afterwards the port in use.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, health: Callable[[], Health], port: int = 0) -> None:
        self._server = _Server((HOST, port), _Handler)
        self._server.health = health
        self.port: int = self._server.server_address[1]
        serve = partial(self._server.serve_forever, poll_interval=LOOK)
        self._thread = threading.Thread(target=serve, name="holyroute-dashboard", daemon=True)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.port}/{PAGE}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle connection of a browser does not hold the end
    health: Callable[[], Health]

    def handle_error(self, *_: Any) -> None:
        """A browser that leaves early is no error, and a traceback would tear the display."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "holyroute", ""
    timeout = PATIENCE

    def do_HEAD(self) -> None:
        """Answer one request without its body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer one request."""
        if not self._is_meant():
            self._send(HTTPStatus.FORBIDDEN, _text("Open this page by its own address."))
            return
        path = self.path.partition("?")[0].removeprefix("/") or PAGE
        try:
            found = reply(path, self.server.health)
        except Exception:  # noqa: BLE001 - whatever it is, the page tells that there are no figures
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, _text("There are no figures."))
            return
        self._send(*((HTTPStatus.NOT_FOUND, _text("Nothing is here.")) if found is None else (HTTPStatus.OK, found)))

    def _is_meant(self) -> bool:
        host, port = self.headers.get("Host", ""), self.server.server_address[1]
        return host in {f"{name}:{port}" for name in _NAMES} or (port == HTTP and host in _NAMES)

    def _send(self, status: HTTPStatus, content: Reply) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content.content_type)
        self.send_header("Content-Length", str(len(content.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal belongs to the command."""


def _text(line: str) -> Reply:
    return Reply("text/plain; charset=utf-8", f"{line}\n".encode())
