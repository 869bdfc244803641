"""What the cache can do for a call: nothing, answer it, or have it asked once for everybody who wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from holyroute.caching.cache import MISS, ResponseCache
from holyroute.caching.coalesce import Caller, Flights
from holyroute.caching.entry import COALESCED, HIT, STALE, entry_of
from holyroute.caching.key import NO_CACHE, NO_STORE, directives, is_deterministic, key_of
from holyroute.config.credentials import callers_credential
from holyroute.core.verdicts import CANCELLED

if TYPE_CHECKING:
    from holyroute.caching.entry import Entry
    from holyroute.config.schema import Config
    from holyroute.core.call import Call
    from holyroute.core.clock import Clock
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.core.trace import Trace


class Claim:
    """A call's business with the cache, for the time that it takes. This one: none, or the answer is there.

    `answer` is set from the start of the block, or the call is for the caller to make. `settle` takes what came of it.
    """

    __slots__ = ("answer",)

    def __init__(self, answer: Outcome | None = None) -> None:
        self.answer = answer

    def settle(self, outcome: Outcome) -> Outcome:
        """Take how the call ended; what comes back is to be shown."""
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


NOTHING = Claim()


class Answers:
    """Decides what is cached and for how long, and lets equal calls be made once at a time.

    State of a router and process. Safe to share between threads.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self.cache = ResponseCache(config.cache, clock)
        self.flights = Flights(clock)
        self.clock = clock
        self._config = config

    def claim(self, call: Call, trace: Trace) -> Claim:
        """To be held while a call is made."""
        if not self._config.cache.enabled or not is_deterministic(call.body) or call.stream:
            return NOTHING
        said = directives(call.cache_control)
        key = None if NO_STORE in said or not self.ttl(call) else key_of(call)
        if key is None:
            return NOTHING
        if NO_CACHE in said:
            return Fetch(self, call, trace, key)
        question = Question(self, call, trace, key)
        answer = question.look()
        return question if answer is None else Claim(answer)

    def ttl(self, call: Call) -> float:
        """Seconds that an answer is fresh, by the task of its call; 0: it is not kept."""
        settings = self._config.cache
        if not settings.tasks:
            return settings.ttl
        task = (call.route_name or ("",))[0] or call.selection.task or ""
        known = task if task in self._config.routes else self._config.routing.task
        return settings.tasks.get(known, settings.ttl)

    def entry(self, call: Call, outcome: Outcome, target: Target) -> Entry | None:
        """What is kept of an answer; None for what is not, such as one that repeats the key of its script."""
        entry = entry_of(outcome, target, self.clock.now(), ttl=self.ttl(call), stale=self._config.cache.stale)
        own = None if entry is None else callers_credential(call)
        if entry is None or (own is not None and own.is_telling and entry.holds(own.secret)):
            return None
        return entry


class Fetch(Claim):
    """A call that wants a new answer; it is kept for the next one."""

    __slots__ = ("_answers", "_call", "_key", "_trace")

    def __init__(self, answers: Answers, call: Call, trace: Trace, key: bytes) -> None:
        super().__init__()
        self._answers = answers
        self._call = call
        self._trace = trace
        self._key = key

    def settle(self, outcome: Outcome) -> Outcome:
        """Keep the answer."""
        self._keep(outcome)
        return outcome

    def _keep(self, outcome: Outcome) -> Entry | None:
        """Keep what a provider answered, if it may be kept."""
        asked = self._trace.attempts
        entry = self._answers.entry(self._call, outcome, asked[-1].target) if asked else None
        if entry is not None:
            self._answers.cache.put(self._key, entry)
        return entry


class Question(Fetch):
    """A call that the cache cannot answer. If the same is being asked in another thread, its answer serves both."""

    __slots__ = ("_caller",)

    def look(self, *, stale: bool = False) -> Outcome | None:
        """A fresh answer that is kept, or a stale one where that is better than none."""
        entry = self._answers.cache.get(self._key)
        if entry is None:
            return None
        now = self._answers.clock.now()
        if now < entry.expires:
            return self._tell(entry, HIT, now)
        return self._tell(entry, STALE, now) if stale else None

    def _tell(self, entry: Entry, how: str, now: float) -> Outcome:
        """One more caller gets an answer."""
        self._answers.cache.count(how)
        return entry.outcome(self._call, how, now)

    def __enter__(self) -> Self:
        answers, call = self._answers, self._call
        # nobody waits for somebody who has more patience than he: a live call for a background one, for instance
        self._caller = Caller((self._key, call.background, call.replayed, call.connect, call.read, call.limit))
        try:
            answers.flights.join(self._caller, self._trace.began + call.deadline, call.cancel)
            shared = self._caller.answer
            # without it there may still be one that came between the first look and our turn
            self.answer = self.look() if shared is None else self._tell(shared, COALESCED, answers.clock.now())
        except BaseException:
            answers.flights.leave(self._caller)
            raise
        if self.answer is None:
            answers.cache.count(MISS)
        return self

    def __exit__(self, *exc: object) -> None:
        self._answers.flights.leave(self._caller)

    def settle(self, outcome: Outcome) -> Outcome:
        """Keep and share an answer, and part from the others: they see for themselves why nobody answered us.

        Who ran out of time, or was called off, says nothing about the question: the next in line takes over.
        """
        trace, flights = self._trace, self._answers.flights
        entry = self._keep(outcome)
        cancelled = trace.cancelled or outcome.verdict is CANCELLED
        if entry is None and (cancelled or trace.out_of_time):
            flights.leave(self._caller)
        else:
            flights.land(self._caller, entry)
        if outcome.is_final or cancelled:
            return outcome
        return self.look(stale=True) or outcome
