"""Who asks for the rows: threads of our own, or somebody else's executor."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from holyroute.batch.ending import Ending, failed
from holyroute.batch.governor import NOTHING
from holyroute.batch.row import Cause, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from holyroute.batch.slot import Slot
    from holyroute.core.cancel import CancelToken
    from holyroute.core.clock import Clock

logger = logging.getLogger("holyroute")


@dataclass(slots=True, kw_only=True)
class Errand:
    """A row to be asked for, and what is known of it. Lives in one process."""

    row: Row
    until: float | None = None  # monotonic seconds by which the call must be over
    allowance: Decimal | None = None  # USD that are set aside for it; None: nobody counts
    extend: Callable[[Decimal], bool] | None = None  # sets more aside
    cancel: CancelToken | None = None
    on_sent: Callable[[], None] | None = None  # called when an attempt leaves


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died that had a row, or its executor would not take it."""

    why: str
    was_taken: bool = True  # by a worker, who may have asked for it


SENT = "sent"  # a row is on its way
HEAD_START = 0.005  # seconds in which threads are started before the first of them begins: with it, each start is slow
News = Ending | Lost | str


class Mailbox:
    """What workers have to say to whoever reads the results. Safe to share between threads."""

    def __init__(self) -> None:
        self._news: deque[tuple[Slot, News]] = deque()
        self._changed = threading.Condition()

    def put(self, slot: Slot, news: News) -> None:
        """Something happened to a row."""
        self._news.append((slot, news))
        with self._changed:
            self._changed.notify()

    def take(self) -> tuple[Slot, News] | None:
        """The next piece, if there is one."""
        return self._news.popleft() if self._news else None

    def wait(self, clock: Clock, seconds: float) -> None:
        """Until there is something, but not longer."""
        with self._changed:
            if not self._news:
                clock.wait(self._changed, seconds)


class Crew(Protocol):
    """Asks for rows, and tells a mailbox what came of each."""

    @property
    def limit(self) -> int:
        """How many rows it may have at a time."""

    @property
    def is_paced(self) -> bool:
        """Whether it tells when a row is on its way."""

    @property
    def is_broken(self) -> bool:
        """Whether it takes no more rows."""

    def give(self, slot: Slot, errand: Errand) -> None:
        """Have a row asked for."""

    def flush(self) -> None:
        """No more rows come for the moment."""

    def recall(self) -> list[Slot]:
        """The rows that nobody has begun with; they are not asked for."""

    def abandon(self) -> list[Slot]:
        """The rows whose end is not waited for any more, because nobody can call them off."""

    def stop(self) -> None:
        """Ask for nothing more."""


