"""`import holyroute as requests`: every name, the same objects, and nothing loaded that was not asked for."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

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
imported = sorted(set(sys.modules) - known)
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
        [sys.executable, "-c", LEAN], cwd=tmp_path, env={}, capture_output=True, check=True, timeout=15
    )
    imported, files, sockets, threads, modules, later = json.loads(done.stdout)

    assert [name for name in imported if name.startswith("holyroute")] == ["holyroute"]
    assert len(imported) < 5
    assert (files, sockets, threads) == ([], [], 1)
    assert HEAVY & set(modules) == set()
    assert later == 1
