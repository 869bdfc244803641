"""How late a deadline is: 50 threads against providers that are silent or drip; only the deadline ends a call.

    python benchmarks/deadlines.py [--threads 50] [--rounds 4] [--deadline 2]

Beside it, one call each: requests with the same number as its timeout, which counts from byte to byte. Prints a table.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor

import requests

import holyroute
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.simulator import Simulator, faults


def overshoots(fault: faults.Fault, arguments: argparse.Namespace) -> list[float]:
    """Milliseconds after the deadline at which each call came back."""
    with Simulator() as a, Simulator() as b, ThreadPoolExecutor(arguments.threads) as pool:
        a.always("*", fault)
        b.always("*", fault)

        def call(client: holyroute.Client) -> float:
            began = SYSTEM_CLOCK.now()
            answer = client.ask("hello", deadline=arguments.deadline, on_failure="return")
            assert isinstance(answer.error, holyroute.DeadlineExceeded), answer.error
            return (SYSTEM_CLOCK.now() - began - arguments.deadline) * 1_000

        found: list[float] = []
        for _ in range(arguments.rounds):
            client = holyroute.Client(
                providers={"a": {"base_url": a.base_url}, "b": {"base_url": b.base_url}},
                models={"ma": {"provider": "a"}, "mb": {"provider": "b"}},
                routes={"general": {"normal": ["ma", "mb"]}},
            )
            found += pool.map(call, [client] * arguments.threads)
        return found


def plain(fault: faults.Fault, timeout: float) -> str:
    """What requests does with a timeout, in seconds; given up after five times that."""
    with Simulator() as provider:
        provider.always("*", fault)
        body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
        began = SYSTEM_CLOCK.now()
        try:
            answer = requests.post(f"{provider.base_url}/chat/completions", json=body, timeout=timeout, stream=True)
            for _ in answer.iter_content(1):
                if SYSTEM_CLOCK.now() - began > 5 * timeout:
                    return f"still reading after {SYSTEM_CLOCK.now() - began:.1f} s"
        except requests.RequestException as error:
            return f"{type(error).__name__} after {SYSTEM_CLOCK.now() - began:.1f} s"
        return f"answered after {SYSTEM_CLOCK.now() - began:.1f} s"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--deadline", type=float, default=2.0)
    arguments = parser.parse_args()
    print("| provider | calls | earliest ms | p50 ms | p99 ms | latest ms | requests, the same timeout |")
    print("|---|---|---|---|---|---|---|")
    for fault in (faults.silent(), faults.drip(0.05), faults.drip_headers(0.05)):
        late = sorted(overshoots(fault, arguments))
        p99 = late[max(0, -(-len(late) * 99 // 100) - 1)]
        figures = f"{late[0]:.1f} | {statistics.median(late):.1f} | {p99:.1f} | {late[-1]:.1f}"
        print(f"| {fault.name} | {len(late)} | {figures} | {plain(fault, arguments.deadline)} |", flush=True)


if __name__ == "__main__":
    main()
