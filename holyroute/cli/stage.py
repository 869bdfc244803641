"""The demo's world: three simulated gateways under invented names of this machine, and what befalls them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from holyroute.client import Client
from holyroute.config.load import load
from holyroute.engine.router import Router
from holyroute.simulator import Names, Simulator, benchmark_profiles, faults
from holyroute.transport.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response

    from holyroute.core.events import Event

GATEWAYS = {
    "gateway-a.test": ("deepseek-chat", "gemini-2.5-flash-preview-05-20"),
    "gateway-b.test": ("gpt-4.1-mini", "claude-3-5-sonnet-latest"),
    "gateway-c.test": ("gpt-4.1",),
}
ROUTE = tuple(model for models in GATEWAYS.values() for model in models)
FIRST_GATEWAY, FIRST_MODEL = next(iter(GATEWAYS)), ROUTE[0]
TASK, PRIORITY = "simple_qa", "fast"
ANSWER_TOKENS = 150
WINDOW = 60  # seconds that "recent" looks back: a demo is short
POOL = 256  # connections kept per gateway


class Stage:
    """Gateways with the models, latencies, availabilities and prices of the published benchmark. A context manager.

    Args:
        seed: of latencies and unavailability.
        speed: how many times faster than published the models answer.
    """

    def __init__(self, *, seed: int, speed: float) -> None:
        profiles = benchmark_profiles()
        self._gateways = {
            host: Simulator(
                {model: replace(profiles[model], completion_tokens=ANSWER_TOKENS) for model in models},
                seed=seed,
                time_scale=1 / speed,
                keep=0,
            )
            for host, models in GATEWAYS.items()
        }
        self._names = Names(*GATEWAYS)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._names)
            for gateway in self._gateways.values():
                stack.enter_context(gateway)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def client(self, observer: Callable[[Event], None]) -> Client:
        """A client that knows these gateways; nothing of the user's files or environment reaches it."""
        settings: dict[str, Any] = {
            "providers": {
                host: {"base_url": f"http://{host}:{gateway.port}{gateway.path}", "allow_http": True}
                for host, gateway in self._gateways.items()
            },
            "models": {model: {"provider": host} for host, models in GATEWAYS.items() for model in models},
            "routes": {TASK: {PRIORITY: list(ROUTE)}},
            "monitoring": {"window": WINDOW},
        }
        config = load(os.devnull, env={}, **settings)  # an empty file that is named keeps all others out
        # these gateways have no rate limits: keeping those of the catalogue would pace the outage out of sight
        unlimited = {name: replace(target, rpm=None, tpm=None) for name, target in config.models.items()}
        config = replace(config, models=unlimited)
        return _LoopbackClient(router=Router(config, observers=(observer,), env={}), task=TASK, priority=PRIORITY)

    def break_model(self) -> None:
        """From now on the first model of the route answers 503."""
        self._gateways[FIRST_GATEWAY].always(FIRST_MODEL, faults.status(503))

    def lose_gateway(self) -> None:
        """The name of the first gateway stops resolving, and its connections break."""
        self._names.fail(FIRST_GATEWAY)
        self._gateways[FIRST_GATEWAY].drop_connections()

    def unplug(self) -> None:
        """Nobody answers any more: whoever still waits is let go."""
        for gateway in self._gateways.values():
            gateway.unplug()

    @property
    def bill(self) -> Decimal:
        """What all gateways together ask for, in US dollars, by their own counters."""
        figures = (one for gateway in self._gateways.values() for one in gateway.statistics().values())
        return sum((one.bill for one in figures), Decimal(0))


class _LoopbackClient(Client):
    """Never takes a proxy: an invented name must not leave this machine."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._adapter = _LoopbackAdapter(pool_maxsize=POOL)


class _LoopbackAdapter(Adapter):
    def send(self, request: PreparedRequest, *args: Any, **settings: Any) -> Response:
        return super().send(request, *args, **{**settings, "proxies": {}})
