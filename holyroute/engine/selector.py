"""Whom a call may ask, in which order."""

from __future__ import annotations

import difflib
import logging
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from holyroute.config.schema import ANYWHERE
from holyroute.core.call import route_named
from holyroute.core.target import FailoverList, Provider, Target
from holyroute.engine.attempt import Candidate
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holyroute.config.schema import Config
    from holyroute.core.call import Call
    from holyroute.core.target import Route
    from holyroute.core.trace import Trace

logger = logging.getLogger("holyroute")

ORDERS = ("listed", "cheapest", "fastest", "weighted")
_FAR = float("inf")
LINEUPS = 1_024  # calls of other models, routes and hosts that are remembered


@dataclass(frozen=True, kw_only=True)
class _Lineup:
    """Who may be asked, as far as the configuration decides: it stays the same, so it is drawn up once."""

    first: tuple[Candidate, ...] = ()  # asked first in any order
    others: tuple[Candidate, ...] = ()
    left_out: tuple[tuple[Target, str], ...] = ()  # and why
    order: str = ""  # what the call says by itself
    why: str  # where they come from, in words

    @cached_property
    def declared(self) -> bool:
        """Whether anybody's abilities were declared, so that a call may want more."""
        targets = (one.target for one in (*self.first, *self.others))
        return any(one.supports is not None or one.max_output is not None for one in targets)


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
        self._lineup = lru_cache(LINEUPS)(self._draw_up)

    def candidates(self, call: Call, trace: Trace | None = None) -> list[Candidate]:
        """Everybody who may be asked, first choice first; those who cannot serve the call are noted and left out."""
        selection = call.selection
        place = (call.origin.base_url, call.origin.dialect) if call.origin is not None else None
        lineup = self._lineup(call.model, selection.models, selection.task, selection.priority, place)
        found = [*lineup.first, *self._order(call, lineup)]
        left_out = _unable(call, found) if lineup.declared else {}
        if trace is not None:
            trace.why = self._why(call, lineup)
            for target, reason in (*lineup.left_out, *left_out.items()):
                trace.skip(target, reason)
        able = [one for one in found if one.target not in left_out] if left_out else found
        return able[:1] if selection.direct else able

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

    def _draw_up(
        self,
        model: str | None,
        models: tuple[str, ...] | None,
        task: str | None,
        priority: str | None,
        place: tuple[str, str] | None,
    ) -> _Lineup:
        """Who may be asked, as far as the configuration alone decides it."""
        named = route_named(model)
        if place is not None:
            route = self._route_of(named, task, priority) if named is not None or task is not None else None
            own = self._origin_target(model or "", *place)
            return self._of_script(own, route, virtual=named is not None)
        if models is not None:
            return _Lineup(others=_candidates(self._targets(models)), order="listed", why="the models of the call")
        if model is not None and named is None:
            first = self.known(model)
            lists = self._failovers(first)
            others, _ = self._substitutes(first, lists)
            why = ", then ".join(["the model of the call", *map(_named, lists)])
            return _Lineup(first=_candidates([first]), others=_candidates(others), why=why)
        route = self._route_of(named, task, priority)
        return _Lineup(others=_candidates(self._targets(route.targets)), why=_named(route))

    def _route_of(self, named: tuple[str, str] | None, task: str | None, priority: str | None) -> Route:
        """The route of a call: what its model name says, then what stands beside it."""
        own_task, own_priority = named or ("", "")
        defaults = self._config.routing
        return self.route(own_task or task or defaults.task, own_priority or priority or defaults.priority)

    def _of_script(self, own: Target, route: Route | None, *, virtual: bool) -> _Lineup:
        """What the script wrote comes first; then substitutes, other hosts only where their owner agreed."""
        entries = self._failovers(own)
        sources: list[Route | FailoverList] = [*([route] if route is not None else []), *entries]
        if route is not None:
            entries.insert(0, FailoverList("", route.targets, route.owned))
        agreed, others = self._substitutes(own, entries)
        refusal = f"prompts for {own.provider.host} may go there only by an entry of your own"
        return _Lineup(
            first=() if virtual else (Candidate(target=own, own=True, at_home=True),),
            others=tuple(Candidate(target=one, at_home=_same_host(own, one)) for one in agreed),
            left_out=tuple((target, refusal) for target in others),
            why=", then ".join([*([] if virtual else ["what the script wrote"]), *map(_named, sources)]),
        )

    def _failovers(self, own: Target) -> list[FailoverList]:
        """The list for a target: the most specific counts, an empty one means nobody; then who may always be asked."""
        lists = self._config.failover
        own_list = [lists[source] for source in _sources(own) if source in lists][:1]
        if ANYWHERE not in lists or (own_list and own_list[0].owned and not own_list[0].targets):
            return own_list
        return [*own_list, lists[ANYWHERE]]

    def _substitutes(self, own: Target, entries: list[FailoverList]) -> tuple[list[Target], list[Target]]:
        """Who may answer in place of a target, and who could but for the owner's consent; each once."""
        agreed: dict[str, Target] = {}
        others: dict[str, Target] = {}
        for entry in entries:
            for target in self._targets(entry.targets):
                (agreed if _agrees(entry, own, target) else others)[target.key] = target
        agreed.pop(own.key, None)
        return list(agreed.values()), [target for key, target in others.items() if key not in agreed]

    def _origin_target(self, model: str, base_url: str, dialect: str) -> Target:
        """What the script wrote, as a target: a configured one where host, dialect and model match."""
        providers = [one for one in self._config.providers.values() if one.serves(f"{base_url}/")]
        providers = [one for one in providers if one.dialect == dialect]
        provider = max(providers, key=lambda one: len(one.base_url), default=None)
        if provider is None:
            host = Provider(name="", base_url=base_url).host
            provider = Provider(name=host, base_url=base_url, dialect=dialect)
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

    def _order(self, call: Call, lineup: _Lineup) -> Sequence[Candidate]:
        """Those behind the first, by what is known of them at the moment."""
        order = call.selection.order or lineup.order or self._config.routing.order
        if order not in ORDERS:
            raise ConfigurationError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
        found: Sequence[Candidate] = lineup.others
        if order == "cheapest":
            found = sorted(found, key=_price)
        elif order == "fastest":
            found = sorted(found, key=self._seconds)
        elif order == "weighted":
            # weighted draw without replacement (Efraimidis and Spirakis, 2006)
            found = sorted(found, key=lambda one: -(random.random() ** (1 / one.target.weight)))  # noqa: S311
        limit = self._latency_limit(call)
        return found if limit is None else sorted(found, key=lambda one: self._seconds(one) > limit)

    def _why(self, call: Call, lineup: _Lineup) -> str:
        """Where those come from who may be asked, and what the call, or the settings, say of their order."""
        selection = call.selection
        order = selection.order or lineup.order or self._config.routing.order
        if order == "listed" and selection.max_latency is None and not selection.direct:
            return lineup.why
        parts = [lineup.why, *([f"{order} first"] if order != "listed" else [])]
        if selection.max_latency is not None:
            parts.append(f"slower than {selection.max_latency} last")
        return "; ".join([*parts, *(["only the first"] if selection.direct else [])])

    def _seconds(self, candidate: Candidate) -> float:
        """What a target takes as observed, else what its latency class promises."""
        target = candidate.target
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


