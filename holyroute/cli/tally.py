"""Counts what one client did: an observer for `demo` and `bench`."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from holyroute.core.events import AttemptFinished, CallFinished, CircuitChanged

if TYPE_CHECKING:
    from holyroute.core.events import Event

OPEN = "open"


class Tally:
    """Attempts and their seconds per model, failovers, circuit openings, seconds of whole calls. Thread-safe."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.answered: defaultdict[str, list[float]] = defaultdict(list)  # seconds of the attempts that answered
        self.reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)  # of those that did not
        self.calls: list[float] = []
        self.failovers = 0
        self.openings = 0
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            if isinstance(event, AttemptFinished):
                self._count(event)
            elif isinstance(event, CallFinished):
                self.calls.append(event.trace.seconds)
                self.failovers += event.trace.failovers
            elif isinstance(event, CircuitChanged):
                self.openings += event.after == OPEN

    def _count(self, event: AttemptFinished) -> None:
        record = event.record
        model = record.target.name
        self.attempts[model] += 1
        if record.verdict.is_answer:
            self.answered[model].append(record.seconds)
        else:
            self.reasons[model][record.verdict.name] += 1
