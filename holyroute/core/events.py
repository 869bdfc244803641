"""What happened, as frozen facts; the only place that calls observers.

An observer is any callable that takes an event. One that raises is reported once and never fails a call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Trace

logger = logging.getLogger("holyroute")


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events."""


@dataclass(frozen=True, slots=True)
class AttemptFinished(Event):
    """One target was asked and the answer is classified."""

    call_id: int
    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class CallFinished(Event):
    """A call is over, answered or not."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class CircuitChanged(Event):
    """A target's circuit breaker moved. Times are monotonic seconds."""

    target: Target
    before: str
    after: str
    at: float
    retry_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Benched(Event):
    """A credential, an account or a target is left alone for a while: a key rejected, money out, a model unknown.

    `until` is monotonic seconds.
    """

    target: Target
    scope: str
    reason: str
    until: float
    credential: str | None = None  # the variable or header that holds the key; None: there is none


@dataclass(frozen=True, slots=True)
class BenchEnded(Event):
    """An answer came after a bench: what it was for is over. Its scope and credential are those of the bench."""

    target: Target
    scope: str
    credential: str | None


Observer = Callable[[Event], None]


class Events:
    """The observers of one router."""

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = observers
        self._reported: set[Observer] = set()

    def subscribe(self, observer: Observer) -> None:
        """Add an observer; it sees what happens from now on."""
        self._observers = (*self._observers, observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Remove an observer; nothing happens if it is not there."""
        self._observers = tuple(one for one in self._observers if one != observer)

    def publish(self, event: Event) -> None:
        """Hand an event to every observer, in the caller's thread."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                if observer not in self._reported:
                    self._reported.add(observer)
                    logger.exception("observer %r failed on %s; further failures are not reported", observer, event)
