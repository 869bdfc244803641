"""1,000 calls on 50 threads beside peers: the batches of the speed suite, and what they are to reach."""

from __future__ import annotations

import batches
from contestants import CLIENTS, installed
from ours import BATCH
from peers import BASELINE, FLOOR, RIVAL
from report import versions
from tables import table

MEASURED = (FLOOR, BASELINE, "httpx.Client.post", "openai", RIVAL, BATCH)


def shown(*, quick: bool, **_: object) -> str:
    """The tables."""
    names = installed([name for name in CLIENTS if name in MEASURED])
    results = batches.measure(names, 1 if quick else 5)
    goals = table(("work", "goal", "measured"), _goals(results))
    return f"{versions(names)}\n{batches.shown(results)}\n{goals}"


def _goals(results: dict[str, dict[str, batches.Batch]]) -> list[tuple[str, str, str]]:
    zero = results["zero"]
    rows = [
        (f"calls/s of {other}, times", f"≥ {goal:g}", f"{zero[BATCH].faster / zero[other].faster:.2f}")
        for other, goal in ((BASELINE, 2.0), (RIVAL, 10.0))
        if other in zero
    ]
    for latency, name in (("constant", "50 ms"), ("lognormal", "lognormal")):
        lost = results[latency][FLOOR].efficiency - results[latency][BATCH].efficiency
        rows.append((f"{name}: efficiency below {FLOOR}", "≤ 0.03", f"{lost:.2f}"))
    return rows
