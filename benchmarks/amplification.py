"""How much load a failing provider gets on top of what was asked: attempts per call, at several failure rates.

    python benchmarks/amplification.py [--calls 300] [--threads 16]

A provider answers 503 at random. holyroute asks it alone (a sole target, which it may retry within its budget) and with
a substitute; beside it the loop that most people write: three tries, no budget, no breaker (its pauses left out, so
that the run is short; they change nothing about the count). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import requests

import holyroute
from holyroute.simulator import Fault, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.simulator.exchange import Exchange

RATES = (0.0, 0.1, 0.3, 0.6, 1.0)


def flaky(rate: float) -> Fault:
    """A share of 503, the same ones in every run."""
    draw, refusal, answer = random.Random(7), faults.status(503), faults.ok()

    def step(exchange: Exchange) -> None:
        (refusal if draw.random() < rate else answer).play(exchange)

    return Fault(f"{rate:.0%} 503", step)


def naive(url: str) -> Callable[[int], bool]:
    """Three tries, whatever happens."""
    session = requests.Session()
    body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}

    def call(_: int) -> bool:
        return any(session.post(f"{url}/chat/completions", json=body, timeout=30).ok for _ in range(3))

    return call


def routed(url: str, models: list[str]) -> Callable[[int], bool]:
    """A Client over some models of the provider."""
    client = holyroute.Client(
        providers={"p": {"base_url": url}},
        models={model: {"provider": "p"} for model in models},
        routes={"general": {"normal": models}},
    )
    return lambda number: client.ask(f"call {number}", on_failure="return").success


def measure(rate: float, arguments: argparse.Namespace, caller: Callable[[str], Callable[[int], bool]]) -> str:
    """Attempts at the flaky model per call, and how many calls were answered."""
    with Simulator() as provider, ThreadPoolExecutor(arguments.threads) as pool:
        provider.always("a", flaky(rate))
        answered = sum(pool.map(caller(provider.base_url), range(arguments.calls)))
        return f"{provider.attempts('a') / arguments.calls:.2f} | {answered}"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    print(f"{arguments.calls} calls, {arguments.threads} threads: attempts per call | answered\n")
    print("| 503 | holyroute, sole | answered | holyroute, substitute | answered | 3 tries | answered |")
    print("|---|---|---|---|---|---|---|")
    for rate in RATES:
        columns = (
            measure(rate, arguments, lambda url: routed(url, ["a"])),
            measure(rate, arguments, lambda url: routed(url, ["a", "b"])),
            measure(rate, arguments, naive),
        )
        print(f"| {rate:.0%} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
