"""Rows in, results out: the work of `holyroute batch`, with signals heard and the display kept up to date."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from holyroute.batch.row import Cause, Row
from holyroute.cli.waiting import LOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from holyroute.batch.job import Job
    from holyroute.batch.reading import Pause
    from holyroute.batch.row import RowResult
    from holyroute.cli.batch_sink import Sink

REJECTED = "key rejected"
FULL = "output cannot be written"
INTERRUPTED = "interrupted"
HOPELESS = 100  # rows in a row that fail for want of a good key


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far this run is, all its jobs together. Seconds and USD."""

    done: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0  # put off until a limit frees
    spent: Decimal = Decimal(0)
    seconds: float = 0.0
    models: Mapping[str, int] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)

    @property
    def called_off(self) -> int:
        """Rows that count as not started."""
        return self.causes.get(Cause.CANCELLED, 0)

    @property
    def failures(self) -> dict[str, int]:
        """Causes of failed rows, without what was called off."""
        return {cause: count for cause, count in self.causes.items() if cause != Cause.CANCELLED}

    def plus(self, job: Job) -> Snapshot:
        """With what a job has done until now."""
        now = job.progress
        return Snapshot(
            done=self.done + now.done,
            answered=self.answered + now.answered,
            failed=self.failed + now.failed,
            in_flight=now.in_flight,
            waiting=now.waiting,
            spent=self.spent + now.spent,
            seconds=self.seconds + now.seconds,
            models=Counter(self.models) + Counter(now.models),
            causes=Counter(self.causes) + Counter({str(cause): count for cause, count in now.causes.items()}),
        )


class Watcher(Protocol):
    """Shows how far a run is."""

    def show(self, snapshot: Snapshot) -> None:
        """Called several times a second."""

    def say(self, line: str) -> None:
        """A line that stays."""


class Runner:
    """Runs one job after the other. The main thread listens to signals; another one takes the results.

    Attributes:
        stopped: why rows were left; empty if none was.
        snapshot: what all jobs until now came to.
    """

    def __init__(self, sink: Sink, watcher: Watcher) -> None:
        self.stopped = ""
        self.snapshot = Snapshot()
        self._sink = sink
        self._watcher = watcher
        self._signals = 0
        self._heard = 0
        self._keys: dict[int, str] = {}
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._rejected = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM: the first drains, the second calls off what is in flight, the third leaves."""

        def count(*_: object) -> None:
            self._signals += 1

        numbers = (signal.SIGINT, signal.SIGTERM)
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # as with nohup
        before = {number: signal.signal(number, count) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, start: Callable[[Iterator[Row | Pause]], Job], rows: Iterable[Row | Pause]) -> None:
        """Run a job to its end, whatever ends it.

        Raises:
            BaseException: what the rows themselves raised, after everything in flight has been written.
        """
        self._ended.clear()
        job = start(self._noted(rows))
        # a daemon: whoever leaves at the third signal does not wait for it
        taker = threading.Thread(target=self._take_all, args=[job], name="holyroute-results", daemon=True)
        taker.start()
        while not self._ended.wait(LOOK):
            self._tick(job)
        taker.join()
        self._tick(job)
        self.snapshot = replace(self.snapshot.plus(job), in_flight=0, waiting=0)
        self.stopped = (INTERRUPTED if self._signals else job.stopped) if job.stopped else ""
        if self._error is not None:
            raise self._error

    def _noted(self, rows: Iterable[Row | Pause]) -> Iterator[Row | Pause]:
        """The rows, with the key of each kept until its result has come; what they raise ends them."""
        try:
            for row in rows:
                if isinstance(row, Row):
                    self._keys[row.index] = row.key
                yield row
        except Exception as error:  # noqa: BLE001 - raised again when the flight has landed
            self._error = error

    def _take_all(self, job: Job) -> None:
        try:
            with job:
                for result in job:
                    self._take(result, job)
            self._sink.finish()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error
        finally:
            self._ended.set()

    def _take(self, result: RowResult, job: Job) -> None:
        key = self._keys.pop(result.index)
        cause = result.error.cause if result.error is not None else None
        if cause is Cause.CANCELLED:
            return  # as if it had never been started
        if not self._sink.take(result, key):
            job.drain(FULL)
        self._rejected = self._rejected + 1 if cause is Cause.CREDENTIAL else 0
        if self._rejected == HOPELESS:
            job.drain(REJECTED)

    def _tick(self, job: Job) -> None:
        self._sink.tick()
        if self._signals != self._heard:
            self._heard = self._signals
            self._obey(job)
        with suppress(OSError):  # nobody looks any more; the work goes on
            self._watcher.show(self.snapshot.plus(job))

    def _obey(self, job: Job) -> None:
        if self._signals == 1:
            job.drain(INTERRUPTED)
            self._say("stopping: rows in flight are waited for; Ctrl-C again calls them off")
        elif self._signals == 2:
            job.drain(INTERRUPTED)
            job.cancel()
            self._say("calling off what is in flight")
        else:
            raise KeyboardInterrupt

    def _say(self, line: str) -> None:
        with suppress(OSError):
            self._watcher.say(line)
