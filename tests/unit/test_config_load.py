"""Where settings come from and who wins."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from holyroute.config.load import load
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.config.schema import Config

BACKUP = {"base_url": "https://backup.example/v1", "api_key_env": "BACKUP_API_KEY"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own: an empty working folder and an empty user's configuration folder beside it."""
    work, settings = tmp_path / "work", tmp_path / "settings"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(settings))
    return tmp_path


def write(path: Path | str, text: str = "[time]\ndeadline = 11\n", mode: int = 0o600) -> Path:
    """A file with its folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def user_file(home: Path, text: str = "[time]\ndeadline = 22\n") -> Path:
    """The user's own file."""
    return write(home / "settings" / "holyroute" / "config.toml", text)


def loaded(env: Mapping[str, str] | None = None, **settings: Any) -> Config:
    """The configuration under no environment but the one given."""
    return load(env=env or {}, **settings)


def error_of(*args: Any, **settings: Any) -> str:
    """What is said about settings that are wrong."""
    with pytest.raises(ConfigurationError) as caught:
        load(*args, **{"env": {}, **settings})
    return str(caught.value)


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_keywords_win_over_environment_over_file_over_defaults(home: Path) -> None:
    """Each source overrules the ones before it, setting by setting."""
    path = write(home / "a.toml", "[time]\nconnect = 1\nread = 1\ndeadline = 1\n")
    env = {"HOLYROUTE_TIME_READ": "2", "HOLYROUTE_TIME_DEADLINE": "2"}
    time = load(path, env=env, time={"deadline": 3}).time

    assert (time.dropin_read, time.connect, time.read, time.deadline) == (300.0, 1.0, 2.0, 3.0)


def test_tables_merge_key_by_key() -> None:
    """One new figure leaves the rest of a model as it was."""
    model = loaded(models={"gpt-4.1": {"price": {"input": "7.5"}}}).models["gpt-4.1"]

    assert model.price is not None
    assert (model.price.input, model.price.output) == (Decimal("7.5"), Decimal("32.00"))
    assert (model.rpm, model.tpm, model.provider.name) == (500, 150_000, "holysheep")


def test_lists_replace() -> None:
    """A list is taken as a whole, and its neighbours stay."""
    routes = loaded(routes={"simple_qa": {"fast": ["gpt-4.1"]}}).routes["simple_qa"]

    assert routes["fast"].targets == ("gpt-4.1",)
    assert routes["normal"].targets == ("deepseek-chat", "gpt-4.1-mini", "claude-3-5-sonnet-latest")


def test_what_one_load_was_told_does_not_reach_the_next() -> None:
    """The built-in catalogue and the caller's own tables are left as they are."""
    told = {"gpt-4.1": {"price": {"input": 1}}}
    loaded(models=told)
    price = loaded().models["gpt-4.1"].price

    assert price is not None
    assert price.input == Decimal("8.00")
    assert told == {"gpt-4.1": {"price": {"input": 1}}}


@pytest.mark.parametrize("written", [8.15, "8.15", Decimal("8.15")])
def test_prices_in_keywords_are_exact(written: Any) -> None:
    """A float counts as the digits it is printed with."""
    price = loaded(models={"gpt-4.1": {"price": {"input": written}}}).models["gpt-4.1"].price

    assert price is not None
    assert price.input == Decimal("8.15")


@pytest.mark.parametrize(("written", "digits"), [("0.1", "0.1"), ("8", "8"), ("8.00", "8.00"), ('"0.10"', "0.10")])
def test_prices_in_a_file_are_exact(home: Path, written: str, digits: str) -> None:
    """Every digit of a file counts, and none is added."""
    path = write(home / "a.toml", f'[models."gpt-4.1"]\nprice.input = {written}\n')
    price = loaded(path=path).models["gpt-4.1"].price

    assert price is not None
    assert str(price.input) == digits


