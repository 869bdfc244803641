"""The retry queue: calls that nobody could answer wait here until somebody can.

| state  | what ends it                                                                                       |
|--------|----------------------------------------------------------------------------------------------------|
| ready  | leased when due; dead when it has waited too long                                                  |
| leased | done with the answer; ready again when put back or when its lease ends; dead with the last attempt |
| done   | forgotten when its answer has been kept long enough                                                |
| dead   | ready again when requeued; forgotten when purged                                                   |

At least once, recorded once: a provider is asked twice only if a process dies between the answer and its commit, or if
a lease runs out; of two answers the one whose lease holds is recorded. Providers get time (`queue.ttl`), calls that may
themselves be at fault get attempts (`queue.attempts`). Delays and leases last an hour at most: an item that a wrong
clock put further ahead is taken up at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.ticket import Ticket
from holyroute.deferred import parked
from holyroute.deferred.ramp import backoff
from holyroute.exceptions import DeadLetter, QueueCorrupt, ResultTimeout, UnknownTicket
from holyroute.stores.base import FURTHEST, NewItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holyroute.config.schema import QueueSettings
    from holyroute.core.clock import Clock
    from holyroute.deferred.parked import ParkedCall
    from holyroute.stores.base import QueueStats, QueueStore, Record, Repair, State

RENEWALS = 3  # in one lease: two may fail
LEASE_FACTOR = 1.5  # of the deadline of one replay
FIRST_LOOK, LATER_LOOKS = 0.05, 1.0  # seconds between looks for a result, doubling

_SHARED = ("id", "key", "state", "attempts", "leases", "not_before", "expires", "created", "finished", "error")


@dataclass(frozen=True, slots=True)
class Lease:
    """A parked call in the hands of one worker. Its id goes along as `Idempotency-Key` with every attempt."""

    id: str
    token: str = field(repr=False)
    call: ParkedCall
    group: int  # of calls that the same targets may answer
    attempts: int  # that count, this one included
    leases: int  # this one included
    seconds: float
    renew_at: float  # monotonic: renew it then, if the call is still under way


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A parked call as it stands. Times are seconds since the epoch."""

    id: str
    key: str | None = field(repr=False)
    state: State
    call: ParkedCall | None  # None once answered, or damaged
    result: Any = field(repr=False)  # the answer, as it was recorded; None until then
    attempts: int
    leases: int
    not_before: float
    expires: float
    created: float
    finished: float | None
    error: str | None  # the latest cause


def open_store(settings: QueueSettings, clock: Clock = SYSTEM_CLOCK) -> QueueStore:
    """The store at `queue.path`; a file is made when it is first used."""
    if settings.path == ":memory:":
        from holyroute.stores.memory import MemoryStore

        return MemoryStore(settings, clock)
    from holyroute.stores import place
    from holyroute.stores.sqlite import SqliteStore

    return SqliteStore(settings.path or place.default(), settings, clock)


