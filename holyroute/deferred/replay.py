"""Replay: parked calls are asked again when somebody may be able to answer.

Calls that the same targets may answer are a group. Of a group nothing is leased while nobody in it may be asked, and
after an outage one call goes first, then two, then four. A call that turns out to be for somebody else than the others
of its group, who is down, goes back untried, to wait its turn.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holyroute.core import verdicts
from holyroute.core.call import Call
from holyroute.core.cancel import CancelToken
from holyroute.deferred.groups import Groups
from holyroute.deferred.handlers import Delivered
from holyroute.deferred.ramp import backoff
from holyroute.exceptions import QueueError, QueueFull, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holyroute.core.outcome import Outcome
    from holyroute.deferred.groups import Group
    from holyroute.deferred.handlers import Handler
    from holyroute.deferred.parked import ParkedCall
    from holyroute.deferred.queue import Lease, RetryQueue
    from holyroute.engine.router import Router

    Send = Callable[[Call, str], Outcome]  # a call, and the idempotency key to send along

logger = logging.getLogger("holyroute")

REST = 1.0  # seconds after an outage of which nobody said how long it lasts
KEEPING, LONGEST_WAIT = 10, 10.0  # times that an answer is tried to be recorded, and seconds between them: a minute
AGAIN, LONGEST = 1.0, 60.0  # seconds until a call is taken up again that came when its group was busy or down


@dataclass(slots=True)
class Progress:
    """What became of the calls that were leased."""

    answered: int = 0
    dead: int = 0  # given up, with the cause
    postponed: int = 0  # nobody could answer yet
    lost: int = 0  # leases that ran out: somebody else has, or had, the call
    unhandled: int = 0  # answered and recorded, but the handler raised
    cause: str = ""  # the latest of calls that were not answered


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
        self.queue = queue
        self.progress = Progress()
        self.changed = threading.Condition()
        self._router = router
        self._send = send
        self._record = record
        self._handlers = handlers
        self._most = queue.settings.concurrency
        self._groups = Groups(router, self._most)
        self._waiting: list[int] = []  # fingerprints of groups of which a call was due at the last look
        self._under_way: dict[str, Work] = {}

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._under_way)

    def take(self) -> tuple[bool, list[Work]]:
        """Lease what may be asked now: whether there was any, and those that can go, each to be handed to `work`."""
        places = self._most - self.in_flight
        if places <= 0:
            return False, []
        self._waiting = self.queue.groups()
        for fingerprint in self._groups.unknown(self._waiting):
            self._meet(fingerprint)
        now = self._router.clock.now()
        with self.changed:
            shares = self._groups.shares(self._waiting, places, now)
        if not shares:
            return False, []
        leases = self.queue.lease(sum(shares.values()), deadline=self._router.config.time.deadline, shares=shares)
        return True, [work for lease in leases if (work := self._admit(lease)) is not None]

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
            at = self._groups.next_at(self._waiting, now)
        return None if at is None or at <= now else at - now

    def cancel(self) -> None:
        """Call off what is under way; it goes back untried."""
        with self.changed:
            works = list(self._under_way.values())
        for work in works:
            assert work.call.cancel is not None
            work.call.cancel.cancel("the replay stops")

    # --- whom to ask ---

    def _meet(self, fingerprint: int) -> None:
        """Find out whom the calls of a group are for, before any is leased."""
        sample = self.queue.sample(fingerprint)
        if sample is None:
            return  # damaged, or gone meanwhile: whoever leases it will see
        with self.changed, suppress(Exception):  # for nobody, or no call at all: so here
            self._groups.learn(fingerprint, self._call(sample))

    def _admit(self, lease: Lease) -> Work | None:
        """A leased call that may be asked now; others go back."""
        call, name = self._call(lease.call), lease.call.handler
        if name is not None and name not in self._handlers:
            self._fail(lease, f"handler {name!r} is not registered in the process that replays", at_fault=True)
            return None
        try:
            with self.changed:
                group = self._groups.learn(lease.group, call)
        except Exception as error:  # noqa: BLE001 - an unknown model, no list of messages: parked by other settings
            self._fail(lease, _named(error), at_fault=True)
            return None
        now = self._router.clock.now()
        with self.changed:
            open_at = self._groups.open_at(group, now)
            if open_at <= now and group.room(now):
                group.in_flight += 1
                work = self._under_way[lease.id] = Work(lease, call, group)
                return work
        wait = max(AGAIN, min(open_at - now, LONGEST))
        if lease.leases > 1:  # it makes way for other groups
            wait = max(wait, backoff(self.queue.settings, lease.leases - 1))
        self._count("ready" if self.queue.postpone(lease, wait) else None)
        return None

    def _call(self, parked: ParkedCall) -> Call:
        time = self._router.config.time
        return Call(
            model=parked.model,
            body=parked.body,
            deadline=time.deadline,
            connect=time.connect,
            read=time.read,
            limit=time.read,
            background=True,
            replayed=True,
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
        recorded = self._keep(work, result)
        self._count("done" if recorded else None)
        if not recorded or name is None:
            return
        answer = Delivered(id=lease.id, key=lease.call.key, result=result, metadata=lease.call.metadata)
        try:
            self._handlers[name](answer)
        except Exception:
            self._count("unhandled")
            logger.exception("handler %r failed for parked call %s, whose answer is recorded", name, lease.id)

    def _keep(self, work: Work, result: dict[str, Any]) -> bool:
        """Record an answer. It was paid for: a full disk or a busy file is given some time, unless the replay stops."""
        import tenacity

        token = work.call.cancel
        assert token is not None
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((QueueFull, QueueUnavailable)),
            wait=tenacity.wait_exponential(max=LONGEST_WAIT),
            stop=lambda state: token.cancelled or state.attempt_number >= KEEPING,
            sleep=self._router.clock.sleep,
            reraise=True,
        )
        return retrying(self.queue.complete, work.lease, result)

    def _fail(self, lease: Lease, cause: str, *, at_fault: bool, retry_after: float = 0.0) -> None:
        self.progress.cause = self.queue.masked(cause)
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
