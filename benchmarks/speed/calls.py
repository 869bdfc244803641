"""What one call costs its process: calls one after another, blocks of all clients in turns."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contestants import CLIENTS
from peers import BASELINE
from stage import Stage
from tables import in_turns, ratio, spread, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stage import Worker

HEAD = ("client", "CPU ratio", "± %", "CPU µs", "wall µs")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in microseconds; the ratio is to the baseline, in CPU."""

    ratio: float
    spread: float
    cpu: float
    wall: float


def measure(names: Sequence[str], rounds: int, calls: int, headers: str) -> dict[str, Cost]:
    """What a call of each client costs."""
    with Stage(headers) as stage:
        workers = warmed(stage, stage.workers(names), calls // 2)

        def block(name: str) -> dict[str, float]:
            seconds = workers[name].ask(calls)
            served, expected = stage.manage("/served")["served"], calls * CLIENTS[name].reaches_server
            if served != expected:
                raise SystemExit(f"{name}: the server saw {served} requests, expected {expected}")
            return seconds

        blocks = in_turns(workers, rounds, block)
    base = [one["cpu"] for one in blocks[BASELINE]]
    return {name: _cost(rows, base, calls) for name, rows in blocks.items()}


def warmed(stage: Stage, workers: dict[str, Worker], calls: int) -> dict[str, Worker]:
    """Every client after its first calls; without those whose cache does not answer yet."""
    ready = {}
    stage.manage("/served")
    for name, worker in workers.items():
        worker.ask(calls)
        if stage.manage("/served")["served"] == calls * CLIENTS[name].reaches_server:
            ready[name] = worker
        else:
            print(f"Left out: {name}: its calls are not answered from a cache\n", flush=True)
    return ready


def _cost(blocks: list[dict[str, float]], base: list[float], calls: int) -> Cost:
    cpu = [one["cpu"] for one in blocks]
    wall = statistics.median(one["wall"] for one in blocks)
    return Cost(
        ratio=ratio(cpu, base),
        spread=spread(cpu),
        cpu=statistics.median(cpu) / calls * 1e6,
        wall=wall / calls * 1e6,
    )


def shown(costs: dict[str, Cost]) -> str:
    """The table."""
    rows = [
        (name, f"{one.ratio:.2f}", f"{one.spread:.1%}".rstrip("%"), f"{one.cpu:.0f}", f"{one.wall:.0f}")
        for name, one in costs.items()
    ]
    return table(HEAD, rows)
