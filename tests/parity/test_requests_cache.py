"""requests-cache mixes into sessions, above or below ours, and puts a class in the place of `requests.Session`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
import requests_cache

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]

SETTINGS: dict[str, Any] = {"backend": "memory", "allowable_methods": ["POST"]}


class Above(requests_cache.CacheMixin, holyroute.Session):
    """Keeps answers of whole calls."""


class Below(holyroute.RoutingMixin, requests_cache.CachedSession):
    """Keeps answers of attempts."""


@pytest.mark.parametrize("kind", [Above, Below])
def test_the_mixin_works_above_and_below(
    a: Simulator, b: Simulator, live: Router, ask: Ask, kind: type[requests.Session]
) -> None:
    """Above, a call that was answered is not made again; below, only the attempt that failed is."""
    session: Any = kind(**SETTINGS)
    session._router = live
    answers = [ask(session.post) for _ in range(2)]

    assert [answer.json()["model"] for answer in answers] == ["mb", "mb"]
    assert [getattr(answer, "from_cache", False) for answer in answers] == [False, True]
    assert (a.attempts(), b.attempts()) == ((1, 1) if kind is Above else (2, 1))


@pytest.fixture
def cached() -> Iterator[Callable[[], None]]:
    yield lambda: requests_cache.install_cache("any", **SETTINGS)
    requests_cache.uninstall_cache()


@pytest.mark.parametrize("first", ["install", "install_cache"])
def test_both_can_be_installed(
    a: Simulator, b: Simulator, live: Router, ask: Ask, cached: Callable[[], None], first: str
) -> None:
    """In either order, and what is ours survives `uninstall_cache()`."""
    plain = requests.Session
    if first == "install":
        holyroute.install(router=live)
        cached()
    else:
        cached()
        holyroute.install(router=live)
    answers = [ask(requests.post) for _ in range(2)]
    requests_cache.uninstall_cache()
    answers.append(ask(requests.post))
    holyroute.uninstall()

    assert [answer.json()["model"] for answer in answers] == ["mb"] * 3
    assert [getattr(answer, "from_cache", False) for answer in answers] == [False, True, False]
    assert (a.attempts(), b.attempts()) == (2, 2)
    assert requests.Session is plain
    assert ask(requests.post).status_code == 503


def test_our_own_session_is_no_cached_one(live: Router, ask: Ask, cached: Callable[[], None]) -> None:
    """`install_cache()` is about the sessions of requests; ours is what it was, and does not fall into a loop."""
    cached()
    answers = [ask(holyroute.Session(router=live).post) for _ in range(2)]

    assert [getattr(answer, "from_cache", False) for answer in answers] == [False, False]


EARLY = """
import requests, requests_cache
plain = requests.Session
requests_cache.install_cache("any", backend="memory")
import holyroute
holyroute.install()
print(issubclass(holyroute.Session, requests_cache.CacheMixin), hasattr(plain.send, "__wrapped__"))
"""


def test_a_cache_that_was_there_before_us_is_not_ours() -> None:
    """Imported after `install_cache()`, our session is still one of requests, and its class is what we patch."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, check=True, text=True, timeout=15)

    assert done.stdout == "False True\n"
