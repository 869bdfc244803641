"""Whom a call may ask, in which order."""

from __future__ import annotations

import difflib
import logging
import random
from typing import TYPE_CHECKING

from holyroute.core.target import FailoverList, Provider, Target
from holyroute.engine.attempt import Candidate
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holyroute.config.schema import Config
    from holyroute.core.call import Call, Origin
    from holyroute.core.target import Route
    from holyroute.core.trace import Trace

logger = logging.getLogger("holyroute")

ORDERS = ("listed", "cheapest", "fastest", "weighted")
_FAR = float("inf")


class Selector:
    """Turns a call into an ordered list of candidates.

    Args:
        config: routes, models, failover lists.
        observed: seconds that a target takes (95th percentile of late), or None where it was not seen.
    """

    def __init__(self, config: Config, observed: Callable[[Target], float | None]) -> None:
        self._config = config
        self._observed = observed
        self._warned: set[str] = set()

    def candidates(self, call: Call, trace: Trace | None = None) -> list[Candidate]:
        """Everybody who may be asked, first choice first; those who cannot serve the call are noted and left out."""
        found = self._of_client(call) if call.origin is None else self._of_script(call, call.origin, trace)
        able = []
        for candidate in found:
            lack = None if candidate.own else _lack(call, candidate.target)
            if lack is None:
                able.append(candidate)
            elif trace is not None:
                trace.skip(candidate.target, lack)
        return able[:1] if call.selection.direct else able

    def route(self, task: str, priority: str) -> Route:
        """The route for a task and priority; what is unknown falls back to the defaults, with one warning each."""
        defaults = self._config.routing
        routes = self._config.routes
        if task not in routes:
            self._warn(f"unknown task {task!r}: using {defaults.task!r}", task, routes)
            task = defaults.task
        priorities = routes[task]
        if priority not in priorities:
            self._warn(f"unknown priority {priority!r} for task {task!r}: using {defaults.priority!r}", "", ())
            priority = defaults.priority if defaults.priority in priorities else next(iter(priorities))
        return priorities[priority]

    def _warn(self, message: str, word: str, known: Iterable[str]) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s%s", message, _did_you_mean(word, known))

    def _of_client(self, call: Call) -> list[Candidate]:
        """A `Client` names models, one model, a route, or nothing at all."""
        if call.selection.models is not None:
            targets = self._order(call, self._targets(call.selection.models), default="listed")
        elif call.model is not None and call.route_name is None:
            first = self.known(call.model)
            others, _ = self._substitutes(first, self._failovers(first))
            targets = [first, *self._order(call, others)]
        else:
            targets = self._order(call, self._targets(self._route_of(call).targets))
        return [Candidate(target=target) for target in targets]

    def _route_of(self, call: Call) -> Route:
        task, priority = call.route_name or ("", "")
        selection, defaults = call.selection, self._config.routing
        return self.route(task or selection.task or defaults.task, priority or selection.priority or defaults.priority)

    def _of_script(self, call: Call, origin: Origin, trace: Trace | None) -> list[Candidate]:
        """What the script wrote comes first; then substitutes, other hosts only where their owner agreed."""
        own = self._origin_target(call, origin)
        entries = self._failovers(own)
        if call.selection.task is not None or call.route_name is not None:
            route = self._route_of(call)
            entries.insert(0, FailoverList("", route.targets, route.owned))
        agreed, others = self._substitutes(own, entries)
        if trace is not None:
            for target in others:
                trace.skip(target, f"prompts for {own.provider.host} may go there only by an entry of your own")
        substitutes = [Candidate(target=one, at_home=_same_host(own, one)) for one in self._order(call, agreed)]
        first = [] if call.route_name is not None else [Candidate(target=own, own=True, at_home=True)]
        return [*first, *substitutes]

    def _failovers(self, own: Target) -> list[FailoverList]:
        """The list for a target, if there is one: the most specific counts; an empty one means nobody."""
        return [self._config.failover[source] for source in _sources(own) if source in self._config.failover][:1]

    def _substitutes(self, own: Target, entries: list[FailoverList]) -> tuple[list[Target], list[Target]]:
        """Who may answer in place of a target, and who could but for the owner's consent; each once."""
        agreed: dict[str, Target] = {}
        others: dict[str, Target] = {}
        for entry in entries:
            for target in self._targets(entry.targets):
                (agreed if _agrees(entry, own, target) else others)[target.key] = target
        agreed.pop(own.key, None)
        return list(agreed.values()), [target for key, target in others.items() if key not in agreed]

    def _origin_target(self, call: Call, origin: Origin) -> Target:
        """What the script wrote, as a target: a configured one where host and model match."""
        url = origin.request.url or ""
        providers = [provider for provider in self._config.providers.values() if provider.serves(url)]
        provider = max(providers, key=lambda one: len(one.base_url), default=None)
        if provider is None:
            host = Provider(name="", base_url=origin.base_url).host
            provider = Provider(name=host, base_url=origin.base_url)
        model = call.model or ""
        configured = (one for one in self._config.models.values() if one.provider.name == provider.name)
        return next((one for one in configured if one.model == model), None) or Target(
            name=model, model=model, provider=provider
        )

    def known(self, name: str) -> Target:
        """The target of this name; ConfigurationError with the nearest name where there is none."""
        target = self._config.models.get(name)
        if target is None:
            hint = _did_you_mean(name, self._config.models)
            raise ConfigurationError(f"models: expected a configured model, got {name!r}{hint}")
        return target

    def _targets(self, names: Iterable[str]) -> list[Target]:
        """Targets by name, each once."""
        return list({target.key: target for target in map(self.known, names)}.values())

    def _order(self, call: Call, targets: list[Target], *, default: str = "") -> list[Target]:
        order = call.selection.order or default or self._config.routing.order
        if order not in ORDERS:
            raise ConfigurationError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
        if order == "cheapest":
            targets = sorted(targets, key=lambda one: _FAR if one.price is None else float(one.price.blended))
        elif order == "fastest":
            targets = sorted(targets, key=self._seconds)
        elif order == "weighted":
            # weighted draw without replacement (Efraimidis and Spirakis, 2006)
            targets = sorted(targets, key=lambda one: -(random.random() ** (1 / one.weight)))  # noqa: S311
        limit = self._latency_limit(call)
        return targets if limit is None else sorted(targets, key=lambda one: self._seconds(one) > limit)

    def _seconds(self, target: Target) -> float:
        """What a target takes as observed, else what its latency class promises."""
        observed = self._observed(target)
        return self._config.latency.get(target.latency, _FAR) if observed is None else observed

    def _latency_limit(self, call: Call) -> float | None:
        wanted = call.selection.max_latency
        if wanted is None:
            return None
        if wanted not in self._config.latency:
            known = ", ".join(self._config.latency)
            raise ConfigurationError(f"max_latency: expected one of {known}, got {wanted!r}")
        return self._config.latency[wanted]


