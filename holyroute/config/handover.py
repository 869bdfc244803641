"""What `holyroute run` hands to a program and its children: all of it travels in the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holyroute.config.find import UNDER_RUN, VARIABLE
from holyroute.config.problems import ENVIRONMENT, unknown
from holyroute.config.schema import ANYWHERE
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILOVER_TO = "HOLYROUTE_FAILOVER_TO"


def environment(site: Path, config: str | None = None, failover_to: str | None = None) -> dict[str, str]:
    """The environment for a program: this process's own, and what makes Python route requests there.

    Args:
        site: the folder with the `sitecustomize` that Python is to run first.
        config: the TOML file; without one `HOLYROUTE_CONFIG`, the user's own file or what is built in counts.
        failover_to: a configured model or provider that calls may go to wherever they fail.
    """
    env = dict(os.environ)
    before = env["PYTHONPATH"].split(os.pathsep) if env.get("PYTHONPATH") else []
    env["PYTHONPATH"] = os.pathsep.join([str(site), *(entry for entry in before if entry != str(site))])
    env[UNDER_RUN] = "1"
    if config is not None:
        env[VARIABLE] = str(Path(config).expanduser().absolute())  # the program may change its folder
    if failover_to is not None:
        env[FAILOVER_TO] = failover_to
    return env


def consent(env: Mapping[str, str], tables: Mapping[str, Any]) -> dict[str, Any]:
    """The failover list that `HOLYROUTE_FAILOVER_TO` stands for, as a layer of settings.

    Raises:
        ConfigurationError: If it names neither a configured model nor a provider.
    """
    name = env.get(FAILOVER_TO, "").strip()
    if not name:
        return {}
    models, providers = (_names(tables, section) for section in ("models", "providers"))
    if name not in models and name not in providers:
        hint = unknown(f"model or provider {name!r}", name, [*models, *providers])
        raise ConfigurationError(f"{ENVIRONMENT}: {FAILOVER_TO}: {hint}")
    found = [name] if name in models else [model for model, table in models.items() if _provider(table) == name]
    return {"failover": {ANYWHERE: found}}


def _names(tables: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section that is not yet checked."""
    table = tables.get(section)
    return table if isinstance(table, dict) else {}


def _provider(table: Any) -> Any:
    return table.get("provider") if isinstance(table, dict) else None
