"""What holds for a block, and which doors share a router."""

from __future__ import annotations

import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

import holyroute
from holyroute import context
from holyroute.core.call import Selection
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def chosen(own: Selection = Selection()) -> tuple[str | None, str | None, bool]:  # noqa: B008 - frozen
    selected = context.selection(own)
    return selected.task, selected.priority, selected.direct


def test_blocks_nest() -> None:
    """An inner block adds to the outer one, and what it changed ends with it."""
    with holyroute.routing("a", "fast"):
        with holyroute.routing(priority="high"):
            inner = chosen()
        with holyroute.routing("b"), holyroute.direct():
            other = chosen()
        outer = chosen()

    assert (inner, other, outer) == (("a", "high", False), ("b", "fast", True), ("a", "fast", False))
    assert chosen() == (None, None, False)


def test_a_block_ends_with_an_exception() -> None:
    """However it is left."""
    with pytest.raises(KeyError), holyroute.routing("a"), holyroute.direct():
        raise KeyError

    assert chosen() == (None, None, False)


def test_a_calls_own_words_come_first() -> None:
    """The block fills in what a call, session or client leaves open."""
    with holyroute.routing("a", "fast"):
        assert chosen(Selection(task="own")) == ("own", "fast", False)
        assert chosen(Selection(priority="own", direct=True)) == ("a", "own", True)


def test_a_block_can_be_a_decorator() -> None:
    """A function can be routed as a whole, more than once."""
    decorated = holyroute.routing("a")(chosen)

    assert [decorated(), decorated(), chosen()] == [("a", None, False)] * 2 + [(None, None, False)]


def test_a_block_is_of_one_thread() -> None:
    """Workers of a pool start with nothing."""
    with holyroute.routing("a"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(chosen).result() == (None, None, False)


def test_a_file_has_one_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under whichever name it is given; sessions and clients share it, until it is forgotten."""
    path = tmp_path / "own.toml"
    path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    router = context.router_for(path)
    same = [context.router_for(name) for name in (str(path), "own.toml", "~/own.toml", os.path.join(".", "own.toml"))]  # noqa: PTH118

    assert all(one is router for one in same)
    assert holyroute.Session(path).router is holyroute.Client(path).router is router
    assert holyroute.Session().router is holyroute.Client().router is not router

    context.reset()

    assert context.router_for(path) is not router


def test_a_configuration_record_has_routers_of_its_own() -> None:
    """Who hands in a record decides how long what was learnt lives."""
    config = holyroute.load(env={}, cwd_file=False)

    assert context.router_for(config) is not context.router_for(config)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Named files must exist; the next try looks again."""
    path = tmp_path / "missing.toml"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        context.router_for(path)
    path.touch()

    assert context.router_for(path).config.source == str(path)


@pytest.mark.parametrize("of_record", [True, False])
def test_threads_that_come_first_together_get_one_router(
    tmp_path: Path, request: pytest.FixtureRequest, *, of_record: bool
) -> None:
    """Breakers and ledger of one session are one, whoever calls first."""
    path = tmp_path / "own.toml"
    path.touch()
    session = holyroute.Session(holyroute.load(path) if of_record else path)
    barrier = threading.Barrier(16)
    request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)

    def first_use(_: int) -> object:
        barrier.wait()
        return session.router

    with ThreadPoolExecutor(16) as pool:
        routers = set(map(id, pool.map(first_use, range(16))))

    assert routers == {id(session.router)}


def test_a_response_of_others_has_no_trace() -> None:
    """Asking costs nothing and finds nothing."""
    assert holyroute.trace_of(requests.Response()) is None
