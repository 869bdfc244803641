"""One call puts the settings together: built-in catalogue < file < environment < keywords."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holyroute.config.find import find, parse
from holyroute.config.handover import consent
from holyroute.config.problems import BUILT_IN, ENVIRONMENT, KEYWORDS, Place
from holyroute.config.validate import SETTINGS, build

if TYPE_CHECKING:
    from holyroute.config.schema import Config

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd_file: bool = True,
    **overrides: Any,
) -> Config:
    """Everything holyroute was told, checked and resolved.

    Args:
        path: The TOML file. Otherwise `HOLYROUTE_CONFIG` names it, or `./holyroute.toml` or the user's own is taken.
        env: The environment; `os.environ` unless given. `HOLYROUTE_TIME_DEADLINE=30` sets `time.deadline`;
            `HOLYROUTE_FAILOVER_TO` names a model or provider that calls may go to wherever they fail.
        cwd_file: Whether `./holyroute.toml` may be read. Even then it must be writable by its owner, the user, alone.
        **overrides: Sections in the shape of the file: `time={"deadline": 30}`.

    Tables merge key by key, lists replace. Routes and failover lists that come from anywhere but the catalogue are
    `owned`: the owner's consent to leave the caller's host.

    Raises:
        ConfigurationError: If a named file cannot be read, or anything in it or elsewhere is wrong.
    """
    env = os.environ if env is None else env
    found = find(path, env, cwd_file=cwd_file)
    tables: dict[str, Any] = {}
    origins: dict[Place, str] = {}
    _merge(tables, _catalog(), (origins, BUILT_IN))
    if found is not None:
        _merge(tables, found.tables, (origins, found.path))
    _merge(tables, _from_environment(env), (origins, ENVIRONMENT))
    _merge(tables, overrides, (origins, KEYWORDS))
    _merge(tables, consent(env, tables), (origins, ENVIRONMENT))
    return build(tables, origins, BUILT_IN if found is None else found.path)


def restored(text: str, source: str = BUILT_IN) -> Config:
    """What `dump` wrote, as an equal `Config`: no file and no environment of this process has a say."""
    tables: dict[str, Any] = {}
    origins: dict[Place, str] = {}
    _merge(tables, _catalog(), (origins, BUILT_IN))
    _merge(tables, parse(text.encode(), source), (origins, source))
    return build(tables, origins, source)


@cache
def _catalog() -> dict[str, Any]:
    return parse(Path(__file__).with_name("catalog.toml").read_bytes(), BUILT_IN)


def _merge(
    tables: dict[str, Any], layer: Mapping[str, Any], note: tuple[dict[Place, str], str], place: Place = ()
) -> None:
    """Lay a layer over tables, in place, and note for every place who wrote it last."""
    origins, source = note
    for key, value in layer.items():
        name = str(key)
        origins[*place, name] = source
        if not isinstance(value, Mapping):
            tables[name] = value
            continue
        if not isinstance(tables.get(name), dict):
            tables[name] = {}
        _merge(tables[name], value, note, (*place, name))


def _from_environment(env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The scalar settings in `HOLYROUTE_<SECTION>_<KEY>`; an empty variable counts as unset."""
    layer: dict[str, dict[str, Any]] = {}
    for section, defaults in SETTINGS.items():
        prefix = f"HOLYROUTE_{section.upper()}_"
        for variable in env:
            if variable.startswith(prefix) and (text := env[variable].strip()):
                key = variable.removeprefix(prefix).lower()
                layer.setdefault(section, {})[key] = _typed(text, getattr(defaults, key, ""))
    return layer


def _typed(text: str, default: Any) -> Any:
    """A text in the type of its default; where it does not fit it stays a text, for the checks to refuse."""
    try:
        if isinstance(default, bool):
            return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
        if isinstance(default, int):
            return int(text)
        return Decimal(text) if isinstance(default, float) else text
    except (ValueError, InvalidOperation):
        return text
