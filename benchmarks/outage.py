"""What an outage costs the caller: holyroute beside the loop that most people write, and beside plain requests.

    python benchmarks/outage.py [--peers] [--scale 0.1]

Each client has two simulators of its own, on real sockets: A, the preferred provider, is faulty; B is healthy. One
attempt may take 3 s. Prints Markdown: load and outages first, then one call for each kind of fault.

* holyroute: `Client`, defaults.
* loop: three tries per model, 1 s between them, then the next model; any exception counts as a failure.
* requests: `requests.post(...)` and `raise_for_status()`.
* with --peers, if installed: LiteLLM's Router (defaults, `fallbacks`) and openai (defaults, no fallback).

An answer counts when it has text. `--scale` shortens the minute-long outage of L3, waits included; peers, whose waits
cannot be scaled, take part in it at scale 1 only.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import requests

import holyroute
from holyroute.core.clock import Clock
from holyroute.engine.router import Router
from holyroute.simulator import Profile, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Ask = Callable[[], Any]  # sends one question, returns the text or raises
    Make = Callable[["Pair"], Ask]

TIMEOUT = 3.0
TRIES, PAUSE = 3, 1.0
KEY = "test-key"
MESSAGES = [{"role": "user", "content": "hello"}]
ROWS = (
    *("unplugged", "reset", "cut-headers", "reset-body", "silent", "400", "401", "model-not-found", "429:2", "429:300"),
    *("429", "insufficient-quota", "500", "503", "529", "error-in-200", "invalid-json", "html", "empty", "no-choices"),
)


class ScaledClock(Clock):
    """Time that passes faster by a factor."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def now(self) -> float:
        """Monotonic seconds."""
        return super().now() / self.scale

    def sleep(self, seconds: float) -> None:
        """Wait, in scaled seconds."""
        super().sleep(seconds * self.scale)


@dataclass
class Pair:
    """Two providers, and the time that their clients live in."""

    a: Simulator
    b: Simulator
    clock: Clock

    def break_a(self, fault: str) -> None:
        """Make every request to A end like this."""
        if fault == "unplugged":
            self.a.unplug()
        else:
            self.a.always("*", fault)

    def heal_a(self) -> None:
        """Make A answer again."""
        self.a.heal()


@dataclass
class Measured:
    """One call: seconds, and whether it had an answer."""

    seconds: float
    answered: bool
    what: str


# --- the clients -----------------------------------------------------------------------------------------------------


def config_of(pair: Pair) -> holyroute.Config:
    """Both providers on one route."""
    return holyroute.load(
        env={},
        cwd_file=False,
        providers={
            name: {"base_url": one.base_url, "api_key_env": "KEY"} for name, one in (("a", pair.a), ("b", pair.b))
        },
        models={"ma": {"provider": "a"}, "mb": {"provider": "b"}},
        routes={"general": {"normal": ["ma", "mb"]}},
        time={"connect": TIMEOUT, "read": TIMEOUT},
    )


def of_holyroute(pair: Pair) -> Ask:
    """A `Client` with both providers on one route."""
    client = holyroute.Client(router=Router(config_of(pair), clock=pair.clock, env={"KEY": KEY}))
    return lambda: client.chat(MESSAGES, task="general", priority="normal").content


def _post(one: Simulator, model: str) -> Any:
    response = requests.post(
        f"{one.base_url}/chat/completions",
        json={"model": model, "messages": MESSAGES},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=TIMEOUT,
    )
    response.raise_for_status()
    return response.json()["choices"][0]["message"]["content"]


def of_loop(pair: Pair) -> Ask:
    """The hand-written loop."""

    def ask() -> Any:
        failure: Exception | None = None
        for one, model in ((pair.a, "ma"), (pair.b, "mb")):
            for number in range(TRIES):
                if number:
                    pair.clock.sleep(PAUSE)
                try:
                    return _post(one, model)
                except Exception as error:  # noqa: BLE001 - as such loops are written
                    failure = error
        assert failure is not None
        raise failure

    return ask


def of_requests(pair: Pair) -> Ask:
    """Plain requests."""
    return lambda: _post(pair.a, "ma")


def of_openai(pair: Pair) -> Ask:
    """The openai SDK, which has no fallback."""
    import openai

    client = openai.OpenAI(base_url=pair.a.base_url, api_key=KEY, timeout=TIMEOUT)
    return lambda: client.chat.completions.create(model="ma", messages=MESSAGES).choices[0].message.content


def of_litellm(pair: Pair) -> Ask:
    """LiteLLM's Router with one primary and one fallback."""
    import litellm

    litellm.suppress_debug_info = True
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/m{name}",
                "api_base": one.base_url,
                "api_key": KEY,
                "timeout": TIMEOUT,
            },
        }
        for name, one in (("a", pair.a), ("b", pair.b))
    ]
    router = litellm.Router(model_list=models, fallbacks=[{"a": ["b"]}])
    return lambda: router.completion(model="a", messages=MESSAGES).choices[0].message.content


OURS: dict[str, Make] = {"holyroute": of_holyroute, "loop": of_loop, "requests": of_requests}
PEERS: dict[str, Make] = {"LiteLLM Router": of_litellm, "openai": of_openai}


