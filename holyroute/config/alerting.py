"""The tables of `[alerts]`: rules, and webhooks."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holyroute.config import values
from holyroute.config.problems import WrongValueError
from holyroute.config.schema import AlertRule, MonitoringSettings, Webhook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.config.problems import Place
    from holyroute.config.reader import Reader
    from holyroute.config.values import Check

# What a rule of each kind says, with the defaults of a rule of the owner's; None: it has to be said.
_MINIMUM_CALLS, _WINDOW = 20, 300.0
KINDS: dict[str, dict[str, Any]] = {
    "latency": {"limit": None, "minimum_calls": _MINIMUM_CALLS, "window": _WINDOW},
    "error_rate": {"limit": None, "minimum_calls": _MINIMUM_CALLS, "window": _WINDOW},
    "consecutive": {"limit": None},
    "breaker": {},
    "key": {},
    "queue": {"limit": None, "window": _WINDOW},
}
_LIMITS: dict[str, Check] = {
    "latency": values.positive,
    "error_rate": values.part,
    "consecutive": values.count,
    "queue": values.count,
}
_OF_MODELS = ("latency", "error_rate", "consecutive", "breaker")
FORMATS = ("json", "slack")


def alerts(reader: Reader, tables: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The checked rules and webhooks of the section."""
    place = ("alerts",)
    rules = reader.table((*place, "rules"), tables.get("rules", {}))
    webhooks = reader.table((*place, "webhooks"), tables.get("webhooks", {}))
    for name, table in (("rules", rules), ("webhooks", webhooks)):
        reader.named((*place, name), table, values.text)
    found_rules = {name: _rule(reader, name, table, sections) for name, table in rules.items()}
    found_webhooks = {name: _webhook(reader, name, table) for name, table in webhooks.items()}
    return {
        "rules": {name: rule for name, rule in found_rules.items() if rule is not None},
        "webhooks": {name: webhook for name, webhook in found_webhooks.items() if webhook is not None},
    }


def _rule(reader: Reader, name: str, table: Any, sections: Mapping[str, Mapping[str, Any]]) -> AlertRule | None:
    place = ("alerts", "rules", name)
    checks: dict[str, Check] = {
        "when": values.one_of("kind of alert", KINDS),
        "limit": lambda value: value,
        "minimum_calls": values.count,
        "window": values.positive,
        "models": values.listed(values.one_of("model", sections["models"])),
        "enabled": values.flag,
    }
    found = reader.record(place, table, checks, required=[] if name in KINDS else ["when"])
    kind = found.setdefault("when", name)
    if kind not in KINDS:  # said to be missing or wrong already
        return None
    _check_fit(reader, place, kind, found)
    rule = AlertRule(name=name, **{**KINDS[kind], **found})
    return rule if rule.window is None else replace(rule, window=_within(reader, place, rule.window, sections))


def _check_fit(reader: Reader, place: Place, kind: str, found: dict[str, Any]) -> None:
    """What a rule says has to be something that its kind has."""
    for key in sorted(found.keys() & {"limit", "minimum_calls", "window"} - KINDS[kind].keys()):
        if reader.is_owned((*place, key)):
            reader.problems.add((*place, key), f"expected none for an alert of kind {kind!r}")
        del found[key]  # a built-in rule that was made one of another kind
    if found.get("models") and kind not in _OF_MODELS:
        reader.problems.add((*place, "models"), f"expected none for an alert of kind {kind!r}")
    if kind not in _LIMITS:
        return
    if "limit" not in found:
        reader.problems.add((*place, "limit"), "missing")
        return
    try:
        found["limit"] = _LIMITS[kind](found["limit"])
    except WrongValueError as error:
        reader.problems.add_wrong((*place, "limit"), error)


def _within(reader: Reader, place: Place, seconds: float, sections: Mapping[str, Mapping[str, Any]]) -> float:
    """The window of a rule: nothing is remembered for longer than monitoring looks back."""
    longest = sections["monitoring"].get("window", MonitoringSettings().window)
    if isinstance(longest, bool) or not isinstance(longest, int | float | Decimal) or seconds <= longest:
        return seconds  # what is no number is said to be wrong where it stands
    if reader.is_owned((*place, "window")):
        reader.problems.add((*place, "window"), f"expected at most monitoring.window ({longest}), got {seconds}")
    return float(longest)


def _webhook(reader: Reader, name: str, table: Any) -> Webhook | None:
    place = ("alerts", "webhooks", name)
    checks: dict[str, Check] = {
        "url_env": values.variable_name,
        "format": values.one_of("format", FORMATS),
        "secret_env": lambda value: "" if value == "" else values.variable_name(value),
        "timeout": values.positive,
    }
    found = reader.record(place, table, checks, required=["url_env"])
    return Webhook(name=name, **found) if "url_env" in found else None
