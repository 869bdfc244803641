"""A queue that is worked off: by a thread in the background, or by whoever calls `drain`."""

from __future__ import annotations

import atexit
import contextvars
import logging
import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

from holyroute.core import forks
from holyroute.deferred import handlers
from holyroute.deferred.queue import RetryQueue
from holyroute.deferred.replay import Replayer
from holyroute.exceptions import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holyroute.config.schema import QueueSettings
    from holyroute.core.outcome import Outcome
    from holyroute.deferred.handlers import Handler
    from holyroute.deferred.replay import Progress, Send, Work
    from holyroute.engine.router import Router
    from holyroute.stores.base import QueueStore

logger = logging.getLogger("holyroute")

LOOK = 1.0  # seconds between looks for calls that others parked
LONGEST = 5.0  # seconds between looks while nobody may be asked
GRACE = 10.0  # seconds that calls under way are given when the replay stops
CALLED_OFF = 5.0  # seconds that they may take to notice that it is over
HEARD = 1.0  # seconds that the main thread sleeps at most: not every signal wakes it (see cli/waiting)


def in_thread(work: Callable[[], None]) -> None:
    """Do something in a thread that ends with the process, in the context of the caller: in his span, for instance."""
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=[work], name="holyroute-replay", daemon=True).start()


class WorkedQueue(RetryQueue):
    """A retry queue with somebody to replay it.

    Args:
        store: where the calls are.
        settings: of the queue.
        router: who may be asked.
        send: asks, with an idempotency key.
        record: an answer as JSON.
        secrets: all keys that this process knows.
        spawn: runs one replay beside others; by default in a thread.
    """

    def __init__(  # noqa: PLR0913 - what the door knows, and the queue does not
        self,
        store: QueueStore,
        settings: QueueSettings,
        router: Router,
        *,
        send: Send,
        record: Callable[[Outcome], dict[str, Any]],
        secrets: Callable[[], Iterable[str]] = tuple,
        spawn: Callable[[Callable[[], None]], object] = in_thread,
    ) -> None:
        super().__init__(store, settings, secrets=secrets, clock=router.clock)
        self._router = router
        self._send = send
        self._record = record
        self._spawn = spawn
        self._handlers = handlers.of_queue()
        self._ends_with_process = False
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The threads stayed behind, and so did what they had leased."""
        self._thread: threading.Thread | None = None
        self._runs: set[Run] = set()
        self._lock = threading.Lock()

    def handler(self, name: str) -> Callable[[Handler], Handler]:
        """Register what takes the answers of calls that were parked with this name, for this queue alone.

            @client.queue.handler("save")
            def save(answer): table[answer.metadata["row"]] = answer.result["content"]

        It is called in a thread of the replay, once the answer is recorded. If it raises, that is logged, and the
        answer stays where it is: `client.queue.get(answer.id).result`. `holyroute.handler` is the same for all queues.

        Raises:
            InvalidItem: It is no name.
        """
        return handlers.register(self._handlers, name)

    def start(self) -> None:
        """Replay in the background until `stop`, or until the process ends. Starting twice changes nothing."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            if not self._ends_with_process:
                atexit.register(_stop_at_exit, weakref.ref(self))
                self._ends_with_process = True
            run = self._run()
            self._runs.add(run)
            self._thread = threading.Thread(target=self._work_on, args=[run], name="holyroute-queue", daemon=True)
            self._thread.start()

    def stop(self, grace: float = GRACE) -> None:
        """Stop replaying: nothing more is leased, and what is under way at the end of the grace goes back untried.

        Args:
            grace: seconds for calls under way to end.
        """
        with self._lock:
            runs, thread = list(self._runs), self._thread
        for run in runs:
            run.stop(grace)
            with run.replayer.changed:
                run.replayer.changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            for _ in range(math.ceil((grace + CALLED_OFF) / HEARD)):
                thread.join(HEARD)
                if not thread.is_alive():
                    break

    def drain(self, *, until_empty: bool = False) -> Progress:
        """Replay in this thread: what is due and may be asked now, or everything that waits.

        Args:
            until_empty: wait for calls that are not due, and for providers that are down, however long that takes.

        Raises:
            QueueUnavailable: The queue's file cannot be used now; so for `QueueCorrupt` and `QueueVersion`.
        """
        run = self._run()
        with self._lock:
            self._runs.add(run)
        try:
            run.until(run.empty if until_empty else run.idle)
        finally:
            with self._lock:
                self._runs.discard(run)
        return run.replayer.progress

    def _run(self) -> Run:
        replayer = Replayer(self, self._router, send=self._send, record=self._record, handlers=self._handlers)
        return Run(replayer, self._router, self._spawn)

    def _work_on(self, run: Run) -> None:
        """Replay whatever happens to the queue's file: a full disk is emptied, a lock is given up."""
        try:
            while not run.stopping:
                try:
                    run.until(run.never)
                except QueueError as error:
                    logger.warning("the replay pauses: %s", error)
                    run.wait(LONGEST)
        finally:
            with self._lock:
                self._runs.discard(run)


