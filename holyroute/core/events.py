"""What happened, as frozen facts; the only place that calls observers.

An observer is any callable that takes an event. A follower goes along with each call from its start, for those who
must be there while it is under way, as tracing must. One that raises is reported once and never fails a call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Planned, Trace

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


class Following(Protocol):
    """Goes along with one call, in its thread; only the end of a stream may come in another one."""

    def sending(self, attempt: Planned) -> None:
        """An attempt goes out. What is made current here is so while the transport runs."""

    def sent(self, attempt: Planned, seconds: float) -> None:
        """The transport is back, or has raised, after some seconds; a stream has begun."""

    def attempted(self, outcome: Outcome, record: AttemptRecord) -> None:
        """An attempt is over, to the last byte, and judged."""

    def finished(self, trace: Trace) -> None:
        """The call is over, answered or not."""

    def broken(self, error: BaseException, seconds: float) -> None:
        """An exception ended the call after some seconds, such as Ctrl-C; nothing more will be heard of it."""


Follower = Callable[["Call", "Trace"], "Following | None"]  # None: not along with this one


class Events:
    """The observers of one router."""

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = observers
        self._followers: tuple[Follower, ...] = ()
        self._reported: list[Callable[..., Any]] = []  # not a set: an observer may have no hash

    def subscribe(self, observer: Observer) -> None:
        """Add an observer; it sees what happens from now on."""
        self._observers = (*self._observers, observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Remove an observer; nothing happens if it is not there."""
        self._observers = tuple(one for one in self._observers if one != observer)

    def follow(self, follower: Follower) -> None:
        """Add a follower; it goes along with the calls that begin from now on."""
        self._followers = (*self._followers, follower)

    def unfollow(self, follower: Follower) -> None:
        """Remove a follower; it stays with the calls that are under way."""
        self._followers = tuple(one for one in self._followers if one != follower)

    def publish(self, event: Event) -> None:
        """Hand an event to every observer, in the caller's thread."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - whatever it raises
                self._report(observer, event, error)

    def begin(self, call: Call, trace: Trace) -> Followers | None:
        """A call begins; None where nobody goes along with it."""
        if not self._followers:
            return None
        each = ((one, self.tell(one, "the start of a call", one, call, trace)) for one in self._followers)
        return Followers(self.tell, [(one, following) for one, following in each if following is not None])

    def tell(self, who: Callable[..., Any], what: object, function: Callable[..., Any], *facts: Any) -> Any:
        """Call a function of an observer; None where it fails, which is reported the first time."""
        try:
            return function(*facts)
        except Exception as error:  # noqa: BLE001 - whatever it raises
            self._report(who, what, error)
            return None

    def _report(self, who: Callable[..., Any], what: object, error: Exception) -> None:
        if not any(one is who for one in self._reported):
            self._reported.append(who)
            text = "observer %r failed on %s; further failures are not reported"
            logger.error(text, who, what, exc_info=error)


class Followers:
    """All who go along with one call, as one of them."""

    __slots__ = ("_all", "_tell_one")

    def __init__(self, tell: Callable[..., Any], followers: list[tuple[Follower, Following]]) -> None:
        self._tell_one = tell
        self._all = followers

    def sending(self, attempt: Planned) -> None:
        """An attempt goes out."""
        self._tell("sending", attempt)

    def sent(self, attempt: Planned, seconds: float) -> None:
        """The transport is back. Who came last leaves first, so that what they made current is undone in order."""
        self._all.reverse()
        self._tell("sent", attempt, seconds)
        self._all.reverse()

    def attempted(self, outcome: Outcome, record: AttemptRecord) -> None:
        """An attempt is over."""
        self._tell("attempted", outcome, record)

    def finished(self, trace: Trace) -> None:
        """The call is over."""
        self._tell("finished", trace)

    def broken(self, error: BaseException, seconds: float) -> None:
        """An exception ended the call."""
        self._tell("broken", error, seconds)

    def _tell(self, what: str, *facts: Any) -> None:
        for follower, following in self._all:
            self._tell_one(follower, what, _call_method, following, what, *facts)


def _call_method(of: object, name: str, *facts: Any) -> None:
    """Look a method up only where its absence harms nobody."""
    getattr(of, name)(*facts)
