"""Markdown, and the arithmetic of ratios."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Row = Sequence[object]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios taken round by round, so that what slowed a whole round down cancels out."""
    return statistics.median(value / other for value, other in zip(values, base, strict=True))


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def in_turns(names: Iterable[str], rounds: int, run: Callable[[str], Any]) -> dict[str, list[Any]]:
    """A B C, C B A, A B C …: neighbours in time are compared."""
    order = list(names)
    results = {name: [] for name in order}
    for number in range(rounds):
        for name in reversed(order) if number % 2 else order:
            results[name].append(run(name))
    return results