def test_an_alias_may_have_another_name_on_the_wire() -> None:
    """The same model at a second provider stands under a name of its own."""
    alias = {"provider": "backup", "model": "gpt-4.1", "supports": ["tools"], "weight": 2, "context": 1_000}
    target = loaded(providers={"backup": BACKUP}, models={"gpt-4.1@backup": alias}).models["gpt-4.1@backup"]

    assert (target.name, target.model, target.provider.name) == ("gpt-4.1@backup", "gpt-4.1", "backup")
    assert (target.supports, target.weight, target.context) == (frozenset({"tools"}), 2.0, 1_000)
    assert (target.price, target.rpm, target.max_output, target.latency) == (None, None, None, "normal")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ({"api_key_env": "A_KEY"}, ("A_KEY",)),
        ({"api_key_env": ["A_KEY", "B_KEY"]}, ("A_KEY", "B_KEY")),
        ({"api_key_env": []}, ()),
        ({}, ()),
    ],
)
def test_a_provider_has_one_several_or_no_keys(written: dict[str, Any], names: tuple[str, ...]) -> None:
    """One variable, a list that rotates, or none where no credential is needed."""
    provider = loaded(providers={"x": {"base_url": "https://x.example", **written}}).providers["x"]

    assert provider.api_key_env == names


def test_a_provider_keeps_its_way_out() -> None:
    """Certificates and proxies of a provider arrive as requests wants them."""
    written = {
        "base_url": "http://10.0.0.5:8000/v1//",
        "allow_http": True,
        "verify": "/etc/ca.pem",
        "cert": ["/etc/client.pem", "/etc/client.pin"],
        "proxies": {"https": "http://proxy.example:3128"},
        "dialect": "openai",
    }
    provider = loaded(providers={"x": written}).providers["x"]

    assert provider.base_url == "http://10.0.0.5:8000/v1"
    assert (provider.allow_http, provider.verify) == (True, "/etc/ca.pem")
    assert provider.cert == ("/etc/client.pem", "/etc/client.pin")
    assert provider.proxies == {"https": "http://proxy.example:3128"}


def test_a_provider_speaks_its_dialect() -> None:
    """OpenAI's unless it is said; Azure's API has a version, the latest that is no preview where none is named."""
    written = {
        "x": {"base_url": "https://x.example"},
        "y": {"base_url": "https://y.example", "dialect": "azure"},
        "z": {"base_url": "https://z.example", "dialect": "azure", "api_version": "2025-01-01-preview"},
        "c": {"base_url": "https://c.example/v1/", "dialect": "anthropic"},
    }
    providers = loaded(providers=written).providers

    assert [providers[name].dialect for name in "xyzc"] == ["openai", "azure", "azure", "anthropic"]
    assert [providers[name].api_version for name in "xyzc"] == [None, None, "2025-01-01-preview", None]


@pytest.mark.parametrize("url", ["http://localhost:11434/v1", "http://127.0.0.1:8000", "http://[::1]:8000/v1"])
def test_plain_http_is_fine_on_this_machine(url: str) -> None:
    """A model server on loopback needs no certificate and no leave."""
    assert loaded(providers={"x": {"base_url": url}}).providers["x"].base_url == url


# --- consent ----------------------------------------------------------------------------------------------------------


def test_an_entry_of_a_file_is_the_owners(home: Path) -> None:
    """A route or failover list in a file is consent, even if it says what is built in; its neighbours are not."""
    text = '[routes.general]\nhigh = ["gpt-4.1", "claude-sonnet-4-20250514"]\n[failover]\n"gpt-4o" = ["gpt-4.1"]\n'
    config = loaded(path=write(home / "a.toml", text))
    owned = {(task, name) for task, routes in config.routes.items() for name, route in routes.items() if route.owned}

    assert owned == {("general", "high")}
    assert {source for source, entry in config.failover.items() if entry.owned} == {"gpt-4o"}


