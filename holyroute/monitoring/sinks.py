"""Where alerts go: a log, a function, a webhook. Each has a queue and, while there is something in it, a thread.

A sink that hangs, raises or is down holds up neither a call nor another sink. When its queue is full, the oldest alert
in it makes room.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import json
import logging
import threading
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from holyroute.core import forks
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from requests import PreparedRequest

    from holyroute.config.schema import AlertSettings, Webhook
    from holyroute.core.clock import Clock
    from holyroute.monitoring.health import AlertNote

    Sink = Callable[[AlertNote], object]

logger = logging.getLogger("holyroute")

WAITING = 100  # alerts in the queue of one sink
AT_EXIT = 2.0  # seconds that the process waits for all sinks together
ATTEMPTS = 3  # to deliver to a webhook
BASE, LONGEST = 1.0, 10.0  # seconds between attempts: doubling, with jitter
SIGNATURE = "X-Holyroute-Signature"


class Outlet:
    """A sink with its queue. Safe to share between threads; a forked child begins with an empty one."""

    def __init__(self, sink: Sink, name: str, most: int = WAITING) -> None:
        self.sink = sink
        self.name = name
        self._most = most
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """What waits is delivered by the parent."""
        self._changed = threading.Condition()
        self._queue: deque[AlertNote] = deque()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, note: AlertNote) -> None:
        """Have an alert delivered; comes back at once."""
        with self._changed:
            if len(self._queue) >= self._most:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append(note)
            if self._thread is None:
                _flush_at_exit(self)
                name = f"holyroute-alerts-{self.name}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._thread = thread

    def flush(self, until: float) -> bool:
        """Wait until all is delivered, but no longer than to a moment of the monotonic clock; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, max(0.0, until - SYSTEM_CLOCK.now()))

    def _work(self) -> None:
        while (note := self._take()) is not None:
            try:
                self.sink(note)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a sink of the user's raises
                # not the exception's text: it may hold the URL, and that a secret
                logger.warning("alert sink %s failed: %s", self.name, _in_words(error))

    def _take(self) -> AlertNote | None:
        with self._changed:
            dropped, self._dropped = self._dropped, 0
            if not self._queue:
                self._thread = None
                self._changed.notify_all()
                return None
            note = self._queue.popleft()
        if dropped:
            logger.warning("alert sink %s was too slow: %d alerts were dropped", self.name, dropped)
        return note


_outlets: WeakSet[Outlet] = WeakSet()  # those that ever had something to deliver


def _flush_at_exit(outlet: Outlet) -> None:
    if not _outlets:
        atexit.register(_flush_all)
    _outlets.add(outlet)


def _flush_all() -> None:
    flush(list(_outlets), AT_EXIT)


def flush(outlets: Iterable[Outlet], seconds: float) -> bool:
    """Give several sinks some seconds together to deliver what waits; whether they did."""
    until = SYSTEM_CLOCK.now() + min(seconds, threading.TIMEOUT_MAX / 2)
    return all(outlet.flush(until) for outlet in outlets)


class Outlets:
    """All sinks of one router."""

    def __init__(self, settings: AlertSettings, lookup: Callable[[str], str], clock: Clock) -> None:
        self._settings = settings
        self._outlets: tuple[Outlet, ...] = ()
        if settings.log:
            self.add(log, "log")
        for webhook in settings.webhooks.values():
            self.add(WebhookSink(webhook, lookup, clock), webhook.name)

    def add(self, sink: Sink, name: str) -> None:
        """One more sink: it gets what comes from now on."""
        self._outlets = (*self._outlets, Outlet(sink, name))

    def tell(self, note: AlertNote) -> None:
        """Have an alert delivered to every sink; comes back at once."""
        for outlet in self._outlets:
            outlet.put(note)

    def flush(self) -> bool:
        """Wait a little until all is delivered; whether it is."""
        return flush(self._outlets, self._settings.flush)


