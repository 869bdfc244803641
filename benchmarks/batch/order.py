"""Does it pay to start long rows first? Simulated: 50 workers, the longest of the next 100 rows; means of 60 draws.

*By truth* is the best case: how long each row takes is known before it starts. *By prompt* is what a batch can know:
the longest prompt first, on recorded prompts and answers of real models at 60 tokens a second (`--data`). Published
times are drawn, and no prompt tells anything of them. ± is the standard error.
"""

from __future__ import annotations

import csv
import heapq
import random
import statistics
from itertools import islice
from typing import TYPE_CHECKING

from tables import table

from holyroute.simulator.profiles import lognormal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SIZES, WORKERS, AHEAD, DRAWS, QUICK = (200, 1_000, 5_000), 50, 100, 60, 5
FIRST_WORD, SPEED, CHARACTERS = 0.3, 60.0, 4.0  # seconds, tokens a second, characters a token
HEAD = ("times of rows", "rows", "correlation of prompt and time", "in turn, s", "by prompt", "by truth")

Row = tuple[float, float]  # what is known of it, and how long it takes


def makespan(rows: Sequence[Row], ahead: int) -> float:
    """Seconds until the last row ends, if of so many rows that wait the longest starts; 0: rows in turn."""
    ready: list[tuple[float, int, float]] = []
    source = enumerate(rows)
    free = [0.0] * WORKERS

    def take(count: int) -> None:
        for place, (known, seconds) in islice(source, count):
            heapq.heappush(ready, (-known if ahead else place, place, seconds))

    take(max(1, ahead))
    while ready:
        _, _, seconds = heapq.heappop(ready)
        heapq.heapreplace(free, free[0] + seconds)
        take(1)
    return max(free)


def published(mean: float, p95: float) -> list[Row]:
    """Times of a model, with prompts that tell nothing of them."""
    draw = random.Random(1)
    return [(draw.random(), draw.lognormvariate(*lognormal(mean, p95))) for _ in range(10_000)]


def recorded(data: Path) -> Iterator[tuple[str, list[Row]]]:
    """Prompts and answers of each model of which there are enough."""
    with (data / "mmlu_pro_answers.csv").open() as file:
        lines = list(csv.DictReader(file))
    for model in range(len(lines[0]["output_chars"].split(";"))):
        pairs = [(int(line["prompt_chars"]), int(line["output_chars"].split(";")[model])) for line in lines]
        rows = [(prompt, FIRST_WORD + answer / CHARACTERS / SPEED) for prompt, answer in pairs if answer > 0]
        if len(rows) > max(SIZES):
            yield f"recorded, model {model + 1}", rows


def shown(*, quick: bool, data: Path | None, **_: object) -> str:
    """The table."""
    found = [("published, mean 1.8 s, p95 3.5 s", published(1.8, 3.5))]
    if data is not None:
        found += recorded(data)
    return table(HEAD, [line(name, rows, size, quick=quick) for name, rows in found for size in SIZES])


def line(name: str, rows: Sequence[Row], size: int, *, quick: bool) -> tuple[object, ...]:
    """One row of the table."""
    draw = random.Random(2)
    cases = [draw.sample(rows, size) for _ in range(QUICK if quick else DRAWS)]
    in_turn = [makespan(case, 0) for case in cases]
    told = [[(seconds, seconds) for _, seconds in case] for case in cases]
    gains = [
        [makespan(case, AHEAD) / before - 1 for case, before in zip(ordered, in_turn, strict=True)]
        for ordered in (cases, told)
    ]
    shares = (f"{statistics.mean(one):+.1%} ± {statistics.stdev(one) / len(one) ** 0.5:.1%}" for one in gains)
    related = statistics.correlation(*zip(*rows, strict=True))
    return name, f"{size:,}", f"{related:.2f}", f"{statistics.mean(in_turn):.1f}", *shares