def test_an_entry_of_the_keywords_is_the_owners() -> None:
    """Code that names where to go has agreed to it."""
    targets = ["deepseek-chat"]
    config = loaded(routes={"mine": {"fast": targets}}, failover={"localhost:11434": targets, "api.holysheep.ai": []})

    assert config.routes["mine"]["fast"].owned
    assert config.failover["localhost:11434"].owned
    assert config.failover["localhost:11434"].targets == ("deepseek-chat",)
    assert config.failover["api.holysheep.ai"].owned
    assert config.failover["api.holysheep.ai"].targets == ()


def test_other_settings_are_no_consent(home: Path) -> None:
    """A price, a model or a table without a list agrees to nothing."""
    path = write(home / "a.toml", "[routes.simple_qa]\n[failover]\n[models.deepseek-chat]\nrpm = 5\n")
    config = load(path, env={"HOLYROUTE_ROUTING_PRIORITY": "fast"}, models={"gpt-4.1": {"rpm": 1}})

    assert not any(route.owned for routes in config.routes.values() for route in routes.values())
    assert not any(entry.owned for entry in config.failover.values())


# --- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "setting"),
    [
        ("HOLYROUTE_TIME_DEADLINE", "30", ("time", "deadline", 30.0)),
        ("HOLYROUTE_TIME_DROPIN_READ", " 2.5\n", ("time", "dropin_read", 2.5)),
        ("HOLYROUTE_RETRY_BLIP", "off", ("retry", "blip", False)),
        ("HOLYROUTE_RETRY_BLIP", "Yes", ("retry", "blip", True)),
        ("HOLYROUTE_RETRY_SHORT_WAIT", "0", ("retry", "short_wait", 0.0)),
        ("HOLYROUTE_CACHE_ENABLED", "0", ("cache", "enabled", False)),
        ("HOLYROUTE_CACHE_DROPIN", "1", ("cache", "dropin", True)),
        ("HOLYROUTE_CACHE_TTL", "0", ("cache", "ttl", 0.0)),
        ("HOLYROUTE_CACHE_MAX_BYTES", "1000", ("cache", "max_bytes", 1_000)),
        ("HOLYROUTE_BREAKER_PROBES", "3", ("breaker", "probes", 3)),
        ("HOLYROUTE_ROUTING_ORDER", "cheapest", ("routing", "order", "cheapest")),
        ("HOLYROUTE_ROUTING_REFERENCE", "gpt-4.1", ("routing", "reference", "gpt-4.1")),
    ],
)
def test_a_variable_sets_a_scalar_setting(variable: str, text: str, setting: tuple[str, str, object]) -> None:
    """HOLYROUTE_<SECTION>_<KEY> is read in the type of its setting."""
    section, key, expected = setting
    found = getattr(getattr(loaded({variable: text}), section), key)

    assert expected == found
    assert type(expected) is type(found)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_says_nothing(text: str) -> None:
    """An empty variable leaves what the others said."""
    config = loaded({"HOLYROUTE_TIME_DEADLINE": text, "HOLYROUTE_CONFIG": text}, time={"deadline": 5})

    assert (config.time.deadline, config.source) == (5.0, "built-in")


def test_other_variables_are_not_settings() -> None:
    """Variables of ours that are no section, and everybody else's, are left alone."""
    env = {"HOLYROUTE_DISABLED": "1", "HOLYROUTE_X": "y", "HOLYROUTE_MODELS_X": "y", "TIME_DEADLINE": "z"}

    assert loaded(env) == loaded()


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("HOLYROUTE_TIME_DEADLINE", "soon", "expected a number, got 'soon'"),
        ("HOLYROUTE_TIME_DEADLINE", "inf", "expected a finite number, got Infinity"),
        ("HOLYROUTE_TIME_DEADLINE", "-1", "expected a number greater than 0, got -1"),
        ("HOLYROUTE_RETRY_BLIP", "maybe", "expected true or false, got 'maybe'"),
        ("HOLYROUTE_BREAKER_PROBES", "1.5", "expected an integer, got '1.5'"),
        ("HOLYROUTE_TIME_DEADLIN", "3", "unknown key; did you mean 'deadline'?"),
        ("HOLYROUTE_ROUTING_ORDER", "cheap", "unknown order 'cheap'; did you mean 'cheapest'?"),
    ],
)
def test_an_error_in_a_variable_names_it(variable: str, text: str, expected: str) -> None:
    """A wrong variable is named, with what was expected and what it held."""
    assert error_of(env={variable: text}) == f"environment: {variable}: {expected}"


