"""Who may be sent next: the queue of one scope, and the buckets it draws on.

A ticket draws on all buckets or on none. Nobody is overtaken in a class, so that a large prompt is not starved by small
ones, and a class waits while a higher one does. No threads, no clock: `now` is passed in, in monotonic seconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from holyroute.resilience.bucket import Bucket, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holyroute.config.schema import LimitSettings
    from holyroute.resilience.bucket import Kind, Limits

SILENT_MAX = 30.0  # seconds: a 429 that does not say how long
BLOCK_MAX = 86_400.0  # seconds


class Priority(IntEnum):
    """Classes of callers: a lower one is served when no higher one waits."""

    LIVE = 0
    BATCH = 1
    QUEUE = 2


@dataclass(slots=True, eq=False)
class Ticket:
    """A place in the queue, and then leave for one request; settled exactly once (more often does no harm)."""

    tokens: int  # estimated
    priority: Priority
    needs: tuple[float, ...] = ()  # of each bucket
    state: Literal["waiting", "admitted", "over"] = "waiting"
    sent: float = math.nan  # monotonic seconds: when it was admitted
    number: int = 0  # in order of admission, from 1
    drawn: tuple[float, ...] = ()  # from each bucket by everybody until now


class Admission:
    """The queue and the buckets. After every change `pump` says who may go. Not thread-safe: its owner has a lock."""

    def __init__(self, limits: Limits, settings: LimitSettings, jitter: Callable[[], float]) -> None:
        self.pace = Pace(settings)
        self.in_flight = 0
        self._settings = settings
        self._jitter = jitter
        self._refunds = limits.refunds
        self._max_concurrency = limits.max_concurrency or math.inf
        self._buckets = tuple(Bucket(limit, settings) for limit in limits.rates)
        # what the classes below LIVE may take together while live callers have to wait
        self._lower = tuple(Bucket(limit, settings, settings.batch_share) for limit in limits.rates)
        self._all = self._buckets + self._lower
        self._count_requests = tuple(bucket.kind == "requests" for bucket in self._buckets)
        self._lower_in_debt = False
        self._most = min((bucket.limit for bucket in self._buckets if bucket.kind == "tokens"), default=math.inf)
        self._window = min((bucket.window for bucket in self._buckets), default=0.0)
        self._owed = 0.0  # seconds at full rate that the lower buckets have not seen
        self._pressed_until = -math.inf
        self._queues: tuple[OrderedDict[Ticket, None], ...] = tuple(OrderedDict() for _ in Priority)
        self._queued = [0] * len(Priority)  # tokens, per class
        self._admitted = 0
        self._observed = 0  # number of the newest ticket whose headers were applied
        self._silent = 0  # round trips in a row that ended in a 429 without a hint

    @property
    def head(self) -> Ticket | None:
        """Who is next."""
        return next((next(iter(queue)) for queue in self._queues if queue), None)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues))

    def levels(self, now: float) -> list[tuple[Kind, float, float]]:
        """Kind, level and capacity of each bucket."""
        self._advance(now)
        return [(bucket.kind, bucket.level, bucket.capacity) for bucket in self._buckets]

    def eta(self, tokens: int, priority: Priority, now: float) -> float | None:
        """Seconds until one more ticket could be admitted if nobody returned tokens or slots; None: never."""
        if tokens > self._most:
            return None
        self._advance(now)
        ticket = Ticket(tokens, priority, self._needs(tokens, priority))
        return self._ready_at(ticket, now, behind_others=True) - now

    def try_admit(self, tokens: int, priority: Priority, now: float) -> Ticket | None:
        """A ticket, if nobody waits ahead and everything fits at once."""
        ticket = Ticket(tokens, priority, self._needs(tokens, priority))
        self._advance(now)
        is_first = not (self._queues[0] if priority is Priority.LIVE else any(self._queues[: priority + 1]))
        if is_first and self._fits(ticket, now):
            self._admit(ticket, now)
            return ticket
        if priority is Priority.LIVE:
            self._pressed_until = now + self._window
        return None

    def enqueue(self, tokens: int, priority: Priority) -> Ticket:
        """A place at the end of the class's queue; not for what `eta` says never to."""
        ticket = Ticket(tokens, priority, self._needs(tokens, priority))
        self._queues[priority][ticket] = None
        self._queued[priority] += tokens
        return ticket

    def pump(self, now: float) -> list[Ticket]:
        """Admit whoever can go now, in order."""
        self._advance(now)
        admitted = []
        while (head := self.head) is not None and self._fits(head, now):
            self._leave(head)
            self._admit(head, now)
            admitted.append(head)
        if self._queues[Priority.LIVE]:
            self._pressed_until = now + self._window
        return admitted

    def wake_at(self, now: float) -> float | None:
        """When the head can go, at the latest; None: nobody waits, or only the end of another request helps."""
        head = self.head
        if head is None or self.in_flight >= self._max_concurrency:
            return None
        self._advance(now)
        return self._ready_at(head, now)

    def cancel(self, ticket: Ticket) -> None:
        """Leave the queue, or give an admitted ticket back that was never sent: as if it had not been."""
        if ticket.state == "waiting":
            self._leave(ticket)
            ticket.state = "over"
        elif self._close(ticket):
            for bucket, need in zip(self._all, ticket.needs, strict=False):
                bucket.refund(need, ticket.sent)

    def settle(self, ticket: Ticket, actual: int | None, now: float) -> None:
        """The request is over. `actual` tokens correct the estimate; None: nobody knows, nothing comes back.

        A request counts whether it failed or not. More tokens than any limit allows count as that limit: usage of a
        billion must not stop everybody for a day.
        """
        if not self._close(ticket):
            return
        if ticket.sent > self.pace.last_cut:
            self._silent = 0
        if actual is not None and (self._refunds or actual > ticket.tokens):
            if actual > ticket.tokens:  # a debt begins now; what comes back may come before the time that has passed
                self._advance(now)
                self._advance_lower(now)
            self._correct(ticket, min(max(0, actual), self._most))

    def throttle(self, ticket: Ticket, retry_after: float | None, now: float) -> None:
        """A 429: nobody goes for `retry_after` seconds (None: up to 2, doubling up to 30), and then slower.

        The tokens come back, the request does not. Of several requests that were under way at the same time only the
        first cuts the rate: they all say the same thing.
        """
        if not self._close(ticket):
            return
        self._advance(now)
        self._advance_lower(now)
        self._correct(ticket, 0)
        for bucket in self._all:
            bucket.lower(0.0)
        is_news = ticket.sent > self.pace.last_cut
        if is_news:
            self.pace.cut(now)
        if retry_after is not None:
            self._silent = 0
            self.pace.block(now + min(retry_after, BLOCK_MAX), now)
        elif is_news:
            self._silent += 1
            longest = min(SILENT_MAX, 2.0 ** min(self._silent, 10)) * self._settings.window_scale
            self.pace.block(now + longest * (1 + self._jitter()) / 2, now)

    def observe(self, ticket: Ticket, remaining: Mapping[Kind, float], now: float) -> None:
        """What the provider has left, as it said in its answer to a ticket.

        Only ever lowers: what was sent since then is not in the figure, and an older figure says nothing new. Where
        there are several limits of a kind, the one with the shortest window is meant.
        """
        if ticket.number < max(self._observed, 1):
            return
        self._observed = ticket.number
        self._advance(now)
        for kind, left in remaining.items():
            same = [(bucket.window, index) for index, bucket in enumerate(self._buckets) if bucket.kind == kind]
            if same:
                _, index = min(same)
                bucket = self._buckets[index]
                bucket.lower(left - (bucket.drawn - ticket.drawn[index]))

    def _needs(self, tokens: int, priority: Priority) -> tuple[float, ...]:
        needs = [1.0 if requests else float(tokens) for requests in self._count_requests]
        return (*needs, *needs) if priority is not Priority.LIVE else tuple(needs)

    def _advance(self, now: float) -> None:
        """Let time pass; for the lower classes' buckets, which seldom count, only when somebody looks at them."""
        seconds = self.pace.advance(now)
        self._owed += seconds
        for bucket in self._buckets:
            bucket.advance(seconds, now)

    def _advance_lower(self, now: float) -> None:
        seconds, self._owed = self._owed, 0.0
        for bucket in self._lower:
            bucket.advance(seconds, now)

    def _is_pressed(self, now: float) -> bool:
        """Whether a live caller has had to wait within the last window."""
        return now < self._pressed_until

    def _fits(self, ticket: Ticket, now: float) -> bool:
        if now < self.pace.blocked_until or self.in_flight >= self._max_concurrency:
            return False
        if not self._is_pressed(now):
            return all(map(Bucket.holds, self._buckets, ticket.needs))
        self._advance_lower(now)
        return all(map(Bucket.holds, self._all, ticket.needs))

    def _ready_at(self, ticket: Ticket, now: float, *, behind_others: bool = False) -> float:
        """When a ticket can go: as the head, or after everybody who waits ahead of it."""
        last = ticket.priority + 1 if behind_others else 0
        ready = self._holds_at(self._buckets, ticket, slice(last), now)
        if ticket.priority is Priority.LIVE or not self._is_pressed(now):
            return ready
        self._advance_lower(now)
        lower = self._holds_at(self._lower, ticket, slice(1, last), now)
        return max(ready, min(lower, self._pressed_until))

    def _holds_at(self, buckets: tuple[Bucket, ...], ticket: Ticket, ahead: slice, now: float) -> float:
        """When all of some buckets will hold what a ticket and the classes ahead of it need."""
        amounts = {"requests": sum(map(len, self._queues[ahead])), "tokens": sum(self._queued[ahead])}
        seconds, free_at = 0.0, now
        for bucket, need in zip(buckets, ticket.needs, strict=False):
            before = amounts[bucket.kind]
            seconds = max(seconds, bucket.seconds_until(need, before))
            free_at = max(free_at, bucket.free_at(need + before, now))
        return max(self.pace.when(seconds, now), free_at)

    def _leave(self, ticket: Ticket) -> None:
        del self._queues[ticket.priority][ticket]
        self._queued[ticket.priority] -= ticket.tokens

    def _admit(self, ticket: Ticket, now: float) -> None:
        if ticket.priority is not Priority.LIVE:
            self._advance_lower(now)
            self._lower_in_debt = True  # perhaps
        for bucket, need in zip(self._all, ticket.needs, strict=False):
            bucket.take(need, now)
        if self._lower_in_debt and not self._is_pressed(now):
            self._lower_in_debt = False
            for bucket in self._lower:
                bucket.level = max(bucket.level, 0.0)  # no debt from times when it does not count
        self._admitted += 1
        self.in_flight += 1
        ticket.state, ticket.sent, ticket.number = "admitted", now, self._admitted
        ticket.drawn = tuple([bucket.drawn for bucket in self._buckets])

    def _close(self, ticket: Ticket) -> bool:
        """Free the slot; False if that was done before."""
        if ticket.state != "admitted":
            return False
        ticket.state = "over"
        self.in_flight -= ticket.number > 0  # not those that were given out unseen, where nothing limits
        return True

    def _correct(self, ticket: Ticket, actual: float) -> None:
        """Replace the estimate by what was used."""
        if ticket.priority is not Priority.LIVE:
            self._lower_in_debt = True
        for bucket, need in zip(self._all, ticket.needs, strict=False):
            if bucket.kind == "requests":
                continue
            if actual <= need:
                bucket.refund(need - actual, ticket.sent)
            else:
                bucket.charge(actual - need, ticket.sent)