def log(note: AlertNote) -> None:
    """The sink that is always there: the logger `holyroute`."""
    fields = {"event": "alert", **asdict(note)}
    fields["alert"] = fields.pop("message")  # a name that logging keeps for itself
    if note.ended is None:
        logger.warning("alert %s: %s: %s", note.rule, note.subject, note.message, extra=fields)
    else:
        logger.warning("alert %s is over: %s: %s", note.rule, note.subject, note.ending, extra=fields)


class DeliveryFailed(Exception):  # noqa: N818 - never leaves the sinks
    """A webhook did not take an alert; the text holds no secret."""


class _Again(DeliveryFailed):
    """And may take it later."""


class WebhookSink:
    """Posts alerts as JSON, or as Slack and those who do as Slack want them.

    JSON: the fields of `AlertNote`, and `state`: `began` or `ended`. With a secret it is signed: the header
    `X-Holyroute-Signature: t=SECONDS,v1=HEX` has the HMAC-SHA256 of the time, a full stop and the body; a receiver
    should refuse old times.

    Args:
        webhook: where and how; names of variables, never their values.
        lookup: the value of an environment variable, each time anew.
        clock: of signatures and of waits between attempts.
    """

    def __init__(self, webhook: Webhook, lookup: Callable[[str], str], clock: Clock) -> None:
        self._webhook = webhook
        self._lookup = lookup
        self._clock = clock
        import tenacity  # here, not in the sink's thread: a child forked meanwhile could never import it

        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(initial=BASE, max=LONGEST, jitter=BASE),
            retry=tenacity.retry_if_exception_type(_Again),
            sleep=clock.sleep,
            reraise=True,
        )

    def __repr__(self) -> str:
        return f"<WebhookSink {self._webhook.name} ***>"

    def __call__(self, note: AlertNote) -> None:
        """Deliver one alert, in three attempts at most.

        Raises:
            DeliveryFailed: nobody took it.
        """
        body = json.dumps(_slack(note) if self._webhook.format == "slack" else _plain(note)).encode()
        self._retrying(self._post, body)

    def _post(self, body: bytes) -> None:
        import requests

        # the URL is never a local variable where something is raised: error reporters send those along
        if not self._lookup(self._webhook.url_env).startswith(("http://", "https://")):
            raise DeliveryFailed(f"{self._webhook.url_env} holds no URL")
        # an auth of its own keeps out what ~/.netrc has for this host
        settings: dict[str, Any] = {"allow_redirects": False, "stream": True, "auth": _by_url}
        timeout = self._webhook.timeout
        failed = None
        try:
            with requests.post(
                self._lookup(self._webhook.url_env), body, headers=self._headers(body), timeout=timeout, **settings
            ) as response:
                status = response.status_code
        except requests.RequestException as error:
            failed = type(error).__name__
        if failed is not None:
            raise _Again(failed)
        if status >= 300:
            raise (_Again if status >= 500 or status in {408, 429} else DeliveryFailed)(f"status {status}")

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._webhook.secret_env:
            at = str(int(self._clock.wall()))
            key = self._lookup(self._webhook.secret_env).encode()
            if not key:
                raise DeliveryFailed(f"{self._webhook.secret_env} is not set")
            digest = hmac.new(key, b".".join([at.encode(), body]), hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"t={at},v1={digest}"
        return headers


def _by_url(request: PreparedRequest) -> PreparedRequest:
    """Sign a request with the user and the password that its URL holds, if it does."""
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user, password)(request) if user or password else request


def _plain(note: AlertNote) -> dict[str, Any]:
    return {"state": "began" if note.ended is None else "ended", **asdict(note)}


def _slack(note: AlertNote) -> dict[str, str]:
    if note.ended is None:
        return {"text": _escaped(f"holyroute: {note.rule}: {note.subject}: {note.message}")}
    return {"text": _escaped(f"holyroute: {note.rule} is over: {note.subject}: {note.ending}")}


def _escaped(text: str) -> str:
    """As Slack wants it: names that callers chose make no links and mention nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, DeliveryFailed) else type(error).__name__
