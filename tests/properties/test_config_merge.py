"""Whatever is written where: the later source wins, and what is shown can be read back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holyroute.config import toml
from holyroute.config.dump import dump
from holyroute.config.load import load
from holyroute.config.schema import BreakerSettings, RoutingSettings, TimeSettings
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal
    from pathlib import Path

MODELS = ("gpt-4.1", "gpt-4.1-mini", "claude-sonnet-4-20250514", "deepseek-chat")
EXAMPLES = settings(max_examples=60, deadline=None)

# --- what one source may say ------------------------------------------------------------------------------------------

seconds = st.floats(0.001, 1e6) | st.integers(1, 10**6)
prices = st.decimals(0, 10_000, places=4) | st.integers(0, 10_000)
model_lists = st.lists(st.sampled_from(MODELS), min_size=1, unique=True)
printable = st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/")
names = st.text(printable, min_size=1, max_size=6) | st.lists(
    st.text(printable, min_size=1, max_size=4), min_size=2, max_size=3
).map(" ".join)


def some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with any of these keys."""
    return st.fixed_dictionaries({}, optional=parts)


times = some(**{field.name: seconds for field in fields(TimeSettings)})
priced = some(price=some(input=prices, output=prices), rpm=st.integers(1, 10**6), weight=seconds)
layers = some(
    time=times,
    models=st.dictionaries(st.sampled_from(MODELS), priced),
    routes=st.dictionaries(st.sampled_from(["general", "mine"]), st.dictionaries(st.sampled_from("ab"), model_lists)),
    failover=st.dictionaries(st.sampled_from(["api.openai.com", "api.holysheep.ai"]), model_lists),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that every example overwrites."""
    folder = tmp_path_factory.mktemp("config")
    folder.joinpath("empty.toml").touch()
    return folder / "holyroute.toml"


def written(tables: Mapping[str, Any]) -> str:
    """Tables as a TOML document."""
    return "".join(f"{toml.key(name)} = {toml.value(table)}\n" for name, table in tables.items())


def leaves(tables: Mapping[str, Any], place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value under its path."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in tables.items():
        here = (*place, name)
        found |= leaves(value, here) if isinstance(value, dict) else {here: value}
    return found


def looked_up(config: Any, place: tuple[str, ...]) -> Any:
    """The value of a configuration at a path of its file."""
    for name in place:
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return list(config.targets) if hasattr(config, "targets") else config


# --- promises ---------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(file=layers, variables=times, keywords=layers)
def test_the_later_source_wins_and_nothing_else_changes(
    path: Path, file: dict[str, Any], variables: dict[str, Any], keywords: dict[str, Any]
) -> None:
    """Defaults < file < environment < keywords, leaf by leaf; a leaf that nobody wrote stays as it was."""
    path.write_text(written(file), encoding="utf-8")
    env = {f"HOLYROUTE_TIME_{key.upper()}": str(value) for key, value in variables.items()}
    config, plain = load(path, env=env, **keywords), load(path.with_name("empty.toml"), env={})
    told = leaves(file) | leaves({"time": variables}) | leaves(keywords)

    assert {place: looked_up(config, place) for place in told} == told
    for field in fields(TimeSettings):
        if ("time", field.name) not in told:
            assert getattr(config.time, field.name) == getattr(plain.time, field.name)
    for name, model in plain.models.items():
        if ("models", name, "rpm") not in told:
            assert config.models[name].rpm == model.rpm


@EXAMPLES
@given(file=layers, keywords=layers)
def test_owned_is_what_somebody_wrote(path: Path, file: dict[str, Any], keywords: dict[str, Any]) -> None:
    """Exactly the routes and lists of the owner's own sources are consent."""
    path.write_text(written(file), encoding="utf-8")
    config = load(path, env={}, **keywords)
    told = leaves(file) | leaves(keywords)
    routes = {("routes", task, name) for task, found in config.routes.items() for name in found if found[name].owned}
    lists = {("failover", source) for source, entry in config.failover.items() if entry.owned}

    assert routes | lists == {place for place in told if place[0] in {"routes", "failover"}}


providers = st.fixed_dictionaries(
    {"base_url": st.sampled_from(["https://a.example/v1", "http://localhost:8000", "http://10.0.0.1/v1/"])},
    optional={
        "api_key_env": st.lists(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), unique=True, max_size=3),
        "api_key_prefix": st.just("") | names,
        "verify": st.booleans() | names,
        "cert": names | st.lists(names, min_size=2, max_size=2, unique=True),
        "proxies": st.dictionaries(st.sampled_from(["http", "https", "all"]), st.just("http://proxy.example:3128")),
    },
).map(lambda provider: provider | {"allow_http": True})


