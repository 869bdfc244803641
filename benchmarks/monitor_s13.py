"""The monitor's figures beside the provider's own, on the published benchmark: 1,000 requests, 50 at a time, per model.

    python benchmarks/monitor_s13.py [--requests 1000] [--workers 50]

Six simulated models with the published latencies and availabilities, one after the other. Calls and failures have to be
equal; latencies differ by the way there and back, by what the threads of both sides wait for each other, and the 95th
percentile by up to 1 % more, because the monitor counts in buckets.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Simulator, benchmark_profiles

if TYPE_CHECKING:
    from holyroute.monitoring.health import TargetHealth
    from holyroute.simulator.statistics import ModelStatistics

NEVER = 1_000_000_000
PLAIN = {  # what is measured is the model: nothing is asked twice, no circuit opens
    "retry": {"sole_attempts": 1, "blip": False},
    "breaker": {"consecutive": NEVER, "consecutive_slow": NEVER, "minimum_calls": NEVER},
    "alerts": {"log": False},
}
HEAD = ("model", "calls", "failures", "average s", "theirs", "off %", "p95 s", "theirs", "off %")


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=50)
    arguments = parser.parse_args()
    profiles = {name: replace(one, completion_tokens=150) for name, one in benchmark_profiles().items()}
    with Simulator(profiles, keep=0) as provider:
        providers = {"holysheep": {"base_url": provider.base_url, "api_key_env": []}}
        config = holyroute.load("/dev/null", env={}, providers=providers, **PLAIN)
        models = {name: replace(one, rpm=None, tpm=None) for name, one in config.models.items()}
        with holyroute.Client(router=Router(replace(config, models=models), env={})) as client:
            for model in profiles:
                with ThreadPoolExecutor(arguments.workers) as pool:
                    list(pool.map(asking(client, model), range(arguments.requests)))
            targets = {one.target: one for one in client.health().targets}
        theirs = provider.statistics()
    print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|")
    for model in profiles:
        print("| " + " | ".join(row(targets[model], theirs[model])) + " |")


def asking(client: holyroute.Client, model: str) -> object:
    """A function that asks a model one question."""
    return lambda number: client.ask(f"question {number}", models=[model], on_failure="return")


def row(ours: TargetHealth, theirs: ModelStatistics) -> list[str]:
    """One model; ends the run where counts differ."""
    total = ours.total
    if (total.count, total.errors) != (theirs.calls, theirs.failures):
        raise SystemExit(f"{ours.target}: counted {total.count} and {total.errors}, the provider {theirs}")
    average, p95 = total.latency.average or 0.0, total.latency.p95 or 0.0
    return [
        ours.target,
        f"{total.count:,}",
        f"{total.errors:,}",
        *(f"{average:.3f}", f"{theirs.average:.3f}", f"{(average / theirs.average - 1) * 100:+.2f}"),
        *(f"{p95:.3f}", f"{theirs.p95:.3f}", f"{(p95 / theirs.p95 - 1) * 100:+.2f}"),
    ]


if __name__ == "__main__":
    main()
