"""From merged tables to checked records: what a file may say, and what its parts may refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from holyroute.config import values
from holyroute.config.alerting import alerts
from holyroute.config.problems import WrongValueError
from holyroute.config.reader import Reader
from holyroute.config.schema import Config
from holyroute.core.target import FailoverList, Price, Provider, Route, Target, is_loopback

if TYPE_CHECKING:
    from holyroute.config.problems import Place
    from holyroute.config.values import Check

DIALECTS = ("openai", "azure", "anthropic")
_BELOW_RESOURCE = re.compile(r"/openai(/v1|/deployments/.*)?$")
ORDERS = ("listed", "cheapest", "fastest", "weighted")

_BARE = Config(providers={}, models={}, routes={}, failover={}, latency={})
# The sections of plain settings with their defaults: every field of `Config` whose default is a record.
SETTINGS: dict[str, Any] = {
    field.name: getattr(_BARE, field.name) for field in fields(Config) if is_dataclass(getattr(_BARE, field.name))
}
_SECTIONS = ("providers", "models", "routes", "failover", "latency", *SETTINGS)

_PROVIDER: dict[str, Check] = {
    "base_url": values.base_url,
    "api_key_env": values.variables,
    "api_key_prefix": values.text_or_empty,
    "allow_http": values.flag,
    "verify": values.verify,
    "cert": values.certificate,
    "proxies": values.proxies,
    "dialect": values.one_of("dialect", DIALECTS),
    "api_version": values.text,
    "max_concurrency": values.count,
}
_MODEL: dict[str, Check] = {
    "model": values.text,
    "weight": values.positive,
    "context": values.count,
    "max_output": values.count,
    "supports": values.listed(values.text),
    "rpm": values.count,
    "tpm": values.count,
}
_PRICE: dict[str, Check] = {"input": values.money, "output": values.money}

# A setting is checked by the type of its default, except where zero means "not at all" or the range has another end.
_BY_TYPE: dict[type, Check] = {bool: values.flag, int: values.count, float: values.positive, str: values.text}
_BY_PLACE: dict[tuple[str, str], Check] = {
    ("retry", "short_wait"): values.not_negative,
    ("retry", "backoff_base"): values.not_negative,
    ("retry", "backoff_max"): values.not_negative,
    ("retry", "throttle_min"): values.not_negative,
    ("retry", "throttle_max"): values.not_negative,
    ("breaker", "consecutive_span"): values.not_negative,
    ("breaker", "lease_extra"): values.not_negative,
    ("breaker", "failure_rate"): values.share,
    ("limits", "headroom"): values.share,
    ("limits", "burst"): values.part,
    ("limits", "max_wait"): values.not_negative,
    ("limits", "batch_share"): values.share,
    ("limits", "cut"): values.share,
    ("limits", "factor_min"): values.share,
    ("limits", "recovery"): values.share,
    ("cache", "ttl"): values.not_negative,
    ("cache", "stale"): values.not_negative,
    ("alerts", "flush"): values.not_negative,
    ("alerts", "rules"): lambda table: table,
    ("alerts", "webhooks"): lambda table: table,
    ("routing", "order"): values.one_of("order", ORDERS),
}
_RANGES = (
    ("retry", "backoff_base", "backoff_max"),
    ("retry", "throttle_min", "throttle_max"),
    ("breaker", "open_cap_min", "open_cap_max"),
    ("queue", "backoff_base", "backoff_max"),
)


def build(tables: Mapping[str, Any], origins: Mapping[Place, str], source: str) -> Config:
    """Check merged tables and make the records of them.

    `origins` says which source wrote each place last; routes and failover lists that are not built in are owned.

    Raises:
        ConfigurationError: One line per problem, each with its source and dotted path.
    """
    reader = Reader(tables, origins)
    reader.known((), tables, _SECTIONS, "section")
    sections = {name: reader.section(name) for name in _SECTIONS}
    reader.problems.check()
    latency = _latency(reader, sections["latency"])
    providers = {name: _provider(reader, name, table) for name, table in sections["providers"].items()}
    models = _models(reader, sections)
    routes = _routes(reader, sections)
    failover = _failover(reader, sections)
    settings = {name: _settings(reader, name, sections) for name in SETTINGS}
    reader.problems.check()
    made = {name: Provider(name=name, **found) for name, found in providers.items()}
    return Config(
        providers=made,
        models={name: _target(name, found, made) for name, found in models.items()},
        routes=routes,
        failover=failover,
        latency=latency,
        source=source,
        **settings,
    )


def _latency(reader: Reader, table: Mapping[str, Any]) -> dict[str, float]:
    reader.named(("latency",), table, values.text)
    return reader.checked(("latency",), table, lambda _: values.positive)


def _provider(reader: Reader, name: str, table: Any) -> dict[str, Any]:
    place = ("providers", name)
    reader.named(place[:1], [name], values.text)
    found = reader.record(place, table, _PROVIDER, required=["base_url"])
    url = found.get("base_url", "")
    if url.lower().startswith("http:") and not (found.get("allow_http") or is_loopback(url)):
        message = "expected https: plain http sends keys and prompts in clear text; allow_http = true accepts that"
        reader.problems.add((*place, "base_url"), message)
    for key, message in _unfit(found.get("dialect", "openai"), found):
        reader.problems.add_wrong((*place, key), WrongValueError(message, found[key]))
    return found


def _unfit(dialect: str, provider: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is well written, and does not fit the dialect."""
    url = provider.get("base_url", "")
    if url and dialect == "anthropic" and not url.endswith("/v1"):
        yield "base_url", 'expected a URL that ends in "/v1" for dialect "anthropic", got {}'
    if dialect == "azure" and _BELOW_RESOURCE.search(url):
        yield "base_url", 'expected the URL of the resource for dialect "azure", without "/openai", got {}'
    if dialect != "azure" and "api_version" in provider:
        yield "api_version", 'expected none but for dialect "azure", got {}'