@st.composite
def whole_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Everything an owner may write, with names of their own."""
    own_providers = draw(st.dictionaries(names, providers, max_size=3))
    places = st.sampled_from(["holysheep", *own_providers])
    model = st.fixed_dictionaries(
        {"provider": places},
        optional={
            "model": names,
            "price": st.fixed_dictionaries({"input": prices, "output": prices}),
            "latency": st.sampled_from(["fast", "normal", "slow"]),
            "weight": seconds,
            "context": st.integers(1),
            "supports": st.lists(names, unique=True, max_size=3),
        },
    )
    own_models = draw(st.dictionaries(names, model, max_size=3))
    lists = st.lists(st.sampled_from([*MODELS, *own_models]), min_size=1, unique=True)
    tasks = draw(st.dictionaries(names | st.just("general"), st.dictionaries(names, lists, max_size=2), max_size=3))
    return {
        "providers": own_providers,
        "models": own_models,
        "routes": tasks,
        "failover": draw(st.dictionaries(names | st.just("api.holysheep.ai"), lists | st.just([]), max_size=3)),
        "latency": draw(st.dictionaries(names | st.just("fast"), seconds, max_size=2)),
        "time": draw(times),
        "retry": {"blip": draw(st.booleans()), "short_wait": draw(st.just(0) | seconds)},
        "breaker": {"failure_rate": draw(st.floats(0.01, 1)), "probes": draw(st.integers(1))},
        "routing": {"task": draw(st.sampled_from(["general", *tasks])), "reference": draw(st.sampled_from(MODELS))},
    }


@EXAMPLES
@given(tables=whole_settings())
def test_what_is_shown_reads_back_as_the_same_settings(path: Path, tables: dict[str, Any]) -> None:
    """`dump` loses nothing: names of any script, exact prices, switched-off lists, who owns what."""
    empty = path.with_name("empty.toml")
    config = load(empty, env={}, **tables)
    path.write_text(dump(config), encoding="utf-8")
    again = load(path, env={})

    assert replace(again, source=config.source) == config
    assert dump(replace(again, source=config.source)) == dump(config)


@EXAMPLES
@given(tables=whole_settings())
def test_a_file_and_keywords_say_the_same(path: Path, tables: dict[str, Any]) -> None:
    """The same tables mean the same, whether they stand in a file or in code."""
    path.write_text(written(tables), encoding="utf-8")
    told = load(path.with_name("empty.toml"), env={}, **tables)

    assert replace(load(path, env={}), source=told.source) == told


rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
section_names = ["providers", "models", "routes", "failover", "latency", "time", "retry", "breaker", "routing", "tyme"]


@EXAMPLES
@given(tables=st.dictionaries(st.sampled_from(section_names), st.dictionaries(st.text(max_size=8), rubbish) | rubbish))
def test_rubbish_is_an_error_or_right_never_a_crash(path: Path, tables: dict[str, Any]) -> None:
    """Anything at all in the settings gives a configuration or a ConfigurationError, and no other exception."""
    try:
        config = load(path.with_name("empty.toml"), env={}, **tables)
    except ConfigurationError as error:
        assert str(error).startswith("keywords: ")  # noqa: PT017 - both ends are allowed
    else:
        assert isinstance(config.breaker, BreakerSettings)
        assert isinstance(config.routing, RoutingSettings)


@EXAMPLES
@given(
    field=st.sampled_from(["api_key", "api_key_env", "api_key_prefix", "auth_token", "client_secret"]), value=rubbish
)
def test_no_error_shows_what_stands_under_a_key(path: Path, field: str, value: Any) -> None:
    """Below a name with key, token or secret in it, values stay out of messages, at any depth."""
    marked = marked_with("hunter2", value)
    try:
        load(path.with_name("empty.toml"), env={}, providers={"x": {field: marked}})
    except ConfigurationError as error:
        assert "hunter2" not in str(error)  # noqa: PT017 - base_url is missing: there always is an error
    else:
        pytest.fail("a provider without a base URL was taken")


def marked_with(mark: str, value: Any) -> Any:
    """The same structure with a mark in each of its values."""
    if isinstance(value, dict):
        return {name: marked_with(mark, inner) for name, inner in value.items()}
    return [marked_with(mark, inner) for inner in value] if isinstance(value, list) else f"{mark} {value}"


@EXAMPLES
@given(amount=st.decimals(0, 10**9, allow_nan=False, allow_infinity=False))
def test_every_digit_of_a_price_survives(path: Path, amount: Decimal) -> None:
    """A price in a file or in code is the very number that was written."""
    path.write_text(f'[models."gpt-4.1"]\nprice.input = "{amount}"\nprice.output = {toml.value(amount)}\n', "utf-8")
    price = load(path, env={}).models["gpt-4.1"].price

    assert price is not None
    assert (price.input, price.output) == (amount, amount)
