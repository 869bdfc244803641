"""Everything that happened to one call."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, Self

from holyroute.core import verdicts
from holyroute.core.events import AttemptFinished, CallFinished
from holyroute.core.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from requests import Response

    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.completion import Usage
    from holyroute.core.events import Event, Followers
    from holyroute.core.stream import StreamReader
    from holyroute.core.target import Target
    from holyroute.core.ticket import Ticket
    from holyroute.core.verdicts import Verdict

    SomeAttempt = TypeVar("SomeAttempt", bound="Planned")

RESENT = "sent twice: the first connection was closed before a byte came back"  # the provider may bill both
NO_CREDENTIAL = "no credential"  # how the reason of a skip begins when a key is missing
BENCHED = "benched: "  # and when a target is left alone for a while; the verdict follows

_FOR_PEOPLE = {f"{BENCHED}{row}" for row in verdicts.TABLE.values() if not row.queueable}  # time alone mends nothing

_OF_THE_PROCESS = {"_clock", "_publish", "_following"}  # attributes of a trace that do not travel

_ids = itertools.count(1)


class Planned(Protocol):
    """What a trace wants to know of an attempt."""

    @property
    def target(self) -> Target:
        """Who is asked."""

    @property
    def kind(self) -> str:
        """Normal, probe or early."""

    @property
    def own(self) -> bool:
        """Whether this is exactly what the script wrote."""

    @property
    def started(self) -> float:
        """Monotonic seconds."""

    @property
    def notes(self) -> list[str]:
        """What the transport has to say of it."""

    @property
    def reader(self) -> StreamReader | None:
        """Reads along, where the caller wants a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt, for the record. Times in seconds; `started` counts from the start of the call."""

    target: Target
    kind: str  # normal, probe, early
    verdict: Verdict
    status: int | None
    detail: str
    started: float
    seconds: float
    retry_after: float | None
    usage: Usage | None
    first_byte: float | None = None  # seconds until a stream's answer began; `seconds` is until its end

    @property
    def queueable(self) -> bool:
        """Whether the same target may answer later."""
        return self.verdict.queueable or (self.status == 402 and self.retry_after is not None)

    @property
    def cost(self) -> Decimal | None:
        """USD; None where price or usage is unknown."""
        return self.usage.cost(self.target.price) if self.usage is not None else None

    def __str__(self) -> str:
        status = f" {self.status}" if self.status else ""
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{self.target.name} at {self.target.provider.name}: {self.verdict.name}{status}{detail}, "
            f"{self.seconds:.3f} s after {self.started:.3f} s"
        )


@dataclass(frozen=True, slots=True)
class Skip:
    """A candidate that was not asked, and why."""

    target: Target
    reason: str
    retry_at: float | None = None  # monotonic seconds when it may be free again
    after: int = 0  # attempts that were made before

    def __str__(self) -> str:
        return f"{self.target.name} at {self.target.provider.name}: not asked, {self.reason}"


class Trace:
    """The story of one call: whom it asked, what they said, who answered, what it cost.

    Attributes:
        id: number of the call in this process.
        asked: the model or route that the caller named; None for the default route.
        why: where those come from who were to be asked, and in which order; None where nobody was.
        attempts: every attempt, in order.
        skipped: every candidate that was passed over, with the reason.
        answered_by: the target that answered, or None.
        cached: `hit`, `stale` or `coalesced` where the answer is one that was given before; else None.
        ticket: where the call was parked because nobody could answer; else None.
        not_parked: why it was not, though somebody asked for that; else None.
        seconds: duration of the whole call, waits included.
    """

    def __init__(
        self,
        call: Call,
        clock: Clock,
        publish: Callable[[Event], None],
        begin: Callable[[Call, Trace], Followers | None] | None = None,
    ) -> None:
        self.id = next(_ids)
        self.asked = call.asked
        self.why: str | None = None
        self.attempts: list[AttemptRecord] = []
        self.skipped: list[Skip] = []
        self.answered_by: Target | None = None
        self.cached: str | None = None
        self.ticket: Ticket | None = None
        self.not_parked: str | None = None
        self.verdict: Verdict | None = None
        self.began = clock.now()
        self.began_wall = clock.wall()
        self.seconds = 0.0
        self.out_of_time = False
        self.cancelled = False  # by the caller
        self.last: Outcome | None = None  # of the attempt before, while the call is under way
        self._own: Outcome | None = None
        self._last_answer: Outcome | None = None
        self._first_error: Outcome | None = None
        self._clock = clock
        self._publish = publish
        self._following = begin(call, self) if begin is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Who goes along with the call should know when an exception ends it."""
        if error is not None and self._following is not None:
            self._following.broken(error, self._clock.now() - self.began)
            self._following = None

    def followed(self, transport: Callable[[SomeAttempt], Response]) -> Callable[[SomeAttempt], Response]:
        """The transport for an attempt: the same, where nobody goes along with the call."""
        following = self._following
        if following is None:
            return transport

        def send(attempt: SomeAttempt) -> Response:
            following.sending(attempt)
            try:
                return transport(attempt)
            finally:
                following.sent(attempt, self._clock.now() - attempt.started)

        return send

    def record(self, attempt: Planned, outcome: Outcome, first_byte: float | None = None) -> Outcome:
        """Note how an attempt ended; of a stream also the seconds until its answer began."""
        now = self._clock.now()
        record = AttemptRecord(
            target=attempt.target,
            kind=attempt.kind,
            verdict=outcome.verdict,
            status=outcome.status,
            detail="; ".join(filter(None, [outcome.detail, *attempt.notes])) if attempt.notes else outcome.detail,
            started=attempt.started - self.began,
            seconds=now - attempt.started,
            retry_after=outcome.retry_after,
            usage=outcome.usage,
            first_byte=first_byte,
        )
        self.attempts.append(record)
        self._remember(attempt, outcome)
        if outcome.stream is None:
            self._publish(AttemptFinished(self.id, record))
            if self._following is not None:
                self._following.attempted(outcome, record)
        return outcome

    def end(self, attempt: Planned, outcome: Outcome, first_byte: float) -> None:
        """Note how the stream ended that the call was answered with."""
        self.attempts.pop()
        self.record(attempt, outcome, first_byte)
        self.close(outcome)

    def _remember(self, attempt: Planned, outcome: Outcome) -> None:
        self.last = outcome
        if attempt.own:
            self._own = outcome
        if outcome.response is not None:
            self._last_answer = outcome
        elif self._first_error is None:
            self._first_error = outcome

    def skip(self, target: Target, reason: str, retry_at: float | None = None) -> None:
        """Note that a candidate was passed over."""
        self.skipped.append(Skip(target, reason, retry_at, len(self.attempts)))

    @property
    def best(self) -> Outcome:
        """What to show when nobody answered: the caller's own target, the last answer, the first exception."""
        shown = self._own or (None if self.out_of_time else self._last_answer or self._first_error)
        if shown is not None:
            return shown.final() if all(one.verdict is verdicts.CONTEXT_TOO_LONG for one in self.attempts) else shown
        retry_at = self.retry_at
        wait = None if retry_at is None else max(0.0, retry_at - self._clock.now())
        verdict = verdicts.OUT_OF_TIME if self.out_of_time else verdicts.NOT_SENT
        if self.cancelled:
            verdict = verdicts.CANCELLED
        return Outcome(verdict=verdict, retry_after=wait)

    def close(self, outcome: Outcome) -> Outcome:
        """End the call; the outcome that comes back carries this trace."""
        self.verdict = outcome.verdict
        self.seconds = self._clock.now() - self.began
        self.cached = outcome.cached
        if outcome.cached is not None:
            self.answered_by = outcome.target
        elif outcome.is_answer and self.attempts:
            self.answered_by = self.attempts[-1].target
        # answers are large: from here on only the record is kept
        self.last = self._own = self._last_answer = self._first_error = None
        if outcome.stream is None:  # else there is more to come
            self._publish(CallFinished(self))
            if self._following is not None:
                self._following.finished(self)
                self._following = None
        outcome.trace = self
        return outcome

    @property
    def retry_at(self) -> float | None:
        """Monotonic seconds when the first target may be free again, as far as anybody said; None otherwise."""
        passed_over = [skip.retry_at for skip in self.skipped if skip.retry_at is not None]
        asked = [
            self.began + one.started + one.seconds + one.retry_after
            for one in self.attempts
            if one.retry_after is not None
        ]
        return min([*passed_over, *asked], default=None)

    @property
    def queueable(self) -> bool:
        """Whether the same call may be answered later: somebody is out of order for a while, or time was short."""
        if self.cancelled:
            return False
        waiting = any(skip.retry_at is not None and skip.reason not in _FOR_PEOPLE for skip in self.skipped)
        return waiting or self.out_of_time or any(record.queueable for record in self.attempts)

    @property
    def cost(self) -> Decimal | None:
        """USD of all attempts that reported their usage; None where the answer's own cost is unknown, 0 for a hit."""
        if self.cached is None and len(self.attempts) == 1:  # the usual case
            return self.attempts[0].cost
        costs = [record.cost for record in self.attempts]
        if self.cached is not None:
            costs.append(Decimal(0))
        if not costs or costs[-1] is None:
            return None
        return sum((cost for cost in costs[:-1] if cost is not None), costs[-1])

    @property
    def failovers(self) -> int:
        """How often a request went to another target than the one before it in line.

        Before the first request that is the first choice, also where it was passed over for a while: its circuit is
        open, it is benched or at its limit. Who cannot be asked at all, as without a key, is in no line.
        """
        keys = [record.target.key for record in self.attempts]
        if keys and self.skipped:
            keys[:0] = [one.target.key for one in self.skipped if one.after == 0 and one.retry_at is not None][:1]
        return sum(before != after for before, after in itertools.pairwise(keys))

    @property
    def retries(self) -> int:
        """How often a request went to the same target as the one before it."""
        return sum(before.target.key == after.target.key for before, after in itertools.pairwise(self.attempts))

    def __str__(self) -> str:
        from holyroute.core.explain import text

        return text(self)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: `steps` has attempts and skips in order; money is text, times are seconds."""
        from holyroute.core.explain import facts

        return facts(self)

    @property
    def lines(self) -> list[str]:
        """What happened, a line each."""
        return [*map(str, self.attempts), *map(str, self.skipped), *([self.parking] if self.parking else [])]

    @property
    def parking(self) -> str:
        """What became of the wish to park the call; empty where there was none."""
        if self.ticket is not None:
            return f"parked: ticket {self.ticket.id}"
        return "" if self.not_parked is None else f"not parked: {self.not_parked}"

    def __getstate__(self) -> dict[str, Any]:
        # the clock and the observers belong to the process that made the call
        return {key: value for key, value in self.__dict__.items() if key not in _OF_THE_PROCESS}