def _stop_at_exit(worked: weakref.ref[WorkedQueue]) -> None:
    """What is under way goes back at once, not when its lease ends."""
    queue = worked()
    if queue is not None:
        queue.stop(grace=0.0)


class Run:
    """One replay from its start to its end."""

    def __init__(self, replayer: Replayer, router: Router, spawn: Callable[[Callable[[], None]], object]) -> None:
        self.replayer = replayer
        self.stopping = False
        self._router = router
        self._spawn = spawn
        self._give_up = float("inf")

    def stop(self, grace: float) -> None:
        """Stop at the next look; whoever says so again can shorten the grace, but not lengthen it."""
        self._give_up = min(self._give_up, self._router.clock.now() + grace)
        self.stopping = True

    def until(self, is_over: Callable[[], bool]) -> None:
        """Replay until something is so, or somebody stops it; then wait for what is under way."""
        try:
            while not self.stopping:
                found, works = self.replayer.take()
                for work in works:
                    self._start(work)
                if not found and not self.replayer.in_flight and is_over():
                    break
                self.replayer.renew()
                self.wait(self._seconds(idle=not found))
        except (KeyboardInterrupt, SystemExit):  # whoever presses Ctrl-C does not want to wait for answers
            self.stop(grace=0.0)
            raise
        finally:
            self._finish()

    def never(self) -> bool:
        """A background replay goes on."""
        return False

    def idle(self) -> bool:
        """Nothing is due, or nobody may be asked."""
        return True

    def empty(self) -> bool:
        """Nothing waits, here or in other hands."""
        stats = self.replayer.queue.stats()
        return stats.ready + stats.leased == 0

    def wait(self, seconds: float) -> None:
        """Wait until a call ends or somebody stops the replay, but no longer than some seconds."""
        changed, clock = self.replayer.changed, self._router.clock
        until = clock.now() + seconds
        with changed:
            while not self.stopping and (left := until - clock.now()) > 0:
                if clock.wait(changed, min(left, HEARD)):
                    break

    def _start(self, work: Work) -> None:
        self._spawn(lambda: self.replayer.work(work))

    def _seconds(self, *, idle: bool) -> float:
        if self.replayer.in_flight:
            return LOOK
        if not idle:
            return 0.0
        pause = self.replayer.pause()
        return LOOK if pause is None else min(max(pause, 0.01), LONGEST)

    def _finish(self) -> None:
        while self.replayer.in_flight:
            now = self._router.clock.now()
            if self.stopping and now >= self._give_up:
                self.replayer.cancel()
            if now >= self._give_up + CALLED_OFF:
                logger.warning("%d parked calls do not end; others get them with their leases", self.replayer.in_flight)
                return
            self.replayer.renew()
            with self.replayer.changed:
                if self.replayer.in_flight:
                    self._router.clock.wait(self.replayer.changed, 0.1 if self.stopping else LOOK)
