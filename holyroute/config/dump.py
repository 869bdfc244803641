"""Settings as TOML text: what is in effect, and a file to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holyroute.config import toml
from holyroute.config.validate import SETTINGS
from holyroute.core.target import Price, Provider

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holyroute.config.schema import Config


def dump(config: Config) -> str:
    """The effective settings as TOML that `load` reads back to an equal `Config`, but for its `source`.

    Built-in routes and failover lists are comments: in a file they would be the owner's consent to leave a host.
    Names of variables are shown, keys never: a `Config` holds none.
    """
    return "\n".join(_lines(config))


def template() -> str:
    """A commented file to start from; `load` takes it as it is."""
    return Path(__file__).with_name("template.toml").read_text(encoding="utf-8")


def _lines(config: Config) -> Iterator[str]:
    yield f"# Settings in effect. Read from: {toml.string(config.source)}"
    for section in SETTINGS:
        yield from _section(section, getattr(config, section))
    yield from _table(["latency"], config.latency)
    for provider in config.providers.values():
        yield from _table(["providers", provider.name], _fields(provider))
    for target in config.models.values():
        yield from _table(["models", target.name], _fields(target))
    for task, routes in config.routes.items():
        yield from _lists(
            ["routes", task], {priority: (route.targets, route.owned) for priority, route in routes.items()}
        )
    yield from _lists(["failover"], {entry.source: (entry.targets, entry.owned) for entry in config.failover.values()})


def _section(name: str, record: Any) -> Iterator[str]:
    """The plain settings of a section, then its tables of records."""
    found = _fields(record)
    nested = [key for key in found if any(is_dataclass(one) for one in _values(getattr(record, key)))]
    yield from _table([name], {key: value for key, value in found.items() if key not in nested})
    for key in nested:
        for inner, value in found[key].items():
            yield from _table([name, key, inner], value)


def _values(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, Mapping) else ()


def _table(place: list[str], table: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"[{'.'.join(map(toml.key, place))}]"
    for name, value in table.items():
        yield f"{toml.key(name)} = {toml.value(value)}"


def _lists(place: list[str], lists: Mapping[str, tuple[tuple[str, ...], bool]]) -> Iterator[str]:
    yield from _table(place, {name: targets for name, (targets, owned) in lists.items() if owned})
    for name, (targets, owned) in lists.items():
        if not owned:
            yield f"# built in: {toml.key(name)} = {toml.value(targets)}"


def _fields(record: Any) -> dict[str, Any]:
    """A record's fields as a file writes them; what is not set is left out."""
    names = [field.name for field in fields(record) if field.init and field.name != "name"]
    written = {name: _plain(getattr(record, name)) for name in names}
    return {name: value for name, value in written.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Provider):
        return value.name
    if isinstance(value, Price):
        return {"input": value.input, "output": value.output}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if is_dataclass(value):
        return _fields(value)
    return sorted(value) if isinstance(value, frozenset) else value
