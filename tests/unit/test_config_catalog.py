"""What holyroute knows without a file of its owner's."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from holyroute.config.load import load
from holyroute.config.schema import BreakerSettings, RetrySettings, RoutingSettings, TimeSettings

if TYPE_CHECKING:
    from pathlib import Path

    from holyroute.config.schema import Config

DEEPSEEK = "deepseek-chat"
GEMINI = "gemini-2.5-flash-preview-05-20"
GPT = "gpt-4.1"
MINI = "gpt-4.1-mini"
SONNET_35 = "claude-3-5-sonnet-latest"
SONNET_4 = "claude-sonnet-4-20250514"

# input and output in USD per million tokens, requests and tokens per minute, latency class
MODELS = {
    GPT: ("8.00", "32.00", 500, 150_000, "normal"),
    MINI: ("1.00", "4.00", None, None, "normal"),
    SONNET_4: ("4.50", "18.00", 400, 120_000, "normal"),
    SONNET_35: ("3.50", "15.00", None, None, "normal"),
    GEMINI: ("2.50", "10.00", 1_000, 500_000, "fast"),
    DEEPSEEK: ("0.42", "1.68", 2_000, 1_000_000, "fast"),
}
ROUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "simple_qa": {
        "fast": (DEEPSEEK, GEMINI, MINI),
        "normal": (DEEPSEEK, MINI, SONNET_35),
        "high": (MINI, SONNET_35, GPT),
    },
    "code_generation": {
        "fast": (MINI, DEEPSEEK),
        "normal": (MINI, SONNET_4, GPT),
        "high": (GPT, SONNET_4),
    },
    "complex_reasoning": {
        "fast": (SONNET_35, GPT),
        "normal": (GPT, SONNET_4),
        "high": (GPT, SONNET_4),
    },
    "general": {
        "fast": (DEEPSEEK, GEMINI, MINI),
        "normal": (MINI, SONNET_35, GPT),
        "high": (GPT, SONNET_4),
    },
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The built-in configuration, on a machine without any file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return load(env={}, cwd_file=False)


def test_models_carry_the_published_prices_limits_and_latency_classes(config: Config) -> None:
    """Six models, their exact prices, limits only where one is published, and the class of their average latency."""
    found = {
        name: (
            str(model.price.input) if model.price else None,
            str(model.price.output) if model.price else None,
            model.rpm,
            model.tpm,
            model.latency,
        )
        for name, model in config.models.items()
    }

    assert found == MODELS


def test_models_are_asked_for_by_their_own_names_at_the_gateway(config: Config) -> None:
    """Every built-in model goes over the wire under its own name, to the one gateway."""
    found = {name: (model.name, model.model, model.provider.name) for name, model in config.models.items()}

    assert found == {name: (name, name, "holysheep") for name in MODELS}


def test_the_gateway_names_its_variable_and_holds_no_key(config: Config) -> None:
    """The provider has its URL, the variable of its key and the beginning of a well-formed one."""
    gateway = config.providers["holysheep"]

    assert list(config.providers) == ["holysheep"]
    assert gateway.base_url == "https://api.holysheep.ai/v1"
    assert gateway.api_key_env == ("HOLYSHEEP_API_KEY",)
    assert gateway.api_key_prefix == "sk-holysheep-"


def test_routes_are_the_published_ones(config: Config) -> None:
    """Four tasks in three priorities, in the published order."""
    found = {
        task: {priority: route.targets for priority, route in routes.items()} for task, routes in config.routes.items()
    }
    labels = {(route.task, route.priority) for routes in config.routes.values() for route in routes.values()}

    assert found == ROUTES
    assert labels == {(task, priority) for task, routes in ROUTES.items() for priority in routes}


def test_failover_stays_at_the_gateway(config: Config) -> None:
    """The one built-in failover list starts and ends at the gateway."""
    found = {source: entry.targets for source, entry in config.failover.items()}

    assert found == {"holysheep": (DEEPSEEK, GEMINI, MINI)}


def test_nothing_built_in_is_the_owners_consent(config: Config) -> None:
    """No built-in route or failover list allows a prompt to leave the host its call was written for."""
    owned = [entry.owned for entry in config.failover.values()]
    owned += [route.owned for routes in config.routes.values() for route in routes.values()]

    assert set(owned) == {False}


def test_latency_classes_are_in_seconds(config: Config) -> None:
    """Fast is up to one second, normal three, slow ten."""
    assert config.latency == {"fast": 1.0, "normal": 3.0, "slow": 10.0}


def test_settings_have_their_defaults(config: Config) -> None:
    """Without a word from anybody each section is its record's defaults."""
    assert (config.time, config.retry) == (TimeSettings(), RetrySettings())
    assert (config.breaker, config.routing) == (BreakerSettings(), RoutingSettings())
    assert config.source == "built-in"


def test_prices_are_exact(config: Config) -> None:
    """0.42 is 0.42, not the nearest binary fraction."""
    price = config.models[DEEPSEEK].price

    assert price is not None
    assert price.input == Decimal("0.42")
    assert price.blended == Decimal("0.735")
