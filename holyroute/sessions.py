"""The drop-in door: a `requests.Session` whose chat completions survive an outage."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import requests
from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import RequestsCookieJar
from requests.hooks import dispatch_hook
from requests.utils import resolve_proxies
from urllib3.util.retry import Retry
from urllib3.util.timeout import Timeout

from holyroute import context
from holyroute.config.credentials import fingerprint, is_disabled
from holyroute.config.environment import merged_settings, settings_for
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.reply import rewind
from holyroute.dialects import openai
from holyroute.exceptions import ConfigurationError
from holyroute.failure import as_requests_would, exception_of, without_key
from holyroute.transport.adapter import PER_OPERATION, Adapter, close_twin, twin_of
from holyroute.transport.settings import pooled_adapter
from holyroute.transport.stream import StreamBody, timed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from holyroute.config.schema import Config, TimeSettings
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.engine.attempt import Attempt, Candidate
    from holyroute.engine.router import Router

logger = logging.getLogger("holyroute")

_attempting: ContextVar[bool] = ContextVar("holyroute_attempting", default=False)
# Headers that differ from request to request and change no answer.
_PASSING_HEADERS = {"baggage", "cache-control", "content-length", "sentry-trace", "traceparent", "tracestate"}

_substituted: set[tuple[str, str, str]] = set()  # what was already said: model asked, target, text


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """How a session routes. Pickles with it; the router does not."""

    config: Config | str | os.PathLike[str] | None = None
    selection: Selection = Selection()  # noqa: RUF009 - frozen
    raise_on_exhaustion: bool = False


class RoutingMixin(requests.Session):
    """Routes the chat completions that a session sends; everything else goes through untouched.

    Mix it into a session class of your own: `class MySession(RoutingMixin, TheirSession)`. The one hook is `send`.
    """

    __attrs__ = [*requests.Session.__attrs__, "routing_options"]  # noqa: RUF012 - the pickle contract of requests
    routing_options: RoutingOptions = RoutingOptions()
    _router: Router | None = None

    @property
    def router(self) -> Router:
        """The engine behind this session; sessions with the same configuration file share it."""
        if self._router is None:
            with context.SHARED.lock:
                if self._router is None:
                    self._router = context.router_for(self.routing_options.config)
        return self._router

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send a prepared request, as `requests.Session.send` does."""
        call = None if _attempting.get() else self._read(request, kwargs)
        if call is None:
            return super().send(request, **kwargs)
        alone = self._alone(call)
        if alone is not None:
            outcome = self.router.observe(call, alone, lambda _: self._send_untouched(request, kwargs))
            if outcome.cached is None:
                return self._show_untouched(outcome)
        self._complete(request, kwargs)
        if alone is None:
            outcome = self.router.send(call, lambda attempt: self._attempt(attempt, kwargs))
        return self._show(outcome, call, kwargs)

    def close(self) -> None:
        """Close the idle connections, those of routed attempts too."""
        for adapter in self.adapters.values():
            close_twin(adapter)
        super().close()

    def _read(self, request: PreparedRequest, kwargs: dict[str, Any]) -> Call | None:
        """The request as a call, if it is a chat completion."""
        if not isinstance(request, PreparedRequest) or is_disabled():
            return None
        found = openai.read(request)
        patience = _patience(kwargs.get("timeout"), self.router.config.time) if found else None
        if found is None or patience is None:
            return None
        connect, read = patience
        stream = bool(kwargs.get("stream", self.stream))
        cache_control, scope = self._cache_terms(request, kwargs)
        return Call(
            model=found[0],
            body=found[1],
            deadline=max(self.router.config.time.dropin_deadline, connect + read),
            connect=connect,
            read=read,
            limit=math.inf if stream else connect + read,
            stream=stream,
            cache_control=cache_control,
            scope=scope,
            selection=context.selection(self.routing_options.selection),
            origin=Origin(request=request, base_url=openai.base_url(request)),
        )

    def _cache_terms(self, request: PreparedRequest, kwargs: dict[str, Any]) -> tuple[str, str]:
        """The Cache-Control of a request, and a scope that only requests with the same credentials share.

        Everything that may hold one counts: URL, headers, certificate. Where an adapter or an authentication of the
        user's own may add one later, nothing is kept.
        """
        if not self.router.config.cache.dropin or _hooks(request, of_auth=True):
            return "no-store", ""
        if not isinstance(twin_of(self.get_adapter(url=request.url or "")), Adapter):
            return "no-store", ""
        transport = [kwargs.get(name, getattr(self, name)) for name in ("verify", "cert")]
        headers = sorted((name.lower(), value) for name, value in request.headers.items())
        scope = [request.url, transport, [header for header in headers if header[0] not in _PASSING_HEADERS]]
        said = request.headers.get("Cache-Control", "")
        return said.decode("latin-1") if isinstance(said, bytes) else said, fingerprint(repr(scope))

    def _alone(self, call: Call) -> Candidate | None:
        """What the script wrote, if nobody else could answer: then there is nothing to route."""
        candidates = self.router.candidates(call)
        if not candidates or not candidates[0].own or any(map(self.router.wallet.can_pay, candidates[1:])):
            return None
        for other in candidates[1:]:
            _say_once(call, other.target, "%s at %s cannot stand in for %s: its key is not set")
        return candidates[0]

    def _complete(self, request: PreparedRequest, kwargs: dict[str, Any]) -> None:
        """The defaults that `requests.Session.send` itself fills in, and shows to hooks."""
        for name in ("stream", "verify", "cert"):
            kwargs.setdefault(name, getattr(self, name))
        if "proxies" not in kwargs:
            kwargs["proxies"] = resolve_proxies(request, self.proxies, self.trust_env)

    def _send_untouched(self, request: PreparedRequest, kwargs: dict[str, Any]) -> Response:
        with _attempt_under_way():
            return super().send(request, **kwargs)

    def _show_untouched(self, outcome: Outcome) -> Response:
        if outcome.response is None:
            assert outcome.error is not None
            raise outcome.error
        setattr(outcome.response, context.TRACE, outcome.trace)
        return outcome.response

    def _attempt(self, attempt: Attempt, kwargs: dict[str, Any]) -> Response:
        """One attempt, through the session's own adapters; hooks of the user wait for the final answer."""
        request = attempt.request()
        request.hooks = {"response": _hooks(request, of_auth=True)}
        settings = dict(kwargs, timeout=(attempt.patience.connect, attempt.patience.read))
        session = self._for_attempt(with_callers_key=attempt.with_callers_key)
        if not isinstance(session.get_adapter(url=request.url or ""), Adapter):
            attempt.notes.append(PER_OPERATION)

        def send() -> Response:
            with _attempt_under_way():
                return timed(attempt, lambda: super(RoutingMixin, session).send(request, **settings))

        if attempt.with_callers_key:
            return send()
        settings |= self._settings_abroad(attempt) | {"allow_redirects": False}
        return without_key(attempt, request, send)

    def _settings_abroad(self, attempt: Attempt) -> dict[str, Any]:
        """At another host, proxies, verify and cert are those of that host, not the script's."""
        origin, provider = attempt.call.origin, attempt.target.provider
        assert origin is not None
        if provider.serves(origin.request.url or ""):
            return {}
        settings = settings_for(provider, trust_env=self.trust_env)
        return {name: settings[name] for name in ("proxies", "verify", "cert")}

    def _for_attempt(self, *, with_callers_key: bool) -> RoutingMixin:
        """This session for one attempt: our twins of its adapters; with another key, an empty cookie jar."""
        adapters = OrderedDict((prefix, twin_of(adapter)) for prefix, adapter in self.adapters.items())
        if with_callers_key and adapters == self.adapters:
            return self
        double = object.__new__(type(self))
        double.__dict__.update(self.__dict__)
        double.adapters = adapters
        if not with_callers_key:
            double.cookies = RequestsCookieJar()
            double.auth = None
        return double

    def _show(self, outcome: Outcome, call: Call, kwargs: dict[str, Any]) -> Response:
        """The final answer, as the script expects it: its own request, its hooks, the time of the whole call."""
        trace, origin = outcome.trace, call.origin
        assert trace is not None
        assert origin is not None
        request = origin.request
        if self.routing_options.raise_on_exhaustion and not outcome.is_final:
            raise exception_of(outcome)
        response = as_requests_would(outcome, request)
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
        told = {name: value for name, value in kwargs.items() if name != "allow_redirects"}
        response.history = [dispatch_hook("response", hooks, hop, **told) for hop in response.history]
        return dispatch_hook("response", hooks, response, **told)