def _named(source: Route | FailoverList) -> str:
    """What a list of targets is called, and whose word it is that they may be asked."""
    whose = "your own" if source.owned else "built in"
    if isinstance(source, FailoverList):
        return f"the failover list of {source.source} ({whose})"
    return f"the route {source.task}/{source.priority} ({whose})"


def _candidates(targets: Iterable[Target]) -> tuple[Candidate, ...]:
    return tuple(Candidate(target=target) for target in targets)


def _same_host(own: Target, other: Target) -> bool:
    return own.provider.base_url == other.provider.base_url


def _agrees(entry: FailoverList, own: Target, target: Target) -> bool:
    """Whether prompts for `own` may go to `target`: nobody's prompt leaves its host because we think it should.

    Within one host the built-in lists suffice. Another host needs an entry of the owner's; and from a private host to a
    public one the entry must name the host it starts from, or say that it holds anywhere.
    """
    if _same_host(own, target):
        return True
    names_host = entry.source in {own.provider.host, own.provider.name, ANYWHERE}
    leaves_home = own.provider.is_private and not target.provider.is_private
    return entry.owned and (names_host or not leaves_home)


def _sources(target: Target) -> tuple[str, ...]:
    """Under which names a failover list for a target may stand: its model first, then its host, then its provider."""
    return tuple(dict.fromkeys((target.name, target.provider.host, target.provider.name)))


def _price(candidate: Candidate) -> float:
    price = candidate.target.price
    return _FAR if price is None else float(price.blended)


def _unable(call: Call, found: list[Candidate]) -> dict[Target, str]:
    """Who cannot serve a call, and why; what the script itself wrote is always tried."""
    needs = call.needs
    lacks = {one.target: _lack(call, needs, one.target) for one in found if not one.own}
    return {target: lack for target, lack in lacks.items() if lack is not None}


def _lack(call: Call, needs: frozenset[str], target: Target) -> str | None:
    """Why a target cannot serve a call, as far as its owner declared; what is unknown is tried."""
    missing = needs - target.supports if target.supports is not None else frozenset()
    if missing:
        return f"does not support {', '.join(sorted(missing))}"
    if target.max_output is not None and (call.max_tokens or 0) > target.max_output:
        return f"writes at most {target.max_output} tokens"
    return None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
