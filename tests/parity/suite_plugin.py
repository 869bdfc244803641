"""A pytest plugin for requests' own suite: what is done to requests before its tests run, and what became of each test.

The variable SUITE_VARIANT names what is done, SUITE_OUTCOMES the file for what became of it.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

import holyroute
from holyroute import dropin
from holyroute.core.target import Provider, Target
from holyroute.dialects.translation import Found
from holyroute.engine.attempt import Candidate
from holyroute.engine.router import Router

if TYPE_CHECKING:
    import pytest

    from holyroute.core.call import Call
    from holyroute.core.trace import Trace

TARPIT = "10.255.255.1"  # where connecting never ends, says the suite
LOCAL = {"localhost", "127.0.0.1", "0.0.0.0", "::1", b"localhost", b"127.0.0.1", None}  # noqa: S104 - names, not to bind

counted = {"routed": 0, "refused": 0}  # requests, connections

NOBODY_RETRIES = {"blip": False, "retry_empty": False, "sole_attempts": 1, "short_wait": 0}


# --- every request is ours --------------------------------------------------------------------------------------------


class Everything:
    """A dialect that takes every request for a call, each at another provider: no breaker or bench gets in the way."""

    name = "openai"

    def recognise(self, _: requests.PreparedRequest) -> Found:
        """A call."""
        counted["routed"] += 1
        dialect: Any = self
        return Found(dialect, f"model-{counted['routed']}", {})

    def base_url(self, request: requests.PreparedRequest) -> str:
        """The URL, and a number."""
        return f"{request.url}#{counted['routed']}"


class WithAClosedPort:
    """Selects the script's own target and one where nobody listens, in one order or the other."""

    def __init__(self, router: Router, *, first: bool) -> None:
        self._own = router.selector.candidates
        self._first = first
        self._numbers = itertools.count()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]

    def candidates(self, call: Call, trace: Trace | None = None) -> list[Candidate]:
        """Both."""
        number = next(self._numbers)
        provider = Provider(name=f"closed-{number}", base_url=f"http://127.0.0.1:{self._port}/{number}")
        closed = Candidate(target=Target(name="closed", model="closed", provider=provider))
        return [closed, *self._own(call, trace)] if self._first else [*self._own(call, trace), closed]


def route_everything(*, closed_port_first: bool = False, our_adapters: bool = False) -> None:
    """From now on every request takes the whole way of a routed call."""
    if not our_adapters:
        dropin.twin_of = lambda adapter: adapter
    router = Router(holyroute.load(env={}, cwd_file=False, retry=NOBODY_RETRIES), env={})
    selector: Any = WithAClosedPort(router, first=closed_port_first)
    router.selector = selector
    dropin.recognise = Everything().recognise
    holyroute.install(router=router)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def make_mistakes() -> None:
    """Four of a careless drop-in: a wrong exception class, a lost hook, a dropped header, a changed signature."""
    route_everything()
    right, get = dropin.Sending.send, requests.get

    def send(self: dropin.Sending, request: requests.PreparedRequest) -> requests.Response:
        if isinstance(request, requests.PreparedRequest):
            request.headers.pop("Authorization", None)
        try:
            return right(self, request)
        except requests.ConnectionError as error:
            raise holyroute.AllTargetsFailed(str(error)) from error

    dropin.Sending.send = send  # type: ignore[method-assign]
    dropin._hooks = lambda *_, **__: []
    requests.get = lambda url, *, params=None, **options: get(url, params, **options)  # type: ignore[assignment]


VARIANTS = {
    "plain": lambda: None,
    "face": lambda: None,
    "installed": holyroute.install,
    "routed": route_everything,
    "closed port first": lambda: route_everything(closed_port_first=True),
    "our adapters": lambda: route_everything(closed_port_first=True, our_adapters=True),
    "control": make_mistakes,
}


# --- the network ------------------------------------------------------------------------------------------------------


def stay_here() -> None:
    """Nothing leaves this machine: the tarpit is a full queue on loopback, and other names do not resolve."""
    queue = socket.socket()
    queue.bind(("127.0.0.1", 0))
    queue.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(queue.getsockname())
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        del waiting[4:]  # they wait for as long as this function lives
        try:
            connect(self, queue.getsockname() if address[0] == TARPIT else address)
        except ConnectionRefusedError:
            counted["refused"] += 1
            raise

    def resolve_here(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in LOCAL and host != TARPIT:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    socket.socket.connect = connect_here  # type: ignore[method-assign,assignment]
    socket.getaddrinfo = resolve_here


# --- hooks of pytest --------------------------------------------------------------------------------------------------

outcomes: dict[str, str] = {}  # per test


def pytest_configure() -> None:
    """Before anything is collected."""
    stay_here()
    VARIANTS[os.environ["SUITE_VARIANT"]]()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What became of a test; of its three phases the worst counts."""
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    if outcome != "passed" or (report.when == "call" and report.nodeid not in outcomes):
        outcomes[report.nodeid] = outcome


def pytest_sessionfinish() -> None:
    """Write it down."""
    Path(os.environ["SUITE_OUTCOMES"]).write_text(json.dumps({"outcomes": outcomes, **counted}))