def contestants(*, peers: bool) -> dict[str, Make]:
    """Who takes part; says who is missing."""
    if not peers:
        return OURS
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it fetches prices from the network
    found = dict(OURS)
    for name, make in PEERS.items():
        package = name.split()[0].lower()
        if importlib.util.find_spec(package) is None:
            print(f"({name} takes no part: {package} is not installed)\n")
        else:
            __import__(package)
            found[name] = make
    return found


# --- the scenarios ---------------------------------------------------------------------------------------------------


def measure(ask: Ask) -> Measured:
    """One call."""
    began = time.perf_counter()
    try:
        text = ask()
        what = "answered" if isinstance(text, str) and text else "empty"
    except Exception as error:  # noqa: BLE001 - whatever a client raises is a lost call
        what = type(error).__name__
    return Measured(time.perf_counter() - began, what == "answered", what)


def in_threads(ask: Ask, calls: int, threads: int) -> list[Measured]:
    """Many calls at once."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda _: measure(ask), range(calls)))


def at_once(fault: str, calls: int, pair: Pair, ask: Ask) -> list[Measured]:
    """A is broken from the first call on."""
    pair.break_a(fault)
    return in_threads(ask, calls, 16)


def one_minute(scale: float, pair: Pair, ask: Ask) -> list[Measured]:
    """L3: 24 calls 4 s apart, A down from the third for 60 s."""
    began, calls = time.perf_counter(), []
    for number in range(24):
        time.sleep(max(0.0, began + 4 * scale * number - time.perf_counter()))
        if number == 2:
            pair.break_a("503")
        elif number == 17:
            pair.heal_a()
        calls.append(measure(ask))
    return calls


def flaky(pair: Pair, ask: Ask) -> list[Measured]:
    """L15: nothing to break, A fails by its profile."""
    del pair
    return in_threads(ask, 1_000, 16)


def run(make: Make, scenario: Callable[[Pair, Ask], list[Measured]], *, scale: float = 1.0, share: float = 1.0) -> str:
    """One client in one scenario, as columns of the table."""
    with Simulator({"ma": Profile(availability=share)}, seed=15) as a, Simulator() as b:
        pair = Pair(a, b, ScaledClock(scale))
        ask = make(pair)
        began = time.perf_counter()
        calls = scenario(pair, ask)
        total = time.perf_counter() - began
        answered = sum(call.answered for call in calls)
        took = sorted(call.seconds / scale for call in calls)
        p95 = took[math.ceil(0.95 * len(took)) - 1]
        times = (statistics.median(took), p95, took[-1], total / scale)
        columns = (answered, len(calls) - answered, a.attempts(), *(f"{seconds:.3f}" for seconds in times))
        return " | ".join(map(str, columns))


def all_of(clients: dict[str, Make], title: str, scenario: Callable[[Pair, Ask], list[Measured]], **how: float) -> None:
    """One scenario for every client, one after the other."""
    for name, make in clients.items():
        print(f"| {title} | {name} | {run(make, scenario, **how)} |", flush=True)


def side_by_side(
    clients: dict[str, Make], title: str, scenario: Callable[[Pair, Ask], list[Measured]], **how: float
) -> None:
    """One scenario for every client at the same time: nearly all of it is waiting."""
    with ThreadPoolExecutor(len(clients)) as pool:
        results = pool.map(lambda make: run(make, scenario, **how), clients.values())
        for name, columns in zip(clients, results, strict=True):
            print(f"| {title} | {name} | {columns} |", flush=True)


def one_call(make: Make, fault: str) -> str:
    """One call by a fresh client, as a cell of the table."""
    with Simulator(api_keys=[KEY]) as a, Simulator(api_keys=[KEY]) as b:
        pair = Pair(a, b, ScaledClock(1.0))
        ask = make(pair)
        pair.break_a(fault)
        call = measure(ask)
        return f"{call.what}, {a.attempts()}A {b.attempts()}B, {call.seconds:.2f} s"


def single_calls(clients: dict[str, Make], faults: Sequence[str]) -> None:
    """Every fault for every client."""
    print(f"\n| fault at A | {' | '.join(clients)} |\n|{'---|' * (len(clients) + 1)}")
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(2)) for _ in clients]
        columns = [
            pool.map(partial(one_call, make), faults) for pool, make in zip(pools, clients.values(), strict=True)
        ]
        for fault, *cells in zip(faults, *columns, strict=True):
            print(f"| {fault} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also LiteLLM's Router and openai, where installed")
    parser.add_argument("--scale", type=float, default=0.1, help="of the times in L3; 1 is real time (default: 0.1)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    clients = contestants(peers=options.peers)
    steady = clients if options.scale == 1 else {name: make for name, make in clients.items() if name in OURS}
    print("| scenario | client | answered | lost | attempts at A | p50 s | p95 s | max s | total s |")
    print(f"|{'---|' * 9}")
    all_of(clients, "L1: A 503, 96 calls, 16 threads", partial(at_once, "503", 96))
    side_by_side(clients, "L2: A silent, 48 calls, 16 threads", partial(at_once, "silent", 48))
    side_by_side(steady, "L3: A down 60 s, 24 calls 4 s apart", partial(one_minute, options.scale), scale=options.scale)
    side_by_side(clients, "L15: A 30 % 503, 1,000 calls, 16 threads", flaky, share=0.7)
    single_calls(clients, ROWS)


if __name__ == "__main__":
    main()