class Session(RoutingMixin):
    """A `requests.Session` that answers through an outage.

    Args:
        config: a TOML file, a loaded Config, or None for the configuration found by the usual rules.
        task: default task for its calls, such as `simple_qa`.
        priority: default priority: `fast`, `normal` or `high`.
        retries: urllib3 retries for requests that are not routed, such as `standard_retry()`; none by default.
        raise_on_exhaustion: raise `AllTargetsFailed` instead of showing what requests would have shown.
        router: an engine to share with others.
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        task: str | None = None,
        priority: str | None = None,
        retries: Retry | None = None,
        raise_on_exhaustion: bool = False,
        router: Router | None = None,
    ) -> None:
        super().__init__()
        if router is not None and config is not None:
            raise ConfigurationError("router: expected an engine or a configuration, got both")
        for prefix in ("https://", "http://"):
            self.mount(prefix, pooled_adapter(retries or 0))
        self.routing_options = RoutingOptions(
            config=config if router is None else router.config,
            selection=Selection(task=task, priority=priority),
            raise_on_exhaustion=raise_on_exhaustion,
        )
        self._router = router

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> dict[str, Any]:
        """As in requests; the environment is walked again only when it has changed."""
        return merged_settings(self, url, proxies, stream, verify, cert)


def session() -> Session:
    """A new session, as `requests.session()` makes one."""
    return Session()


def standard_retry() -> Retry:
    """Retries for what is not routed: 3 with backoff 1 s, on 500, 502, 503 and 504, for POST and GET."""
    return Retry(
        total=3,
        backoff_factor=1,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=("POST", "GET"),
    )


@contextmanager
def _attempt_under_way() -> Iterator[None]:
    """Redirects call `send` again: an attempt must not be routed once more."""
    token = _attempting.set(True)
    try:
        yield
    finally:
        _attempting.reset(token)


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
    logger.warning(f"{text}; this is said once", answered.name, answered.provider.base_url, asked)  # noqa: G004 - our own text


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What `requests.sessions` has besides, for scripts that reach into it."""
        return getattr(requests.sessions, name)
