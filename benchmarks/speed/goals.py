"""What holyroute wants to reach, and where it stands. Nothing here fails: a machine's noise is no bug."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imports import OURS
from ours import CHAT, DROP_IN, HIT, UNROUTED
from peers import BASELINE, FLOOR, RIVAL
from tables import table

if TYPE_CHECKING:
    from batches import Batch
    from calls import Cost
    from imports import Import


@dataclass(slots=True)
class Results:
    """What was measured; the parts that were not are empty."""

    calls: dict[str, Cost] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)
    threads: dict[str, dict[str, Batch]] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)

    def cpu(self, name: str) -> float | None:
        """CPU of a call, as a ratio to the baseline."""
        return self.calls[name].ratio if name in self.calls else None

    def counted(self, name: str) -> float | None:
        """Instructions of a call, as a ratio to the baseline."""
        return self.instructions[name] / self.instructions[BASELINE] if name in self.instructions else None

    def faster(self, other: str) -> float | None:
        """How many times the calls per second of another client 50 threads reach with `Client.chat`."""
        batches = self.threads.get("zero", {})
        return batches[CHAT].faster / batches[other].faster if {CHAT, other} <= batches.keys() else None

    def lost(self, latency: str) -> float | None:
        """How much less efficient 50 threads are with `Client.chat` than with bare connections."""
        batches = self.threads.get(latency, {})
        missing = not {CHAT, FLOOR} <= batches.keys()
        return None if missing else batches[FLOOR].efficiency - batches[CHAT].efficiency


@dataclass(frozen=True, slots=True)
class Goal:
    """One line: at most, or at least, so much."""

    work: str
    limit: float
    measured: float | None
    at_least: bool = False

    def row(self) -> tuple[str, ...]:
        """As it is shown."""
        goal = f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        if self.measured is None:
            return self.work, goal, "not measured", ""
        reached = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return self.work, goal, f"{self.measured:.2f}", "yes" if reached else "no"


def goals(results: Results) -> list[Goal]:
    """All of them; ratios are to `requests.Session.post` in the same run."""
    both = (("CPU", results.cpu), ("instructions", results.counted))
    limits = {CHAT: (0.50, 0.30), DROP_IN: (0.80, 0.60), UNROUTED: (1.03, 1.03), HIT: (0.05, 0.05)}
    of_calls = [
        Goal(f"{name}: {what}", limit, value(name))
        for name, pair in limits.items()
        for (what, value), limit in zip(both, pair, strict=True)
    ]
    ours = results.imports.get(OURS)
    base = results.imports.get("import requests")
    return [
        *of_calls,
        Goal("50 threads: calls/s of requests, times", 2.0, results.faster(BASELINE), at_least=True),
        Goal(f"50 threads: calls/s of {RIVAL}, times", 10.0, results.faster(RIVAL), at_least=True),
        Goal(f"50 threads, 50 ms: efficiency below {FLOOR}", 0.03, results.lost("constant")),
        Goal(f"50 threads, lognormal: efficiency below {FLOOR}", 0.03, results.lost("lognormal")),
        Goal("import: CPU", 1.15, ours and ours.ratio),
        Goal("import: MB more than requests", 3.0, ours and base and ours.memory - base.memory),
    ]


def shown(results: Results) -> str:
    """The table."""
    return table(("work", "goal", "measured", "reached"), (goal.row() for goal in goals(results)))
