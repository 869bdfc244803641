"""One send of a session, for every drop-in door: read it, route it, show the answer as requests would."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import RequestsCookieJar
from requests.exceptions import RequestException
from requests.hooks import dispatch_hook
from requests.utils import resolve_proxies
from urllib3.util.timeout import Timeout

from holyroute import context
from holyroute.attempting import Scope, scope_of
from holyroute.config.credentials import fingerprint, is_disabled
from holyroute.config.environment import settings_for
from holyroute.core.call import Call, Origin
from holyroute.core.explain import printable
from holyroute.core.reply import rewind
from holyroute.dialects.translation import recognise
from holyroute.failure import as_requests_would, exception_of, without_key
from holyroute.queueing import parking_for
from holyroute.transport.adapter import PER_OPERATION, Adapter, twin_of
from holyroute.transport.stream import StreamBody, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Session

    from holyroute.config.schema import TimeSettings
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.door import Door
    from holyroute.engine.attempt import Attempt, Candidate

logger = logging.getLogger("holyroute")

# Headers that differ from request to request and change no answer.
_PASSING_HEADERS = {"baggage", "cache-control", "content-length", "sentry-trace", "traceparent", "tracestate"}

_substituted: set[tuple[str, str, str]] = set()  # what was already said: model asked, target, text


@dataclass(frozen=True, slots=True)
class Sending:
    """One call of `Session.send`.

    Attributes:
        door: whose settings it is routed by.
        session: whose `send` was called; every attempt runs on it.
        below: the `send` that would have been called without us.
        settings: the keywords of the call.
    """

    door: Door
    session: Session
    below: Callable[..., Response]
    settings: dict[str, Any]

    def send(self, request: PreparedRequest) -> Response:
        """Route the request if it is a chat completion; everything else goes through untouched."""
        scope = scope_of(request)
        if scope is not None:
            with scope.around(request):
                return self.below(request, **self.settings)
        call = self.read(request)
        if call is None:
            return self.below(request, **self.settings)
        router = self.door.router
        park = parking_for(router, self.door.routing_options.queue)
        alone = self._alone(call)
        if alone is not None:
            outcome = router.observe(call, alone, lambda _: self._send_untouched(request), park)
            if outcome.cached is None:
                return _untouched(outcome)
        self._complete(request)
        if alone is None:
            outcome = router.send(call, self._attempt, park)
        return self._show(outcome, call)

    def read(self, request: PreparedRequest) -> Call | None:
        """The request as a call, if it is a chat completion."""
        if not isinstance(request, PreparedRequest) or is_disabled():
            return None
        found = recognise(request)
        patience = _patience(self.settings.get("timeout"), self.door.router.config.time) if found else None
        if found is None or patience is None:
            return None
        connect, read = patience
        stream = bool(self.settings.get("stream", self.session.stream))
        cache_control, scope = self._cache_terms(request)
        return Call(
            model=found.model,
            body=found.body,
            deadline=max(self.door.router.config.time.dropin_deadline, connect + read),
            connect=connect,
            read=read,
            limit=math.inf if stream else connect + read,
            stream=stream,
            cache_control=cache_control,
            scope=scope,
            selection=context.selection(self.door.routing_options.selection),
            origin=Origin(request=request, base_url=found.dialect.base_url(request), dialect=found.dialect.name),
        )

    def _cache_terms(self, request: PreparedRequest) -> tuple[str, str]:
        """The Cache-Control of a request, and a scope that only requests with the same credentials share.

        Everything that may hold one counts: URL, headers, certificate. Where an adapter or an authentication of the
        user's own may add one later, nothing is kept.
        """
        session = self.session
        if not self.door.router.config.cache.dropin or _hooks(request, of_auth=True):
            return "no-store", ""
        if not isinstance(twin_of(session.get_adapter(url=request.url or "")), Adapter):
            return "no-store", ""
        transport = [self.settings.get(name, getattr(session, name)) for name in ("verify", "cert")]
        headers = sorted((name.lower(), value) for name, value in request.headers.items())
        scope = [request.url, transport, [header for header in headers if header[0] not in _PASSING_HEADERS]]
        said = request.headers.get("Cache-Control", "")
        return said.decode("latin-1") if isinstance(said, bytes) else said, fingerprint(repr(scope))

    def _alone(self, call: Call) -> Candidate | None:
        """What the script wrote, if nobody else could answer: then there is nothing to route."""
        router = self.door.router
        candidates = router.candidates(call)
        if not candidates or not candidates[0].own or any(map(router.wallet.can_pay, candidates[1:])):
            return None
        for other in candidates[1:]:
            _say_once(call, other.target, "%s at %s cannot stand in for %s: its key is not set")
        return candidates[0]

    def _send_untouched(self, request: PreparedRequest) -> Response:
        with Scope(self.session).around():
            return self.below(request, **self.settings)

    def _complete(self, request: PreparedRequest) -> None:
        """The defaults that `requests.Session.send` itself fills in, and shows to hooks."""
        for name in ("stream", "verify", "cert"):
            self.settings.setdefault(name, getattr(self.session, name))
        if "proxies" not in self.settings:
            self.settings["proxies"] = resolve_proxies(request, self.session.proxies, self.session.trust_env)

    def _attempt(self, attempt: Attempt) -> Response:
        """One attempt. What it raises shows the script's own request, except where a redirect led the script on."""
        origin, request = attempt.call.origin, attempt.request()
        assert origin is not None
        try:
            return self._ask(attempt, request)
        except RequestException as error:
            if error.request is request or not attempt.with_callers_key:
                error.request = origin.request
            raise

    def _ask(self, attempt: Attempt, request: PreparedRequest) -> Response:
        """Send through the session's own adapters; hooks of the user wait for the final answer."""
        request.hooks = {"response": _hooks(request, of_auth=True)}
        settings = dict(self.settings, timeout=(attempt.patience.connect, attempt.patience.read))
        scope = self._scope(with_callers_key=attempt.with_callers_key)

        def send() -> Response:
            with scope.around(request):
                if not isinstance(self.session.get_adapter(url=request.url or ""), Adapter):
                    attempt.notes.append(PER_OPERATION)
                return timed(attempt, lambda: self.below(request, **settings))

        if attempt.with_callers_key:
            return send()
        settings |= self._settings_abroad(attempt) | {"allow_redirects": False}
        return without_key(attempt, request, send)

    def _scope(self, *, with_callers_key: bool) -> Scope:
        """What the session shows an attempt: our twins of its adapters; with another key, no cookies and no auth."""
        adapters = OrderedDict((prefix, twin_of(adapter)) for prefix, adapter in self.session.adapters.items())
        if with_callers_key:
            return Scope(self.session, {"adapters": adapters})
        return Scope(self.session, {"adapters": adapters, "cookies": RequestsCookieJar(), "auth": None})

    def _settings_abroad(self, attempt: Attempt) -> dict[str, Any]:
        """At another host, proxies, verify and cert are those of that host, not the script's."""
        origin, provider = attempt.call.origin, attempt.target.provider
        assert origin is not None
        if provider.serves(origin.request.url or ""):
            return {}
        settings = settings_for(provider, trust_env=self.session.trust_env)
        return {name: settings[name] for name in ("proxies", "verify", "cert")}

    def _show(self, outcome: Outcome, call: Call) -> Response:
        """The final answer, as the script expects it: its own request, its hooks, the time of the whole call."""
        trace, origin = outcome.trace, call.origin
        assert trace is not None
        assert origin is not None
        request = origin.request
        if self.door.routing_options.raise_on_exhaustion and not outcome.is_final:
            raise exception_of(outcome)
        response = as_requests_would(outcome, origin)
        if not response.history:
            response.request = request
            response.url = request.url or ""
        if call.stream and not isinstance(response.raw, StreamBody):
            rewind(response)
        response.elapsed = timedelta(seconds=trace.seconds)
        setattr(response, context.TRACE, trace)
        if trace.answered_by is not None and call.route_name is None:
            _say_once(call, trace.answered_by)
        hooks = {"response": _hooks(request, of_auth=False)}
        told = {name: value for name, value in self.settings.items() if name != "allow_redirects"}
        response.history = [dispatch_hook("response", hooks, hop, **told) for hop in response.history]
        return dispatch_hook("response", hooks, response, **told)


