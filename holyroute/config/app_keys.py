"""The settings of a web app: keys `HOLYROUTE_*` of its `app.config`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holyroute.config.credentials import Credential
from holyroute.config.problems import shown, unknown
from holyroute.config.schema import Config
from holyroute.exceptions import ConfigurationError

PREFIX = "HOLYROUTE_"
TOKEN, TOKEN_ENV = "HOLYROUTE_TOKEN", "HOLYROUTE_TOKEN_ENV"
KEYS = ("CONFIG", "SETTINGS", "TASK", "PRIORITY", "URL_PREFIX", "TOKEN", "TOKEN_ENV")
_URL_PREFIX = "/holyroute"
_KEYS_OF_THEIR_OWN = {"config", "task", "priority", "router"}

_PATH = re.compile(r"(/[\w.~-]+)+")
_TOKEN = re.compile(r"[\x21-\x7e]{16,}")
_EXPECTED = (
    "expected at least 16 printable ASCII characters without spaces; "
    "python -c 'import secrets; print(secrets.token_urlsafe())' makes some"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """What `app.config` says.

    Attributes:
        config: `HOLYROUTE_CONFIG`: a TOML file or a Config; None for the configuration found by the usual rules.
        settings: `HOLYROUTE_SETTINGS`: overrides in the shape of the file, `{"time": {"deadline": 30}}`.
        task: `HOLYROUTE_TASK`: default task of the client's calls.
        priority: `HOLYROUTE_PRIORITY`: default priority.
        url_prefix: `HOLYROUTE_URL_PREFIX`: where the pages are, `/holyroute` by default.
        token: `HOLYROUTE_TOKEN`, or what the variable named by `HOLYROUTE_TOKEN_ENV` holds: opens the pages.
    """

    config: Config | str | os.PathLike[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    priority: str | None = None
    url_prefix: str = _URL_PREFIX
    token: Credential | None = None


def app_settings(config: Mapping[str, Any], env: Mapping[str, str] | None = None) -> AppSettings:
    """Read and check the keys of an `app.config`.

    Args:
        config: all keys of the app; those of others are left alone.
        env: where the variable of `HOLYROUTE_TOKEN_ENV` is looked up; `os.environ` unless given.

    Raises:
        ConfigurationError: a key is unknown or its value wrong; a token is never shown.
    """
    known = [PREFIX + key for key in KEYS]
    for key in config:
        if str(key).startswith(PREFIX) and key not in known:
            raise ConfigurationError(f"{_place(key)}: {unknown('key', key, known)}")
    return AppSettings(
        config=_checked(config, "HOLYROUTE_CONFIG", (str, os.PathLike, Config), "a file or a Config"),
        settings=_sections(config),
        task=_checked(config, "HOLYROUTE_TASK", (str,), "a name"),
        priority=_checked(config, "HOLYROUTE_PRIORITY", (str,), "a name"),
        url_prefix=_prefix(config),
        token=_token(config, os.environ if env is None else env),
    )


def token_named(name: str, env: Mapping[str, str] | None = None) -> Credential | None:
    """The token in an environment variable; None where it is not set.

    Raises:
        ConfigurationError: what it holds cannot be a token; it is not shown.
    """
    variables = os.environ if env is None else env
    if not variables.get(name, "").strip():
        return None
    if not _TOKEN.fullmatch(variables[name].strip()):
        raise ConfigurationError(f"variable {name}: {_EXPECTED}")
    return Credential(name, variables[name].strip())


def _checked(config: Mapping[str, Any], key: str, types: tuple[type, ...], expected: str) -> Any:
    value = config.get(key)
    if value is not None and not isinstance(value, types):
        raise ConfigurationError(f"{_place(key)}: expected {expected}, got {shown((key,), value)}")
    return value


def _sections(config: Mapping[str, Any]) -> Mapping[str, Any]:
    key = "HOLYROUTE_SETTINGS"
    sections: Mapping[str, Any] = _checked(config, key, (Mapping,), "a dict of sections") or {}
    for name in sections:
        if name in _KEYS_OF_THEIR_OWN or not isinstance(name, str):
            raise ConfigurationError(f"{_place(key)}: expected sections of the file, such as 'time', got {name!r}")
    return sections


def _prefix(config: Mapping[str, Any]) -> str:
    key = "HOLYROUTE_URL_PREFIX"
    value: str | None = _checked(config, key, (str,), "a path such as '/holyroute'")
    if value is None:
        return _URL_PREFIX
    if not _PATH.fullmatch(value):
        raise ConfigurationError(f"{_place(key)}: expected a path such as '/holyroute', got {shown((key,), value)}")
    return value


def _token(config: Mapping[str, Any], env: Mapping[str, str]) -> Credential | None:
    # As in the keyring, a token is never a local variable where something is raised
    name = _checked(config, TOKEN_ENV, (str,), "the name of an environment variable")
    if config.get(TOKEN) is not None and name is not None:
        raise ConfigurationError(f"{_place(TOKEN)}: expected it or {TOKEN_ENV}, got both")
    if name is not None:
        found = token_named(name, env)
        if found is None:
            raise ConfigurationError(f"{_place(TOKEN_ENV)}: variable {name} is not set: {_EXPECTED}")
        return found
    if config.get(TOKEN) is None:
        return None
    if not isinstance(config[TOKEN], str) or not _TOKEN.fullmatch(config[TOKEN]):
        raise ConfigurationError(f"{_place(TOKEN)}: {_EXPECTED}")
    return Credential(TOKEN, config[TOKEN])


def _place(key: Any) -> str:
    return f"app.config[{key!r}]"
