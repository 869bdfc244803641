"""Replay: parked calls are asked again when somebody may be able to answer.

Calls that the same targets may answer are a group. Of a group nothing is leased while nobody in it may be asked, and
after an outage one call goes first, then two, then four. Which group a call belongs to is known only once it is leased:
one whose group is down goes back untried, to wait its turn.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holyroute.core import verdicts
from holyroute.core.call import Call
from holyroute.core.cancel import CancelToken
from holyroute.deferred.outlook import free_at
from holyroute.deferred.ramp import Ramp, backoff
from holyroute.exceptions import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holyroute.core.outcome import Outcome
    from holyroute.deferred.queue import Lease, RetryQueue
    from holyroute.engine.router import Router

    Send = Callable[[Call, str], Outcome]  # a call, and the idempotency key to send along
    Handler = Callable[["Delivered"], object]

logger = logging.getLogger("holyroute")

GROUPS = 1_024  # that are remembered
SCOUT = 10.0  # seconds between looks for other groups, while all that are known are down
REST = 1.0  # seconds after an outage of which nobody said how long it lasts
AGAIN, LONGEST = 1.0, 60.0  # seconds until a call is taken up again that came when its group was busy or down


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The answer to a parked call, for the handler that it named. It is recorded already."""

    id: str  # of the ticket
    key: str | None
    result: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True)
class Progress:
    """What became of the calls that were leased."""

    answered: int = 0
    dead: int = 0  # given up, with the cause
    postponed: int = 0  # nobody could answer yet
    lost: int = 0  # leases that ran out: somebody else has, or had, the call
    unhandled: int = 0  # answered and recorded, but the handler raised


@dataclass(slots=True)
class Group:
    """Calls that the same targets may answer."""

    ramp: Ramp
    call: Call  # the latest, as a sample
    in_flight: int = 0


@dataclass(slots=True, eq=False)
class Work:
    """A parked call on its way."""

    lease: Lease
    call: Call
    group: Group


