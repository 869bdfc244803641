"""A batch: 1,000 calls on 50 threads, all on one core, at three latencies of the server."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contestants import CLIENTS
from peers import BASELINE
from stage import Stage
from tables import in_turns, ratio, table

if TYPE_CHECKING:
    from collections.abc import Iterable

THREADS, CALLS = 50, 1_000
LATENCIES = ("zero", "constant", "lognormal")  # 50 ms; mean 85 ms, 95th percentile 120 ms
HEAD = ("client", "calls/s", "× requests", "CPU ratio", "efficiency, 50 ms", "efficiency, lognormal")


@dataclass(frozen=True, slots=True)
class Batch:
    """Efficiency: the share of the time that a thread's request was with the server, 1.00 at best."""

    per_second: float
    faster: float  # times the calls per second of the baseline
    cpu: float  # ratio to the baseline
    efficiency: float


def measure(names: Iterable[str], rounds: int) -> dict[str, dict[str, Batch]]:
    """Batches of each client at each latency."""
    results = {}
    with Stage() as stage:
        workers = stage.workers((name for name in names if CLIENTS[name].in_batches), THREADS)

        def block(name: str) -> dict[str, float]:
            seconds, server = workers[name].ask(CALLS, THREADS), stage.manage("/served")
            if server["served"] != CALLS:
                raise SystemExit(f"{name}: the server saw {server['served']} requests, expected {CALLS}")
            return seconds | {"held": server["held"]}

        for latency in LATENCIES:
            stage.manage(f"/hold/{latency}")
            for worker in workers.values():
                worker.ask(2 * THREADS, THREADS)  # opens the connections
            stage.manage("/served")
            blocks = in_turns(workers, rounds, block)
            results[latency] = {name: _batch(rows, blocks[BASELINE]) for name, rows in blocks.items()}
    return results


def _batch(blocks: list[dict[str, float]], base: list[dict[str, float]]) -> Batch:
    columns = {key: [one[key] for one in blocks] for key in blocks[0]}
    bases = {key: [one[key] for one in base] for key in base[0]}
    return Batch(
        per_second=CALLS / statistics.median(columns["wall"]),
        faster=ratio(bases["wall"], columns["wall"]),
        cpu=ratio(columns["cpu"], bases["cpu"]),
        efficiency=statistics.median(one["held"] / THREADS / one["wall"] for one in blocks),
    )


def shown(results: dict[str, dict[str, Batch]]) -> str:
    """The table; calls/s and CPU are those without latency."""
    zero, constant, lognormal = (results[latency] for latency in LATENCIES)
    rows = [
        (
            *(name, f"{one.per_second:.0f}", f"{one.faster:.2f}", f"{one.cpu:.2f}"),
            *(f"{other[name].efficiency:.2f}" for other in (constant, lognormal)),
        )
        for name, one in zero.items()
    ]
    return table(HEAD, rows)
