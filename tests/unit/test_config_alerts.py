"""The tables of `[alerts]` and `[monitoring]`: rules, webhooks, and what is said of wrong ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.config.dump import dump, template
from holyroute.config.load import load
from holyroute.config.schema import AlertRule, MonitoringSettings, Webhook
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = {
    "latency": AlertRule(name="latency", when="latency", limit=5.0, minimum_calls=20, window=300.0),
    "error_rate": AlertRule(name="error_rate", when="error_rate", limit=0.05, minimum_calls=20, window=300.0),
    "consecutive": AlertRule(name="consecutive", when="consecutive", limit=3),
    "breaker": AlertRule(name="breaker", when="breaker"),
    "key": AlertRule(name="key", when="key"),
    "queue": AlertRule(name="queue", when="queue", limit=100, window=300.0),
}


def problems(**settings: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, cwd_file=False, **settings)
    return [line.removeprefix("keywords: ") for line in str(caught.value).splitlines()]


def test_the_rules_that_hold_without_a_file() -> None:
    """Latency above 5 s, more than 5 % errors, three in a row, circuits, keys, a growing queue."""
    config = load(env={}, cwd_file=False)

    assert config.alerts.rules == BUILT_IN
    assert (config.alerts.enabled, config.alerts.log, config.alerts.webhooks) == (True, True, {})
    assert config.monitoring == MonitoringSettings(enabled=True, window=300.0, log_prompts=False)


def test_a_built_in_rule_is_changed_in_part() -> None:
    """Only what differs is written; all others stay."""
    config = load(env={}, cwd_file=False, alerts={"rules": {"latency": {"limit": 2}, "queue": {"enabled": False}}})

    assert config.alerts.rules == BUILT_IN | {
        "latency": replace(BUILT_IN["latency"], limit=2.0),
        "queue": replace(BUILT_IN["queue"], enabled=False),
    }


def test_a_rule_of_the_owners() -> None:
    """Under any name, of any kind, for some models; with the usual minimum and window."""
    rule = {"when": "error_rate", "limit": 0.01, "models": ["gpt-4.1"]}
    config = load(env={}, cwd_file=False, alerts={"rules": {"careful": rule}})

    assert config.alerts.rules["careful"] == AlertRule(
        name="careful", when="error_rate", limit=0.01, minimum_calls=20, window=300.0, models=("gpt-4.1",)
    )


def test_a_webhook() -> None:
    """Variables are named; what they hold is nowhere."""
    hook = {"url_env": "ALERT_URL", "secret_env": "ALERT_SECRET", "format": "slack", "timeout": 3}
    config = load(env={"ALERT_URL": "https://hooks.example/x"}, cwd_file=False, alerts={"webhooks": {"ops": hook}})

    assert config.alerts.webhooks == {
        "ops": Webhook(name="ops", url_env="ALERT_URL", secret_env="ALERT_SECRET", format="slack", timeout=3.0)
    }
    assert "hooks.example" not in repr(config)


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ({"enabled": 1}, "alerts.enabled: expected true or false, got 1"),
        ({"flush": -1}, "alerts.flush: expected a number of 0 or more, got -1"),
        ({"rule": {}}, "alerts.rule: unknown key; did you mean 'rules'?"),
        ({"rules": 3}, "alerts.rules: expected a table, got 3"),
        ({"rules": {"mine": 3}}, "alerts.rules.mine: expected a table, got 3"),
        ({"rules": {"mine": {}}}, "alerts.rules.mine.when: missing"),
        ({"rules": {"mine": {"when": "slow"}}}, "alerts.rules.mine.when: unknown kind of alert 'slow'; known: latency"),
        ({"rules": {"mine": {"when": "latency"}}}, "alerts.rules.mine.limit: missing"),
        ({"rules": {"latency": {"limit": 0}}}, "alerts.rules.latency.limit: expected a number greater than 0, got 0"),
        ({"rules": {"latency": {"limit": "5"}}}, "alerts.rules.latency.limit: expected a number, got '5'"),
        (
            {"rules": {"error_rate": {"limit": 5}}},
            "alerts.rules.error_rate.limit: expected a number greater than 0 and less than 1, got 5",
        ),
        ({"rules": {"consecutive": {"limit": 2.5}}}, "alerts.rules.consecutive.limit: expected an integer, got 2.5"),
        (
            {"rules": {"breaker": {"limit": 2}}},
            "alerts.rules.breaker.limit: expected none for an alert of kind 'breaker'",
        ),
        (
            {"rules": {"consecutive": {"window": 5}}},
            "alerts.rules.consecutive.window: expected none for an alert of kind 'consecutive'",
        ),
        (
            {"rules": {"latency": {"minimum_calls": 0}}},
            "alerts.rules.latency.minimum_calls: expected an integer greater than 0, got 0",
        ),
        (
            {"rules": {"latency": {"window": 301}}},
            "alerts.rules.latency.window: expected at most monitoring.window (300.0), got 301.0",
        ),
        (
            {"rules": {"latency": {"models": ["gpt4.1"]}}},
            "alerts.rules.latency.models[0]: unknown model 'gpt4.1'; did you mean 'gpt-4.1'?",
        ),
        (
            {"rules": {"key": {"models": ["gpt-4.1"]}}},
            "alerts.rules.key.models: expected none for an alert of kind 'key'",
        ),
        ({"rules": {"latency": {"limits": 1}}}, "alerts.rules.latency.limits: unknown key; did you mean 'limit'?"),
        ({"webhooks": {"ops": {}}}, "alerts.webhooks.ops.url_env: missing"),
        (
            {"webhooks": {"ops": {"url_env": "https://hooks.example/secret"}}},
            "alerts.webhooks.ops.url_env: expected the name of an environment variable, not the key",
        ),
        (
            {"webhooks": {"ops": {"url_env": "A", "format": "teams"}}},
            "alerts.webhooks.ops.format: unknown format 'teams'; known: json, slack",
        ),
        (
            {"webhooks": {"ops": {"url_env": "A", "url": "https://hooks.example/secret"}}},
            "alerts.webhooks.ops.url: unknown key; did you mean 'url_env'?",
        ),
        (
            {"webhooks": {"ops": {"url_env": "A", "timeout": 0}}},
            "alerts.webhooks.ops.timeout: expected a number greater than 0, got 0",
        ),
    ],
)
def test_what_is_wrong_is_named(alerts: dict[str, Any], expected: str) -> None:
    """The path to the bad value, and what was expected; never a secret."""
    (line,) = problems(alerts=alerts)

    assert line.startswith(expected)
    assert "secret" not in line


@pytest.mark.parametrize(
    ("monitoring", "expected"),
    [
        ({"window": 0}, "monitoring.window: expected a number greater than 0, got 0"),
        ({"window": "5"}, "monitoring.window: expected a number, got '5'"),
        ({"log_prompt": True}, "monitoring.log_prompt: unknown key; did you mean 'log_prompts'?"),
    ],
)
def test_monitoring_is_checked(monitoring: dict[str, Any], expected: str) -> None:
    """As every section; rules that look back for longer say nothing more of it."""
    (line,) = problems(monitoring=monitoring)

    assert line.startswith(expected)


def test_a_shorter_window_shortens_the_built_in_rules() -> None:
    """Nobody has to change four places; a window that the owner wrote is his mistake."""
    config = load(env={}, cwd_file=False, monitoring={"window": 60})

    assert {rule.window for rule in config.alerts.rules.values()} == {None, 60.0}
    assert problems(monitoring={"window": 60}, alerts={"rules": {"latency": {"window": 90}}}) == [
        "alerts.rules.latency.window: expected at most monitoring.window (60), got 90.0"
    ]


def test_a_built_in_rule_of_another_kind() -> None:
    """What the built-in rule said and its new kind has not is left out."""
    config = load(env={}, cwd_file=False, alerts={"rules": {"latency": {"when": "breaker"}}})

    assert config.alerts.rules["latency"] == AlertRule(name="latency", when="breaker")


def test_the_environment_switches() -> None:
    """As for every plain setting."""
    env = {"HOLYROUTE_ALERTS_ENABLED": "false", "HOLYROUTE_MONITORING_WINDOW": "120"}
    config = load(env=env, cwd_file=False)

    assert (config.alerts.enabled, config.monitoring.window) == (False, 120.0)


def test_what_is_shown_reads_back(tmp_path: Path) -> None:
    """`holyroute config show` as a file means the same, rules and webhooks included."""
    alerts = {
        "log": False,
        "rules": {"a rule": {"when": "consecutive", "limit": 7, "models": ["gpt-4.1"]}},
        "webhooks": {"ops": {"url_env": "ALERT_URL", "secret_env": "ALERT_SECRET"}},
    }
    config = load(env={}, cwd_file=False, alerts=alerts)
    path = tmp_path / "shown.toml"
    path.write_text(dump(config), encoding="utf-8")
    again = load(path, env={})

    assert again.alerts == config.alerts
    assert '[alerts.rules."a rule"]' in dump(config).splitlines()


def test_the_template_shows_them(tmp_path: Path) -> None:
    """Its examples hold when the signs of comments are taken away."""
    text = template()
    tables = text[text.index("#[monitoring]") : text.index("#[routing]")]
    lines = [line.removeprefix("#") for line in tables.splitlines()]
    path = tmp_path / "holyroute.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    config = load(path, env={})

    assert config.alerts.webhooks["operations"].url_env == "ALERT_URL"
    assert config.alerts.rules.keys() > BUILT_IN.keys()
    assert {name: config.alerts.rules[name] for name in BUILT_IN} == BUILT_IN
