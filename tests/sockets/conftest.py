"""Two providers on real sockets, A and B, and a client whose first choice is A.

The client's time is a `ShiftedClock`: real time that a test can set forward, and on which the engine's own waits are
noted and skipped. What the network takes stays real. The simulators stamp requests with the same time.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.core.clock import Clock
from holyroute.engine.router import Router
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.schema import Config

KEYS = {"KEY_A": "test-key-a", "KEY_B": "test-key-b"}
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class ShiftedClock(Clock):
    """Real time plus an offset; `sleep` adds to the offset instead of waiting, and `slept` keeps every wait."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.wall_offset = 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Monotonic seconds, offset included."""
        return super().now() + self.offset

    def wall(self) -> float:
        """Seconds since the epoch, offsets included."""
        return super().wall() + self.offset + self.wall_offset

    def sleep(self, seconds: float) -> None:
        """Note the wait and skip it."""
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Set both clocks forward."""
        with self._lock:
            self.offset += seconds

    def set_wall_forward(self, seconds: float) -> None:
        """Set the time of day alone, as an operator or NTP would."""
        self.wall_offset += seconds


class ProviderClock(Clock):
    """The same time for a simulator, which really waits: its pauses put bytes apart on the wire."""

    def __init__(self, shifted: ShiftedClock) -> None:
        self._shifted = shifted

    def now(self) -> float:
        """As the other clock has it."""
        return self._shifted.now()

    def wall(self) -> float:
        """As the other clock has it."""
        return self._shifted.wall()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def a(clock: ShiftedClock) -> Iterator[Simulator]:
    """The preferred provider, which a test makes faulty."""
    with Simulator(api_keys=[KEYS["KEY_A"], "test-key-a2"], clock=ProviderClock(clock)) as simulator:
        yield simulator


@pytest.fixture
def b(clock: ShiftedClock) -> Iterator[Simulator]:
    """The healthy substitute."""
    with Simulator(api_keys=[KEYS["KEY_B"]], clock=ProviderClock(clock)) as simulator:
        yield simulator


@pytest.fixture
def env() -> dict[str, str]:
    """Where the router finds its keys; a test may change it."""
    return dict(KEYS)


@pytest.fixture
def configured(a: Simulator, b: Simulator) -> Callable[..., Config]:
    """Makes a configuration: `ma` at A, then `mb` at B, every setting at its default but for 3 s of patience.

    A third model, `mc` at B, is on no route. Keywords are laid over it: `configured(retry={"blip": False})`.
    """

    def configure(**settings: Any) -> Config:
        base = {
            "providers": {
                "a": {"base_url": a.base_url, "api_key_env": "KEY_A"},
                "b": {"base_url": b.base_url, "api_key_env": "KEY_B"},
            },
            "models": {
                "ma": {"provider": "a", "price": {"input": 1, "output": 2}},
                "mb": {"provider": "b", "price": {"input": 3, "output": 6}},
                "mc": {"provider": "b"},
            },
            "routes": {"simple_qa": {"fast": ["ma", "mb"]}},
            "failover": {a.base_url.split("/")[2]: ["mb"]},
            "time": {"connect": 3, "read": 3},
            "routing": {"task": "simple_qa", "priority": "fast"},
        }
        return holyroute.load(env={}, cwd_file=False, **_laid_over(base, settings))

    return configure


@pytest.fixture
def router(configured: Callable[..., Config], clock: ShiftedClock, env: dict[str, str]) -> Router:
    return Router(configured(), clock=clock, env=env)


@pytest.fixture
def client(router: Router) -> Iterator[holyroute.Client]:
    """Asks A first, then B."""
    with holyroute.Client(router=router) as client:
        yield client


def _laid_over(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in settings.items():
        below = merged.get(name)
        merged[name] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