class Replayer:
    """Takes parked calls, has them asked, and records what they come to. Safe to share between threads.

    Args:
        queue: where they are parked.
        router: who may be asked, and who is down.
        send: asks; every attempt has to pass through the router.
        record: an answer as JSON.
        handlers: by name; whoever registers one later is heard too.
    """

    def __init__(
        self,
        queue: RetryQueue,
        router: Router,
        *,
        send: Send,
        record: Callable[[Outcome], dict[str, Any]],
        handlers: Mapping[str, Handler],
    ) -> None:
        from cachetools import LRUCache

        self.queue = queue
        self.progress = Progress()
        self.changed = threading.Condition()
        self._router = router
        self._send = send
        self._record = record
        self._handlers = handlers
        self._most = queue.settings.concurrency
        self._groups: LRUCache[tuple[str, ...], Group] = LRUCache(GROUPS)
        self._under_way: dict[str, Work] = {}
        self._scout_at = -float("inf")

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._under_way)

    def take(self) -> tuple[int, list[Work]]:
        """Lease what may be asked now: how many there were, and those that can go, each to be handed to `work`."""
        now = self._router.clock.now()
        with self.changed:
            places = min(self._places(now), self._most - self.in_flight)
        leases = self.queue.lease(places, deadline=self._router.config.time.deadline) if places > 0 else []
        return len(leases), [work for lease in leases if (work := self._admit(lease)) is not None]

    def work(self, work: Work) -> None:
        """Have one call asked, and record how it ended."""
        try:
            self._ask(work)
        except QueueError as error:  # the lease will end by itself
            logger.warning("how parked call %s ended could not be recorded: %s", work.lease.id, error)
        finally:
            with self.changed:
                self._under_way.pop(work.lease.id, None)
                work.group.in_flight -= 1
                self.changed.notify_all()

    def renew(self) -> None:
        """Hold the leases of calls that take long."""
        now = self._router.clock.now()
        with self.changed:
            due = [work for work in self._under_way.values() if work.lease.renew_at <= now]
        for work in due:
            held = self.queue.renew(work.lease)
            if held is None:
                work.lease = replace(work.lease, renew_at=float("inf"))  # lost; its answer will be refused
            else:
                work.lease = held

    def pause(self) -> float | None:
        """Seconds until somebody may be asked again; None: somebody may be now, as far as is known."""
        now = self._router.clock.now()
        with self.changed:
            if not self._groups or self._places(now) > 0:
                return None
            at = min([self._scout_at, *(self._open_at(group, now) for group in self._groups.values())])
            return max(0.0, at - now)

    def cancel(self) -> None:
        """Call off what is under way; it goes back untried."""
        with self.changed:
            works = list(self._under_way.values())
        for work in works:
            assert work.call.cancel is not None
            work.call.cancel.cancel("the replay stops")

    # --- whom to ask ---

    def _places(self, now: float) -> int:
        """How many calls may be leased; one now and then, to see whether there are groups that are not down."""
        places = 0
        for group in self._groups.values():
            if self._open_at(group, now) <= now:
                places += group.ramp.free(group.in_flight, now)
        return places or int(now >= self._scout_at)

    def _open_at(self, group: Group, now: float) -> float:
        """When somebody of a group may be asked."""
        rested = group.ramp.paused_until(now) or now
        return max(rested, free_at(self._router, group.call, self._router.candidates(group.call), now))

    def _admit(self, lease: Lease) -> Work | None:
        """A leased call that may be asked now; others go back."""
        call, name = self._call(lease), lease.call.handler
        if name is not None and name not in self._handlers:
            self._fail(lease, f"handler {name!r} is not registered in the process that replays", at_fault=True)
            return None
        try:
            candidates = self._router.candidates(call)
        except Exception as error:  # noqa: BLE001 - an unknown model, no list of messages: parked by other settings
            self._fail(lease, _named(error), at_fault=True)
            return None
        now = self._router.clock.now()
        with self.changed:
            names = tuple(sorted(one.target.key for one in candidates))
            group = self._groups.get(names)
            if group is None:
                group = self._groups[names] = Group(Ramp(self._most), call)
            group.call = call
            open_at = self._open_at(group, now)
            if open_at <= now and group.ramp.free(group.in_flight, now):
                group.in_flight += 1
                work = self._under_way[lease.id] = Work(lease, call, group)
                return work
            self._scout_at = now + SCOUT
        wait = max(AGAIN, min(open_at - now, LONGEST))
        if lease.leases > 1:  # it makes way for other groups
            wait = max(wait, backoff(self.queue.settings, lease.leases - 1))
        self._count("ready" if self.queue.postpone(lease, wait) else None)
        return None

    def _call(self, lease: Lease) -> Call:
        time, parked = self._router.config.time, lease.call
        return Call(
            model=parked.model,
            body=parked.body,
            deadline=time.deadline,
            connect=time.connect,
            read=time.read,
            limit=time.read,
            background=True,
            cancel=CancelToken(),
            selection=parked.selection,
        )

    # --- what it came to ---

    def _ask(self, work: Work) -> None:
        started = self._router.clock.now()
        try:
            outcome = self._send(work.call, work.lease.id)
        except Exception as error:  # noqa: BLE001 - whatever a payload of somebody else's breaks
            self._fail(work.lease, _named(error), at_fault=True)
        else:
            self._settle(work, outcome, started)

    def _settle(self, work: Work, outcome: Outcome, started: float) -> None:
        trace = outcome.trace
        assert trace is not None
        ramp, now = work.group.ramp, self._router.clock.now()
        if outcome.is_answer:
            with self.changed:
                ramp.succeeded(started)
            self._deliver(work, self._record(outcome))
        elif outcome.verdict is verdicts.CANCELLED:
            self._count("ready" if self.queue.postpone(work.lease) else None)
        elif outcome.is_final or outcome.verdict is verdicts.EMPTY_ANSWER:
            with self.changed:
                ramp.succeeded(started)  # somebody is there, and says that it is the call
            self._fail(work.lease, f"{outcome.verdict}: {outcome.detail}", at_fault=True)
        else:
            with self.changed:
                ramp.outage(now, max(trace.retry_at or 0.0, now + REST))
            retry_after = 0.0 if trace.retry_at is None else max(0.0, trace.retry_at - now)
            self._fail(work.lease, _cause(outcome), at_fault=False, retry_after=retry_after)

    def _deliver(self, work: Work, result: dict[str, Any]) -> None:
        """Record an answer; only then its handler is told."""
        lease, name = work.lease, work.lease.call.handler
        recorded = self.queue.complete(lease, result)
        self._count("done" if recorded else None)
        if not recorded or name is None:
            return
        answer = Delivered(id=lease.id, key=lease.call.key, result=result, metadata=lease.call.metadata)
        try:
            self._handlers[name](answer)
        except Exception:
            self._count("unhandled")
            logger.exception("handler %r failed for parked call %s, whose answer is recorded", name, lease.id)

    def _fail(self, lease: Lease, cause: str, *, at_fault: bool, retry_after: float = 0.0) -> None:
        self._count(self.queue.fail(lease, cause, counts_as_attempt=at_fault, retry_after=retry_after))

    def _count(self, state: str | None) -> None:
        with self.changed:
            self.progress.answered += state == "done"
            self.progress.dead += state == "dead"
            self.progress.postponed += state == "ready"
            self.progress.lost += state is None
            self.progress.unhandled += state == "unhandled"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _cause(outcome: Outcome) -> str:
    """The last thing that happened, on one line."""
    trace = outcome.trace
    assert trace is not None
    lines = [*map(str, trace.attempts[-1:]), *map(str, trace.skipped[-1:])]
    return "; ".join(lines) or str(outcome.verdict)
