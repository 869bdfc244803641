"""What other systems call things: bounded sets of names, whatever scripts and providers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holyroute.core import verdicts
from holyroute.core.call import VIRTUAL

if TYPE_CHECKING:
    from holyroute.config.credentials import Keyring
    from holyroute.config.schema import Config
    from holyroute.core.events import Events
    from holyroute.core.target import Target
    from holyroute.core.trace import Trace
    from holyroute.core.verdicts import Verdict
    from holyroute.monitoring.monitor import Monitor

DEFAULT = "default"  # the route of calls that name neither a model nor a route

_OUTCOMES = {verdict.name: name.lower() for name, verdict in verdicts.TABLE.items()}


class Router(Protocol):
    """What is to be known of an engine here."""

    config: Config
    events: Events

    @property
    def monitor(self) -> Monitor:
        """What it adds up itself, and the queues that it knows of."""

    @property
    def keyring(self) -> Keyring:
        """Where keys are looked up."""


def router_of(door: Any) -> Router:
    """The engine behind a door; a router is one itself."""
    router: Router = getattr(door, "router", door)
    return router


def secrets_of(router: Router) -> tuple[str, ...]:
    """All keys that a router's configuration names."""
    return router.keyring.secrets(router.config.providers.values())


def outcome(verdict: Verdict) -> str:
    """A row of the error table as one word: `answered`, `read_timeout`, `rate_limited`. There are about forty."""
    return _OUTCOMES[verdict.name]


class Names:
    """The models, providers and routes of configurations, and one word for all the rest.

    A time series for whatever a script may name would be a leak: each stays in memory for the life of the process.
    """

    def __init__(self, other: str) -> None:
        self._other = other
        self._targets: dict[str, tuple[Target, ...]] = {}
        self._providers: set[str] = set()
        self._asked = {DEFAULT}

    def add(self, config: Config) -> None:
        """Know the names of one more configuration."""
        for name, target in config.models.items():
            self._targets[name] = (*self._targets.get(name, ()), target)
        self._providers |= config.providers.keys()
        self._asked |= config.models.keys()
        for task, priorities in config.routes.items():
            self._asked |= {f"{VIRTUAL}{task}", *(f"{VIRTUAL}{task}/{priority}" for priority in priorities)}

    def asked(self, trace: Trace) -> str:
        """What the caller named: a model, a route such as `route:simple_qa/fast`, or `default`."""
        asked = trace.asked or DEFAULT
        return asked if asked in self._asked else self._other

    def knows(self, target: Target) -> bool:
        """Whether a target is one of a configuration."""
        return target in self._targets.get(target.name, ())

    def provider(self, target: Target) -> str:
        """The name of a configured provider."""
        name = target.provider.name
        return name if name in self._providers else self._other

    def model(self, target: Target) -> str:
        """The name of a configured model."""
        return target.name if self.knows(target) else self._other