def _untouched(outcome: Outcome) -> Response:
    """What the only candidate said, as it said it."""
    if outcome.response is None:
        assert outcome.error is not None
        assert outcome.trace is not None
        if outcome.trace.parking:  # else it is shown as it came
            setattr(outcome.error, context.TRACE, outcome.trace)
            outcome.error.add_note(f"holyroute: {outcome.trace.parking}")
        raise outcome.error
    setattr(outcome.response, context.TRACE, outcome.trace)
    return outcome.response


def _hooks(request: PreparedRequest, *, of_auth: bool) -> list[Any]:
    """The user's response hooks, or those of authentication: digest answers a 401 from a hook, within the attempt."""
    hooks = (request.hooks or {}).get("response") or []
    listed = [hooks] if callable(hooks) else hooks
    return [hook for hook in listed if isinstance(getattr(hook, "__self__", None), AuthBase) is of_auth]


def _patience(timeout: Any, settings: TimeSettings) -> tuple[float, float] | None:
    """Connect and read seconds of a `timeout=`; None where it is none that requests knows, which requests will say."""
    if isinstance(timeout, Timeout):
        clock = timeout.clone()
        clock.start_connect()  # a total has no read timeout before
        timeout = (Timeout.resolve_default_timeout(clock.connect_timeout), clock.read_timeout)
    parts = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(parts) != 2:
        return None
    connect, read = map(_seconds, parts, (settings.dropin_connect, settings.dropin_read))
    return None if connect is None or read is None else (connect, read)


def _seconds(value: Any, default: float) -> float | None:
    """One part of a timeout; None where urllib3 or the socket would refuse it."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        return None
    seconds = float(value)
    return seconds if 0 < seconds < math.inf else None


def _say_once(call: Call, answered: Target, text: str = "%s at %s answered in place of %s") -> None:
    """The first time a substitute answers for a model, or cannot, its owner should know."""
    assert call.origin is not None
    at_home = answered.provider.serves(call.origin.request.url or "")
    asked = call.model or ""
    said = (asked, answered.key, text)
    if (at_home and answered.model == asked) or said in _substituted:
        return
    _substituted.add(said)
    names = printable(answered.name), answered.provider.base_url, printable(asked)
    logger.warning(f"{text}; this is said once", *names)  # noqa: G004 - our own text
