"""Steps made of other steps."""

from __future__ import annotations

import threading

from holyroute.simulator.exchange import Exchange, Fault
from holyroute.simulator.faults.contents import ok
from holyroute.simulator.faults.statuses import status


def once(step: Fault, times: int = 1) -> Fault:
    """A step for the first request (or the first few) it answers, good answers afterwards."""
    lock = threading.Lock()
    left = times
    good = ok()

    def play(exchange: Exchange) -> None:
        nonlocal left
        with lock:
            left -= 1
            due = left >= 0
        (step if due else good).play(exchange)

    return Fault(f"once:{step.name}", play)


def outage(seconds: float = 60.0, step: Fault | None = None) -> Fault:
    """A step (503 by default) for so many seconds, counted from the first request it answers; then good answers."""
    lock = threading.Lock()
    until: float | None = None
    bad, good = step or status(503), ok()

    def play(exchange: Exchange) -> None:
        nonlocal until
        with lock:
            if until is None:
                until = exchange.arrived + seconds
            due = exchange.arrived < until
        (bad if due else good).play(exchange)

    return Fault(f"outage:{seconds:g}", play)


def billed(step: Fault) -> Fault:
    """A step whose tokens are billed also when the answer never arrives."""

    def play(exchange: Exchange) -> None:
        exchange.billed = True
        step.play(exchange)

    return Fault(f"billed:{step.name}", play)