class RetryQueue:
    """Parked calls in a store. Safe to share between threads, and between processes where the store is.

    Every method may raise `QueueUnavailable`, `QueueCorrupt` or `QueueVersion`.
    """

    def __init__(
        self,
        store: QueueStore,
        settings: QueueSettings,
        *,
        secrets: Callable[[], Iterable[str]] = tuple,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.settings = settings
        self._store = store
        self._secrets = secrets
        self._clock = clock

    @classmethod
    def open(
        cls,
        settings: QueueSettings,
        *,
        secrets: Callable[[], Iterable[str]] = tuple,
        clock: Clock = SYSTEM_CLOCK,
    ) -> RetryQueue:
        """The queue at `queue.path`; its file is made when it is first used.

        Args:
            settings: where it lies, its limits and times.
            secrets: all keys that this process knows; asked each time something is written.
            clock: of waits, and of what is written down.
        """
        return cls(open_store(settings, clock), settings, secrets=secrets, clock=clock)

    # --- parking, and asking later ---

    def put(self, call: ParkedCall, *, delay: float = 0.0, secrets: Iterable[str] = ()) -> Ticket:
        """Park a call durably.

        With an idempotency key it is parked once, also when it has been answered meanwhile. Without one it is parked
        once as long as the same call waits: a script's own retry loop parks one item.

        Args:
            call: what to ask, and by which route.
            delay: seconds until it may be tried.
            secrets: keys that must not stand in it, besides those that the queue knows of.

        Raises:
            QueueFull: The queue's limit or the disk.
            InvalidItem: It is no JSON, no UTF-8 or too large, or its key stands for another call.
            SecretInPayload: A key stands in it.
        """
        payload = parked.encode(call, self.settings.max_item_bytes, [*self._secrets(), *secrets])
        new = NewItem(
            payload=payload,
            digest=hashlib.blake2b(payload, digest_size=16).hexdigest(),
            group=parked.group_of(call),
            key=call.key,
            delay=delay,
        )
        item_id, created = self._store.put(new)
        return Ticket(item_id, created, self)

    def get(self, ticket_id: str) -> Item:
        """One parked call.

        Raises:
            UnknownTicket: There is none under this id.
        """
        record = self._store.get(ticket_id)
        if record is None:
            raise UnknownTicket(f"unknown ticket {ticket_id!r}: never parked here, or its answer was purged")
        return _item(record)

    def result(self, ticket_id: str, timeout: float | None = None) -> Any:
        """Wait for an answer.

        Args:
            ticket_id: of the parked call.
            timeout: seconds; None waits for ever, 0 only looks.

        Raises:
            ResultTimeout: It is not there yet.
            DeadLetter: The call was given up.
            UnknownTicket: There is none under this id.
        """
        give_up = math.inf if timeout is None else self._clock.now() + timeout
        pause = FIRST_LOOK
        while True:
            item = self.get(ticket_id)
            if item.state == "done":
                return item.result
            if item.state == "dead":
                text = f"parked call {ticket_id} was given up: {item.error}"
                raise DeadLetter(text, id=ticket_id, cause=item.error or "")
            left = give_up - self._clock.now()
            if left <= 0:
                raise ResultTimeout(f"parked call {ticket_id} is not answered yet ({item.state})")
            self._clock.sleep(min(pause, left))
            pause = min(2 * pause, LATER_LOOKS)

    # --- replaying ---

    def groups(self) -> list[int]:
        """The groups of which a call is due, that with the earliest first; a group's calls have the same route."""
        return self._store.groups()

    def sample(self, group: int) -> ParkedCall | None:
        """The next call of a group, still waiting; None if there is none, or it cannot be read."""
        payload = self._store.sample(group)
        try:
            return None if payload is None else parked.decode(payload)
        except ValueError:
            return None

    def lease(self, limit: int, *, deadline: float = 0.0, shares: Mapping[int, int] | None = None) -> list[Lease]:
        """Take up to some calls that are due, first due first; each has to be completed, failed or postponed.

        Take no more than can be sent at once: what waits in a worker runs out of lease.

        Args:
            limit: how many; less than one takes nothing.
            deadline: seconds that one replay may take; the lease is half as long again, at most an hour.
            shares: how many of which groups at most, and none of others; None: of any.
        """
        if limit < 1:
            return []
        seconds = min(FURTHEST, max(self.settings.lease, LEASE_FACTOR * deadline))
        renew_at = self._clock.now() + seconds / RENEWALS
        found = []
        for leased in self._store.lease(limit, seconds, shares):
            try:
                call = parked.decode(leased.payload, leased.key)
            except ValueError as error:
                self._store.bury(leased.id, leased.token, self.masked(f"cannot be read: {error}"))
                continue
            counts = (leased.attempts, leased.leases)
            found.append(Lease(leased.id, leased.token, call, leased.group, *counts, seconds, renew_at))
        return found

    def renew(self, lease: Lease) -> Lease | None:
        """The lease, held for as long again from now; None: it is lost, and the answer will be refused."""
        renew_at = self._clock.now() + lease.seconds / RENEWALS
        held = self._store.renew(lease.id, lease.token, lease.seconds)
        return replace(lease, renew_at=renew_at) if held else None

    def complete(self, lease: Lease, result: Any) -> bool:
        """Record the answer, before anybody is told of it; False: the lease was lost, and nothing was recorded.

        Raises:
            InvalidItem: The answer is no JSON.
        """
        return self._store.complete(lease.id, lease.token, parked.encode_result(result, self._secrets()))

    def fail(
        self, lease: Lease, cause: str, *, counts_as_attempt: bool, retry_after: float = 0.0
    ) -> Literal["ready", "dead"] | None:
        """Put a call back after a failure, or among the dead after its last attempt; None: the lease was lost.

        Args:
            lease: of the call.
            cause: in words; keys in it are masked, and it is cut to 500 characters.
            counts_as_attempt: True where the call itself may be at fault; False for what a provider did, which only the
                time limit ends.
            retry_after: seconds to wait at least; the back-off counts where it is longer.
        """
        delay = max(retry_after, backoff(self.settings, lease.leases))
        return self._store.retry(lease.id, lease.token, delay=delay, error=self.masked(cause), counts=counts_as_attempt)

    def postpone(self, lease: Lease, delay: float = 0.0) -> bool:
        """Give a call back untried, because an outage was found after it was leased; False: the lease was lost."""
        return self._store.retry(lease.id, lease.token, delay=delay, error=None, counts=False) is not None

    def bury(self, lease: Lease, cause: str) -> bool:
        """Give a call up at once, because no attempt can help; False: the lease was lost."""
        return self._store.bury(lease.id, lease.token, self.masked(cause))

    # --- keeping house ---

    def dead(self, limit: int = 100) -> list[Item]:
        """Calls that were given up, the latest first."""
        return [_item(record) for record in self._store.dead(limit)]

    def waiting(self, limit: int = 100) -> list[Item]:
        """Calls that wait or are being replayed, the next one first."""
        return [_item(record) for record in self._store.waiting(limit)]

    def hasten(self, ids: Iterable[str] | None = None) -> int:
        """Let waiting calls, some or all, be tried as soon as somebody may be asked; how many there were."""
        return self._store.hasten(_listed(ids))

    def requeue(self, ids: Iterable[str] | None = None) -> int:
        """Let dead calls wait again, some or all, with fresh attempts and time; how many there were."""
        return self._store.requeue(_listed(ids))

    def purge(self, older_than: float | None = None, *, dead: bool = False) -> int:
        """Delete what is over; how many there were.

        Args:
            older_than: seconds since it ended; by default `queue.retention` for answers, 0 for dead letters.
            dead: dead letters instead of answers.
        """
        if older_than is None:
            older_than = 0.0 if dead else self.settings.retention
        return self._store.purge(older_than, dead=dead)

    def stats(self) -> QueueStats:
        """How many calls are in which state."""
        return self._store.stats()

    def check(self) -> tuple[str, ...]:
        """Read everything, checksums included; what is wrong, in words. Empty: nothing is."""
        return self._store.check()

    def repair(self) -> Repair:
        """Salvage what can be read; what was there before is kept under another name."""
        return self._store.repair()

    def exists(self) -> bool:
        """Whether there is anything to look at; a file is made when something is first parked in it, or replayed."""
        return self._store.exists()

    @property
    def name(self) -> str:
        """Where it lies, for messages."""
        return self._store.name

    def close(self) -> None:
        """Let go of the store; a queue in memory is forgotten."""
        self._store.close()

    def masked(self, text: str) -> str:
        """A cause as it is written down: keys in it are masked, and it is cut to 500 characters."""
        return parked.cause_of(text, self._secrets())


def _listed(ids: Iterable[str] | None) -> list[str] | None:
    return None if ids is None else [ids] if isinstance(ids, str) else list(ids)


def _item(record: Record) -> Item:
    if record.state == "done" and record.result is None:
        raise QueueCorrupt(f"the answer to parked call {record.id} is damaged")
    try:
        call = None if record.payload is None else parked.decode(record.payload, record.key)
    except ValueError:
        call = None
    return Item(
        call=call,
        result=None if record.result is None else json.loads(record.result),
        **{name: getattr(record, name) for name in _SHARED},
    )
