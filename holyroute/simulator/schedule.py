"""Which fault answers next: scripts, standing faults, and faults selected by the name of the model."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holyroute.simulator.exchange import Fault

EVERY_MODEL = "*"


class Schedule:
    """Scripted steps come first, each for one request; then the standing fault.

    Steps for one model come before those for `"*"`, which stands for all models.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: dict[str, deque[Fault]] = {}
        self._standing: dict[str, Fault] = {}

    def script(self, model: str, steps: list[Fault]) -> None:
        """Add one step for each of the next requests to a model."""
        with self._lock:
            self._scripts.setdefault(model, deque()).extend(steps)

    def always(self, model: str, step: Fault) -> None:
        """Answer every request to a model in this way, once its script is over."""
        with self._lock:
            self._standing[model] = step

    def heal(self, model: str | None = None) -> None:
        """Forget what was planned for a model; None: for all of them."""
        with self._lock:
            for plans in (self._scripts, self._standing):
                if model is None:
                    plans.clear()
                else:
                    plans.pop(model, None)

    def take(self, model: str) -> Fault | None:
        """The step for the next request to a model; None when nothing is planned."""
        with self._lock:
            for name in (model, EVERY_MODEL):
                if script := self._scripts.get(name):
                    return script.popleft()
            return self._standing.get(model) or self._standing.get(EVERY_MODEL)