def _models(reader: Reader, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    checks = _MODEL | {
        "provider": values.one_of("provider", sections["providers"]),
        "latency": values.one_of("latency class", sections["latency"]),
        "price": lambda table: table,
    }
    reader.named(("models",), sections["models"], values.text)
    models = {}
    for name, table in sections["models"].items():
        found = reader.record(("models", name), table, checks, required=["provider"])
        if "price" in found:
            found["price"] = reader.record(("models", name, "price"), found["price"], _PRICE, required=_PRICE)
        models[name] = found
    return models


def _target(name: str, found: dict[str, Any], providers: Mapping[str, Provider]) -> Target:
    found = {"model": name} | found | {"provider": providers[found["provider"]]}
    if "price" in found:
        found["price"] = Price(**found["price"])
    if "supports" in found:
        found["supports"] = frozenset(found["supports"])
    return Target(name=name, **found)


def _routes(reader: Reader, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Route]]:
    check = values.listed(values.one_of("model", sections["models"]), empty=False)
    reader.named(("routes",), sections["routes"], values.route_part)
    routes = {}
    for task, table in sections["routes"].items():
        place = ("routes", task)
        lists = reader.checked(place, reader.table(place, table), lambda _: check)
        reader.named(place, lists, values.route_part)
        routes[task] = {
            priority: Route(task, priority, targets, owned=reader.is_owned((*place, priority)))
            for priority, targets in lists.items()
        }
    return routes


def _failover(reader: Reader, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, FailoverList]:
    check = values.listed(values.one_of("model", sections["models"]))
    reader.named(("failover",), sections["failover"], values.failover_source)
    lists = reader.checked(("failover",), sections["failover"], lambda _: check)
    return {
        source: FailoverList(source, targets, owned=reader.is_owned(("failover", source)))
        for source, targets in lists.items()
    }


def _settings(reader: Reader, section: str, sections: Mapping[str, Mapping[str, Any]]) -> Any:
    defaults = SETTINGS[section]
    checks = _checks_by_type(defaults) | {key: check for (name, key), check in _BY_PLACE.items() if name == section}
    if section == "routing":
        checks |= _routing_checks(sections)
    elif section == "cache":
        checks |= {"tasks": values.table(values.one_of("task", sections["routes"]), values.not_negative)}
    found = reader.record((section,), sections[section], checks)
    if section == "alerts":
        found |= alerts(reader, found, sections)
    record = type(defaults)(**found)
    for low, high in (pair for name, *pair in _RANGES if name == section):
        least, most = getattr(record, low), getattr(record, high)
        if least > most and reader.is_owned((section, low)):
            reader.problems.add((section, low), f"expected at most {high} ({most}), got {least}")
        elif least > most:
            reader.problems.add((section, high), f"expected at least {low} ({least}), got {most}")
    return record


def _checks_by_type(defaults: Any) -> dict[str, Check]:
    checks = {}
    for field in fields(defaults):
        default = getattr(defaults, field.name)
        if not isinstance(default, Mapping):  # what a table may hold is said where it is read
            checks[field.name] = values.text_or_empty if default == "" else _BY_TYPE[type(default)]
    return checks


def _routing_checks(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Check]:
    """The defaults for calls that say nothing must name what exists."""
    routes = [table for table in sections["routes"].values() if isinstance(table, Mapping)]
    return {
        "task": values.one_of("task", sections["routes"]),
        "priority": values.one_of("priority", dict.fromkeys(priority for table in routes for priority in table)),
        "reference": values.one_of("model", ["", *sections["models"]]),
    }
