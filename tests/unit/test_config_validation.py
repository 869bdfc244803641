"""What is said about settings that are wrong: where, what was expected, what stood there; never a secret."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.config.load import load
from holyroute.config.problems import dotted, shown
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://backup.example/v1"
NOT_A_KEY = "expected the name of an environment variable, not the key"
HTTP = "expected https: plain http sends keys and prompts in clear text; allow_http = true accepts that"
NO_USER = "expected a URL without user and password"
ONE_LINE = "expected a non-empty string without control characters or outer spaces, got"


@pytest.fixture(autouse=True)
def _no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def problems(**settings: Any) -> list[str]:
    """The lines about wrong keywords, without their source."""
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, cwd_file=False, **settings)
    lines = str(caught.value).splitlines()

    assert all(line.startswith("keywords: ") for line in lines)
    return [line.removeprefix("keywords: ") for line in lines]


def provider(**fields: Any) -> list[str]:
    """What is wrong with one provider, without the place of the provider."""
    lines = problems(providers={"x": {"base_url": URL, **fields}})

    assert all(line.startswith("providers.x.") for line in lines)
    return [line.removeprefix("providers.x.") for line in lines]


def model(**fields: Any) -> list[str]:
    """What is wrong with one model, without the place of the model."""
    lines = problems(models={"gpt-4.1": fields})

    assert all(line.startswith('models."gpt-4.1".') for line in lines)
    return [line.removeprefix('models."gpt-4.1".') for line in lines]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tiem": {}}, "tiem: unknown section; did you mean 'time'?"),
        ({"source": "x"}, "source: unknown section; known: providers, models, "),
        ({"time": {"deadlin": 3}}, "time.deadlin: unknown key; did you mean 'deadline'?"),
        ({"retry": {"zzz": 3}}, "retry.zzz: unknown key; known: blip, short_wait, "),
        ({"time": 3}, "time: expected a table, got 3"),
        ({"time": None}, "time: expected a table, got None"),
        ({"models": []}, "models: expected a table, got a list"),
        ({"models": {"m": "x"}}, "models.m: expected a table, got 'x'"),
        ({"providers": {"p": URL}}, f"providers.p: expected a table, got '{URL}'"),
        ({"routes": {"t": ["gpt-4.1"]}}, "routes.t: expected a table, got a list"),
        ({"latency": {"fast": "1"}}, "latency.fast: expected a number, got '1'"),
        ({"latency": {"fast": 0}}, "latency.fast: expected a number greater than 0, got 0"),
        ({"latency": {"": 1}}, f"latency.\"\": {ONE_LINE} ''"),
        ({"models": {" m": {"provider": "holysheep"}}}, f"models.\" m\": {ONE_LINE} ' m'"),
        ({"providers": {"a\nb": {"base_url": URL}}}, f"providers.\"a\\nb\": {ONE_LINE} 'a\\nb'"),
    ],
)
def test_tables_hold_what_is_known(settings: dict[str, Any], expected: str) -> None:
    """Unknown sections and keys and values in place of tables are named, with what was probably meant."""
    (line,) = problems(**settings)

    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"time": {"deadline": True}}, "time.deadline: expected a number, got true"),
        ({"time": {"deadline": "30"}}, "time.deadline: expected a number, got '30'"),
        ({"time": {"deadline": 0}}, "time.deadline: expected a number greater than 0, got 0"),
        ({"time": {"read": -1.5}}, "time.read: expected a number greater than 0, got -1.5"),
        ({"time": {"read": float("nan")}}, "time.read: expected a finite number, got nan"),
        ({"time": {"read": 10**400}}, "time.read: expected a finite number, got 1000"),
        ({"time": {"read": Decimal("1e400")}}, "time.read: expected a finite number, got 1E+400"),
        ({"time": {"read": {}}}, "time.read: expected a number, got a table"),
        ({"retry": {"blip": 1}}, "retry.blip: expected true or false, got 1"),
        ({"retry": {"sole_attempts": 0}}, "retry.sole_attempts: expected an integer greater than 0, got 0"),
        ({"retry": {"sole_attempts": 2.0}}, "retry.sole_attempts: expected an integer, got 2.0"),
        ({"retry": {"sole_attempts": True}}, "retry.sole_attempts: expected an integer, got true"),
        ({"retry": {"short_wait": -1}}, "retry.short_wait: expected a number of 0 or more, got -1"),
        ({"breaker": {"failure_rate": 1.1}}, "breaker.failure_rate: expected a number greater than 0 and at most 1"),
        ({"breaker": {"failure_rate": 0}}, "breaker.failure_rate: expected a number greater than 0, got 0"),
        ({"breaker": {"open_cap_min": 61}}, "breaker.open_cap_min: expected at most open_cap_max (60.0), got 61.0"),
        ({"breaker": {"open_cap_max": 14}}, "breaker.open_cap_max: expected at least open_cap_min (15.0), got 14.0"),
        ({"retry": {"backoff_max": 0}}, "retry.backoff_max: expected at least backoff_base (0.5), got 0.0"),
        ({"retry": {"throttle_min": 11}}, "retry.throttle_min: expected at most throttle_max (10.0), got 11.0"),
        ({"limits": {"burst": 1}}, "limits.burst: expected a number greater than 0 and less than 1, got 1"),
        ({"limits": {"headroom": 1.1}}, "limits.headroom: expected a number greater than 0 and at most 1, got 1.1"),
        ({"limits": {"max_wait": -1}}, "limits.max_wait: expected a number of 0 or more, got -1"),
        ({"limits": {"window_scale": 0}}, "limits.window_scale: expected a number greater than 0, got 0"),
        ({"cache": {"ttl": -1}}, "cache.ttl: expected a number of 0 or more, got -1"),
        ({"cache": {"max_bytes": 0}}, "cache.max_bytes: expected an integer greater than 0, got 0"),
        ({"cache": {"tasks": 3}}, "cache.tasks: expected a table, got 3"),
        ({"cache": {"tasks": {"simple": 3}}}, "cache.tasks.simple: unknown task 'simple'; did you mean 'simple_qa'?"),
        ({"cache": {"tasks": {"simple_qa": -3}}}, "cache.tasks.simple_qa: expected a number of 0 or more, got -3"),
        ({"cache": {"tasks": {"simple_qa": "x"}}}, "cache.tasks.simple_qa: expected a number, got 'x'"),
        ({"routing": {"order": "fast"}}, "routing.order: unknown order 'fast'; did you mean 'fastest'?"),
        ({"routing": {"order": 3}}, "routing.order: expected a string, got 3"),
        ({"routing": {"task": "simple"}}, "routing.task: unknown task 'simple'; did you mean 'simple_qa'?"),
        ({"routing": {"priority": "hihg"}}, "routing.priority: unknown priority 'hihg'; did you mean 'high'?"),
        ({"routing": {"reference": "gpt4.1"}}, "routing.reference: unknown model 'gpt4.1'; did you mean 'gpt-4.1'?"),
    ],
)
def test_settings_have_types_and_ranges(settings: dict[str, Any], expected: str) -> None:
    """A boolean is no number, a time is above zero, a minimum is below its maximum."""
    (line,) = problems(**settings)

    assert line.startswith(expected)


def test_a_minimum_may_be_its_maximum() -> None:
    """A range of one value is a range."""
    config = load(env={}, cwd_file=False, breaker={"open_cap_min": 60}, retry={"throttle_max": 2})

    assert config.breaker.open_cap_min == config.breaker.open_cap_max
    assert config.retry.throttle_min == config.retry.throttle_max


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"price": {"input": "eight"}}, "price.input: expected a number, got 'eight'"),
        ({"price": {"input": True}}, "price.input: expected a number, got true"),
        ({"price": {"input": None}}, "price.input: expected a number, got None"),
        ({"price": {"input": -1}}, "price.input: expected a number of 0 or more, got -1"),
        ({"price": {"input": "nan"}}, "price.input: expected a finite number, got 'nan'"),
        ({"price": {"input": float("inf")}}, "price.input: expected a finite number, got inf"),
        ({"price": {"inptu": 1}}, "price.inptu: unknown key; did you mean 'input'?"),
        ({"price": 8}, "price: expected a table, got 8"),
        ({"prise": {}}, "prise: unknown key; did you mean 'price'?"),
        ({"rpm": 0}, "rpm: expected an integer greater than 0, got 0"),
        ({"tpm": -5}, "tpm: expected an integer greater than 0, got -5"),
        ({"tpm": "5"}, "tpm: expected an integer, got '5'"),
        ({"context": 1.5}, "context: expected an integer, got 1.5"),
        ({"max_output": False}, "max_output: expected an integer, got false"),
        ({"weight": 0}, "weight: expected a number greater than 0, got 0"),
        ({"weight": -1}, "weight: expected a number greater than 0, got -1"),
        ({"latency": "quick"}, "latency: unknown latency class 'quick'; known: fast, normal, slow"),
        ({"latency": "fats"}, "latency: unknown latency class 'fats'; did you mean 'fast'?"),
        ({"latency": 1}, "latency: expected a string, got 1"),
        ({"provider": "holyship"}, "provider: unknown provider 'holyship'; did you mean 'holysheep'?"),
        ({"provider": 5}, "provider: expected a string, got 5"),
        ({"model": ""}, f"model: {ONE_LINE} ''"),
        ({"model": "a\nb"}, f"model: {ONE_LINE} 'a\\nb'"),
        ({"model": " a"}, f"model: {ONE_LINE} ' a'"),
        ({"model": 4.1}, "model: expected a string, got 4.1"),
        ({"model": object()}, "model: expected a string, got an object of type object"),
        ({"supports": "tools"}, "supports: expected a list, got 'tools'"),
        ({"supports": ["tools", 5]}, "supports[1]: expected a string, got 5"),
        ({"supports": ["tools", "tools"]}, "supports[1]: 'tools' stands in the list twice"),
    ],
)
def test_models_are_checked_field_by_field(fields: dict[str, Any], expected: str) -> None:
    """Prices, limits, weights and names are named with the path to them."""
    assert model(**fields) == [expected]


def test_a_model_needs_a_provider_and_both_prices() -> None:
    """What is missing is named at the place where it should stand."""
    assert problems(models={"new": {"price": {"input": 1}}}) == [
        "models.new.provider: missing",
        "models.new.price.output: missing",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"routes": {"simple_qa": {"fast": ["gpt-4.1", "gpt4.1"]}}},
            "routes.simple_qa.fast[1]: unknown model 'gpt4.1'; did you mean 'gpt-4.1'?",
        ),
        (
            {"routes": {"t": {"fast": ["gpt-4.1@backup"]}}},
            "routes.t.fast[0]: unknown model 'gpt-4.1@backup'; did you mean 'gpt-4.1'?",
        ),
        ({"routes": {"t": {"fast": []}}}, "routes.t.fast: expected at least one name, got an empty list"),
        ({"routes": {"t": {"fast": "gpt-4.1"}}}, "routes.t.fast: expected a list, got 'gpt-4.1'"),
        ({"routes": {"t": {"fast": [3]}}}, "routes.t.fast[0]: expected a string, got 3"),
        ({"routes": {"t": {"x": ["gpt-4.1"] * 2}}}, "routes.t.x[1]: 'gpt-4.1' stands in the list twice"),
        ({"routes": {"a/b": {"x": ["gpt-4.1"]}}}, 'routes."a/b": expected a name without a slash'),
        ({"routes": {"t": {"a/b": ["gpt-4.1"]}}}, 'routes.t."a/b": expected a name without a slash'),
        (
            {"failover": {"api.openai.com": ["zzz"]}},
            "failover.\"api.openai.com\"[0]: unknown model 'zzz'; known: gpt-4.1, gpt-4.1-mini, ",
        ),
        ({"failover": {"h": "gpt-4.1"}}, "failover.h: expected a list, got 'gpt-4.1'"),
        (
            {"failover": {URL: ["gpt-4.1"]}},
            f'failover."{URL}": expected a host such as "api.openai.com", a provider or a model, not a URL',
        ),
    ],
)
def test_routes_and_failover_lists_name_models_that_exist(settings: dict[str, Any], expected: str) -> None:
    """A list names the item that is wrong, and what was probably meant."""
    (line,) = problems(**settings)

    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"base_url": 3}, "base_url: expected a string, got 3"),
        ({"base_url": "api.openai.com/v1"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "ftp://host"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "https://"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "https://host:port"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "https://[::1"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "https://a host/v1"}, 'base_url: expected a URL such as "https://host/v1", got '),
        ({"base_url": "https://h/v1?x=1"}, "base_url: expected a URL without a query or fragment"),
        ({"base_url": "https://h/v1#x"}, "base_url: expected a URL without a query or fragment"),
        ({"base_url": f"{URL}/chat/completions/"}, "base_url: expected the base URL, without /chat/completions, got "),
        ({"base_url": "http://llm.example/v1"}, f"base_url: {HTTP}"),
        ({"base_url": "http://10.0.0.5:8000/v1"}, f"base_url: {HTTP}"),
        ({"base_url": "HTTP://10.0.0.5:8000/v1", "allow_http": False}, f"base_url: {HTTP}"),
        ({"allow_http": "yes"}, "allow_http: expected true or false, got 'yes'"),
        ({"verify": 1}, "verify: expected true, false or the path of a CA bundle, got 1"),
        ({"cert": 1}, "cert: expected a list, got 1"),
        ({"cert": ["a"]}, "cert: expected a path, or a list of two: certificate and key, got a list"),
        ({"proxies": "x"}, "proxies: expected a table, got 'x'"),
        ({"proxies": {"https": 3}}, "proxies.https: expected a string, got 3"),
        ({"proxies": {"https": "http://me:x@proxy"}}, f"proxies.https: {NO_USER}: "),
        ({"base_url": "https://me:x@host/v1"}, f"base_url: {NO_USER}: "),
        ({"dialect": "antropic"}, "dialect: unknown dialect 'antropic'; did you mean 'anthropic'?"),
        (
            {"dialect": "anthropic", "base_url": "https://api.anthropic.com"},
            'base_url: expected a URL that ends in "/v1" for dialect "anthropic", got \'https://api.anthropic.com\'',
        ),
        (
            {"dialect": "azure", "base_url": "https://name.openai.azure.com/openai"},
            'base_url: expected the URL of the resource for dialect "azure", without "/openai", got ',
        ),
        ({"api_version": "2024-10-21"}, "api_version: expected none but for dialect \"azure\", got '2024-10-21'"),
        ({"dialect": "azure", "api_version": ""}, "api_version: expected a non-empty string"),
        ({"api_key": "x"}, "api_key: unknown key; did you mean 'api_key_env'?"),
        ({"api_key_env": 3}, "api_key_env: expected a list, got a value that is not shown"),
        ({"api_key_env": ["A", 3]}, f"api_key_env[1]: {NOT_A_KEY}"),
        ({"api_key_env": ""}, f"api_key_env: {NOT_A_KEY}"),
        ({"api_key_env": "1KEY"}, f"api_key_env: {NOT_A_KEY}"),
        ({"api_key_prefix": 3}, "api_key_prefix: expected a string, got a value that is not shown"),
    ],
)
def test_providers_are_checked_field_by_field(fields: dict[str, Any], expected: str) -> None:
    """URLs, certificates, proxies and names of variables are named with the path to them."""
    (line,) = provider(**fields)

    assert line.startswith(expected)


def test_a_provider_needs_a_base_url() -> None:
    """A provider without a URL is told so."""
    assert problems(providers={"x": {}}) == ["providers.x.base_url: missing"]


SECRET = "hunter2Hunter2"
BUILT_IN_MODELS = (
    "gpt-4.1",
    "gpt-4.1-mini",
    "claude-sonnet-4-20250514",
    "claude-3-5-sonnet-latest",
    "gemini-2.5-flash-preview-05-20",
    "deepseek-chat",
)


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key_env": f"test-{SECRET}"},
        {"api_key_env": f"gsk_{SECRET}0123456789abcdef"},
        {"api_key_env": ["GOOD", f"test-{SECRET}"]},
        {"api_key_env": [[SECRET]]},
        {"api_key_env": [f"test-{SECRET}"] * 2},
        {"api_key": SECRET},
        {"api_key_prefix": [SECRET]},
        {"api_key_prefix": f"{SECRET}\n"},
        {"access_token": SECRET},
        {"base_url": f"https://me:{SECRET}@host/v1"},
        {"base_url": f"https://me:{SECRET}/x@host/v1"},
        {"base_url": f"me:{SECRET}@host/v1"},
        {"base_url": f"https://host/v1?key={SECRET}"},
        {"base_url": f"ftp://host/v1#{SECRET}"},
        {"base_url": f"Bearer {SECRET}"},
        {"base_url": f"sk-{SECRET}"},
        {"proxies": f"http://me:{SECRET}@proxy:3128"},
        {"proxies": {"https": f"http://me:{SECRET}@proxy:3128"}},
        {"proxies": {"https": f"http://me:{SECRET}@proxy:port"}},
        {"proxies": {"https": f"me:{SECRET}@proxy "}},
    ],
)
def test_no_message_shows_a_secret(fields: dict[str, Any]) -> None:
    """Keys that strayed into the settings do not reach the log with the error about them."""
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, cwd_file=False, providers={"x": {"base_url": URL, **fields}})

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "name", ["KEY", "key_2", "_K", "A_RATHER_LONG_NAME_FOR_THE_KEY_OF_PROVIDER_2", "my_team_key_1"]
)
def test_ordinary_names_of_variables_are_taken(name: str) -> None:
    """Long names, small letters and figures do not make a name a key."""
    config = load(env={}, cwd_file=False, providers={"x": {"base_url": URL, "api_key_env": name}})

    assert config.providers["x"].api_key_env == (name,)


def test_all_problems_are_told_at_once_each_with_its_source(tmp_path: Path) -> None:
    """One run names every problem: the file's, the environment's and the keywords', each under its source."""
    path = tmp_path / "a.toml"
    path.write_text('[models."gpt-4.1"]\nrpm = 0\ntpm = 0\n[routes.mine]\nfast = ["no"]\n', encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(path, env={"HOLYROUTE_TIME_READ": "x"}, models={"gpt-4.1": {"tpm": True}})

    assert str(caught.value).splitlines() == [
        f'{path}: models."gpt-4.1".rpm: expected an integer greater than 0, got 0',
        'keywords: models."gpt-4.1".tpm: expected an integer, got true',
        f"{path}: routes.mine.fast[0]: unknown model 'no'; known: {', '.join(BUILT_IN_MODELS)}",
        "environment: HOLYROUTE_TIME_READ: expected a number, got 'x'",
    ]


def test_a_problem_that_another_source_caused_names_where_the_value_stands() -> None:
    """Where something is missing, the source of its table is blamed."""
    with pytest.raises(ConfigurationError, match=r"^keywords: models\.x\.price\.input: missing$"):
        load(env={}, cwd_file=False, models={"x": {"provider": "holysheep", "price": {"output": 1}}})


def test_long_values_are_cut() -> None:
    """A message stays readable whatever was put in a setting."""
    text = shown(("routing", "order"), "x" * 1_000)

    assert len(text) < 100
    assert text.endswith("…")


def test_places_are_written_as_in_toml() -> None:
    """A path can be found in the file: bare where TOML is bare, quoted where it quotes."""
    assert dotted(("models", "gpt-4.1", "price", "input")) == 'models."gpt-4.1".price.input'
    assert dotted(("routes", "simple_qa", "fast", 1)) == "routes.simple_qa.fast[1]"
    assert dotted(("models", 'a"b')) == 'models."a\\"b"'