class Threads:
    """Rows one at a time, on threads of this process, in the context of whoever made the batch: in his span.

    Args:
        send: asks for a row.
        pool: whose threads are used.
        workers: how many of them.
        mailbox: where the endings go.
        own: the pool is shut down in the end.
    """

    is_paced = True

    def __init__(
        self, send: Callable[[Errand], Ending], pool: Executor, workers: int, mailbox: Mailbox, *, own: bool
    ) -> None:
        # a few more than there are threads, so that none has to wait until the results are read
        self.limit = workers + max(2, workers // 2)
        self.is_broken = False
        self._send = send
        self._pool = pool
        self._own = own
        self._workers = workers
        self._mailbox = mailbox
        self._lock = threading.Lock()
        self._errands: deque[tuple[Slot, Errand]] = deque()
        self._running = 0
        self._context = contextvars.copy_context()
        self._gate = threading.Event()

    def give(self, slot: Slot, errand: Errand) -> None:
        """Have a row asked for; a thread that is at it takes it, or one more is."""
        with self._lock:
            self._errands.append((slot, errand))
            if self._running >= self._workers:
                return
            self._running += 1
            if self._running == self._workers:
                self._gate.set()
        try:
            future = self._pool.submit(self._context.copy().run, self._work)
        except RuntimeError:
            if not self._own:  # somebody shut their pool down
                self._is_missed()
            elif self._pool._threads:  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to ask
                self._make_do()
            else:  # nobody is there to ask for a row
                raise
        else:
            future.add_done_callback(self._looked_after)

    def _make_do(self) -> None:
        """The system has no thread left: those that are there take all rows, and what was handed in just now."""
        with self._lock:
            self._workers = self._running
        self._gate.set()

    def _looked_after(self, future: Future[Any]) -> None:
        """Whoever shuts a pool down may also call off what no thread has begun with."""
        if future.cancelled():
            self._is_missed()

    def _is_missed(self) -> None:
        """A thread does not come. The rows are taken back from a broken crew (`recall`), and others are asked."""
        with self._lock:
            self._running -= 1
        self.is_broken = True

    def flush(self) -> None:
        """All may begin."""
        self._gate.set()

    def recall(self) -> list[Slot]:
        """The rows that no thread has begun with."""
        with self._lock:
            slots = [slot for slot, _ in self._errands]
            self._errands.clear()
        return slots

    def abandon(self) -> list[Slot]:
        """Nothing: each call is called off by its token."""
        return []

    def stop(self) -> None:
        """Ask for nothing more; nobody waits for the calls that are under way."""
        self.recall()
        if self._own:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self) -> None:
        """Rows until there is none: a thread that waited here would hold the end of the program."""
        self._gate.wait(HEAD_START)
        while True:
            with self._lock:
                if not self._errands:
                    self._running -= 1
                    return
                slot, errand = self._errands.popleft()
            is_off = errand.cancel is not None and errand.cancel.cancelled
            self._mailbox.put(slot, Lost("called off", was_taken=False) if is_off else self._ending(errand))

    def _ending(self, errand: Errand) -> Ending:
        try:
            return self._send(errand)
        except BaseException as error:  # noqa: BLE001 - a row that vanished would be waited for for ever
            return Ending(
                result=failed(errand.row, Cause.INTERNAL, f"{type(error).__name__}: {error}"),
                spent=errand.allowance or NOTHING,
                granted=errand.allowance or NOTHING,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How rows are asked for in other processes.

    Attributes:
        work: a module's function, because it is sent by name: `(run_id, number, spec, items) -> endings`.
        run_id: of this batch: some executors answer the same call from memory.
        spec: JSON: how to make a client there.
        chunk: rows in one task.
        slots: tasks that run at the same time.
    """

    work: Callable[..., Sequence[Ending]]
    run_id: str
    spec: dict[str, Any]
    chunk: int
    slots: int


class Elsewhere:
    """Rows in chunks, on somebody else's executor, which is never shut down."""

    is_paced = False

    def __init__(self, executor: Executor, remote: Remote, mailbox: Mailbox, clock: Clock, limit: int | None) -> None:
        self.limit = limit or 2 * remote.slots * remote.chunk
        self.is_broken = False
        self._executor = executor
        self._remote = remote
        self._mailbox = mailbox
        self._clock = clock
        self._lock = threading.Lock()
        self._buffer: list[tuple[Slot, Errand]] = []
        self._under_way: dict[Future[Any], list[Slot]] = {}
        self._number = 0

    def give(self, slot: Slot, errand: Errand) -> None:
        """Put a row into a chunk; one that a worker died of goes by itself."""
        if slot.lost:
            self._submit([(slot, errand)])
            return
        self._buffer.append((slot, errand))
        if len(self._buffer) >= self._remote.chunk:
            self.flush()

    def flush(self) -> None:
        """Let the chunk go that has been begun."""
        chunk, self._buffer = self._buffer, []
        if chunk:
            self._submit(chunk)

    def _submit(self, chunk: list[tuple[Slot, Errand]]) -> None:
        slots = [slot for slot, _ in chunk]
        items = [self._item(errand) for _, errand in chunk]
        self._number += 1
        remote = self._remote
        try:
            # by position only: some executors take keywords for themselves
            future = self._executor.submit(remote.work, remote.run_id, self._number, remote.spec, items)
        except Exception as error:  # noqa: BLE001 - broken, shut down, or what a cluster says when it is gone
            self._break(error)
            for slot in slots:
                self._mailbox.put(slot, Lost(str(error), was_taken=False))
            return
        with self._lock:
            self._under_way[future] = slots
        future.add_done_callback(self._landed)

    def _item(self, errand: Errand) -> dict[str, Any]:
        row = errand.row
        return {
            "index": row.index,
            "body": row.body,
            "model": row.model,
            "models": row.models,
            "task": row.task,
            "priority": row.priority,
            "seconds": None if errand.until is None else errand.until - self._clock.now(),
            "allowance": None if errand.allowance is None else str(errand.allowance),
        }

    def _landed(self, future: Future[Any]) -> None:
        with self._lock:
            slots = self._under_way.pop(future, [])
        try:
            endings = future.result()
            news: list[News] = [_belongs_to(slot.row, ending) for slot, ending in zip(slots, endings, strict=True)]
        except (Exception, CancelledError) as error:  # noqa: BLE001 - whatever an executor says of a dead worker
            if isinstance(error, BrokenExecutor):
                self._break(error)
            news = [Lost(f"{type(error).__name__}: {error}") for _ in slots]
        for slot, one in zip(slots, news, strict=True):
            self._mailbox.put(slot, one)

    def _break(self, error: BaseException) -> None:
        if not self.is_broken:
            self.is_broken = True
            logger.warning("the executor takes no more rows, threads of this process take over: %s", error)

    def recall(self) -> list[Slot]:
        """The rows of chunks that no worker has begun with."""
        buffer, self._buffer = self._buffer, []
        return [slot for slot, _ in buffer] + self._withdrawn(only_idle=True)

    def abandon(self) -> list[Slot]:
        """All rows that are under way."""
        return self._withdrawn(only_idle=False)

    def _withdrawn(self, *, only_idle: bool) -> list[Slot]:
        with self._lock:
            under_way = list(self._under_way.items())
            self._under_way.clear()
        withdrawn: list[Slot] = []
        for future, slots in under_way:
            if future.cancel() or not only_idle:
                withdrawn += slots
                continue
            with self._lock:
                self._under_way[future] = slots
            if future.done():  # in between, when nobody knew whose it was
                self._landed(future)
        return withdrawn

    def stop(self) -> None:
        """Ask for nothing more."""
        self.abandon()


def _belongs_to(row: Row, ending: Ending) -> Ending:
    """An ending as it came, with what did not travel."""
    result = replace(ending.result, index=row.index, id=row.id, line=row.line, columns=row.columns)
    return replace(ending, result=result)
