"""`import holyroute as requests`: every name, the same objects, and nothing loaded that was not asked for."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import requests

import holyroute

if TYPE_CHECKING:
    from pathlib import Path

OURS = {"Session", "delete", "get", "head", "options", "patch", "post", "put", "request", "session"}
SUBMODULES = [
    "adapters",
    "auth",
    "certs",
    "compat",
    "cookies",
    "hooks",
    "models",
    "packages",
    "status_codes",
    "structures",
    "utils",
]


def test_every_public_name_of_requests_is_here() -> None:
    """All that `from requests import *` gives, and all that `requests.` completes to."""
    missing = [name for name in (*requests.__all__, *dir(requests)) if not hasattr(holyroute, name)]

    assert missing == []
    assert set(requests.__all__) <= set(holyroute.__all__)
    assert set(dir(requests)) <= set(dir(holyroute))


@pytest.mark.parametrize("name", sorted({*requests.__all__, *SUBMODULES, "__version__"} - OURS))
def test_what_is_not_ours_is_the_same_object(name: str) -> None:
    """`except`, `isinstance` and pickles need identity: exceptions, Response, codes, modules."""
    assert getattr(holyroute, name) is getattr(requests, name)


@pytest.mark.parametrize("name", sorted(OURS - {"Session"}))
def test_our_functions_have_the_signature_of_requests(name: str) -> None:
    """Names, order and defaults of what is passed by position; they are functions, not modules."""
    ours, theirs = (
        list(inspect.signature(getattr(module, name)).parameters.values()) for module in (holyroute, requests)
    )

    assert inspect.isfunction(getattr(holyroute, name))
    assert [(one.name, one.default, one.kind) for one in ours] == [(one.name, one.default, one.kind) for one in theirs]


def test_importing_a_room_hides_no_function() -> None:
    """`requests.patch` stays a function whatever was imported before."""
    for module in ("api", "client", "context", "sessions", "failure", "testing", "simulator", "exceptions"):
        importlib.import_module(f"holyroute.{module}")

    assert all(callable(getattr(holyroute, name)) for name in (*OURS, "routing", "direct", "load", "trace_of"))


def test_submodules_are_reached_as_attributes() -> None:
    """As scripts use them after the import line is changed."""
    assert holyroute.exceptions.Timeout is requests.exceptions.Timeout
    assert holyroute.adapters.HTTPAdapter is requests.adapters.HTTPAdapter
    assert holyroute.utils.quote is requests.utils.quote
    assert holyroute.sessions.Session is holyroute.Session
    assert holyroute.sessions.merge_setting is requests.sessions.merge_setting
    assert holyroute.api.post is holyroute.post
    assert holyroute.packages.urllib3 is requests.packages.urllib3


@pytest.mark.parametrize(
    "name", [*SUBMODULES, "packages.urllib3", "packages.urllib3.util.retry", "packages.urllib3.exceptions"]
)
def test_submodules_are_imported_by_name(name: str) -> None:
    """`import holyroute.adapters` and what lies deeper give requests' own modules."""
    ours = importlib.import_module(f"holyroute.{name}")

    assert ours is importlib.import_module(f"requests.{name}")


def test_names_are_imported_from_submodules() -> None:
    """The import lines of scripts work with one word changed."""
    scope: dict[str, Any] = {}
    lines = """
from holyroute.adapters import HTTPAdapter
from holyroute.auth import HTTPBasicAuth
from holyroute.exceptions import ConnectionError, RequestException
from holyroute.packages.urllib3.util.retry import Retry
from holyroute.sessions import _basic_auth_str, SessionRedirectMixin
from holyroute.structures import CaseInsensitiveDict
"""
    theirs: dict[str, Any] = {}
    exec(lines, scope)  # noqa: S102 - import lines of a script
    exec(lines.replace("holyroute", "requests"), theirs)  # noqa: S102

    assert {name: scope[name] for name in theirs if name != "__builtins__"} == {
        name: value for name, value in theirs.items() if name != "__builtins__"
    }


