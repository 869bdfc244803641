"""Flask: one client per app, and pages that show how it does.

    app = Flask(__name__)
    HolyRoute(app)                     # or: extension = HolyRoute(); extension.init_app(app)

    @app.post("/ask")
    def ask():
        return {"answer": current_client.ask(request.json["question"]).content}

Settings are keys of `app.config`, see `holyroute.config.app_keys`; `docs/flask.md` tells who may see which page.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

try:
    from flask import Blueprint, Response, current_app, request
    from werkzeug.local import LocalProxy
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "holyroute.flask needs Flask; install it with: pip install 'holyroute[flask]'", name=missing.name
    ) from missing

from holyroute.client import Client
from holyroute.config.app_keys import AppSettings, app_settings
from holyroute.core import forks
from holyroute.exceptions import ConfigurationError
from holyroute.monitoring.dashboard.page import HEADERS, PATHS, Reply, reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from holyroute.config.credentials import Credential
    from holyroute.monitoring.health import Health
    from holyroute.monitoring.prometheus import Exporter

logger = logging.getLogger("holyroute")

NAME = "holyroute"  # of the blueprint, and in `app.extensions`
LIVE, METRICS = "live", "metrics"
_PROXIED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via")  # somebody else is behind the address that is seen
_TEXT = "text/plain; charset=utf-8"


class HolyRoute:
    """The extension.

    Args:
        app: the app, unless `init_app` is called later.
        authorize: called within a request for one of the pages; True lets it through, False or None refuses it.
    """

    def __init__(self, app: Flask | None = None, *, authorize: Callable[[], bool | None] | None = None) -> None:
        self._authorize = authorize
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an app its client and its pages. The client is made when it is first needed.

        Raises:
            ConfigurationError: a `HOLYROUTE_*` key of `app.config` is unknown or wrong.
            RuntimeError: this app has them already.
        """
        if NAME in app.extensions:
            raise RuntimeError("this app has a HolyRoute already")
        settings = app_settings(app.config)
        app.register_blueprint(_pages(_Access(settings.token, self._authorize)), url_prefix=settings.url_prefix)
        app.extensions[NAME] = AppState(settings)

    @property
    def client(self) -> Client:
        """The client of the current app; so is `current_client`."""
        return _state().client


class AppState:
    """What one app has, as `app.extensions["holyroute"]`. Safe to share between threads, and with forked workers."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._made: tuple[Client, Exporter | None] | None = None
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The thread that may have held the lock stayed behind; the client renews itself."""
        self._lock = threading.Lock()

    @property
    def client(self) -> Client:
        """One for all threads of the process.

        Raises:
            ConfigurationError: the configuration is wrong; the message names the place.
        """
        return self._once()[0]

    @property
    def exporter(self) -> Exporter | None:
        """What `/metrics` shows; None where prometheus_client is not installed. Raises: as `client`."""
        return self._once()[1]

    def _once(self) -> tuple[Client, Exporter | None]:
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    own = self._settings
                    client = Client(own.config, task=own.task, priority=own.priority, **own.settings)
                    made = self._made = client, _exporter(client)
        return made

    def health(self) -> Health:
        """How the client does. Raises: ConfigurationError, as `client` and `Client.health()`."""
        return self.client.health()


def _exporter(client: Client) -> Exporter | None:
    """Counts from the first call on, not from the first look."""
    try:
        from holyroute.monitoring.prometheus import attach
    except ModuleNotFoundError:
        return None
    return attach(client)


def _state() -> AppState:
    state: AppState | None = current_app.extensions.get(NAME)
    if state is None:
        raise RuntimeError("this app has no client yet: HolyRoute(app), or init_app(app), comes first")
    return state


#: The client of the app that handles the current request.
current_client: Client = LocalProxy(lambda: _state().client)  # type: ignore[assignment]


class _Access:
    """Who may see the pages: bearers of the token, whoever `authorize` lets in, else the developer at this machine."""

    def __init__(self, token: Credential | None, authorize: Callable[[], bool | None] | None) -> None:
        self._token = token
        self._authorize = authorize
        self._told = False

    def refusal(self) -> Response | None:
        """What a request gets that may not see anything; None lets it through."""
        if self._bears_token() or self._is_authorized() or (not self._is_configured and _is_developer()):
            return None
        if not self._is_configured and not self._told:
            self._told = True  # once: strangers may ask often
            logger.warning("%s was refused: neither HOLYROUTE_TOKEN nor authorize= is set for this app", request.path)
        if self._token is None:
            return _response(Reply(_TEXT, b"Forbidden\n"), 403)
        response = _response(Reply(_TEXT, b"Unauthorized\n"), 401)
        response.headers.add("WWW-Authenticate", 'Bearer realm="holyroute"')
        response.headers.add("WWW-Authenticate", 'Basic realm="holyroute", charset="UTF-8"')
        return response

    @property
    def _is_configured(self) -> bool:
        return self._token is not None or self._authorize is not None

    def _bears_token(self) -> bool:
        """As bearer token, or as the password that a browser asks for, whatever the user name."""
        sent = request.authorization
        if self._token is None or sent is None:
            return False
        secret = sent.token if sent.type == "bearer" else sent.password if sent.type == "basic" else None
        return hmac.compare_digest((secret or "").encode(), self._token.secret.encode())

    def _is_authorized(self) -> bool:
        if self._authorize is None:
            return False
        answer = self._authorize()
        if answer is not None and not isinstance(answer, bool):  # a response, a coroutine: true, but no permission
            raise TypeError(f"authorize: expected it to return True, False or None, got {type(answer).__name__}")
        return answer is True


def _is_developer() -> bool:
    """In debug mode, a browser on this machine that was sent here by an address of this machine."""
    if not current_app.debug or any(name in request.headers for name in _PROXIED):
        return False
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return _is_loopback(request.remote_addr or "") and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _pages(access: _Access) -> Blueprint:
    """A page that is added here is guarded, unless it says otherwise."""
    pages = Blueprint(NAME, __name__)

    @pages.before_request
    def guard() -> Response | None:
        return None if request.endpoint == f"{pages.name}.{LIVE}" else access.refusal()

    pages.add_url_rule(f"/{LIVE}", LIVE, _live)
    pages.add_url_rule(f"/{METRICS}", METRICS, _metrics)
    for path in PATHS:
        pages.add_url_rule(f"/{path}", path.replace("/", "-").replace(".", "-"), _page, defaults={"path": path})
    return pages


def _live() -> Response:
    """The process answers; asks nothing and tells nothing."""
    response = Response(status=200, headers={"Cache-Control": "no-store"})
    del response.headers["Content-Type"]
    return response


def _page(path: str) -> Response:
    try:
        found = reply(path, _state().health)
    except ConfigurationError as error:  # monitoring is switched off, or the configuration is wrong
        return _response(Reply(_TEXT, f"{error}\n".encode()), 503)
    assert found is not None
    return _response(found)


def _metrics() -> Response:
    """In the format of Prometheus."""
    try:
        exporter = _state().exporter
    except ConfigurationError as error:
        return _response(Reply(_TEXT, f"{error}\n".encode()), 503)
    if exporter is None:
        return _response(Reply(_TEXT, b"metrics need prometheus_client: pip install 'holyroute[prometheus]'\n"), 501)
    from holyroute.monitoring.prometheus import metrics_text

    body, content_type = metrics_text(exporter, request.headers.get("Accept", ""))
    return _response(Reply(content_type, body))


def _response(content: Reply, status: int = 200) -> Response:
    return Response(content.body, status, {**HEADERS, "Content-Type": content.content_type})
