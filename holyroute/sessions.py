"""The drop-in door: a `requests.Session` whose chat completions survive an outage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from urllib3.util.retry import Retry

from holyroute import _surface, context
from holyroute.attempting import PlainSession, show_attempts
from holyroute.config.environment import merged_settings
from holyroute.core.call import Selection
from holyroute.door import RoutingOptions
from holyroute.dropin import Sending
from holyroute.exceptions import ConfigurationError
from holyroute.transport.adapter import close_twin
from holyroute.transport.settings import pooled_adapter

if TYPE_CHECKING:
    import os

    from requests import PreparedRequest, Response
    from requests.sessions import SessionRedirectMixin as SessionRedirectMixin  # noqa: PLC0414 - found here by type checkers
    from requests.sessions import merge_hooks as merge_hooks  # noqa: PLC0414
    from requests.sessions import merge_setting as merge_setting  # noqa: PLC0414

    from holyroute.config.schema import Config
    from holyroute.engine.router import Router


class RoutingMixin(PlainSession):
    """Routes the chat completions that a session sends; everything else goes through untouched.

    Mix it into a session class of your own: `class MySession(RoutingMixin, TheirSession)`. The one hook is `send`.
    """

    __attrs__ = [*PlainSession.__attrs__, "routing_options"]  # noqa: RUF012 - the pickle contract of requests
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
        return Sending(self, self, super().send, kwargs).send(request)

    def close(self) -> None:
        """Close the idle connections, those of routed attempts too."""
        for adapter in self.adapters.values():
            close_twin(adapter)
        super().close()


show_attempts(RoutingMixin)


class Session(RoutingMixin):
    """A `requests.Session` that answers through an outage.

    Args:
        config: a TOML file, a loaded Config, or None for the configuration found by the usual rules.
        task: default task for its calls, such as `simple_qa`.
        priority: default priority: `fast`, `normal` or `high`.
        retries: urllib3 retries for requests that are not routed, such as `standard_retry()`; none by default.
        raise_on_exhaustion: raise `AllTargetsFailed` instead of showing what requests would have shown.
        queue: park what nobody can answer: a file, or True for the configured one; see `parking`.
        router: an engine to share with others.
    """

    def __init__(  # noqa: PLR0913 - each is a keyword of its own for the user
        self,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        task: str | None = None,
        priority: str | None = None,
        retries: Retry | None = None,
        raise_on_exhaustion: bool = False,
        queue: bool | str | os.PathLike[str] | None = None,
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
            queue=queue,
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


_surface.hand_on(__name__)  # for scripts that reach into `requests.sessions`
