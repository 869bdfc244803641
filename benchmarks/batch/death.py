"""1,000 calls on 50 threads; after the first 500 the preferred model is gone. Who still has 1,000 answers, and when.

Two providers in the latency of a fast model, a tenth of its published one. *loop* is what most people write: three
tries per model, a second apart, then the next model; LiteLLM is its `Router` with `fallbacks`. An attempt may take 3 s.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from outage import KEY, Pair, ScaledClock, config_of, contestants, in_threads
from tables import table

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Profile, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS, QUICK, THREADS = 1_000, 200, 50
FAULTS = {"answers 503": "503", "is silent": "silent", "is unplugged": "unplugged"}
HEAD = ("the preferred model", "client", "answered", "lost", "calls at it after its death", "seconds")
FAST = Profile(mean=0.085, p95=0.12)  # deepseek-chat's, a tenth


@dataclass(frozen=True, slots=True)
class Story:
    """What came of it."""

    answered: int
    in_vain: int
    seconds: float


def of_batch(pair: Pair, calls: int) -> int:
    """`Client.batch`: how many answers."""
    with holyroute.Client(router=Router(config_of(pair), env={"KEY": KEY})) as client:
        rows = (f"question {number}" for number in range(calls))
        return sum(result.ok for result in client.batch(rows, max_workers=THREADS, task="general", priority="normal"))


def of_pool(make: Callable[[Pair], Callable[[], object]], pair: Pair, calls: int) -> int:
    """Somebody's function on a `ThreadPoolExecutor`."""
    return sum(call.answered for call in in_threads(make(pair), calls, THREADS))


def tell(run: Callable[[Pair, int], int], fault: str, calls: int) -> Story:
    """One client, and a death in the middle."""
    with Simulator({"ma": FAST}, api_keys=[KEY]) as a, Simulator({"mb": FAST}, api_keys=[KEY]) as b:
        pair, over = Pair(a, b, ScaledClock(1.0)), threading.Event()
        before: list[int] = []

        def kill() -> None:
            while not over.is_set() and not a.wait_for(calls // 2, timeout=0.2):
                pass
            pair.break_a(fault)
            before.append(a.attempts())

        killer = threading.Thread(target=kill)
        killer.start()
        began = time.perf_counter()
        answered = run(pair, calls)
        seconds = time.perf_counter() - began
        over.set()
        killer.join()
        return Story(answered, a.attempts() - before[0], seconds)


def shown(*, quick: bool, **_: object) -> str:
    """The table."""
    calls = QUICK if quick else CALLS
    peers = contestants(peers=True)
    runs = {"holyroute, Client.batch": of_batch}
    runs |= {name: partial(of_pool, make) for name, make in peers.items() if name in {"loop", "LiteLLM Router"}}
    rows = []
    for how, fault in FAULTS.items():
        for name, run in runs.items():
            story = tell(run, fault, calls)
            rows.append((how, name, story.answered, calls - story.answered, story.in_vain, f"{story.seconds:.1f}"))
            print(f"({rows[-1]})", flush=True)
    return "\n" + table(HEAD, rows)