def test_the_environment_is_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `env` the variables of the process count."""
    monkeypatch.setenv("HOLYROUTE_TIME_DEADLINE", "77")

    assert load().time.deadline == 77.0
    assert load(env={}).time.deadline == 300.0


def test_importing_the_loader_is_light() -> None:
    """What only a load needs is imported by the first load."""
    code = "import sys, holyroute.config.load; print({'tomllib', 'platformdirs', 'difflib'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "set()"


# --- which file -------------------------------------------------------------------------------------------------------


def test_the_first_file_found_is_the_only_one_read(home: Path) -> None:
    """Argument, HOLYROUTE_CONFIG, ./holyroute.toml, the user's own, none: in this order, never two."""
    argument = write(home / "argument.toml", "[time]\ndeadline = 1\n")
    named = write(home / "named.toml", "[time]\ndeadline = 2\n")
    local = write("holyroute.toml", "[time]\ndeadline = 3\n")
    own = user_file(home, "[time]\ndeadline = 4\n")
    env = {"HOLYROUTE_CONFIG": str(named)}

    found = [load(argument, env=env), load(env=env), load(env={})]
    local.unlink()
    found.append(load(env={}))
    own.unlink()
    found.append(load(env={}))

    assert [config.time.deadline for config in found] == [1.0, 2.0, 3.0, 4.0, 300.0]
    assert [Path(config.source).name for config in found] == [
        "argument.toml",
        "named.toml",
        "holyroute.toml",
        "config.toml",
        "built-in",
    ]


