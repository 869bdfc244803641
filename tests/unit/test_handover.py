"""What `holyroute run` tells a program through its environment, and what that means there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

import holyroute
from holyroute import context
from holyroute.config.handover import environment
from holyroute.core.call import Call, Origin
from holyroute.dialects import openai
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError

SITE = Path("/somewhere/_site")
TABLES: dict[str, Any] = {
    "providers": {"p": {"base_url": "https://p.example/v1"}, "q": {"base_url": "https://q.example/v1"}},
    "models": {"first": {"provider": "p"}, "q1": {"provider": "q"}, "q2": {"provider": "q"}},
}


def asked(url: str, name: str, **tables: Any) -> list[str]:
    """Who may be asked for a call to a URL, under consent to a name."""
    config = holyroute.load(env={"HOLYROUTE_FAILOVER_TO": name}, cwd_file=False, **TABLES, **tables)
    request = requests.Request("POST", url, json={"model": "m", "messages": []}).prepare()
    origin = Origin(request=request, base_url=openai.base_url(request))
    call = Call(model="m", body={}, deadline=1, connect=1, read=1, origin=origin)
    return [candidate.target.name for candidate in Router(config, env={}).candidates(call)]


@pytest.mark.parametrize("host", ["https://api.openai.com", "http://127.0.0.1:8000", "http://10.0.0.1", "http://nas"])
@pytest.mark.parametrize(("name", "expected"), [("q2", ["q2"]), ("q", ["q1", "q2"]), ("", []), (" ", [])])
def test_consent_holds_wherever_the_call_goes(host: str, name: str, expected: list[str]) -> None:
    """From any host, a private one too, to the named model, or to the provider's models in the order of the file."""
    assert asked(f"{host}/v1/chat/completions", name) == ["m", *expected]


@pytest.mark.parametrize(
    ("own_list", "expected"), [(["first"], ["m", "first", "q1"]), (["q1", "first"], ["m", "q1", "first"]), ([], ["m"])]
)
def test_the_owners_list_comes_first(own_list: list[str], expected: list[str]) -> None:
    """Who stands in the list for a host is asked before; where it says nobody, nobody is."""
    found = asked("https://api.openai.com/v1/chat/completions", "q1", failover={"api.openai.com": own_list})

    assert found == expected


def test_a_clients_model_fails_over_too() -> None:
    """The environment speaks for all doors."""
    config = holyroute.load(env={"HOLYROUTE_FAILOVER_TO": "q1"}, cwd_file=False, **TABLES)
    call = Call(model="first", body={}, deadline=1, connect=1, read=1)

    assert [one.target.name for one in Router(config, env={}).candidates(call)] == ["first", "q1"]


@pytest.mark.parametrize("tables", [{"models": 5}, {"models": {"x": 5}}, {"providers": []}])
def test_an_unknown_name_is_a_mistake(tables: dict[str, Any]) -> None:
    """It says which variable, and what may have been meant; broken tables do not hide it."""
    with pytest.raises(ConfigurationError, match=r"models|providers|HOLYROUTE_FAILOVER_TO"):
        holyroute.load(env={"HOLYROUTE_FAILOVER_TO": "q1"}, cwd_file=False, **{**TABLES, **tables})
    with pytest.raises(ConfigurationError, match=r"^environment: HOLYROUTE_FAILOVER_TO: .* did you mean 'first'"):
        holyroute.load(env={"HOLYROUTE_FAILOVER_TO": "firts"}, cwd_file=False, **TABLES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "/somewhere/_site"),
        ("", "/somewhere/_site"),
        ("/a", "/somewhere/_site:/a"),
        (":/a:", "/somewhere/_site::/a:"),
        ("/somewhere/_site:/a", "/somewhere/_site:/a"),
        ("/a:/somewhere/_site", "/somewhere/_site:/a"),
        ("/somewhere/_sites", "/somewhere/_site:/somewhere/_sites"),
    ],
)
def test_our_folder_comes_first_once(monkeypatch: pytest.MonkeyPatch, before: str | None, after: str) -> None:
    """Whatever stood in PYTHONPATH stays, also an empty entry, which means the current folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)

    assert environment(SITE)["PYTHONPATH"] == after


def test_settings_travel_in_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file by its whole name; what is not given stays what it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLYROUTE_CONFIG", "before.toml")
    told = environment(SITE, "own.toml", "name")
    untold = environment(SITE)

    assert (told["HOLYROUTE_CONFIG"], told["HOLYROUTE_FAILOVER_TO"]) == (str(tmp_path / "own.toml"), "name")
    assert (untold["HOLYROUTE_CONFIG"], "HOLYROUTE_FAILOVER_TO" in untold) == ("before.toml", False)
    assert untold["HOLYROUTE_RUN"] == "1"


def test_the_folder_of_a_program_decides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under `run` even `load()` leaves `./holyroute.toml` alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holyroute.toml").write_text("[time]\ndeadline = 11\n")
    (tmp_path / "holyroute.toml").chmod(0o600)

    assert holyroute.load(env={}).time.deadline == 11
    assert holyroute.load(env={"HOLYROUTE_RUN": "1"}).time.deadline == 300


def test_doors_with_the_same_settings_share_a_router(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With and without the folder's file: one router where there is none, two where it says something."""
    monkeypatch.chdir(tmp_path)
    router_for, reset = context.router_for, context.reset

    assert router_for(cwd_file=False) is router_for()

    (tmp_path / "holyroute.toml").write_text("[time]\ndeadline = 11\n")
    (tmp_path / "holyroute.toml").chmod(0o600)
    reset()
    assert router_for(cwd_file=False) is not router_for()
    assert router_for("holyroute.toml", cwd_file=False) is router_for("holyroute.toml")