@pytest.mark.parametrize("name", ["api", "exceptions", "sessions"])
def test_our_modules_stand_before_those_of_requests(name: str) -> None:
    """What is not ours is read from there, written there, patched there and taken back."""
    ours = importlib.import_module(f"holyroute.{name}")
    theirs = importlib.import_module(f"requests.{name}")
    theirs.planted = 1  # type: ignore[attr-defined]

    assert ours.planted == 1
    assert "planted" in dir(ours)

    ours.planted = 2  # type: ignore[attr-defined]
    assert theirs.planted == 2

    with mock.patch.object(ours, "planted", 3):
        assert (ours.planted, theirs.planted) == (3, 3)
    assert (ours.planted, theirs.planted) == (2, 2)

    del ours.planted
    assert not hasattr(theirs, "planted")
    assert ours.__name__ == f"holyroute.{name}"


def test_a_patched_name_of_both_is_patched_in_both() -> None:
    """An exception that a test replaces is replaced for requests too; what is ours is replaced only here."""
    with mock.patch("holyroute.exceptions.Timeout", int), mock.patch("holyroute.sessions.Session", int):
        assert requests.exceptions.Timeout is int
        assert requests.sessions.Session is requests.Session
        assert holyroute.sessions.Session is int

    assert requests.exceptions.Timeout is holyroute.exceptions.Timeout is requests.Timeout
    assert holyroute.sessions.Session is holyroute.Session


def test_a_patched_function_of_the_module_is_used() -> None:
    """`mock.patch("….api.request")` answers for the verbs, as in requests."""
    with mock.patch("holyroute.api.request", return_value="planted"):
        assert holyroute.get("https://api.example.com") == "planted"


IN_EXCEPTIONS_ONLY = {"Any", "TYPE_CHECKING", "BaseHTTPError", "CompatJSONDecodeError", "annotations"}


def test_star_imports_of_our_modules_give_what_requests_gives() -> None:
    """All public names of the module behind, with ours in their place."""
    for name in ("api", "sessions", "exceptions"):
        scope: dict[str, Any] = {}
        theirs: dict[str, Any] = {}
        exec(f"from holyroute.{name} import *", scope)  # noqa: S102 - a star import cannot stand in a function
        exec(f"from requests.{name} import *", theirs)  # noqa: S102

        assert theirs.keys() - scope.keys() <= IN_EXCEPTIONS_ONLY


def test_exceptions_of_requests_are_all_here() -> None:
    """Also those that nobody imports by name."""
    theirs = {name for name, value in vars(requests.exceptions).items() if isinstance(value, type)}

    assert {
        name for name in theirs if getattr(holyroute.exceptions, name, None) is not getattr(requests.exceptions, name)
    } <= {
        "BaseHTTPError",
        "CompatJSONDecodeError",
    }


def test_a_star_import_gives_what_it_gives_in_requests() -> None:
    """And ours besides."""
    scope: dict[str, Any] = {}
    exec("from holyroute import *", scope)  # noqa: S102 - a star import cannot stand in a function

    assert set(requests.__all__) | {"Client", "trace_of"} <= scope.keys()
    assert scope["post"] is holyroute.post


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As everywhere; `hasattr` works."""
    assert not hasattr(holyroute, "no_such_name")
    with pytest.raises(ImportError):
        exec("from holyroute import no_such_name")  # noqa: S102


LEAN = """
import json, sys, threading
opened = []
sys.addaudithook(lambda event, args: opened.append([event, str(args[0])]))
import requests
opened.clear()
known = set(sys.modules)
import holyroute
imported = sorted(name for name in set(sys.modules) - known if sys.modules[name].__name__ == name)  # no aliases
files = [name for event, name in opened if event == "open" and not name.endswith((".py", ".pyc"))]
sockets = [event for event, _ in opened if event.startswith("socket.")]
threads = threading.active_count()
holyroute.Session(), holyroute.get, holyroute.Client, holyroute.trace_of
print(json.dumps([imported, files, sockets, threads, sorted(sys.modules), threading.active_count()]))
"""
HEAVY = {"click", "rich", "tenacity", "cachetools", "tomllib", "platformdirs", "sqlite3", "flask", "redis", "responses"}


def test_importing_is_cheap(tmp_path: Path) -> None:
    """No extra, no engine, no file, no socket, no thread; doors load the engine, and still nothing heavy."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", LEAN], cwd=tmp_path, env={}, capture_output=True, check=True, timeout=15
    )
    imported, files, sockets, threads, modules, later = json.loads(done.stdout)

    assert [name for name in imported if name.startswith("holyroute")] == ["holyroute", "holyroute._surface"]
    assert len(imported) < 5
    assert (files, sockets, threads) == ([], [], 1)
    assert HEAVY & set(modules) == set()
    assert later == 1
