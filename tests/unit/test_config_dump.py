"""Settings as text: what is in effect, and a file to start from."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.config import toml
from holyroute.config.dump import dump, template
from holyroute.config.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from holyroute.config.schema import Config


@pytest.fixture(autouse=True)
def _no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))


def read_back(text: str, tmp_path: Path) -> Config:
    """What a text means as a file."""
    path = tmp_path / "dumped.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, env={})


def test_the_built_in_settings_read_back_as_they_are(tmp_path: Path) -> None:
    """Showing the settings and using the text as a file changes nothing, consent least of all."""
    config = load(env={}, cwd_file=False)
    again = read_back(dump(config), tmp_path)

    assert again.source == str(tmp_path / "dumped.toml")
    assert replace(again, source=config.source) == config
    assert not any(route.owned for routes in again.routes.values() for route in routes.values())


def test_only_the_owners_lists_are_written_as_settings() -> None:
    """Built-in lists are shown as comments: as settings they would be the owner's consent."""
    config = load(env={}, cwd_file=False, routes={"general": {"high": ["gpt-4.1"]}}, failover={"gpt-4o": ["gpt-4.1"]})
    tables = tomllib.loads(dump(config))

    assert tables["routes"]["general"] == {"high": ["gpt-4.1"]}
    assert tables["failover"] == {"gpt-4o": ["gpt-4.1"]}
    assert '# built in: fast = ["gpt-4.1-mini", "deepseek-chat"]' in dump(config).splitlines()


def test_every_field_is_shown(tmp_path: Path) -> None:
    """Providers and models are written whole, and what switches something built in off survives."""
    provider = {
        "base_url": "http://10.0.0.5/v1",
        "allow_http": True,
        "verify": "/etc/ca.pem",
        "cert": ["/etc/a.pem", "/etc/b.pem"],
        "proxies": {"https": "http://proxy.example:3128"},
        "dialect": "azure",
        "api_version": "2025-01-01-preview",
    }
    model = {
        "provider": "x y",
        "price": {"input": "0.10", "output": 0},
        "supports": ["tools", "stream"],
        "context": 10,
        "max_output": 5,
        "weight": 0.1,
    }
    gateway = {"api_key_env": [], "api_key_prefix": ""}
    config = load(
        env={},
        cwd_file=False,
        providers={"x y": provider, "holysheep": gateway},
        models={"m": model},
        latency={"a": 1},
        cache={"tasks": {"simple_qa": 60, "general": 0}},
    )
    again = read_back(dump(config), tmp_path)

    assert replace(again, source=config.source) == config
    assert again.providers["holysheep"].api_key_env == ()
    assert again.cache.tasks == {"simple_qa": 60.0, "general": 0.0}
    assert "price = { input = 0.10, output = 0 }" in dump(config).splitlines()


def test_keys_are_never_part_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the variables of keys and holds no key, nor does the record it is made of."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "test-key-a")
    config = load(cwd_file=False)

    assert 'api_key_env = ["HOLYSHEEP_API_KEY"]' in dump(config)
    assert "test-key-a" not in dump(config) + repr(config)


def test_the_template_is_a_valid_file_that_changes_nothing(tmp_path: Path) -> None:
    """A starter file can be loaded as it is."""
    config = load(env={}, cwd_file=False)

    assert replace(read_back(template(), tmp_path), source=config.source) == config


def test_every_example_in_the_template_is_valid(tmp_path: Path) -> None:
    """With each commented setting switched on, the file loads, and its defaults are the real ones."""
    config = read_back(re.sub(r"^#(?=\S)", "", template(), flags=re.MULTILINE), tmp_path)
    plain = load(env={}, cwd_file=False)

    assert set(config.models) - set(plain.models) == {"gpt-4.1@backup"}
    assert set(config.providers) - set(plain.providers) == {"backup", "local", "anthropic", "azure"}
    assert (config.time, config.retry, config.breaker) == (plain.time, plain.retry, plain.breaker)
    assert config.routing == plain.routing
    assert replace(config.cache, tasks={}) == plain.cache
    assert config.models["deepseek-chat"] == plain.models["deepseek-chat"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        'a"b\\c',
        "tab\tline\nreturn\r",
        "\x00\x1f\x7f",
        "한국어 😀",
        0,
        -5,
        1.5,
        1e-07,
        1e22,
        True,
        False,
        [],
        ["a", 1],
    ],
)
def test_values_are_written_as_toml_reads_them(value: Any) -> None:
    """Whatever is written is read back as the same value of the same type."""
    found = tomllib.loads(f"x = {toml.value(value)}")["x"]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", ["rpm", "gpt-4.1", "", "a b", 'a"b', "키", "\x7f"])
def test_keys_are_written_as_toml_reads_them(name: str) -> None:
    """Names with points or spaces are quoted, in tables and inline."""
    inline = toml.value({name: {name: Decimal("0.10")}})

    assert tomllib.loads(f"{toml.key(name)} = 1") == {name: 1}
    assert tomllib.loads(f"x = {inline}", parse_float=Decimal)["x"] == {name: {name: Decimal("0.10")}}
    assert toml.value({}) == "{}"