def _same_host(own: Target, other: Target) -> bool:
    return own.provider.base_url == other.provider.base_url


def _agrees(entry: FailoverList, own: Target, target: Target) -> bool:
    """Whether prompts for `own` may go to `target`: nobody's prompt leaves its host because we think it should.

    Within one host the built-in lists suffice. Another host needs an entry of the owner's; and from a private host to a
    public one the entry must name the host it starts from.
    """
    if _same_host(own, target):
        return True
    names_host = entry.source in {own.provider.host, own.provider.name}
    leaves_home = own.provider.is_private and not target.provider.is_private
    return entry.owned and (names_host or not leaves_home)


def _sources(target: Target) -> tuple[str, ...]:
    """Under which names a failover list for a target may stand: its model first, then its host, then its provider."""
    return tuple(dict.fromkeys((target.name, target.provider.host, target.provider.name)))


def _lack(call: Call, target: Target) -> str | None:
    """Why a target cannot serve a call, as far as its owner declared; what is unknown is tried."""
    missing = call.needs - target.supports if target.supports is not None else frozenset()
    if missing:
        return f"does not support {', '.join(sorted(missing))}"
    if target.max_output is not None and (call.max_tokens or 0) > target.max_output:
        return f"writes at most {target.max_output} tokens"
    return None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