def test_the_working_folder_can_be_left_out(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a script of others is run, its folder decides nothing; what the user named still does."""
    write("holyroute.toml", mode=0o666)
    user_file(home)
    named = write(home / "named.toml", "[time]\ndeadline = 2\n")

    assert loaded(cwd_file=False).time.deadline == 22.0
    assert loaded({"HOLYROUTE_CONFIG": str(named)}, cwd_file=False).time.deadline == 2.0
    assert caplog.records == []


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o755])
def test_a_file_only_the_user_can_write_is_read(mode: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may read it, ./holyroute.toml counts if only the user can write it."""
    write("holyroute.toml", mode=mode)

    assert loaded().time.deadline == 11.0
    assert caplog.records == []


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_others_can_write_is_skipped_with_one_warning(
    home: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Others cannot decide where prompts go: the search goes on, and one warning says so."""
    path = write("holyroute.toml", mode=mode).absolute()
    user_file(home)

    assert loaded().time.deadline == 22.0
    assert [(record.name, record.levelno) for record in caplog.records] == [("holyroute", logging.WARNING)]
    assert str(path) in caplog.text


def test_a_file_of_somebody_else_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that another user left in the folder is not believed, though nobody else may write it."""
    write("holyroute.toml")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)

    assert loaded().time.deadline == 300.0
    assert len(caplog.records) == 1


def test_a_link_is_judged_by_what_it_leads_to(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link to a file that others can write is no way around the rule."""
    Path("holyroute.toml").symlink_to(write(home / "elsewhere.toml", mode=0o666))

    assert loaded().time.deadline == 300.0
    assert len(caplog.records) == 1


def test_named_files_need_no_check_of_their_owner(home: Path) -> None:
    """Who names a file has chosen it."""
    path = write(home / "a.toml", mode=0o666)

    assert loaded(path=str(path)).time.deadline == 11.0
    assert loaded({"HOLYROUTE_CONFIG": str(path)}).time.deadline == 11.0


def test_a_folder_of_the_name_is_no_file(caplog: pytest.LogCaptureFixture) -> None:
    """A folder called holyroute.toml is passed by in silence."""
    Path("holyroute.toml").mkdir()

    assert loaded().source == "built-in"
    assert caplog.records == []


def test_a_folder_that_cannot_be_searched_holds_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses to look for the user's own file, there is none; here its name is too long."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/" + "x" * 1_000)

    assert loaded().source == "built-in"


def test_a_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/a.toml` works where no shell expands it."""
    monkeypatch.setenv("HOME", str(home))
    path = write(home / "a.toml")

    assert loaded({"HOLYROUTE_CONFIG": "~/a.toml"}).source == str(path)


def test_a_byte_order_mark_does_no_harm(home: Path) -> None:
    """Some editors begin UTF-8 files with one."""
    path = write(home / "a.toml", "\ufeff[time]\ndeadline = 9\n")

    assert loaded(path=path).time.deadline == 9.0


# --- files that cannot be read ----------------------------------------------------------------------------------------


def test_a_named_file_that_does_not_exist_is_an_error(home: Path) -> None:
    """The argument and the variable must lead to a file; the message says which, and where the name came from."""
    path = home / "no.toml"

    assert error_of(path) == f"{path}: cannot be read: No such file or directory"
    assert error_of(env={"HOLYROUTE_CONFIG": str(path)}) == (
        f"{path} (named by HOLYROUTE_CONFIG): cannot be read: No such file or directory"
    )


def test_a_folder_is_an_error(home: Path) -> None:
    """A folder in place of a file is named."""
    assert error_of(home) == f"{home}: cannot be read: Is a directory"


def test_an_unreadable_file_is_an_error(home: Path) -> None:
    """Whatever the system says against reading is told; here a link to itself."""
    path = home / "a.toml"
    path.symlink_to(path)

    assert error_of(path) == f"{path}: cannot be read: Too many levels of symbolic links"
    assert error_of("a\0b").endswith("cannot be read: embedded null byte")


def test_an_unknown_home_folder_is_an_error() -> None:
    """A tilde that leads nowhere names the path."""
    assert error_of("~no-such-user-here/a.toml").startswith("~no-such-user-here/a.toml: cannot be read: ")


def test_a_file_that_is_not_utf8_is_an_error(home: Path) -> None:
    """The line is named, and nothing of the file is shown."""
    path = home / "a.toml"
    path.write_bytes(b'\n# caf\xe9 "private"\n')
    message = error_of(path)

    assert message == f"{path}: not UTF-8 (at line 2)"


def test_a_file_that_is_not_toml_is_an_error(home: Path) -> None:
    """The path and the line are named; keys somebody pasted into the file are not shown, nor chained along."""
    path = write(home / "a.toml", '[providers.x]\napi_key = "test-key-a\n')
    with pytest.raises(ConfigurationError) as caught:
        loaded(path=path)

    assert str(caught.value).startswith(f"{path}: not TOML: ")
    assert "line 2" in str(caught.value)
    assert "test-key-a" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["x = 1e99999999999999999999", "x = 1" + "0" * 5_000, "x = " + "[" * 5_000])
def test_a_file_beyond_measure_is_an_error(home: Path, text: str) -> None:
    """Numbers and nesting beyond what can be read name the path, too."""
    path = write(home / "a.toml", text)

    assert error_of(path) == f"{path}: not TOML: a number is too large or the nesting too deep"


def test_a_bad_file_of_the_users_own_is_an_error(home: Path) -> None:
    """Files that were found, not named, must be right as well."""
    own = user_file(home, "time = 3\n")
    local = write("holyroute.toml", "[tyme]\n").absolute()

    assert error_of(cwd_file=False) == f"{own}: time: expected a table, got 3"
    assert error_of() == f"{local}: tyme: unknown section; did you mean 'time'?"


def test_a_configuration_error_is_a_requests_error_and_a_value_error(home: Path) -> None:
    """Scripts that catch either keep working."""
    with pytest.raises(requests.RequestException) as caught:
        loaded(path=home / "no.toml")

    assert isinstance(caught.value, ValueError)
