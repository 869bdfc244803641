"""requests-ratelimiter slows `send` down: above ours it counts calls, below attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from requests_ratelimiter import LimiterMixin, LimiterSession

import holyroute

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator


class Above(LimiterMixin, holyroute.Session):
    """Limits calls."""


class Below(holyroute.RoutingMixin, LimiterSession):
    """Limits attempts."""


class Noting:
    """Stands for the limiter: says yes, and remembers for whom."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def try_acquire(self, name: str, **_: Any) -> bool:
        """Yes."""
        self.asked.append(name)
        return True


@pytest.mark.parametrize("kind", [Above, Below, LimiterSession])
def test_calls_or_attempts_are_limited(
    a: Simulator, b: Simulator, live: Router, ask: Callable[..., requests.Response], kind: type[requests.Session]
) -> None:
    """Each kind asks its limiter for what it sends; under `install()` a limited session is routed below its limit."""
    session: Any = kind(per_second=100, **({"router": live} if kind is Above else {}))
    session.limiter = noting = Noting()
    session._router = live
    with holyroute.installed(router=live):
        response = ask(session.post)

    hosts = [f"127.0.0.1:{one.port}" for one in (a, b)]
    assert response.json()["model"] == "mb"
    assert noting.asked == (hosts if kind is Below else hosts[:1])
    assert (a.attempts(), b.attempts()) == (1, 1)
